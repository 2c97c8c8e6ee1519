//! Reads a table key by key, and keeps account of what is wrong with it.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Tag, Value};

use super::error::{Problem, nearest};
use super::units::{self, LONGEST};
use super::{Number, Secret};

/// What was found wrong in one config.
pub(super) struct Report<'a> {
    origin: Origin<'a>,
    problems: RefCell<Vec<Problem>>,
}

/// Where the values of a config come from.
pub(super) enum Origin<'a> {
    /// Layers that were merged, as the tags of the values tell.
    Layers(&'a Figment),
    /// One file, or a text that is in none.
    One(Option<&'a Path>),
}

impl Origin<'_> {
    fn file(&self, tag: Tag) -> Option<&Path> {
        let figment = match self {
            Self::One(file) => return *file,
            Self::Layers(figment) => figment,
        };
        // The root itself is merged and so belongs to no source, unless there is just one.
        let mut sources = figment.metadata();
        let only = sources.next().filter(|_| sources.next().is_none());
        let metadata = figment.get_metadata(tag).or(only)?;
        metadata.source.as_ref()?.file_path()
    }
}

/// A table of the config. Each key that is asked for is a known one; [`Table::finish`] reports the
/// others.
///
/// A value that is wrong is reported and then treated as absent, so that reading goes on.
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    path: String,
    tag: Tag,
    entries: &'a Dict,
    known: Vec<&'static str>,
    problems_before: usize,
}

impl<'a> Report<'a> {
    pub(super) const fn new(origin: Origin<'a>) -> Self {
        Self {
            origin,
            problems: RefCell::new(Vec::new()),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(super) fn add(&self, tag: Tag, key: impl Into<String>, message: impl Into<String>) {
        let file = self.origin.file(tag);
        let problem = Problem::new(key, message);
        self.problems.borrow_mut().push(match file {
            Some(file) => problem.in_file(file),
            None => problem,
        });
    }

    /// The table `value` at `path`; anything else is reported.
    pub(super) fn table(&'a self, path: impl Into<String>, value: &'a Value) -> Option<Table<'a>> {
        let path = path.into();
        let Some(entries) = value.as_dict() else {
            self.add(value.tag(), path, expected("a table", value));
            return None;
        };
        Some(Table {
            report: self,
            path,
            tag: value.tag(),
            entries,
            known: Vec::new(),
            problems_before: self.problems.borrow().len(),
        })
    }
}

impl<'a> Table<'a> {
    /// The path of `key` in this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if key.is_empty() || !key.bytes().all(plain) {
            format!("{}[{key:?}]", self.path)
        } else if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Reports `message` for `key`.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        let tag = self.entries.get(key).map_or(self.tag, Value::tag);
        self.report.add(tag, self.path_of(key), message);
    }

    /// Whether nothing was found wrong in this table yet: the time to compare its values.
    pub(super) fn is_sound(&self) -> bool {
        self.report.problems.borrow().len() == self.problems_before
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn entries(&self) -> &'a Dict {
        self.entries
    }

    /// The value of `key`.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.allow(key);
        let value = self.entries.get(key)?;
        if matches!(value, Value::Empty(..)) {
            self.problem(key, "has no value: give it one, or remove the key");
            return None;
        }
        Some(value)
    }

    /// The value of `key` as `parse` understands it.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        parse(value)
            .map_err(|message| self.problem(key, message))
            .ok()
    }

    /// Reports that `key` is missing, unless it is there.
    pub(super) fn require(&self, key: &str) {
        if !self.has(key) {
            self.problem(key, "is missing");
        }
    }

    /// Lets `key` be there without reading it.
    pub(super) fn allow(&mut self, key: &'static str) {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
    }

    /// Refuses `key`, which is known but does not belong here because of `why`.
    pub(super) fn refuse(&mut self, key: &'static str, why: impl Into<String>) {
        self.allow(key);
        if self.has(key) {
            self.problem(key, why);
        }
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Self> {
        let value = self.value(key)?;
        self.report.table(self.path_of(key), value)
    }

    pub(super) fn bool(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, |value| {
            value
                .to_bool()
                .ok_or_else(|| expected("true or false", value))
        })
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        self.read(key, |value| {
            let number = integer(value).ok_or_else(|| match value {
                Value::Num(..) => format!(
                    "expected a whole number, {} to {}",
                    range.start(),
                    range.end()
                ),
                _ => expected("a whole number", value),
            })?;
            u32::try_from(number)
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| out_of(number, range.start(), range.end()))
        })
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<f64>,
    ) -> Option<Number> {
        self.read(key, |value| {
            let number = value.to_num().ok_or_else(|| expected("a number", value))?;
            #[allow(clippy::cast_precision_loss)] // a config needs no more than 53 bits
            let number = number
                .to_f64()
                .or_else(|| integer(value).map(|whole| whole as f64))
                .ok_or_else(|| expected("a number", value))?;
            Number::new(number)
                .filter(|_| range.contains(&number))
                .ok_or_else(|| out_of(number, range.start(), range.end()))
        })
    }

    /// A duration, which may be zero.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.read(key, duration)
    }

    /// A duration above zero.
    pub(super) fn timeout(&mut self, key: &'static str) -> Option<Duration> {
        self.read(key, |value| match duration(value)? {
            Duration::ZERO => Err("must be longer than zero".to_owned()),
            duration => Ok(duration),
        })
    }

    /// A duration above zero, or `off`, which is `Some(None)`.
    pub(super) fn timeout_or_off(&mut self, key: &'static str) -> Option<Option<Duration>> {
        self.read(key, |value| {
            if value.as_str() == Some("off") {
                return Ok(None);
            }
            duration(value).map(|d| (!d.is_zero()).then_some(d))
        })
    }

    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.read(key, |value| size(value, &range))
    }

    /// A size, or `off`, which is `Some(None)`.
    pub(super) fn size_or_off(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Option<u64>> {
        self.read(key, |value| {
            if value.as_str() == Some("off") {
                return Ok(None);
            }
            size(value, &range).map(Some)
        })
    }

    /// A text that no message repeats.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Option<Secret> {
        self.read(key, |value| {
            let text = text(value)?;
            check(text).map(|()| Secret::new(text.to_owned()))
        })
    }

    pub(super) fn list(&mut self, key: &'static str) -> Option<&'a [Value]> {
        self.read(key, |value| {
            value.as_array().ok_or_else(|| expected("a list", value))
        })
    }

    /// One word out of a few.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.read(key, |value| {
            let word = text(value)?;
            let known = words.iter().find(|(name, _)| *name == word);
            known
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| unknown_word(word, words))
        })
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.entries.keys() {
            if self.known.iter().any(|known| known == key) {
                continue;
            }
            self.problem(
                key,
                match nearest(key, &self.known) {
                    Some(near) => format!("unknown key, did you mean `{near}`?"),
                    None => format!("unknown key, known here: {}", self.known.join(", ")),
                },
            );
        }
    }
}

/// The text of `value`. The message does not repeat the value, which may be a secret.
///
/// What looks like a variable is refused: taken as it stands, it would go to the plugin as a secret
/// that it is not.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    let text = value.as_str().ok_or_else(|| {
        let message = expected("text", value);
        match value {
            Value::Num(..) | Value::Bool(..) => format!("{message}; put it in quotes"),
            _ => message,
        }
    })?;
    if text.contains("${") {
        return Err(
            "holds `${`, and variables are not expanded yet: write the value itself".into(),
        );
    }
    Ok(text)
}

/// Says that `what` was expected where `value` is, without repeating the value.
pub(super) fn expected(what: &str, value: &Value) -> String {
    let found = match value {
        Value::String(..) | Value::Char(..) => "text",
        Value::Bool(..) => "a boolean",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    };
    format!("expected {what}, found {found}")
}

fn unknown_word<T>(word: &str, words: &[(&str, T)]) -> String {
    let known: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    match nearest(word, &known) {
        Some(near) => format!("{word:?} is unknown, did you mean {near:?}?"),
        None => format!("{word:?} is unknown, known here: {}", known.join(", ")),
    }
}

fn integer(value: &Value) -> Option<i128> {
    let number = value.to_num()?;
    let unsigned = || number.to_u128().and_then(|n| i128::try_from(n).ok());
    number.to_i128().or_else(unsigned)
}

fn duration(value: &Value) -> Result<Duration, String> {
    let Some(number) = value.to_num() else {
        return units::duration(text(value)?);
    };
    let seconds = integer(value)
        .map(|whole| format!("{whole}s"))
        .or_else(|| number.to_f64().map(|seconds| format!("{seconds}s")))
        .filter(|written| units::duration(written).is_ok())
        .unwrap_or_else(|| "30s".to_owned());
    Err(format!(
        "a duration is text with its unit: write \"{seconds}\"; at most {}d",
        LONGEST.as_secs() / 86_400
    ))
}

fn size(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = match integer(value) {
        Some(bytes) => u64::try_from(bytes).map_err(|_| format!("{bytes} is not a size"))?,
        None => units::size(text(value)?)?,
    };
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    Err(out_of(bytes, range.start(), range.end()) + " bytes")
}

fn out_of(value: impl Display, least: impl Display, most: impl Display) -> String {
    format!("{value} is out of range, {least} to {most}")
}
