//! The terminal of a process, from this program's side.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use rustix::io::Errno;
use rustix::termios::{tcgetwinsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::log::Logs;
use super::pty::{self, Pty};
use super::stdio::{Tail, drain};
use crate::transport::task::Task;

/// The terminal of one process of a plugin with `process.stdin: terminal`, from this program's side: see
/// [`Builder::terminal`](crate::Builder::terminal).
///
/// What is read of it is what a screen would be sent, each byte of it; what is written to it are keys. As with each terminal, unless the
/// plugin chooses otherwise (`stty raw -echo`), what is written is handed to the plugin by the line and comes back as an echo, a
/// newline of the plugin's comes as `\r\n`, byte 3 (Ctrl-C) is a SIGINT for its foreground, and byte 4 (Ctrl-D) the end of what it
/// reads.
///
/// The end is when the process has ended and all that it wrote was read; from then on a write fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). To shut down its writing side does nothing. What is not read is not lost: the plugin waits as it writes
/// to its terminal, as soon as the kernel holds some KiB. What is left when this is dropped, and what comes then, is logged.
///
/// A reference reads and writes too, as `&TcpStream` of the standard library does; there may be one reader and one writer at a time. A read or a write that
/// is dropped before it was ready has done nothing.
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tower_plugins::transport::subprocess::Terminal;
///
/// /// Answers what is asked.
/// async fn answer(mut terminal: Terminal, password: &str) -> std::io::Result<()> {
///     terminal.resize(50, 132)?;
///     let mut shown = Vec::new();
///     while terminal.read_buf(&mut shown).await? > 0 {
///         if shown.ends_with(b"assword: ") {
///             terminal.write_all(format!("{password}\n").as_bytes()).await?;
///             break;
///         }
///     }
///     Ok(())
/// }
/// # let _ = answer;
/// ```
pub struct Terminal {
    endpoint: Arc<str>,
    master: Arc<Master>,
    _dropped: DropGuard,
}

/// This program's end of a pseudo-terminal.
struct Master {
    fd: AsyncFd<OwnedFd>,
    /// Whether the process has ended: what is there is all there will be.
    is_over: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// Takes the terminals of a plugin's processes.
#[derive(Clone)]
pub(crate) struct OnTerminal(Arc<dyn Fn(Terminal) + Send + Sync>);

/// The terminal of one process until its end. Dropping it is the end.
pub(crate) struct Line {
    master: Arc<Master>,
    /// Open here too, so that the other end is there whatever the process closes.
    _slave: OwnedFd,
    /// There once it was handed over: whether the program has it, and what reads it otherwise.
    reads: Option<(CancellationToken, Task)>,
}

impl Terminal {
    /// The plugin's endpoint, one of its processes.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many rows and columns it has, 24 and 80 at first.
    ///
    /// # Errors
    /// What the system says.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = tcgetwinsize(self.master.fd.get_ref())?;
        Ok((size.ws_row, size.ws_col))
    }

    /// Has it have `rows` and `columns`. If that is a change, the plugin's foreground gets a SIGWINCH.
    ///
    /// # Errors
    /// What the system says.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        Ok(tcsetwinsize(
            self.master.fd.get_ref(),
            pty::size(rows, columns),
        )?)
    }
}

impl Master {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.reader.register(cx.waker());
        loop {
            // Asked first: what was written before the end is there to be read after it.
            let is_over = self.is_over();
            let read = |fd: &OwnedFd, buf: &mut ReadBuf<'_>| {
                rustix::io::read(fd, buf.initialize_unfilled()).map_err(io::Error::from)
            };
            let read = if is_over {
                read(self.fd.get_ref(), buf)
            } else {
                let mut ready = ready!(self.fd.poll_read_ready(cx))?;
                match ready.try_io(|fd| read(fd.get_ref(), buf)) {
                    Ok(read) => read,
                    Err(_) => continue,
                }
            };
            match read {
                Ok(read) => buf.advance(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_over && error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_end(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.register(cx.waker());
        loop {
            if self.is_over() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let mut ready = ready!(self.fd.poll_write_ready(cx))?;
            let write = |fd: &AsyncFd<OwnedFd>| Ok(rustix::io::write(fd.get_ref(), bytes)?);
            match ready.try_io(write) {
                Err(_) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) if is_end(&error) => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Ok(written) => return Poll::Ready(written),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }
}

/// Whether nobody has the other end open any more.
fn is_end(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

impl AsyncRead for &Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.master.poll_read(cx, buf)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.master.poll_read(cx, buf)
    }
}

impl AsyncWrite for &Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.master.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.master.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OnTerminal {
    pub(crate) fn new(take: impl Fn(Terminal) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }
}

impl Line {
    /// Within a tokio runtime.
    pub(super) fn new(pty: Pty) -> io::Result<Self> {
        #[allow(
            deprecated,
            reason = "what it is unsound for is a descriptor that changes, as an owned one does not; the other way is unsafe"
        )]
        let fd = AsyncFd::new(pty.master)?;
        let master = Master {
            fd,
            is_over: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        };
        Ok(Self {
            master: Arc::new(master),
            _slave: pty.slave,
            reads: None,
        })
    }

    /// Hands it to `take`, and logs what it does not read.
    pub(super) fn begin(
        &mut self,
        take: Option<&OnTerminal>,
        plugin: &Arc<str>,
        endpoint: &Arc<str>,
    ) {
        let dropped = CancellationToken::new();
        let terminal = |dropped: CancellationToken| Terminal {
            endpoint: Arc::clone(endpoint),
            master: Arc::clone(&self.master),
            _dropped: dropped.drop_guard(),
        };
        let own = terminal(CancellationToken::new());
        let logs = Logs::new(Arc::clone(plugin), Arc::clone(endpoint));
        let is_dropped = dropped.clone();
        let task = Task::spawn(async move {
            is_dropped.cancelled().await;
            drain(own, Tail::default(), logs).await;
        });
        let theirs = terminal(dropped.clone());
        self.reads = Some((dropped, task));
        let Some(take) = take else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| (take.0)(theirs))).is_err() {
            tracing::error!(
                plugin.name = &**plugin,
                server.address = &**endpoint,
                "what takes a plugin's terminal panicked"
            );
        }
    }

    /// The process has ended: waits until what it wrote is in the log, if it goes there.
    pub(super) async fn ended(mut self) {
        self.master.end();
        if let Some((dropped, task)) = self.reads.take()
            && dropped.is_cancelled()
        {
            task.ended().await;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.master.end();
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OnTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnTerminal")
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}
