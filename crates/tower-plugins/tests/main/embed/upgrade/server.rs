//! A server of bytes: it answers each request, and echoes on a connection that it has upgraded.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower_plugins::Plugins;
use tower_plugins::config::Config;

use crate::support::{config, within};

/// Ends with this value.
pub(super) struct Raw {
    address: String,
    seen: Arc<Seen>,
    open: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    last_head: Mutex<String>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (count, open) = watch::channel(0);
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                let (seen, count) = (Arc::clone(&shared), count.clone());
                connections.spawn(async move {
                    count.send_modify(|open| *open += 1);
                    let _ = serve(stream, &seen).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            address,
            seen,
            open,
            task,
        }
    }

    /// A config with the plugin `p` that is this server.
    pub(super) fn config(&self, keys: &str) -> Config {
        let address = &self.address;
        config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: 'http://{address}', {keys} }} }}"
        ))
    }

    pub(super) async fn plugins(&self, keys: &str) -> Plugins {
        Plugins::builder().start(self.config(keys)).await.unwrap()
    }

    /// The connections it was asked for.
    pub(super) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// The head of the last request, in small letters.
    pub(super) fn last_head(&self) -> String {
        self.seen.last_head.lock().unwrap().clone()
    }

    /// Waits until `count` connections are open.
    pub(super) async fn until_open(&self, count: usize) {
        let mut open = self.open.clone();
        within(open.wait_for(|open| *open == count)).await.unwrap();
    }
}

/// The head that comes next, in small letters.
pub(super) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).to_lowercase())
}

async fn serve(mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
        connection: Upgrade\r\nupgrade: echo\r\n\r\nearly";
    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    loop {
        let head = head(&mut stream).await?;
        seen.last_head.lock().unwrap().clone_from(&head);
        if head.contains("upgrade: echo") || head.starts_with("get /switch") {
            break;
        }
        stream.write_all(PLAIN).await?;
    }
    stream.write_all(SWITCH).await?;
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 || buffer.starts_with(b"quit") {
            return Ok(());
        }
        stream.write_all(&buffer[..read]).await?;
    }
}
