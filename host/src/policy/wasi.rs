//! What a guest gets that insists on WASI, where the policy says `wasi = "empty"`: a world with nothing in it.
//!
//! Owns the context for components, the adapter for core modules of preview 1 (`wasi/preview1.wat`), and what a guest
//! wrote to its standard output, which a fault's message repeats. It must not know why a component wants WASI.
//!
//! Invariants: nothing outside of the instance is reached, and nothing waits. Time advances by 1 us with each reading and
//! random bytes are a fixed sequence, so that the same calls give the same answers and a guest cannot measure time.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, ResourceTable, WasiCtx, WasiCtxView, WasiView,
    cli::{IsTerminal, StdoutStream},
    p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult},
};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{imports::Guest, text::tame};

/// The module that core modules of WASI's preview 1 import from.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";
/// The adapter for them, as text.
pub(super) const PREVIEW1_ADAPTER: &str = include_str!("wasi/preview1.wat");
/// What the adapter calls. Only a component that it was linked to imports this.
pub(super) const OUTPUT: &str = "trimtab:stub/output@0.1.0";
const OUTPUT_WIT: &str = "package trimtab:stub@0.1.0;
    interface output { write: func(bytes: list<u8>); }
    world adapter { import output; }";

/// Of what a guest wrote, so much of the beginning and of the end is kept: Go says first what happened, Python last.
const KEPT_BYTES: usize = 400;
/// Length of the sequence of random bytes, after which it repeats.
const RANDOM_BYTES: usize = 4096;
/// The version that wasmtime-wasi defines; a component may import an older one.
const IO_POLL: &str = "wasi:io/poll@0.2.12";
const IO_STREAMS: &str = "wasi:io/streams@0.2.12";

/// The adapter as a core module that tells what it imports, fit for `ComponentEncoder::adapter`.
///
/// # Errors
/// None but by a mistake in this file.
pub(super) fn preview1_adapter() -> anyhow::Result<Vec<u8>> {
    let mut module = wat::parse_str(PREVIEW1_ADAPTER)?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("output.wit", OUTPUT_WIT)?;
    let world = resolve.select_world(&[package], None).context("one world")?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// The context of one instance.
pub(super) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    output: Arc<Mutex<Output>>,
}

impl Wasi {
    /// No arguments, no environment, no files, no network.
    pub(super) fn empty() -> Self {
        let output = Arc::<Mutex<Output>>::default();
        let mut dice = fastrand::Rng::with_seed(0);
        let mut random = || {
            let bytes = std::iter::repeat_with(|| dice.u8(..)).take(RANDOM_BYTES);
            Deterministic::new(bytes.collect())
        };
        let context = WasiCtx::builder()
            .stdout(Pen(output.clone()))
            .stderr(Pen(output.clone()))
            .monotonic_clock(Ticks::default())
            .wall_clock(Ticks::default())
            .secure_random(random())
            .insecure_random(random())
            .insecure_random_seed(0)
            .build();
        Self {
            context,
            table: ResourceTable::new(),
            output,
        }
    }

    /// Another call begins.
    pub(super) fn forget(&self) {
        *self.output.lock().unwrap_or_else(PoisonError::into_inner) = Output::default();
    }

    /// What the guest wrote in the current call.
    pub(super) fn output(&self) -> Option<String> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    fn write(&self, bytes: &[u8]) {
        self.output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes);
    }
}

impl Guest {
    fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::empty()))
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

/// Defines all of it.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker
        .instance(OUTPUT)?
        .func_wrap("write", |mut store, (bytes,): (Vec<u8>,)| {
            store.data_mut().wasi().write(&bytes);
            Ok(())
        })?;
    // wasmtime-wasi's own would block the thread, or panic on a worker.
    linker.allow_shadowing(true);
    let mut poll = linker.instance(IO_POLL)?;
    for name in ["poll", "[method]pollable.block"] {
        poll.func_new(name, |_, _, _, _| {
            Err(wasmtime::Error::msg("it waits by WASI, which no policy can"))
        })?;
    }
    let mut streams = linker.instance(IO_STREAMS)?;
    streams.func_wrap(
        "[method]output-stream.blocking-write-and-flush",
        |mut store, (_, bytes): (Resource<DynOutputStream>, Vec<u8>)| {
            store.data_mut().wasi().write(&bytes);
            Ok((Ok::<(), Closed>(()),))
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.blocking-flush",
        |_, (_,): (Resource<DynOutputStream>,)| Ok((Ok::<(), Closed>(()),)),
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// How a stream fails, which ours does not.
type Closed = wasmtime_wasi::p2::bindings::sync::io::streams::StreamError;

/// A clock that only its being read moves.
#[derive(Default)]
struct Ticks(Cell<u64>);

impl Ticks {
    fn next_us(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

impl HostMonotonicClock for Ticks {
    fn resolution(&self) -> u64 {
        1000
    }

    fn now(&self) -> u64 {
        self.next_us() * 1000
    }
}

impl HostWallClock for Ticks {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.next_us())
    }
}

/// The beginning and the end of what a guest wrote.
#[derive(Default)]
struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    has_gap: bool,
}

impl Output {
    fn write(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT_BYTES - self.head.len()));
        self.head.extend_from_slice(head);
        let skipped = rest.len().saturating_sub(KEPT_BYTES);
        self.tail.extend(&rest[skipped..]);
        let surplus = self.tail.len().saturating_sub(KEPT_BYTES);
        self.tail.drain(..surplus);
        self.has_gap |= skipped + surplus > 0;
    }

    /// On one line.
    fn text(&self) -> Option<String> {
        let mut bytes = self.head.clone();
        if self.has_gap {
            bytes.extend_from_slice(" ... ".as_bytes());
        }
        bytes.extend(&self.tail);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        (!text.is_empty()).then(|| tame(text.to_owned(), 3 * KEPT_BYTES))
    }
}

/// Writes to the output of an instance.
#[derive(Clone)]
struct Pen(Arc<Mutex<Output>>);

impl IsTerminal for Pen {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pen {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only preview 3 asks for it, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Pen {
    async fn ready(&mut self) {}
}

impl OutputStream for Pen {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(KEPT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_output_the_beginning_and_the_end_are_kept() {
        let mut output = Output::default();
        assert_eq!(output.text(), None);
        output.write(b"panic: bo");
        output.write(b"om\n");
        assert_eq!(output.text().unwrap(), "panic: boom");
        for _ in 0..1000 {
            output.write(b"frame\n");
        }
        output.write(b"the end");
        let text = output.text().unwrap();
        assert!(text.starts_with("panic: boom\\nframe\\n"), "{text}");
        assert!(
            text.contains(" ... ") && text.ends_with("frame\\nthe end"),
            "{text}"
        );
        assert!(text.len() <= 3 * KEPT_BYTES, "{}", text.len());
    }

    #[test]
    fn one_large_piece_is_cut_as_many_small_ones_are() {
        let text = |piece: usize| {
            let mut output = Output::default();
            let bytes: Vec<u8> = (0..10_000_u32).map(|i| b'a' + (i % 26) as u8).collect();
            bytes.chunks(piece).for_each(|chunk| output.write(chunk));
            output.text().unwrap()
        };
        assert_eq!(text(10_000), text(7));
    }

    #[test]
    fn time_advances_by_being_read_only() {
        let clock = Ticks::default();
        let read = || HostMonotonicClock::now(&clock);
        assert_eq!([read(), read(), read()], [1000, 2000, 3000]);
        assert_eq!(HostWallClock::now(&clock), Duration::from_micros(4));
    }

    #[test]
    fn the_adapter_assembles() {
        assert!(preview1_adapter().is_ok_and(|module| !module.is_empty()));
    }
}
