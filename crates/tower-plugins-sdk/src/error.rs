//! Why a plugin does not serve.

use std::fmt;
use std::io;

/// Why a plugin does not serve, or serves no more.
///
/// It is written for whoever started the program. Shown with `{:?}` it is the same text as with `{}`, so that a `main` that returns it
/// prints that, and exits with the code 1.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program was started by hand, and was not told where to listen.
    #[error("{0}")]
    ByHand(String),
    /// What it was told on the command line, or in the environment, makes no sense.
    #[error("{0}; --help says what there is")]
    Usage(String),
    /// It cannot listen.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Where.
        at: String,
        /// The system's.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot speak TLS: {0}")]
    Tls(String),
    /// What describes the plugin's services, for reflection, cannot be read.
    #[error("what was given to `descriptors` is no encoded google.protobuf.FileDescriptorSet: {0}")]
    Descriptors(String),
    /// The host cannot be told, or does not come.
    #[error("cannot serve this plugin's host: {0}")]
    Host(String),
    /// The system refuses something that is no socket.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// The system's.
        source: io::Error,
    },
}

/// As it is shown to people.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn listen(at: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let at = at.to_string();
        move |source| Self::Listen { at, source }
    }

    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
