//! `[compile]`, `[state]` and `[log]`: what the balancer's own work may cost, what it keeps on disk, and what it tells.

use std::{collections::BTreeMap, num::NonZeroUsize, ops::RangeInclusive, path::Path, time::Duration};

use super::{
    super::{
        AccessLog, Cluster, Compile, Config, Log, LogFormat, LogLevel, State, Tenants,
        reader::Table,
        units::{h, s},
    },
    COMPILE, DRAIN, LOG, RECORD, STATE, admin, file_path, record, registry,
};

const SIZE: RangeInclusive<usize> = (1 << 10)..=(1 << 30);
/// Below this the compiler would not even start.
const MEMORY: RangeInclusive<usize> = (256 << 20)..=(64 << 30);
const TIME: RangeInclusive<Duration> = s(1)..=h(1);
const PROCESSES: RangeInclusive<u32> = 1..=64;
const KEPT: RangeInclusive<usize> = (1 << 20)..=(1 << 40);
const KEPT_DEFAULT: usize = 1 << 30;
/// One to serve and one to go back to.
const VERSIONS: RangeInclusive<u32> = 2..=100;

/// The largest real components (CPython inside) have 18 MB and take up to 8 s; the rest is room.
pub(in super::super) const COMPILE_DEFAULT: Compile = Compile {
    size_bytes: 64 << 20,
    memory_bytes: 2 << 30,
    cpu_time: s(30),
    wall_time: s(60),
    processes: 2,
};

pub(super) fn compile(root: &Table<'_>) -> Compile {
    let table = root.table("compile", COMPILE);
    let default = COMPILE_DEFAULT;
    let cpu_time = table.duration("cpu_time", TIME, default.cpu_time);
    if cpu_time.subsec_nanos() != 0 {
        table.wrong_key("cpu_time", "expected whole seconds");
    }
    Compile {
        size_bytes: table.size("size", SIZE, default.size_bytes),
        memory_bytes: table.size("memory", MEMORY, default.memory_bytes),
        cpu_time,
        wall_time: table.duration("wall_time", TIME, default.wall_time),
        processes: table.whole("processes", PROCESSES, default.processes as u32) as usize,
    }
}

/// What is kept on disk, if anything is, and how many versions of a policy are kept wherever.
pub(super) fn state(root: &Table<'_>, directory: &Path) -> (Option<State>, usize) {
    let table = root.table("state", STATE);
    let path = table
        .take("directory")
        .and_then(|value| file_path(value.text()?, &value, directory));
    let size_bytes = table.size("size", KEPT, KEPT_DEFAULT) as u64;
    let versions = table.whole("versions", VERSIONS, 10) as usize;
    let state = path.map(|directory| State {
        directory,
        size_bytes,
    });
    (state, versions)
}

/// What there is in the file of a member that serves nobody, or nobody yet.
pub(super) fn serving_nobody(root: &Table<'_>, directory: &Path, cluster: Option<Cluster>) -> Config {
    let (state, versions_kept) = state(root, directory);
    Config {
        workers: NonZeroUsize::MIN,
        drain: root.duration("drain", DRAIN, s(10)),
        drain_delay: root.duration("drain_delay", DRAIN, Duration::ZERO),
        admin: admin(root),
        log: log(root, directory),
        compile: compile(root),
        state,
        versions_kept,
        record: record::record(&root.table("record", RECORD), directory),
        cluster,
        etcd: None,
        fleet: None,
        peers: None,
        registries: registry::registries(root, directory, &BTreeMap::new()),
        listeners: Vec::new(),
        pools: BTreeMap::new(),
        policies: BTreeMap::new(),
        tenants: Tenants::default(),
        shared: 0,
        components: Vec::new(),
    }
}

pub(super) fn log(root: &Table<'_>, directory: &Path) -> Log {
    let table = root.table("log", LOG);
    let access = table.take("access").and_then(|value| match value.text()? {
        "off" => Some(AccessLog::Off),
        "stdout" => Some(AccessLog::Stdout),
        "stderr" => Some(AccessLog::Stderr),
        path => file_path(path, &value, directory).map(AccessLog::File),
    });
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
    ];
    let formats = [
        ("auto", LogFormat::Auto),
        ("pretty", LogFormat::Pretty),
        ("json", LogFormat::Json),
    ];
    Log {
        level: table.choice("level", &levels, LogLevel::Info),
        format: table.choice("format", &formats, LogFormat::Auto),
        access: access.unwrap_or(AccessLog::Off),
    }
}
