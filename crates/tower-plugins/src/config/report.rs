//! What was found wrong in one config, and what it is read with.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::Tag;

use super::env::Environment;
use super::error::{Problem, ProblemKind};
use super::expand::expand;
use super::fault::Fault;
use super::file::Files;
use super::format::{Format, Places, Syntax};
use super::given::Given;
use super::keys::Block;
use super::locate;
use super::page::Page;
use super::table::Table;
use super::tree::{Node, Span, Value};

/// One of the texts that a config is made of.
pub(super) struct Doc<'t> {
    pub(super) origin: Origin<'t>,
    pub(super) root: Node<'t>,
}

/// Where the values of a doc come from.
pub(super) enum Origin<'t> {
    Text {
        file: Option<&'t Path>,
        text: &'t str,
        format: Format,
    },
    /// Layers that were merged; the places of values are numbers of tags.
    Layers {
        figment: &'t Figment,
        tags: Vec<Tag>,
    },
}

impl Origin<'_> {
    pub(super) const fn file(&self) -> Option<&Path> {
        match self {
            Self::Text { file, .. } => *file,
            Self::Layers { .. } => None,
        }
    }
}

pub(super) struct Report<'t> {
    docs: &'t [Doc<'t>],
    environment: &'t Environment,
    pub(super) files: &'t Files,
    /// The environment variables that lie over the docs, by number.
    variables: Vec<String>,
    problems: RefCell<Vec<Pending>>,
    warnings: RefCell<Vec<Pending>>,
    /// The place that was last counted to.
    counted: Cell<Counted>,
}

/// A byte of a doc, with its line and its column, each from 1.
#[derive(Clone, Copy)]
struct Counted {
    doc: usize,
    byte: usize,
    line: usize,
    column: usize,
}

impl Counted {
    const fn begin(doc: usize) -> Self {
        Self {
            doc,
            byte: 0,
            line: 1,
            column: 1,
        }
    }

    fn to(mut self, text: &str, byte: usize) -> Self {
        let passed = &text[self.byte..byte];
        self.byte = byte;
        self.line += passed.matches('\n').count();
        self.column = match passed.rfind('\n') {
            Some(end) => passed[end..].chars().count(),
            None => self.column + passed.chars().count(),
        };
        self
    }
}

/// A problem of which the line is not known yet.
struct Pending {
    doc: usize,
    at: Span,
    key: String,
    fault: Fault,
    found: Option<String>,
    /// Another place, which the message ends with.
    also: Option<(usize, Span)>,
}

impl<'t> Report<'t> {
    pub(super) const fn new(
        docs: &'t [Doc<'t>],
        environment: &'t Environment,
        files: &'t Files,
        variables: Vec<String>,
    ) -> Self {
        Self {
            docs,
            environment,
            files,
            variables,
            problems: RefCell::new(Vec::new()),
            warnings: RefCell::new(Vec::new()),
            counted: Cell::new(Counted::begin(0)),
        }
    }

    pub(super) fn docs(&self) -> impl Iterator<Item = (usize, &'t Node<'t>)> {
        self.docs.iter().map(|doc| &doc.root).enumerate()
    }

    /// Whether the doc is a file, rather than a text or layers.
    pub(super) fn is_file(&self, doc: usize) -> bool {
        let doc = self.docs.get(doc);
        doc.is_some_and(|doc| doc.origin.file().is_some())
    }

    pub(super) fn problem_count(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Reports `fault` of the value at `at`.
    pub(super) fn add(&self, doc: usize, at: Span, key: impl Into<String>, fault: Fault) {
        self.problems.borrow_mut().push(Pending {
            doc,
            at,
            key: key.into(),
            fault,
            found: None,
            also: None,
        });
    }

    /// Reports `fault`, which has to do with another place as well.
    pub(super) fn add_with(
        &self,
        (doc, at): (usize, Span),
        key: String,
        fault: Fault,
        also: (usize, Span),
    ) {
        self.add(doc, at, key, fault);
        if let Some(last) = self.problems.borrow_mut().last_mut() {
            last.also = Some(also);
        }
    }

    /// Reports `fault` of `given`.
    pub(super) fn add_given(
        &self,
        doc: usize,
        at: Span,
        key: String,
        fault: Fault,
        given: &Given<'_>,
    ) {
        let mut fault = fault;
        if fault.names_value {
            fault.message = format!("{} {}", given.shown(), fault.message);
        }
        let found = given.found();
        self.add(doc, at, key, fault);
        if let Some(last) = self.problems.borrow_mut().last_mut() {
            last.found = Some(found);
        }
    }

    pub(super) fn warn(&self, doc: usize, at: Span, key: String, message: String) {
        self.warnings.borrow_mut().push(Pending {
            doc,
            at,
            key,
            fault: Fault::new(ProblemKind::Ineffective, message),
            found: None,
            also: None,
        });
    }

    /// The table `node` at `path`; anything else is reported.
    pub(super) fn table(
        &'t self,
        doc: usize,
        block: &'static Block,
        path: String,
        at: Span,
        node: &'t Node<'t>,
    ) -> Option<Table<'t>> {
        match node.entries() {
            Some(entries) => Some(Table::new(self, doc, block, path, at, entries)),
            None => {
                // A text in the place of `auth` may be the secret itself.
                let given = Given::unread(node);
                let fault = Fault::wrong_type("a table", given.kind());
                self.add_given(doc, at, path, fault, &given);
                None
            }
        }
    }

    /// `node` with its variables put in.
    pub(super) fn given(&self, node: &'t Node<'t>) -> Result<Given<'t>, Fault> {
        let Value::Text(text) = &node.value else {
            return Ok(Given::of(node));
        };
        if node.at.variable().is_some() {
            return Ok(Given::from_variable(node, text));
        }
        let (expanded, from_environment) = expand(text, self.environment)?;
        Ok(if from_environment {
            Given::expanded(node, expanded)
        } else {
            Given::with_text(node, expanded)
        })
    }

    /// `written`, seen from the directory of the doc.
    pub(super) fn resolve(&self, doc: usize, written: &str) -> Result<PathBuf, Fault> {
        let path = Path::new(written);
        if written.is_empty() || path.file_name().is_none() || written.contains('\0') {
            return Err(Fault::of_value("is not the path of a file"));
        }
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        let directory = self
            .docs
            .get(doc)
            .and_then(|doc| doc.origin.file()?.parent());
        match directory {
            // Absolute, so that it can be written and read anywhere.
            Some(directory) => std::path::absolute(directory.join(path))
                .map_err(|error| Fault::of_value(format!("cannot be found: {error}"))),
            None => Err(Fault::of_value(
                "is relative to the config's file, and this config is in none: write an absolute path",
            )),
        }
    }

    /// A problem at `at` of which the message is still to come, for what is found out later.
    pub(super) fn place_of(&self, doc: usize, at: Span, key: &str) -> Problem {
        let mut problem = Problem::new(ProblemKind::BadValue, key, "");
        problem.variable = at.variable().and_then(|at| self.variables.get(at)).cloned();
        let origin = self.docs.get(doc).map(|doc| &doc.origin);
        if let Some(Origin::Text { file, text, .. }) = origin {
            problem.file = file.map(Path::to_owned);
            if let Some(bytes) = at.bytes() {
                // Places come in order: each is counted to from the one before.
                let (byte, last) = (super::page::floor(text, bytes.start), self.counted.get());
                let is_ahead = last.doc == doc && last.byte <= byte;
                let from = if is_ahead { last } else { Counted::begin(doc) };
                let here = from.to(text, byte);
                self.counted.set(here);
                (problem.line, problem.column) = (Some(here.line), Some(here.column));
            }
        }
        problem
    }

    /// The problems and the warnings, with their lines.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let problems = self.problems.take();
        let warnings = self.warnings.take();
        let pages = self.pages(problems.iter().chain(&warnings));
        (self.place(problems, &pages), self.place(warnings, &pages))
    }

    /// The pages of the docs that have something to be reported in them.
    fn pages<'p>(&self, pending: impl Iterator<Item = &'p Pending>) -> Vec<Option<Page<'t>>> {
        let mut pages: Vec<_> = self.docs.iter().map(|_| None).collect();
        for Pending { doc, also, .. } in pending {
            for doc in [Some(*doc), also.map(|(doc, _)| doc)].into_iter().flatten() {
                if let (Some(page @ None), Some(Doc { origin, .. })) =
                    (pages.get_mut(doc), self.docs.get(doc))
                    && let Origin::Text { text, format, .. } = origin
                {
                    // As it was written: what lies over it now hides nothing of it.
                    let root = format.parse(text, Places::Wanted).ok();
                    *page = Some(Page::new(text, *format, root.as_ref()));
                }
            }
        }
        pages
    }

    fn place(&self, pending: Vec<Pending>, pages: &[Option<Page<'t>>]) -> Vec<Problem> {
        let mut by_doc: Vec<Vec<(Problem, Span)>> = self.docs.iter().map(|_| Vec::new()).collect();
        let mut placed = Vec::new();
        for pending in pending {
            let (doc, at) = (pending.doc, pending.at);
            let mut problem = self.problem(pending, pages);
            match (at.variable(), by_doc.get_mut(doc)) {
                (None, Some(of_doc)) => of_doc.push((problem, at)),
                (variable, _) => {
                    problem.variable = variable.and_then(|at| self.variables.get(at)).cloned();
                    placed.push(problem);
                }
            }
        }
        for ((doc, page), problems) in self.docs.iter().zip(pages).zip(by_doc) {
            placed.extend(match (&doc.origin, page) {
                (Origin::Layers { figment, tags }, _) => {
                    locate::place_in_layers(problems, figment, tags, &doc.root)
                }
                (Origin::Text { .. }, Some(page)) => locate::place_all(page, problems),
                (Origin::Text { .. }, None) => Vec::new(),
            });
        }
        placed
    }

    fn problem(&self, pending: Pending, pages: &[Option<Page<'t>>]) -> Problem {
        let Pending {
            doc,
            key,
            fault,
            found,
            also,
            ..
        } = pending;
        let file = |doc: usize| self.docs.get(doc)?.origin.file();
        let mut problem = Problem {
            found,
            allowed: fault.allowed,
            nearest: fault.nearest,
            file: file(doc).map(Path::to_owned),
            ..Problem::new(fault.kind, key, fault.message)
        };
        let other = also.and_then(|(other, at)| {
            let page = pages.get(other)?.as_ref()?;
            let (line, _) = page.line_and_column(at.bytes()?.start);
            Some(match file(other).filter(|_| other != doc) {
                Some(file) => format!("{}:{line}", file.display()),
                None => format!("line {line}"),
            })
        });
        if let Some(other) = other {
            problem.message += &format!(", at {other}");
        }
        problem
    }
}

/// The problem of a text that could not be parsed.
pub(super) fn unparsed(file: Option<&Path>, text: &str, format: Format, syntax: Syntax) -> Problem {
    let kind = if syntax.is_empty {
        ProblemKind::Missing
    } else {
        ProblemKind::Syntax
    };
    let page = Page::new(text, format, None);
    let mut message: Cow<'_, str> = syntax.message.into();
    if let Some(first) = syntax.first.and_then(Span::bytes) {
        let (line, _) = page.line_and_column(first.start);
        message = format!("{message}, first at line {line}").into();
    }
    let mut problem = Problem::new(kind, "", message);
    problem.file = file.map(Path::to_owned);
    let problem = locate::place_all(&page, vec![(problem, syntax.at)]).pop();
    problem.unwrap_or_else(|| Problem::new(kind, "", ""))
}
