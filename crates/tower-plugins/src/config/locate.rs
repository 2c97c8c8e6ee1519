//! Lines for errors: where a problem is, and what stands there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet as Shown};
use figment::Figment;
use figment::value::Tag;

use super::error::{Problem, ProblemKind, SHOWN};
use super::file;
use super::format::{Format, Places};
use super::page::Page;
use super::tree::{Node, Span, Value};

/// Sorts `problems` by their lines, and shows the lines of the first.
pub(super) fn place_all(page: &Page<'_>, problems: Vec<(Problem, Span)>) -> Vec<Problem> {
    let mut placed: Vec<_> = problems
        .into_iter()
        .map(|(mut problem, at)| {
            if let Some(bytes) = at.bytes() {
                let (line, column) = page.line_and_column(bytes.start);
                (problem.line, problem.column) = (Some(line), Some(column));
            }
            (problem, at)
        })
        .collect();
    placed.sort_by_key(|(problem, _)| (problem.line, problem.column));
    let placed = placed.into_iter().enumerate();
    placed
        .map(|(index, (mut problem, at))| {
            // More are not shown to anybody, and a line takes its time.
            if index < SHOWN {
                problem.snippet = page.snippet(at).map(Box::new);
            }
            problem
        })
        .collect()
}

/// Says in the problems which layer their values came from. Layers have no lines: files are read once
/// more for them. The place of each is the number of its tag.
pub(super) fn place_in_layers(
    problems: Vec<(Problem, Span)>,
    figment: &Figment,
    tags: &[Tag],
    merged: &Node<'_>,
) -> Vec<Problem> {
    // The root itself is merged and so belongs to no source, unless there is just one.
    let mut sources = figment.metadata();
    let only = sources.next().filter(|_| sources.next().is_none());
    let (mut rest, mut files) = (Vec::new(), HashMap::<PathBuf, Vec<Problem>>::new());
    for (mut problem, at) in problems {
        let tag = at.bytes().and_then(|bytes| tags.get(bytes.start));
        let metadata = tag.and_then(|tag| figment.get_metadata(*tag)).or(only);
        let source = metadata.and_then(|metadata| metadata.source.as_ref());
        match (source.and_then(figment::Source::file_path), metadata) {
            (Some(file), _) => {
                problem.file = Some(file.to_owned());
                files.entry(file.to_owned()).or_default().push(problem);
            }
            (None, Some(metadata)) if metadata.name.contains("environment") => {
                problem.variable = Some(metadata.name.to_string());
                rest.push(problem);
            }
            _ => rest.push(problem),
        }
    }
    for (file, problems) in files {
        rest.extend(find_again(&file, problems, merged));
    }
    rest
}

fn find_again(file: &Path, problems: Vec<Problem>, merged: &Node<'_>) -> Vec<Problem> {
    let bytes = file::read(file).ok().map(|(bytes, _)| bytes);
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let (Some(text), Some(format)) = (text, Format::of(file)) else {
        return problems;
    };
    let Ok(root) = format.parse(&text, Places::Wanted) else {
        return problems;
    };
    let page = Page::new(&text, format, Some(&root));
    let place = |problem: Problem| {
        let about_key = is_about_key(problem.kind);
        let here = find(&root, &problem.key, about_key);
        // It is there only if the same value is: a layer may be a table of the file, or lie over others.
        let at = match (here, find(merged, &problem.key, about_key)) {
            (Some((node, at)), Some((merged, _))) if is_same(node, merged) => at,
            _ => Span::NONE,
        };
        (problem, at)
    };
    let problems = problems.into_iter().map(place).collect();
    place_all(&page, problems)
}

/// Whether such a problem is shown at the key, rather than at its value.
const fn is_about_key(kind: ProblemKind) -> bool {
    !matches!(
        kind,
        ProblemKind::WrongType | ProblemKind::BadValue | ProblemKind::Variable | ProblemKind::File
    )
}

/// The value at `path` in `root`, and where it is shown; of a key that is missing, the table it is
/// missing in.
fn find<'n, 't>(root: &'n Node<'t>, path: &str, key: bool) -> Option<(&'n Node<'t>, Span)> {
    let (mut node, mut at, mut path) = (root, root.at, path);
    while !path.is_empty() {
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
        match found {
            Some((next, place, rest)) => {
                (node, at) = (next, place);
                path = rest.strip_prefix('.').unwrap_or(rest);
            }
            // The last part of it is missing.
            None if !path.contains(['.', '[']) => return Some((node, at)),
            None => return None,
        }
    }
    Some((node, at))
}

/// Whether two values are equal, wherever they are.
fn is_same(a: &Node<'_>, b: &Node<'_>) -> bool {
    match (&a.value, &b.value) {
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Integer(a), Value::Integer(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Table(a), Value::Table(_)) => {
            let same = |key: &str, node| b.get(key).is_some_and(|other| is_same(node, other));
            a.len() == b.entries().map_or(0, <[_]>::len)
                && a.iter().all(|entry| same(&entry.key, &entry.node))
        }
        _ => false,
    }
}

/// `problem` for a terminal, headed `level`.
pub(super) fn render(problem: &Problem, level: Level<'static>, colored: bool) -> String {
    let headline = problem.headline();
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
