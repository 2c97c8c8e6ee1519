//! Lines for errors: where a problem is, and what stands there, without what may be a secret.

use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet as Shown};
use figment::Figment;
use figment::value::Tag;

use super::error::{Problem, ProblemKind};
use super::format::{Format, Places};
use super::keys::{self, Block, Kind};
use super::secret::HIDDEN;
use super::tree::{Entry, Node, Span, Value};

/// A line of a config, and what of it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snippet {
    line: String,
    wrong: Range<usize>,
}

/// The longest part of a line that is shown.
const SHOWN: usize = 160;

/// Says in `problem` where `at` is in `text`, of which `root` is what was read of it.
pub(super) fn place(problem: &mut Problem, text: &str, at: Span, root: Option<&Node<'_>>) {
    let Some(bytes) = at.bytes() else { return };
    let start = floor(text, bytes.start);
    let (line, column) = line_and_column(text, start);
    problem.line = Some(line);
    problem.column = Some(column);
    let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = begin + text[begin..end].trim_end().len();
    let hidden = match root {
        Some(root) => hidden(text, root, begin..end),
        None => Vec::from_iter(hidden_unread(&text[begin..end], begin)),
    };
    let wrong = start.min(end)..floor(text, bytes.end).clamp(start.min(end), end);
    problem.snippet = Some(Snippet::new(text, begin..end, wrong, &hidden));
}

/// The line and column of the byte at `start`, each from 1; the column counts characters.
pub(super) fn line_and_column(text: &str, start: usize) -> (usize, usize) {
    let before = &text[..floor(text, start)];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[begin..].chars().count() + 1)
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Says in `problem` which layer the value came from. The layers have no lines: the file is read
/// once more for them.
pub(super) fn place_in_layers(problem: &mut Problem, figment: &Figment, tags: &[Tag], at: Span) {
    let tag = at.bytes().and_then(|bytes| tags.get(bytes.start));
    // The root itself is merged and so belongs to no source, unless there is just one.
    let mut sources = figment.metadata();
    let only = sources.next().filter(|_| sources.next().is_none());
    let Some(metadata) = tag.and_then(|tag| figment.get_metadata(*tag)).or(only) else {
        return;
    };
    match metadata
        .source
        .as_ref()
        .and_then(figment::Source::file_path)
    {
        Some(file) => {
            problem.file = Some(file.to_owned());
            find_again(problem, file);
        }
        None if metadata.name.contains("environment") => {
            problem.variable = Some(metadata.name.to_string());
        }
        None => {}
    }
}

fn find_again(problem: &mut Problem, file: &Path) {
    let bytes = super::file::read(file).ok().map(|(bytes, _)| bytes);
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    if let (Some(text), Some(format)) = (text, Format::of(file))
        && let Ok(root) = format.parse(&text, Places::Wanted)
        && let Some(at) = find(&root, &problem.key, is_about_key(problem.kind))
    {
        place(problem, &text, at, Some(&root));
    }
}

/// Whether such a problem is shown at the key, rather than at its value.
const fn is_about_key(kind: ProblemKind) -> bool {
    !matches!(
        kind,
        ProblemKind::WrongType | ProblemKind::BadValue | ProblemKind::Variable | ProblemKind::File
    )
}

/// Where `path` is in `root`, or the nearest table above it.
fn find(root: &Node<'_>, path: &str, key: bool) -> Option<Span> {
    let (mut node, mut at, mut path) = (root, None, path);
    loop {
        let found = match &node.value {
            Value::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                let rest = path.strip_prefix(&format!("[{index}]"))?;
                Some((item, item.at, rest))
            }),
            Value::Table(entries) => entries.iter().find_map(|entry| {
                let rest = path.strip_prefix(&super::table::join("", &entry.key))?;
                let ends = rest.is_empty() || rest.starts_with(['.', '[']);
                let at = if key {
                    entry.at
                } else {
                    super::table::value_place(entry)
                };
                ends.then_some((&entry.node, at, rest))
            }),
            _ => None,
        };
        let Some((next, place, rest)) = found else {
            return at;
        };
        (node, at) = (next, Some(place));
        path = rest.strip_prefix('.').unwrap_or(rest);
    }
}

impl Snippet {
    /// The bytes `line` of `text` less what of them is `hidden`; what is `wrong` stays marked.
    fn new(text: &str, line: Range<usize>, wrong: Range<usize>, hidden: &[Range<usize>]) -> Self {
        let mut snippet = Self {
            line: String::new(),
            wrong: 0..0,
        };
        let mut from = line.start;
        let copy = |snippet: &mut Self, range: Range<usize>| {
            for (at, char) in text[range.clone()].char_indices() {
                snippet.mark(range.start + at, &wrong);
                // One column each, so that the caret stands where it should.
                snippet.line.push(if char == '\t' { ' ' } else { char });
            }
        };
        for range in hidden {
            let (start, end) = (range.start.max(from), range.end.min(line.end));
            if start >= end {
                continue;
            }
            copy(&mut snippet, from..start);
            snippet.mark_hidden(start..end, &wrong);
            from = end;
        }
        copy(&mut snippet, from..line.end);
        if wrong.end >= line.end && wrong.start < wrong.end {
            snippet.wrong.end = snippet.line.len();
        }
        if wrong.start >= line.end {
            snippet.wrong = snippet.line.len()..snippet.line.len();
        }
        snippet.wrong.end = snippet.wrong.end.max(snippet.wrong.start);
        snippet.cropped()
    }

    /// The byte at `at` of the text comes now.
    fn mark(&mut self, at: usize, wrong: &Range<usize>) {
        if at == wrong.start {
            self.wrong = self.line.len()..self.line.len();
        }
        if at == wrong.end {
            self.wrong.end = self.line.len();
        }
    }

    /// These bytes of the text are not shown.
    fn mark_hidden(&mut self, bytes: Range<usize>, wrong: &Range<usize>) {
        if bytes.contains(&wrong.start) {
            self.wrong = self.line.len()..self.line.len();
        } else if bytes.contains(&wrong.end) && wrong.end > wrong.start {
            self.wrong.end = self.line.len();
        }
        self.line.push_str(HIDDEN);
        if bytes.contains(&wrong.start) {
            self.wrong.end = self.line.len();
        }
    }

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

/// The parts of `line` that are not shown: values that are secret, or may be, and comments.
fn hidden(text: &str, root: &Node<'_>, line: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Parts {
        text,
        line: line.clone(),
        hidden: Vec::new(),
        known: Vec::new(),
    };
    parts.table(root, &keys::ROOT);
    parts.known.sort_by_key(|range| range.start);
    // What is in no key and no value, and begins with `#`, is a comment.
    let mut from = line.start;
    for known in parts.known.iter().chain([&(line.end..line.end)]) {
        if known.start > from
            && let Some(at) = text[from..known.start.min(line.end)].find('#')
        {
            parts.hidden.push(from + at..line.end);
            break;
        }
        from = from.max(known.end).min(line.end);
    }
    parts.hidden.sort_by_key(|range| range.start);
    parts.hidden
}

struct Parts<'a> {
    text: &'a str,
    line: Range<usize>,
    hidden: Vec<Range<usize>>,
    known: Vec<Range<usize>>,
}

impl Parts<'_> {
    fn know(&mut self, at: Span) -> Option<Range<usize>> {
        let bytes = at.bytes()?;
        let bytes = floor(self.text, bytes.start)..floor(self.text, bytes.end);
        if bytes.start >= self.line.end || bytes.end <= self.line.start {
            return None;
        }
        self.known.push(bytes.clone());
        Some(bytes)
    }

    fn table(&mut self, node: &Node<'_>, block: &'static Block) {
        for Entry { key, at, node } in node.entries().unwrap_or_default() {
            self.know(*at);
            match block.key(key) {
                Some(key) => self.value(node, key.kind),
                None => self.hide(node),
            }
        }
    }

    fn value(&mut self, node: &Node<'_>, kind: Kind) {
        match (&node.value, kind) {
            (Value::Table(_), Kind::Block(block)) => self.table(node, block),
            (Value::Table(_), Kind::Endpoint) => self.table(node, &keys::ENDPOINT),
            (Value::Table(entries), Kind::Plugins) => {
                for Entry { at, node, .. } in entries {
                    self.know(*at);
                    self.table(node, &keys::PLUGIN);
                }
            }
            (Value::List(items), Kind::Plugins) => {
                for item in items {
                    self.table(item, &keys::PLUGIN);
                }
            }
            (Value::List(items), Kind::Endpoints) => {
                for item in items {
                    self.value(item, Kind::Endpoint);
                }
            }
            (Value::List(items), Kind::Texts) => {
                for item in items {
                    self.value(item, Kind::Text);
                }
            }
            (Value::Table(_) | Value::List(_), _) | (_, Kind::Secret | Kind::Headers) => {
                self.hide(node);
            }
            // Credentials in a URL.
            (Value::Text(text), _) if text.contains(['@', '?']) => self.hide(node),
            (Value::Text(_), Kind::Block(_)) if !matches!(&node.value, Value::Text(t) if t == "off" || t == "default") =>
            {
                self.hide(node);
            }
            _ => {
                self.know(node.at);
            }
        }
    }

    fn hide(&mut self, node: &Node<'_>) {
        match &node.value {
            Value::Table(entries) => {
                for Entry { at, node, .. } in entries {
                    self.know(*at);
                    self.hide(node);
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.hide(item)),
            _ => {
                if let Some(bytes) = self.know(node.at) {
                    self.hidden.push(bytes);
                }
            }
        }
    }
}

/// The parts of a line that are not shown when nothing is known of it: all but its first key.
fn hidden_unread(line: &str, begin: usize) -> Option<Range<usize>> {
    let lead = line.len()
        - line
            .trim_start_matches([' ', '\t', '-', '{', '[', '"', '\''])
            .len();
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_-.\"'".contains(&b);
    let key = line[lead..].bytes().take_while(|b| word(*b)).count();
    let after = &line[lead + key..];
    let separator = after.trim_start().starts_with([':', '=']);
    let shown = if separator {
        let gap = after.len() - after.trim_start().len();
        let rest = &after[gap + 1..];
        line.len() - rest.trim_start().len()
    } else {
        lead
    };
    // Brackets and quotes alone tell nothing.
    let telling = line[shown..]
        .bytes()
        .any(|b| b.is_ascii_alphanumeric() || !b.is_ascii());
    if telling {
        Some(begin + shown..begin + line.len())
    } else {
        None
    }
}

/// `problem` for a terminal, headed `level`.
pub(super) fn render(problem: &Problem, level: &'static str, colored: bool) -> String {
    let headline = problem.headline();
    let level = match level {
        "warning" => Level::WARNING,
        _ => Level::ERROR,
    };
    let path = problem.file.as_ref().map(|file| file.display().to_string());
    let element: Option<Element<'_>> = match (&problem.snippet, problem.line, &path) {
        (Some(snippet), Some(line), path) => {
            let marked = AnnotationKind::Primary.span(snippet.wrong.clone());
            let mut shown = Shown::source(&snippet.line)
                .line_start(line)
                .annotation(marked);
            if let Some(path) = path {
                shown = shown.path(path);
            }
            Some(shown.into())
        }
        (_, _, Some(path)) => Some(Origin::path(path).into()),
        _ => None,
    };
    let group = level.primary_title(&headline).elements(element);
    let renderer = if colored {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[group])
}
