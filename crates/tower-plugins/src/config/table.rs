//! Reads a table key by key, and keeps account of what is wrong with it.

use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::{Block, Key, Kind};
use super::nearest::nearest;
use super::report::Report;
use super::tree::{Entry, Node, Span, Value};

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
        let mut given = match self.report.given(&entry.node) {
            Ok(given) => given,
            Err(fault) => {
                self.problem_of(entry, fault, &Given::unread(&entry.node));
                return None;
            }
        };
        given.is_secret = matches!(key.kind, Kind::Secret | Kind::Headers | Kind::Env);
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
        if let Some(Kind::Word(words) | Kind::WordOrName(words)) =
            self.block.key(key).map(|key| key.kind)
        {
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
            // For editors, which find there what the file may hold.
            let is_for_editors = entry.key == "$schema" && self.block.name == "root";
            if self.block.key(&entry.key).is_none() && !is_for_editors {
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
            Some(Kind::Number(least, _) | Kind::Rate(least, _)) => least > 0.0,
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
        // A path is made for every table: formatting it was a twentieth of reading a config.
        let mut joined = String::with_capacity(path.len() + 1 + key.len());
        joined.push_str(path);
        joined.push('.');
        joined.push_str(key);
        joined
    }
}
