//! What the built-in policies claim.

use crate::config::{
    HashOn,
    author::{Claims, Fair},
};

/// The claims of a built-in policy; none for one that is not known here.
pub(super) fn of_builtin(name: &str) -> Claims {
    let picks = Claims {
        always_picks: true,
        ..Claims::default()
    };
    let weighted = Claims {
        fair: Some(Fair::Weights),
        slow_start: true,
        ..picks.clone()
    };
    let hashes = |key| Claims {
        order_blind: true,
        sticky: Some(key),
        fair: Some(Fair::Weights),
        ..picks.clone()
    };
    match name {
        "round-robin" => Claims {
            fair: Some(Fair::Equal),
            ..picks
        },
        "weighted-round-robin" => weighted,
        "least-connections" | "least-response-time" | "least-bandwidth" => Claims {
            order_blind: true,
            follows_load: true,
            ..weighted
        },
        "random-two-choices" | "peak-ewma" => Claims {
            follows_load: true,
            ..weighted
        },
        "ip-hash" | "consistent-hash" => hashes(HashOn::ClientIp),
        "content-hash" => hashes(HashOn::Path),
        _ => Claims::default(),
    }
}
