//! A member's place in the cluster, which goes from one process to the next: of two processes one at most is the member.
//!
//! Owns the order of it. The old process gives its lease to another node first, as before a stop, and ends as a member when the others can do
//! without it; then the new one begins as after any start, and remembers nothing. Until the old one has ended as a member nothing has
//! changed that it would not go on from. When that is, the protocol says (`cluster/src/parting.rs`).
//!
//! Invariant: a process that has ended as a member is one again only when the other process is gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{Control, Seat, StartError, cluster::welcome_at, sockets::Newcomers};
use crate::{
    cluster::{self, Link, Standing, View},
    config::Takeover,
    control::{Handle, UpgradeStage, UpgradeView},
    handover::Inheritance,
};

/// Between two tries to be the member again.
pub(super) const AGAIN: Duration = Duration::from_millis(100);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For the others to be able to do without this member. Longer than another one takes to be replaced.
const NEEDED_FOR: Duration = Duration::from_secs(10);
/// Whoever was not heard for so long is away.
const HEARD_WITHIN_MS: u64 = 2_000;

/// What this process gives to the next.
pub(super) struct Place {
    link: Arc<Link>,
    handle: Handle,
    /// For giving the lease to another node.
    handing_over_max: Duration,
    /// It has a socket that the next process wants.
    answering: Option<AbortHandle>,
}

/// The member goes on if this is dropped.
struct Staying<'a>(&'a Link);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.0.stay();
    }
}

impl Place {
    /// Ends as a member, after the lease is another node's.
    ///
    /// # Errors
    /// Why the others cannot do without this one. It goes on then.
    pub(super) async fn give(self) -> Result<(), String> {
        self.publish(UpgradeStage::Leaving);
        let _staying = Staying(&self.link);
        let mut parted = std::pin::pin!(self.link.part());
        let mut until = Instant::now() + NEEDED_FOR;
        let mut is_handing_over = false;
        loop {
            tokio::select! {
                has_parted = &mut parted => match has_parted {
                    true => break,
                    false => return Err("this process is no member of the cluster any more".to_owned()),
                },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let is_active = matches!(self.link.view().role, Standing::Active | Standing::Leaving);
            if is_active
                && !is_handing_over
                && let Ok(to) = self.link.leave().await
            {
                tracing::info!(to, "handing over before the upgrade");
                is_handing_over = true;
                until = Instant::now() + self.handing_over_max + NEEDED_FOR;
            }
            if Instant::now() < until {
                continue;
            }
            let view = self.link.view();
            self.link.stay();
            if !parted.await {
                return Err(refusal(&view));
            }
            break;
        }
        if let Some(answering) = &self.answering {
            answering.abort();
        }
        tracing::info!("this process is no member of the cluster any more; the new one takes its place");
        self.publish(UpgradeStage::Joining);
        Ok(())
    }

    fn publish(&self, stage: UpgradeStage) {
        self.handle.set_upgrade(UpgradeView {
            stage: Some(stage),
            last_error: None,
        });
    }
}

/// Why a member cannot be replaced, for whoever wants to know what to do.
fn refusal(view: &View) -> String {
    let others = view.members.iter().filter(|member| member.name != view.node);
    let trouble = |member: &cluster::MemberView| {
        let trouble = match member.heard_ms {
            None => "was never heard".to_owned(),
            Some(age_ms) if age_ms > HEARD_WITHIN_MS => format!("was not heard for {age_ms} ms"),
            Some(_) if member.presence == "parting" => "is being replaced".to_owned(),
            Some(_) if member.presence == "silent" => "has just started".to_owned(),
            Some(_) if member.role == "node" && !member.fit => "is not ready".to_owned(),
            Some(_) => return None,
        };
        Some(format!("{} {trouble}", member.name))
    };
    let troubles: Vec<_> = others.filter_map(trouble).collect();
    let why = match (view.role, troubles.is_empty()) {
        (Standing::Active | Standing::Leaving, true) => {
            "no other node has taken the lease in time, or the others have no majority without it".to_owned()
        }
        (Standing::Active | Standing::Leaving, false) => {
            format!("no other node is ready to follow: {}", troubles.join(", "))
        }
        (_, true) => "the others have no majority without it".to_owned(),
        (_, false) => format!("the others have no majority without it: {}", troubles.join(", ")),
    };
    format!(
        "this member of the cluster cannot be replaced now: {why}. To upgrade all the same, with a gap: stop it and start the new program"
    )
}

impl Control {
    /// What the next process may want.
    pub(super) fn place(&self) -> Option<Place> {
        let seat = self.seat.as_ref()?;
        Some(Place {
            link: seat.link.clone(),
            handle: self.handle.clone(),
            handing_over_max: seat.handing_over_max(self.service.config.drain),
            answering: self.warmth.as_ref().map(super::Warmth::answering),
        })
    }

    /// Waits until the process before is no member any more, if it is one. What can be found out before is found out before.
    pub(super) async fn wait_for_place(&self, inheritance: &mut Inheritance) -> Result<(), StartError> {
        let Some(config) = self
            .service
            .config
            .cluster
            .as_ref()
            .filter(|_| inheritance.has_place())
        else {
            return Ok(());
        };
        let address = config.members[config.me].address;
        cluster::check(config).map_err(|error| StartError::Cluster { address, error })?;
        if config.takeover != Takeover::Bind {
            self.service.check_addresses()?;
        }
        let mut inherited = std::mem::take(inheritance);
        let waiting = tokio::task::spawn_blocking(move || {
            let waited = inherited.wait_for_place();
            (inherited, waited)
        });
        let waited;
        (*inheritance, waited) = waiting
            .await
            .map_err(|error| StartError::Engine(error.to_string()))?;
        if let Err(error) = waited {
            tracing::warn!(%error, "the process before has gone without a word; this one is the member");
        }
        Ok(())
    }

    /// Takes part in the cluster, if there is one.
    pub(super) fn sit_down(&mut self) -> Result<(), StartError> {
        self.seat = Seat::take(&self.service.config, &self.handle)?;
        self.take_part()
    }

    fn take_part(&mut self) -> Result<(), StartError> {
        self.tell_what_serves();
        self.keep_warm()
    }

    /// Listens if that has waited for the place.
    pub(super) async fn listen_at_last(&mut self) -> Result<(), StartError> {
        let is_for_the_active = self.seat.as_ref().is_some_and(Seat::binds);
        if self.service.is_listening || is_for_the_active {
            return Ok(());
        }
        let plans = self.service.listen(self.workers.len())?;
        // The process before may have turned newcomers away when it handed over.
        welcome_at(&self.service.held, Newcomers::Welcome);
        self.handle
            .set_service(self.service.views(), self.service.listener_views());
        for applied in self.have_workers_listen(plans) {
            let _ = applied.await;
        }
        Ok(())
    }

    /// Whether this process has given its place to one that did not take it.
    pub(super) fn has_lost_its_place(&self) -> bool {
        let has_ended = self.seat.as_ref().is_some_and(|seat| seat.link.has_ended());
        has_ended && !self.upgrades.are_running() && self.upgrades.taken.is_none()
    }

    /// Is the member again, as after a start. As long as the other process lives it has the member's address.
    pub(super) fn sit_down_again(&mut self) {
        let Some(seat) = &self.seat else { return };
        let again = seat.again(&self.handle).and_then(|again| {
            self.seat = Some(again);
            self.take_part()
        });
        match again {
            Ok(()) => tracing::info!("this process is the member of the cluster again"),
            Err(error) if !std::mem::replace(&mut self.upgrades.is_told, true) => {
                tracing::error!(%error, "this process is not yet the member of the cluster again, and goes on trying");
            }
            Err(_) => {}
        }
    }
}
