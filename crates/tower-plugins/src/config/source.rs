//! A text as a layer of a program's own figment.

use std::fmt;
use std::path::{Path, PathBuf};
#[cfg(feature = "watch")]
use std::time::Duration;

use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use secrecy::{ExposeSecret, SecretString};

use super::error::{ConfigError, Problem, ProblemKind};
use super::file;
use super::format::{Format, Places};
use super::report::unparsed;
#[cfg(feature = "watch")]
use super::units;

/// One text that a config is made of, as a figment [`Provider`].
///
/// Only for a program that composes its config of several, or has it in its own:
/// [`Config::from_file`] and [`Config::parse`] are enough for one.
///
/// [`Config::from_file`]: super::Config::from_file
/// [`Config::parse`]: super::Config::parse
///
/// ```
/// use figment::Figment;
/// use tower_plugins::config::{Config, Format, Source};
///
/// let base = Source::text("default_retry: { max_retries: 1 }", Format::Yaml)?;
/// let plugins = Source::text(
///     r#"plugins.auth = { transport = "unix", endpoint = "/run/auth.sock" }"#,
///     Format::Toml,
/// )?;
/// let config = Config::from_figment(&Figment::from(base).merge(plugins))?;
/// assert_eq!(config.plugins["auth"].policy.retry.as_ref().unwrap().max_retries, 1);
/// # Ok::<(), tower_plugins::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Source {
    format: Format,
    file: Option<PathBuf>,
    text: SecretString,
}

impl Source {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// If it is empty, or not what `format` allows.
    pub fn text(text: &str, format: Format) -> Result<Self, ConfigError> {
        Self::new(text, format, None)
    }

    /// Reads and parses the file at `path`, in the format that its extension says.
    ///
    /// The file is opened once. This blocks.
    ///
    /// # Errors
    ///
    /// If the extension is none of [`Format::of`]; if the file cannot be read, is no regular file,
    /// is larger than 10 MiB or not UTF-8; and as [`Source::text`] does.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let (bytes, _) = file::read(path).map_err(|error| unreadable(path, &error.to_string()))?;
        let (text, format) = text_of(path, &bytes)?;
        Self::new(text, format, Some(path))
    }

    fn new(text: &str, format: Format, file: Option<&Path>) -> Result<Self, ConfigError> {
        format
            .parse(text, Places::Cheap)
            .map_err(|syntax| unparsed(file, text, format, syntax))?;
        Ok(Self {
            format,
            file: file.map(Path::to_owned),
            text: text.to_owned().into(),
        })
    }
}

/// The problem of a config file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &str) -> Problem {
    let message = format!("cannot be read: {error}");
    Problem::new(ProblemKind::Unreadable, "", message).in_file(path)
}

/// The error of a config of which `path` is being read for longer than `limit`.
#[cfg(feature = "watch")]
pub(crate) fn overdue(path: &Path, limit: Duration) -> ConfigError {
    let limit = units::write_duration(limit);
    let message = format!(
        "is not read and checked within {limit} (reload.validation_timeout): see whether its file system answers; \
         what it says is taken when it has been read"
    );
    let problem = Problem::new(ProblemKind::Unreadable, "", message).in_file(path);
    problem.into()
}

/// The text that `bytes` are, and the format that the name of the file says.
pub(super) fn text_of<'b>(path: &Path, bytes: &'b [u8]) -> Result<(&'b str, Format), ConfigError> {
    let problem = |message: &str| Problem::new(ProblemKind::Unreadable, "", message).in_file(path);
    let format = Format::of(path)
        .ok_or_else(|| problem("unknown kind of file: name it .yaml, .yml, .json or .toml"))?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        Problem {
            line: Some(line),
            ..problem("is not UTF-8 text")
        }
    })?;
    Ok((text, format))
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.format.to_string());
        match &self.file {
            Some(file) => metadata.source(figment::Source::File(file.clone())),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let root = self
            .format
            .parse(self.text.expose_secret(), Places::Cheap)
            .map_err(|syntax| figment::Error::from(syntax.message))?;
        let dict = root.to_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its text: some of it is secret.
        f.debug_struct("Source")
            .field("format", &self.format)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
