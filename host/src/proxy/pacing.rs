//! Who comes too often: a listener's rates, put to each request and connection.
//!
//! Owns the question whose request it is. `rate.rs` has the buckets; it must not know what becomes of what is refused.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    accept::{ListenerState, Rules},
    error::Error,
    serve::Client,
    worker::WorkerState,
};
use crate::{
    config::{self, Forwarded},
    http1::Head,
    metrics::{self, ListenerWorker},
    policy::client_bits,
    rate::{self, By, Excess, Limiter},
};

impl Client {
    /// Counts a request.
    ///
    /// # Errors
    /// When it is one too many.
    #[inline]
    pub(super) fn keep_rate(&self, rules: &Rules, head: &Head, now_us: u64) -> Result<(), Error> {
        match &rules.rates {
            None => Ok(()),
            Some(_) if self.is_counted.take() => Ok(()),
            Some(rates) => {
                let kept = rates.request(self.whose(rules, head), now_us);
                kept.map_err(|excess| self.too_many(&excess))
            }
        }
    }

    /// The address that a request is counted for. Behind another proxy of ours, that is what this one says of its client.
    fn whose(&self, rules: &Rules, head: &Head) -> u128 {
        if rules.config.forwarded != Forwarded::Append {
            return self.bits;
        }
        let told = head
            .fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"))
            .last();
        // The last one is what the proxy itself has seen; those before it anybody may have written.
        let told = told.and_then(|(_, value)| last_address(value));
        told.map_or(self.bits, client_bits)
    }

    #[cold]
    fn too_many(&self, excess: &Excess) -> Error {
        let counters = self.listener.counters.of(self.worker.id);
        counters.count(|counters| match excess.by {
            By::Listener => &counters.requests_over,
            By::Client => &counters.requests_over_of_client,
        });
        Error::TooMany(excess.wait_us.div_ceil(1_000_000).max(1))
    }
}

/// What keeps a listener's rates in this worker: the one that there was, if they are the same.
pub(super) fn limiter(
    worker: usize,
    config: &config::Listener,
    (shared, known): (Option<Arc<rate::Shared>>, Option<&ListenerState>),
) -> Option<Rc<Limiter>> {
    let shared = shared?;
    let known = known.and_then(|known| known.rules().rates.clone());
    let known = known.filter(|limiter| limiter.is_of(&shared));
    known.or_else(|| {
        let rates = config.rates.as_ref()?;
        Some(Rc::new(Limiter::new(rates, shared, worker)))
    })
}

/// Counts a connection, of anybody or, once it is known, of this client. False if it is one too many.
pub(super) fn lets_connect(
    worker: &WorkerState,
    (rules, counters): (&Rules, &metrics::Listener),
    client: Option<IpAddr>,
) -> bool {
    let Some(rates) = &rules.rates else {
        return true;
    };
    let now_us = worker.tick();
    let (kept, counter): (_, fn(&ListenerWorker) -> &AtomicU64) = match client {
        None => (rates.connection(now_us), |counters| &counters.connections_over),
        Some(client) => (rates.connection_of(client_bits(client), now_us), |counters| {
            &counters.connections_over_of_client
        }),
    };
    if kept.is_err() {
        counters.of(worker.id).count(counter);
    }
    kept.is_ok()
}

/// The last address of a list, with or without a port.
fn last_address(list: &[u8]) -> Option<IpAddr> {
    let last = list.rsplit(|byte| *byte == b',').next()?;
    let text = std::str::from_utf8(last).ok()?.trim();
    let with_port = || text.parse().map(|address: SocketAddr| address.ip()).ok();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_is_what_the_proxy_has_seen() {
        for (list, address) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("1.2.3.4, 10.0.0.1", Some("10.0.0.1")),
            ("x,10.0.0.1:80", Some("10.0.0.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("1.2.3.4,[2001:db8::1]:80", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("10.0.0.1, unknown", None),
            ("10.0.0.1,", None),
            ("", None),
        ] {
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(last_address(list.as_bytes()), expected, "{list:?}");
        }
    }
}
