//! Two random choices by expected time; for a request in a hurry the fastest of all; and one that nobody can answer in
//! time is refused at once.
//!
//! Of two random backends the one with the smaller `(active + 1) * latency` is taken, as most requests are served well by.
//! If that one's usual latency is above what the request has left, all backends are looked at, and the one with the lowest
//! latency serves. If even that is too late, working on the request would only make others late too: 504. A backend whose
//! latency is unknown or has faded counts as fast, so that slow ones get another chance.
//!
//! Cost: two readings, and two columns for requests in a hurry. Settings: `header`, default `grpc-timeout`, whose form it has:
//! digits and a unit (`n`, `u`, `m` for milliseconds, `S`, `M`, `H`); `default_ms` of requests without one, default 0: no
//! deadline.
//! Sources: gRPC over HTTP/2, "Timeout"; grpc.io guide on deadlines (grpc.io pull request 1136); Mitzenmacher, "The power of two
//! choices" (2001).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{Lottery, prelude::*};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    header: String,
    default_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "grpc-timeout".into(),
            default_ms: 0,
        }
    }
}

#[derive(Default)]
struct DeadlineAware {
    config: Config,
    lottery: Lottery,
}

impl DeadlineAware {
    fn left_us(&self, request: &Request) -> Option<u64> {
        let told = request
            .header(&self.config.header)
            .and_then(|text| microseconds(&text));
        let default = self.config.default_ms.saturating_mul(1000);
        told.or(Some(default).filter(|&us| us > 0))
    }
}

/// A time in the form of `grpc-timeout`: at most eight digits and a unit.
fn microseconds(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits
        .parse()
        .ok()
        .filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
    Some(match unit {
        "n" => count / 1000,
        "u" => count,
        "m" => count * 1000,
        "S" => count * 1_000_000,
        "M" => count * 60_000_000,
        "H" => count * 3_600_000_000,
        _ => return None,
    })
}

impl Policy for DeadlineAware {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        Ok(())
    }

    fn update(&mut self, pool: &Pool) {
        self.lottery = Lottery::new(pool);
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        let Some((first, second)) = self.lottery.draw_two(request, pool) else {
            return Pick::NoOpinion;
        };
        let drawn = [Some(first), second]
            .into_iter()
            .flatten()
            .filter_map(|index| pool.get(index));
        let waiting =
            |backend: &Backend<'_>| (u64::from(backend.active()) + 1) * u64::from(backend.latency_us());
        let Some(better) = drawn.min_by_key(waiting) else {
            return Pick::NoOpinion;
        };
        let Some(left_us) = self.left_us(request) else {
            return better.into();
        };
        if u64::from(better.latency_us()) <= left_us {
            return better.into();
        }
        let (latency, active) = (pool.latency_us_all(), pool.active_all());
        let fastest = pool
            .ready()
            .min_by_key(|backend| (latency[backend.index()], active[backend.index()]));
        match fastest {
            Some(backend) if u64::from(latency[backend.index()]) <= left_us => backend.into(),
            _ => request.reject(504),
        }
    }
}

policy!(DeadlineAware);

#[cfg(test)]
mod tests {
    use super::{microseconds, native};
    use trimtab_policy::testing::{Trial, pool, with_host};

    /// Three of which one is fast, and a request with this much time.
    fn picks(timeout: Option<&str>, latency_us: [u32; 3]) -> (Vec<Option<String>>, Option<u16>) {
        let mut trial = Trial::new(native(), pool(["a", "b", "c"]));
        with_host(|host| {
            host.latency_us = latency_us.to_vec();
            host.headers = timeout
                .map(|text| ("grpc-timeout".into(), text.into()))
                .into_iter()
                .collect();
        });
        let picks = (0..100).map(|_| trial.pick().map(str::to_owned)).collect();
        (picks, with_host(|host| host.rejected))
    }

    fn is_all(picks: &[Option<String>], name: Option<&str>) -> bool {
        picks.iter().all(|pick| pick.as_deref() == name)
    }

    #[test]
    fn a_request_in_a_hurry_gets_the_fastest() {
        let (picks, _) = picks(Some("20m"), [90_000, 70_000, 10_000]);
        assert!(is_all(&picks, Some("c")), "{picks:?}");
    }

    #[test]
    fn one_with_time_is_spread() {
        for timeout in [Some("1S"), None] {
            let (picks, _) = picks(timeout, [90_000, 70_000, 10_000]);
            assert!(!is_all(&picks, Some("c")) && picks.iter().all(Option::is_some));
        }
    }

    #[test]
    fn what_nobody_can_answer_in_time_is_refused() {
        let (picks, rejected) = picks(Some("5m"), [90_000, 70_000, 10_000]);
        assert!(is_all(&picks, None));
        assert_eq!(rejected, Some(504));
    }

    #[test]
    fn a_backend_that_nobody_knows_counts_as_fast() {
        let (picks, _) = picks(Some("5m"), [90_000, 0, 10_000]);
        assert!(is_all(&picks, Some("b")), "{picks:?}");
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let cases = [
            ("100m", Some(100_000)),
            ("2S", Some(2_000_000)),
            ("1H", Some(3_600_000_000)),
            ("5000n", Some(5)),
        ];
        for (text, us) in cases {
            assert_eq!(microseconds(text), us, "{text}");
        }
        for text in ["", "m", "5", "5x", "-5m", "+5m", "123456789m", "5\u{b5}"] {
            assert_eq!(microseconds(text), None, "{text}");
        }
    }
}
