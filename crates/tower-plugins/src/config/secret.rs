//! Secrets, and where they come from: `file:` and the path of a file, or the text itself.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::error::ProblemKind;
use super::fault::Fault;
use super::file::{Files, Opened};

/// A text that is never printed, is compared in constant time, and is wiped when dropped.
///
/// Two are equal when the texts are, wherever they came from.
#[derive(Clone)]
pub struct Secret {
    text: SecretString,
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self {
            text: text.into(),
            file: None,
        }
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The file that it was read from, if it was.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.expose().as_bytes(), other.expose().as_bytes());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is written in the place of a secret that is not shown.
pub(super) const HIDDEN: &str = "***";

const FILE: &str = "file:";
const LITERAL: &str = "literal:";

/// The path of the file that holds the secret, if `written` names one.
pub(super) fn file_of(written: &str) -> Option<&str> {
    written.strip_prefix(FILE)
}

/// The secret that `written` is.
pub(super) fn literal(written: &str) -> Result<Secret, Fault> {
    if written == HIDDEN {
        return Err(Fault::of_secret(
            "`***` stands for a secret that was not shown: write the secret itself, or \
             `file:` and the path of a file that holds it",
        ));
    }
    let text = written.strip_prefix(LITERAL).unwrap_or(written);
    Ok(Secret::new(text.to_owned()))
}

/// `secret` so written that it is read again as it is.
pub(super) fn write(secret: &Secret) -> String {
    if let Some(file) = secret.file().and_then(Path::to_str) {
        return super::expand::escape(&format!("{FILE}{file}")).into_owned();
    }
    let text = super::expand::escape(secret.expose());
    if text.starts_with(FILE) || text.starts_with(LITERAL) || text == HIDDEN {
        format!("{LITERAL}{text}")
    } else {
        text.into_owned()
    }
}

/// The secret that the file at `path`, called `shown`, holds, without the line break at its end.
pub(super) fn from_file(path: &Path, shown: &str, files: &Files) -> Result<Secret, Fault> {
    let fault = |message: String| Fault::new(ProblemKind::File, message);
    let opened = files
        .read(path)
        .map_err(|error| fault(format!("{shown} cannot be read: {error}")))?;
    check_mode(&opened, shown)?;
    let text = std::str::from_utf8(opened.contents.expose())
        .map_err(|_| fault(format!("{shown} is not UTF-8 text")))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(fault(format!("{shown} is empty")));
    }
    Ok(Secret {
        text: text.to_owned().into(),
        file: Some(path.to_owned()),
    })
}

/// Refuses a file that others than its owner and group can read, or others than its owner write.
pub(super) fn check_mode(opened: &Opened, shown: &str) -> Result<(), Fault> {
    let Some(mode) = opened.mode.filter(|mode| mode & 0o027 != 0) else {
        return Ok(());
    };
    let who = if mode & 0o022 == 0 { "read" } else { "changed" };
    Err(Fault::new(
        ProblemKind::File,
        format!(
            "{shown} can be {who} by others (mode {:04o}): `chmod 0600` it, or `defaultMode: 0400` \
             for a Kubernetes secret",
            mode & 0o7777
        ),
    ))
}
