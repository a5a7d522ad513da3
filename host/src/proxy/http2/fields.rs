//! Fragments in requests' paths, found where fields are still packed (HPACK, RFC 7541).
//!
//! Owns the one look at header blocks that the HTTP library does not give: it cuts `#...` off a path before anybody sees
//! it, where a request target has none (RFC 9113, 8.3.1) and a reader less kind would have refused it. A `#` in a path
//! becomes a `>`, which is as long in both spellings of a text and belongs in no path either. So the library resets that
//! request, and no other of its connection. It must not judge or change anything else: for what cannot be understood
//! here, the library ends the connection.
//!
//! Invariant: lengths and the connection's table stay as the client meant them.

use std::ops::RangeInclusive;

use super::meter::{Frame, kind};

const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// What PRIORITY puts before the fields (RFC 9113, 6.2).
const PRIORITY_BYTES: u64 = 5;

/// `:path` in the static table (appendix A).
const PATHS: RangeInclusive<u64> = 4..=5;
/// Where a connection's own table begins (2.3.3).
const OWN_TABLE: u64 = 62;
const NAME: &[u8] = b":path";
/// The same in Huffman's code, but for three bits of padding.
const PACKED_NAME: &[u8] = &[0xb9, 0x58, 0xd3, 0x38];
/// No number of a block is so large; the library draws the line at 28 bits.
const SHIFT_MAX: u32 = 49;

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
    /// Who knows: until the next block.
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
    /// An entry that is a whole field, or the table's size.
    Nothing,
    /// The entry that has the name.
    Entry,
    Length(Part),
}

/// What is remembered of a connection's fields.
#[derive(Default)]
pub(super) struct Fields {
    /// Bytes of the frame before its fields, the first of which is the length of what follows them if `is_padded`.
    lead: u64,
    is_padded: bool,
    /// Bytes of the frame's fields.
    block: u64,

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
    /// Whether the field becomes an entry.
    is_kept: bool,
    /// Whether an entry of the connection's table is a path, the newest in the lowest bit. It has 128 at most: each
    /// takes 32 bytes and more of 4096 (4.1), which nobody was told to exceed. Which of them are still there does
    /// not matter, since an entry goes by how many came after it.
    table: u128,
}

impl Fields {
    /// A frame of a head, or of trailers, begins.
    pub(super) fn begin(&mut self, frame: &Frame) {
        (self.lead, self.is_padded) = (0, false);
        if frame.kind == kind::HEADERS {
            self.step = Step::Field;
            self.is_padded = frame.flags & PADDED != 0;
            let priority = frame.flags & PRIORITY != 0;
            self.lead = u64::from(self.is_padded) + u64::from(priority) * PRIORITY_BYTES;
        }
        self.block = frame.length.saturating_sub(self.lead);
    }

    /// A piece of what the frame brings.
    pub(super) fn piece(&mut self, bytes: &mut [u8]) {
        let lead = clamp(self.lead, bytes.len());
        self.lead -= lead as u64;
        let (lead, rest) = bytes.split_at_mut(lead);
        if let (true, Some(padding)) = (self.is_padded, lead.first()) {
            self.is_padded = false;
            self.block = self.block.saturating_sub(u64::from(*padding));
        }
        let block = clamp(self.block, rest.len());
        self.block -= block as u64;
        let mut rest = &mut rest[..block];
        while !rest.is_empty() {
            rest = self.step(rest);
        }
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
            0 => self.number(byte, 7, Of::Nothing),
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
        } else if self.shift > SHIFT_MAX {
            self.step = Step::Lost;
        }
    }

    /// The number is complete.
    fn has(&mut self, of: Of) {
        self.step = match of {
            Of::Nothing => Step::Field,
            Of::Entry if self.number == 0 => Step::Length(Part::Name),
            Of::Entry => {
                self.is_path = self.is_path_at(self.number);
                Step::Length(Part::Value)
            }
            Of::Length(part) => {
                self.left = self.number;
                self.code = Code::default();
                if part == Part::Name {
                    (self.matched, self.is_path) = (0, false);
                }
                Step::Text(part)
            }
        };
        if let (Step::Text(part), 0) = (self.step, self.left) {
            self.end(part);
        }
    }

    fn is_path_at(&self, entry: u64) -> bool {
        let own = entry.checked_sub(OWN_TABLE);
        let own = own.and_then(|age| self.table.checked_shr(u32::try_from(age).ok()?));
        PATHS.contains(&entry) || own.is_some_and(|table| table & 1 == 1)
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
            self.table = self.table << 1 | u128::from(self.is_path);
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
