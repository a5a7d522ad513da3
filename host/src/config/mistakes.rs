//! Pending.
/// A mistake.
#[derive(Clone, Debug)]
pub struct Mistake;
/// Mistakes.
#[derive(Clone, Debug)]
pub struct Mistakes(pub Vec<Mistake>);
