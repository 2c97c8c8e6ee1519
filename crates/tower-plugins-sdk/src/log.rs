//! The plugin's log, in lines that a host of go-plugin understands.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Writes each event of `tracing` to the standard error as a line of JSON, as hclog does: a host then knows its level and its fields,
/// where it takes other text for debugging. Spans are not written.
///
/// ```
/// use tracing_subscriber::prelude::*;
///
/// let subscriber = tracing_subscriber::registry().with(tower_plugins_sdk::log::layer());
/// tracing::subscriber::with_default(subscriber, || {
///     // {"@level":"warn","@message":"low on space","@module":"…","@timestamp":"…","free":7}
///     tracing::warn!(free = 7, "low on space");
/// });
/// ```
#[must_use]
pub fn layer() -> Hclog {
    Hclog(())
}

/// What [`layer`] gives.
#[derive(Debug, Clone)]
pub struct Hclog(());

impl<S: Subscriber> Layer<S> for Hclog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = line(event, SystemTime::now());
        // Where nobody reads the log, there is nobody to tell.
        io::stderr().lock().write_all(line.as_bytes()).ok();
    }
}

/// Has each panic logged as errors, for the rest of the program: what it says and where, and, with `RUST_BACKTRACE` set, the stack, a line
/// for each of its own.
///
/// Without it a panic is text, which a host takes for debugging. It is the program's panic hook, in place of the one that there was.
///
/// ```
/// tower_plugins_sdk::log::panics();
/// ```
pub fn panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no text");
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name");
        match panic.location() {
            Some(at) => tracing::error!(thread, %at, "panic: {what}"),
            None => tracing::error!(thread, "panic: {what}"),
        }
        let stack = Backtrace::capture();
        if stack.status() == BacktraceStatus::Captured {
            for line in stack.to_string().lines() {
                tracing::error!("{line}");
            }
        }
    }));
}

fn line(event: &Event<'_>, now: SystemTime) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let mut object = fields.others;
    object.insert("@level".to_owned(), word(*metadata.level()).into());
    object.insert("@message".to_owned(), fields.message.into());
    object.insert("@module".to_owned(), metadata.target().into());
    object.insert("@timestamp".to_owned(), timestamp(now).into());
    format!("{}\n", Value::Object(object))
}

fn word(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// `2026-11-30T14:10:00.000000Z`, from the days since 1970 by Howard Hinnant's `civil_from_days`.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn record(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.record(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.record(field, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = UNIX_EPOCH + Duration::new(1_795_000_000, 1_000);
            self.0.lock().unwrap().push(line(event, now));
        }
    }

    #[test]
    fn an_event_is_a_line_as_of_hclog() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(kept.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "disk", free = 7, part = 0.5, full = false, at = ?Some(1), name = "a", "low on {}", "space");
        });
        assert_eq!(
            *kept.0.lock().unwrap(),
            [concat!(
                r#"{"@level":"warn","@message":"low on space","@module":"disk","@timestamp":"2026-11-18T11:06:40.000001Z","#,
                r#""at":"Some(1)","free":7,"full":false,"name":"a","part":0.5}"#,
                "\n"
            )]
        );
    }

    #[test]
    fn leap_days_and_ends_of_years_are_right() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000Z");
    }
}
