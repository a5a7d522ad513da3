//! Which letters are new: starts and sequence numbers of the other members.
//!
//! Owns what is known of each peer's present start. A letter counts if it is from that start, was not seen before, and names this
//! member's own present start. The last is what a recording lacks: whoever names it has heard this member since it began.
//!
//! Invariant: no letter is accepted twice, and none from a start of a peer that has been followed by another.

use crate::{settings::MemberId, wire::Letter};

/// Letters that may overtake one another; older ones are taken for repeated.
const WINDOW: u64 = 64;
/// Starts of a peer that are remembered as over. A replay of an older one would need this member not to have begun anew in
/// the meantime.
const RETIRED_MAX: usize = 16;

/// What becomes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    New,
    /// It was seen before, or is too old to tell, or from a start that is over, or for somebody else.
    Replayed,
    /// Its sender has not heard of this start yet, or this member not of the sender's: it is told by an empty letter, which
    /// answers by the sender's own start.
    Unacquainted,
}

/// What a letter says of starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Tells the starts of the sender apart.
    pub boot: u64,
    /// The receiver's start that the sender has heard of; 0 for none.
    pub echo: u64,
    /// Counts what the sender sent since it started.
    pub sequence: u64,
}

/// What is known of another party's present start, and of what came from it.
#[derive(Clone, Debug, Default)]
pub struct Acquaintance {
    boot: u64,
    retired: Vec<u64>,
    highest: u64,
    seen: u64,
}

/// All peers, and this member's own start.
#[derive(Clone, Debug)]
pub struct Session {
    me: MemberId,
    boot: u64,
    sequence: u64,
    peers: Vec<Acquaintance>,
}

impl Session {
    /// A start of this member; `boot` is a random number other than 0.
    pub fn new(me: MemberId, members: usize, boot: u64) -> Self {
        Self {
            me,
            boot: boot.max(1),
            sequence: 0,
            peers: vec![Acquaintance::default(); members],
        }
    }

    /// Judges a letter whose seal fits, and remembers it.
    pub fn judge(&mut self, letter: &Letter) -> Verdict {
        let Some(peer) = self.peers.get_mut(usize::from(letter.from)) else {
            return Verdict::Replayed;
        };
        if letter.to != self.me || letter.from == self.me {
            return Verdict::Replayed;
        }
        let stamp = Stamp {
            boot: letter.boot,
            echo: letter.echo,
            sequence: letter.sequence,
        };
        peer.judge(self.boot, stamp)
    }

    /// What is to be sent to a peer.
    pub fn letter(&mut self, to: MemberId, message: Option<crate::Message>) -> Letter {
        let echo = self.peers.get(usize::from(to)).map_or(0, |peer| peer.boot);
        self.letter_to(to, echo, message)
    }

    /// An empty letter to whoever sent this one, so that it can name this start.
    pub fn introduce(&mut self, to: &Letter) -> Letter {
        self.letter_to(to.from, to.boot, None)
    }

    fn letter_to(&mut self, to: MemberId, echo: u64, message: Option<crate::Message>) -> Letter {
        self.sequence += 1;
        Letter {
            from: self.me,
            to,
            boot: self.boot,
            echo,
            sequence: self.sequence,
            is_same_list: true,
            message,
        }
    }
}

impl Acquaintance {
    /// Its present start; 0 before the first letter that counted.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Judges what came from it for `mine`, the receiver's own start, and remembers it.
    pub fn judge(&mut self, mine: u64, stamp: Stamp) -> Verdict {
        if self.retired.contains(&stamp.boot) {
            return Verdict::Replayed;
        }
        if stamp.echo != mine {
            return Verdict::Unacquainted;
        }
        if stamp.boot != self.boot {
            if self.boot != 0 {
                self.retired.insert(0, self.boot);
                self.retired.truncate(RETIRED_MAX);
            }
            self.boot = stamp.boot;
            (self.highest, self.seen) = (0, 0);
        }
        self.admit(stamp.sequence)
    }

    fn admit(&mut self, sequence: u64) -> Verdict {
        if sequence > self.highest {
            let by = sequence - self.highest;
            self.seen = self.seen.checked_shl(by.min(WINDOW) as u32).unwrap_or(0) | 1;
            self.highest = sequence;
            return Verdict::New;
        }
        let age = self.highest - sequence;
        if age >= WINDOW || self.seen >> age & 1 == 1 {
            return Verdict::Replayed;
        }
        self.seen |= 1 << age;
        Verdict::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Beat, Message};

    const BEAT: Option<Message> = Some(Message::Beat(Beat {
        active: true,
        fit: true,
        presence: crate::Presence::Here,
        epoch: 1,
    }));

    /// Two members that have heard of each other.
    fn acquainted() -> (Session, Session) {
        let (mut one, mut two) = (Session::new(0, 2, 11), Session::new(1, 2, 22));
        let first = one.letter(1, BEAT);
        assert_eq!(two.judge(&first), Verdict::Unacquainted);
        assert_eq!(one.judge(&two.introduce(&first)), Verdict::New);
        assert_eq!(two.judge(&one.letter(1, BEAT)), Verdict::New);
        (one, two)
    }

    #[test]
    fn two_members_are_acquainted_after_one_letter_each_way() {
        acquainted();
    }

    #[test]
    fn a_letter_counts_once_and_may_be_overtaken() {
        let (mut one, mut two) = acquainted();
        let letters: Vec<Letter> = (0..70).map(|_| one.letter(1, BEAT)).collect();
        for letter in [letters[1], letters[0], letters[69], letters[10]] {
            assert_eq!(two.judge(&letter), Verdict::New);
            assert_eq!(two.judge(&letter), Verdict::Replayed);
        }
        assert_eq!(two.judge(&letters[2]), Verdict::Replayed, "older than the window");
    }

    #[test]
    fn nothing_from_a_start_that_is_over_counts() {
        let (mut one, mut two) = acquainted();
        let recorded = one.letter(1, BEAT);
        let mut again = Session::new(0, 2, 33);
        let hello = again.letter(1, BEAT);
        assert_eq!(two.judge(&hello), Verdict::Unacquainted);
        assert_eq!(again.judge(&two.introduce(&hello)), Verdict::New);
        assert_eq!(two.judge(&again.letter(1, BEAT)), Verdict::New);
        assert_eq!(two.judge(&recorded), Verdict::Replayed);
    }

    #[test]
    fn a_recording_from_before_this_start_does_not_count() {
        let (mut one, _) = acquainted();
        let recorded = one.letter(1, BEAT);
        let mut again = Session::new(1, 2, 44);
        assert_eq!(again.judge(&recorded), Verdict::Unacquainted);
        // And telling the recorder about this start changes nothing here.
        again.introduce(&recorded);
        assert_eq!(again.judge(&recorded), Verdict::Unacquainted);
    }

    #[test]
    fn a_letter_for_another_or_from_itself_does_not_count() {
        let (mut one, mut two) = acquainted();
        let mut letter = one.letter(1, BEAT);
        letter.to = 0;
        assert_eq!(two.judge(&letter), Verdict::Replayed);
        (letter.to, letter.from) = (1, 1);
        assert_eq!(two.judge(&letter), Verdict::Replayed);
        letter.from = 200;
        assert_eq!(two.judge(&letter), Verdict::Replayed);
    }
}
