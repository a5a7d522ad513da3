//! Reloads, one after another.
//!
//! Owns their order, and what is said of each: configurations load in a task of their own, and the one that was asked for
//! last is the one in service in the end. It must not compare configurations; `prepare.rs` does.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    Control, Source, StartError,
    loading::{self, Loading, Supply},
};
use crate::{config::Shared, control::ReloadReport};

pub(super) type Answer = oneshot::Sender<Result<ReloadReport, String>>;

/// What is to be loaded. What it means is decided when its turn comes, since another reload may change what serves before that.
pub(super) enum Wanted {
    /// The same files.
    Again,
    /// This text in place of this node's own.
    Text(String),
    /// These tables of the fleet, or none.
    Shared(Option<Arc<Shared>>),
}

/// A reload under way.
pub(super) struct Reload {
    task: tokio::task::JoinHandle<Loading>,
    started: Instant,
    answer: Answer,
}

impl Reload {
    /// What was loaded; never returns without a reload.
    pub(super) async fn loaded(reload: &mut Option<Self>) -> Result<Loading, tokio::task::JoinError> {
        match reload {
            Some(reload) => (&mut reload.task).await,
            None => std::future::pending().await,
        }
    }

    /// Ends it, whoever waits for it.
    pub(super) fn give_up(self) {
        self.task.abort();
    }
}

/// Logs what is in force and should not go unnoticed.
pub(super) fn warn(report: &ReloadReport) {
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
}

impl Control {
    pub(super) fn supply(&self) -> Supply {
        Supply {
            registry: self.registry.clone(),
            loader: self.loader.clone(),
        }
    }

    /// What is wanted, by what is in service just now.
    fn wanted(&self, wanted: Wanted) -> Source {
        let shared = match &self.source {
            Source::Joined { shared, .. } => Some(shared.clone()),
            _ => None,
        };
        match wanted {
            Wanted::Again => self.source.clone(),
            Wanted::Shared(shared) => self.source.with(shared),
            Wanted::Text(text) => {
                let directory = match self.source.own() {
                    Source::File(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
                    Source::Text { directory, .. } => directory.clone(),
                    Source::Joined { .. } => PathBuf::new(),
                };
                Source::Text { text, directory }.with(shared)
            }
        }
    }

    /// Has a configuration loaded, after those that were asked for before it.
    pub(super) fn begin_reload(&mut self, wanted: Wanted, answer: Answer) {
        if self.reload.is_some() || self.upgrades.are_running() {
            self.waiting.push_back((wanted, answer));
            return;
        }
        let source = self.wanted(wanted);
        let loading = loading::load(source, self.supply(), self.service.candidates());
        self.reload = Some(Reload {
            task: tokio::spawn(loading),
            started: Instant::now(),
            answer,
        });
    }

    pub(super) async fn end_reload(&mut self, loaded: Result<Loading, tokio::task::JoinError>) {
        let Some(Reload { started, answer, .. }) = self.reload.take() else {
            return;
        };
        let result = match loaded {
            Ok(Loading {
                source,
                components,
                result,
            }) => {
                self.components = components.unwrap_or_else(|| std::mem::take(&mut self.components));
                let result = match result {
                    Ok(loaded) => self.put_into_service(loaded).await,
                    Err(error) => Err(error),
                };
                if result.is_ok() {
                    self.source = source;
                }
                result
            }
            Err(error) => Err(StartError::Engine(error.to_string())),
        };
        // Whoever asked may have gone.
        let _ = answer.send(self.tell(result, started));
        self.upgrade_if_due();
        self.next_reload();
    }

    /// Begins the reload that waits, if nothing else is under way.
    pub(super) fn next_reload(&mut self) {
        if self.reload.is_none()
            && !self.upgrades.are_running()
            && let Some((wanted, answer)) = self.waiting.pop_front()
        {
            self.begin_reload(wanted, answer);
        }
    }

    /// Logs and counts what became of a reload.
    fn tell(
        &self,
        result: Result<ReloadReport, StartError>,
        started: Instant,
    ) -> Result<ReloadReport, String> {
        match result {
            Ok(report) => {
                let elapsed_ms = started.elapsed().as_millis() as u64;
                warn(&report);
                if report.changed {
                    tracing::info!(elapsed_ms, pools = ?report.pools, policies = ?report.policies, "configuration in service");
                }
                Ok(report)
            }
            Err(error) => {
                self.service.settle();
                self.handle
                    .metrics()
                    .reloads_refused
                    .fetch_add(1, Ordering::Relaxed);
                let text = error.to_string();
                tracing::error!("configuration refused, the old one keeps serving");
                for line in text.lines() {
                    tracing::error!("{line}");
                }
                Err(text)
            }
        }
    }
}
