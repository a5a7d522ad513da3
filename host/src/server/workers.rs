//! The workers' threads: how they start, and the way to them.
//!
//! Owns what a thread is given by the kernel. What a worker does is `proxy/worker.rs`' business.

use std::{thread::JoinHandle, time::Duration};

use tokio::sync::mpsc;

use super::StartError;
use crate::{
    proxy::{Message, Shared, Worker},
    sched,
};

/// Native stack of a worker. Guests may use 512 KiB of it, and running out would end the process.
const WORKER_STACK_BYTES: usize = 8 << 20;
/// Of the kernel's time, for a worker that shares its core: longer than the ticker's, shorter than the usual 3 ms, so that
/// a request does not wait for whatever else runs there, as a build or a looping shadow.
const WORKER_SLICE: Duration = Duration::from_micros(200);

/// A worker's thread and its orders.
pub(super) struct WorkerHandle {
    pub(super) messages: mpsc::UnboundedSender<Message>,
    pub(super) thread: JoinHandle<()>,
}

pub(super) fn start_workers(count: usize, shared: &Shared) -> Result<Vec<WorkerHandle>, StartError> {
    let start = |id| {
        let (messages, orders) = mpsc::unbounded_channel();
        let worker = Worker {
            id,
            shared: shared.clone(),
            messages: orders,
        };
        let thread = std::thread::Builder::new()
            .name(format!("trimtab-{id}"))
            .stack_size(WORKER_STACK_BYTES)
            .spawn(move || {
                sched::take_slices_of(WORKER_SLICE);
                if let Err(error) = worker.run() {
                    tracing::error!(worker = id, %error, "worker cannot run");
                }
            })?;
        Ok(WorkerHandle { messages, thread })
    };
    (0..count)
        .map(start)
        .collect::<std::io::Result<_>>()
        .map_err(StartError::Thread)
}
