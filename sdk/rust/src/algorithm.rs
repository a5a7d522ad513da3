//! The host's own algorithms, which a policy may leave a choice to.

/// An algorithm of the host, called like the built-in policy that does the same
/// ([`Pool::delegate_to`](crate::Pool::delegate_to)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Turns, whatever the weight.
    RoundRobin,
    /// Turns by weight.
    WeightedRoundRobin,
    /// The fewest requests in flight for its weight; ties take turns.
    LeastConnections,
    /// The smallest `(active + 1) * latency` for its weight; ties take turns.
    LeastResponseTime,
    /// Of two at random the one that moves fewer bytes for its weight.
    LeastBandwidth,
    /// Of two at random the one with fewer requests in flight for its weight.
    RandomTwoChoices,
    /// Of two at random the one with the smaller `(active + 1) * latency` for its weight.
    PeakEwma,
    /// Equal addresses of clients meet again.
    IpHash,
    /// Equal keys of requests meet again.
    ConsistentHash,
    /// Equal paths meet again.
    ContentHash,
}

impl Algorithm {
    /// Its name in the contract and in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::WeightedRoundRobin => "weighted-round-robin",
            Self::LeastConnections => "least-connections",
            Self::LeastResponseTime => "least-response-time",
            Self::LeastBandwidth => "least-bandwidth",
            Self::RandomTwoChoices => "random-two-choices",
            Self::PeakEwma => "peak-ewma",
            Self::IpHash => "ip-hash",
            Self::ConsistentHash => "consistent-hash",
            Self::ContentHash => "content-hash",
        }
    }
}
