//! `layers`, and `options`.

use super::super::layers::PLACES;
use super::super::secret::HIDDEN;
use super::super::tree::{Entry, Node, Value};
use super::super::{LayerSpec, Options, expand};
use super::values::{list, table, text, word};
use super::{Secrets, Writer};

impl Writer {
    pub(super) fn layers(&self, layers: &[LayerSpec]) -> Option<Node<'static>> {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                table([
                    ("name", text(&layer.name)),
                    ("at", word(&PLACES, &layer.at)),
                    ("options", self.options_of(&layer.options)),
                ])
            })
            .collect();
        (!layers.is_empty()).then(|| list(layers))
    }

    pub(super) fn options_of(&self, options: &Options) -> Option<Node<'static>> {
        let options = options.table();
        (!options.is_empty()).then(|| self.options(options))
    }

    fn options(&self, options: &serde_json::Map<String, serde_json::Value>) -> Node<'static> {
        let entries = options.iter().map(|(key, value)| Entry {
            key: key.clone().into(),
            ..Entry::unplaced("", self.option(value))
        });
        Node::unplaced(Value::Table(entries.collect()))
    }

    /// What of it is a secret is not known: no text is shown where secrets are not.
    fn option(&self, value: &serde_json::Value) -> Node<'static> {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(bool) => Value::Bool(*bool),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::Integer(whole),
                (None, number) => Value::Float(number.unwrap_or(f64::INFINITY)),
            },
            Json::String(_) if self.secrets == Secrets::Hidden => {
                return Node::text(HIDDEN.to_owned());
            }
            Json::String(text) => return Node::text(expand::escape(text).into_owned()),
            Json::Array(items) => Value::List(items.iter().map(|item| self.option(item)).collect()),
            Json::Object(options) => return self.options(options),
        };
        Node::unplaced(value)
    }
}
