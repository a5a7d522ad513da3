//! The same scenario twice: simulated, and by a real balancer with real backends. Prints both tables.
//!
//! Says whether the simulation ranks policies as reality does. The very same requests are sent at the very same times, but
//! slower by a factor, so that the machine is not what is measured: backends sleep for as long as a request costs, and
//! work on as many at a time as the scenario says. Events, keys, classes and networks are left out of the live run.
//! No test: it takes minutes, and what it prints depends on the machine.
//!
//! `cargo run --release -p trimtab-tests --example simulate-live [SCENARIO.toml] [REQUESTS] [SLOWER]`
#![allow(clippy::print_stdout, reason = "a command for a terminal")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore};
use trimtab::{
    config::{Group, Scenario},
    simulate::{Order, Planned, Progress, plan, simulate},
};
use trimtab_tests::{Client, Setup};

const SCENARIO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/scenarios/one-slow-of-four.toml"
);
/// How the backends are told what a request costs.
const COST: &str = "x-cost-us";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().map_or_else(|| SCENARIO.into(), PathBuf::from);
    let requests = arguments.next().map_or(Ok(6000), |text| text.parse())?;
    let slower = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let mut scenario = Scenario::load(&path).map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
    scenario.requests = requests;
    let order = Order {
        scenario,
        policies: Vec::new(),
    };
    let simulated = simulate(&order, &Progress::new(&order)).map_err(|error| anyhow::anyhow!("{error}"))?;
    let scenario = &order.scenario;
    println!(
        "{}, {requests} requests, live {slower} times slower\n",
        scenario.title
    );
    println!(
        "{:<22}{:>36}{:>36}",
        "", "simulated: mean, p50, p99 ms", "live: mean, p50, p99 ms"
    );
    let mut means = Vec::new();
    for policy in &simulated.report.policies {
        let took = live(scenario, &policy.name, slower)?;
        let latency = &policy.latency;
        let live = figures(&took, slower);
        means.push((policy.name.clone(), latency.mean_ms, live.0));
        println!(
            "{:<22}{:>14.2}{:>11.2}{:>11.2}{:>14.2}{:>11.2}{:>11.2}",
            policy.name, latency.mean_ms, latency.p50_ms, latency.p99_ms, live.0, live.1, live.2
        );
    }
    let ranked = |read: fn(&(String, f64, f64)) -> f64| {
        let mut ranked = means.clone();
        ranked.sort_by(|one, other| read(one).total_cmp(&read(other)));
        let names: Vec<String> = ranked.into_iter().map(|(name, ..)| name).collect();
        names.join(" < ")
    };
    println!("\nby the mean, simulated: {}", ranked(|row| row.1));
    println!("by the mean, live:      {}", ranked(|row| row.2));
    Ok(())
}

/// Mean, median and 99th percentile in milliseconds of the scenario's time.
fn figures(took: &[Duration], slower: u32) -> (f64, f64, f64) {
    let mut sorted: Vec<f64> = took
        .iter()
        .map(|took| took.as_secs_f64() * 1000.0 / f64::from(slower))
        .collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place).copied().unwrap_or(f64::NAN)
    };
    (
        sorted.iter().sum::<f64>() / sorted.len() as f64,
        at(0.5),
        at(0.99),
    )
}

/// What each request took.
fn live(scenario: &Scenario, policy: &str, slower: u32) -> Result<Vec<Duration>> {
    let backends = on_own_thread({
        let groups = scenario.groups.clone();
        move || serve(groups)
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let setup = Setup::new()
            .backends(backends.iter().map(SocketAddr::to_string))
            .pool(&format!("policy = {policy:?}\nidle_connections = 10000"));
        let balancer = setup.start().await;
        let took = send(balancer.address, &plan(scenario), slower).await;
        balancer.stop().await;
        took
    })
}

/// Sends every request at its time, whatever became of those before.
async fn send(address: SocketAddr, planned: &[Planned], slower: u32) -> Result<Vec<Duration>> {
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let begin = Instant::now() + Duration::from_millis(100);
    let mut tasks = Vec::with_capacity(planned.len());
    for request in planned {
        let at = begin + request.at * slower;
        tokio::time::sleep_until(at.into()).await;
        let (idle, cost) = (idle.clone(), request.service * slower);
        tasks.push(tokio::spawn(async move {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut client = match kept {
                Some(client) => client,
                None => Client::try_connect(address).await?,
            };
            client
                .send(format!(
                    "GET / HTTP/1.1\r\nhost: live\r\n{COST}: {}\r\n\r\n",
                    cost.as_micros()
                ))
                .await;
            let response = client.try_response().await?;
            let took = at.elapsed();
            anyhow::ensure!(response.status == 200, "status {}", response.status);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            Ok(took)
        }));
    }
    let mut took = Vec::with_capacity(tasks.len());
    for task in tasks {
        took.push(task.await??);
    }
    Ok(took)
}

/// Runs backends on a thread that lasts as long as the program, and gives their addresses.
fn on_own_thread<F>(serve: impl FnOnce() -> F + Send + 'static) -> Result<Vec<SocketAddr>>
where
    F: Future<Output = Result<Vec<SocketAddr>>>,
{
    let (told, addresses) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            // Whoever waits hears of a failure by the channel's end.
            if let Ok(addresses) = serve().await {
                let _ = told.send(addresses);
            }
            std::future::pending::<()>().await;
        });
    });
    addresses.recv().context("the backends did not start")
}

async fn serve(groups: Vec<Group>) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for group in groups {
        for _ in 0..group.count {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            tokio::spawn(backend(listener, group.clone()));
        }
    }
    Ok(addresses)
}

async fn backend(listener: TcpListener, group: Group) {
    let slots = Arc::new(Semaphore::new(group.concurrency as usize));
    while let Ok((stream, _)) = listener.accept().await {
        let (slots, factor) = (slots.clone(), group.factor);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(slots.clone(), factor, request));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A balancer that goes away is the end of a run.
            let _ = connection.await;
        });
    }
}

async fn answer(
    slots: Arc<Semaphore>,
    factor: f64,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let cost = request.headers().get(COST).and_then(|value| value.to_str().ok());
    let cost_us: f64 = cost.and_then(|text| text.parse().ok()).unwrap_or(0.0);
    // Nobody closes it.
    let _slot = slots.acquire().await;
    tokio::time::sleep(Duration::from_secs_f64(cost_us * factor / 1e6)).await;
    Ok(Response::new(Full::new(Bytes::new())))
}
