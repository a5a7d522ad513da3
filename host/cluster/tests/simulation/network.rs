//! What becomes of a message on its way.

/// One direction between two members.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// Nothing passes.
    pub(crate) is_cut: bool,
    /// So many of a thousand are lost.
    pub(crate) loss_permille: u32,
    /// So many of a thousand come twice.
    pub(crate) twice_permille: u32,
    /// A message takes up to so long. Since each takes its own time, they overtake one another.
    pub(crate) delay_max_us: u64,
}

impl Link {
    /// As in a calm.
    pub(crate) const GOOD: Self = Self {
        is_cut: false,
        loss_permille: 0,
        twice_permille: 0,
        delay_max_us: 1_000,
    };

    /// Some link of a storm.
    pub(crate) fn bad(random: &mut fastrand::Rng) -> Self {
        let harsh = |random: &mut fastrand::Rng, most: u32| match random.u8(..3) {
            0 => 0,
            1 => random.u32(..=most / 5),
            _ => random.u32(..=most),
        };
        Self {
            is_cut: random.u8(..5) == 0,
            loss_permille: harsh(random, 700),
            twice_permille: harsh(random, 500),
            delay_max_us: 500 + u64::from(harsh(random, 600_000)),
        }
    }

    /// How long each copy of a message takes; none if it is lost.
    pub(crate) fn carry(self, random: &mut fastrand::Rng) -> impl Iterator<Item = u64> + use<> {
        let is_lost = self.is_cut || random.u32(..1000) < self.loss_permille;
        let is_twice = self.twice_permille > 0 && random.u32(..1000) < self.twice_permille;
        let copies = if is_lost { 0 } else { 1 + usize::from(is_twice) };
        let delays = [(); 2].map(|()| random.u64(50..=self.delay_max_us.max(51)));
        delays.into_iter().take(copies)
    }
}
