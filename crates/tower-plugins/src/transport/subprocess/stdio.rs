//! What a process writes: read to its end, kept in bounds, and passed on to the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::log::Logs;

/// What is read at once.
const CHUNK: usize = 16 << 10;

/// The longest line that is taken as one. Longer ones come in pieces.
const LONGEST_LINE: usize = 64 << 10;

/// How many lines are kept for an error.
const KEPT_LINES: usize = 20;

/// How much of each.
const KEPT_BYTES: usize = 512;

/// The last lines of a process. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &[u8]) {
        let mut line = String::from_utf8_lossy(&line[..line.len().min(KEPT_BYTES)]).into_owned();
        line.retain(|char| !char.is_control() || char == '\t');
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, the oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// A line, or a piece of one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Line(&'a [u8]),
    Part(&'a [u8]),
}

/// Cuts bytes into lines, and holds no more than one.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    begun: Vec<u8>,
    /// Whether what was begun was longer than a line may be.
    is_long: bool,
}

impl Cutter {
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = match end {
                Some(end) => (&bytes[..end], &bytes[end + 1..]),
                None => (bytes, &[][..]),
            };
            let room = LONGEST_LINE - self.begun.len();
            if line.len() > room {
                self.begun.extend_from_slice(&line[..room]);
                take(Piece::Part(&self.begun));
                self.begun.clear();
                self.is_long = true;
                bytes = &bytes[room..];
                continue;
            }
            self.begun.extend_from_slice(line);
            if end.is_some() {
                self.end(&mut take);
            }
            bytes = rest;
        }
    }

    /// There is no more: what was begun is a line.
    pub(crate) fn finish(&mut self, take: impl FnMut(Piece<'_>)) {
        if !self.begun.is_empty() {
            self.end(take);
        }
    }

    fn end(&mut self, mut take: impl FnMut(Piece<'_>)) {
        let line = self.begun.strip_suffix(b"\r").unwrap_or(&self.begun);
        match self.is_long {
            true if line.is_empty() => {}
            true => take(Piece::Part(line)),
            false => take(Piece::Line(line)),
        }
        self.begun.clear();
        self.is_long = false;
    }
}

/// Reads `stream` until nobody has it open any more.
pub(crate) async fn drain(mut stream: impl AsyncRead + Unpin, tail: Tail, mut logs: Logs) {
    let (mut chunk, mut cutter) = (vec![0; CHUNK], Cutter::default());
    let mut take = |piece: Piece<'_>| {
        let (Piece::Line(text) | Piece::Part(text)) = piece;
        tail.push(text);
        logs.take(piece);
    };
    // An error is an end.
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        cutter.push(&chunk[..read], &mut take);
    }
    cutter.finish(&mut take);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, usize) {
        let (mut lines, mut parts) = (Vec::new(), 0);
        let mut cutter = Cutter::default();
        for bytes in bytes.chunks(piece) {
            cutter.push(bytes, |piece| match piece {
                Piece::Line(line) => lines.push(line.to_vec()),
                Piece::Part(part) => {
                    assert!(part.len() <= LONGEST_LINE);
                    parts += part.len();
                }
            });
            assert!(cutter.begun.capacity() <= 2 * LONGEST_LINE);
        }
        (lines, parts)
    }

    #[test]
    fn lines_are_cut_wherever_they_come_apart() {
        let bytes = b"one\r\n\ntwo\nnot yet";
        for piece in 1..bytes.len() {
            let (lines, parts) = cut(bytes, piece);
            assert_eq!(lines, [&b"one"[..], b"", b"two"]);
            assert_eq!(parts, 0);
        }
    }

    #[test]
    fn ten_mebibytes_without_an_end_are_held_a_piece_at_a_time() {
        let flood = vec![b'x'; 10 << 20];
        let all = [&flood[..], b"\nnext\n"].concat();
        let (lines, parts) = cut(&all, 7_001);
        assert_eq!(lines, [b"next"]);
        assert_eq!(parts, flood.len());
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_no_more_of_them() {
        let tail = Tail::default();
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let long = "y".repeat(10_000);
        let text = format!("{text}{long}\n\x1b[31mred");
        drain(text.as_bytes(), tail.clone(), Logs::new("p", "e")).await;
        let lines = tail.lines();
        assert_eq!(lines.len(), KEPT_LINES);
        assert_eq!(lines[KEPT_LINES - 3..KEPT_LINES - 2], ["99"]);
        assert_eq!(lines[KEPT_LINES - 2].len(), KEPT_BYTES);
        assert_eq!(lines[KEPT_LINES - 1], "[31mred");
    }
}
