//! A balancer in this process, on a port of the system's choice.

use std::{
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use trimtab::{
    control::{Handle, PoolView},
    metrics::Worker,
    policy::{Compiler, FaultKind},
    pool::State,
    server::{Server, Source, StartError},
};

use crate::{DEADLINE, within};

/// A configuration with one listener, one pool called `main`, and whatever a test adds.
#[derive(Clone, Debug)]
pub struct Setup {
    workers: usize,
    admin: &'static str,
    top: String,
    listener: String,
    backends: Vec<String>,
    pool: String,
    rest: String,
}

impl Setup {
    /// One worker, and no backend yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            workers: 1,
            admin: "off",
            top: String::new(),
            listener: String::new(),
            backends: Vec::new(),
            pool: String::new(),
            rest: String::new(),
        }
    }

    /// One backend.
    #[must_use]
    pub fn to(address: String) -> Self {
        Self::new().backend(address)
    }

    /// Threads that serve; one unless set, which makes turns predictable.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// With an admin listener, on a port of the system's choice.
    #[must_use]
    pub fn with_admin(mut self) -> Self {
        self.admin = "127.0.0.1:0";
        self
    }

    /// A line at the top of the file.
    #[must_use]
    pub fn top(mut self, line: &str) -> Self {
        let _ = writeln!(self.top, "{line}");
        self
    }

    /// A line of the listener's table.
    #[must_use]
    pub fn listener(mut self, line: &str) -> Self {
        let _ = writeln!(self.listener, "{line}");
        self
    }

    /// A backend by its address.
    #[must_use]
    pub fn backend(mut self, address: String) -> Self {
        self.backends.push(format!("{address:?}"));
        self
    }

    /// Backends by their addresses.
    #[must_use]
    pub fn backends(self, addresses: impl IntoIterator<Item = String>) -> Self {
        addresses.into_iter().fold(self, Self::backend)
    }

    /// A backend with more than an address.
    #[must_use]
    pub fn backend_with(mut self, address: &str, more: &str) -> Self {
        self.backends.push(format!("{{ address = {address:?}, {more} }}"));
        self
    }

    /// A line of the pool's table.
    #[must_use]
    pub fn pool(mut self, line: &str) -> Self {
        let _ = writeln!(self.pool, "{line}");
        self
    }

    /// Whole tables at the end.
    #[must_use]
    pub fn rest(mut self, text: &str) -> Self {
        let _ = writeln!(self.rest, "{text}");
        self
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            workers,
            admin,
            top,
            listener,
            backends,
            pool,
            rest,
        } = self;
        let backends = backends.join(", ");
        format!(
            "workers = {workers}\n{top}admin = {{ listen = {admin:?} }}\n\
             [[listener]]\nname = \"main\"\nlisten = \"127.0.0.1:0\"\n{listener}\n\
             [pool.main]\nbackends = [{backends}]\n{pool}\n{rest}"
        )
    }

    /// Starts a balancer with it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self) -> Balancer {
        match Balancer::start(self.text(), &std::env::temp_dir()).await {
            Ok(balancer) => balancer,
            Err(error) => panic!("{error}\n{}", self.text()),
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// A running balancer. Its workers end when this and the test's runtime are dropped.
pub struct Balancer {
    server: Server,
    /// Where the first listener listens.
    pub address: SocketAddr,
}

impl Balancer {
    /// Starts with a text whose paths are relative to `directory`.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn start(text: String, directory: &Path) -> Result<Self, StartError> {
        let directory = directory.to_path_buf();
        Self::run(Source::Text { text, directory }, Compiler::InProcess).await
    }

    /// Starts with a file, which is then watched.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn start_file(path: PathBuf) -> Result<Self, StartError> {
        Self::run(Source::File(path), Compiler::InProcess).await
    }

    /// Starts with a compiler of the test's choice, in place of this process.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn run(source: Source, compiler: Compiler) -> Result<Self, StartError> {
        let server = within("starting", DEADLINE, Server::start(source, compiler)).await?;
        let address = server.handle().listeners()[0].1;
        Ok(Self { server, address })
    }

    /// For asking and telling.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.server.handle()
    }

    /// Puts another configuration into service.
    ///
    /// # Errors
    /// The text of the refusal.
    pub async fn replace(&self, setup: &Setup) -> Result<(), String> {
        let replaced = within("reloading", DEADLINE, self.handle().replace(setup.text())).await;
        replaced.map(drop)
    }

    /// The pool `main`.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn view(&self) -> PoolView {
        self.view_of("main")
    }

    /// A pool by its name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn view_of(&self, pool: &str) -> PoolView {
        let pools = self.handle().pools();
        let found = pools.iter().find(|view| view.pool.name() == pool);
        found.cloned().unwrap_or_else(|| panic!("pool {pool}"))
    }

    /// Faults of the policy of `main`, of one kind.
    #[must_use]
    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.view().deployment.total(|stats| stats.faults(kind))
    }

    /// The id of the n-th backend of `main`.
    #[must_use]
    pub fn id(&self, index: usize) -> u64 {
        self.view().pool.snapshot().members[index].backend.id
    }

    /// The state of the n-th backend of `main`.
    #[must_use]
    pub fn state(&self, index: usize) -> State {
        self.view().pool.snapshot().members[index].state
    }

    /// A counter of the workers, summed.
    #[must_use]
    pub fn count(&self, read: impl Fn(&Worker) -> &AtomicU64) -> u64 {
        self.handle().metrics().total(read)
    }

    /// Waits for the end of a stop that has begun.
    pub async fn join(self) {
        within("stopping", DEADLINE, self.server.join()).await;
    }

    /// Stops and waits.
    pub async fn stop(self) {
        self.handle().stop().await;
        self.join().await;
    }
}
