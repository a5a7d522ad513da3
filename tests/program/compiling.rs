//! Components that cost too much to compile: the child process ends at its limits, the refusal names the limit, and
//! nobody who is served notices. The number is that of the list of hostile plugins that the project keeps.

use std::{path::Path, sync::Arc};

use rustix::process::{Pid, Signal, kill_process};
use trimtab::{
    control::{NewComponent, Promotion},
    policy::{Maker, Sought},
    server::Source,
};
use trimtab_tests::{
    Balancer, DEADLINE, Directory, Load, Origin, Setup, get, guest::Guest, wait_until, within,
};

use crate::child;

/// An integer as WebAssembly writes it.
fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len() as u64).as_slice(), content].concat()
}

/// A component with one core module: so many functions `(param i32) (result i32)` with this body.
fn component(functions: usize, body: &[u8]) -> Vec<u8> {
    let types = section(1, &[1, 0x60, 1, 0x7f, 1, 0x7f]);
    let count = leb(functions as u64);
    let declared = section(3, &[count.clone(), vec![0; functions]].concat());
    let sized = [leb(body.len() as u64).as_slice(), body].concat();
    let code = section(10, &[count, sized.repeat(functions)].concat());
    let module = [b"\0asm\x01\0\0\0".as_slice(), &types, &declared, &code].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &section(1, &module)].concat()
}

/// No locals: `local.get 0; i32.const 7; i32.add; …; end`.
fn sums(count: usize) -> Vec<u8> {
    [&[0, 0x20, 0], [0x41, 7, 0x6a].repeat(count).as_slice(), &[0x0b]].concat()
}

/// As many locals as there may be, each of which is used.
fn locals() -> Vec<u8> {
    const LOCALS: u64 = 49_000;
    let mut body = [[1].as_slice(), &leb(LOCALS), &[0x7f]].concat();
    for local in 1..=LOCALS {
        // `local.get previous; i32.const 3; i32.mul; local.set local`
        body.extend(
            [
                [0x20].as_slice(),
                &leb(local - 1),
                &[0x41, 3, 0x6c, 0x21],
                &leb(local),
            ]
            .concat(),
        );
    }
    body.extend([[0x20].as_slice(), &leb(LOCALS), &[0x0b]].concat());
    body
}

/// Tables of jumps with so many targets each, to the innermost and the outermost of some blocks in turn.
fn branches(tables: usize, targets: usize) -> Vec<u8> {
    let table = [
        [0x02, 0x40, 0x02, 0x40, 0x20, 0, 0x0e].as_slice(),
        &leb(targets as u64),
        &[0, 1].repeat(targets / 2),
        &[0, 0x0b, 0x0b],
    ]
    .concat();
    [[0].as_slice(), &table.repeat(tables), &[0x20, 0, 0x0b]].concat()
}

/// Compiles under way: child processes of this one, which is a test's own.
fn compiles() -> Vec<Pid> {
    let is_compile = |process: &Path| {
        let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
        let parent = format!("PPid:\t{}", std::process::id());
        read("status").lines().any(|line| line == parent) && read("cmdline").contains("compile-policy")
    };
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
    let compiles = processes.filter(|entry| is_compile(&entry.path()));
    let id = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    compiles.filter_map(id).filter_map(Pid::from_raw).collect()
}

struct Stage {
    directory: Directory,
    _origin: Origin,
    setup: Setup,
    balancer: Balancer,
}

impl Stage {
    async fn start(compile: &str) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", Guest::default().build());
        let origin = Origin::start("a").await;
        let setup = Setup::to(origin.address())
            .top(compile)
            .pool("policy = \"mine\"")
            .rest("[policy.mine]\ncomponent = \"policy.wasm\"");
        let source = Source::Text {
            text: setup.text(),
            directory: directory.path().to_owned(),
        };
        let balancer = Balancer::run(source, child()).await;
        Self {
            directory,
            _origin: origin,
            setup,
            balancer: balancer.unwrap_or_else(|error| panic!("{error}")),
        }
    }

    /// Replaces the component by one that must be refused, under load; gives the refusal.
    async fn refusal(&self, component: &[u8]) -> String {
        let before = self.balancer.view().deployment;
        let load = Load::start(self.balancer.address, 4);
        self.directory.replace("policy.wasm", component);
        let refusal = self.balancer.replace(&self.setup).await;
        load.more(20).await;
        load.stop().await.expect_no_failure();
        let after = self.balancer.view().deployment;
        assert!(Arc::ptr_eq(&before, &after), "the old one keeps serving");
        refusal.expect_err("it is refused")
    }

    async fn expect(&self, component: &[u8], limit: &str) {
        let refusal = self.refusal(component).await;
        assert!(refusal.contains(limit), "{refusal}");
        assert!(
            refusal.contains("policy.mine.component") && refusal.contains("policy.wasm"),
            "it names the policy: {refusal}"
        );
    }
}

#[tokio::test]
async fn a_good_component_compiles_in_the_child_and_serves() {
    let stage = Stage::start("").await;
    assert_eq!(get(stage.balancer.address, "/").await.status, 200);
    let candidate = &stage.balancer.view().deployment.candidate;
    assert_eq!(candidate.code.maker, Maker::Compiler);
    assert_eq!(stage.balancer.view().deployment.faults(), 0);
}

#[tokio::test]
async fn the_childs_refusals_are_those_of_this_process() {
    let stage = Stage::start("").await;
    stage
        .expect(b"#!/bin/sh\necho hello\n", "not a WebAssembly component")
        .await;
    stage
        .expect(
            b"\0asm\x01\0\0\0\x01",
            "a core module that cannot be made into a component",
        )
        .await;
    let asynchronous = wat::parse_str(
        "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
           (func (export \"f\") async (canon lift (core func $i \"f\") async)))",
    );
    stage
        .expect(&asynchronous.unwrap(), "Policies are synchronous")
        .await;
}

#[tokio::test]
async fn p24_a_file_of_200_mib_is_refused_for_its_size() {
    let stage = Stage::start("").await;
    let path = stage.directory.write("large.wasm", b"\0asm");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    std::fs::rename(path, stage.directory.path().join("policy.wasm")).unwrap();
    let refusal = stage.balancer.replace(&stage.setup).await.unwrap_err();
    assert!(refusal.contains("compile.size = \"64MiB\""), "{refusal}");
    assert_eq!(get(stage.balancer.address, "/").await.status, 200);
}

#[tokio::test]
async fn p24_a_million_functions_end_at_the_limit_of_processor_time() {
    let stage = Stage::start("compile = { cpu_time = \"1s\" }").await;
    stage
        .expect(&component(1_000_000, &sums(8)), "compile.cpu_time = \"1s\"")
        .await;
}

#[tokio::test]
async fn p24_huge_functions_end_at_the_limit_of_memory() {
    let stage =
        Stage::start("compile = { memory = \"256MiB\", cpu_time = \"5m\", wall_time = \"5m\" }").await;
    stage
        .expect(&component(1, &sums(2_000_000)), "compile.memory = \"256MiB\"")
        .await;
}

#[tokio::test]
async fn p24_huge_tables_of_branches_end_at_a_limit() {
    let stage = Stage::start("compile = { cpu_time = \"1s\" }").await;
    stage
        .expect(&component(40, &branches(60, 10_000)), "compile.cpu_time = \"1s\"")
        .await;
}

#[tokio::test]
async fn p24_huge_numbers_of_locals_end_at_a_limit() {
    let stage = Stage::start("compile = { cpu_time = \"1s\" }").await;
    stage
        .expect(&component(100, &locals()), "compile.cpu_time = \"1s\"")
        .await;
}

#[tokio::test]
async fn p24_a_compile_that_gets_no_processor_ends_by_the_clock() {
    let stage = Stage::start("compile = { cpu_time = \"5m\", wall_time = \"1s\" }").await;
    stage
        .expect(&component(1_000_000, &sums(8)), "compile.wall_time = \"1s\"")
        .await;
}

#[tokio::test]
async fn a_slow_compile_keeps_nobody_waiting() {
    let stage = Stage::start("compile = { cpu_time = \"3s\", wall_time = \"5m\" }").await;
    let upload = |wasm: Vec<u8>| {
        let handle = stage.balancer.handle().clone();
        let component = NewComponent {
            wasm: wasm.into(),
            pool: None,
        };
        async move { handle.upload(component).await }
    };
    stage
        .directory
        .replace("policy.wasm", component(1_000_000, &sums(8)));
    let handle = stage.balancer.handle().clone();
    let text = stage.setup.text();
    let slow = tokio::spawn(async move { handle.replace(text).await });
    wait_until("it compiles", DEADLINE, || compiles().len() == 1).await;
    let other = Guest {
        text: "other".into(),
        ..Guest::default()
    };
    let uploaded = within("uploading", DEADLINE, upload(other.build()))
        .await
        .unwrap();
    let promotion = Promotion {
        pool: "main".into(),
        sought: Sought::Digest(uploaded.digest.clone()),
        config_json: None,
    };
    within("promoting", DEADLINE, stage.balancer.handle().promote(promotion))
        .await
        .unwrap();
    assert!(!slow.is_finished(), "the reload is still compiling");
    assert_eq!(
        *stage.balancer.view().deployment.candidate.digest,
        *uploaded.digest
    );
    let refusal = within("the reload", DEADLINE, slow).await.unwrap().unwrap_err();
    assert!(refusal.contains("compile.cpu_time"), "{refusal}");
}

#[tokio::test]
async fn a_stop_ends_a_compile() {
    let stage = Stage::start("compile = { cpu_time = \"1h\", wall_time = \"1h\" }").await;
    stage
        .directory
        .replace("policy.wasm", component(1_000_000, &sums(8)));
    let (handle, text) = (stage.balancer.handle().clone(), stage.setup.text());
    let slow = tokio::spawn(async move { handle.replace(text).await });
    wait_until("it compiles", DEADLINE, || compiles().len() == 1).await;
    // So that it does not end by itself.
    kill_process(compiles()[0], Signal::STOP).unwrap();
    stage.balancer.stop().await;
    let answer = within("the answer", DEADLINE, slow).await.unwrap();
    assert_eq!(answer.unwrap_err(), "the balancer is stopping");
    wait_until("nothing is left of it", DEADLINE, || compiles().is_empty()).await;
}

#[tokio::test]
async fn a_compiler_that_is_not_there_is_named() {
    let stage = Stage::start("").await;
    let directory = stage.directory.path().to_owned();
    let missing = directory.join("no-such-program");
    let source = Source::Text {
        text: stage.setup.text(),
        directory,
    };
    let started = Balancer::run(source, trimtab::policy::Compiler::Child(missing)).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("no-such-program"), "{error}");
}
