//! Recorded decisions, made again: by the same version, or by another one to see what it would change.
//!
//! Owns the way from a log's frames to a report: which version plays which stream, and what is compared. It must not know
//! how a log is written (`policy/record.rs`) nor how a report is shown (`cli/replay.rs`).
//!
//! Invariants: the guest is told what is in the log and nothing else. Another policy is told the load that the recorded
//! decisions led to; that its own would have led to another is not modelled.
//! Read next: `replay/player.rs` (one stream), `replay/report.rs` (what is counted).

mod keys;
mod player;
mod remake;
mod report;
mod versions;

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use crate::policy::{BackendsEvent, Ending, Event, Frame, LogError, LogReader, StartEvent, decode_events};

pub use keys::{Keys, Rehomed};
pub use player::{Played, Player, head_of};
pub use remake::{Remade, remake};
pub use report::{Count, Difference, Report, Share, Unrecorded, Verdict};

use player::Outcome;
use report::Tally;
use versions::{Casting, Versions};

/// What to do with a log.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The policy that decides now; `None` has each stream's own, which has to be a built-in.
    pub policy: Option<PathBuf>,
    /// Its settings as JSON; `None` has those that were recorded.
    pub config_json: Option<String>,
    /// Only the streams of this pool.
    pub pool: Option<String>,
    /// Addresses of backends that are taken to drain all the time.
    pub drain: Vec<String>,
    /// Read as far as the log goes, although it has no end.
    pub is_partial: bool,
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file is not whole.
    #[error("{0}")]
    Log(#[from] LogError),
    /// Its content makes no sense.
    #[error("frame {frame}, stream {stream:x}: {what}")]
    Content {
        /// Counted from 1.
        frame: u64,
        /// Which.
        stream: u64,
        /// What is wrong.
        what: String,
    },
    /// The policy cannot be used.
    #[error("{0}")]
    Policy(String),
    /// There is nothing of what was asked for.
    #[error("{0}")]
    Nothing(String),
}

/// Makes the decisions of a log again.
///
/// # Errors
/// When the log is not whole, or there is no version to decide.
pub fn replay(log: impl Read, order: &Order) -> Result<Report, ReplayError> {
    let mut log = LogReader::new(log)?;
    let mut run = Run {
        order,
        versions: Versions::new(order)?,
        streams: BTreeMap::new(),
        skipped: Vec::new(),
        tally: Tally::default(),
    };
    loop {
        let number = log.frames() + 1;
        match log.next_frame() {
            Ok(Some(frame)) => run.frame(number, &frame)?,
            Ok(None) => break,
            Err(LogError::Unclosed(_) | LogError::Truncated(_)) if order.is_partial => break,
            Err(error) => return Err(error.into()),
        }
    }
    run.report()
}

struct Run<'a> {
    order: &'a Order,
    versions: Versions<'a>,
    streams: BTreeMap<u64, Stream>,
    /// Streams of other pools.
    skipped: Vec<u64>,
    tally: Tally,
}

/// A stream under way.
struct Stream {
    number: u64,
    start: StartEvent<'static>,
    casting: Casting,
    player: Option<Player>,
    events: u64,
    /// What became of the last call that was not a pick.
    last: Outcome,
}

impl Run<'_> {
    fn frame(&mut self, frame: u64, content: &Frame<'_>) -> Result<(), ReplayError> {
        match *content {
            Frame::Events {
                stream,
                first,
                events,
            } => self.events(frame, stream, first, events),
            Frame::End { stream, ending } => {
                self.end(stream, ending);
                Ok(())
            }
            Frame::Close => Ok(()),
        }
    }

    fn events(&mut self, frame: u64, stream: u64, first: u64, events: &[u8]) -> Result<(), ReplayError> {
        if self.skipped.contains(&stream) {
            return Ok(());
        }
        let wrong = |what: String| ReplayError::Content { frame, stream, what };
        let known = self.streams.get(&stream).map_or(0, |known| known.events);
        if known != first {
            return Err(wrong(format!("event {known} was expected, and {first} comes")));
        }
        for event in decode_events(events) {
            let event = event.map_err(|error| wrong(error.to_string()))?;
            if let Event::Start(start) = event {
                if !self.begin(stream, start)? {
                    return Ok(());
                }
                continue;
            }
            let known = self.streams.get_mut(&stream);
            let known = known.ok_or_else(|| wrong("it does not begin with its start".to_owned()))?;
            known.play(event, &mut self.tally).map_err(wrong)?;
        }
        Ok(())
    }

    /// False if nobody asked for this stream.
    fn begin(&mut self, number: u64, start: StartEvent<'static>) -> Result<bool, ReplayError> {
        if self.order.pool.as_ref().is_some_and(|pool| *pool != start.pool) {
            self.skipped.push(number);
            return Ok(false);
        }
        let casting = self.versions.cast(&start)?;
        self.tally.begin(&start, &casting);
        let stream = Stream {
            number,
            start,
            casting,
            player: None,
            events: 1,
            last: Outcome::Fine,
        };
        self.streams.insert(number, stream);
        Ok(true)
    }

    fn end(&mut self, stream: u64, ending: Ending) {
        if self.streams.remove(&stream).is_some() && ending == Ending::Gap {
            self.tally.gaps += 1;
        }
    }

    fn report(self) -> Result<Report, ReplayError> {
        if self.tally.streams == 0 {
            let of = self.order.pool.as_ref();
            let of = of.map_or(String::new(), |pool| format!(" of pool {pool:?}"));
            return Err(ReplayError::Nothing(format!("the log has no stream{of}")));
        }
        if let Some(address) = self.order.drain.iter().find(|address| !self.tally.knows(address)) {
            let text = format!("no request of the log could have gone to {address:?}");
            return Err(ReplayError::Nothing(text));
        }
        Ok(self.tally.report())
    }
}

impl Stream {
    fn play(&mut self, event: Event<'static>, tally: &mut Tally) -> Result<(), String> {
        let number = self.events;
        self.events += 1;
        match event {
            Event::Start(_) => return Err("it starts twice".to_owned()),
            Event::Backends(backends) => {
                tally.meet(&backends);
                self.show(&backends);
            }
            Event::State(state) => {
                let player = self.player.as_mut().ok_or(NO_BACKENDS)?;
                self.last = player.import(&state)?;
            }
            Event::Outcomes(outcomes) => {
                let player = self.player.as_mut().ok_or(NO_BACKENDS)?;
                self.last = player.observe(&outcomes);
            }
            Event::Others(others) => {
                let casting = &self.casting;
                let player = self.player.get_or_insert_with(|| casting.player());
                player.hear(others);
            }
            Event::Fault(fault) => tally.fault(self, number, fault),
            Event::Pick(pick) => {
                let player = self.player.as_mut().ok_or(NO_BACKENDS)?;
                let played = player.pick(&pick);
                tally.pick(self, number, &pick, &played);
            }
        }
        Ok(())
    }

    fn show(&mut self, backends: &BackendsEvent<'_>) {
        let casting = &self.casting;
        let player = self.player.get_or_insert_with(|| casting.player());
        self.last = player.show(backends);
    }
}

const NO_BACKENDS: &str = "something is asked before there are backends";
