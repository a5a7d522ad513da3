//! The buckets of single clients in one worker.
//!
//! Owns a table of a fixed size. It must not know what an address is.
//!
//! Invariant: nothing is allocated after the beginning. A client that finds no place takes that of the one in its set of
//! eight which was not seen for longest; who comes again after that begins with a full bucket.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{MERGE_EVERY_US, ROWS, SLOTS, bucket::Bucket, carried};
use crate::config::Rate;

/// Places that a client may have.
const WAYS: usize = 8;

/// 48 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    client: u128,
    bucket: Bucket,
    /// What the others had let in, by rows, when they were last asked.
    elsewhere: [u32; ROWS],
    merged_ms: u32,
    is_taken: bool,
}

/// The table.
pub(super) struct Clients {
    rate: Rate,
    entries: Box<[Entry]>,
    seed: u64,
}

impl Clients {
    pub(super) fn new(rate: Rate, count: usize, seed: u64) -> Self {
        let sets = count.div_ceil(WAYS);
        Self {
            rate,
            entries: vec![Entry::default(); sets * WAYS].into(),
            seed,
        }
    }

    fn hash(&self, client: u128) -> u64 {
        // Seeded, so that nobody can choose addresses that push others out.
        xxh3_64_with_seed(&client.to_le_bytes(), self.seed)
    }

    /// Where each row of what workers tell each other has this client.
    pub(super) fn slots(&self, client: u128) -> [usize; ROWS] {
        let hash = self.hash(client);
        std::array::from_fn(|row| row * SLOTS + (hash >> (16 * row)) as usize % SLOTS)
    }

    /// Takes one of this client's, or says how long until there is one. `elsewhere`: what the others have let in so far, by rows.
    pub(super) fn take(
        &mut self,
        client: u128,
        elsewhere: impl Fn(usize) -> u32,
        now_us: u64,
    ) -> Result<(), u64> {
        let rate = self.rate;
        let now_ms = (now_us / MERGE_EVERY_US) as u32;
        let entry = self.entry(client);
        if !entry.is_taken {
            *entry = Entry {
                client,
                bucket: Bucket::full(&rate),
                elsewhere: std::array::from_fn(&elsewhere),
                merged_ms: now_ms,
                is_taken: true,
            };
        }
        entry.bucket.fill(&rate, now_us);
        if entry.merged_ms != now_ms {
            entry.merged_ms = now_ms;
            let taken = std::array::from_fn::<_, ROWS, _>(|row| {
                let sum = elsewhere(row);
                sum.wrapping_sub(std::mem::replace(&mut entry.elsewhere[row], sum))
            });
            // Others than this client may be in a slot, so no row says too little.
            entry
                .bucket
                .owe(&rate, u64::from(taken.into_iter().min().unwrap_or(0)));
        }
        entry.bucket.take(&rate)
    }

    /// What is left of each client's bucket that is not full: of the emptiest, if there are too many.
    pub(super) fn carry(&self, now_us: u64) -> Vec<(u128, f32)> {
        let taken = self.entries.iter().filter(|entry| entry.is_taken);
        let level = |entry: &Entry| Some((entry.client, entry.bucket.level_at(&self.rate, now_us)?));
        carried::least(taken.filter_map(level).collect())
    }

    /// Another node had that much left of this client's, at the first of these times. `elsewhere` as in [`Self::take`].
    pub(super) fn lower(
        &mut self,
        (client, level): (u128, f32),
        elsewhere: impl Fn(usize) -> u32,
        (told_us, now_us): (u64, u64),
    ) {
        let rate = self.rate;
        let entry = self.entry(client);
        if !entry.is_taken {
            *entry = Entry {
                client,
                bucket: Bucket::full(&rate),
                elsewhere: std::array::from_fn(&elsewhere),
                merged_ms: (now_us / MERGE_EVERY_US) as u32,
                is_taken: true,
            };
        }
        entry.bucket.lower(&rate, (level, told_us), now_us);
    }

    /// The client's entry, or an empty one for it.
    fn entry(&mut self, client: u128) -> &mut Entry {
        let sets = self.entries.len() / WAYS;
        let begin = (self.hash(client) >> 32) as usize % sets * WAYS;
        let set = &mut self.entries[begin..begin + WAYS];
        let known = set
            .iter()
            .position(|entry| entry.is_taken && entry.client == client);
        let place = known.unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|place| (set[*place].is_taken, set[*place].bucket.at_us));
            let oldest = oldest.unwrap_or(0);
            set[oldest] = Entry::default();
            oldest
        });
        &mut set[place]
    }
}
