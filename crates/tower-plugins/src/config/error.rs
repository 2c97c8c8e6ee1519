//! Why a config was refused.

use std::fmt;
use std::path::PathBuf;

use annotate_snippets::Level;

use super::page::Snippet;

/// Every reason why a config was refused.
///
/// All that is wrong is said at once, so that an operator mends a file once. [`Display`](fmt::Display)
/// has a line for each problem; [`render`](Self::render) shows the lines of the file as well. No
/// message shows a secret.
///
/// ```
/// use tower_plugins::config::{Config, Format, ProblemKind};
///
/// let error = Config::parse(
///     "plugins: [{name: a, transport: http, endpoint: 'http://127.0.0.1:1', enabeld: true}]",
///     Format::Yaml,
/// )
/// .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "1:70: plugins[0].enabeld: unknown key, did you mean `enabled`?"
/// );
/// let problem = &error.problems()[0];
/// assert_eq!(problem.kind, ProblemKind::UnknownKey);
/// assert_eq!(problem.nearest.as_deref(), Some("enabled"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One thing that is wrong with a config, or that is worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What sort of problem it is.
    pub kind: ProblemKind,
    /// The file it is in, when the value came from a file.
    pub file: Option<PathBuf>,
    /// The line it is in, from 1, where that is known.
    pub line: Option<usize>,
    /// The column where it begins, in characters from 1.
    pub column: Option<usize>,
    /// The environment variable that the value came from, if it came from one.
    pub variable: Option<String>,
    /// Where in the config it is, such as `plugins[2].retry.max_retries`; empty for the whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
    /// What was found there, unless it may be a secret.
    pub found: Option<String>,
    /// What may stand there.
    pub allowed: Option<String>,
    /// The known key or word that is nearest to the one that was found.
    pub nearest: Option<String>,
    pub(super) snippet: Option<Box<Snippet>>,
}

/// What sort of problem a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The config file, or one it includes, cannot be read.
    Unreadable,
    /// It is not what its format allows.
    Syntax,
    /// A key that is not known.
    UnknownKey,
    /// A key that is known and not available in this version.
    Unavailable,
    /// A key that has to be there is not.
    Missing,
    /// A value of another type than the key takes.
    WrongType,
    /// A value that the key does not take.
    BadValue,
    /// A value that does not go with another one.
    Conflict,
    /// A value that would do nothing.
    Ineffective,
    /// A variable that is not set, or not written as one.
    Variable,
    /// A file that the config names, and that is not what it should be.
    File,
}

impl ProblemKind {
    /// The word for it, such as `unknown_key`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown_key",
            Self::Unavailable => "unavailable",
            Self::Missing => "missing",
            Self::WrongType => "wrong_type",
            Self::BadValue => "bad_value",
            Self::Conflict => "conflict",
            Self::Ineffective => "ineffective",
            Self::Variable => "variable",
            Self::File => "file",
        }
    }
}

/// Problems that are shown. A file in which one mistake was made a thousand times needs no more.
pub(super) const SHOWN: usize = 25;

impl ConfigError {
    /// The problems, in the order of the files and their lines; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The problems for a terminal, each with its line and a caret under what is wrong; in colour if
    /// `colored`. In the lines every value that is, or may be, a secret is `***`.
    ///
    /// ```
    /// use tower_plugins::config::{Config, Format};
    ///
    /// let text = "
    /// plugins:
    ///   search: { transport: http, endpoint: 'http://h', drain_timeout: 30 }
    /// ";
    /// assert_eq!(
    ///     Config::parse(text, Format::Yaml).unwrap_err().render(false),
    ///     r#"error: plugins.search.drain_timeout: a duration is text with its unit: write "30s"; at most 365d
    ///   |
    /// 3 |   search: { transport: http, endpoint: 'http://h', drain_timeout: 30 }
    ///   |                                                                   ^^"#,
    /// );
    /// ```
    #[must_use]
    pub fn render(&self, colored: bool) -> String {
        let shown = self.problems.iter().take(SHOWN);
        let mut blocks: Vec<_> = shown.map(|problem| problem.render(colored)).collect();
        if let Some(more) = self.beyond_shown() {
            blocks.push(format!("error: {more}"));
        }
        blocks.join("\n\n")
    }

    fn beyond_shown(&self) -> Option<String> {
        let more = self.problems.len().checked_sub(SHOWN + 1)? + 1;
        Some(format!("and {more} more problems"))
    }

    pub(super) fn from_problems(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            let place = |problem: &Problem| (problem.line, problem.column);
            place(a).cmp(&place(b))
        });
        problems.sort_by(|a, b| a.file.cmp(&b.file));
        Self { problems }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The problems of both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self
    }
}

impl Problem {
    pub(super) fn new(
        kind: ProblemKind,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            file: None,
            line: None,
            column: None,
            variable: None,
            key: key.into(),
            message: message.into(),
            found: None,
            allowed: None,
            nearest: None,
            snippet: None,
        }
    }

    pub(super) fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The problem for a terminal; see [`ConfigError::render`].
    #[must_use]
    pub fn render(&self, colored: bool) -> String {
        super::locate::render(self, Level::ERROR, colored)
    }

    /// As [`render`](Self::render), headed as a warning.
    #[must_use]
    pub fn render_as_warning(&self, colored: bool) -> String {
        super::locate::render(self, Level::WARNING, colored)
    }

    /// The path and the message, without the place.
    pub(super) fn headline(&self) -> String {
        let mut line = String::new();
        if let Some(variable) = &self.variable {
            line = format!("{variable}: ");
        }
        if !self.key.is_empty() {
            line = format!("{line}{}: ", self.key);
        }
        line + &self.message
    }

    /// `plugins.yaml:12:5`, as far as it is known.
    pub(super) fn place(&self) -> String {
        let mut place = self
            .file
            .as_ref()
            .map_or_else(String::new, |file| file.display().to_string());
        for number in [self.line, self.column].into_iter().flatten() {
            if !place.is_empty() {
                place.push(':');
            }
            place += &number.to_string();
        }
        place
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.headline())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [problem] = &self.problems[..] {
            return problem.fmt(f);
        }
        write!(f, "{} problems in the config:", self.problems.len())?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  - {problem}")?;
        }
        match self.beyond_shown() {
            Some(more) => write!(f, "\n  - {more}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}
