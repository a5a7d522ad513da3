//! A pool in a given condition: backends that are up, down, draining or warming up, with load on them.
//!
//! Owns how such a pool is made of the host's own [`Pool`], so that who is usable is decided by the real rules. Time is
//! made up. It must not know who is asked about it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{
        self, HashOn,
        author::{BackendState, CaseOthers},
    },
    pool::{Figures, Pool, Snapshot, Told, View},
};

/// When a pool's life begins, in microseconds.
pub(super) const START_US: u64 = 1_000_000_000;
/// How long a slow start takes: a percent a second.
const SLOW_START: Duration = Duration::from_secs(100);

/// A backend in its condition.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) backend: config::Backend,
    pub(super) state: BackendState,
    /// Percent of the weight, in tens.
    pub(super) ramp: u8,
    pub(super) figures: Figures,
    /// What other nodes tell.
    pub(super) others: Option<CaseOthers>,
}

/// A pool, its load, and its time.
pub(super) struct Field {
    pool: Pool,
    start: Instant,
    /// All backends that there ever are, ...
    all: Vec<Placed>,
    /// ... and which of them are in the pool now, in its order.
    present: Vec<usize>,
    pub(super) now_us: u64,
}

impl Field {
    pub(super) fn new(placed: &[Placed], panic_threshold: u8, hash_on: Vec<HashOn>) -> Self {
        let backends: Vec<_> = placed.iter().map(|placed| placed.backend.clone()).collect();
        let config = config(backends, panic_threshold, hash_on);
        let sockets = vec![nowhere(); placed.len()];
        let start = Instant::now();
        let field = Self {
            pool: Pool::new(Arc::new(config), &sockets, 1, None, start),
            start,
            all: placed.to_vec(),
            present: (0..placed.len()).collect(),
            now_us: START_US,
        };
        let members = field.snapshot();
        for (member, placed) in members.members.iter().zip(placed) {
            field.warm_up(member.backend.id, placed.ramp);
            field.set_state(member.backend.id, placed.state);
        }
        field.pool.advance(field.now());
        field
    }

    /// The backend was down, and came back so long ago that it is at this percentage of its slow start.
    fn warm_up(&self, id: u64, ramp: u8) {
        if ramp < 100 {
            let since = SLOW_START * u32::from(ramp.saturating_sub(10)) / 100;
            let back = self.now() - since;
            self.pool.set_down(id, true, back);
            self.pool.set_down(id, false, back);
        }
    }

    /// A reload: the pool consists of these now, by their places in what the field was made of.
    pub(super) fn reload(&mut self, places: &[usize]) {
        let old = &self.pool.config;
        let backends = places.iter().map(|place| self.all[*place].backend.clone());
        let config = config(backends.collect(), old.panic_threshold, old.hash_on.clone());
        let sockets = vec![nowhere(); places.len()];
        self.pool = Pool::new(Arc::new(config), &sockets, 1, Some(&self.pool), self.now());
        self.present = places.to_vec();
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    /// The backends now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.pool.snapshot()
    }

    /// The pool itself.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The load now.
    pub(super) fn view(&self) -> Arc<View> {
        let view = View::without_load(&self.snapshot());
        for (index, place) in self.present.iter().enumerate() {
            let placed = &self.all[*place];
            view.set(index, placed.figures);
            if let Some(CaseOthers { active, age_ms }) = placed.others {
                let told_ms = (self.now_us / 1000).saturating_sub(age_ms.into());
                view.set_others(index, Told { active, told_ms });
            }
        }
        view.set_merged_ms(self.now_us / 1000);
        Arc::new(view)
    }

    /// Puts a backend into this state.
    pub(super) fn set_state(&self, id: u64, state: BackendState) {
        // Whether that is a change does not matter.
        let _ = self
            .pool
            .set_draining(id, state == BackendState::Draining, self.now());
        if state != BackendState::Draining {
            let _ = self.pool.set_down(id, state == BackendState::Down, self.now());
        }
    }

    pub(super) fn set_weight(&self, id: u64, weight: u32) {
        let _ = self.pool.set_weight(id, weight, self.now());
    }

    /// Remembers a backend's load, for the next [`Field::view`].
    pub(super) fn set_figures(&mut self, index: usize, figures: Figures) {
        if let Some(place) = self.present.get(index) {
            self.all[*place].figures = figures;
        }
    }
}

/// Nobody connects to the backends.
fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
}

fn config(backends: Vec<config::Backend>, panic_threshold: u8, hash_on: Vec<HashOn>) -> config::Pool {
    let second = Duration::from_secs(1);
    config::Pool {
        name: "field".into(),
        tenant: None,
        policy: "any".into(),
        fallback: "least-connections".into(),
        hash_on,
        backends,
        discover: None,
        connect_timeout: second,
        protocol: config::PoolProtocol::Http1,
        tls: None,
        send_proxy: None,
        response_timeout: second,
        request_timeout: None,
        body_timeout: second,
        idle_timeout: second,
        idle_connections: 1,
        panic_threshold,
        overflow: None,
        zone: None,
        drain_timeout: second,
        slow_start: SLOW_START,
        load_view: config::LoadView::Node,
        // Without active checks a reload would forget who is down.
        health: Some(config::Health {
            kind: config::HealthKind::Tcp,
            port: None,
            tls: false,
            interval: second,
            timeout: second,
            rise: NonZeroU32::MIN,
            fall: NonZeroU32::MIN,
        }),
        outlier: None,
        sticky: None,
        retry: config::Retry {
            attempts: NonZeroU32::MIN,
            ..config::Retry::default()
        },
        limits: None,
        record: None,
    }
}
