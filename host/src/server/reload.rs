//! Reloads, one after another.
//!
//! Owns their order, and what is said of each: configurations load in a task of their own, and the one that was asked for
//! last is the one in service in the end. It must not compare configurations; `prepare.rs` does.

use std::{path::Path, sync::atomic::Ordering, time::Instant};

use tokio::sync::oneshot;

use super::{
    Control, Source, StartError,
    loading::{self, Loading},
};
use crate::control::ReloadReport;

pub(super) type Answer = oneshot::Sender<Result<ReloadReport, String>>;

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
    pub(super) fn replacement(&self, text: String) -> Source {
        let directory = match &self.source {
            Source::File(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
            Source::Text { directory, .. } => directory.clone(),
        };
        Source::Text { text, directory }
    }

    /// Has a configuration loaded, after those that were asked for before it.
    pub(super) fn begin_reload(&mut self, source: Source, answer: Answer) {
        if self.reload.is_some() || self.upgrades.are_running() {
            self.waiting.push_back((source, answer));
            return;
        }
        let loading = loading::load(source, self.loader.clone(), self.service.candidates());
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
            && let Some((source, answer)) = self.waiting.pop_front()
        {
            self.begin_reload(source, answer);
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
