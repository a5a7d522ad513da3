//! Whether nodes serve with the same: a standby that would decide otherwise than the active node is no full replacement.
//!
//! Owns the comparison and what follows from it for who comes next. Safety does not depend on it: whoever gets the votes may serve.

use crate::{
    core::Core,
    message::Serves,
    settings::{MemberId, Unlike},
};

impl Core {
    pub(crate) fn set_serves(&mut self, now_us: u64, serves: Serves) {
        if self.serves.replace(serves) != Some(serves) {
            self.next_beat_us = now_us;
        }
    }

    /// Whether that node's policies are known to be others than this one's, and that matters.
    pub fn is_unlike(&self, id: MemberId) -> bool {
        let theirs = self.peers.get(usize::from(id)).and_then(|peer| peer.serves);
        let are_others = theirs
            .zip(self.serves)
            .is_some_and(|(theirs, ours)| theirs.policies != ours.policies);
        self.settings.unlike != Unlike::Ignored && are_others
    }

    /// Whether this node's policies are others than those that clients were served with last, as far as it knows.
    pub fn lags(&self) -> bool {
        self.holder.is_some_and(|holder| self.is_unlike(holder))
    }

    /// The same for people: `None` if there is nothing to compare.
    pub fn is_like_the_last(&self) -> Option<bool> {
        let theirs = self.peers.get(usize::from(self.holder?))?.serves?;
        self.serves.map(|ours| ours.policies == theirs.policies)
    }

    /// What this node serves with, if it was told.
    pub fn serves(&self) -> Option<Serves> {
        self.serves
    }

    /// How much later than others this node asks for the lease; `None` if it does not.
    pub(crate) fn patience_us(&self) -> Option<u64> {
        match (self.lags(), self.settings.unlike) {
            (false, _) | (true, Unlike::Ignored) => Some(0),
            (true, Unlike::Last) => Some(self.settings.heartbeat_us),
            (true, Unlike::Never) => None,
        }
    }
}
