//! What the HTTP library does not tell of fields, found where they are still packed (HPACK, RFC 7541).
//!
//! Owns the one look at header blocks that the library does not give:
//!
//! - It cuts `#...` off a path before anybody sees it, where a request target has none (RFC 9113, 8.3.1) and a reader less
//!   kind would have refused it. A `#` in a path becomes a `>`, which is as long in both spellings of a text and belongs
//!   in no path either. So the library resets that request, and no other of its connection.
//! - It drops what only a head has (`:method` and so on) from trailers, which are to be refused with it (8.1).
//! - A block that ends within a field is to it any breach of the protocol; it has a name of its own (4.3).
//!
//! It must not judge or change anything else: what is wrong in other ways is the library's to find.
//!
//! Invariant: lengths and the connection's table stay as the client meant them.

use std::ops::RangeInclusive;

use super::{
    meter::{Frame, kind},
    rules::Breach,
};

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// What PRIORITY puts before the fields (RFC 9113, 6.2).
const PRIORITY_BYTES: u64 = 5;

/// `:path` in the static table (appendix A).
const PATHS: RangeInclusive<u64> = 4..=5;
/// Names that begin with a colon there.
const PSEUDO: RangeInclusive<u64> = 1..=14;
/// Where a connection's own table begins (2.3.3).
const OWN_TABLE: u64 = 62;
const NAME: &[u8] = b":path";
/// The same in Huffman's code, but for three bits of padding.
const PACKED_NAME: &[u8] = &[0xb9, 0x58, 0xd3, 0x38];
/// A colon, and its seven bits in Huffman's code.
const COLON: u8 = b':';
const PACKED_COLON: u8 = 0xb8;
/// No number of a block is so large; the library draws the line there, too.
const SHIFT_MAX: u32 = 28;

/// How many symbols have a code of this many bits (appendix B).
const SYMBOLS: [u64; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
];
/// The shortest code and the longest.
const CODE_BITS: RangeInclusive<u32> = 5..=30;
/// `#`, by its length and bits. The next code is `>`.
const HASH: (u32, u64) = (12, 0xffa);

/// For each length, the number below which a code is complete: codes of one length are numbers in a row, and longer
/// ones are larger.
const LIMITS: [u64; 31] = {
    let mut limits = [0; 31];
    let (mut length, mut limit) = (0, 0);
    while length < limits.len() {
        limit = (limit << 1) + SYMBOLS[length];
        limits[length] = limit;
        length += 1;
    }
    limits
};

/// What a block's next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Field,
    Length(Part),
    Text(Part),
    /// A number that goes on.
    Number(Of),
    /// Who knows: the connection ends.
    Lost,
}

/// A text of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

/// What a number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// The table's size.
    Nothing,
    /// The entry that is a whole field.
    Field,
    /// The entry that has the name.
    Entry,
    Length(Part),
}

/// What fields belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Block {
    #[default]
    Head,
    Trailers,
}

/// What is remembered of a connection's fields.
#[derive(Default)]
pub(super) struct Fields {
    /// Bytes of the frame before its fields, the first of which is the length of what follows them if `is_padded`.
    lead: u64,
    is_padded: bool,
    /// Bytes of the frame's fields.
    left_of_frame: u64,
    /// The block ends with the frame.
    is_last: bool,
    block: Block,
    /// The trailers have had what only a head has.
    is_misplaced: bool,

    step: Step,
    number: u64,
    shift: u32,
    /// Bytes of a text that are to come.
    left: u64,
    /// Whether they are in Huffman's code.
    is_packed: bool,
    code: Code,
    /// How much of a name is that of a path.
    matched: usize,
    is_path: bool,
    is_pseudo: bool,
    /// Whether the field becomes an entry.
    is_kept: bool,
    /// Whether an entry of the connection's table is a path, the newest in the lowest bit. It has 128 at most: each
    /// takes 32 bytes and more of 4096 (4.1), which nobody was told to exceed. Which of them are still there does
    /// not matter, since an entry goes by how many came after it.
    paths: u128,
    /// The same of names that begin with a colon.
    pseudo: u128,
}

impl Fields {
    /// A frame of fields begins.
    pub(super) fn begin(&mut self, frame: &Frame, block: Block) -> Result<(), Breach> {
        (self.lead, self.is_padded) = (0, false);
        self.is_last = frame.flags & END_HEADERS != 0;
        if frame.kind == kind::HEADERS {
            (self.block, self.is_misplaced) = (block, false);
            self.step = Step::Field;
            self.is_padded = frame.flags & PADDED != 0;
            let priority = frame.flags & PRIORITY != 0;
            self.lead = u64::from(self.is_padded) + u64::from(priority) * PRIORITY_BYTES;
        }
        self.left_of_frame = frame.length.saturating_sub(self.lead);
        self.judge()
    }

    /// Whether the block is one of trailers that has had what only a head has.
    pub(super) fn is_misplaced(&self) -> bool {
        self.is_misplaced
    }

    /// A block ends with a field (RFC 9113, 4.3).
    fn judge(&self) -> Result<(), Breach> {
        let has_ended = self.is_last && self.lead == 0 && self.left_of_frame == 0;
        if self.step == Step::Lost || (has_ended && self.step != Step::Field) {
            return Err(Breach::Compression);
        }
        Ok(())
    }

    /// A piece of what the frame brings.
    pub(super) fn piece(&mut self, bytes: &mut [u8]) -> Result<(), Breach> {
        let lead = clamp(self.lead, bytes.len());
        self.lead -= lead as u64;
        let (lead, rest) = bytes.split_at_mut(lead);
        if let (true, Some(padding)) = (self.is_padded, lead.first()) {
            self.is_padded = false;
            self.left_of_frame = self.left_of_frame.saturating_sub(u64::from(*padding));
        }
        let block = clamp(self.left_of_frame, rest.len());
        self.left_of_frame -= block as u64;
        let mut rest = &mut rest[..block];
        while !rest.is_empty() {
            rest = self.step(rest);
        }
        self.judge()
    }

    /// Takes something off the bytes. Gives the others.
    fn step<'a>(&mut self, bytes: &'a mut [u8]) -> &'a mut [u8] {
        let count = match self.step {
            Step::Lost => bytes.len(),
            Step::Text(_) => clamp(self.left, bytes.len()),
            _ => 1,
        };
        let (taken, rest) = bytes.split_at_mut(count);
        match (self.step, &*taken) {
            (Step::Text(part), _) => self.text(part, taken),
            (Step::Field, &[byte]) => self.field(byte),
            (Step::Length(part), &[byte]) => {
                self.is_packed = byte & 0x80 != 0;
                self.number(byte, 7, Of::Length(part));
            }
            (Step::Number(of), &[byte]) => self.more_of_number(byte, of),
            _ => {}
        }
        rest
    }

    /// The first byte of a field (6).
    fn field(&mut self, byte: u8) {
        self.is_kept = byte.leading_zeros() == 1;
        match byte.leading_zeros() {
            0 => self.number(byte, 7, Of::Field),
            1 => self.number(byte, 6, Of::Entry),
            2 => self.number(byte, 5, Of::Nothing),
            _ => self.number(byte, 4, Of::Entry),
        }
    }

    /// The first byte of a number (5.1).
    fn number(&mut self, byte: u8, bits: u32, of: Of) {
        let most = (1 << bits) - 1;
        self.number = u64::from(byte) & most;
        self.shift = 0;
        if self.number < most {
            self.has(of);
        } else {
            self.step = Step::Number(of);
        }
    }

    fn more_of_number(&mut self, byte: u8, of: Of) {
        self.number += u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        if byte & 0x80 == 0 {
            self.has(of);
        } else if self.shift >= SHIFT_MAX {
            self.step = Step::Lost;
        }
    }

    /// The number is complete.
    fn has(&mut self, of: Of) {
        self.step = match of {
            Of::Nothing => Step::Field,
            // The one entry that there is not (RFC 7541, 6.1).
            Of::Field if self.number == 0 => Step::Lost,
            Of::Field => {
                self.look_up();
                Step::Field
            }
            Of::Entry if self.number == 0 => Step::Length(Part::Name),
            Of::Entry => {
                self.look_up();
                Step::Length(Part::Value)
            }
            Of::Length(part) => {
                self.left = self.number;
                self.code = Code::default();
                if part == Part::Name {
                    (self.matched, self.is_path, self.is_pseudo) = (0, false, false);
                }
                Step::Text(part)
            }
        };
        if let (Step::Text(part), 0) = (self.step, self.left) {
            self.end(part);
        }
    }

    /// The field's name is that of an entry.
    fn look_up(&mut self) {
        let entry = self.number;
        let age = entry
            .checked_sub(OWN_TABLE)
            .and_then(|age| u32::try_from(age).ok());
        let is_in = |table: u128| age.and_then(|age| table.checked_shr(age)).unwrap_or(0) & 1 == 1;
        self.is_path = PATHS.contains(&entry) || is_in(self.paths);
        self.is_pseudo = PSEUDO.contains(&entry) || is_in(self.pseudo);
        self.place();
    }

    /// The field's name is known.
    fn place(&mut self) {
        self.is_misplaced |= self.is_pseudo && self.block == Block::Trailers;
    }

    fn text(&mut self, part: Part, bytes: &mut [u8]) {
        self.left -= bytes.len() as u64;
        match part {
            Part::Name => self.name(bytes),
            Part::Value if !self.is_path => {}
            Part::Value if self.is_packed => bytes.iter_mut().for_each(|byte| self.code.next(byte)),
            Part::Value => bytes
                .iter_mut()
                .filter(|byte| **byte == b'#')
                .for_each(|byte| *byte = b'>'),
        }
        if self.left == 0 {
            self.end(part);
        }
    }

    /// A name that only begins like a path's is not allowed anyway.
    fn name(&mut self, bytes: &[u8]) {
        let name = if self.is_packed { PACKED_NAME } else { NAME };
        for byte in bytes {
            if self.matched == 0 {
                self.is_pseudo = match self.is_packed {
                    true => byte & 0xfe == PACKED_COLON,
                    false => *byte == COLON,
                };
                self.place();
            }
            let is_last = self.matched + 1 == name.len();
            let mask = if self.is_packed && is_last { 0xf8 } else { 0xff };
            if name.get(self.matched) != Some(&(byte & mask)) {
                // No more can match.
                self.matched = name.len();
                return;
            }
            self.matched += 1;
            self.is_path = is_last;
        }
    }

    fn end(&mut self, part: Part) {
        self.step = match part {
            Part::Name => Step::Length(Part::Value),
            Part::Value => Step::Field,
        };
        if part == Part::Value && self.is_kept {
            self.paths = self.paths << 1 | u128::from(self.is_path);
            self.pseudo = self.pseudo << 1 | u128::from(self.is_pseudo);
        }
    }
}

/// Bits of a text in Huffman's code that are not yet a symbol.
#[derive(Default)]
struct Code {
    bits: u64,
    count: u32,
}

impl Code {
    /// The text's next byte, in which a `#` may end.
    fn next(&mut self, byte: &mut u8) {
        self.bits = self.bits << 8 | u64::from(*byte);
        self.count += 8;
        while let Some(symbol) = self.symbol() {
            self.count -= symbol.0;
            self.bits &= (1 << self.count) - 1;
            if symbol == HASH {
                // A symbol is found in the byte that it ends in, so fewer than eight bits are left.
                *byte ^= 1 << self.count;
            }
        }
    }

    /// The first symbol, by its length and bits.
    fn symbol(&self) -> Option<(u32, u64)> {
        CODE_BITS
            .take_while(|length| *length <= self.count)
            .map(|length| (length, self.bits >> (self.count - length)))
            .find(|(length, bits)| *bits < LIMITS[*length as usize])
    }
}

fn clamp(count: u64, most: usize) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).min(most)
}

#[cfg(test)]
mod tests;
