//! Reads a table key by key, and keeps account of what is wrong with it.

use std::time::Duration;

use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::{Block, Key, Kind};
use super::nearest::nearest;
use super::report::Report;
use super::secret;
use super::tree::{Entry, Node, Span, Value};
use super::units::{self, LONGEST};
use super::{FileContents, Number, Secret};

/// A table of the config. [`Table::finish`] reports the keys that its block does not have.
///
/// A value that is wrong is reported and then treated as absent, so that reading goes on.
pub(super) struct Table<'t> {
    report: &'t Report<'t>,
    doc: usize,
    block: &'static Block,
    path: String,
    /// Of its key, if it has one.
    at: Span,
    entries: &'t [Entry<'t>],
    problems_before: usize,
    #[cfg(debug_assertions)]
    asked: std::collections::HashSet<&'static str>,
}

/// One item of a list.
pub(super) struct Item<'t> {
    pub(super) path: String,
    pub(super) given: Given<'t>,
}

/// How a block may be written.
pub(super) enum Written<'t> {
    Table(Table<'t>),
    /// `off`.
    Off,
    /// `default`: the library's.
    Default,
}

impl<'t> Table<'t> {
    pub(super) fn new(
        report: &'t Report<'t>,
        doc: usize,
        block: &'static Block,
        path: String,
        at: Span,
        entries: &'t [Entry<'t>],
    ) -> Self {
        Self {
            report,
            doc,
            block,
            path,
            at,
            entries,
            problems_before: report.problem_count(),
            #[cfg(debug_assertions)]
            asked: std::collections::HashSet::new(),
        }
    }

    /// The path of `key` in this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) const fn report(&self) -> &'t Report<'t> {
        self.report
    }

    pub(super) const fn doc(&self) -> usize {
        self.doc
    }

    pub(super) const fn entries(&self) -> &'t [Entry<'t>] {
        self.entries
    }

    fn entry(&self, key: &str) -> Option<&'t Entry<'t>> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of `key`, whatever it is.
    pub(super) fn get(&self, key: &str) -> Option<&'t Node<'t>> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The block that `key` takes; this one, if it takes none.
    pub(super) fn block_of(&self, key: &str) -> &'static Block {
        match self.block.key(key).map(|key| key.kind) {
            Some(Kind::Block(block)) => block,
            _ => self.block,
        }
    }

    /// Where `key` is written; where the table is, if it is not.
    pub(super) fn place_of(&self, key: &str) -> Span {
        self.entry(key).map_or(self.at, |entry| entry.at)
    }

    /// Reports `fault` of `key`.
    pub(super) fn problem(&self, key: &str, fault: impl Into<Fault>) {
        let (at, path) = (self.place_of(key), self.path_of(key));
        self.report.add(self.doc, at, path, fault.into());
    }

    /// Reports `fault` of the value of `key`.
    fn problem_of(&self, entry: &Entry<'t>, fault: Fault, given: &Given<'_>) {
        let path = self.path_of(&entry.key);
        let at = value_place(entry);
        self.report.add_given(self.doc, at, path, fault, given);
    }

    /// Reports that `key` contradicts something else.
    pub(super) fn conflict(&self, key: &str, message: impl Into<String>) {
        self.problem(key, Fault::new(ProblemKind::Conflict, message));
    }

    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        let (at, path) = (self.place_of(key), self.path_of(key));
        self.report.warn(self.doc, at, path, message.into());
    }

    /// Whether nothing was found wrong in this table yet: the time to compare its values.
    pub(super) fn is_sound(&self) -> bool {
        self.report.problem_count() == self.problems_before
    }

    /// Says that `key` is one that this reader knows. In a debug build the table of keys is held to
    /// that when the table ends.
    fn ask(&mut self, key: &'static str) {
        #[cfg(debug_assertions)]
        self.asked.insert(key);
        let _ = key;
    }

    /// Lets `keys` be there without reading them.
    pub(super) fn pass(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.ask(key);
        }
    }

    fn written(&mut self, key: &'static str) -> Option<(&'t Entry<'t>, &'static Key)> {
        self.ask(key);
        let entry = self.entry(key)?;
        if matches!(entry.node.value, Value::Null) {
            let fault = Fault::new(
                ProblemKind::Missing,
                "has no value: give it one, or remove the key",
            );
            self.problem(key, fault);
            return None;
        }
        Some((entry, self.block.key(key)?))
    }

    /// The value of `key` as `parse` understands it.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Given<'t>, Kind) -> Result<T, Fault>,
    ) -> Option<T> {
        let (entry, key) = self.written(key)?;
        let given = match self.report.given(&entry.node) {
            Ok(given) => given,
            Err(fault) => {
                self.problem_of(entry, fault, &Given::of(&entry.node));
                return None;
            }
        };
        parse(&given, key.kind)
            .map_err(|fault| self.problem_of(entry, fault, &given))
            .ok()
    }

    /// Reports that `key` is missing, unless it is there.
    pub(super) fn require(&self, key: &str) {
        if self.has(key) {
            return;
        }
        let mut fault = Fault::new(ProblemKind::Missing, "is missing");
        if let Some(Kind::Word(words)) = self.block.key(key).map(|key| key.kind) {
            let words = words.join(", ");
            fault.message = format!("is missing: one of {words}");
            fault.allowed = Some(words);
        }
        self.problem(key, fault);
    }

    /// Refuses `key`, which is known but does not belong here because of `why`.
    pub(super) fn refuse(&mut self, key: &'static str, why: &str) {
        self.ask(key);
        if self.has(key) {
            self.problem(key, Fault::new(ProblemKind::Ineffective, why));
        }
    }

    pub(super) fn table(&mut self, key: &'static str) -> Option<Self> {
        let (entry, key) = self.written(key)?;
        let Kind::Block(block) = key.kind else {
            return None;
        };
        let path = self.path_of(key.name);
        self.report
            .table(self.doc, block, path, entry.at, &entry.node)
    }

    /// The block `key`, which may be the word `off` or `default` as well.
    pub(super) fn block(&mut self, key: &'static str) -> Option<Written<'t>> {
        self.ask(key);
        let text = match &self.entry(key)?.node.value {
            Value::Text(_) => self.read(key, |given, _| Ok(given.text()?.to_owned()))?,
            _ => {
                let table = self.table(key)?;
                if is_unset(table.block, table.entries) {
                    let message = "says nothing but zeros, as go-plugins writes a block that was not \
                                   set: remove the block";
                    self.problem(key, Fault::of_secret(message));
                    return None;
                }
                return Some(Written::Table(table));
            }
        };
        match &*text {
            "off" => Some(Written::Off),
            "default" => Some(Written::Default),
            _ => {
                let mut fault = Fault::wrong_type("a table, `off` or `default`", "text");
                if let Some(near) = nearest(&text, ["off", "default"]) {
                    fault.message += &format!(", did you mean `{near}`?");
                    fault.nearest = Some(near.to_owned());
                }
                self.problem(key, fault);
                None
            }
        }
    }

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
                            "expected a whole number, {least} to {most}, found {number}"
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
            let Some(number) = given.number() else {
                if given.is_from_environment() {
                    return Err(Fault::of_value("is not a number"));
                }
                return Err(given.expected_here("a number"));
            };
            Number::new(number)
                .filter(|_| (least..=most).contains(&number))
                .ok_or_else(|| {
                    if given.is_from_environment() {
                        return Fault::of_value(format!("is out of range, {least} to {most}"));
                    }
                    Fault::out_of_range(number, least, most, "")
                })
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
        let (report, doc) = (self.report, self.doc);
        self.read(key, |given, _| {
            let secret = read_secret(report, doc, given)?;
            check(secret.expose())?;
            Ok(secret)
        })
    }

    /// What the file holds that `key` names.
    pub(super) fn file(&mut self, key: &'static str, private: bool) -> Option<FileContents> {
        let (report, doc) = (self.report, self.doc);
        self.read(key, |given, _| {
            let path = report.resolve(doc, given.text()?)?;
            let opened = report.files.read(&path).map_err(|error| {
                let message = format!("{} cannot be read: {error}", path.display());
                Fault::new(ProblemKind::File, message)
            })?;
            if private {
                secret::check_mode(&opened)?;
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
        self.ask(key);
        let nodes: &'t [Node<'t>] = match &self.entry(key)?.node.value {
            Value::List(items) => items,
            _ => {
                return self.read(key, |given, _| {
                    let Some(text) = given.environment_text() else {
                        return Err(given.expected("a list"));
                    };
                    let texts = text.split(',').map(str::trim).enumerate();
                    let given = |text: &str| Given::expanded(given.node, text.to_owned().into());
                    Ok(texts
                        .map(|(index, text)| item(index, given(text)))
                        .collect())
                });
            }
        };
        let mut items = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            match self.report.given(node) {
                Ok(given) => items.push(item(index, given)),
                Err(fault) => {
                    let path = format!("{path}[{index}]");
                    let given = Given::of(node);
                    self.report
                        .add_given(self.doc, node.at, path, fault, &given);
                }
            }
        }
        Some(items)
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

    /// Reports every key that the block does not have.
    pub(super) fn finish(self) {
        #[cfg(debug_assertions)]
        for key in self.block.names() {
            debug_assert!(
                self.asked.contains(key),
                "{}.{key} is in the table of keys and not read",
                self.block.name,
            );
        }
        for entry in self.entries {
            if self.block.key(&entry.key).is_none() {
                self.problem(&entry.key, unknown_key(self.block, &entry.key));
            }
        }
    }
}

/// Whether `entries` are what go-plugins writes for a block that nobody set: zeros, and one among them
/// that is not allowed.
pub(super) fn is_unset(block: &Block, entries: &[Entry<'_>]) -> bool {
    let is_zero = |entry: &Entry<'_>| match &entry.node.value {
        Value::Integer(whole) => *whole == 0,
        Value::Float(number) => *number == 0.0,
        Value::Bool(bool) => !bool,
        Value::Text(text) => text.is_empty(),
        _ => false,
    };
    let is_wrong = |entry: &Entry<'_>| {
        let kind = block.key(&entry.key).map(|key| key.kind);
        let takes_no_zero = match kind {
            Some(Kind::Duration | Kind::Timeout | Kind::TimeoutOrOff) => true,
            Some(Kind::Integer(least, _)) => least > 0,
            Some(Kind::Number(least, _)) => least > 0.0,
            _ => false,
        };
        takes_no_zero && matches!(entry.node.value, Value::Integer(_))
    };
    entries.len() > 2 && entries.iter().all(is_zero) && entries.iter().any(is_wrong)
}

fn unknown_key(block: &'static Block, key: &str) -> Fault {
    if let Some(advice) = block.gone(key) {
        return Fault::new(ProblemKind::Unavailable, advice);
    }
    let near = nearest(key, block.names());
    let all = block.names().collect::<Vec<_>>().join(", ");
    let message = match near {
        Some(near) => format!("unknown key, did you mean `{near}`?"),
        None => format!("unknown key, known here: {all}"),
    };
    Fault {
        allowed: Some(all),
        nearest: near.map(str::to_owned),
        ..Fault::new(ProblemKind::UnknownKey, message)
    }
}

/// The table of keys says that the key takes something else than its reader does.
fn wrong_kind() -> Fault {
    debug_assert!(false, "the key's reader is not that of its kind");
    Fault::of_secret("cannot be read")
}

/// Where the value of `entry` is; its key, where that says more.
pub(super) fn value_place(entry: &Entry<'_>) -> Span {
    match entry.node.value {
        Value::Table(_) | Value::List(_) | Value::Null if entry.at != Span::NONE => entry.at,
        _ => entry.node.at,
    }
}

/// The path of `key` in the table at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if key.is_empty() || !key.bytes().all(plain) {
        format!("{path}[{key:?}]")
    } else if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
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
            let path = report.resolve(doc, path).map_err(|fault| Fault {
                names_value: false,
                message: format!("{path:?} {}", fault.message),
                ..fault
            })?;
            secret::from_file(&path, report.files)
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
