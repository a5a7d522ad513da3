//! The last good set, with a source that says what the test says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{FOUND_MAX, Failure, Finder, Finding, Source, Update};
use crate::config::{Backend, Discover, DiscoverFrom, Family};

struct Scripted(mpsc::Receiver<Result<Vec<Backend>, Failure>>);

impl Source for Scripted {
    fn next(&mut self) -> Finding<'_> {
        Box::pin(async {
            match self.0.recv().await {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

struct Stage {
    finder: Finder,
    answers: mpsc::Sender<Result<Vec<Backend>, Failure>>,
    updates: mpsc::UnboundedReceiver<Update>,
}

fn discover() -> Discover {
    Discover {
        from: DiscoverFrom::Srv {
            name: "_http._tcp.shop.test".into(),
        },
        family: Family::Any,
        resolver: Vec::new(),
        interval_min: Duration::from_secs(1),
        interval_max: Duration::from_secs(30),
        timeout: Duration::from_secs(2),
    }
}

fn backends(addresses: &[&str]) -> Vec<Backend> {
    let backend = |address: &&str| Backend {
        address: (*address).to_owned(),
        weight: 1,
        zone: None,
        tier: 0,
        labels: BTreeMap::new(),
    };
    addresses.iter().map(backend).collect()
}

impl Stage {
    fn new(known: Option<Vec<Backend>>) -> Self {
        let (answers, script) = mpsc::channel(1);
        let (sender, updates) = mpsc::unbounded_channel();
        let discover = discover();
        let source = Box::new(Scripted(script));
        let finder = Finder::spawn_from(source, ("shop", &discover), known.map(Arc::new), sender);
        Self {
            finder,
            answers,
            updates,
        }
    }

    /// Has the source say this, and waits until it has been heard.
    async fn say(&mut self, answer: Result<Vec<Backend>, Failure>) {
        self.answers.send(answer).await.unwrap();
        // The place of this one is free when the one before has been taken.
        let permit = self.answers.reserve().await.unwrap();
        drop(permit);
        tokio::task::yield_now().await;
    }

    fn found(&self) -> Option<Vec<Backend>> {
        self.finder.found().map(|found| found.to_vec())
    }
}

fn failure(text: &str) -> Result<Vec<Backend>, Failure> {
    Err(Failure(text.to_owned()))
}

#[tokio::test]
async fn a_failure_and_an_empty_answer_keep_the_last_good_set() {
    let mut stage = Stage::new(None);
    assert_eq!(stage.found(), None);
    stage.say(Ok(backends(&["a:1", "b:1"]))).await;
    let good = stage.found();
    assert_eq!(good, Some(backends(&["a:1", "b:1"])));
    for (answer, error) in [
        (failure("SERVFAIL"), "SERVFAIL"),
        (failure("SERVFAIL"), "SERVFAIL"),
        (Ok(Vec::new()), "names no backend"),
        (Ok(vec![backends(&["a:1"]).remove(0); FOUND_MAX + 1]), "more than"),
    ] {
        stage.say(answer).await;
        assert_eq!(stage.found(), good);
        let told = stage.finder.report().error.unwrap();
        assert!(told.contains(error), "{told}");
    }
    let report = stage.finder.report();
    assert_eq!((report.updates, report.failures, report.backends), (1, 4, 2));
    stage.say(Ok(backends(&["a:1"]))).await;
    let report = stage.finder.report();
    assert_eq!((report.updates, report.error), (2, None));
    assert_eq!(stage.found(), Some(backends(&["a:1"])));
}

#[tokio::test]
async fn only_another_set_is_announced_and_an_order_is_none() {
    let mut stage = Stage::new(None);
    stage.say(Ok(backends(&["a:1", "b:1"]))).await;
    let pool = "shop".to_owned();
    assert_eq!(stage.updates.try_recv(), Ok(Update { pool: pool.clone() }));
    stage.say(Ok(backends(&["b:1", "a:1"]))).await;
    assert!(stage.updates.try_recv().is_err(), "shuffled");
    stage.say(Ok(backends(&["b:1"]))).await;
    assert_eq!(stage.updates.try_recv(), Ok(Update { pool }));
}

#[tokio::test]
async fn a_set_from_before_holds_until_there_is_another_one() {
    let mut stage = Stage::new(Some(backends(&["a:1"])));
    stage.say(failure("timeout")).await;
    assert_eq!(stage.found(), Some(backends(&["a:1"])));
    stage.say(Ok(backends(&["b:1"]))).await;
    assert_eq!(stage.found(), Some(backends(&["b:1"])));
}

#[tokio::test]
async fn the_first_answer_is_waited_for_even_if_it_is_a_failure() {
    let stage = Stage::new(None);
    stage.answers.send(failure("timeout")).await.unwrap();
    stage.finder.first_answer(Duration::from_secs(60)).await;
    assert_eq!(stage.finder.report().error.as_deref(), Some("timeout"));
}
