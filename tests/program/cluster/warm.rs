//! What the next node goes on with: ejections, what an operator said, what the policy has learned, and clients' rates.

use trimtab_tests::{Client, DEADLINE, Origin, ask_admin, wait_until};

use super::{Cluster, text_of};

/// Three backends in place of the one, and other lines for the listener and the pool.
fn cluster(origins: &[Origin], listener: &str, pool: &str) -> Cluster {
    let cluster = Cluster::new(&origins[0], "");
    let all: Vec<String> = origins.iter().map(Origin::address).collect();
    cluster.rewrite(
        &format!("[pool.main]\nbackends = [\"{}\"]\n", origins[0].address()),
        &format!("{listener}[pool.main]\nbackends = {all:?}\n{pool}\n"),
    );
    cluster
}

impl Cluster {
    /// Until the second node has been told everything twice that the first one knows by now.
    async fn second_is_warm(&self) {
        let states = || {
            let status = text_of(&self.order(1, &["status", "--json"]));
            let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
            status["warm"]["states"].as_u64().unwrap_or(0)
        };
        let before = states();
        wait_until("the standby was told", DEADLINE, || states() >= before + 2).await;
    }

    /// One request on a connection of its own, as soon as somebody listens.
    async fn visit(&self) -> (u16, String) {
        let mut client: Client<_> = self.connect().await.into();
        client
            .send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            .await;
        let answer = client.response().await;
        (answer.status, answer.text())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ejected_or_drained_backend_gets_nothing_from_the_next_node_either() {
    let origins = Origin::start_all(["good", "bad", "drained"]).await;
    let pool = "policy = \"round-robin\"\npanic_threshold = 0\n\
                outlier = { consecutive_failures = 1, base_ejection = \"10m\", max_ejection = \"10m\" }\nretry = { attempts = 2 }";
    let mut cluster = cluster(&origins, "", pool);
    cluster.start_all().await;
    let drained = format!("/v1/pools/main/backends/{}", origins[2].address());
    let mut admin = Client::connect(cluster.admins[0]).await;
    let order = "{\"drain\": true}";
    let ordered = admin
        .ask(format!(
            "PATCH {drained} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{order}",
            order.len()
        ))
        .await;
    assert_eq!(ordered.status, 200, "{}", ordered.text());
    origins[1].set_status(503);
    while origins[1].hits() == 0 {
        cluster.visit().await;
    }
    cluster.second_is_warm().await;
    let told = ask_admin(cluster.admins[1], "/v1/pools/main").await.text();
    assert!(
        told.contains("\"ejected\"") && told.contains("\"draining\""),
        "{told}"
    );
    cluster.kill(0);
    cluster.wait_for(1, "active").await;
    origins[1].set_status(200);
    let before = (origins[1].hits(), origins[2].hits());
    for _ in 0..12 {
        assert_eq!(
            cluster.visit().await,
            (200, "good".to_owned()),
            "{}",
            cluster.logs()
        );
    }
    assert_eq!((origins[1].hits(), origins[2].hits()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_node_goes_on_with_what_the_policy_has_learned() {
    // So many that a node which begins anew, with any of them, does not begin with the right one.
    let names = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p",
    ];
    let origins = Origin::start_all(names).await;
    let mut cluster = cluster(&origins, "", "policy = \"round-robin\"");
    cluster.start_all().await;
    let mut next = 0;
    for turn in 0..5 {
        let (_, name) = cluster.visit().await;
        let at = names
            .iter()
            .position(|known| *known == name)
            .expect("one of them");
        assert!(turn == 0 || at == next, "turns are taken");
        next = (at + 1) % names.len();
    }
    cluster.second_is_warm().await;
    cluster.kill(0);
    cluster.wait_for(1, "active").await;
    assert_eq!(cluster.visit().await.1, names[next], "{}", cluster.logs());
    assert!(cluster.logs().contains("going on with what the other node knew"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_had_its_rate_has_had_it_at_the_next_node_too() {
    let origins = Origin::start_all(["a"]).await;
    let rates = "[listener.rates]\nclient_requests = \"1/h\"\nclient_requests_burst = 3\n";
    let mut cluster = cluster(&origins, rates, "");
    cluster.start_all().await;
    for _ in 0..3 {
        assert_eq!(cluster.visit().await.0, 200);
    }
    assert_eq!(cluster.visit().await.0, 429);
    cluster.second_is_warm().await;
    cluster.kill(0);
    cluster.wait_for(1, "active").await;
    assert_eq!(cluster.visit().await.0, 429, "{}", cluster.logs());
    assert_eq!(origins[0].hits(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_is_told_nothing() {
    let origins = Origin::start_all(["a"]).await;
    let mut cluster = cluster(&origins, "", "");
    cluster.start_all().await;
    // As a stranger sees it: a challenge, and the end of the connection for whatever is no answer to it.
    let mut stranger: Client<_> = tokio::net::TcpStream::connect(cluster.voices[0])
        .await
        .unwrap()
        .into();
    let challenge = stranger.exactly(16).await;
    let mut again: Client<_> = tokio::net::TcpStream::connect(cluster.voices[0])
        .await
        .unwrap()
        .into();
    assert_ne!(again.exactly(16).await, challenge, "another one each time");
    stranger
        .send([&64_u32.to_be_bytes()[..], &[0; 64]].concat())
        .await;
    assert_eq!(stranger.until_closed().await, "");
    cluster.second_is_warm().await;
}
