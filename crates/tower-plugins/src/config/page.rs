//! A text with its lines, and what of it may be shown.

use std::ops::Range;

use super::format::Format;
use super::keys::{self, Block, Kind};
use super::secret::HIDDEN;
use super::tree::{Entry, Node, Span, Value};

/// Lines and shown parts are found once, however many problems there are.
pub(super) struct Page<'t> {
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// Keys and values in order. Between them only what every text has is shown: brackets, quotes,
    /// colons.
    parts: Vec<Part>,
}

struct Part {
    bytes: Range<usize>,
    /// Whether it may be shown: a key, or a value that is no secret.
    is_plain: bool,
}

/// A line of a config, and what of it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snippet {
    pub(super) line: String,
    pub(super) wrong: Range<usize>,
}

/// The longest part of a line that is shown.
const SHOWN: usize = 160;

impl<'t> Page<'t> {
    /// Of `text`, of which `root` is what was read of it; without it, nothing but known keys is shown.
    pub(super) fn new(text: &'t str, format: Format, root: Option<&Node<'_>>) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let mut parts = Parts {
            text,
            parts: Vec::new(),
        };
        match root {
            Some(root) => {
                parts.table(root, &keys::ROOT);
                if format == Format::Toml {
                    parts.headers();
                }
            }
            None => parts.known_keys(format),
        }
        let mut parts = parts.parts;
        // Of two readings of the same bytes, the one that hides them.
        parts.sort_unstable_by_key(|part| (part.bytes.start, part.is_plain));
        Self {
            text,
            lines: std::iter::once(0)
                .chain(ends.map(|(at, _)| at + 1))
                .collect(),
            parts,
        }
    }

    /// The line and column of the byte at `at`, each from 1; the column counts characters.
    pub(super) fn line_and_column(&self, at: usize) -> (usize, usize) {
        let at = floor(self.text, at);
        let line = self.line_of(at);
        (
            line + 1,
            self.text[self.lines[line]..at].chars().count() + 1,
        )
    }

    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at) - 1
    }

    /// The line in which `at` begins, without what may be a secret.
    pub(super) fn snippet(&self, at: Span) -> Option<Snippet> {
        let bytes = at.bytes()?;
        let start = floor(self.text, bytes.start);
        let begin = self.lines[self.line_of(start)];
        let end = self.text[begin..]
            .find('\n')
            .map_or(self.text.len(), |end| begin + end);
        let end = begin + self.text[begin..end].trim_end().len();
        let wrong = start.min(end)..floor(self.text, bytes.end).clamp(start.min(end), end);
        let mut shown = Shown {
            snippet: Snippet {
                line: String::new(),
                wrong: 0..0,
            },
            wrong,
        };
        // A value may go on over several lines, and no key or value begins within another.
        let first = self.parts.partition_point(|part| part.bytes.start < begin);
        let first = first.saturating_sub(1);
        let mut from = begin;
        let parts = self.parts[first..].iter();
        for part in parts.take_while(|part| part.bytes.start < end) {
            let bytes = part.bytes.start.max(from)..part.bytes.end.clamp(from, end);
            if bytes.start >= bytes.end {
                continue;
            }
            self.show_between(&mut shown, from..bytes.start);
            from = bytes.end;
            if part.is_plain {
                shown.copy(self.text, bytes);
            } else {
                shown.hide(bytes);
            }
        }
        self.show_between(&mut shown, from..end);
        Some(shown.finish(end).cropped())
    }

    /// What is between the parts that may be shown: punctuation at both ends, and nothing within.
    fn show_between(&self, shown: &mut Shown, range: Range<usize>) {
        let text = &self.text[range.clone()];
        let is_plain = |c: char| c.is_whitespace() || "{}[]:,.-=\"'".contains(c);
        let Some(first) = text.find(|c| !is_plain(c)) else {
            return shown.copy(self.text, range);
        };
        let last = text.rfind(|c| !is_plain(c)).unwrap_or(first);
        let last = last + text[last..].chars().next().map_or(0, char::len_utf8);
        // Punctuation that touches it may be a part of it.
        let is_loose = |c: char| c.is_whitespace() || "{}[]:,".contains(c);
        let lead = text[..first].rfind(is_loose).map_or(0, |at| {
            at + text[at..].chars().next().map_or(0, char::len_utf8)
        });
        let trail = text[last..]
            .find(is_loose)
            .map_or(text.len(), |at| last + at);
        shown.copy(self.text, range.start..range.start + lead);
        shown.hide(range.start + lead..range.start + trail);
        shown.copy(self.text, range.start + trail..range.end);
    }
}

pub(super) fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A snippet that is being made.
struct Shown {
    snippet: Snippet,
    wrong: Range<usize>,
}

impl Shown {
    fn copy(&mut self, text: &str, range: Range<usize>) {
        for (at, char) in text[range.clone()].char_indices() {
            self.mark(range.start + at);
            // One column each, so that the caret stands where it should.
            self.snippet
                .line
                .push(if char == '\t' { ' ' } else { char });
        }
    }

    fn mark(&mut self, at: usize) {
        if at == self.wrong.start {
            self.snippet.wrong = self.snippet.line.len()..self.snippet.line.len();
        }
        if at == self.wrong.end {
            self.snippet.wrong.end = self.snippet.line.len();
        }
    }

    fn hide(&mut self, bytes: Range<usize>) {
        let begins = bytes.contains(&self.wrong.start);
        let len = self.snippet.line.len();
        if begins {
            self.snippet.wrong = len..len;
        } else if bytes.contains(&self.wrong.end) && self.wrong.end > self.wrong.start {
            self.snippet.wrong.end = len;
        }
        self.snippet.line.push_str(HIDDEN);
        if begins {
            self.snippet.wrong.end = self.snippet.line.len();
        }
    }

    fn finish(mut self, end: usize) -> Snippet {
        let len = self.snippet.line.len();
        if self.wrong.start >= end {
            self.snippet.wrong = len..len;
        } else if self.wrong.end >= end && self.wrong.start < self.wrong.end {
            self.snippet.wrong.end = len;
        }
        self.snippet.wrong.end = self.snippet.wrong.end.max(self.snippet.wrong.start);
        self.snippet
    }
}

impl Snippet {
    /// A long line, around what is wrong.
    fn cropped(mut self) -> Self {
        if self.line.len() <= SHOWN {
            return self;
        }
        let start = floor(&self.line, self.wrong.start.saturating_sub(SHOWN / 2));
        let end = floor(&self.line, start + SHOWN);
        let lead = if start > 0 { "…" } else { "" };
        let trail = if end < self.line.len() { "…" } else { "" };
        let shown = format!("{lead}{}{trail}", &self.line[start..end]);
        let moved = |at: usize| (at.clamp(start, end) - start) + lead.len();
        self.wrong = moved(self.wrong.start)..moved(self.wrong.end);
        self.line = shown;
        self
    }
}

struct Parts<'t> {
    text: &'t str,
    parts: Vec<Part>,
}

impl Parts<'_> {
    fn show(&mut self, at: Span) {
        self.add(at, true);
    }

    fn hide(&mut self, at: Span) {
        self.add(at, false);
    }

    fn add(&mut self, at: Span, is_plain: bool) {
        if let Some(bytes) = at.bytes() {
            let bytes = floor(self.text, bytes.start)..floor(self.text, bytes.end);
            if !bytes.is_empty() {
                self.parts.push(Part { bytes, is_plain });
            }
        }
    }

    /// Shows a key that is known by its name alone.
    fn show_bytes(&mut self, bytes: Range<usize>) {
        self.parts.push(Part {
            bytes,
            is_plain: true,
        });
    }

    fn table(&mut self, node: &Node<'_>, block: &'static Block) {
        for Entry { key, at, node } in node.entries().unwrap_or_default() {
            self.show(*at);
            match block.key(key) {
                Some(key) => self.value(node, key.kind),
                None => self.keys(node),
            }
        }
    }

    fn value(&mut self, node: &Node<'_>, kind: Kind) {
        match (&node.value, kind) {
            (Value::Table(_), Kind::Block(block)) => self.table(node, block),
            (Value::Table(_), Kind::Endpoint) => self.table(node, &keys::ENDPOINT),
            (Value::Table(entries), Kind::Plugins) => {
                for Entry { at, node, .. } in entries {
                    self.show(*at);
                    self.table(node, &keys::PLUGIN);
                }
            }
            (Value::List(items), Kind::Plugins) => {
                for item in items {
                    self.table(item, &keys::PLUGIN);
                }
            }
            (Value::List(items), Kind::Layers) => {
                for item in items {
                    self.table(item, &keys::LAYER);
                }
            }
            (Value::List(items), Kind::Targets) => {
                for item in items {
                    self.table(item, &keys::TARGET);
                }
            }
            (Value::List(items), Kind::Endpoints) => {
                for item in items {
                    self.value(item, Kind::Endpoint);
                }
            }
            (Value::List(items), Kind::Env) => {
                for item in items {
                    self.hide(item.at);
                }
            }
            (Value::List(items), Kind::Texts | Kind::Statuses(..) | Kind::Integers(..)) => {
                for item in items {
                    self.value(item, Kind::Text);
                }
            }
            (Value::Table(_) | Value::List(_), _) => self.keys(node),
            (_, Kind::Secret | Kind::Headers | Kind::Env) => self.hide(node.at),
            // In the place of a block stands a word, if it is a text.
            (Value::Text(text), Kind::Block(_)) if !matches!(&**text, "off" | "default") => {
                self.hide(node.at);
            }
            // Credentials in a URL.
            (Value::Text(text), _) if text.contains(['@', '?']) => self.hide(node.at),
            _ => self.show(node.at),
        }
    }

    /// The keys of what is not known, and none of its values.
    fn keys(&mut self, node: &Node<'_>) {
        match &node.value {
            Value::Table(entries) => {
                for Entry { at, node, .. } in entries {
                    self.show(*at);
                    self.keys(node);
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.keys(item)),
            _ => self.hide(node.at),
        }
    }

    /// The keys in the headers of TOML's tables: each is where it was first said, and is said again.
    fn headers(&mut self) {
        let mut begin = 0;
        for line in self.text.split_inclusive('\n') {
            if line.starts_with('[') {
                let mut at = begin;
                for word in line.split_inclusive(['[', '.', ']', '\n']) {
                    let name = word.trim_end_matches(['[', '.', ']', '\n', '\r']);
                    if keys::is_known(name) {
                        self.show_bytes(at..at + name.len());
                    }
                    at += word.len();
                }
            }
            begin += line.len();
        }
    }

    /// Of a text that could not be read: the first key of a line, if it is one of ours.
    fn known_keys(&mut self, format: Format) {
        let separator = match format {
            Format::Toml => '=',
            Format::Yaml | Format::Json => ':',
        };
        let mut begin = 0;
        for line in self.text.split_inclusive('\n') {
            let lead = line.len()
                - line
                    .trim_start_matches([' ', '\t', '-', '{', '[', '"', '\''])
                    .len();
            let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            let key = line[lead..].bytes().take_while(word).count();
            let after = line[lead + key..]
                .trim_start_matches(['"', '\'', ']'])
                .trim_start();
            let is_header = format == Format::Toml && line.trim_start().starts_with('[');
            let is_key = keys::is_known(&line[lead..lead + key])
                && (is_header || after.starts_with(separator));
            if is_key {
                self.show_bytes(begin + lead..begin + lead + key);
            }
            begin += line.len();
        }
    }
}
