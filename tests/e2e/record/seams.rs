//! Where recording meets the rest: state that is handed over, grants, swaps, the fallback chain.

use std::fs::File;

use serde_json::Value;
use trimtab::{
    policy::{Ending, Event, Frame, LogReader, decode_events},
    replay::Order,
};
use trimtab_tests::{Client, DEADLINE, Directory, Origin, RawOrigin, Setup, wait_until};

use super::{PathBuf, ask, explain, explained, record, record_from_here, replayed};

/// Everything in a closed log.
fn events(path: &PathBuf) -> (Vec<Event<'static>>, Vec<Ending>) {
    let mut log = LogReader::new(File::open(path).unwrap()).unwrap();
    let (mut all, mut endings) = (Vec::new(), Vec::new());
    while let Some(frame) = log.next_frame().unwrap() {
        match frame {
            Frame::Events { events, .. } => all.extend(decode_events(events).map(Result::unwrap)),
            Frame::End { ending, .. } => endings.push(ending),
            Frame::Close => {}
        }
    }
    (all, endings)
}

#[tokio::test]
async fn a_recording_goes_on_with_the_turns_that_were_reached() {
    let directory = Directory::new();
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = Setup::new()
        .with_admin()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"round-robin\"")
        .rest(&format!("[record]\ndirectory = {:?}", directory.path()))
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    let mut answers = String::new();
    for _ in 0..2 {
        for _ in 0..4 {
            answers += &client.get("/").await.text();
        }
        let path = record(&balancer, 20).await.unwrap();
        while !super::is_closed(&path) {
            answers += &client.get("/").await.text();
        }
        let report = replayed(&path, &Order::default()).await;
        assert!(report.is_identical(), "{:#?}", report.first_difference);
        assert_eq!(report.picks, 20);
        let (events, endings) = events(&path);
        let states = events.iter().filter(|event| matches!(event, Event::State(_)));
        assert_eq!((states.count(), endings), (1, vec![Ending::Complete]));
    }
    let turns = "abc".repeat(answers.len() / 3 + 2);
    assert!(turns.contains(&answers), "{answers}");
}

#[tokio::test]
async fn a_swap_ends_the_recording_of_the_version_before() {
    let directory = Directory::new();
    let origins = Origin::start_all(["a", "b"]).await;
    // Other limits make another version.
    let setup = |memory: usize| {
        Setup::new()
            .with_admin()
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"turns\"")
            .rest(&format!(
                "[policy.turns]\nbuiltin = \"round-robin\"\nmemory = \"{memory}MiB\"\n\
                 [record]\ndirectory = {:?}",
                directory.path()
            ))
    };
    let balancer = setup(8).start().await;
    let mut client = Client::connect(balancer.address).await;
    record_from_here(&balancer, 5000, &mut client).await;
    for _ in 0..10 {
        ask(&mut client, "").await;
    }
    balancer.replace(&setup(9)).await.unwrap();
    for _ in 0..10 {
        ask(&mut client, "").await;
    }
    let mut entries = std::fs::read_dir(directory.path()).unwrap();
    let path = entries.next().unwrap().unwrap().path();
    let report = replayed(&path, &Order::default()).await;
    assert!(report.is_identical(), "{:#?}", report.first_difference);
    assert!((10..5000).contains(&report.picks), "{}", report.picks);
    assert_eq!(events(&path).1, [Ending::Replaced]);
}

#[tokio::test]
async fn what_is_not_granted_is_not_in_a_log_and_a_replay_decides_the_same_all_the_same() {
    let by_user = "builtin = \"content-hash\"\nconfig = { header = \"x-user\" }";
    let by_session = "builtin = \"content-hash\"\nconfig = { cookie = \"sid\" }";
    let cases = [
        (by_user, "headers = { x-user = \"hash\" }"),
        (by_user, "headers = { x-user = \"deny\" }"),
        (
            by_session,
            "cookies = { sid = \"hash\" }, headers = { x-user = \"hash\" }",
        ),
        (
            by_session,
            "cookies = { sid = \"deny\" }, headers = { x-user = \"deny\" }",
        ),
        (
            "builtin = \"content-hash\"",
            "path = \"hash\", headers = { x-user = \"deny\" }",
        ),
        (
            "builtin = \"content-hash\"",
            "path = \"deny\", headers = { x-user = \"hash\" }",
        ),
        (
            "builtin = \"ip-hash\"",
            "client = \"hash\", headers = { x-user = \"hash\" }",
        ),
        (
            "builtin = \"ip-hash\"",
            "client = \"deny\", headers = { x-user = \"deny\" }",
        ),
        ("builtin = \"consistent-hash\"", "headers = { x-user = \"deny\" }"),
        (
            "builtin = \"least-connections\"",
            "load = \"deny\", headers = { x-user = \"deny\" }",
        ),
    ];
    let origins = Origin::start_all(["a", "b", "c"]).await;
    for (policy, grants) in cases {
        let directory = Directory::new();
        let balancer = Setup::new()
            .with_admin()
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"mine\"\nhash_on = \"header:x-user\"")
            .pool("[pool.main.record]\npicks = 60\nevery = \"1h\"\nheaders = [\"x-user\", \"x-plan\"]")
            .pool("show = [\"x-user\", \"x-plan\", \"cookie\"]")
            .rest(&format!("[policy.mine]\n{policy}\ngrants = {{ {grants} }}"))
            .rest(&format!("[record]\ndirectory = {:?}", directory.path()))
            .start()
            .await;
        let mut client = Client::connect(balancer.address).await;
        let first = || Some(std::fs::read_dir(directory.path()).ok()?.next()?.ok()?.path());
        wait_until("the pool's first segment", DEADLINE, || first().is_some()).await;
        let path = first().unwrap();
        let mut number = 0;
        while !super::is_closed(&path) {
            let cookie = format!("cookie: sid=visit-{number}; other=1\r\n");
            let plan = "x-plan: gold\r\n";
            ask(
                &mut client,
                &format!("x-user: alice-{number}\r\n{cookie}{plan}x-request-id: id-{number}\r\n"),
            )
            .await;
            number += 1;
        }
        let bytes = std::fs::read(&path).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!has("alice-") && !has("visit-"), "{policy} {grants}");
        let report = replayed(&path, &Order::default()).await;
        assert!(report.is_identical(), "{grants}: {:#?}", report.first_difference);
        assert!(
            report.picks > 0 && report.unrecorded.is_empty(),
            "{grants}: {report:#?}"
        );
        let is_recorded = |event: &Event<'_>| match event {
            Event::Pick(pick) => !pick.is_trial && pick.id.as_deref().is_some_and(|id| id.starts_with("id-")),
            _ => false,
        };
        let (events, _) = events(&path);
        let Some(Event::Pick(pick)) = events.iter().find(|event| is_recorded(event)) else {
            panic!("{grants}: nothing is recorded");
        };
        assert!(
            pick.fields.contains(&("x-plan".into(), Some(b"gold"[..].into()))),
            "{pick:#?}"
        );
        let told = explained(&balancer, pick.id.as_ref().unwrap()).await;
        let attempt = &told["attempts"][0];
        assert_eq!(attempt["re_executed"], "same", "{policy} {grants}: {told:#}");
        let text = told.to_string();
        assert!(!text.contains("alice-") && !text.contains("visit-"), "{told:#}");
        if grants.contains("client") {
            let client = attempt["request"]["client"].as_str().unwrap();
            assert!(client.starts_with('('), "{client}");
        }
        balancer.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_nobody_sent_is_explained_as_the_policy_may_know_it() {
    let origins = Origin::start_all(["a", "b", "c"]).await;
    for (grant, reads, source) in [
        ("allow", &["header x-user"][..], "header:x-user"),
        ("hash", &["header x-user"][..], "header:x-user"),
        ("deny", &[][..], "random"),
    ] {
        let balancer = Setup::new()
            .with_admin()
            .backends(origins.iter().map(Origin::address))
            .pool("policy = \"by-user\"\nhash_on = \"header:x-user\"")
            .rest("[policy.by-user]\nbuiltin = \"content-hash\"\nconfig = { header = \"x-user\" }")
            .rest(&format!("grants = {{ headers = {{ x-user = {grant:?} }} }}"))
            .start()
            .await;
        let told = explain(&balancer, "path=/a&header=x-user:ann").await;
        let told_reads: Vec<&str> = (told["reads"].as_array().unwrap().iter())
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(told_reads, reads, "{grant}: {told:#}");
        assert_eq!(told["key"]["source"], source, "{grant}: {told:#}");
        balancer.stop().await;
    }
}

#[tokio::test]
async fn an_explanation_names_the_step_of_the_chain_that_chose() {
    // Faults that are further apart cost no instance, so the recording goes on.
    const EVERY: usize = 120;
    let origins = Origin::start_all(["a", "b", "c"]).await;
    let balancer = Setup::new()
        .with_admin()
        .backends(origins.iter().map(Origin::address))
        .pool("policy = \"ill\"\nfallback = \"ip-hash\"")
        .rest(&format!(
            "[policy.ill]\nbuiltin = \"chaos\"\nconfig = {{ fault = \"bad-index\", every = {EVERY} }}"
        ))
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    record_from_here(&balancer, 1000, &mut client).await;
    let mut served = Vec::new();
    for number in 0..EVERY {
        let response = ask(&mut client, &format!("x-request-id: id-{number}\r\n")).await;
        served.push(response.field("x-origin").unwrap().to_owned());
    }
    explained(&balancer, &format!("id-{}", EVERY - 1)).await;
    let mut by_the_chain = 0;
    for (number, served) in served.iter().enumerate() {
        let told = explained(&balancer, &format!("id-{number}")).await;
        let decision = &told["attempts"][0]["decision"];
        let origin = origins.iter().find(|origin| origin.name() == *served).unwrap();
        assert_eq!(decision["backend"], origin.address(), "{told:#}");
        if decision["chosen_by"] != "policy" {
            assert_eq!(decision["chosen_by"], "built-in", "{told:#}");
            assert_eq!(decision["reason"], "fault", "{told:#}");
            by_the_chain += 1;
        }
    }
    assert_eq!(by_the_chain, 1);
}

#[tokio::test]
async fn the_attempt_that_a_hedge_was_quicker_than_is_no_outcome() {
    let directory = Directory::new();
    let frozen = RawOrigin::start(|mut peer| async move { peer.until_closed().await }).await;
    let fine = Origin::start_all(["fine"]).await;
    let balancer = Setup::to(frozen.address())
        .backend(fine[0].address())
        .with_admin()
        .pool("policy = \"peak-ewma\"\nretry = { hedge_after = \"20ms\", floor = 1000 }")
        .rest(&format!("[record]\ndirectory = {:?}", directory.path()))
        .start()
        .await;
    let mut client = Client::connect(balancer.address).await;
    let path = record(&balancer, 40).await.unwrap();
    while !super::is_closed(&path) {
        assert_eq!(client.get("/").await.text(), "fine");
    }
    let hedges = balancer.view().pool.total(|counts| &counts.hedges);
    let told: Vec<u16> = (events(&path).0.iter())
        .filter_map(|event| match event {
            Event::Outcomes(outcomes) => Some(outcomes.status.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(hedges > 0 && !told.is_empty(), "{hedges} {told:?}");
    assert!(told.iter().all(|status| *status == 200), "{told:?}");
}
