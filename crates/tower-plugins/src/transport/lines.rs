//! One line there, one line back, over any stream of bytes.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ::http::request::Parts;
use ::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tower_plugins_layers::{BoxError, Refused, Unsent};
use tower_plugins_proto::envelope;
use tower_plugins_proto::line::Failure;

use super::error::request_broken;
use crate::Body;
use crate::config::ConnectionSpec;

/// The largest answer that is read, unless `max_response_body` says otherwise, and the largest body
/// that is sent: 16 MiB. Both are held in memory.
pub(super) const MAX_LINE: usize = 16 << 20;

/// What a read makes room for.
const CHUNK: usize = 8 * 1024;

/// A stream on which lines are exchanged, one exchange at a time.
///
/// It is in step as long as each line that went out has had its answer, and nothing else came. One
/// that is not, because an exchange failed or its future was dropped, stays so: what comes next
/// cannot be told from an answer that was late.
#[derive(Debug)]
pub(super) struct Lines<S> {
    stream: S,
    in_step: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The other side cannot have understood the line: its last brace did not go out.
    Unsent(io::Error),
    /// The other side may have understood it.
    Lost(io::Error),
    /// The answer is longer than allowed.
    TooLong,
}

impl<S> Lines<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self {
            stream,
            in_step: true,
        }
    }

    #[cfg(feature = "http")]
    pub(super) const fn stream(&self) -> &S {
        &self.stream
    }

    pub(super) const fn is_in_step(&self) -> bool {
        self.in_step
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    /// Sends `line`, an object and a newline, and gives the line that comes back, without its
    /// newline, of at most `limit` bytes.
    pub(super) async fn exchange(&mut self, line: &[u8], limit: usize) -> Result<Bytes, Broken> {
        self.in_step = false;
        self.send(line).await?;
        let (answer, more) = self.receive(limit).await?;
        self.in_step = more.is_empty();
        Ok(answer)
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), Broken> {
        let mut rest = line;
        while !rest.is_empty() {
            let error = match self.stream.write(rest).await {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(sent) => {
                    rest = &rest[sent..];
                    continue;
                }
                Err(error) => error,
            };
            // A reader of JSON knows the end of an object by its brace, and may not wait for more.
            return Err(match rest {
                b"\n" => Broken::Lost(error),
                _ => Broken::Unsent(error),
            });
        }
        self.stream.flush().await.map_err(Broken::Lost)
    }

    /// A line, and what came after it.
    async fn receive(&mut self, limit: usize) -> Result<(Bytes, BytesMut), Broken> {
        let (mut line, mut searched) = (BytesMut::new(), 0);
        loop {
            line.reserve(CHUNK);
            let read = self.stream.read_buf(&mut line).await;
            if read.map_err(Broken::Lost)? == 0 {
                let what = match line.len() {
                    0 => "it closed the connection without an answer",
                    _ => "it closed the connection in the middle of its answer",
                };
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, what);
                return Err(Broken::Lost(error));
            }
            let end = line[searched..].iter().position(|byte| *byte == b'\n');
            searched = end.map_or(line.len(), |end| searched + end);
            if searched > limit {
                return Err(Broken::TooLong);
            }
            if end.is_some() {
                let more = line.split_off(searched + 1);
                line.truncate(searched);
                return Ok((line.freeze(), more));
            }
        }
    }
}

/// Why there is no response.
pub(super) enum Failed {
    /// The plugin cannot have understood anything of it.
    Unsent(Refused),
    Other(BoxError),
}

impl Failed {
    /// The error of the request of `head` and `body`, which comes back in it if it was not sent.
    pub(super) fn of(self, head: Parts, body: Bytes) -> BoxError {
        match self {
            Self::Other(error) => error,
            Self::Unsent(cause) => {
                let request = Request::from_parts(head, Body::from(body));
                Unsent::new(Some(request), cause).into()
            }
        }
    }
}

/// The largest answer that is read.
pub(super) fn limit(connection: &ConnectionSpec) -> usize {
    let limit = connection.max_response_body;
    limit.map_or(MAX_LINE, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// The head of `request` to the endpoint `name`, and the whole of its body, which goes into one line.
pub(super) async fn collect(
    request: Request<Body>,
    name: &Arc<str>,
) -> Result<(Parts, Bytes), BoxError> {
    let (head, body) = request.into_parts();
    let error = match Limited::new(body, MAX_LINE).collect().await {
        Ok(body) => return Ok((head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            format!("its body is larger than {MAX_LINE} bytes, the most that a line takes").into()
        }
        Err(error) => error,
    };
    Err(request_broken(name, error))
}

/// `body`, as the JSON that `wire` carries.
pub(super) fn parsed<'a, T: serde::Deserialize<'a>>(
    wire: &str,
    body: &'a [u8],
) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("its body is not the JSON that {wire} carries, at {line}:{column}")
    })
}

/// `request` as JSON on one line, with its newline.
pub(super) fn as_line(request: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    // Outside of its texts, which have none, JSON may be broken into lines.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    Ok(line)
}

/// Why a line is no answer at all. The error's own words may repeat what the plugin said.
pub(super) fn not_a_line(error: &serde_json::Error) -> String {
    let at = error.column();
    format!("it did not answer with a line as it should: wrong at byte {at}")
}

/// Why an answer with the id `found` is not that to `id`.
pub(super) fn out_of_step(id: &str, found: &str) -> String {
    let found: String = found.chars().take(64).collect();
    format!("it is out of step: the answer to {id:?} was one to {found:?}")
}

/// The response of the plugin's `result`, which stands in the line `answer`.
pub(super) fn answered(
    answer: &Bytes,
    result: Result<Option<&RawValue>, Failure>,
    id: &str,
    is_enveloped: bool,
) -> Result<Response<Body>, String> {
    let mut response = Response::new(Body::empty());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    let body = match (result, is_enveloped) {
        (Ok(data), false) => {
            let data = data.map_or(Bytes::from_static(b"null"), |data| {
                answer.slice_ref(data.get().as_bytes())
            });
            *response.body_mut() = data.into();
            return Ok(response);
        }
        (Ok(data), true) => serde_json::to_vec(&envelope::Response {
            data,
            error: None,
            request_id: id.to_owned(),
            metadata: None,
        }),
        (Err(failure), is_enveloped) => {
            if !is_enveloped {
                *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
            }
            serde_json::to_vec(&envelope::Response::<()>::failure(id, failure.0))
        }
    };
    *response.body_mut() = body.map_err(|error| error.to_string())?.into();
    Ok(response)
}

/// An id that no other call has, here or from another process.
pub(super) fn new_id() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    format!("{process:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const LINE: &[u8] = b"{}\n";

    #[tokio::test]
    async fn a_line_goes_there_and_one_comes_back_however_it_is_cut() {
        // Of one byte: each is a read of its own.
        let (here, mut there) = duplex(1);
        let mut lines = Lines::new(here);
        let plugin = async {
            let mut seen = [0; 3];
            there.read_exact(&mut seen).await.unwrap();
            there.write_all(b"{\"a\":1}\n").await.unwrap();
            seen
        };
        let (answer, seen) = tokio::join!(lines.exchange(LINE, 7), plugin);
        assert_eq!((&*answer.unwrap(), &seen[..]), (&b"{\"a\":1}"[..], LINE));
        assert!(lines.is_in_step());
    }

    #[tokio::test]
    async fn an_answer_that_is_longer_than_allowed_is_not_read_on() {
        for answer in [&b"12345678\n"[..], b"123456789"] {
            let (here, mut there) = duplex(64);
            there.write_all(answer).await.unwrap();
            let mut lines = Lines::new(here);
            let outcome = lines.exchange(LINE, 7).await;
            assert!(matches!(outcome, Err(Broken::TooLong)), "{outcome:?}");
            assert!(!lines.is_in_step());
        }
    }

    #[tokio::test]
    async fn what_comes_beside_the_answer_ends_the_step() {
        let (here, mut there) = duplex(64);
        there.write_all(b"1\n2\n").await.unwrap();
        let mut lines = Lines::new(here);
        assert_eq!(lines.exchange(LINE, 7).await.unwrap(), "1");
        assert!(!lines.is_in_step(), "the next answer would be the 2");
    }

    #[tokio::test]
    async fn an_exchange_that_is_dropped_ends_the_step() {
        let (here, _there) = duplex(64);
        let mut lines = Lines::new(here);
        assert!(lines.is_in_step());
        let cut = tokio::time::timeout(std::time::Duration::ZERO, lines.exchange(LINE, 7));
        assert!(cut.await.is_err());
        assert!(!lines.is_in_step());
    }

    /// A stream that takes as many bytes as it is given, and then breaks.
    async fn taking(bytes: usize) -> Broken {
        let stream = tokio_test_stream(bytes);
        let mut lines = Lines::new(stream);
        lines.exchange(b"{\"a\":1}\n", 64).await.unwrap_err()
    }

    fn tokio_test_stream(bytes: usize) -> impl AsyncRead + AsyncWrite + Unpin {
        struct Taking(usize);
        impl AsyncWrite for Taking {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<io::Result<usize>> {
                let taken = self.0.min(buf.len());
                self.0 -= taken;
                std::task::Poll::Ready(match taken {
                    0 => Err(io::ErrorKind::BrokenPipe.into()),
                    taken => Ok(taken),
                })
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_shutdown(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        tokio::io::join(tokio::io::empty(), Taking(bytes))
    }

    #[tokio::test]
    async fn a_line_of_which_the_last_brace_did_not_go_out_was_not_sent() {
        for taken in 0..7 {
            let broken = taking(taken).await;
            assert!(matches!(broken, Broken::Unsent(_)), "{taken}: {broken:?}");
        }
        for taken in 7..=8 {
            let broken = taking(taken).await;
            assert!(matches!(broken, Broken::Lost(_)), "{taken}: {broken:?}");
        }
    }
}
