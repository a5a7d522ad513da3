//! What guests say, made fit to be shown.
//!
//! Owns the rule that a guest's words stay on the line and in the place that they are given: no line breaks, nothing
//! that a terminal obeys, and not too many of them. It must not know where they are shown.

/// Cuts at a character's boundary, and writes what is no printing character as an escape.
pub(super) fn tame(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    if !text.chars().any(is_wild) {
        return text;
    }
    let mut tamed = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_wild(c) {
            tamed.extend(c.escape_default());
        } else {
            tamed.push(c);
        }
    }
    tamed
}

/// Controls (of ASCII and of Latin-1), separators of lines, and what turns the direction of writing.
fn is_wild(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_left_alone() {
        for text in ["", "bücher ☃ \"quoted\"", "a\\n"] {
            assert_eq!(tame(text.to_owned(), 100), text);
        }
    }

    #[test]
    fn what_moves_a_terminal_or_ends_a_line_is_escaped() {
        let wild = "a\nb\r\t\u{1b}[2J\0\u{7f}\u{9b}\u{2028}\u{202e}z";
        assert_eq!(
            tame(wild.to_owned(), 100),
            "a\\nb\\r\\t\\u{1b}[2J\\u{0}\\u{7f}\\u{9b}\\u{2028}\\u{202e}z"
        );
    }

    #[test]
    fn words_are_cut_between_characters() {
        assert_eq!(tame("aßb".to_owned(), 2), "a");
        assert_eq!(tame("\n".repeat(100), 2), "\\n\\n");
    }
}
