//! Rollout of a policy version: in the shadow of the one in service, then as a canary on a part of the traffic, with the
//! judgement that promotes it or takes it back.
//!
//! Owns what is measured of the two arms (the version in service and the candidate) and the rules that compare them. It
//! must not know how requests are split (`proxy`) nor how versions are built (`server`).
//!
//! Invariant: a judgement is made once; after it nothing more is decided for that canary.
//! Read next: `rollout/judge.rs`.

mod arm;
mod canary;
mod judge;
mod shadow;
mod split;

pub use arm::{Arm, Measure};
pub use canary::{Canary, Outcome, Report};
pub use judge::{Breach, Judgement, Rules, judge};
pub use shadow::{Shadow, ShadowReport};
pub use split::Split;
