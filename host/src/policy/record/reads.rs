//! Which parts of a request's head a guest has asked for.
//!
//! Owns the list of their names. It is kept only while an instance records or is replayed.

/// More names in one pick are not kept: what asks for so many looks for something, and fills logs.
const NAMES_MAX: usize = 64;

/// Names that were asked for in one pick, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Of header fields, in lower case.
    pub headers: Vec<String>,
    /// Of cookies.
    pub cookies: Vec<String>,
    /// There were more.
    pub has_more: bool,
}

impl Reads {
    /// A header field was asked for.
    pub fn header(&mut self, name: &str) {
        if !self.headers.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            self.has_more |= self.headers.len() >= NAMES_MAX;
            if !self.has_more {
                self.headers.push(name.to_ascii_lowercase());
            }
        }
    }

    /// A cookie was asked for.
    pub fn cookie(&mut self, name: &str) {
        if !self.cookies.iter().any(|known| known == name) {
            self.has_more |= self.cookies.len() >= NAMES_MAX;
            if !self.has_more {
                self.cookies.push(name.to_owned());
            }
        }
    }

    /// Another pick begins.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.cookies.clear();
        self.has_more = false;
    }
}
