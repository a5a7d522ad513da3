//! The levels of buckets, for another node that goes on with them.
//!
//! Owns the form. A bucket that is full is not mentioned: to know nothing of a client is to let it have a full one.

use serde::{Deserialize, Serialize};

/// Clients of one kind that are mentioned: those that have the least left.
pub(super) const CLIENTS_MAX: usize = 4096;

/// The buckets of a listener; a level below zero is a debt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// Of all clients together: requests.
    pub requests: Option<f32>,
    /// The same: connections.
    pub connections: Option<f32>,
    /// Of single clients: requests.
    pub client_requests: Vec<(u128, f32)>,
    /// The same: connections.
    pub client_connections: Vec<(u128, f32)>,
}

impl Carried {
    /// What several workers have of the same buckets: whoever has the least left has heard the most.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let least = |one: Option<f32>, two: Option<f32>| match (one, two) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self {
            requests: least(self.requests, other.requests),
            connections: least(self.connections, other.connections),
            client_requests: merged(self.client_requests, other.client_requests),
            client_connections: merged(self.client_connections, other.client_connections),
        }
    }
}

fn merged(mut one: Vec<(u128, f32)>, two: Vec<(u128, f32)>) -> Vec<(u128, f32)> {
    one.extend(two);
    one.sort_unstable_by(|(one, level), (two, other)| one.cmp(two).then(level.total_cmp(other)));
    one.dedup_by_key(|(client, _)| *client);
    least(one)
}

/// Those that have the least left, if there are too many.
pub(super) fn least(mut clients: Vec<(u128, f32)>) -> Vec<(u128, f32)> {
    if clients.len() > CLIENTS_MAX {
        clients.select_nth_unstable_by(CLIENTS_MAX, |(_, one), (_, two)| one.total_cmp(two));
        clients.truncate(CLIENTS_MAX);
    }
    clients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_bucket_in_two_workers_the_lower_level_counts() {
        let one = Carried {
            requests: Some(5.0),
            client_requests: vec![(1, 2.0), (2, 9.0)],
            ..Carried::default()
        };
        let two = Carried {
            requests: Some(4.0),
            connections: Some(1.0),
            client_requests: vec![(3, 0.0), (1, -3.0)],
            ..Carried::default()
        };
        let merged = Carried {
            requests: Some(4.0),
            connections: Some(1.0),
            client_requests: vec![(1, -3.0), (2, 9.0), (3, 0.0)],
            client_connections: Vec::new(),
        };
        assert_eq!(one.merge(two), merged);
    }

    #[test]
    fn of_too_many_clients_those_with_the_least_left_are_mentioned() {
        let clients = (0..CLIENTS_MAX as u128 + 10).map(|client| (client, client as f32));
        let kept = least(clients.rev().collect());
        assert_eq!(kept.len(), CLIENTS_MAX);
        assert!(kept.iter().all(|(client, _)| *client < CLIENTS_MAX as u128));
    }
}
