//! How the process of a plugin ended, as an error.

use std::error::Error as StdError;
use std::fmt;

use super::process::Status;

/// A plugin's process ended: why a call that was under way has no answer.
///
/// It is in the [`source`](StdError::source) chain of the [`Error`](crate::Error), and says with which code or by which
/// signal the process ended, and its last lines on standard error.
///
/// ```
/// use tower_plugins::Error;
/// use tower_plugins::transport::subprocess::Exited;
///
/// fn tell(error: &Error) {
///     if let Some(exited) = Exited::find(error) {
///         eprintln!("code {:?}, signal {:?}", exited.code(), exited.signal());
///         for line in exited.stderr() {
///             eprintln!("  {line}");
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exited {
    status: Status,
    stderr: Vec<String>,
    /// Why it was killed from here.
    killed: Option<&'static str>,
}

impl Exited {
    pub(super) const fn new(
        status: Status,
        stderr: Vec<String>,
        killed: Option<&'static str>,
    ) -> Self {
        Self {
            status,
            stderr,
            killed,
        }
    }

    /// Nobody saw how.
    pub(in crate::transport) fn unknown() -> Self {
        Self::new(Status::default(), Vec::new(), None)
    }

    /// The code that it exited with; `None` if a signal ended it.
    #[must_use]
    pub const fn code(&self) -> Option<i32> {
        self.status.code
    }

    /// The number of the signal that ended it.
    #[must_use]
    pub const fn signal(&self) -> Option<i32> {
        self.status.signal
    }

    /// Whether the kernel killed it because it needed more memory than
    /// [`process.limits`](crate::config::ProcessLimits::memory) lets it have.
    #[must_use]
    pub const fn is_out_of_memory(&self) -> bool {
        self.status.is_out_of_memory
    }

    /// Its last lines on standard error, the oldest first: at most 20, each of at most 512 bytes, without control
    /// characters.
    #[must_use]
    pub fn stderr(&self) -> &[String] {
        &self.stderr
    }

    /// The one in the chain of `error`.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(exited) = error.downcast_ref() {
                return Some(exited);
            }
            next = error.source();
        }
        None
    }

    pub(super) const fn is_success(&self) -> bool {
        matches!(self.status.code, Some(0))
    }

    pub(super) const fn killed(&self) -> Option<&'static str> {
        self.killed
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.killed, self.status) {
            (Some(why), _) => write!(f, "the process was killed: {why}")?,
            (
                None,
                Status {
                    is_out_of_memory: true,
                    ..
                },
            ) => f.write_str(
                "the process was killed because it needed more memory than `process.limits` lets it have",
            )?,
            (
                None,
                Status {
                    code: Some(code), ..
                },
            ) => write!(f, "the process exited with code {code}")?,
            (
                None,
                Status {
                    signal: Some(signal),
                    ..
                },
            ) => write!(f, "the process was ended by signal {signal}")?,
            (None, _) => f.write_str("the process ended")?,
        }
        if self.stderr.is_empty() {
            return Ok(());
        }
        f.write_str("; last on its stderr: ")?;
        let last = self.stderr.len().saturating_sub(5);
        f.write_str(&self.stderr[last..].join(" | "))
    }
}

impl StdError for Exited {}
