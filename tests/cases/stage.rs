//! What a case is played on: a backend that records, a balancer, and a client on either way of a request.

use trimtab_tests::{Balancer, Client, DEADLINE, RawOrigin, Setup, ok, within};

use crate::strict::{self, Seen};

/// The two ways of a request: our own, and the HTTP library's, where a connection stays once it got there.
pub(crate) const WAYS: [Way; 2] = [Way::Own, Way::Library];
/// Not ordinary, so the library has its connection from then on.
const UNUSUAL: &str = "GET /unusual HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
const AFTER: &str = "GET /after HTTP/1.1\r\nhost: a\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Own,
    Library,
}

pub(crate) struct Stage {
    pub(crate) origin: RawOrigin,
    pub(crate) balancer: Balancer,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with("", ok("").as_str()).await
    }

    /// With a line of the listener's table, and what the backend answers to each request.
    pub(crate) async fn with(listener: &str, answer: &str) -> Self {
        let origin = RawOrigin::answering(answer).await;
        let balancer = Setup::to(origin.address())
            .listener(listener)
            .pool("retry = { attempts = 1 }")
            .start()
            .await;
        Self { origin, balancer }
    }

    /// A connection that is on this way.
    pub(crate) async fn client(&self, way: Way) -> Client {
        let mut client = Client::connect(self.balancer.address).await;
        if way == Way::Library {
            assert_eq!(client.ask(UNUSUAL).await.status, 200);
        }
        client
    }

    /// The same where the backend answers as to a HEAD.
    pub(crate) async fn client_of_head(&self, way: Way) -> Client {
        let mut client = Client::connect(self.balancer.address).await;
        if way == Way::Library {
            client.send(UNUSUAL.replace("GET", "HEAD")).await;
            assert_eq!(client.head().await.unwrap().status, 200);
        }
        client
    }

    /// What the backend received, connection for connection, without the request that only chose the way.
    ///
    /// # Panics
    /// When any of it is no request, or has more than one reading.
    pub(crate) fn seen(&self) -> Seen {
        let mut all = Seen::default();
        for connection in self.origin.received_by_connection() {
            let text = String::from_utf8_lossy(&connection).into_owned();
            let seen = strict::read(&connection).unwrap_or_else(|wrong| panic!("{wrong} in\n{text}"));
            let others = seen
                .requests
                .into_iter()
                .filter(|request| request.target != "/unusual");
            all.requests.extend(others);
            all.is_cut |= seen.is_cut;
        }
        all
    }

    /// Sends these bytes, and says the status of the answer and how many requests the backend then has.
    pub(crate) async fn judged(&self, way: Way, bytes: &[u8]) -> u16 {
        let mut client = self.client(way).await;
        client.send(bytes).await;
        client.try_response().await.map_or(0, |response| response.status)
    }
}

impl Stage {
    /// Refused on both ways with one of these, and the connection closed; of it, and of what follows, the backend hears
    /// nothing, and others are served.
    pub(crate) async fn refused(&self, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        let bytes = bytes.as_ref();
        let shown = String::from_utf8_lossy(bytes)
            .chars()
            .take(300)
            .collect::<String>();
        let heard = |seen: &Seen| {
            let requests = seen.requests.iter();
            requests.filter(|request| request.target != "/others").count()
        };
        let before = heard(&self.seen());
        for way in WAYS {
            let mut client = self.client(way).await;
            client.send(bytes).await;
            client.send(AFTER).await;
            let status = client.try_response().await.map_or(0, |response| response.status);
            assert!(statuses.contains(&status), "{way:?}: {status} for {shown:?}");
            client.until_closed().await;
        }
        assert_eq!(
            trimtab_tests::get(self.balancer.address, "/others").await.status,
            200
        );
        let seen = self.seen();
        assert!(
            heard(&seen) == before && !seen.is_cut,
            "{shown:?} got through: {seen:?}"
        );
    }

    /// Answered on both ways with 200; what the backend got, which has to be the same on both but for the order of
    /// fields.
    pub(crate) async fn passed(&self, bytes: impl AsRef<[u8]>) -> strict::Request {
        let bytes = bytes.as_ref();
        let shown = String::from_utf8_lossy(bytes)
            .chars()
            .take(300)
            .collect::<String>();
        let mut both = Vec::new();
        for way in WAYS {
            let before = self.origin.received_by_connection();
            let status = within("an answer", DEADLINE, self.judged(way, bytes)).await;
            assert_eq!(status, 200, "{way:?}: {shown:?}");
            // What each connection has more than before.
            let mut new = Vec::new();
            for (at, connection) in self.origin.received_by_connection().iter().enumerate() {
                let old = before.get(at).map_or(0, Vec::len);
                let seen = strict::read(&connection[old..])
                    .unwrap_or_else(|wrong| panic!("{way:?}: {wrong} for {shown:?}"));
                new.extend(
                    seen.requests
                        .into_iter()
                        .filter(|request| request.target != "/unusual"),
                );
            }
            assert_eq!(new.len(), 1, "{way:?}: {shown:?}: {new:?}");
            let mut request = new.remove(0);
            request.fields.sort();
            both.push(request);
        }
        let library = both.pop().unwrap();
        assert_eq!(
            both[0], library,
            "own way (left) and library (right) for {shown:?}"
        );
        library
    }
}
