//! Texts of others in messages of ours.

use std::fmt;

/// The most characters of another's text that a message has.
const MOST: usize = 120;

/// A text that somebody else wrote, quoted, its control characters escaped, and cut where it is long.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MOST) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?} and more", &self.0[..end]),
        }
    }
}
