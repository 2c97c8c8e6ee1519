//! Opening an HTTP/2 connection.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::client::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, timeout_at};
use tower_plugins_layers::BoxError;

use super::connect::{Task, too_late};
use super::cut::{Cut, CutStream};
use super::error::hinted;
use super::h2::{Conn, Sender, lock};
use super::h2_task::{Beside, Together};
use super::pool::Endpoint;

// A large body is not to wait for window updates on a network of some delay.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;

/// Opens a connection, in at most `connection_timeout`.
///
/// It is open when the peer has said how many streams it takes, which it does first of all (RFC 9113,
/// section 3.4): calls before that might be more than it takes.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Conn, BoxError> {
    let limit = endpoint.spec.connection_timeout;
    let begun = Instant::now();
    let stream = endpoint.target.connect(limit).await?;
    let cut = Arc::<Cut>::default();
    let notes = Arc::clone(&stream.notes);
    let beside = Beside::default();
    let (sender, connection) = http2::Builder::new(beside.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(endpoint.spec.max_response_head)
        .handshake(CutStream {
            stream,
            cut: Arc::clone(&cut),
        })
        .await
        .map_err(|error| hinted(notes.hint(), error))?;
    let mut connection = Together::new(connection, beside);
    let greeted = async {
        tokio::select! {
            () = cut.greeted() => Ok(()),
            ended = poll_fn(|cx| connection.poll(cx)) => Err(ended),
        }
    };
    let greeted = match begun.checked_add(limit) {
        Some(end) => timeout_at(end, greeted).await,
        None => Ok(greeted.await),
    };
    match greeted {
        Ok(Ok(())) => {}
        Ok(Err(ended)) => {
            if let Some(why) = notes.refusal() {
                return Err(why.into());
            }
            ended.map_err(|error| hinted(notes.hint(), error))?;
            return Err("it closed the connection without a word of HTTP/2".into());
        }
        Err(_) => {
            cut.make();
            return Err(too_late(limit).into());
        }
    }
    let name = Arc::clone(&endpoint.name);
    let streams = Arc::new(AtomicUsize::new(connection.max_streams()));
    let told = Arc::clone(&streams);
    let sender: Sender = Arc::new(Mutex::new(Some(sender)));
    let senders = Arc::clone(&sender);
    let driver = Task::spawn(async move {
        let ended = poll_fn(|cx| {
            // It is polled for each request, and the peer may have changed its mind since the last one.
            told.store(connection.max_streams(), Ordering::Relaxed);
            connection.poll(cx)
        });
        let ended = ended.await;
        drop(lock(&senders).take());
        if let Err(error) = ended {
            tracing::debug!(endpoint = &*name, %error, "connection ended");
        }
        // What it spawned goes on to its own end: responses that have begun.
        poll_fn(|cx| connection.poll_rest(cx)).await;
    });
    let now = Instant::now();
    Ok(Conn {
        sender,
        streams,
        calls: AtomicUsize::new(0),
        idle_since: Mutex::new(now),
        expires: endpoint.expires(now),
        notes,
        _driver: driver,
        cut,
    })
}
