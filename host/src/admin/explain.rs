//! `GET /v1/explain`: why a request goes where it goes.
//!
//! Owns the two ways to ask: about a request that does not exist, and about one whose decision was recorded. Both are
//! answered by a scratch instance, on a thread that may wait; no worker hears of it.
//!
//! Invariant: values of header fields are shown only where the pool's `record.show` names them.
//! Read next: `explain/question.rs` (what can be asked), `explain/shape.rs` (what is answered).

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use http::StatusCode;

use super::{
    Context,
    answer::{self, Answer, Refusal, refusal},
    pools,
};
use crate::{
    clock,
    config::{self, HashOn},
    control::PoolView,
    http1::Head,
    policy::{self, Algorithm, Facts, Recorded, Trial, Tried},
    pool::{Snapshot, View},
    proxy, replay,
};

mod question;
mod shape;

use question::{Asked, Question};
use shape::{Attempt, Decided, Hypothesis, Key, Live, Route};

/// What an instance of its own cannot know.
const FRESH: &str =
    "fresh: a new instance of the version in service, without what the serving ones have learnt";

pub(super) async fn answer(context: &Context, query: &str) -> Result<Answer, Refusal> {
    match Question::parse(query)? {
        Question::Request(asked) => {
            let (route, view) = find_pool(context, &asked)?;
            in_background(move || hypothesis(&asked, route, &view)).await
        }
        Question::Id(id) => {
            let recent = context.handle.recordings().recent();
            let pools = context.handle.pools();
            let pools = pools
                .iter()
                .map(|view| (view.pool.name().to_owned(), view.pool.config.clone()))
                .collect();
            in_background(move || live(&id, &recent, &pools)).await
        }
    }
}

/// Instances are not built where answers are made.
async fn in_background(
    work: impl FnOnce() -> Result<Answer, Refusal> + Send + 'static,
) -> Result<Answer, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))
}

/// The pool that is named, or that of the first route that takes the request.
fn find_pool(context: &Context, asked: &Asked) -> Result<(Option<Route>, PoolView), Refusal> {
    if let Some(pool) = &asked.pool {
        return Ok((None, pools::find(context, pool)?));
    }
    let config = context.handle.config();
    let listeners = config.iter().flat_map(|config| &config.listeners);
    let listeners =
        listeners.filter(|listener| asked.listener.as_ref().is_none_or(|name| *name == listener.name));
    let head = asked.head();
    let found = listeners
        .flat_map(routes)
        .find(|(_, _, rule)| proxy::takes(rule, head.host(), head.path()));
    let Some((listener, index, rule)) = found else {
        let error = format!("no route takes {}{}", head.host(), head.path());
        return Err(refusal(StatusCode::NOT_FOUND, error));
    };
    let view = pools::find(context, &rule.pool)?;
    Ok((Some(Route::new(listener, index, rule)), view))
}

fn routes(listener: &config::Listener) -> impl Iterator<Item = (&str, usize, &config::Route)> {
    let routes = listener.routes.iter().enumerate();
    routes.map(|(index, rule)| (&*listener.name, index, rule))
}

fn hypothesis(asked: &Asked, route: Option<Route>, view: &PoolView) -> Result<Answer, Refusal> {
    let snapshot = view.pool.snapshot();
    let now_us = clock::now_us();
    let columns = Arc::new(View::new(&snapshot, now_us));
    let candidate = &view.deployment.candidate;
    let mut head = asked.head();
    let random = fastrand::u64(..);
    let sources = &view.pool.config.hash_on;
    let key = source_of(sources, |source| {
        policy::key_from(source, &head, asked.client_bits())
    });
    let facts = Facts {
        key: key.map_or(random, |(hash, _)| hash),
        random,
        client: asked.client_bits(),
        now_us,
    };
    // What the policy may not know is not what it decides by.
    let told = policy::facts_told(&candidate.spec, sources, &facts);
    let source = key.map(|(_, source)| source).filter(|_| told.key == facts.key);
    let tried = Tried::default();
    let (decided, reads) = if let Some(index) = kept(view, &snapshot, &head) {
        (Decided::sticky(&snapshot, index), policy::Reads::default())
    } else if snapshot.usable == 0 {
        (Decided::nobody(), policy::Reads::default())
    } else {
        match Trial::in_pool(candidate, &view.pool, &snapshot, columns.clone()) {
            Err(fault) => (Decided::failed(&fault, None), policy::Reads::default()),
            Ok(mut trial) => {
                trial.take_reads();
                let answer = trial.pick(&facts, &tried, &mut head);
                let fallback = fallback_of(&view.pool.config);
                let host = fallback
                    .and_then(|fallback| trial.host_choice(fallback, &snapshot, (&facts, &tried, &head)));
                let note = trial.take_note();
                (
                    Decided::new(&answer, note.as_deref(), host, &snapshot, &tried),
                    trial.take_reads(),
                )
            }
        }
    };
    Ok(answer::json(&Hypothesis {
        route,
        pool: view.pool.name(),
        policy: shape::Policy::new(candidate),
        state: FRESH,
        key: Key::new(told.key, source),
        reads: shape::names(&reads),
        candidates: shape::candidates(&snapshot, &tried, facts.now_us, |index| {
            (columns.figures(index), columns.others(index))
        }),
        decision: decided,
    }))
}

/// The backend that the request's cookie names, if it keeps the session.
fn kept(view: &PoolView, snapshot: &Snapshot, head: &Head) -> Option<usize> {
    let sticky = view.pool.sticky()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let ticket = sticky.read(head.cookie(sticky.cookie())?, now.as_secs())?;
    snapshot.keeping(ticket.id)
}

/// What chooses when the policy does not.
fn fallback_of(pool: &config::Pool) -> Option<Algorithm> {
    Algorithm::named(&pool.fallback)
}

/// The first source that the request has, and its hash.
fn source_of(sources: &[HashOn], hash: impl Fn(&HashOn) -> Option<u64>) -> Option<(u64, &HashOn)> {
    sources
        .iter()
        .find_map(|source| hash(source).map(|hash| (hash, source)))
}

fn live(
    id: &str,
    recent: &[Recorded],
    pools: &BTreeMap<String, Arc<config::Pool>>,
) -> Result<Answer, Refusal> {
    let mut attempts = Vec::new();
    for recorded in recent {
        let pool = pools.get(&*recorded.pool);
        let remade = replay::remake(recorded, id, pool.and_then(|pool| fallback_of(pool)));
        let remade = remade.map_err(|error| refusal(StatusCode::CONFLICT, error))?;
        let sources = pool.map_or(&[][..], |pool| &pool.hash_on);
        attempts.extend(
            remade
                .iter()
                .map(|remade| Attempt::new(recorded, remade, sources)),
        );
    }
    if attempts.is_empty() {
        let error = format!(
            "no recorded decision is known by {id:?}. Decisions are known about a second after they were made, and \
             only while their recording is among the last ones; ids are in the access log"
        );
        return Err(refusal(StatusCode::NOT_FOUND, error));
    }
    attempts.sort_by_key(Attempt::time);
    Ok(answer::json(&Live { id, attempts }))
}
