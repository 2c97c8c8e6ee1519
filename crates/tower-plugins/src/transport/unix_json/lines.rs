//! One line there, one line back, over any stream of bytes.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a read makes room for.
const CHUNK: usize = 8 * 1024;

/// A stream on which lines are exchanged, one exchange at a time.
///
/// It is in step as long as each line that went out has had its answer, and nothing else came. One
/// that is not, because an exchange failed or its future was dropped, stays so: what comes next
/// cannot be told from an answer that was late.
#[derive(Debug)]
pub(in crate::transport) struct Lines<S> {
    stream: S,
    in_step: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::transport) enum Broken {
    /// The other side cannot have understood the line: its last brace did not go out.
    Unsent(io::Error),
    /// The other side may have understood it.
    Lost(io::Error),
    /// The answer is longer than allowed.
    TooLong,
}

impl<S> Lines<S> {
    pub(in crate::transport) const fn new(stream: S) -> Self {
        Self {
            stream,
            in_step: true,
        }
    }

    pub(in crate::transport) const fn stream(&self) -> &S {
        &self.stream
    }

    pub(in crate::transport) const fn is_in_step(&self) -> bool {
        self.in_step
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    /// Sends `line`, an object and a newline, and gives the line that comes back, without its
    /// newline, of at most `limit` bytes.
    pub(in crate::transport) async fn exchange(
        &mut self,
        line: &[u8],
        limit: usize,
    ) -> Result<Bytes, Broken> {
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
