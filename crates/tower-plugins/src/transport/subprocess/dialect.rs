//! What is spoken with a process: from its streams to what calls go through.

use std::ffi::OsString;
use std::future::Future;

use tokio::net::unix::pipe;
use tower_plugins_layers::BoxError;

/// What is spoken with a process. One value speaks with each process that is started in the place of the one before.
pub(in crate::transport) trait Dialect: Send + Sync + 'static {
    /// What calls go through.
    type Session: Send + Sync + 'static;

    /// What one start needs when the process is there.
    type Prepared: Send;

    /// Before each start: what the process is to be given.
    fn prepare(&self) -> Result<(Start, Self::Prepared), BoxError>;

    /// Makes a session of the streams of a process that was just started. It may take `process.start_timeout`; dropping it gives up. An
    /// [`Unfit`] says that another start is no use.
    fn begin(
        &self,
        prepared: Self::Prepared,
        streams: Streams,
    ) -> impl Future<Output = Result<Self::Session, BoxError>> + Send;

    /// Waits until nothing can be said to the process any more, though it may run, and says why. By default it never is so.
    fn broken(&self, session: &Self::Session) -> impl Future<Output = &'static str> + Send {
        let _ = session;
        std::future::pending()
    }

    /// Asks the process in its own words to end, and says whether it will. It may take half of `process.stop_timeout`.
    fn end(&self, session: &Self::Session) -> impl Future<Output = bool> + Send;
}

/// Why a process did not begin, if another one of the same program would not either.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(in crate::transport) struct Unfit(pub(in crate::transport) BoxError);

/// What a process is given at one start.
#[derive(Default)]
pub(in crate::transport) struct Start {
    /// Set last: after what is passed on, and what the spec says.
    pub(in crate::transport) env: Vec<(OsString, OsString)>,
    pub(in crate::transport) stdin: Stdin,
    /// Dropped when the process has ended, and nothing is left of its group.
    pub(in crate::transport) keep: Option<Box<dyn Send + Sync>>,
}

/// A process's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::transport) enum Stdin {
    /// Written from here.
    Piped,
    /// At its end from the beginning.
    #[default]
    Null,
}

/// The streams that a session is made of. Standard error is read already.
#[derive(Debug)]
pub(in crate::transport) struct Streams {
    /// There if it is piped.
    pub(in crate::transport) stdin: Option<pipe::Sender>,
    pub(in crate::transport) stdout: pipe::Receiver,
}
