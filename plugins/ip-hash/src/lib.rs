//! Sends a client to the same backend as long as that one is there, by the network address it connects from.
//!
//! Consistent hashing: a change of the pool moves only the clients of the backend that came or went. Looks at nothing
//! but the connection, so it serves TCP as well as HTTP; behind another proxy all clients look alike.
//!
//! Cost: constant. Choose it for sessions or caches kept on the backend when requests carry no better key (else
//! `consistent-hash`, `content-hash`). Settings: `ipv4_prefix` (0 to 32, default 32) and `ipv6_prefix` (0 to 128,
//! default 64: the smallest network a site gets, whose hosts change their lower half daily, RFC 8981).
//! Source: Karger et al., "Consistent hashing and random trees" (1997).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{hash, hash::Ring, prelude::*};

/// How many leading bits of the address make the client.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    ipv4_prefix: u8,
    ipv6_prefix: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ipv4_prefix: 32,
            ipv6_prefix: 64,
        }
    }
}

#[derive(Default)]
struct IpHash {
    config: Config,
    ring: Ring,
}

impl IpHash {
    fn key(&self, (hi, lo): (u64, u64)) -> u64 {
        let is_ipv4 = hi == 0 && lo >> 32 == 0xffff;
        let prefix = if is_ipv4 {
            96 + self.config.ipv4_prefix
        } else {
            self.config.ipv6_prefix
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        hash::pair(hi & (mask >> 64) as u64, lo & mask as u64)
    }
}

impl Policy for IpHash {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        match self.config {
            Config {
                ipv4_prefix: 33.., ..
            } => Err("`ipv4_prefix` is above 32".into()),
            Config {
                ipv6_prefix: 129.., ..
            } => Err("`ipv6_prefix` is above 128".into()),
            _ => Ok(()),
        }
    }

    fn update(&mut self, pool: &Pool) {
        self.ring.follow(pool);
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        self.ring
            .find(self.key(request.client_bits()), |index| pool.is_ready(index))
            .into()
    }
}

policy!(IpHash);

#[cfg(test)]
mod tests {
    use super::native;
    use std::net::{IpAddr, Ipv6Addr};
    use trimtab_policy::testing::{PoolBuilder, Trial, pool, with_host};

    fn ten() -> PoolBuilder {
        pool((0..10).map(|index| index.to_string()))
    }

    fn from(trial: &mut Trial, client: &str, attempt: u32) -> String {
        let bits = match client.parse().unwrap() {
            IpAddr::V4(client) => client.to_ipv6_mapped().to_bits(),
            IpAddr::V6(client) => Ipv6Addr::to_bits(client),
        };
        let mut facts = trial.facts();
        (facts.client_hi, facts.client_lo, facts.attempt) = ((bits >> 64) as u64, bits as u64, attempt);
        trial.ask(facts).unwrap().to_owned()
    }

    #[test]
    fn a_client_stays_with_its_backend() {
        let mut trial = Trial::new(native(), ten());
        let first = from(&mut trial, "192.0.2.7", 0);
        assert!((0..100).all(|_| from(&mut trial, "192.0.2.7", 0) == first));
    }

    #[test]
    fn clients_spread_by_weight() {
        let shares = Trial::new(native(), pool(["a", "b"]).weight("a", 3)).run(20_000);
        assert!((shares.share("a") - 0.75).abs() < 0.03, "{}", shares.share("a"));
    }

    #[test]
    fn only_the_clients_of_a_failed_backend_move_and_they_return() {
        let mut trial = Trial::new(native(), ten());
        let clients: Vec<String> = (0..2000)
            .map(|n| format!("10.1.{}.{}", n / 250, n % 250))
            .collect();
        let before: Vec<_> = clients.iter().map(|client| from(&mut trial, client, 0)).collect();
        trial.update(ten().down("3"));
        for (client, was) in clients.iter().zip(&before) {
            assert_eq!(*was != "3", from(&mut trial, client, 0) == *was);
        }
        trial.update(ten());
        assert!(
            clients
                .iter()
                .zip(&before)
                .all(|(client, was)| from(&mut trial, client, 0) == *was)
        );
    }

    #[test]
    fn a_prefix_is_one_client() {
        let mut trial = Trial::configured(native(), r#"{"ipv4_prefix": 24}"#, ten());
        let first = from(&mut trial, "192.0.2.1", 0);
        assert!((2..255).all(|host| from(&mut trial, &format!("192.0.2.{host}"), 0) == first));
        let first = from(&mut trial, "2001:db8::1", 0);
        assert!((2..255).all(|host| from(&mut trial, &format!("2001:db8::{host:x}"), 0) == first));
        assert!((1..255).any(|net| from(&mut trial, &format!("2001:db8:0:{net:x}::1"), 0) != first));
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        let mut trial = Trial::new(native(), pool(["a", "b"]));
        with_host(|host| host.tried = vec![true, false]);
        assert!((0..50).all(|host| from(&mut trial, &format!("192.0.2.{host}"), 1) == "b"));
    }

    #[test]
    fn impossible_prefixes_are_refused() {
        assert!(native().configure(r#"{"ipv4_prefix": 33}"#).is_err());
        assert!(native().configure(r#"{"ipv6_prefix": 129}"#).is_err());
        assert!(
            native()
                .configure(r#"{"ipv4_prefix": 0, "ipv6_prefix": 0}"#)
                .is_ok()
        );
    }
}
