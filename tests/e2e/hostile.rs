//! Policies that fail, lie, loop and hoard: the hostile suite. Whatever they do is counted, and no client notices.
//!
//! A test's number is its case in `host/docs/security.md`. In each the guest belongs to one tenant, mallory, and another,
//! alice, is served beside it by the same workers.

use trimtab::{
    control::PoolView,
    policy::{FaultKind, Reason},
};
use trimtab_tests::{Balancer, DEADLINE, Directory, Load, Origin, Setup, guest::Guest, wait_until};

mod admission;
mod answers;
mod clients;
mod components;
mod grants;
mod memory;
mod runaways;
mod tenants;
mod wasi;
mod words;

const LOOP: &str = "(loop $forever (br $forever))";
/// Alice's host. Mallory has the one of every other test, `test`, and what is below `*.mallory`.
const ALICE: &str = "alice";
/// A guest may read everything, unless that is what a test is about.
const EVERYTHING: &str = "headers = { \"*\" = \"allow\" }, cookies = { \"*\" = \"allow\" }, client = \"allow\", path = \"allow\", query = \"allow\"";

/// What a test may want otherwise.
struct Wants<'a> {
    workers: usize,
    /// Lines of mallory's table.
    tenant: &'a str,
    /// Where mallory's policy comes from, and its limits.
    policy: &'a str,
    grants: &'a str,
}

impl Default for Wants<'_> {
    fn default() -> Self {
        Self {
            workers: 2,
            tenant: "",
            policy: "component = \"policy.wasm\"\nmemory = \"8MiB\"\ndeadline = \"5ms\"",
            grants: EVERYTHING,
        }
    }
}

/// A balancer with mallory's guest over two origins, and alice's round robin over a third.
struct Stage {
    directory: Directory,
    origins: Vec<Origin>,
    setup: Setup,
    balancer: Balancer,
}

impl Stage {
    async fn with(guest: &Guest) -> Self {
        Self::want(guest, Wants::default()).await
    }

    async fn want(guest: &Guest, wants: Wants<'_>) -> Self {
        Self::want_bytes(&guest.build(), wants).await
    }

    async fn want_bytes(component: &[u8], wants: Wants<'_>) -> Self {
        let directory = Directory::new();
        directory.write("policy.wasm", component);
        let origins = Origin::start_all(["a", "b", "c"]).await;
        let setup = setup(&origins, &wants);
        let balancer = Balancer::start(setup.text(), directory.path())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self {
            directory,
            origins,
            setup,
            balancer,
        }
    }

    async fn chaos(config: &str) -> Self {
        let policy =
            format!("builtin = \"chaos\"\nmemory = \"4MiB\"\ndeadline = \"50ms\"\nconfig = {{ {config} }}");
        let wants = Wants {
            policy: &policy,
            tenant: "deadline = \"50ms\"",
            ..Wants::default()
        };
        Self::want(&Guest::default(), wants).await
    }

    fn main(&self) -> PoolView {
        self.balancer.view()
    }

    /// Decisions for mallory that the host made, for this reason.
    fn host(&self, reason: Reason) -> u64 {
        self.main().deployment.total(|stats| stats.host(reason))
    }

    /// Requests for both tenants until something has happened, and some more. Every one is answered, and alice's policy
    /// is asked each time and never fails.
    async fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let mallory = Load::start(self.balancer.address, 4);
        let alice = Load::start_at(self.balancer.address, 2, ALICE);
        wait_until(what, DEADLINE, || {
            happened() || mallory.failed() > 0 || alice.failed() > 0
        })
        .await;
        mallory.more(20).await;
        alice.more(20).await;
        mallory.stop().await.expect_no_failure();
        alice.stop().await.expect_no_failure();
        self.expect_alice_undisturbed();
    }

    fn expect_alice_undisturbed(&self) {
        let alice = self.balancer.view_of("alice").deployment;
        assert!(alice.total(|stats| &stats.decisions) > 0);
        assert_eq!(alice.faults(), 0, "alice's policy failed");
        for reason in Reason::ALL {
            let count = alice.total(|stats| stats.host(reason));
            assert_eq!(count, 0, "the host chose for alice: {reason:?}");
        }
    }

    /// Every request is answered, while the counter of this kind, and no other, moves.
    async fn expect_only(&self, kind: FaultKind) {
        self.until(kind.name(), || self.balancer.faults(kind) >= 3).await;
        let faults = self.main().deployment.faults();
        assert_eq!(
            faults,
            self.balancer.faults(kind),
            "other faults were counted too"
        );
        assert!(self.host(Reason::Fault) > 0, "the host chose instead");
    }

    /// So many requests for each tenant, all decided by their policies.
    async fn expect_good(&self, requests: u64) {
        let before = self.main().deployment.total(|stats| &stats.decisions);
        self.until("decisions", || {
            self.main().deployment.total(|stats| &stats.decisions) >= before + requests
        })
        .await;
        assert_eq!(self.main().deployment.faults(), 0);
    }

    /// Replaces the component by one that must be refused, under load; gives the refusal.
    async fn refusal(&self, component: &[u8]) -> String {
        let before = self.main().deployment;
        let load = Load::start(self.balancer.address, 4);
        self.directory.replace("policy.wasm", component);
        let refusal = self
            .balancer
            .replace(&self.setup)
            .await
            .expect_err("it is refused");
        load.more(20).await;
        load.stop().await.expect_no_failure();
        let after = self.main().deployment;
        assert!(
            std::sync::Arc::ptr_eq(&before, &after),
            "the old one keeps serving"
        );
        assert_eq!(after.faults(), 0);
        refusal
    }
}

fn setup(origins: &[Origin], wants: &Wants<'_>) -> Setup {
    let Wants {
        workers,
        tenant,
        policy,
        grants,
    } = wants;
    let routes = [
        "test\", pool = \"main",
        "*.mallory\", pool = \"main",
        "alice\", pool = \"alice",
    ];
    let routes = routes.map(|route| format!("{{ host = \"{route}\" }}")).join(", ");
    Setup::new()
        .workers(*workers)
        .listener(&format!("route = [{routes}]"))
        .backends(origins[..2].iter().map(Origin::address))
        .pool("tenant = \"mallory\"\npolicy = \"hostile\"")
        .rest(&format!(
            "[policy.hostile]\ntenant = \"mallory\"\n{policy}\ngrants = {{ {grants} }}\n\
             [tenant.mallory]\nhosts = [\"test\", \"*.mallory\"]\n{tenant}\n\
             [tenant.alice]\nhosts = [\"alice\"]\ncpu = 100\n\
             [pool.alice]\ntenant = \"alice\"\npolicy = \"round-robin\"\nbackends = [{:?}]",
            origins[2].address()
        ))
}

/// A guest that answers its first pick, with which it is admitted, and then does this every other time.
fn picking(bad: &str) -> Guest {
    Guest {
        pick: Guest::every_other(bad),
        ..Guest::default()
    }
}
