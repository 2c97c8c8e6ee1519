//! What the program writes to its standard output, into the buffer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stdout, stdout};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tower_plugins_proto::go_plugin::grpc::stdio_data::Channel;

use super::buffer::{Buffer, PIECE};

/// Who still has the pipe at the end, as a process that the plugin started, is not waited for longer.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The standard output goes into a pipe, which a thread reads into a buffer, until [`end`](Self::end).
///
/// It is the descriptor that is exchanged, so that nothing that prints, in whatever language, has to know. The host's own pipe stays
/// open: some take its end for that of the plugin.
#[derive(Debug)]
pub(super) struct Redirect {
    /// There until what is printed goes there again.
    original: Option<OwnedFd>,
    ended: oneshot::Receiver<()>,
}

impl Redirect {
    pub(super) fn begin(buffer: Arc<Buffer>) -> io::Result<Self> {
        // Not for children: it would stay open with them.
        let original = fcntl_dupfd_cloexec(stdout(), 3)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("plugin-stdout".to_owned())
            .spawn(move || {
                copy(&mut File::from(reader), &buffer);
                end.send(()).ok();
            })?;
        // Nothing that was written before goes another way.
        io::stdout().flush()?;
        dup2_stdout(&writer)?;
        let original = Some(original);
        Ok(Self { original, ended })
    }

    /// What is printed from now on goes where it went before; waits until what was is in the buffer.
    pub(super) async fn end(mut self) {
        let (flush, flushed) = oneshot::channel();
        // Whoever prints has the lock meanwhile, and what this thread sends may be what that waits for.
        let flusher = std::thread::Builder::new()
            .name("plugin-stdout-end".to_owned())
            .spawn(move || {
                // As one cannot print it, there is nobody to tell.
                io::stdout().flush().ok();
                flush.send(()).ok();
            });
        if flusher.is_ok() {
            drop(timeout(END_TIMEOUT, flushed).await);
        }
        self.restore();
        drop(timeout(END_TIMEOUT, &mut self.ended).await);
    }

    fn restore(&mut self) {
        if let Some(original) = self.original.take() {
            dup2_stdout(&original).ok();
        }
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.restore();
    }
}

fn copy(reader: &mut File, buffer: &Buffer) {
    let mut piece = vec![0; PIECE];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => buffer.print(Channel::Stdout, &piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
