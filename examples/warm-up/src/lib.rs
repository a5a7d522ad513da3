//! Least connections in which a cold backend takes part in few picks until it has answered `requests` requests.
//!
//! What makes a cold backend slow (code that is not compiled yet, empty caches) goes away with the requests it serves and
//! not with the time that passes: the pool's `slow_start`, which goes by time, is over too soon when traffic is low, and too
//! late when it is high. So it takes part in `begin` percent of the picks, in more with each answer, and in the end in all. Failed answers warm nothing.
//! A backend that was down is cold again. At the start all are equally cold, so nobody is spared.
//!
//! Cost: a delegated choice; an addition for each answer. Settings: `requests`, default 1000 (as many as this worker sees);
//! `begin`, default 10 percent, 1 to 100. Weights and slow start count. Counts are kept over a swap.
//! Sources: envoy issue 11050 and istio issue 21228 (what goes wrong with cold Java backends).
#![forbid(unsafe_code)]

use serde::Deserialize;
use trimtab_policy::{PerBackend, Stateful, prelude::*, state};

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    requests: u64,
    begin: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            requests: 1000,
            begin: 10,
        }
    }
}

#[derive(Default)]
struct WarmUp {
    config: Config,
    answers: PerBackend<u64>,
}

impl WarmUp {
    /// 1 to 10,000.
    fn warmth(&self, index: usize) -> u64 {
        let Config { requests, begin } = self.config;
        let grown = (10_000 - begin * 100) * self.answers[index].min(requests) / requests;
        begin * 100 + grown
    }
}

impl Policy for WarmUp {
    fn configure(&mut self, settings: Settings) -> Result<(), String> {
        self.config = settings.read()?;
        match self.config {
            Config { requests: 0, .. } => Err("`requests` is 0, but must be at least 1".into()),
            Config { begin, .. } if !(1..=100).contains(&begin) => {
                Err(format!("`begin` is {begin}, but must be 1 to 100"))
            }
            _ => Ok(()),
        }
    }

    fn update(&mut self, pool: &Pool) {
        self.answers.follow(pool);
        for backend in pool.iter().filter(|backend| !backend.is_usable()) {
            self.answers[backend.index()] = 0;
        }
    }

    fn pick(&mut self, request: &Request, pool: &Pool) -> Pick {
        // By lot and not as a lower weight: a cold backend that counts as busy would get nothing while the others have
        // little to do, and stay cold.
        let takes_part = |backend: Backend<'_>| request.roll() % 10_000 < self.warmth(backend.index());
        let warm_enough = pool.delegate_to(Algorithm::LeastConnections, takes_part);
        warm_enough
            .or_else(|| pool.delegate_to(Algorithm::LeastConnections, |_| true))
            .into()
    }
}

impl Observer for WarmUp {
    fn outcomes(&mut self, outcomes: &[Outcome], _pool: &Pool, _now_us: u64) {
        for outcome in outcomes.iter().filter(|outcome| !outcome.failed()) {
            if let Some(answers) = self.answers.get_mut(outcome.index) {
                *answers = answers.saturating_add(1);
            }
        }
    }
}

impl Stateful for WarmUp {
    const SCHEMA: &'static str = "warm-up/1";

    fn export_state(&self) -> Vec<u8> {
        state::write(self.answers.by_id().flat_map(|(id, &answers)| [id, answers]))
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<(), String> {
        for pair in state::read(bytes)?.chunks_exact(2) {
            if let Some(answers) = self.answers.of_id(pair[0]) {
                *answers = pair[1];
            }
        }
        Ok(())
    }
}

policy!(WarmUp, observer, stateful);

#[cfg(test)]
mod tests {
    use super::native;
    use trimtab_policy::{
        Outcome,
        testing::{PoolBuilder, Trial, pool, with_host},
    };

    const SETTINGS: &str = r#"{"requests": 100, "begin": 10}"#;

    fn three() -> PoolBuilder {
        pool(["a", "b", "c"])
    }

    fn answer(trial: &mut Trial, index: usize, status: u16, times: usize) {
        let outcome = Outcome {
            index,
            latency_us: 1,
            bytes: 0,
            status,
        };
        trial.observe(&vec![outcome; times]);
    }

    /// All warm but for the last.
    fn trial() -> Trial {
        let mut trial = Trial::configured(native(), SETTINGS, three());
        answer(&mut trial, 0, 200, 100);
        answer(&mut trial, 1, 200, 100);
        trial
    }

    fn share_of_c(trial: &mut Trial) -> f64 {
        with_host(|host| host.active = vec![0; 3]);
        trial.run_overlapping(6000, 600).share("c")
    }

    #[test]
    fn a_cold_backend_gets_little() {
        let share = share_of_c(&mut trial());
        assert!((share - 0.1).abs() < 0.02, "{share}");
    }

    #[test]
    fn it_gets_more_with_each_answer() {
        let mut trial = trial();
        answer(&mut trial, 2, 200, 10);
        let share = share_of_c(&mut trial);
        assert!((share - 0.19).abs() < 0.02, "{share}");
        answer(&mut trial, 2, 200, 90);
        let share = share_of_c(&mut trial);
        assert!((share - 1.0 / 3.0).abs() < 0.01, "{share}");
    }

    #[test]
    fn failures_warm_nothing() {
        let mut trial = trial();
        answer(&mut trial, 2, 503, 1000);
        assert!(share_of_c(&mut trial) < 0.15);
    }

    #[test]
    fn who_was_down_is_cold_again() {
        let mut trial = trial();
        answer(&mut trial, 2, 200, 100);
        trial.update(three().down("c"));
        trial.update(three());
        assert!(share_of_c(&mut trial) < 0.15);
    }

    #[test]
    fn what_is_warm_stays_so_over_a_swap() {
        let mut next = Trial::configured(native(), SETTINGS, three());
        next.take_over(&trial()).unwrap();
        assert!(share_of_c(&mut next) < 0.15);
    }

    #[test]
    fn nonsense_is_refused() {
        for settings in [r#"{"requests": 0}"#, r#"{"begin": 0}"#, r#"{"begin": 101}"#] {
            assert!(
                native().configure(settings).unwrap_err().contains("must be"),
                "{settings}"
            );
        }
    }
}
