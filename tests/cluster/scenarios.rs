//! The faults, by the numbers of the project's list, and what has to come of each.

use std::{
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use crate::{
    held::Held,
    lab::{CONTROL_PORT, Hold, Lab, SHARED, SHARED_V6, inside},
    probe::{Kept, ask, is_silent},
    report::{Expected, Row, Watch},
};

pub(crate) const JUDGE_PACE: Duration = Duration::from_millis(10);
pub(crate) const CLIENT_PACE: Duration = Duration::from_millis(5);
/// Answers come in a few milliseconds. What is measured is not finer than this.
pub(crate) const SHORT: Duration = Duration::from_millis(25);
/// Longer than the second after which a client's kernel tries again.
pub(crate) const LONG: Duration = Duration::from_secs(4);
/// A kernel refuses in less.
const REFUSAL: Duration = Duration::from_millis(200);
/// Twice what a takeover may take, in which nothing may happen.
pub(crate) const CALM: Duration = Duration::from_millis(1500);
const CALM_LONG: Duration = Duration::from_secs(6);

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Lab, &mut Row),
}

const fn scenario(name: &'static str, run: fn(&mut Lab, &mut Row)) -> Scenario {
    Scenario { name, run }
}

/// Each begins and ends with `a` active and all members there.
pub(crate) const ALL: [Scenario; 17] = [
    scenario("F1 F15 killed, restarted", killed),
    scenario("F3 frozen, thawed", frozen),
    scenario("F4 a worker stuck", stuck),
    scenario("F4 own probe lost", unserved),
    scenario("F5 F9 unplugged, plugged", unplugged),
    scenario("F8 control cut", silenced),
    scenario("F6 a and b parted", parted),
    scenario("F7 b deaf to a", |lab, row| deaf(lab, row, ("b", "a"))),
    scenario("F7 a deaf to b", |lab, row| deaf(lab, row, ("a", "b"))),
    scenario("F7 w deaf to a", |lab, row| deaf(lab, row, ("w", "a"))),
    scenario("F10 witness killed", witness_killed),
    scenario("F16 handed over by order", ordered),
    scenario("F17 all replaced in turn", replaced),
    scenario("F17 all in place", upgraded),
    scenario("F17 all in place at once", upgraded_at_once),
    scenario("F20 all killed", power_cut),
    scenario("F21 flooded", flooded),
];

/// Where the kernel has no tables.
pub(crate) const WITHOUT_TABLES: [Scenario; 10] = [
    scenario("F1 F15 killed, restarted", killed),
    scenario("F3 frozen, thawed", frozen),
    scenario("F3 frozen with a request", answered_late),
    scenario("F5 F9 unplugged, plugged", unplugged),
    scenario("F8 control cut", silenced),
    scenario("F6 a and b parted", parted),
    scenario("F16 handed over by order", ordered),
    scenario("F17 all in place", upgraded),
    scenario("F20 all killed", power_cut),
    scenario("F22 the address is kept", kept),
];

fn calm(lab: &Lab) -> Duration {
    match lab.hold {
        Hold::Table => CALM,
        Hold::Lifetimes => CALM_LONG,
    }
}

pub(crate) fn rest(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Back to the beginning: `a` active, everybody there.
fn restore(lab: &mut Lab) {
    lab.wait_until("a is ready", |lab| lab.is_ready("b", "a"));
    // Where the machine stalled, the address may be back already; that it moved too often, the report says.
    lab.wait_until("b hands over", |lab| {
        lab.view("a")["role"] == "active" || lab.order("b", &["failover", "--to", "a"]).is_some()
    });
    lab.wait_for("a", "active");
    lab.wait_until("b is ready", |lab| {
        lab.is_ready("a", "b") && lab.view("b")["votes_for"] == "a"
    });
}

fn moved<T>(lab: &mut Lab, row: &mut Row, fault: impl FnOnce(&mut Lab) -> T, heal: impl FnOnce(&mut Lab, T)) {
    let watch = Watch::start(lab, Expected::Takeover);
    let begun = Instant::now();
    let kept = fault(lab);
    watch.wait_for_takeover(lab);
    rest(Duration::from_millis(300));
    heal(lab, kept);
    // The old node comes back, and takes nothing away.
    rest(calm(lab));
    watch.end(row, begun);
    restore(lab);
}

fn stays(lab: &mut Lab, row: &mut Row, fault: impl FnOnce(&mut Lab), heal: impl FnOnce(&mut Lab)) {
    let watch = Watch::start(lab, Expected::Stay);
    let begun = Instant::now();
    fault(lab);
    rest(calm(lab));
    heal(lab);
    rest(Duration::from_millis(600));
    watch.end(row, begun);
    lab.wait_until("b is ready", |lab| lab.is_ready("a", "b"));
}

fn killed(lab: &mut Lab, row: &mut Row) {
    moved(
        lab,
        row,
        |lab| lab.kill(0),
        |lab, ()| {
            holds(lab);
            lab.start(0);
        },
    );
    let v6: IpAddr = SHARED_V6.parse().unwrap();
    let answered = inside(lab.space("c"), move || ask(v6, LONG)).join().unwrap();
    assert_eq!(answered, Some('a'), "IPv6 goes the same way");
}

fn frozen(lab: &mut Lab, row: &mut Row) {
    moved(
        lab,
        row,
        |lab| lab.signal(0, "-STOP"),
        |lab, ()| {
            holds(lab);
            lab.signal(0, "-CONT");
        },
    );
}

/// The kernel of `a` keeps what its process cannot: neither address is there any more, not even to refuse.
fn holds(lab: &Lab) {
    let addresses: [IpAddr; 2] = [SHARED.into(), SHARED_V6.parse().unwrap()];
    let silent = inside(lab.space("d"), move || {
        addresses.map(|address| is_silent(address, REFUSAL))
    });
    assert_eq!(silent.join().unwrap(), [true; 2], "{}", lab.logs());
}

/// What it had accepted before its lease was over, a node may answer no more when it goes on.
fn answered_late(lab: &mut Lab, row: &mut Row) {
    let freeze = |lab: &mut Lab| {
        // Of an IPv6 address that is gone, the kernel sends what is left of a connection (`docs/cluster.md`).
        let kept = inside(lab.space("c"), || Kept::open(SHARED.into(), LONG));
        let mut kept = kept.join().unwrap();
        assert_eq!(kept.ask(), Some('a'));
        lab.signal(0, "-STOP");
        kept.send().expect("its kernel takes it");
        kept
    };
    moved(lab, row, freeze, |lab, mut kept| {
        lab.signal(0, "-CONT");
        assert_eq!(kept.receive(), None, "{}", lab.logs());
    });
}

/// An address that the system keeps would never go, so a node does not start with it.
fn kept(lab: &mut Lab, row: &mut Row) {
    let refuse = |lab: &mut Lab| {
        lab.end(1);
        // The network must not hear of it.
        lab.plug("b", "down");
        lab.change_addresses("b", "add");
        lab.start(1);
        assert!(!lab.wait_for_end(1).success());
        let logs = lab.logs();
        assert!(logs.contains("198.18.0.100 is on this machine already"), "{logs}");
        lab.change_addresses("b", "del");
        lab.plug("b", "up");
    };
    stays(lab, row, refuse, |lab| lab.start(1));
}

/// One of two, so every second connection is served as ever, and all signs of life but one are there.
fn stuck(lab: &mut Lab, row: &mut Row) {
    let stop = |lab: &mut Lab| Held::stop(lab.id(0), "trimtab-1");
    moved(lab, row, stop, |lab, held| {
        let unfit = &lab.view("a")["unfit"];
        assert_eq!(unfit, "worker 1 does not run", "{}", lab.logs());
        drop(held);
    });
}

/// Clients are still served; the node cannot know.
fn unserved(lab: &mut Lab, row: &mut Row) {
    moved(
        lab,
        row,
        |lab| lab.cut("a", "iif lo tcp dport 80 drop", ""),
        |lab, ()| {
            let logs = lab.logs();
            assert!(
                logs.contains("a connection to a listener of its own is not served"),
                "{logs}"
            );
            lab.heal("a");
        },
    );
}

fn unplugged(lab: &mut Lab, row: &mut Row) {
    moved(
        lab,
        row,
        |lab| lab.plug("a", "down"),
        |lab, ()| lab.plug("a", "up"),
    );
}

fn silenced(lab: &mut Lab, row: &mut Row) {
    let drop = format!("udp dport {CONTROL_PORT} drop");
    moved(
        lab,
        row,
        |lab| lab.cut("a", &drop, &drop),
        |lab, ()| lab.heal("a"),
    );
}

fn parted(lab: &mut Lab, row: &mut Row) {
    let b = Lab::address("b");
    let (inward, outward) = (format!("ip saddr {b} drop"), format!("ip daddr {b} drop"));
    stays(
        lab,
        row,
        |lab| lab.cut("a", &inward, &outward),
        |lab| lab.heal("a"),
    );
}

fn deaf(lab: &mut Lab, row: &mut Row, (who, to): (&'static str, &str)) {
    let rule = format!("ip saddr {} udp dport {CONTROL_PORT} drop", Lab::address(to));
    stays(lab, row, |lab| lab.cut(who, &rule, ""), |lab| lab.heal(who));
}

fn witness_killed(lab: &mut Lab, row: &mut Row) {
    stays(lab, row, |lab| lab.kill(2), |lab| lab.start(2));
    lab.wait_until("the witness votes", |lab| lab.view("w")["votes_for"] == "a");
}

fn ordered(lab: &mut Lab, row: &mut Row) {
    let watch = Watch::start(lab, Expected::Handover);
    let begun = Instant::now();
    lab.order("a", &["failover"]).expect("a hands over");
    watch.wait_for_takeover(lab);
    rest(calm(lab));
    watch.end(row, begun);
    restore(lab);
}

/// As an upgrade of the program goes, by `docs/cluster.md`: the standby, the witness, the active node, which hands over before it ends.
fn replaced(lab: &mut Lab, row: &mut Row) {
    let watch = Watch::start(lab, Expected::Handover);
    for member in [1, 2] {
        lab.end(member);
        lab.start_next(member);
    }
    lab.wait_until("b is ready", |lab| lab.is_ready("a", "b"));
    lab.wait_until("the witness votes", |lab| lab.view("w")["votes_for"] == "a");
    let begun = Instant::now();
    lab.end(0);
    lab.start_next(0);
    watch.wait_for_takeover(lab);
    rest(calm(lab));
    watch.end(row, begun);
    restore(lab);
}

/// The same, each member by the process that it is.
fn upgraded(lab: &mut Lab, row: &mut Row) {
    let watch = Watch::start(lab, Expected::Handover);
    for member in [1, 2] {
        lab.begin_upgrade(member);
        lab.wait_for_upgrade(member);
    }
    let begun = Instant::now();
    lab.begin_upgrade(0);
    watch.wait_for_takeover(lab);
    lab.wait_for_upgrade(0);
    rest(calm(lab));
    watch.end(row, begun);
    adopt_all(lab, (1, "a"));
}

/// What somebody does who does not think of it: they go one after the other by themselves. Who is active at the end depends on which new
/// process is ready first.
fn upgraded_at_once(lab: &mut Lab, row: &mut Row) {
    let watch = Watch::start(lab, Expected::HandoverOrTwo);
    let begun = Instant::now();
    (0..3).for_each(|member| lab.begin_upgrade(member));
    watch.wait_for_takeover(lab);
    (0..3).for_each(|member| lab.wait_for_upgrade(member));
    rest(calm(lab));
    watch.end(row, begun);
    let is_active = |lab: &Lab, host: &str| lab.view(host)["role"] == "active";
    lab.wait_until("one is active", |lab| is_active(lab, "a") || is_active(lab, "b"));
    adopt_all(lab, if is_active(lab, "a") { (0, "b") } else { (1, "a") });
}

/// The active one last, when the other is there.
fn adopt_all(lab: &mut Lab, (active, standby): (usize, &str)) {
    for member in [1 - active, 2] {
        lab.adopt(member);
    }
    let active_name = ["a", "b"][active];
    lab.wait_until("the witness votes", |lab| {
        lab.view("w")["votes_for"] == active_name
    });
    lab.wait_until("the standby is ready", |lab| lab.is_ready(active_name, standby));
    lab.adopt(active);
    restore(lab);
}

fn power_cut(lab: &mut Lab, row: &mut Row) {
    let watch = Watch::start(lab, Expected::Takeover);
    let begun = Instant::now();
    for member in [2, 0, 1] {
        lab.kill(member);
    }
    // Nobody of them knows who was active. The second alone comes first.
    for member in [1, 2] {
        lab.start(member);
    }
    watch.wait_for_takeover(lab);
    lab.start(0);
    rest(calm(lab));
    watch.end(row, begun);
    restore(lab);
}

/// Recordings, forgeries, noise.
fn flooded(lab: &mut Lab, row: &mut Row) {
    let before = lab.view("a");
    let address = (Lab::address("a"), CONTROL_PORT);
    let flood = |lab: &mut Lab| {
        let space = lab.space("c");
        let sent = inside(space, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut random = fastrand::Rng::with_seed(21);
            for count in 0..100_000 {
                let length = random.usize(..300);
                let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
                if count % 2 == 0 {
                    bytes.splice(0..0, *b"tt\x01\x01");
                }
                // A full queue is a part of the exercise.
                let _ = socket.send_to(&bytes, address);
            }
        });
        sent.join().unwrap();
    };
    stays(lab, row, flood, |_| {});
    let after = lab.view("a");
    assert_eq!(before["epoch"], after["epoch"], "no state has changed");
    assert_eq!(before["leases"], after["leases"], "no state has changed");
}
