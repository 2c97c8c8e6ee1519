//! What is logged of plugins, by the name of the plugin.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::until;

static LINES: Mutex<Option<HashMap<String, Vec<Line>>>> = Mutex::new(None);

/// A line of a plugin's log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    plugin: String,
    pub(crate) level: Option<Level>,
    pub(crate) message: String,
    pub(crate) module: String,
    pub(crate) fields: String,
}

/// Begins to listen. A plugin has a name of its own in each test.
pub(crate) fn listen() {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| tracing::subscriber::set_global_default(Ears).unwrap());
}

/// The lines of `plugin` that pass, when there are as many as are wanted.
pub(crate) async fn lines(
    plugin: &str,
    wanted: usize,
    passes: impl Fn(&Line) -> bool,
) -> Vec<Line> {
    until(|| {
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines.as_ref()?.get(plugin)?;
        let lines: Vec<_> = lines.iter().filter(|line| passes(line)).cloned().collect();
        (lines.len() >= wanted).then_some(lines)
    })
    .await
}

struct Ears;

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "plugin.name" => self.plugin = value.to_owned(),
            "module" => self.module = value.to_owned(),
            "fields" => self.fields = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.message, "{value:?}").unwrap();
        }
    }
}

impl Subscriber for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_plugins::process"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line {
            level: Some(*event.metadata().level()),
            ..Line::default()
        };
        event.record(&mut line);
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines.get_or_insert_default();
        lines.entry(line.plugin.clone()).or_default().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
