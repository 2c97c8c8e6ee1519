use std::fmt;
use std::str::FromStr;

/// How much it matters that a call goes through: what is shed first when not all can.
///
/// The four are those of the *criticality* of the book Site Reliability Engineering (Google, chapter 21),
/// where the second is the default too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Priority {
    /// Users notice when it fails, at once and badly.
    Critical,
    /// The usual one.
    #[default]
    Normal,
    /// Somebody will try again, and it may fail for minutes.
    Sheddable,
    /// A batch that may fail for hours.
    Bulk,
}

impl Priority {
    /// All, the most important first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::Normal, Self::Sheddable, Self::Bulk];

    /// The word, as it stands in headers and in text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Sheddable => "sheddable",
            Self::Bulk => "bulk",
        }
    }

    pub(super) const fn class(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no priority: it is `critical`, `normal`, `sheddable` or `bulk`")]
pub struct NoPriority;

impl FromStr for Priority {
    type Err = NoPriority;

    /// Reads the word, in whatever case.
    fn from_str(text: &str) -> Result<Self, NoPriority> {
        let named = |priority: &Self| priority.as_str().eq_ignore_ascii_case(text.trim());
        Self::ALL.into_iter().find(named).ok_or(NoPriority)
    }
}
