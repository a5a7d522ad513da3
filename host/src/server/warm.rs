//! A standby that is warm: it asks the active node what it would lack, goes on with it, and tells the same when it is active itself.
//!
//! Owns when that is asked, told and applied. What it is made of is in `warm`.
//!
//! Invariants: only a standby goes on with anything; and a takeover does not wait for it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

use super::{Control, StartError, cluster};
use crate::{
    clock,
    cluster::{Link, Standing},
    config,
    control::Handle,
    proxy::Message,
    warm::{self, Key, PoolWarm, Warm},
};

/// Between two questions of a standby.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// What policies have learned is asked for each so many times: it takes their time.
const STATES_EVERY: u32 = 4;
/// What was told so long ago is not gone on with.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// States beyond this are left out.
const STATES_BYTES_MAX: usize = 32 << 20;
/// For a worker to say what it knows.
const TELL_WITHIN: Duration = Duration::from_millis(500);
/// Questions at once. Strangers get no answer, and hold a place for two seconds.
const QUESTIONS_MAX: usize = 8;
/// Between two tries to listen where another process still does.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What was told last, and when.
type Latest = Arc<Mutex<Option<(Arc<Warm>, Instant, u64)>>>;
/// What was told, and when on the workers' clock.
pub(super) type Known = (Arc<Warm>, u64);

/// Both sides of it, until this is dropped.
pub(super) struct Warmth {
    latest: Latest,
    tasks: [AbortHandle; 2],
}

impl Warmth {
    /// What has the socket for questions.
    pub(super) fn answering(&self) -> AbortHandle {
        self.tasks[0].clone()
    }
}

impl Drop for Warmth {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What both sides know.
#[derive(Clone)]
struct Node {
    handle: Handle,
    link: Arc<Link>,
    workers: Vec<mpsc::UnboundedSender<Message>>,
    key: Arc<Key>,
}

impl Control {
    /// Begins to ask and to tell, in a node of a cluster.
    pub(super) fn keep_warm(&mut self) -> Result<(), StartError> {
        let Some(seat) = self.seat.as_ref().filter(|seat| seat.serves()) else {
            return Ok(());
        };
        let config = &seat.config;
        let secret = cluster::derived(config, "warm standby")?;
        let key =
            Key::new(&secret).ok_or_else(|| StartError::Engine("bug: a derived key is no key".to_owned()))?;
        let node = Node {
            handle: self.handle.clone(),
            link: seat.link.clone(),
            workers: self
                .workers
                .iter()
                .map(|worker| worker.messages.clone())
                .collect(),
            key: Arc::new(key),
        };
        let latest = Latest::default();
        let answering = node.clone().answer(config.members[config.me].address);
        let asking = node.ask(config.clone(), latest.clone());
        self.warmth = Some(Warmth {
            latest,
            tasks: [tokio::spawn(answering), tokio::spawn(asking)].map(|task| task.abort_handle()),
        });
        Ok(())
    }

    /// This node serves from now on: its workers go on with what the last active node knew.
    pub(super) fn go_on(&self) {
        self.go_on_with(self.take_known().as_ref(), true);
    }

    /// What the last active node knew, once.
    pub(super) fn take_known(&self) -> Option<Known> {
        let latest = &self.warmth.as_ref()?.latest;
        let latest = latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (warm, at, told_us) = latest.filter(|(_, at, _)| at.elapsed() < GOOD_FOR)?;
        tracing::info!(age = ?at.elapsed(), "going on with what the other node knew");
        Some((warm, told_us))
    }

    pub(super) fn go_on_with(&self, known: Option<&Known>, with_states: bool) {
        let Some((warm, told_us)) = known else { return };
        for worker in &self.workers {
            let _ = worker
                .messages
                .send(Message::GoOn(warm.clone(), *told_us, with_states));
        }
    }
}

impl Node {
    /// Answers whoever has the key, until it is aborted.
    async fn answer(self, address: SocketAddr) {
        let listener = listen(address).await;
        let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else {
                return;
            };
            let Ok((mut stream, from)) = listener.accept().await else {
                tokio::time::sleep(LISTEN_AGAIN).await;
                continue;
            };
            let node = self.clone();
            tokio::spawn(async move {
                let _place = place;
                let tell = |with_states| node.tell(with_states);
                if let Err(error) = warm::answer(&mut stream, &node.key, tell).await {
                    tracing::debug!(%from, %error, "a question for what this node knows is not answered");
                }
            });
        }
    }

    /// What this node knows.
    async fn tell(&self, with_states: bool) -> Warm {
        let now = Instant::now();
        let mut all = Warm::default();
        for view in self.handle.pools().iter() {
            let known = PoolWarm {
                standings: view.pool.standings(now),
                states: Vec::new(),
            };
            all.pools.insert(view.pool.name().to_owned(), known);
        }
        let ask = |worker: &mpsc::UnboundedSender<Message>| {
            let (done, told) = oneshot::channel();
            let _ = worker.send(Message::Tell(with_states, done));
            told
        };
        let asked: Vec<_> = self.workers.iter().map(ask).collect();
        let mut left_out = 0;
        for told in asked {
            // A worker that hangs is a reason to be followed, and none to wait.
            if let Ok(Ok(told)) = tokio::time::timeout(TELL_WITHIN, told).await {
                left_out += all.add(told, STATES_BYTES_MAX);
            }
        }
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        if left_out > 0 && !IS_TOLD.swap(true, Relaxed) {
            tracing::warn!(
                left_out,
                "what policies have learned is too large to be told to the standby, and partly left out"
            );
        }
        all
    }

    /// Asks the active node as long as this one is none, until it is aborted.
    async fn ask(self, config: config::Cluster, latest: Latest) {
        let mut asked = 0;
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            let Some((name, address)) = self.active(&config) else {
                continue;
            };
            let with_states = asked % STATES_EVERY == 0;
            let outcome = match self.ask_once(address, with_states).await {
                Ok((told, bytes)) => {
                    asked += 1;
                    self.take(told, with_states, &latest);
                    Ok((bytes, with_states))
                }
                Err(error) => {
                    asked = 0;
                    Err(error.to_string())
                }
            };
            self.link.told(&name, outcome);
        }
    }

    /// The active node, if this one is a standby and would follow it.
    fn active(&self, config: &config::Cluster) -> Option<(String, SocketAddr)> {
        let view = self.link.view();
        let is_standby = view.role == Standing::Standby;
        let others = config.members.iter().zip(&view.members).enumerate();
        let mut others = others.filter(|(place, (_, seen))| *place != config.me && seen.active);
        let (_, (member, _)) = others.next().filter(|_| is_standby)?;
        Some((member.name.clone(), member.address))
    }

    async fn ask_once(
        &self,
        address: SocketAddr,
        with_states: bool,
    ) -> Result<(Warm, usize), warm::TalkError> {
        let connected = tokio::time::timeout(ASK_EVERY, TcpStream::connect(address)).await;
        let mut stream = connected.map_err(|_| warm::TalkError::Late)??;
        warm::ask(&mut stream, &self.key, with_states).await
    }

    /// Keeps what was told for a takeover, and goes on at once with what may be: what was learned by requests only when there are some.
    fn take(&self, mut told: Warm, with_states: bool, latest: &Latest) {
        if self.link.view().role != Standing::Standby {
            return;
        }
        let (now, told_us) = (Instant::now(), clock::now_us());
        for view in self.handle.pools().iter() {
            let known = told.pools.get(view.pool.name());
            if known.is_some_and(|known| view.pool.follow(&known.standings, now)) {
                view.supervisor.wake();
            }
        }
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, ..)) = latest.as_ref().filter(|_| !with_states) {
            for (name, pool) in &mut told.pools {
                let states = before.pools.get(name).map(|pool| pool.states.clone());
                pool.states = states.unwrap_or_default();
            }
        }
        let told = Arc::new(told);
        for worker in &self.workers {
            let _ = worker.send(Message::GoOn(told.clone(), told_us, false));
        }
        *latest = Some((told, now, told_us));
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(%address, %error, "a standby cannot ask this node what it knows, until it can listen there (TCP)");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}
