//! Why a config was refused.

use std::fmt;
use std::path::PathBuf;

/// Every reason why a config was refused.
///
/// All that is wrong is said at once, so that an operator mends a file once. No message holds a
/// secret.
///
/// ```
/// use tower_plugins::config::{Config, Format};
///
/// let error = Config::parse(
///     "plugins: [{name: a, transport: http, endpoint: 'http://127.0.0.1:1', enabeld: true}]",
///     Format::Yaml,
/// )
/// .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "plugins[0].enabeld: unknown key, did you mean `enabled`?"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One reason why a config was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file it is in, when the value came from a file.
    pub file: Option<PathBuf>,
    /// Where in the config it is, such as `plugins[2].retry.max_retries`; empty for the whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl ConfigError {
    /// The problems, in the order in which they were found; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(super) const fn from_problems(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The problems of both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self
    }
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: None,
            key: key.into(),
            message: message.into(),
        }
    }

    pub(super) fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
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
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [problem] = &self.problems[..] {
            return problem.fmt(f);
        }
        write!(f, "{} problems in the config:", self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The word of `known` that `word` was most likely meant to be, if one is near.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // A third of the letters may be wrong: enough for a slip, too few for another word.
    let near = |candidate: &str| word.len().max(candidate.len()).div_ceil(3);
    // A key may be as long as the file: the distance is only worth its time for short words.
    known
        .iter()
        .filter(|_| word.len() <= 64)
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance, in bytes, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["timeout", "retry", "request_timeout", "enabled"];
        assert_eq!(nearest("tiemout", &known), Some("timeout"));
        assert_eq!(nearest("retries", &known), Some("retry"));
        assert_eq!(nearest("request_timout", &known), Some("request_timeout"));
        assert_eq!(nearest("labels", &known), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
