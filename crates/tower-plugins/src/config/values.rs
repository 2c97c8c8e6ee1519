//! The values of a table, each as its key takes it.

use std::time::Duration;

use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::Kind;
use super::report::Report;
use super::secret;
use super::table::Table;
use super::tree::{Node, Value};
use super::units::{self, LONGEST};
use super::{FileContents, Number, Secret};

/// One item of a list.
pub(super) struct Item<'t> {
    pub(super) path: String,
    pub(super) given: Given<'t>,
}

impl<'t> Table<'t> {
    pub(super) fn bool(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, |given, _| given.bool())
    }

    pub(super) fn integer(&mut self, key: &'static str) -> Option<u32> {
        self.read(key, |given, kind| {
            let Kind::Integer(least, most) = kind else {
                return Err(wrong_kind());
            };
            let whole = match (given.whole(), given.number()) {
                (Some(whole), _) => whole,
                (None, Some(number)) if given.environment_text().is_none() => {
                    if number.abs() > 9e15 || number.is_nan() {
                        return Err(Fault::out_of_range("the number", least, most, ""));
                    }
                    return Err(Fault {
                        allowed: Some(format!("{least} to {most}")),
                        ..Fault::of_secret(format!(
                            "expected a whole number, {least} to {most}, found {number:?}"
                        ))
                    });
                }
                _ if given.is_from_environment() => {
                    return Err(Fault::of_value("is not a whole number"));
                }
                _ => return Err(given.expected_here("a whole number")),
            };
            u32::try_from(whole)
                .ok()
                .filter(|whole| (least..=most).contains(whole))
                .ok_or_else(|| {
                    if given.is_from_environment() {
                        return Fault::of_value(format!("is out of range, {least} to {most}"));
                    }
                    Fault::out_of_range(whole, least, most, "")
                })
        })
    }

    pub(super) fn number(&mut self, key: &'static str) -> Option<Number> {
        self.read(key, |given, kind| {
            let Kind::Number(least, most) = kind else {
                return Err(wrong_kind());
            };
            match given.number() {
                Some(number) => within(number, least, most, given),
                None if given.is_from_environment() => Err(Fault::of_value("is not a number")),
                None => Err(given.expected_here("a number")),
            }
        })
    }

    /// A number of times a second, or a text with its unit.
    pub(super) fn rate(&mut self, key: &'static str) -> Option<Number> {
        self.read(key, |given, kind| {
            let Kind::Rate(least, most) = kind else {
                return Err(wrong_kind());
            };
            match (given.number(), &given.text) {
                (Some(number), _) => within(number, least, most, given),
                (None, Some(text)) => within(units::rate(text)?, least, most, given),
                (None, None) => Err(given.expected("a number, or a text such as \"90/m\"")),
            }
        })
    }

    /// A duration, which may be zero only where the key's kind says so.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.read(key, |given, kind| {
            let zero = || Fault::of_secret("must be longer than zero: write one such as \"30s\"");
            let is_timeout = matches!(kind, Kind::Timeout);
            if is_timeout && given.whole() == Some(0) {
                return Err(zero());
            }
            let duration = duration(given)?;
            if is_timeout && duration.is_zero() {
                return Err(zero());
            }
            Ok(duration)
        })
    }

    /// A duration above zero, or `off`, which is `Some(None)`.
    pub(super) fn timeout_or_off(&mut self, key: &'static str) -> Option<Option<Duration>> {
        self.read(key, |given, _| {
            if given.text.as_deref() == Some("off") {
                return Ok(None);
            }
            duration(given).map(|d| (!d.is_zero()).then_some(d))
        })
    }

    /// A size in bytes; `Some(None)` is `off`, where the key's kind allows that.
    pub(super) fn size_or_off(&mut self, key: &'static str) -> Option<Option<u64>> {
        self.read(key, |given, kind| {
            let (least, most) = match kind {
                Kind::SizeOrOff(..) if given.text.as_deref() == Some("off") => return Ok(None),
                Kind::SizeOrOff(least, most) | Kind::Size(least, most) => (least, most),
                _ => return Err(wrong_kind()),
            };
            let bytes = match (given.whole(), given.number()) {
                (Some(bytes), _) => u64::try_from(bytes)
                    .map_err(|_| Fault::of_secret(format!("{bytes} is not a size")))?,
                (None, Some(number)) if given.text.is_none() => {
                    return Err(Fault::of_secret(format!("{number} is not a size")));
                }
                _ => units::size(given.text()?)?,
            };
            if (least..=most).contains(&bytes) {
                return Ok(Some(bytes));
            }
            let [shown, least, most] = [bytes, least, most].map(units::write_size);
            if given.is_from_environment() {
                return Err(Fault::of_value(format!(
                    "is out of range, {least} to {most}"
                )));
            }
            Err(Fault::out_of_range(shown, least, most, ""))
        })
    }

    pub(super) fn size(&mut self, key: &'static str) -> Option<u64> {
        self.size_or_off(key).flatten()
    }

    /// A text that no message repeats, itself or in a file.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) -> Option<Secret> {
        let (report, doc) = (self.report(), self.doc());
        self.read(key, |given, _| {
            let secret = read_secret(report, doc, given)?;
            check(secret.expose())?;
            Ok(secret)
        })
    }

    /// What the file holds that `key` names.
    pub(super) fn file(&mut self, key: &'static str, private: bool) -> Option<FileContents> {
        let (report, doc) = (self.report(), self.doc());
        self.read(key, |given, _| {
            let path = report.resolve(doc, given.text()?)?;
            let shown = given.file_shown(&path);
            let opened = report.files.read(&path).map_err(|error| {
                Fault::new(
                    ProblemKind::File,
                    format!("{shown} cannot be read: {error}"),
                )
            })?;
            if private {
                secret::check_mode(&opened, &shown)?;
            }
            Ok(opened.contents)
        })
    }

    /// The items of a list; from the environment, of a text with commas.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<Item<'t>>> {
        let path = self.path_of(key);
        let item = |index, given| Item {
            path: format!("{path}[{index}]"),
            given,
        };
        self.pass(&[key]);
        let nodes: &'t [Node<'t>] = match &self.get(key)?.value {
            Value::List(items) => items,
            _ => {
                return self.read(key, |given, _| {
                    let Some(text) = given.environment_text() else {
                        return Err(given.expected("a list"));
                    };
                    let texts = text.split(',').map(str::trim).enumerate();
                    let given = |text: &str| given.part(text.to_owned());
                    Ok(texts
                        .map(|(index, text)| item(index, given(text)))
                        .collect())
                });
            }
        };
        let mut items = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            match self.report().given(node) {
                Ok(given) => items.push(item(index, given)),
                Err(fault) => {
                    let path = format!("{path}[{index}]");
                    let given = Given::unread(node);
                    self.report()
                        .add_given(self.doc(), node.at, path, fault, &given);
                }
            }
        }
        Some(items)
    }

    /// A list of texts, each as `parse` understands it. One that is wrong is reported and left out.
    pub(super) fn texts<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let items = self.list(key)?;
        let mut texts = Vec::with_capacity(items.len());
        for Item { path, given } in items {
            match given.text().and_then(&parse) {
                Ok(text) => texts.push(text),
                Err(fault) => {
                    let (report, at) = (self.report(), given.node.at);
                    report.add_given(self.doc(), at, path, fault, &given);
                }
            }
        }
        Some(texts)
    }

    /// One word out of a few, those of the key's kind.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.read(key, |given, kind| {
            let word = given.text()?;
            let meaning = words.iter().find(|(name, _)| *name == word);
            let Kind::Word(known) = kind else {
                return Err(wrong_kind());
            };
            meaning
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| Fault::unknown_word(word, known.iter().copied()))
        })
    }
}

fn within(number: f64, least: f64, most: f64, given: &Given<'_>) -> Result<Number, Fault> {
    Number::new(number)
        .filter(|_| (least..=most).contains(&number))
        .ok_or_else(|| {
            if given.is_from_environment() {
                return Fault::of_value(format!("is out of range, {least} to {most}"));
            }
            Fault::out_of_range(number, least, most, "")
        })
}

/// The table of keys says that the key takes something else than its reader does.
fn wrong_kind() -> Fault {
    debug_assert!(false, "the key's reader is not that of its kind");
    Fault::of_secret("cannot be read")
}

/// The secret that `given` is or names.
pub(super) fn read_secret(
    report: &Report<'_>,
    doc: usize,
    given: &Given<'_>,
) -> Result<Secret, Fault> {
    let text = given.text()?;
    // What a variable holds is the secret itself; only what is written can name a file.
    let written = match &given.node.value {
        Value::Text(written) => secret::file_of(written).is_some(),
        _ => false,
    };
    match secret::file_of(text).filter(|_| written) {
        Some(path) => {
            let resolved = report.resolve(doc, path).map_err(|fault| Fault {
                names_value: false,
                message: match given.is_from_environment() {
                    true => format!("the path of its file {}", fault.message),
                    false => format!("{path:?} {}", fault.message),
                },
                ..fault
            })?;
            secret::from_file(&resolved, &given.file_shown(&resolved), report.files)
        }
        None if given.is_expanded() => Ok(Secret::new(text.to_owned())),
        None => secret::literal(text),
    }
}

fn duration(given: &Given<'_>) -> Result<Duration, Fault> {
    let Some(number) = given.number().filter(|_| given.text.is_none()) else {
        return units::duration(given.text()?);
    };
    // What was meant by a number is not known: mostly it is seconds, and go-plugins has nanoseconds.
    let in_seconds = Some(format!("{number}s")).filter(|_| number < 86_400.0);
    let in_nanoseconds = given.whole().and_then(|whole| u64::try_from(whole).ok());
    let seconds = in_seconds
        .or_else(|| in_nanoseconds.map(|whole| units::write_duration(Duration::from_nanos(whole))))
        .filter(|written| units::duration(written).is_ok())
        .unwrap_or_else(|| "30s".to_owned());
    let longest = LONGEST.as_secs() / 86_400;
    Err(Fault {
        allowed: Some(format!(
            "a duration such as \"100ms\" or \"1h30m\", at most {longest}d"
        )),
        ..Fault::new(
            ProblemKind::WrongType,
            format!("a duration is text with its unit: write \"{seconds}\"; at most {longest}d"),
        )
    })
}
