//! The terminal, or whatever standard output is.
//!
//! Owns what is written how: lines that stay, and on a terminal a block below them that is drawn over. It must not know
//! what they say.
//!
//! Invariants: without a terminal not one escape code is written; after each call the cursor is below everything, so an
//! end at any moment leaves the terminal in order. Output that nobody reads any more is no error: there is nobody to tell.

use std::io::Write;

/// Where output goes.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    kind: Kind,
    /// The block that is on the terminal now.
    block: Vec<String>,
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that understands escape codes.
    Terminal,
    /// A file, a pipe.
    Plain,
}

/// Without it a terminal of less than 80 columns would break lines, and the count of lines to go up would be wrong.
const CUT_LINES: &str = "\x1b[?7l";
const BREAK_LINES: &str = "\x1b[?7h";

impl Screen {
    pub(super) fn new(out: Box<dyn Write + Send>, kind: Kind) -> Self {
        Self {
            out,
            kind,
            block: Vec::new(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Writes text that stays, above the block.
    pub(super) fn say(&mut self, text: &str) {
        let block = std::mem::take(&mut self.block);
        let erase = match block.len() {
            0 => String::new(),
            lines => format!("{}\x1b[J", up(lines)),
        };
        self.write(&format!("{erase}{text}\n"));
        if !block.is_empty() {
            self.draw(block);
        }
    }

    /// Draws the block over the last one. Nothing without a terminal.
    pub(super) fn draw(&mut self, block: Vec<String>) {
        if self.kind == Kind::Plain {
            return;
        }
        let mut frame = format!("{CUT_LINES}{}", up(self.block.len()));
        for line in &block {
            frame += line;
            frame += "\x1b[K\n";
        }
        frame += "\x1b[J";
        frame += BREAK_LINES;
        self.block = block;
        self.write(&frame);
    }

    /// Leaves the block where it is; what is written next goes below.
    pub(super) fn keep_block(&mut self) {
        self.block.clear();
    }

    /// In one piece, or it would flicker.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

/// To the beginning of the line that many lines up.
fn up(lines: usize) -> String {
    match lines {
        0 => String::new(),
        _ => format!("\x1b[{lines}F"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(in crate::demo) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub(in crate::demo) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn screen(kind: Kind) -> (Screen, Paper) {
        let paper = Paper::default();
        (Screen::new(Box::new(paper.clone()), kind), paper)
    }

    #[test]
    fn a_block_is_drawn_over_the_last_one_and_stays_below_the_lines_that_stay() {
        let (mut screen, paper) = screen(Kind::Terminal);
        screen.draw(vec!["a".into(), "b".into()]);
        screen.draw(vec!["c".into()]);
        screen.say("stays");
        screen.keep_block();
        screen.say("below");
        let expected = [
            "\x1b[?7la\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h",
            "\x1b[?7l\x1b[2Fc\x1b[K\n\x1b[J\x1b[?7h",
            "\x1b[1F\x1b[Jstays\n",
            "\x1b[?7lc\x1b[K\n\x1b[J\x1b[?7h",
            "below\n",
        ];
        assert_eq!(paper.text(), expected.concat());
    }

    #[test]
    fn without_a_terminal_there_are_lines_and_nothing_else() {
        let (mut screen, paper) = screen(Kind::Plain);
        screen.draw(vec!["a".into()]);
        screen.say("stays");
        assert_eq!(paper.text(), "stays\n");
    }
}
