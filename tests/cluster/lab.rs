//! The namespaces, the bridge between them, and the nodes.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use trimtab_tests::Directory;

/// The address that moves.
pub(crate) const SHARED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 100);
pub(crate) const SHARED_V6: &str = "2001:db8:18::100";
const GENERAL: &str = "workers = 2\ndrain = \"2s\"\nlog = { format = \"json\" }\n";
const SERVES: &str = "[[listener]]\nlisten = \"[::]:80\"\n[pool.main]\nbackends = [\"127.0.0.1:9000\"]\n";
pub(crate) const CONTROL_PORT: u16 = 7946;
const KEY: &str = "the secret of the members of this lab";
/// Members first, then the client and the two judges.
pub(crate) const HOSTS: [&str; 6] = ["a", "b", "w", "c", "d", "e"];
/// When a wait is taken to be in vain.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Of nodes without nftables. They listen at the addresses themselves, which are not there yet.
const SERVES_AT: &str = "[[listener]]\nlisten = \"198.18.0.100:80\"\n[[listener]]\nlisten = \"[2001:db8:18::100]:80\"\n\
                         [pool.main]\nbackends = [\"127.0.0.1:9000\"]\n";
const LONG_TIMES: &str = "heartbeat = \"250ms\"\nlease = \"3s\"\nmargin = \"500ms\"\n";

/// By what the kernel keeps a node from answering.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    Table,
    Lifetimes,
}

pub(crate) struct Lab {
    pub(crate) hold: Hold,
    prefix: String,
    directory: Directory,
    processes: [Option<Child>; 3],
    /// Of those that were upgraded in place, the process that is the member now.
    pub(crate) successors: [Option<u32>; 3],
}

/// Labs of this process so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Lab {
    /// Three members that run, `a` the active one.
    pub(crate) fn new(hold: Hold) -> Self {
        let mut lab = Self::bare();
        lab.hold = hold;
        if hold == Hold::Table {
            ["a", "b"]
                .iter()
                .for_each(|host| lab.change_addresses(host, "add"));
        }
        (0..3).for_each(|member| lab.write_file(member));
        lab.start(0);
        lab.start(2);
        lab.wait_for("a", "active");
        lab.start(1);
        lab.wait_until("b is ready", |lab| lab.is_ready("a", "b"));
        lab
    }

    /// Hosts without programs, and nobody has the address.
    pub(crate) fn bare() -> Self {
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
            if Command::new(program).arg("-V").output().is_err() {
                run("apt-get", &["update", "-qq"]);
                run(
                    "apt-get",
                    &["install", "-y", "-qq", "--no-install-recommends", package],
                );
            }
        }
        let lab = Self {
            hold: Hold::Table,
            prefix: format!("tt{}x{}", std::process::id(), COUNT.fetch_add(1, Relaxed)),
            directory: Directory::new(),
            processes: [None, None, None],
            successors: [None; 3],
        };
        lab.build();
        lab
    }

    /// Adds the addresses that move for good, or deletes them (`add`, `del`).
    pub(crate) fn change_addresses(&self, host: &str, change: &str) {
        let space = self.space(host);
        ip(&format!("-n {space} address {change} {SHARED}/32 dev eth0"));
        ip(&format!(
            "-n {space} address {change} {SHARED_V6}/128 dev eth0 nodad"
        ));
    }

    pub(crate) fn space(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    pub(crate) fn address(host: &str) -> Ipv4Addr {
        let place = HOSTS.iter().position(|known| *known == host).unwrap();
        Ipv4Addr::new(198, 18, 0, 1 + place as u8)
    }

    fn build(&self) {
        let switch = self.space("sw");
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        for host in HOSTS {
            let space = self.space(host);
            ip(&format!("netns add {space}"));
            ip(&format!("-n {space} link set lo up"));
            ip(&format!(
                "-n {space} link add eth0 type veth peer name p{host} netns {switch}"
            ));
            ip(&format!("-n {switch} link set p{host} master br0 up"));
            ip(&format!(
                "-n {space} address add {}/24 dev eth0",
                Self::address(host)
            ));
            let last = Self::address(host).octets()[3];
            ip(&format!(
                "-n {space} address add 2001:db8:18::{last}/64 dev eth0 nodad"
            ));
            ip(&format!("-n {space} link set eth0 up"));
        }
        for host in ["a", "b"] {
            self.serve(host);
        }
        // Each judge knows one node's Ethernet address, and never asks.
        for (judge, node) in [("d", "a"), ("e", "b")] {
            let path = "cat /sys/class/net/eth0/address";
            let output = Command::new("ip")
                .args(["netns", "exec", &self.space(node), "sh", "-c", path])
                .output()
                .unwrap();
            let mac = String::from_utf8(output.stdout).unwrap();
            let space = self.space(judge);
            for address in [SHARED.to_string(), SHARED_V6.to_owned()] {
                ip(&format!(
                    "-n {space} neighbour add {address} lladdr {} dev eth0 nud permanent",
                    mac.trim()
                ));
            }
        }
    }

    /// A backend on the node's own loopback, which tells whose it is.
    fn serve(&self, host: &'static str) {
        inside(self.space(host), move || {
            let socket = TcpListener::bind("127.0.0.1:9000").unwrap();
            for stream in socket.incoming().flatten() {
                std::thread::spawn(move || answer(stream, host));
            }
        });
    }

    /// A balancer's file that knows of no cluster.
    pub(crate) fn write_plain(&self, host: &str) {
        self.write(&format!("{host}.toml"), &format!("{GENERAL}{SERVES}"));
    }

    fn write_file(&self, member: usize) {
        let name = HOSTS[member];
        let mut text = String::new();
        text += if member < 2 {
            GENERAL
        } else {
            "log = { format = \"json\" }\n"
        };
        text += match (member, self.hold) {
            (2.., _) => "",
            (_, Hold::Table) => SERVES,
            (_, Hold::Lifetimes) => SERVES_AT,
        };
        text += &format!("[cluster]\nname = \"lab\"\nnode = \"{name}\"\nkey_file = \"key\"\n");
        if member < 2 {
            text += &format!(
                "takeover = \"address\"\naddresses = [\"{SHARED}\", \"{SHARED_V6}\"]\ninterface = \"eth0\"\n"
            );
        }
        if self.hold == Hold::Lifetimes {
            text += LONG_TIMES;
            text += if member < 2 { "gate = \"lifetime\"\n" } else { "" };
        }
        for (place, host) in HOSTS.iter().take(3).enumerate() {
            let role = if place == 2 { "witness" } else { "node" };
            text += &format!(
                "[[cluster.member]]\nname = \"{host}\"\naddress = \"{}:{CONTROL_PORT}\"\nrole = \"{role}\"\npriority = {}\n",
                Self::address(host),
                200 - place * 100
            );
        }
        self.write("key", KEY);
        self.write(&format!("{name}.toml"), &text);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        self.directory.write(name, text);
    }

    /// Nothing, if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    // === Nodes ===

    pub(crate) fn start(&mut self, member: usize) {
        self.start_as(member, env!("CARGO_BIN_EXE_trimtab").into());
    }

    /// The program as it is after an upgrade: another file.
    pub(crate) fn start_next(&mut self, member: usize) {
        let path = self.path("trimtab-next");
        if !path.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_trimtab"), &path).unwrap();
        }
        self.start_as(member, path);
    }

    fn start_as(&mut self, member: usize, program: PathBuf) {
        let name = HOSTS[member];
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")));
        let process = Command::new("ip")
            .args(["netns", "exec", &self.space(name)])
            .arg(program)
            .arg("run")
            .arg(self.path(&format!("{name}.toml")))
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        // `ip` becomes the program, so the process id is the program's.
        self.processes[member] = Some(process.unwrap());
    }

    pub(crate) fn runs(&self, member: usize) -> bool {
        self.processes[member].is_some()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn kill(&mut self, member: usize) {
        let mut process = self.processes[member].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Ends it in order.
    pub(crate) fn end(&mut self, member: usize) {
        self.signal(member, "-TERM");
        let mut process = self.processes[member].take().unwrap();
        assert!(process.wait().unwrap().success(), "{}", self.logs());
    }

    /// Of a process that is to end by itself.
    pub(crate) fn wait_for_end(&mut self, member: usize) -> ExitStatus {
        let mut process = self.processes[member].take().unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= end {
                let _ = process.kill();
                panic!("{} does not end\n{}", HOSTS[member], self.logs());
            }
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
    }

    pub(crate) fn id(&self, member: usize) -> u32 {
        self.successors[member].unwrap_or_else(|| self.processes[member].as_ref().unwrap().id())
    }

    pub(crate) fn signal(&self, member: usize, signal: &str) {
        run("kill", &[signal, &self.id(member).to_string()]);
    }

    /// What the program says to a subcommand of `cluster`, asked inside the node's namespace.
    pub(crate) fn order(&self, host: &str, arguments: &[&str]) -> Option<String> {
        let output = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.space(host),
                env!("CARGO_BIN_EXE_trimtab"),
                "cluster",
            ])
            .args(arguments)
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub(crate) fn view(&self, host: &str) -> serde_json::Value {
        let text = self.order(host, &["status", "--json"]).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn is_ready(&self, seen_from: &str, host: &str) -> bool {
        let view = self.view(seen_from);
        let members = view["members"].as_array().cloned().unwrap_or_default();
        let is_near =
            |member: &serde_json::Value| member["heard_ms"].as_u64().is_some_and(|age_ms| age_ms < 600);
        members
            .iter()
            .any(|member| member["name"] == host && member["fit"] == true && is_near(member))
    }

    pub(crate) fn wait_for(&self, host: &str, role: &str) {
        self.wait_until(&format!("{host} is {role}"), |lab| lab.view(host)["role"] == role);
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < end, "waited in vain: {what}\n{}", self.logs());
            // What is waited for wants the processor too.
            std::thread::park_timeout(BETWEEN_LOOKS);
        }
    }

    pub(crate) fn logs(&self) -> String {
        let log = |name: &&str| {
            let text = self.read(&format!("{name}.log"));
            format!("{name}:\n{text}\n")
        };
        HOSTS.iter().take(3).map(log).collect()
    }

    // === The network ===

    /// A rule in a host's own namespace for what comes in, and one for what goes out.
    pub(crate) fn cut(&self, host: &str, inward: &str, outward: &str) {
        let nft = |order: &str| run("ip", &["netns", "exec", &self.space(host), "nft", order]);
        nft("add table inet lab");
        for (chain, hook, rule) in [("i", "input", inward), ("o", "output", outward)] {
            nft(&format!(
                "add chain inet lab {chain} {{ type filter hook {hook} priority 0; }}"
            ));
            if !rule.is_empty() {
                nft(&format!("add rule inet lab {chain} {rule}"));
            }
        }
    }

    pub(crate) fn heal(&self, host: &str) {
        run(
            "ip",
            &["netns", "exec", &self.space(host), "nft", "delete table inet lab"],
        );
    }

    /// What a reload of Debian's nftables.service begins with: everybody's tables are gone.
    pub(crate) fn flush_tables(&self, host: &str) {
        run(
            "ip",
            &["netns", "exec", &self.space(host), "nft", "flush ruleset"],
        );
    }

    pub(crate) fn tables(&self, host: &str) -> String {
        let space = self.space(host);
        let output = Command::new("ip")
            .args(["netns", "exec", &space, "nft", "list ruleset"])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn plug(&self, host: &str, state: &str) {
        ip(&format!("-n {} link set p{host} {state}", self.space("sw")));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for id in self.successors.iter().flatten() {
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).output();
        }
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
        for host in HOSTS.iter().chain(&["sw"]) {
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.space(host)])
                .output();
        }
    }
}

fn answer(mut stream: TcpStream, host: &str) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{host}");
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Runs in a thread of its own inside a namespace.
pub(crate) fn inside<T: Send + 'static>(
    space: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let entered = Arc::new(std::sync::Barrier::new(2));
    let inner = entered.clone();
    let thread = std::thread::spawn(move || {
        enter(&space);
        inner.wait();
        work()
    });
    entered.wait();
    thread
}

#[allow(unsafe_code, reason = "std has no namespaces")]
fn enter(space: &str) {
    let file = File::open(format!("/run/netns/{space}")).unwrap();
    // SAFETY: the descriptor is open; only this thread changes its namespace.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{space}: {}", std::io::Error::last_os_error());
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}
