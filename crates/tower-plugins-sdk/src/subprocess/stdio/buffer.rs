//! What was printed, until the host reads it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_plugins_proto::go_plugin::grpc::{StdioData, stdio_data::Channel};

/// What is kept for a host that does not read, in bytes.
const KEPT: usize = 1 << 20;

/// And for one that reads: who prints on the thread that sends it holds up both.
const KEPT_TO_READ: usize = 16 << 20;

/// The longest piece, in bytes.
pub(super) const PIECE: usize = 16 << 10;

/// How long who prints waits for a host that does not read.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was printed, until the host reads it: all of it, in order, while the host reads.
///
/// Who prints more than is kept waits. Where the host takes nothing for as long as [`PATIENCE`], what is printed is thrown away, without
/// waiting again, until it reads on.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    room: Condvar,
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<StdioData>,
    /// The bytes of all pieces.
    kept: usize,
    /// The host took nothing in time.
    stalled: bool,
    /// Which reader is the newest.
    reader: u64,
    /// Whether that is still there.
    reads: bool,
    waker: Option<Waker>,
    closed: bool,
    /// Bytes that were thrown away.
    lost: u64,
}

impl Buffer {
    /// Keeps `bytes` for the host. It blocks while there is no room.
    pub(super) fn print(&self, channel: Channel, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.keep(channel, piece);
        }
    }

    fn keep(&self, channel: Channel, piece: &[u8]) {
        let state = self.state();
        let is_full =
            |state: &mut State| !state.stalled && !state.closed && !state.has_room(piece.len());
        let (mut state, waited) = self
            .room
            .wait_timeout_while(state, PATIENCE, is_full)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            state.stalled = true;
        }
        if state.closed || !state.has_room(piece.len()) {
            state.lost += piece.len() as u64;
            return;
        }
        state.kept += piece.len();
        state.pieces.push_back(StdioData {
            channel: channel.into(),
            data: Bytes::copy_from_slice(piece),
        });
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A new reader, which ends the one before.
    pub(super) fn reader(&self) -> u64 {
        let mut state = self.state();
        state.reader += 1;
        state.reads = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        // There is more of it now.
        self.room.notify_all();
        state.reader
    }

    /// `reader` is gone.
    pub(super) fn leave(&self, reader: u64) {
        let mut state = self.state();
        if state.reader == reader {
            state.reads = false;
            self.taken.notify_waiters();
        }
    }

    /// What comes next for `reader`; `None` at the end, and when there is a newer one.
    pub(super) fn poll(&self, reader: u64, context: &mut Context<'_>) -> Poll<Option<StdioData>> {
        let mut state = self.state();
        if state.reader != reader {
            return Poll::Ready(None);
        }
        let Some(piece) = state.pieces.pop_front() else {
            if state.closed {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        state.kept -= piece.data.len();
        state.stalled = false;
        let lost = std::mem::take(&mut state.lost);
        drop(state);
        if lost > 0 {
            // The log may be printed here, too: it takes the lock, and the room that there is now.
            tracing::warn!(
                bytes = lost,
                "what was printed is lost: the host did not read it in time"
            );
        }
        self.taken.notify_waiters();
        self.room.notify_all();
        Poll::Ready(Some(piece))
    }

    /// Nobody who prints waits any more for a host that does not read.
    pub(super) fn hurry(&self) {
        let mut state = self.state();
        state.stalled |= !state.reads;
        drop(state);
        self.room.notify_all();
    }

    /// Nothing more is printed; what is kept is still read.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        self.room.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until all that was printed is read, or nobody reads any of it for `pause`.
    pub(super) async fn read(&self, pause: Duration) {
        loop {
            let taken = self.taken.notified();
            let is_over = |state: &State| state.pieces.is_empty() || !state.reads;
            if is_over(&self.state()) || timeout(pause, taken).await.is_err() {
                return;
            }
        }
    }

    /// What is locked is never left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, length: usize) -> bool {
        let most = if self.reads { KEPT_TO_READ } else { KEPT };
        self.kept + length <= most
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::thread;

    use super::*;

    async fn next(buffer: &Buffer, reader: u64) -> Option<StdioData> {
        poll_fn(|context| buffer.poll(reader, context)).await
    }

    #[tokio::test]
    async fn ten_mebibytes_arrive_byte_by_byte_while_the_host_reads() {
        let buffer = Arc::new(Buffer::default());
        let bytes: Vec<u8> = (0..10_u32 << 20).map(|n| (n % 251) as u8).collect();
        let printer = thread::spawn({
            let (buffer, bytes) = (buffer.clone(), bytes.clone());
            move || {
                buffer.print(Channel::Stdout, &bytes);
                buffer.close();
            }
        });
        let reader = buffer.reader();
        let mut read = Vec::new();
        while let Some(piece) = next(&buffer, reader).await {
            assert_eq!(piece.channel(), Channel::Stdout);
            assert!(piece.data.len() <= PIECE);
            read.extend(piece.data);
        }
        printer.join().unwrap();
        assert!(read == bytes);
    }

    #[tokio::test]
    async fn a_host_that_does_not_read_holds_nobody_up_for_ever() {
        let buffer = Arc::new(Buffer::default());
        let printing = buffer.clone();
        let printer = thread::spawn(move || {
            for _ in 0..4 {
                printing.print(Channel::Stderr, &vec![b'a'; KEPT]);
            }
        });
        printer.join().unwrap();
        // What came first is there, and after it what is printed when it reads on.
        let reader = buffer.reader();
        for _ in 0..KEPT / PIECE {
            assert_eq!(next(&buffer, reader).await.unwrap().data.len(), PIECE);
        }
        buffer.print(Channel::Stdout, b"on");
        assert_eq!(next(&buffer, reader).await.unwrap().data, "on");
    }

    #[tokio::test]
    async fn of_two_readers_the_newer_reads_on() {
        let buffer = Buffer::default();
        buffer.print(Channel::Stdout, b"one");
        buffer.print(Channel::Stdout, b"two");
        let first = buffer.reader();
        assert_eq!(next(&buffer, first).await.unwrap().data, "one");
        let second = buffer.reader();
        assert_eq!(next(&buffer, first).await, None);
        assert_eq!(next(&buffer, second).await.unwrap().data, "two");
        buffer.close();
        buffer.print(Channel::Stdout, b"late");
        assert_eq!(next(&buffer, second).await, None);
    }

    /// A log that goes to the host, too.
    struct Log(Arc<Buffer>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
            tracing::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            self.0.print(Channel::Stderr, b"some is lost");
        }
        fn enter(&self, _: &tracing::Id) {}
        fn exit(&self, _: &tracing::Id) {}
    }

    #[test]
    fn a_log_that_is_printed_for_the_host_says_what_is_lost() {
        let buffer = Arc::new(Buffer::default());
        buffer.hurry();
        buffer.print(Channel::Stdout, &vec![b'a'; 2 * KEPT]);
        let (read, is_read) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let log = Log(buffer.clone());
            tracing::subscriber::with_default(log, || {
                let reader = buffer.reader();
                let mut context = Context::from_waker(Waker::noop());
                while let Poll::Ready(Some(piece)) = buffer.poll(reader, &mut context) {
                    read.send(piece.data).unwrap();
                }
            });
        });
        let mut last = Bytes::new();
        while let Ok(piece) = is_read.recv_timeout(Duration::from_secs(30)) {
            last = piece;
        }
        assert_eq!(last, "some is lost");
    }
}
