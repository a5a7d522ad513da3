//! The same faults with keepalived beside a balancer that knows of no cluster: two nodes, the same address, the same clients and judges.
//! Nothing is judged here; the table is for comparison.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    lab::{Lab, SHARED, run},
    report::{Expected, Report, Row, Watch},
    scenarios::{CALM, rest},
};

/// `Pair::control_cut` and the like.
type Run = fn(&mut Pair, &mut Row);

const ALL: [(&str, Run); 8] = [
    ("F1 both programs killed", |pair, row| {
        pair.moved(row, |pair| pair.kill_all(0), |pair| pair.start_all(0));
    }),
    ("F1 keepalived killed", |pair, row| {
        pair.moved(row, |pair| pair.kill(0), |pair| pair.start(0));
    }),
    ("F3 frozen, thawed", |pair, row| {
        pair.moved(
            row,
            |pair| pair.signal_all(0, "-STOP"),
            |pair| pair.signal_all(0, "-CONT"),
        );
    }),
    ("F5 F9 unplugged, plugged", |pair, row| {
        pair.moved(
            row,
            |pair| pair.lab.plug("a", "down"),
            |pair| pair.lab.plug("a", "up"),
        );
    }),
    ("F8 control cut", |pair, row| {
        let drop = "ip protocol vrrp drop";
        pair.moved(
            row,
            |pair| pair.lab.cut("a", drop, drop),
            |pair| pair.lab.heal("a"),
        );
    }),
    ("F6 a and b parted", |pair, row| {
        // Adverts go to a group, so what comes in is what can be told apart.
        let from = |host| format!("ip saddr {} drop", Lab::address(host));
        pair.stays(
            row,
            |pair| {
                pair.lab.cut("a", &from("b"), "");
                pair.lab.cut("b", &from("a"), "");
            },
            |pair| {
                pair.lab.heal("a");
                pair.lab.heal("b");
            },
        );
    }),
    ("F7 b deaf to a", |pair, row| {
        pair.stays(
            row,
            |pair| pair.lab.cut("b", "ip protocol vrrp drop", ""),
            |pair| pair.lab.heal("b"),
        );
    }),
    ("F16 handed over by SIGTERM", |pair, row| {
        let watch = Watch::start(&pair.lab, Expected::Handover);
        let begun = Instant::now();
        pair.signal(0, "-TERM");
        watch.wait_for_takeover(&pair.lab);
        rest(CALM);
        watch.end(row, begun);
    }),
];

const NAMES: [&str; 2] = ["a", "b"];

struct Pair {
    lab: Lab,
    processes: [Option<Child>; 2],
}

/// Runs all of it.
pub(crate) fn compare(runs: usize, is_meant: impl Fn(&str) -> bool) -> Report {
    let mut pair = Pair::new();
    let mut report = Report::of("keepalived");
    for (name, scenario) in ALL.iter().filter(|(name, _)| is_meant(name)) {
        for _ in 0..runs {
            pair.reset();
            scenario(&mut pair, report.row(name));
        }
    }
    report
}

impl Pair {
    fn new() -> Self {
        let lab = Lab::bare();
        for (host, priority) in NAMES.into_iter().zip([150, 100]) {
            lab.write_plain(host);
            // The advertisements are as far apart as our heartbeats, an old master is welcome as a standby, as with us, and the
            // network is told again soon.
            lab.write(
                &format!("{host}.conf"),
                &format!(
                    "global_defs {{\n vrrp_version 3\n}}\nvrrp_instance lab {{\n state BACKUP\n nopreempt\n interface eth0\n \
                     virtual_router_id 51\n priority {priority}\n advert_int 0.1\n garp_master_delay 1\n virtual_ipaddress {{\n  {SHARED}/32 dev eth0\n \
                     }}\n}}\n"
                ),
            );
        }
        Self {
            lab,
            processes: [None, None],
        }
    }

    /// Everything anew, with `a` as the master.
    fn reset(&mut self) {
        for node in [1, 0] {
            self.kill_all(node);
            let space = self.lab.space(NAMES[node]);
            let shared = format!("{SHARED}/32");
            // Usually it is not there.
            let _ = Command::new("ip")
                .args(["-n", &space, "address", "delete", &shared, "dev", "eth0"])
                .output();
        }
        self.start_all(0);
        self.lab.wait_until("a has the address", |lab| {
            let space = lab.space("a");
            let shown = Command::new("ip")
                .args(["-n", &space, "-4", "address", "show", "dev", "eth0"])
                .output();
            String::from_utf8_lossy(&shown.unwrap().stdout).contains(&SHARED.to_string())
        });
        self.start_all(1);
        self.lab.wait_until("b is the standby", |lab| {
            lab.read("b.keepalived").contains("Entering BACKUP STATE")
        });
    }

    fn moved(&mut self, row: &mut Row, fault: impl FnOnce(&mut Self), heal: impl FnOnce(&mut Self)) {
        let watch = Watch::start(&self.lab, Expected::Takeover);
        let begun = Instant::now();
        fault(self);
        watch.wait_for_takeover(&self.lab);
        rest(Duration::from_millis(300));
        heal(self);
        rest(CALM);
        watch.end(row, begun);
    }

    fn stays(&mut self, row: &mut Row, fault: impl FnOnce(&mut Self), heal: impl FnOnce(&mut Self)) {
        let watch = Watch::start(&self.lab, Expected::Stay);
        let begun = Instant::now();
        fault(self);
        rest(CALM);
        heal(self);
        rest(Duration::from_millis(600));
        watch.end(row, begun);
    }

    // === Programs ===

    fn start_all(&mut self, node: usize) {
        self.lab.start(node);
        self.start(node);
    }

    fn start(&mut self, node: usize) {
        let name = NAMES[node];
        // It does not start beside the file of one that was killed.
        for file in ["pid", "vrrp"] {
            let _ = std::fs::remove_file(self.lab.path(&format!("{name}.{file}")));
        }
        let log = File::create(self.lab.path(&format!("{name}.keepalived"))).unwrap();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.lab.space(name), "keepalived"])
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        for (option, file) in [("-f", "conf"), ("-p", "pid"), ("-r", "vrrp")] {
            command.arg(option).arg(self.lab.path(&format!("{name}.{file}")));
        }
        let process = command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = process.stdin(Stdio::null()).spawn().unwrap();
        self.processes[node] = Some(process);
        let is_there = |lab: &Lab| lab.read(&format!("{name}.vrrp")).trim().parse::<u32>().is_ok();
        self.lab.wait_until("keepalived runs", is_there);
    }

    /// The processes of keepalived: the one that we started, and its child.
    fn ids(&self, node: usize) -> Vec<String> {
        let parent = self.processes[node]
            .as_ref()
            .map(|process| process.id().to_string());
        let child = self.lab.read(&format!("{}.vrrp", NAMES[node])).trim().to_owned();
        parent.into_iter().chain([child]).collect()
    }

    fn signal(&self, node: usize, signal: &str) {
        // The parent ends its child in order, but must not start it anew when it is killed.
        let ids = self.ids(node);
        let ids = if signal == "-TERM" { &ids[..1] } else { &ids[..] };
        let arguments: Vec<_> = std::iter::once(signal)
            .chain(ids.iter().map(String::as_str))
            .collect();
        run("kill", &arguments);
    }

    fn signal_all(&self, node: usize, signal: &str) {
        self.signal(node, signal);
        self.lab.signal(node, signal);
    }

    fn kill(&mut self, node: usize) {
        let Some(process) = &mut self.processes[node] else {
            return;
        };
        // One that has ended in order has no child any more.
        if process.try_wait().unwrap().is_none() {
            self.signal(node, "-KILL");
        }
        if let Some(mut process) = self.processes[node].take() {
            process.wait().unwrap();
        }
    }

    fn kill_all(&mut self, node: usize) {
        self.kill(node);
        if self.lab.runs(node) {
            self.lab.kill(node);
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        (0..2).for_each(|node| self.kill(node));
    }
}

/// Installs it, unless it is there.
pub(crate) fn install() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/outside/install.sh");
    run("bash", &[script, "keepalived"]);
}
