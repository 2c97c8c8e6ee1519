use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a read makes room for.
const CHUNK: usize = 8 * 1024;

/// Lines of bounded length. What is read of one is kept when a future of this is dropped.
pub(super) struct Reader<R> {
    input: R,
    buffer: BytesMut,
    /// What of the buffer is known to have no end of a line in it.
    searched: usize,
    max: usize,
    is_skipping: bool,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Bytes),
    /// It was longer than allowed, and is gone.
    TooLong,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(input: R, max: usize) -> Self {
        Self {
            input,
            buffer: BytesMut::new(),
            searched: 0,
            max,
            is_skipping: false,
        }
    }

    /// The next line, without its end; none when there are no more. Empty lines are skipped.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if self.fill().await? == 0 {
                // A last line without an end counts, as for most who read lines.
                let rest = std::mem::take(&mut self.buffer).freeze();
                self.searched = 0;
                let is_over = rest.trim_ascii().is_empty() || std::mem::take(&mut self.is_skipping);
                return Ok((!is_over).then_some(Line::Whole(rest)));
            }
        }
    }

    /// Reads more; gives how much.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(CHUNK);
        self.input.read_buf(&mut self.buffer).await
    }

    /// Whether there is room for more, while the line before is being answered.
    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < CHUNK
    }

    /// The line that has been read, if there is one.
    fn take(&mut self) -> Option<Line> {
        loop {
            let end = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| self.searched + end) else {
                self.searched = self.buffer.len();
                if self.is_skipping || self.buffer.len() > self.max {
                    self.is_skipping = true;
                    self.buffer.clear();
                    self.searched = 0;
                }
                return None;
            };
            let mut line = self.buffer.split_to(end + 1);
            self.searched = 0;
            if std::mem::take(&mut self.is_skipping) || end > self.max {
                return Some(Line::TooLong);
            }
            line.truncate(end);
            if !line.trim_ascii().is_empty() {
                return Some(Line::Whole(line.freeze()));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    async fn lines(input: &[u8], max: usize) -> Vec<String> {
        let mut reader = Reader::new(input, max);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(match line {
                Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                Line::TooLong => "too long".to_owned(),
            });
        }
        lines
    }

    #[tokio::test]
    async fn lines_end_with_their_ends_and_the_last_one_with_the_input() {
        assert_eq!(lines(b"a\n\n  \r\nb\r\nc", 8).await, ["a", "b\r", "c"]);
        assert!(lines(b"", 8).await.is_empty());
        assert!(lines(b"\n", 8).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_told_once_and_the_next_is_read() {
        let long = "x".repeat(100_000);
        let input = format!("{long}\nok\n12345678\n123456789\n");
        assert_eq!(
            lines(input.as_bytes(), 8).await,
            ["too long", "ok", "12345678", "too long"]
        );
        assert!(lines(long.as_bytes(), 8).await.is_empty());
    }
}
