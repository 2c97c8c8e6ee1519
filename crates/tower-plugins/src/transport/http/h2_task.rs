//! All that hyper does for one connection of HTTP/2, in one task.
//!
//! hyper takes requests in one task, reads and writes in another, and waits for each response in one more. On a runtime of
//! several threads they wake each other across these: a request then goes out in several writes, by several threads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http2::Connection;
use hyper::rt::Executor;

use super::cut::CutStream;
use super::h2::lock;
use crate::Body;

type Spawned = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes what hyper spawns for a connection, to be run beside it.
#[derive(Clone, Default)]
pub(super) struct Beside(Arc<Mutex<Vec<Spawned>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, spawned: F) {
        lock(&self.0).push(Box::pin(spawned));
    }
}

/// A connection, and what was spawned for it.
pub(super) struct Together {
    connection: Connection<CutStream, Body, Beside>,
    beside: Beside,
    running: FuturesUnordered<Spawned>,
}

impl Together {
    pub(super) fn new(connection: Connection<CutStream, Body, Beside>, beside: Beside) -> Self {
        Self {
            connection,
            beside,
            running: FuturesUnordered::new(),
        }
    }

    /// How many calls at a time the peer takes.
    pub(super) fn max_streams(&self) -> usize {
        self.connection.current_max_send_streams()
    }

    /// Until no further request is taken: requests first, so that what they write goes out at once.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let taken = Pin::new(&mut self.connection).poll(cx);
        let _ = self.poll_rest(cx);
        taken
    }

    /// Until all that was spawned has ended.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // What is running may spawn more.
            self.running.extend(lock(&self.beside.0).drain(..));
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if lock(&self.beside.0).is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl fmt::Debug for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").finish_non_exhaustive()
    }
}
