//! What the requests are: who asks whom for what, and what that costs.
//!
//! Owns the drawing of requests from their numbers, and the heads that policies see. It must not know time.

use std::net::{IpAddr, Ipv4Addr};

use super::draw::{Draw, Purpose};
use crate::{
    config::{HashOn, Popularity, Scenario},
    http1::Head,
    policy::{client_bits, key_of},
};

/// The simulated clients' addresses begin here: 10.0.0.0.
const CLIENTS: u32 = 10 << 24;
/// How many there are if their addresses are no keys.
const CLIENT_COUNT: usize = 1 << 24;

/// Draws requests.
pub(super) struct Traffic<'a> {
    scenario: &'a Scenario,
    draw: Draw,
    /// The share of the classes up to each.
    classes: Box<[f64]>,
    /// The share of the keys up to each; empty if all are as popular.
    popularity: Box<[f64]>,
    /// Heads of classes whose requests differ in nothing that is in the head.
    heads: Vec<Head>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) class: u32,
    /// Which key it has, by its rank.
    pub(super) key: Option<u32>,
    pub(super) client: u128,
    /// At a backend of factor 1.
    pub(super) service_s: f64,
    pub(super) balancer: u32,
    pub(super) worker: u32,
}

impl<'a> Traffic<'a> {
    pub(super) fn new(scenario: &'a Scenario, draw: Draw) -> Self {
        let weights = scenario.classes.iter().map(|class| class.weight);
        let popularity = match &scenario.keys {
            Some(keys) => match keys.popularity {
                Popularity::Uniform => Box::default(),
                Popularity::Zipf { exponent } => {
                    cumulated((1..=keys.count).map(|rank| f64::from(rank).powf(-exponent)))
                }
            },
            None => Box::default(),
        };
        let mut traffic = Self {
            scenario,
            draw,
            classes: cumulated(weights),
            popularity,
            heads: Vec::new(),
        };
        let heads = (0..scenario.classes.len()).map(|class| traffic.head(class as u32, None));
        traffic.heads = heads.collect();
        traffic
    }

    /// The request of this number.
    pub(super) fn request(&self, number: u64) -> Asked {
        let draw = self.draw;
        let class = place(&self.classes, draw.unit(Purpose::Class, number));
        let key = self.key(number);
        let address = match (key, &self.scenario.keys) {
            (Some(key), Some(keys)) if keys.place == HashOn::ClientIp => key,
            _ => draw.below(Purpose::Client, number, CLIENT_COUNT) as u32,
        };
        let service = self.scenario.classes[class].service.as_ref();
        Asked {
            number,
            class: class as u32,
            key,
            client: client_bits(IpAddr::V4(Ipv4Addr::from_bits(CLIENTS + address))),
            service_s: draw.service_s(service.unwrap_or(&self.scenario.service), number),
            balancer: draw.below(Purpose::Balancer, number, self.scenario.balancers.count as usize) as u32,
            worker: draw.below(Purpose::Worker, number, self.scenario.balancers.workers as usize) as u32,
        }
    }

    fn key(&self, number: u64) -> Option<u32> {
        let keys = self.scenario.keys.as_ref()?;
        Some(if self.popularity.is_empty() {
            self.draw.below(Purpose::Key, number, keys.count as usize) as u32
        } else {
            place(&self.popularity, self.draw.unit(Purpose::Key, number)) as u32
        })
    }

    /// Lends the head of a request, and the hash key that the pool makes of it.
    pub(super) fn with_head<T>(&mut self, asked: &Asked, use_it: impl FnOnce(u64, &mut Head) -> T) -> T {
        let key_of = |head: &Head| {
            let random = self.draw.bits(Purpose::KeyOfKeyless, asked.number);
            key_of(&self.scenario.pool.hash_on, head, asked.client, random)
        };
        let place = self.scenario.keys.as_ref().map(|keys| &keys.place);
        if asked.key.is_none() || matches!(place, None | Some(HashOn::ClientIp)) {
            let key = key_of(&self.heads[asked.class as usize]);
            return use_it(key, &mut self.heads[asked.class as usize]);
        }
        let mut head = self.head(asked.class, asked.key);
        use_it(key_of(&head), &mut head)
    }

    fn head(&self, class: u32, key: Option<u32>) -> Head {
        let class = &self.scenario.classes[class as usize];
        let place = self.scenario.keys.as_ref().map(|keys| &keys.place);
        let word = key.map(|key| format!("key-{key}"));
        let (mut host, mut path) = (class.host.clone(), class.path.clone());
        let mut own = None;
        if let (Some(place), Some(word)) = (place, word) {
            match place {
                HashOn::ClientIp => {}
                HashOn::Header(name) => own = Some((name.clone(), word)),
                HashOn::Cookie(name) => own = Some(("cookie".to_owned(), format!("{name}={word}"))),
                HashOn::Query(name) => {
                    let sign = if path.contains('?') { '&' } else { '?' };
                    path = format!("{path}{sign}{name}={word}");
                }
                HashOn::Path => path = format!("{}/{word}", path.trim_end_matches('/')),
                HashOn::Host => host = format!("{word}.{host}"),
            }
        }
        // The key's own field comes first: it is the one that counts.
        let own = own
            .as_ref()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let others = class.headers.iter();
        let others = others.map(|(name, value)| (name.as_str(), value.as_bytes()));
        Head::of(&class.method, &host, &path, own.into_iter().chain(others))
    }
}

/// The sums up to each weight, as shares of all.
fn cumulated(weights: impl Iterator<Item = f64>) -> Box<[f64]> {
    let mut sum = 0.0;
    let sums: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    sums.into_iter().map(|part| part / sum).collect()
}

/// Where `unit` falls.
fn place(cumulated: &[f64], unit: f64) -> usize {
    let place = cumulated.partition_point(|share| *share < unit);
    place.min(cumulated.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn scenario(rest: &str) -> Scenario {
        let text = format!(
            "policies = [\"round-robin\"]\narrivals = {{ rate = 1 }}\nservice = {{ mean = \"1ms\" }}\n\
             backends = [{{ name = \"b\" }}]\n{rest}"
        );
        Scenario::parse(&text, "test", Path::new(".")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    #[test]
    fn keys_are_where_the_scenario_puts_them_and_hash_alike() {
        for (place, read) in [
            ("header:x-user", "field"),
            ("cookie:sid", "cookie"),
            ("query:id", "query"),
            ("path", "path"),
            ("host", "host"),
        ] {
            let scenario = scenario(&format!("keys = {{ count = 5, in = \"{place}\" }}\n"));
            let mut traffic = Traffic::new(&scenario, Draw::new(1));
            let asked = traffic.request(3);
            let word = format!("key-{}", asked.key.unwrap());
            let (hash, found) = traffic.with_head(&asked, |hash, head| {
                let found = match read {
                    "field" => String::from_utf8_lossy(head.field("x-user").unwrap()).into_owned(),
                    "cookie" => head.cookie("sid").unwrap().to_owned(),
                    "query" => head.query_parameter("id").unwrap().to_owned(),
                    "path" => head.path().trim_start_matches('/').to_owned(),
                    _ => head.host().split('.').next().unwrap().to_owned(),
                };
                (hash, found)
            });
            assert_eq!(found, word, "{place}");
            let other = (4..).map(|number| traffic.request(number));
            let other = other.take(1000).find(|other| other.key == asked.key).unwrap();
            assert_eq!(traffic.with_head(&other, |hash, _| hash), hash, "{place}");
        }
    }

    #[test]
    fn zipf_makes_the_first_key_twice_as_popular_as_the_second() {
        let scenario = scenario("keys = { count = 1000, popularity = \"zipf\" }\n");
        let traffic = Traffic::new(&scenario, Draw::new(1));
        let mut counts = [0u32; 1000];
        (0..200_000).for_each(|number| counts[traffic.request(number).key.unwrap() as usize] += 1);
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
        assert!(counts.iter().all(|count| *count > 0));
    }

    #[test]
    fn classes_come_by_their_weight() {
        let rest = "[[class]]\nname = \"a\"\nweight = 3\n[[class]]\nname = \"b\"\nmethod = \"POST\"\n\
                    headers = { X-Kind = \"b\" }\n";
        let scenario = scenario(rest);
        let mut traffic = Traffic::new(&scenario, Draw::new(1));
        let of_b = (0..10_000).filter(|number| traffic.request(*number).class == 1);
        let of_b: Vec<u64> = of_b.collect();
        assert!((2300..2700).contains(&of_b.len()), "{}", of_b.len());
        let asked = traffic.request(of_b[0]);
        traffic.with_head(&asked, |_, head| {
            assert_eq!((head.method(), head.field("x-kind")), ("POST", Some(&b"b"[..])));
        });
    }
}
