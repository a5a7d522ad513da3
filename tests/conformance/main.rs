//! Conformance: every policy decides the same as a component in the real host and natively under the SDK's test host,
//! and both keep the rules that all policies have in common.
//!
//! The components are those of `plugins/dist`, or of the directory that `TRIMTAB_POLICIES` names (fresh builds, perhaps
//! by another compiler). The world they decide in is random and seeded; a failure names the seed, and `TRIMTAB_SEED`
//! repeats it. The same worlds are recorded and replayed (`replayed.rs`). Read next: `run.rs` (the comparison),
//! `delegate.rs` (the host's own versions), `world.rs` (what happens to a pool), `sides.rs` (the two builds).

mod chance;
mod delegate;
mod keys;
mod replayed;
mod rules;
mod run;
mod sides;
mod traffic;
mod world;

use run::{Conduct::*, conform};

/// One test a policy: its settings, and whether it keeps the rules under them.
macro_rules! policies {
    ($($name:ident: [$($conduct:ident $settings:literal),+];)*) => {
        mod decides_alike_natively_and_as_a_component {
            use super::*;

            $(#[test]
            fn $name() {
                conform(&stringify!($name).replace('_', "-"), $name::native, &[$(($conduct, $settings)),+]);
            })*
        }

        #[test]
        fn every_built_in_policy_is_compared() {
            let mut compared = vec![$(stringify!($name).replace('_', "-")),*];
            let mut builtin = trimtab::config::BUILTIN_POLICIES;
            compared.sort();
            builtin.sort();
            assert_eq!(compared, builtin);
        }
    };
}

policies! {
    round_robin: [Good "{}"];
    weighted_round_robin: [Good "{}"];
    least_connections: [Good "{}"];
    least_response_time: [Good "{}"];
    least_bandwidth: [Good "{}"];
    ip_hash: [
        Good "{}",
        Good r#"{"ipv4_prefix": 24, "ipv6_prefix": 128}"#,
        Good r#"{"ipv4_prefix": 0, "ipv6_prefix": 0}"#
    ];
    consistent_hash: [Good "{}", Good r#"{"balance": 0}"#, Good r#"{"balance": 1}"#, Good r#"{"balance": 3.7}"#];
    content_hash: [
        Good "{}",
        Good r#"{"header": "X-User"}"#,
        Good r#"{"cookie": "sid"}"#,
        Good r#"{"query": "user"}"#,
        Good r#"{"path_segments": 2}"#
    ];
    random_two_choices: [Good "{}"];
    peak_ewma: [Good "{}", Good r#"{"decay": 0.01}"#, Good r#"{"decay": 3600}"#];
    chaos: [
        Good "{}",
        Bad r#"{"fault": "bad-index", "every": 3}"#,
        Bad r#"{"fault": "unusable", "every": 2}"#
    ];
}
