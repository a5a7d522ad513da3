//! What is told of a node's load, as bytes: the body of a datagram.
//!
//! Owns the layout. Reading never panics, whatever the bytes; that they come from a peer was seen before.
//!
//! Layout, numbers in network order: kind (1, of load: 1), then entries of 16 bytes: backend (8), in flight (4), a second (4).

use trimtab_cluster::wire::BODY_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const LOAD: u8 = 1;
const ENTRY_BYTES: usize = 16;
/// In one datagram.
pub(super) const ENTRIES_MAX: usize = (BODY_BYTES_MAX - 1) / ENTRY_BYTES;

/// What one node says of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Of pool and backend, the same on all nodes.
    pub(super) key: u64,
    /// Requests in flight.
    pub(super) active: u32,
    /// Requests a second.
    pub(super) rate: u32,
}

/// What a backend of a pool is called among nodes: they may have other backends, in another order.
pub(super) fn key(pool: &str, backend: u64) -> u64 {
    xxh3_64_with_seed(pool.as_bytes(), backend)
}

/// The bodies that say all this: one at least, since nothing in flight is news too.
pub(super) fn write(entries: &[Entry]) -> Vec<Vec<u8>> {
    let body = |entries: &[Entry]| {
        let mut body = Vec::with_capacity(1 + entries.len() * ENTRY_BYTES);
        body.push(LOAD);
        for Entry { key, active, rate } in entries {
            body.extend(key.to_be_bytes());
            body.extend(active.to_be_bytes());
            body.extend(rate.to_be_bytes());
        }
        body
    };
    match entries {
        [] => vec![body(&[])],
        entries => entries.chunks(ENTRIES_MAX).map(body).collect(),
    }
}

/// The entries; `None` for what is no load.
pub(super) fn read(body: &[u8]) -> Option<Vec<Entry>> {
    let (kind, rest) = body.split_first()?;
    if *kind != LOAD {
        return None;
    }
    let (entries, rest) = rest.as_chunks::<ENTRY_BYTES>();
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let entry = |bytes: &[u8; ENTRY_BYTES]| Entry {
        key: number(&bytes[..8]),
        active: number(&bytes[8..12]) as u32,
        rate: number(&bytes[12..]) as u32,
    };
    rest.is_empty().then(|| entries.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: u32) -> Vec<Entry> {
        let entry = |number: u32| Entry {
            key: u64::from(number) << 33 | 1,
            active: number,
            rate: u32::MAX - number,
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn what_was_written_is_read_and_fits() {
        for (count, bodies) in [(0, 1), (1, 1), (69, 1), (70, 2), (500, 8)] {
            let written = write(&entries(count));
            assert_eq!(written.len(), bodies, "{count}");
            assert!(written.iter().all(|body| body.len() <= BODY_BYTES_MAX));
            let read: Vec<Entry> = written.iter().flat_map(|body| read(body).unwrap()).collect();
            assert_eq!(read, entries(count));
        }
    }

    #[test]
    fn what_is_no_load_is_refused() {
        let body = &write(&entries(2))[0];
        assert_eq!(read(&[]), None);
        assert_eq!(read(&body[..body.len() - 1]), None);
        assert_eq!(read(&[&[2], &body[1..]].concat()), None);
    }

    #[test]
    fn a_backend_of_two_pools_has_two_names() {
        assert_ne!(key("a", 7), key("b", 7));
        assert_ne!(key("a", 7), key("a", 8));
    }
}
