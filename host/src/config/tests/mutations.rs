//! Files broken at random: whatever is read, there is an answer, and a refusal has a reason.

use std::path::Path;

use super::super::file::parse_here;

const FULL: &str = include_str!("../../../../examples/full.toml");
/// Together about three seconds in the dev profile, on an idle machine.
const MUTATIONS: usize = 100_000;
const SEED: u64 = 0x7472_696d_7461_6221;

/// Pieces that mean something somewhere in a file.
const PIECES: [&str; 28] = [
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "-1",
    "0",
    "99999999999999999999",
    "nan",
    "true",
    "1979-05-27",
    "\"off\"",
    "\"0s\"",
    "[pool.x]\n",
    "[[listener]]\n",
    "é",
    "\0",
    "pool",
    "\"shop\"",
];

/// One of every type, and the ends of some.
const VALUES: [&str; 12] = [
    "0",
    "-1",
    "1.5",
    "nan",
    "true",
    "1979-05-27",
    "[]",
    "{}",
    "[[1], {}]",
    "{ a = 1 }",
    "\"\"",
    "\"127.0.0.1:9001\"",
];

/// splitmix64: a few lines, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    fn boundary(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn mutate(&mut self, text: &mut String) {
        let from = self.boundary(text);
        match self.below(5) {
            0 => text.insert_str(from, PIECES[self.below(PIECES.len())]),
            1 => {
                let to = (from..=text.len())
                    .filter(|at| text.is_char_boundary(*at))
                    .nth(self.below(12) + 1);
                text.replace_range(from..to.unwrap_or(text.len()), "");
            }
            2 => self.swap_values(text),
            3 => self.replace_string(text),
            _ => self.drop_or_double_line(text),
        }
    }

    /// Keeps the file TOML most of the time, so that the reader sees it and not only the parser.
    fn swap_values(&mut self, text: &mut String) {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let values: Vec<_> = lines
            .iter()
            .enumerate()
            .filter_map(|(at, line)| Some((at, line.split_once(" = ")?.1)))
            .collect();
        let Some((_, value)) = values.get(self.below(values.len())) else {
            return;
        };
        let value = (*value).to_owned();
        let Some((at, _)) = values.get(self.below(values.len())) else {
            return;
        };
        let at = *at;
        if let Some((key, _)) = lines[at].clone().split_once(" = ") {
            lines[at] = format!("{key} = {value}");
        }
        *text = lines.join("\n");
    }

    /// A string, wherever it stands, becomes a value of some type.
    fn replace_string(&mut self, text: &mut String) {
        let parts: Vec<_> = text.split('"').collect();
        let inside = 2 * self.below(parts.len() / 2) + 1;
        let Some(rest) = parts.get(inside + 1..) else {
            return;
        };
        let value = VALUES[self.below(VALUES.len())];
        *text = format!("{}{value}{}", parts[..inside].join("\""), rest.join("\""));
    }

    fn drop_or_double_line(&mut self, text: &mut String) {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let at = self.below(lines.len());
        if at < lines.len() {
            let line = lines.remove(at);
            if self.below(2) == 0 {
                let to = self.below(lines.len() + 1);
                lines.insert(to, line);
            }
        }
        *text = lines.join("\n");
    }
}

#[test]
fn broken_files_are_refused_with_a_reason_and_never_panic() {
    let mut random = Random(SEED);
    // Comments would take half of the mutations and none of the code.
    let full: String = FULL
        .lines()
        .filter_map(|line| line.split('#').next())
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let mut refused = 0;
    let mut text = full.clone();
    for round in 0..MUTATIONS {
        // A few steps away from the good file, then back to it: much further away nothing but syntax is tested.
        if round % 5 == 0 {
            full.clone_into(&mut text);
        }
        random.mutate(&mut text);
        // Without the thread that `parse` starts: its start costs more than the reading, and would catch a panic.
        let Err(mistakes) = parse_here(&text, "trimtab.toml", Path::new("/")) else {
            continue;
        };
        refused += 1;
        assert!(!mistakes.as_slice().is_empty(), "seed {SEED} round {round}");
        for mistake in mistakes.as_slice() {
            let is_told = !mistake.message.is_empty() && !mistake.message.contains("trimtab");
            assert!(is_told, "seed {SEED} round {round}: {mistake}\n{text}");
            assert!(
                !mistake.to_string().contains('\n'),
                "seed {SEED} round {round}: {mistake}"
            );
        }
    }
    // Both ways of the reader must have been walked.
    assert!((MUTATIONS / 2..MUTATIONS).contains(&refused), "{refused} refused");
}
