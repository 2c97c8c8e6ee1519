//! A peer that speaks HTTP/2 (RFC 9113) frame by frame, so that a test says when it turns what away.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower_plugins::config::Address;

use super::server::{tcp, within};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Does {
    Answer,
    /// It has no answer, ever.
    Nothing,
    Refuse,
    /// The peer goes away, and does not take it, nor any after it.
    Leave,
    /// The same, once the whole request has come.
    LeaveAtItsEnd,
}

pub(super) struct Peer {
    pub(super) address: Address,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// At most so many at a time on a connection.
    streams: u32,
    plan: Box<dyn Fn(usize) -> Does + Send + Sync>,
    accepted: AtomicUsize,
    most_streams: AtomicUsize,
    answered: AtomicUsize,
    seen: watch::Sender<usize>,
}

impl Peer {
    /// One that does with its requests, counted from nought, what `plan` says.
    pub(super) async fn start(
        streams: u32,
        plan: impl Fn(usize) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp(listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            streams,
            plan: Box::new(plan),
            accepted: AtomicUsize::default(),
            most_streams: AtomicUsize::default(),
            answered: AtomicUsize::default(),
            seen: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                serving.accepted.fetch_add(1, Ordering::SeqCst);
                let connection = Connection::new(stream, Arc::clone(&serving));
                tasks.spawn(connection.serve());
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The most requests that were open at a time on a connection.
    pub(super) fn most_streams(&self) -> usize {
        self.shared.most_streams.load(Ordering::SeqCst)
    }

    pub(super) fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    pub(super) async fn until_seen(&self, count: usize) {
        let mut seen = self.shared.seen.subscribe();
        within(seen.wait_for(|seen| *seen >= count)).await.unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
    open: HashSet<u32>,
    leaves_at: Option<u32>,
    /// The last that it takes.
    last: Option<u32>,
}

impl Connection {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            shared,
            open: HashSet::new(),
            leaves_at: None,
            last: None,
        }
    }

    async fn serve(mut self) -> io::Result<()> {
        self.stream.read_exact(&mut [0; 24]).await?;
        let mut settings = vec![0, 3];
        settings.extend(self.shared.streams.to_be_bytes());
        self.send(SETTINGS, 0, 0, &settings).await?;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await?;
            self.take(kind, flags, u32::from_be_bytes(id), &payload)
                .await?;
        }
    }

    async fn take(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let answer = if kind == PING { payload } else { &[] };
                self.send(kind, ACK, 0, answer).await?;
            }
            DATA if !payload.is_empty() => {
                let taken = u32::try_from(payload.len()).unwrap().to_be_bytes();
                self.send(WINDOW_UPDATE, 0, 0, &taken).await?;
                self.send(WINDOW_UPDATE, 0, id, &taken).await?;
            }
            HEADERS => self.request(id).await?,
            _ => {}
        }
        if (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
            if self.leaves_at == Some(id) {
                self.leave(id).await?;
            } else if self.open.remove(&id) && self.last.is_none_or(|last| id <= last) {
                self.shared.answered.fetch_add(1, Ordering::SeqCst);
                // `:status: 200`
                self.send(HEADERS, END_HEADERS | END_STREAM, id, &[0x88])
                    .await?;
            }
        }
        Ok(())
    }

    async fn request(&mut self, id: u32) -> io::Result<()> {
        if self.last.is_some_and(|last| id > last) {
            return Ok(());
        }
        let mut number = 0;
        self.shared.seen.send_modify(|seen| {
            number = *seen;
            *seen += 1;
        });
        match (self.shared.plan)(number) {
            Does::LeaveAtItsEnd if self.leaves_at.is_none() => self.leaves_at = Some(id),
            Does::Answer | Does::LeaveAtItsEnd => {
                self.open.insert(id);
                let open = self.open.len();
                self.shared.most_streams.fetch_max(open, Ordering::SeqCst);
            }
            Does::Nothing => {}
            Does::Refuse => self.send(RST_STREAM, 0, id, &7_u32.to_be_bytes()).await?,
            Does::Leave => self.leave(id).await?,
        }
        Ok(())
    }

    /// Goes away, and takes none from `id` on.
    async fn leave(&mut self, id: u32) -> io::Result<()> {
        let last = id.saturating_sub(2);
        self.last = Some(last);
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        self.send(GOAWAY, 0, 0, &payload).await
    }

    async fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(id.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await
    }
}
