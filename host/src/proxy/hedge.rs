//! A second attempt beside the first, when that takes long: whichever answers well first is taken.
//!
//! Owns the race. It must not know how a request is sent, nor which backend is asked.
//!
//! Invariants: at most two attempts of a request are under way; the second is paid for by the retry budget; the one that
//! is not taken ends at once, and its backend is not said to have failed.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};

use super::{
    attempts::Attempts,
    body::{RequestBody, ResponseBody},
    forward::{Failed, Target},
    journey::Journey,
    serve::{Client, Sent, forward},
};
use crate::http1::Head;

/// What an attempt came to.
pub(super) type Outcome = Result<Response<ResponseBody>, Failed>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Winner {
    First,
    Second,
}

/// Waits for `first`, which is at `target`, and after a time for another as well. Gives the outcome that counts, and where it
/// came about.
///
/// Dropping this future ends both attempts.
pub(super) async fn race(
    (client, sent): (&Rc<Client>, &Sent),
    (attempts, head, journey): (&mut Attempts<'_>, &mut Head, &mut Journey),
    (target, after, first): (Target, Duration, impl Future<Output = Outcome>),
    again: impl FnOnce() -> Request<RequestBody>,
) -> (Target, Outcome) {
    let mut first = pin!(first);
    if let Ok(outcome) = tokio::time::timeout(after, first.as_mut()).await {
        return (target, outcome);
    }
    let Some((other, freshness)) = attempts.hedge(&target, head, journey) else {
        return (target, first.await);
    };
    let ledger = attempts.begin(&other);
    let mut request = Some(again());
    let mut second = pin!(forward((client, None), (ledger, freshness), &mut request, sent));
    let (winner, outcome) = poll_fn(|cx| {
        if let Poll::Ready(outcome) = first.as_mut().poll(cx) {
            return Poll::Ready((Winner::First, outcome));
        }
        let second = second.as_mut().poll(cx);
        second.map(|outcome| (Winner::Second, outcome))
    })
    .await;
    if attempts.is_good(&outcome) {
        if winner == Winner::Second {
            attempts.count_hedge_won();
        }
        let winner = match winner {
            Winner::First => target,
            Winner::Second => other,
        };
        return (winner, outcome);
    }
    if let Ok(response) = outcome {
        response.into_body().discard().await;
    }
    // The one that is left has the time for a response from now on, since the end of the other has ended it for both.
    attempts.expect_answer();
    match winner {
        Winner::First => {
            let outcome = second.await;
            if attempts.is_good(&outcome) {
                attempts.count_hedge_won();
            }
            (other, outcome)
        }
        Winner::Second => (target, first.await),
    }
}
