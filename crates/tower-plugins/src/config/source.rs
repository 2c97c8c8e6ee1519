//! Files and text to untyped values, one provider for the three formats.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Empty, Map, Tag, Value};
use figment::{Metadata, Profile, Provider};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{ConfigError, Problem};

/// The largest config file that is read.
const MAX_FILE: u64 = 10 << 20;

/// How a config is written. The three say the same things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JSON. A key that is written twice is refused.
    Json,
    /// YAML 1.2: only `true` and `false` are booleans, so `n`, `no` and `off` are text. A key that
    /// is written twice is refused; nesting and aliases are bounded.
    Yaml,
    /// TOML.
    Toml,
}

/// One text that a config is made of, as a figment [`Provider`].
///
/// Only for a program that composes its config of several: [`Config::from_file`] and
/// [`Config::parse`] are enough for one.
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
    root: Dict,
}

impl Format {
    /// The format that the extension of `path` stands for: `json`, `yaml`, `yml` or `toml`.
    #[must_use]
    pub fn of(path: impl AsRef<Path>) -> Option<Self> {
        let extension = path.as_ref().extension()?.to_str()?;
        match extension.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
            Self::Toml => "TOML",
        }
    }

    fn parse(self, text: &str) -> Result<Value, String> {
        let Tree(value) = match self {
            Self::Json => {
                let mut json = serde_json::Deserializer::from_str(text);
                Tree::deserialize(&mut json)
                    .and_then(|tree| json.end().map(|()| tree))
                    .map_err(|error| error.to_string())
            }
            Self::Yaml => serde_saphyr::from_str_with_options(text, yaml_options())
                .map_err(|error: serde_saphyr::Error| yaml_message(&error.to_string())),
            Self::Toml => toml::from_str(text).map_err(|error| toml_message(text, &error)),
        }
        .map_err(|message| format!("not valid {}: {message}", self.name()))?;
        Ok(value)
    }
}

/// What is refused here would otherwise be guessed at. The limits are far above any config and far
/// below what would hurt: 64 levels, and 100,000 events that aliases may stand for.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 64,
            max_aliases: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        // A snippet may show a secret.
        with_snippet: false,
    }
}

/// `message` without the name of a tag: a password that begins with `!` is one, without quotes.
fn yaml_message(message: &str) -> String {
    match message
        .strip_prefix("unsupported tag")
        .and_then(|m| m.rsplit_once('`'))
    {
        Some((_, place)) => {
            format!("tags are not supported, and text that begins with `!` needs quotes{place}")
        }
        None => message.to_owned(),
    }
}

/// The message without the source line that `Display` would show: it may hold a secret.
fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message;
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{message} at line {line} column {column}")
}

impl Source {
    /// Parses `text`.
    ///
    /// # Errors
    ///
    /// If it is empty, or not what `format` allows.
    pub fn text(text: &str, format: Format) -> Result<Self, ConfigError> {
        let problem = |message: String| ConfigError::from(Problem::new("", message));
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(problem("is empty: a config needs at least a plugin".into()));
        }
        match format.parse(text).map_err(problem)? {
            Value::Dict(_, root) => Ok(Self {
                format,
                file: None,
                root,
            }),
            Value::Empty(..) => Err(problem("is empty: a config needs at least a plugin".into())),
            _ => Err(problem("expected a table of keys at the top".into())),
        }
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
        Self::of_file(path, read(path).as_deref())
    }

    /// The file it was read from, if any, and its root.
    pub(super) fn into_parts(self) -> (Option<PathBuf>, Value) {
        (self.file, Value::Dict(Tag::Default, self.root))
    }

    /// The source that the file at `path` is when reading it gave `bytes`.
    pub(crate) fn of_file(
        path: &Path,
        bytes: Result<&[u8], &io::Error>,
    ) -> Result<Self, ConfigError> {
        let problem = |message: &str| Problem::new("", message).in_file(path);
        let bytes = bytes.map_err(|error| problem(&format!("cannot be read: {error}")))?;
        let format = Format::of(path)
            .ok_or_else(|| problem("unknown kind of file: name it .yaml, .yml, .json or .toml"))?;
        let text = std::str::from_utf8(bytes).map_err(|_| problem("is not UTF-8 text"))?;
        let source =
            Self::text(text, format).map_err(|error| problem(&error.problems()[0].message))?;
        Ok(Self {
            file: Some(path.to_owned()),
            ..source
        })
    }
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.format.name());
        match &self.file {
            Some(file) => metadata.source(figment::Source::File(file.clone())),
            None => metadata,
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.root.clone())]))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not its values: some are secrets.
        f.debug_struct("Source")
            .field("format", &self.format)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The bytes of the regular file at `path`, at most 10 MiB. This blocks.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let regular = |metadata: fs::Metadata| {
        if metadata.is_file() {
            Ok(())
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    };
    // Opening a pipe would wait for its writer, so look before; look again at what was opened.
    regular(fs::metadata(path)?)?;
    let file = File::open(path)?;
    regular(file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 10 MiB"));
    }
    Ok(bytes)
}

/// Any value, in which no table has a key twice.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Self)
    }
}

struct TreeVisitor;

/// The key under which the TOML parser hands out a date.
const TOML_DATE: &str = "$__toml_private_datetime";

macro_rules! visit_scalars {
    ($($visit:ident: $type:ty),+ $(,)?) => {
        $(fn $visit<E>(self, value: $type) -> Result<Value, E> {
            Ok(Value::from(value))
        })+
    };
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    visit_scalars! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128,
        visit_f64: f64, visit_str: &str, visit_string: String,
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty(Tag::Default, Empty::Unit))
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::from(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = Dict::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == TOML_DATE {
                return Err(de::Error::custom("no key takes a date: put it in quotes"));
            }
            if table.contains_key(&key) {
                return Err(de::Error::custom(format_args!(
                    "the key {key:?} is there twice"
                )));
            }
            let Tree(value) = entries.next_value()?;
            table.insert(key, value);
        }
        Ok(Value::from(table))
    }
}
