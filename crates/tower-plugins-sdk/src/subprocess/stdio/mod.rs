//! What the plugin prints, for its host.

use std::fmt;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(unix)]
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tower_plugins_proto::go_plugin::grpc::grpc_stdio_server::GrpcStdio;
use tower_plugins_proto::go_plugin::grpc::{StdioData, stdio_data::Channel};

mod buffer;
#[cfg(unix)]
mod redirect;

use self::buffer::Buffer;

/// When the plugin ends, what was printed is sent until its host reads none of it for this long,
const READ_PAUSE: Duration = Duration::from_millis(500);

/// or for this long altogether.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What the plugin prints, for its host: what go-plugin calls synced stdout and stderr. It is cheap to clone.
///
/// As a host's process, on Unix, all that is written to the standard output comes out there by itself, `println!` included; elsewhere
/// [`stdout`](Self::stdout) is for that. The standard error does not: it stays the plugin's log, which a host reads line by line, as that is
/// where a panic must be found. [`stderr`](Self::stderr) is the host's synced stderr.
///
/// A host that does not read has 1 MiB kept for it, and one that reads 16 MiB. Who prints more waits until it reads, for 5 s; then what is
/// printed is thrown away until it does. So a handler that prints more than 16 MiB at once does it by `spawn_blocking`: on a thread of the
/// runtime it may hold up what sends it. Without a host both go to the program's own standard output and error.
///
/// ```
/// use std::io::Write;
/// use tower_plugins_sdk::Plugin;
///
/// let plugin = Plugin::new("greeter", "1.0.0");
/// let mut stderr = plugin.stdio().stderr();
/// writeln!(stderr, "a line on the host's stderr")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Stdio {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether there is a host.
    hosted: AtomicBool,
    buffer: Arc<Buffer>,
    #[cfg(unix)]
    redirect: Mutex<Option<redirect::Redirect>>,
}

/// Writes to the host's stdout, or stderr.
#[derive(Debug, Clone)]
pub struct Printer {
    stdio: Stdio,
    channel: Channel,
}

impl Stdio {
    /// The host's stdout.
    #[must_use]
    pub fn stdout(&self) -> Printer {
        self.printer(Channel::Stdout)
    }

    /// The host's stderr.
    #[must_use]
    pub fn stderr(&self) -> Printer {
        self.printer(Channel::Stderr)
    }

    fn printer(&self, channel: Channel) -> Printer {
        let stdio = self.clone();
        Printer { stdio, channel }
    }

    /// What the host reads.
    pub(super) fn stream(&self) -> Stream {
        Stream(self.shared.buffer.clone())
    }

    /// There is a host; what is printed is for it, until the guard is dropped.
    pub(super) fn begin(&self) -> Printed {
        self.shared.hosted.store(true, Ordering::Release);
        Printed(self.clone())
    }

    /// What is written to the standard output is for the host, too.
    #[cfg(unix)]
    pub(super) fn redirect(&self) -> io::Result<()> {
        let redirect = redirect::Redirect::begin(self.shared.buffer.clone())?;
        *self.redirected() = Some(redirect);
        Ok(())
    }

    /// Nothing more is printed for the host; the stream ends when what was is read.
    pub(super) async fn end(&self) {
        self.shared.buffer.hurry();
        #[cfg(unix)]
        {
            let redirect = self.redirected().take();
            if let Some(redirect) = redirect {
                redirect.end().await;
            }
        }
        self.stop();
        let read = self.shared.buffer.read(READ_PAUSE);
        timeout(READ_TIMEOUT, read).await.ok();
    }

    /// What is printed goes where it went before.
    fn stop(&self) {
        #[cfg(unix)]
        drop(self.redirected().take());
        self.shared.hosted.store(false, Ordering::Release);
        self.shared.buffer.close();
    }

    #[cfg(unix)]
    fn redirected(&self) -> std::sync::MutexGuard<'_, Option<redirect::Redirect>> {
        let redirect = self.shared.redirect.lock();
        redirect.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is printed is for the host, for as long as this is there.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub(super) struct Printed(Stdio);

impl Drop for Printed {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shared = &self.stdio.shared;
        if shared.hosted.load(Ordering::Acquire) {
            shared.buffer.print(self.channel, bytes);
            return Ok(bytes.len());
        }
        match self.channel {
            Channel::Stderr => io::stderr().write(bytes),
            Channel::Stdout | Channel::Invalid => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio").finish_non_exhaustive()
    }
}

/// The host's view: one stream. A newer one ends the one before, as a host that attached anew need not wait for what is left of the other.
#[derive(Debug)]
pub(super) struct Stream(Arc<Buffer>);

#[tonic::async_trait]
impl GrpcStdio for Stream {
    type StreamStdioStream = Pieces;

    async fn stream_stdio(&self, _: Request<()>) -> Result<Response<Pieces>, Status> {
        let buffer = self.0.clone();
        let reader = buffer.reader();
        Ok(Response::new(Pieces { buffer, reader }))
    }
}

/// What the host reads.
#[derive(Debug)]
pub(super) struct Pieces {
    buffer: Arc<Buffer>,
    reader: u64,
}

impl tonic::codegen::tokio_stream::Stream for Pieces {
    type Item = Result<StdioData, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.buffer.poll(self.reader, context);
        next.map(|data| data.map(Ok))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.buffer.leave(self.reader);
    }
}
