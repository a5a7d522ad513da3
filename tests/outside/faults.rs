//! One bad backend of three, each in a process of its own: no client that only reads notices, but by the time it takes.

use std::path::Path;

use trimtab_tests::fault::{Fault, Origins, measure};

/// Of the harness: a backend that can be told to be bad.
const PROGRAM: &str = env!("CARGO_BIN_EXE_soak");

async fn nobody_fails(fault: Fault) {
    let mut origins = Origins::start(Path::new(PROGRAM)).await;
    let balancer = fault.setup(&origins).workers(2).start().await;
    let (healthy, ill) = measure(balancer.address, &mut origins, fault).await;
    eprintln!("{}\n{}", healthy.row("healthy"), ill.row(fault.name()));
    assert_eq!(healthy.failed, 0, "{:?}", healthy.failures);
    assert_eq!(ill.failed, 0, "{:?}", ill.failures);
    assert!(
        healthy.requests > 100 && ill.requests > 100,
        "{} {}",
        healthy.requests,
        ill.requests
    );
}

#[tokio::test]
async fn a_killed_backend_fails_no_get() {
    nobody_fails(Fault::Killed).await;
}

#[tokio::test]
async fn a_frozen_backend_fails_no_get() {
    nobody_fails(Fault::Frozen).await;
}

#[tokio::test]
async fn a_backend_that_answers_503_fails_no_get() {
    nobody_fails(Fault::Unavailable).await;
}

#[tokio::test]
async fn a_slow_backend_fails_no_get() {
    nobody_fails(Fault::Slow).await;
}

#[tokio::test]
async fn a_backend_that_refuses_fails_no_get() {
    nobody_fails(Fault::Refusing).await;
}
