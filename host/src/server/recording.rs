//! Which decisions are recorded, and when: some of each pool that says so, again and again, and whatever an operator asks.
//!
//! Owns the schedule, and the way of a recorded instance into its worker, which is that of a rebuilt one. It must not know
//! what a recording looks like.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::Control;
use crate::{
    config,
    control::{PoolView, RecordReport},
    policy::{Instance, Opened, Recordings, Segment, Storage},
    proxy::Message,
};

/// How often the schedule is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Of a pool that says nothing.
const PICKS_DEFAULT: u32 = 10_000;

pub(super) fn recordings(record: &config::Record) -> Recordings {
    Recordings::new(storage(record))
}

pub(super) fn storage(record: &config::Record) -> Storage {
    Storage {
        directory: record.directory.clone(),
        disk_bytes: record.limit_bytes as u64,
        memory_bytes: record.memory_bytes,
    }
}

/// When each pool's last segment began.
#[derive(Default)]
pub(super) struct Sampler {
    began: BTreeMap<String, Instant>,
}

impl Sampler {
    fn is_due(&mut self, pool: &config::Pool, now: Instant) -> bool {
        let Some(sampling) = &pool.record else {
            self.began.remove(&pool.name);
            return false;
        };
        let began = self.began.get(&pool.name);
        let is_due = began.is_none_or(|began| now.duration_since(*began) >= sampling.every);
        if is_due {
            self.began.insert(pool.name.clone(), now);
        }
        is_due
    }
}

impl Control {
    /// Begins the segments that are due.
    pub(super) fn sample(&mut self) {
        let now = Instant::now();
        for view in self.handle.pools().iter() {
            if self.sampler.is_due(&view.pool.config, now) {
                // Nobody waits for the answer; what went wrong is in the log.
                self.begin(view, None, oneshot::channel().0);
            }
        }
    }

    /// Begins a segment because somebody asks.
    pub(super) fn record(
        &self,
        pool: &str,
        picks: Option<NonZeroU32>,
        done: oneshot::Sender<Result<RecordReport, String>>,
    ) {
        let pools = self.handle.pools();
        match pools.iter().find(|view| view.pool.name() == pool) {
            Some(view) => self.begin(view, picks, done),
            None => drop(done.send(Err(format!("no pool is called {pool:?}")))),
        }
    }

    /// Has an instance built for each worker, which then takes the place of the one there.
    fn begin(
        &self,
        view: &PoolView,
        picks: Option<NonZeroU32>,
        done: oneshot::Sender<Result<RecordReport, String>>,
    ) {
        let recordings = self.handle.recordings().clone();
        let workers: Vec<_> = self
            .workers
            .iter()
            .map(|worker| worker.messages.clone())
            .collect();
        let view = view.clone();
        tokio::spawn(async move {
            let name = view.pool.name().to_owned();
            let begun = tokio::task::spawn_blocking(move || begin(&recordings, &view, picks, &workers)).await;
            let result = begun.unwrap_or_else(|error| Err(format!("building an instance panicked: {error}")));
            match &result {
                Ok(report) => {
                    let file = report.file.as_ref().map(|file| file.display().to_string());
                    tracing::info!(pool = name, picks = report.picks, file, "recording decisions");
                }
                Err(error) => tracing::warn!(pool = name, "decisions are not recorded: {error}"),
            }
            let _ = done.send(result);
        });
    }
}

fn begin(
    recordings: &Recordings,
    view: &PoolView,
    picks: Option<NonZeroU32>,
    workers: &[UnboundedSender<Message>],
) -> Result<RecordReport, String> {
    let sampling = view.pool.config.record.as_ref();
    let of_pool = sampling.map_or(PICKS_DEFAULT, |sampling| sampling.picks.get());
    let segment = Segment {
        pool: view.pool.name().into(),
        candidate: view.deployment.candidate.clone(),
        workers: workers.len(),
        picks: picks.map_or(of_pool, NonZeroU32::get),
        headers: sampling
            .map_or_else(Vec::new, |sampling| sampling.headers.clone())
            .into(),
        show: sampling
            .map_or_else(Vec::new, |sampling| sampling.show.clone())
            .into(),
    };
    let Opened { recorders, path } = recordings.open(&segment).map_err(|error| error.to_string())?;
    let streams = recorders
        .iter()
        .map(|recorder| format!("{:x}", recorder.stream))
        .collect();
    // All are built before any serves, so that it is all workers or none.
    let instances = recorders
        .into_iter()
        .map(|recorder| Instance::build_recorded(&segment.candidate, &view.pool, recorder))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|fault| fault.to_string())?;
    for (instance, worker) in instances.into_iter().zip(workers) {
        // A worker that is gone has logged why.
        let _ = worker.send(Message::Install {
            pool: view.pool.name().to_owned(),
            deployment: view.deployment.clone(),
            instance: Box::new(instance),
        });
    }
    Ok(RecordReport {
        pool: view.pool.name().to_owned(),
        picks: segment.picks,
        streams,
        file: path,
    })
}
