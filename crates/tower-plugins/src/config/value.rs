//! The two value types that make a config `Eq` and safe to print.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A finite number that compares exactly, so that a spec can be `Eq`.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Number(f64);

impl Number {
    /// The number, unless it is infinite or not a number.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0, which keeps equal numbers equal in every sense.
        value.is_finite().then_some(Self(value + 0.0))
    }

    /// A constant, which is known to be finite.
    pub(super) const fn finite(value: f64) -> Self {
        assert!(value.is_finite());
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Eq for Number {}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is never printed, is compared in constant time, and is wiped when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.expose().as_bytes(), other.expose().as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
