//! Lines of a plugin's log as events of this program's.

use std::sync::Arc;

use metrics::Counter;
use serde_json::{Map, Value};
use tracing::Level;

use super::allowance::Allowance;
use super::stdio::Piece;

/// Passes the lines of one process on.
///
/// Three kinds are told apart, as hosts in Go do: an object of JSON with `@level` and `@message`, which hclog writes; text
/// that begins with `[LEVEL]`; and other text, which is of the level `DEBUG`, but from a Go program's panic on `ERROR`.
#[derive(Debug)]
pub(crate) struct Logs {
    plugin: Arc<str>,
    endpoint: Arc<str>,
    panics: bool,
    allowance: Allowance,
    dropped: Counter,
}

/// A line that was understood.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    level: Level,
    message: String,
    module: Option<String>,
    /// All else, as JSON.
    fields: Option<String>,
}

impl Said {
    const fn text(level: Level, message: String) -> Self {
        Self {
            level,
            message,
            module: None,
            fields: None,
        }
    }
}

impl Logs {
    pub(crate) fn new(plugin: impl Into<Arc<str>>, endpoint: impl Into<Arc<str>>) -> Self {
        let (plugin, endpoint) = (plugin.into(), endpoint.into());
        let dropped = metrics::counter!(
            "plugin_process_log_dropped_total",
            "plugin_name" => plugin.to_string(),
            "endpoint" => endpoint.to_string()
        );
        Self {
            plugin,
            endpoint,
            panics: false,
            allowance: Allowance::new(),
            dropped,
        }
    }

    /// Says that `lines` were not passed on.
    fn tell_dropped(&self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.dropped.increment(lines);
        tracing::event!(
            target: "tower_plugins::process",
            Level::WARN,
            plugin.name = &*self.plugin,
            server.address = &*self.endpoint,
            lines,
            "a plugin writes more log than is passed on: lines were left out"
        );
    }

    pub(crate) fn take(&mut self, piece: Piece<'_>) {
        let (Piece::Line(bytes) | Piece::Part(bytes)) = piece;
        let (is_within, dropped) = self.allowance.take(bytes.len());
        self.tell_dropped(dropped);
        if !is_within {
            return;
        }
        let said = self.read(piece);
        macro_rules! tell {
            ($level:ident) => {
                tracing::event!(
                    target: "tower_plugins::process",
                    Level::$level,
                    plugin.name = &*self.plugin,
                    server.address = &*self.endpoint,
                    module = said.module,
                    fields = said.fields,
                    "{}",
                    said.message
                )
            };
        }
        match said.level {
            Level::TRACE => tell!(TRACE),
            Level::DEBUG => tell!(DEBUG),
            Level::INFO => tell!(INFO),
            Level::WARN => tell!(WARN),
            Level::ERROR => tell!(ERROR),
        }
    }

    fn read(&mut self, piece: Piece<'_>) -> Said {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let line = match piece {
            Piece::Part(part) => return Said::text(Level::DEBUG, text(part)),
            Piece::Line(line) => line,
        };
        if line.first() == Some(&b'{')
            && let Ok(object) = serde_json::from_slice(line)
        {
            return structured(object).unwrap_or_else(|| Said::text(Level::DEBUG, text(line)));
        }
        let line = text(line);
        if let Some(level) = tagged(&line) {
            return Said::text(level, line);
        }
        self.panics |= line.starts_with("panic: ") || line.starts_with("fatal error: ");
        let level = if self.panics {
            Level::ERROR
        } else {
            Level::DEBUG
        };
        Said::text(level, line)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let dropped = self.allowance.left_out();
        self.tell_dropped(dropped);
    }
}

/// What hclog writes.
fn structured(mut object: Map<String, Value>) -> Option<Said> {
    let level = level(object.get("@level")?.as_str()?)?;
    let mut taken = |key| match object.remove(key) {
        Some(Value::String(text)) => Some(text),
        Some(other) => Some(other.to_string()),
        None => None,
    };
    let message = taken("@message").unwrap_or_default();
    let module = taken("@module");
    object.remove("@level");
    let fields = (!object.is_empty()).then(|| Value::Object(object).to_string());
    Some(Said {
        level,
        message,
        module,
        fields,
    })
}

fn tagged(line: &str) -> Option<Level> {
    let (word, _) = line.strip_prefix('[')?.split_once(']')?;
    // Lower case is somebody's own text.
    level(word).filter(|_| word.bytes().all(|byte| byte.is_ascii_uppercase()))
}

fn level(word: &str) -> Option<Level> {
    let levels = [
        ("trace", Level::TRACE),
        ("debug", Level::DEBUG),
        ("info", Level::INFO),
        ("warn", Level::WARN),
        ("error", Level::ERROR),
    ];
    let level = levels
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name))?;
    Some(level.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Said {
        Logs::new("p", "e").read(Piece::Line(line.as_bytes()))
    }

    #[test]
    fn what_hclog_writes_keeps_its_level_its_module_and_its_fields() {
        let said =
            read(r#"{"@level":"warn","@message":"slow","@module":"kv","@timestamp":"t","took":3}"#);
        assert_eq!(said.level, Level::WARN);
        assert_eq!(said.message, "slow");
        assert_eq!(said.module.as_deref(), Some("kv"));
        let fields = said.fields.as_deref();
        assert_eq!(fields, Some(r#"{"@timestamp":"t","took":3}"#));
        assert_eq!(read(r#"{"@level":"ERROR","@message":7}"#).message, "7");
    }

    #[test]
    fn text_has_the_level_before_it_and_other_text_is_for_debugging() {
        for (line, level) in [
            ("[INFO] up", Level::INFO),
            ("[ERROR] no", Level::ERROR),
            ("[info] up", Level::DEBUG),
            ("plain", Level::DEBUG),
            (r#"{"@level":"loud","@message":"x"}"#, Level::DEBUG),
            (r#"{"message":"x"}"#, Level::DEBUG),
            ("{not json", Level::DEBUG),
            (r#"["a"]"#, Level::DEBUG),
        ] {
            assert_eq!(read(line), Said::text(level, line.to_owned()));
        }
    }

    #[test]
    fn from_a_panic_on_untagged_text_is_an_error() {
        let mut logs = Logs::new("p", "e");
        let lines = [
            ("starting", Level::DEBUG),
            ("panic: no such key", Level::ERROR),
            ("goroutine 1 [running]:", Level::ERROR),
            ("[WARN] still here", Level::WARN),
            ("main.go:7", Level::ERROR),
        ];
        for (line, level) in lines {
            assert_eq!(logs.read(Piece::Line(line.as_bytes())).level, level);
        }
    }
}
