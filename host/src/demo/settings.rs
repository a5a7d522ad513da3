//! The demo's configuration: the same text that a user would write into a file.
//!
//! Owns the text. Every change of the demo is another one of these, put into service as a changed file would be. It must
//! not put anything into service itself.

use std::net::SocketAddr;

use super::backends::{CAST, COUNT, SPARE};

/// What differs between the configurations of the acts.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) addresses: [SocketAddr; COUNT],
    pub(super) admin: SocketAddr,
    pub(super) policy: Choice,
    pub(super) spare_weight: u32,
}

/// The pool's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    RoundRobin,
    LeastResponseTime,
    LeastConnections,
    /// Traps at one pick in so many.
    Trapping {
        every: u32,
    },
}

impl Choice {
    /// As the pool names it.
    fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "turns",
            Self::LeastResponseTime => "fastest",
            Self::LeastConnections => "least-busy",
            Self::Trapping { .. } => "trapping",
        }
    }

    /// The component.
    fn builtin(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastResponseTime => "least-response-time",
            Self::LeastConnections => "least-connections",
            Self::Trapping { .. } => "chaos",
        }
    }
}

/// Clients, backends and balancer share this machine with whatever else it does, and a deadline counts time, not work.
const DEADLINE: &str = "50ms";

impl Settings {
    /// The file.
    pub(super) fn text(&self) -> String {
        let backends: String = (0..COUNT).map(|index| self.backend(index)).collect();
        let policy = self.policy.name();
        let mut text = format!(
            "\
workers = 2
drain = \"2s\"

[admin]
listen = \"{}\"

[[listener]]
listen = \"127.0.0.1:0\"

[pool.demo]
policy = \"{policy}\"
backends = [
{backends}]
health = {{ kind = \"http\", interval = \"200ms\", timeout = \"200ms\", fall = 5 }}
",
            self.admin
        );
        let builtin = self.policy.builtin();
        text += &format!("\n[policy.{policy}]\nbuiltin = \"{builtin}\"\ndeadline = \"{DEADLINE}\"\n");
        if let Choice::Trapping { every } = self.policy {
            text += &format!("config = {{ fault = \"trap\", every = {every} }}\n");
        }
        text
    }

    fn backend(&self, index: usize) -> String {
        let (role, address) = (&CAST[index], self.addresses[index]);
        let weight = if index == SPARE {
            format!(", weight = {}", self.spare_weight)
        } else {
            String::new()
        };
        let entry = format!("{{ address = \"{address}\"{weight} }},");
        format!(
            "  {entry:<46} # {}, answers in {} ms\n",
            role.name,
            role.pause.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_configuration_of_the_demo_is_a_good_one_and_fits_the_terminal() {
        let choices = [
            Choice::RoundRobin,
            Choice::LeastResponseTime,
            Choice::LeastConnections,
            Choice::Trapping { every: 50 },
        ];
        for policy in choices {
            let settings = Settings {
                addresses: [1, 2, 3, 65535].map(|port| ([127, 0, 0, 1], port).into()),
                admin: ([127, 0, 0, 1], 9901).into(),
                policy,
                spare_weight: 1,
            };
            let text = settings.text();
            let config = Config::parse(&text, "demo", ".".as_ref()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.pools["demo"].policy, policy.name());
            assert!(text.lines().all(|line| line.chars().count() <= 78), "{text}");
        }
    }
}
