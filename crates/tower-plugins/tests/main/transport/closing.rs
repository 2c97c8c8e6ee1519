//! Servers that close connections without a word, under load: after some requests, or after a short time without one.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_plugins::config::{Address, Protocol};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins};
use tower_plugins_layers::{BoxError, Reason, Unsent};

use crate::support::config;

use super::server::{chain, post, read, spec, tcp, unix, within};

const CALLERS: usize = 8;
const CALLS: usize = 250;

/// When a server closes a connection.
#[derive(Clone, Copy, Debug)]
enum Closes {
    After(usize),
    Idle(Duration),
}

/// What a server got to see, by the paths of the requests.
#[derive(Default)]
struct Seen {
    answered: Vec<String>,
    /// They came, or began to, when the connection was closed already.
    crossed: HashSet<String>,
}

trait Socket: Read + Write + Send + 'static {
    fn wait_at_most(&self, time: Option<Duration>);
    fn close(&self);
}

macro_rules! socket {
    ($type:ty, $how:expr) => {
        impl Socket for $type {
            fn wait_at_most(&self, time: Option<Duration>) {
                self.set_read_timeout(time).unwrap();
            }

            fn close(&self) {
                // The peer may have gone.
                let _ = self.shutdown($how);
            }
        }
    };
}

// Who reads on, after it has said its last, sees what crossed that.
socket!(TcpStream, Shutdown::Write);
// From then on nothing is taken in any more: what is there was written before.
socket!(UnixStream, Shutdown::Both);

/// The path of the request that `bytes` begin with.
fn path(bytes: &[u8]) -> String {
    let line = String::from_utf8_lossy(bytes);
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// The length of the request that `bytes` begin with, if its head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let body = text[..head].lines().find_map(|line| {
        let value = line.strip_prefix("content-length: ")?;
        value.parse::<usize>().ok()
    });
    Some(head + body.unwrap_or_default())
}

fn serve(mut socket: impl Socket, closes: Closes, seen: &Mutex<Seen>) {
    let mut part = [0; 4096];
    let mut served = 0;
    loop {
        let mut request = Vec::new();
        // For the first request servers wait longer.
        if let Closes::Idle(time) = closes
            && served > 0
        {
            socket.wait_at_most(Some(time));
        }
        while length(&request).is_none_or(|length| request.len() < length) {
            match socket.read(&mut part) {
                Ok(0) => return,
                Ok(read) => request.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
            socket.wait_at_most(None);
        }
        if request.is_empty() {
            break;
        }
        seen.lock().unwrap().answered.push(path(&request));
        let answer = b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
        if socket.write_all(answer).is_err() {
            return;
        }
        served += 1;
        if matches!(closes, Closes::After(most) if served == most) {
            break;
        }
    }
    socket.close();
    socket.wait_at_most(None);
    let mut crossed = Vec::new();
    let _ = socket.read_to_end(&mut crossed);
    if !crossed.is_empty() {
        seen.lock().unwrap().crossed.insert(path(&crossed));
    }
}

/// A server, and what it got to see. Its threads end with the connections to it.
fn start(
    over_unix: bool,
    closes: Closes,
    directory: &tempfile::TempDir,
) -> (Address, Arc<Mutex<Seen>>) {
    let seen = Arc::<Mutex<Seen>>::default();
    let shared = Arc::clone(&seen);
    let spawn = move |socket: Box<dyn FnOnce(Arc<Mutex<Seen>>) + Send>| {
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || socket(seen));
    };
    if over_unix {
        let path = directory.path().join(format!("{closes:?}"));
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                spawn(Box::new(move |seen| serve(socket, closes, &seen)));
            }
        });
        return (unix(path), seen);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            socket.set_nodelay(true).unwrap();
            spawn(Box::new(move |seen| serve(socket, closes, &seen)));
        }
    });
    (address, seen)
}

/// The request `call` of a caller, of which some have a body of unknown length.
fn request(method: &Method, path: &str, call: usize) -> Request<Body> {
    let body = match call % 2 {
        _ if method == Method::GET => Body::empty(),
        0 => Body::from("whole"),
        _ => Body::new(http_body_util::Full::new(Bytes::from("part"))),
    };
    let request = Request::builder().method(method).uri(path);
    request.body(body).unwrap()
}

/// Calls from several tasks at once; the paths of those that failed, and why.
async fn load<E, F>(
    call: impl Fn(Request<Body>) -> F + Clone + Send + 'static,
    method: Method,
    closes: Closes,
) -> Vec<(String, E)>
where
    E: Send + 'static,
    F: Future<Output = Result<Response<Body>, E>> + Send,
{
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (call, method) = (call.clone(), method.clone());
        callers.spawn(async move {
            let mut failed = Vec::new();
            for number in 0..CALLS {
                let path = format!("/{caller}/{number}");
                match within(call(request(&method, &path, number))).await {
                    Ok(response) => assert_eq!(read(response).await, "ok"),
                    Err(error) => failed.push((path, error)),
                }
                if let Closes::Idle(time) = closes {
                    // About as long as the server waits.
                    tokio::time::sleep(time * (80 + number as u32 % 40) / 100).await;
                }
            }
            failed
        });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

/// Asserts that of what `failed` something was written, and that all else was answered, once.
async fn check(failed: Vec<(String, BoxError)>, seen: &Mutex<Seen>, of: &str) {
    let count = failed.len();
    for (path, error) in failed {
        let why = format!("{of}: {}", chain(&error));
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost), "{why}");
        // The thread notes it when it has read that to its end.
        let crossed = async {
            while !seen.lock().unwrap().crossed.contains(&path) {
                tokio::task::yield_now().await;
            }
        };
        let crossed = tokio::time::timeout(Duration::from_secs(5), crossed).await;
        assert!(crossed.is_ok(), "the server had nothing of {path}: {why}");
        assert!(Unsent::<Body>::recover(error).is_err(), "{why}");
    }
    let seen = seen.lock().unwrap();
    let distinct: HashSet<_> = seen.answered.iter().collect();
    assert_eq!(distinct.len(), seen.answered.len(), "{of}: made twice");
    assert_eq!(distinct.len() + count, CALLERS * CALLS, "{of}");
}

const EVERY: [Closes; 3] = [
    Closes::After(1),
    Closes::After(3),
    Closes::Idle(Duration::from_millis(4)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_that_a_closing_server_had_nothing_of_and_none_is_made_twice() {
    for closes in EVERY {
        for over_unix in [false, true] {
            for method in [Method::GET, Method::POST] {
                let directory = tempfile::tempdir().unwrap();
                let (address, seen) = start(over_unix, closes, &directory);
                let http = Arc::new(Http::new(&address, &spec(Protocol::Http1)).unwrap());
                let call = move |request| {
                    let http = Arc::clone(&http);
                    async move { http.call(request).await }
                };
                let failed = load(call, method.clone(), closes).await;
                check(failed, &seen, &format!("{method} {closes:?} {address}")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_be_repeated_does_not_see_that_a_server_closes() {
    for closes in EVERY {
        let directory = tempfile::tempdir().unwrap();
        let (address, _) = start(false, closes, &directory);
        let yaml = format!(
            "plugins: {{ p: {{ transport: http, endpoint: '{address}', circuit_breaker: off, retry: {{ max_retries: 9, budget_min_per_second: 1000 }} }} }}"
        );
        let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
        let plugin = plugins.plugin("p");
        let call = move |request| plugin.clone().oneshot(request);
        let failed = load(call, Method::GET, closes).await;
        assert!(failed.is_empty(), "{closes:?}: {failed:?}");
    }
}

/// A body during whose reading the peer closes: hyper has asked the socket by then, and has written nothing.
struct Fatal {
    peer: Arc<Mutex<Option<Box<dyn Socket>>>>,
    data: Option<Bytes>,
}

impl http_body::Body for Fatal {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        drop(self.peer.lock().unwrap().take());
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }
}

/// Answers one request of each connection, and leaves it open, and a byte of it unread: TCP closes it by a reset then.
fn answer_one(mut socket: Box<dyn Socket>, open: &Mutex<Option<Box<dyn Socket>>>) {
    let mut request = Vec::new();
    while length(&request).is_none_or(|length| request.len() + 1 < length) {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let length = request.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&request).unwrap();
    *open.lock().unwrap() = Some(socket);
}

#[tokio::test]
async fn a_peer_that_closes_when_a_request_is_about_to_be_written_costs_no_call() {
    for over_unix in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let open = Arc::<Mutex<Option<Box<dyn Socket>>>>::default();
        let peer = Arc::clone(&open);
        let address = if over_unix {
            let path = directory.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            std::thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    answer_one(Box::new(socket), &peer);
                }
            });
            unix(path)
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = tcp(listener.local_addr().unwrap());
            std::thread::spawn(move || {
                while let Ok((socket, _)) = listener.accept() {
                    answer_one(Box::new(socket), &peer);
                }
            });
            address
        };
        let http = Http::new(&address, &spec(Protocol::Http1)).unwrap();
        let fatal = |length: usize| {
            let data = Some(Bytes::from(vec![b'x'; length]));
            let peer = Arc::clone(&open);
            let request = Request::post("/").header("content-length", length);
            request.body(Body::new(Fatal { peer, data })).unwrap()
        };
        let until_open = async || {
            while open.lock().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        };
        let response = within(http.call(post("/", "first"))).await.unwrap();
        read(response).await;
        for length in [5, 64 << 10] {
            within(until_open()).await;
            let response = within(http.call(fatal(length))).await;
            let response = response.unwrap_or_else(|error| panic!("{address}: {}", chain(&error)));
            let request = read(response).await;
            assert!(request.starts_with(b"POST / HTTP/1.1\r\n"));
            assert!(request.ends_with(&vec![b'x'; length - 1]));
        }
        // So much is not kept: who has it still may send it again.
        within(until_open()).await;
        let error = within(http.call(fatal((64 << 10) + 1))).await.unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
        let (request, _) = Unsent::<Body>::recover(error).unwrap();
        assert!(request.is_none(), "{address}");
    }
}
