//! Waiting for a condition instead of for a time.

use std::{future::Future, time::Duration};

/// When a test that waits is taken to hang. Generous, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// For what moves much, such as a hundred reloads under load.
pub const LONG: Duration = Duration::from_secs(180);
/// Between two looks at a condition.
const STEP: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within the deadline; `what` says what was waited for.
pub async fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + deadline;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// Awaits with a deadline.
///
/// # Panics
/// When it is over.
pub async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(deadline, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}
