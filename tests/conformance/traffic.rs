//! Requests, and how they ended: random, with all that policies look at.

use trimtab::{
    policy::{Facts, Outcome, Tried},
    pool::Snapshot,
};
use trimtab_policy::testing::Dice;

use crate::chance::Chance;

/// One question to a policy.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) facts: Facts,
    pub(crate) tried: Tried,
    pub(crate) head: Head,
}

/// The parts of a request's head, from which both sides make their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) method: &'static str,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) cookies: Vec<(&'static str, String)>,
    /// Cookies come in one field each, and not all in one.
    pub(crate) cookies_apart: bool,
}

impl Ask {
    /// A first attempt.
    pub(crate) fn random(dice: &mut Dice, now_us: u64) -> Self {
        let v4 = 0xffff_0000_0000 | u128::from(dice.below(1 << 32));
        let v6 = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
        Self {
            facts: Facts {
                key: if dice.one_in(2) {
                    dice.below(100)
                } else {
                    dice.roll()
                },
                random: dice.roll(),
                client: dice.one_of(&[v4, v4, v6, 1, 0]),
                now_us,
            },
            tried: Tried::default(),
            head: Head::random(dice),
        }
    }

    /// Which backends of a snapshot were tried.
    pub(crate) fn tried_in(&self, snapshot: &Snapshot) -> Vec<bool> {
        let ids = snapshot.members.iter().map(|member| member.backend.id);
        ids.map(|id| self.tried.contains(id)).collect()
    }
}

impl Head {
    fn random(dice: &mut Dice) -> Self {
        let user = format!("user-{}", dice.below(300));
        let mut headers = vec![("Accept", "*/*".to_owned())];
        let mut cookies = Vec::new();
        if dice.one_in(2) {
            headers.push((dice.one_of(&["x-user", "X-USER"]), user.clone()));
        }
        if dice.one_in(8) {
            headers.push(("X-User", "second".to_owned()));
        }
        if dice.one_in(2) {
            cookies.push(("theme", "dark".to_owned()));
        }
        if dice.one_in(2) {
            cookies.push(("sid", dice.one_of(&["", "a=b", "7"]).to_owned() + &user));
        }
        if dice.one_in(8) {
            cookies.push(("sid", "second".to_owned()));
        }
        let number = dice.below(500);
        Self {
            method: dice.one_of(&["GET", "POST", "PURGE"]),
            authority: dice.one_of(&["", "shop.example", "[::1]:80"]).to_owned(),
            path: match dice.below(5) {
                0 => "/".to_owned(),
                1 => format!("/{number}"),
                2 => format!("/a/b%20/{number}/c"),
                3 => format!("//{number}//"),
                _ => format!("/static/{number}/x.css"),
            },
            query: match dice.below(5) {
                0 => None,
                1 => Some(String::new()),
                2 => Some(format!("x=1&user={user}&user=second")),
                3 => Some("users=1&user".to_owned()),
                _ => Some(format!("user={user}")),
            },
            headers,
            cookies,
            cookies_apart: dice.one_in(4),
        }
    }

    /// The head as the host parses it.
    pub(crate) fn head(&self) -> trimtab::http1::Head {
        let query = self.query.as_ref().map(|query| format!("?{query}"));
        let target = format!("{}{}", self.path, query.unwrap_or_default());
        let mut request = http::Request::builder().method(self.method).uri(target);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.authority.is_empty() {
            request = request.header("host", &self.authority);
        }
        let pairs: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if self.cookies_apart {
            for pair in pairs {
                request = request.header("cookie", pair);
            }
        } else if !pairs.is_empty() {
            request = request.header("cookie", pairs.join("; "));
        }
        trimtab::http1::Head::from_parts(&request.body(()).expect("a valid head").into_parts().0)
    }
}

/// A batch of finished attempts.
pub(crate) fn outcomes(dice: &mut Dice, snapshot: &Snapshot) -> Vec<Outcome> {
    let count = 1 + dice.below(64);
    let outcome = |_| Outcome {
        index: dice.below(snapshot.members.len() as u64) as usize,
        latency_us: match dice.below(20) {
            0 => 0,
            1 => u32::MAX,
            _ => dice.below(200_000) as u32,
        },
        bytes: dice.below(1 << 20),
        status: dice.one_of(&[None, Some(200), Some(200), Some(404), Some(500), Some(503)]),
    };
    (0..count).map(outcome).collect()
}
