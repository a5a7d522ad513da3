//! This node's place in the fleet: joining, taking the configuration that it is told to, and saying how that does.
//!
//! Owns the trial of a generation. Who is to serve what is decided in `fleet`.
//!
//! Invariant: what does not go into service changes nothing, and what is found bad is taken back at once, whether etcd is there or not.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Control, Source, StartError};
use crate::{
    config::{Config, PolicySource, Shared},
    control::Handle,
    fleet::{Attempt, Fleet, Generation, Link, Store, Verdict},
};

/// Between two looks at whether there is something to do: for what was refused, and for a component that could not be had.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was refused here is tried again: it may have been this machine's fault, and no longer be.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Fewer failures than this prove nothing.
const FAILED_MIN: u64 = 10;
/// A share of failed requests below this is not held against a generation.
const FAILED_SHARE: f64 = 0.05;
/// Nor is one that is not this much worse than before.
const WORSE: f64 = 2.0;

/// The first configuration: this node's own, with what the fleet shared last.
pub(super) fn load(source: Source) -> Result<(Source, Config), StartError> {
    let config = source.load()?;
    let Some(fleet) = &config.fleet else {
        return Ok((source, config));
    };
    let opened = Store::open(fleet).map_err(|error| StartError::State {
        path: fleet.directory.display().to_string(),
        error,
    })?;
    let Some(generation) = opened.generation() else {
        return Ok((source, config));
    };
    let source = source.with(Some(tables(&generation)));
    let config = source.load()?;
    Ok((source, config))
}

fn tables(generation: &Generation) -> Arc<Shared> {
    Arc::new(Shared {
        name: format!("generation {}", generation.generation),
        text: generation.text.clone(),
    })
}

impl Control {
    /// Joins the fleet of the configuration, if it names one. Not before there is something to serve.
    pub(super) fn join_fleet(&mut self) -> Result<(), StartError> {
        let Some(config) = &self.service.config.fleet else {
            return Ok(());
        };
        let store = Store::open(config).map_err(|error| StartError::State {
            path: config.directory.display().to_string(),
            error,
        })?;
        let own = self.source.own().clone();
        // What a generation would be beside this node's own tables: the components that it names.
        let check = move |shared: Shared| {
            let joined = own.with(Some(Arc::new(shared)));
            let config = joined.load().map_err(|error| error.to_string())?;
            Ok(named(&config))
        };
        let fleet = Fleet::join(config, Box::new(check));
        let admin = self.handle.admin();
        fleet
            .link
            .tell(|own| own.admin = admin.map(|address| address.to_string()));
        self.handle.set_fleet(fleet.link.clone());
        let node = Node {
            link: fleet.link.clone(),
            handle: self.handle.clone(),
            served: store.generation(),
            store: Arc::new(store),
            canary_for: config.canary_for,
        };
        self.follower = Some(tokio::spawn(node.follow()));
        self.fleet = Some(fleet);
        Ok(())
    }

    pub(super) async fn leave_fleet(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.abort();
        }
        if let Some(fleet) = self.fleet.take() {
            fleet.leave().await;
        }
    }
}

/// The components of a configuration that come from the fleet.
fn named(config: &Config) -> Vec<String> {
    let Some(fleet) = &config.fleet else {
        return Vec::new();
    };
    let digest = |path: &Path| {
        let digest = path.file_stem()?.to_str()?;
        (fleet.component(digest) == path).then(|| digest.to_owned())
    };
    let files = config
        .policies
        .values()
        .filter_map(|policy| match &policy.source {
            PolicySource::File(path) => digest(path),
            PolicySource::Registry(_) | PolicySource::Builtin(_) => None,
        });
    let mut found: Vec<String> = files.collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// This node, as it follows the fleet.
struct Node {
    link: Arc<Link>,
    handle: Handle,
    store: Arc<Store>,
    /// `None` while this node serves what is in its file.
    served: Option<Generation>,
    canary_for: Duration,
}

impl Node {
    /// Goes on until it is aborted.
    async fn follow(mut self) {
        self.say_served(None);
        // Which, and from when on it may be tried again.
        let mut refused: Option<(u64, Option<Instant>)> = None;
        loop {
            let wanted = self.link.target();
            let serves = self.served.as_ref().map_or(0, |served| served.generation);
            let is_refused = refused.is_some_and(|(generation, until)| {
                wanted == Some(generation) && until.is_none_or(|until| Instant::now() < until)
            });
            match wanted.filter(|wanted| *wanted != serves && !is_refused) {
                None => self.link.something_new(LOOK_EVERY).await,
                Some(wanted) => match self.take(wanted).await {
                    Ok(()) => refused = None,
                    Err(Trouble::Away) => self.link.something_new(LOOK_EVERY).await,
                    Err(Trouble::Refused(reason)) => {
                        refused = Some((wanted, Some(Instant::now() + AGAIN_AFTER)));
                        self.say(wanted, Verdict::Refused, Some(reason));
                    }
                    Err(Trouble::Bad) => refused = Some((wanted, None)),
                },
            }
        }
    }

    /// Puts a generation into service, and tries it if it is on trial here.
    async fn take(&mut self, wanted: u64) -> Result<(), Trouble> {
        let generation = match wanted {
            0 => None,
            wanted => Some(self.fetch(wanted).await?),
        };
        let is_trial = self.link.is_trial(wanted);
        let before = Standing::now(&self.handle);
        let shared = generation.as_ref().map(tables);
        self.handle.share(shared).await.map_err(Trouble::Refused)?;
        tracing::info!(
            generation = wanted,
            is_trial,
            "the fleet's configuration is in service"
        );
        let last = std::mem::replace(&mut self.served, generation.clone());
        self.say_served(is_trial.then_some(wanted));
        if is_trial {
            // What is on trial is not kept: a start in the middle of it begins with the one before.
            return self.watch(wanted, &before, generation, last).await;
        }
        self.keep(generation, last).await;
        Ok(())
    }

    /// Watches a generation until it is good or bad, or no longer wanted.
    async fn watch(
        &mut self,
        wanted: u64,
        before: &Standing,
        generation: Option<Generation>,
        last: Option<Generation>,
    ) -> Result<(), Trouble> {
        let end = Instant::now() + self.canary_for;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(reason) = before.worse(&Standing::now(&self.handle), left.is_zero()) {
                tracing::warn!(generation = wanted, reason, "the fleet's configuration is bad");
                self.take_back(last).await;
                self.say(wanted, Verdict::Bad, Some(reason));
                return Err(Trouble::Bad);
            }
            if left.is_zero() {
                break;
            }
            self.link.something_new(left.min(LOOK_EVERY)).await;
            if self.link.target() != Some(wanted) {
                return Ok(());
            }
        }
        self.keep(generation, last).await;
        self.say(wanted, Verdict::Good, None);
        Ok(())
    }

    /// Serves what served before, which is on the disk still.
    async fn take_back(&mut self, last: Option<Generation>) {
        match self.handle.share(last.as_ref().map(tables)).await {
            Ok(_) => {
                self.served = last;
                self.say_served(None);
            }
            Err(error) => tracing::error!(error, "what served before cannot be put back"),
        }
    }

    /// The record and the components that it names, on this node's disk.
    async fn fetch(&self, wanted: u64) -> Result<Generation, Trouble> {
        let away = |error: crate::fleet::Denied| match error {
            crate::fleet::Denied::Away(_) => Trouble::Away,
            error => Trouble::Refused(error.to_string()),
        };
        let generation = self.link.generation(wanted).await.map_err(away)?;
        for digest in &generation.policies {
            if self.store.has(digest) {
                continue;
            }
            let wasm = self.link.download(digest).await.map_err(away)?;
            let (store, digest) = (self.store.clone(), digest.clone());
            let added = tokio::task::spawn_blocking(move || store.add(&digest, &wasm)).await;
            let added = added.map_err(|error| Trouble::Refused(error.to_string()))?;
            added.map_err(|error| Trouble::Refused(format!("a component cannot be kept: {error}")))?;
        }
        Ok(generation)
    }

    async fn keep(&self, generation: Option<Generation>, last: Option<Generation>) {
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || match generation {
            Some(generation) => store.keep(&generation, last.as_ref()),
            None => store.forget(),
        });
        let error = match kept.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            error,
            "the fleet's configuration cannot be kept; a start without etcd would serve the one before"
        );
    }

    /// What serves now, and whether that is on trial.
    fn say_served(&self, trial: Option<u64>) {
        let generation = self.served.as_ref().map_or(0, |served| served.generation);
        self.link.tell(|own| {
            own.generation = generation;
            // A trial that was given up has no end to tell of.
            own.attempt.take_if(|attempt| attempt.verdict == Verdict::Trying);
            if let Some(generation) = trial {
                own.attempt = Some(Attempt {
                    generation,
                    verdict: Verdict::Trying,
                    reason: None,
                });
            }
        });
    }

    fn say(&self, generation: u64, verdict: Verdict, reason: Option<String>) {
        self.link.tell(|own| {
            own.attempt = Some(Attempt {
                generation,
                verdict,
                reason,
            });
        });
    }
}

/// Why a generation is not in service.
enum Trouble {
    /// etcd does not answer; it is wanted all the same.
    Away,
    /// It did not go into service here.
    Refused(String),
    /// It did, and was taken back.
    Bad,
}

/// What is looked at before and after.
struct Standing {
    failed: u64,
    answered: u64,
    /// Pools without any backend that could be used.
    empty: Vec<String>,
}

impl Standing {
    fn now(handle: &Handle) -> Self {
        let metrics = handle.metrics();
        let pools = handle.pools();
        let empty = pools.iter().filter(|view| view.pool.snapshot().usable == 0);
        Self {
            failed: metrics.total(|worker| &worker.errors),
            answered: (0..6)
                .map(|class| metrics.total(|worker| &worker.responses[class]))
                .sum(),
            empty: empty.map(|view| view.pool.name().to_owned()).collect(),
        }
    }

    /// Why things are worse than they were, if they are. Only in the end are pools held against it: checks take a while.
    fn worse(&self, now: &Self, is_end: bool) -> Option<String> {
        let failed = now.failed.saturating_sub(self.failed);
        let answered = now.answered.saturating_sub(self.answered);
        let share = |failed: u64, answered: u64| failed as f64 / answered.max(1) as f64;
        let (is, was) = (share(failed, answered), share(self.failed, self.answered));
        if failed >= FAILED_MIN && is > FAILED_SHARE && is > was * WORSE {
            return Some(format!(
                "{failed} of {answered} requests failed, {:.1} % and {:.1} % before",
                is * 100.0,
                was * 100.0
            ));
        }
        let mut empty = now.empty.iter().filter(|pool| !self.empty.contains(pool));
        let pool = empty.next().filter(|_| is_end)?;
        Some(format!("pool {pool} has no usable backend"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(failed: u64, answered: u64, empty: &[&str]) -> Standing {
        Standing {
            failed,
            answered,
            empty: empty.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_generation_is_bad_if_more_fails_than_before() {
        let before = standing(100, 10_000, &["old"]);
        let after =
            |failed: u64, answered: u64| before.worse(&standing(100 + failed, 10_000 + answered, &[]), false);
        assert_eq!(after(9, 9), None, "too few");
        assert_eq!(after(50, 1000), None, "5 %");
        assert_eq!(
            after(51, 1000).as_deref(),
            Some("51 of 1000 requests failed, 5.1 % and 1.0 % before")
        );
        let bad = standing(1000, 10_000, &[]);
        assert_eq!(
            bad.worse(&standing(1150, 11_000, &[]), false),
            None,
            "no worse than before"
        );
    }

    #[test]
    fn a_pool_that_nobody_can_use_is_bad_in_the_end() {
        let before = standing(0, 0, &["old"]);
        let after = standing(0, 0, &["old", "new"]);
        assert_eq!(before.worse(&after, false), None);
        assert_eq!(
            before.worse(&after, true).as_deref(),
            Some("pool new has no usable backend")
        );
        assert_eq!(
            before.worse(&standing(0, 0, &["old"]), true),
            None,
            "it was so before"
        );
    }
}
