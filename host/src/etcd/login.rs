//! Who this node is to etcd: a user with a password, and the token that stands for both.
//!
//! Owns logging in, and when that is done again. A token ends: unused for a time (`--auth-token-ttl`), with the member that knew it,
//! or when the user's password is changed. A member that does not know it refuses, with nothing done.
//! The file of the password is read at each login, so another password needs no restart.
//!
//! Invariant: one task at a time asks for a token, and a password that was refused is tried again only after a while: each try
//! costs etcd a tenth of a second of a core, by design (bcrypt).

use std::time::{Duration, Instant};

use http::HeaderValue;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::exchange::{self, Failed, Question};
use crate::{
    config::{Etcd, User},
    outgoing::password,
};

/// Then a password is tried again that was refused. Another one in the file is tried at once.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What an etcd says that has no users, or does not ask who is one.
const ASKS_NOBODY: &str = "authentication is not enabled";

/// The user, and what was given to it last.
pub(super) struct Login {
    user: Option<User>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pass: Pass,
    /// The number of one that may be good no longer.
    doubted: u64,
    refused: Option<Refused>,
}

struct Refused {
    at: Instant,
    password: String,
    told: String,
}

/// What is shown to a member.
#[derive(Clone, Default)]
pub(super) struct Pass {
    /// `None` for an etcd that does not ask, or if there is no user.
    pub(super) token: Option<HeaderValue>,
    /// Counted from 1.
    pub(super) number: u64,
}

impl std::fmt::Debug for Login {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Login").field(&self.user).finish()
    }
}

impl Login {
    pub(super) fn new(user: Option<User>) -> Self {
        Self {
            user,
            state: Mutex::default(),
        }
    }

    /// What to show: what was given last, unless the members know no pass up to this number any more. Then this member is asked
    /// for one.
    pub(super) async fn pass(&self, config: &Etcd, endpoint: &str, spent: u64) -> Result<Pass, Failed> {
        let Some(user) = &self.user else {
            return Ok(Pass::default());
        };
        let mut state = self.state.lock().await;
        if state.pass.number > spent.max(state.doubted) {
            return Ok(state.pass.clone());
        }
        let reader = user.clone();
        let password = tokio::task::spawn_blocking(move || password(&reader)).await;
        let password = password
            .map_err(|error| Failed::Unsent(error.to_string()))?
            .map_err(|mistake| Failed::Forbidden(mistake.to_string()))?;
        if let Some(refused) = &state.refused
            && refused.password == password
            && refused.at.elapsed() < AGAIN_AFTER
        {
            return Err(Failed::Forbidden(refused.told.clone()));
        }
        let body = json!({ "name": user.name, "password": password });
        let question = Question {
            path: "/v3/auth/authenticate",
            body: &body,
            token: None,
        };
        let token = match exchange::ask(config, endpoint, &question).await {
            Ok(answer) => Some(token(&answer)?),
            Err(Failed::Refused(text)) if text.contains(ASKS_NOBODY) => None,
            Err(Failed::Refused(text) | Failed::Unknown(text) | Failed::Forbidden(text)) => {
                let told = format!("does not let user \"{}\" in: {text}", user.name);
                let told = user.password.mistake(told).to_string();
                state.refused = Some(Refused {
                    at: Instant::now(),
                    password,
                    told: told.clone(),
                });
                return Err(Failed::Forbidden(told));
            }
            // What was to be asked was not sent.
            Err(failed) => return Err(Failed::Unsent(format!("logging in: {}", failed.text()))),
        };
        state.refused = None;
        state.pass = Pass {
            token,
            number: state.pass.number + 1,
        };
        Ok(state.pass.clone())
    }

    /// A member ended the connection in place of an answer. Some versions do so to a token that they do not know.
    pub(super) async fn doubt(&self, pass: &Pass) {
        if pass.token.is_some() {
            let mut state = self.state.lock().await;
            state.doubted = state.doubted.max(pass.number);
        }
    }

    /// Why a request is refused, with what can be done about it.
    pub(super) fn explained(&self, text: &str) -> String {
        match &self.user {
            Some(user) => format!("user \"{}\" (etcd.user) may not: {text}", user.name),
            None => format!(
                "it wants to know who asks, and the table [etcd] has no user and password_file: {text}"
            ),
        }
    }
}

fn token(answer: &Value) -> Result<HeaderValue, Failed> {
    let token = answer["token"].as_str().unwrap_or_default();
    let mut token = HeaderValue::from_str(token)
        .ok()
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Failed::Refused("a login was answered without a token".to_owned()))?;
    token.set_sensitive(true);
    Ok(token)
}
