//! A situation as plain data: backends in their condition, and what happens then. It can be made at random, made smaller,
//! and written down for a person.
//!
//! Backends have numbers that stay when others are left out; their addresses, and so their ids, follow from these. It must
//! not know policies or rules.

use std::{collections::BTreeMap, fmt};

use super::field::Placed;
use crate::{
    config::{self, author::BackendState},
    pool::Figures,
};

/// A situation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scene {
    pub(super) spots: Vec<Spot>,
    pub(super) panic_threshold: u8,
    pub(super) steps: Vec<Step>,
    /// The backend that the rule is about, if it is about one.
    pub(super) focus: Option<u32>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spot {
    pub(super) number: u32,
    pub(super) weight: u32,
    pub(super) zone: Option<char>,
    pub(super) tier: u8,
    pub(super) is_labelled: bool,
    pub(super) state: BackendState,
    pub(super) ramp: u8,
    pub(super) figures: Figures,
}

/// What happens; backends by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Pick(Ask),
    State(u32, BackendState),
    Weight(u32, u32),
    Load(u32, Figures),
    /// An attempt ended there: after so many microseconds, with this status.
    Outcome(u32, u32, Option<u16>),
    /// The pool consists of these now, in this order.
    Reload(Vec<u32>),
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ask {
    /// What the key is made of.
    pub(super) user: u64,
    /// What everything else is made of.
    pub(super) noise: u64,
    pub(super) tried: Vec<u32>,
}

impl Spot {
    /// A backend of weight 1 that serves and has no load.
    pub(super) fn plain(number: u32) -> Self {
        Self {
            number,
            weight: 1,
            zone: None,
            tier: 0,
            is_labelled: false,
            state: BackendState::Up,
            ramp: 100,
            figures: Figures::default(),
        }
    }

    pub(super) fn placed(&self) -> Placed {
        let labels = self.is_labelled.then(|| ("label".to_owned(), "value".to_owned()));
        Placed {
            backend: config::Backend {
                address: address(self.number),
                weight: self.weight,
                zone: self.zone.map(String::from),
                tier: self.tier,
                labels: labels.into_iter().collect::<BTreeMap<_, _>>(),
            },
            state: self.state,
            ramp: self.ramp,
            figures: self.figures,
            others: None,
        }
    }
}

/// The address of the backend of this number.
pub(super) fn address(number: u32) -> String {
    format!("10.0.{}.{}:80", number / 256, number % 256)
}

impl Scene {
    /// A pool of these, in which nothing happens.
    pub(super) fn of(spots: Vec<Spot>) -> Self {
        Self {
            spots,
            panic_threshold: 0,
            steps: Vec::new(),
            focus: None,
        }
    }

    /// The same in another order.
    pub(super) fn reversed(&self) -> Self {
        let mut other = self.clone();
        other.spots.reverse();
        other
    }

    /// The same without this backend.
    pub(super) fn without(&self, number: u32) -> Self {
        let mut other = self.clone();
        other.spots.retain(|spot| spot.number != number);
        other.steps.retain(|step| step.backend() != Some(number));
        for step in &mut other.steps {
            match step {
                Step::Pick(ask) => ask.tried.retain(|tried| *tried != number),
                Step::Reload(numbers) => numbers.retain(|known| *known != number),
                _ => {}
            }
        }
        other
    }

    /// The same with this backend changed.
    pub(super) fn with(&self, number: u32, change: impl FnOnce(&mut Spot)) -> Self {
        let mut other = self.clone();
        if let Some(spot) = other.spots.iter_mut().find(|spot| spot.number == number) {
            change(spot);
        }
        other
    }

    /// The requests in it.
    pub(super) fn asks(&self) -> impl Iterator<Item = &Ask> {
        self.steps.iter().filter_map(|step| match step {
            Step::Pick(ask) => Some(ask),
            _ => None,
        })
    }
}

impl Step {
    /// The backend that it happens to.
    pub(super) fn backend(&self) -> Option<u32> {
        match self {
            Self::Pick(_) | Self::Reload(_) => None,
            Self::State(number, _)
            | Self::Weight(number, _)
            | Self::Load(number, _)
            | Self::Outcome(number, ..) => Some(*number),
        }
    }
}

/// More steps than this are not written down.
const STEPS_SHOWN_MAX: usize = 12;
/// And more backends.
const SPOTS_SHOWN_MAX: usize = 12;

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a pool of {}", self.spots.len())?;
        if self.panic_threshold > 0 {
            write!(f, ", panic_threshold = {}", self.panic_threshold)?;
        }
        for spot in self.spots.iter().take(SPOTS_SHOWN_MAX) {
            write!(f, "\n  {spot}")?;
        }
        if self.spots.len() > SPOTS_SHOWN_MAX {
            write!(f, "\n  and {} more", self.spots.len() - SPOTS_SHOWN_MAX)?;
        }
        if let Some(focus) = self.focus {
            write!(f, "\nit is about b{focus}")?;
        }
        for (at, step) in self.steps.iter().enumerate().take(STEPS_SHOWN_MAX) {
            write!(f, "\n  {}. {step}", at + 1)?;
        }
        if self.steps.len() > STEPS_SHOWN_MAX {
            write!(f, "\n  and {} steps more", self.steps.len() - STEPS_SHOWN_MAX)?;
        }
        Ok(())
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "b{} {} weight {}",
            self.number,
            address(self.number),
            self.weight
        )?;
        if self.state != BackendState::Up {
            write!(f, ", {}", state_name(self.state))?;
        }
        if self.ramp < 100 {
            write!(f, ", ramp {} %", self.ramp)?;
        }
        if self.tier > 0 {
            write!(f, ", tier {}", self.tier)?;
        }
        if let Some(zone) = self.zone {
            write!(f, ", zone {zone}")?;
        }
        if self.figures != Figures::default() {
            write!(f, ", {}", load(self.figures))?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick(ask) => {
                write!(f, "a request of user {}, random {}", ask.user, ask.noise)?;
                if ask.tried.is_empty() {
                    return Ok(());
                }
                let tried: Vec<_> = ask.tried.iter().map(|number| format!("b{number}")).collect();
                write!(f, ", tried {}", tried.join(" "))
            }
            Self::Reload(numbers) => {
                let numbers: Vec<_> = numbers.iter().map(|number| format!("b{number}")).collect();
                write!(f, "the pool is now {}", numbers.join(" "))
            }
            Self::State(number, state) => write!(f, "b{number} is {}", state_name(*state)),
            Self::Weight(number, weight) => write!(f, "b{number} gets weight {weight}"),
            Self::Load(number, figures) => write!(f, "b{number} has {}", load(*figures)),
            Self::Outcome(number, latency_us, status) => {
                let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
                write!(f, "an attempt at b{number} ends: {status} after {latency_us} us")
            }
        }
    }
}

fn load(figures: Figures) -> String {
    format!(
        "{} in flight, {} us, {} B/s",
        figures.active, figures.latency_us, figures.throughput
    )
}

pub(super) fn state_name(state: BackendState) -> &'static str {
    match state {
        BackendState::Up => "up",
        BackendState::Down => "down",
        BackendState::Draining => "draining",
    }
}
