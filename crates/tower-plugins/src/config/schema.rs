//! The JSON Schema of a config, from the table of keys.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Config;
use super::keys::{self, Block, Key, Kind};

/// Where definitions are in a schema.
const DEFINITIONS: &str = "#/$defs/";

/// As it is written, before the environment is put in; for editors, and as a part of the schema of a
/// program's own config.
impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Config".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Config").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut definitions = Definitions(generator.definitions_mut());
        let Value::Object(mut root) = definitions.table(&keys::ROOT) else {
            return Schema::default();
        };
        // So that a file can say which schema it follows.
        if let Some(Value::Object(properties)) = root.get_mut("properties") {
            properties.insert("$schema".to_owned(), json!({ "type": "string" }));
        }
        root.into()
    }
}

struct Definitions<'a>(&'a mut Map<String, Value>);

impl Definitions<'_> {
    fn table(&mut self, block: &'static Block) -> Value {
        let mut properties = Map::new();
        for (order, key) in block.keys.iter().enumerate() {
            let mut schema = self.key(key);
            schema["x-order"] = order.into();
            properties.insert(key.name.to_owned(), schema);
        }
        let required: Vec<&str> = block
            .keys
            .iter()
            .filter(|key| key.default == "required" && key.name != "transport")
            // The default of a block may say it.
            .filter(|_| !matches!(block.name, "rate_limit" | "redis" | "concurrency"))
            .map(|key| key.name)
            .collect();
        let mut table = json!({
            "type": "object",
            "description": block.about,
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            table["required"] = required.into();
        }
        let one_of = |one: &str, other: &str| json!({ "oneOf": [{ "required": [one] }, { "required": [other] }] });
        match block.name {
            "plugin" => {
                table["allOf"] = json!([one_of("transport", "type"), { "oneOf": [
                        { "required": ["endpoint"] },
                        { "required": ["endpoints"] },
                        { "required": ["executable"] },
                        {
                            "required": ["go_plugin"],
                            "properties": { "go_plugin": { "required": ["reattach"] } },
                        },
                    ] }]);
            }
            "split" => {
                table["allOf"] = json!([one_of("to", "targets"), one_of("percent", "targets")]);
            }
            _ => {}
        }
        table
    }

    fn key(&mut self, key: &Key) -> Value {
        let mut schema = match self.kind(key.kind) {
            Value::Object(schema) => schema,
            _ => Map::new(),
        };
        schema.insert("description".to_owned(), key.about.into());
        schema.insert("x-takes".to_owned(), takes(key.kind).into());
        if !key.default.is_empty() {
            schema.insert("x-default".to_owned(), key.default.into());
        }
        if let Some(default) = default(key) {
            schema.insert("default".to_owned(), default);
        }
        if let Ok(example) = serde_json::from_str::<Value>(key.example) {
            schema.insert("examples".to_owned(), json!([example]));
        }
        Value::Object(schema)
    }

    fn kind(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Bool => or_variable(json!({ "type": "boolean" })),
            Kind::Text | Kind::Secret | Kind::File => json!({ "type": "string" }),
            Kind::Word(words) => or_variable(json!({ "enum": words })),
            // Editors offer the words.
            Kind::WordOrName(words) => json!({ "anyOf": [
                { "enum": words },
                { "type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$" },
                variable(),
            ] }),
            Kind::Integer(least, most) => {
                or_variable(json!({ "type": "integer", "minimum": least, "maximum": most }))
            }
            Kind::Number(least, most) => {
                or_variable(json!({ "type": "number", "minimum": least, "maximum": most }))
            }
            Kind::Rate(least, most) => or_variable(json!({ "anyOf": [
                { "type": "number", "minimum": least, "maximum": most },
                { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/[smh]$" },
            ] })),
            Kind::Duration | Kind::Timeout => or_variable(duration()),
            Kind::TimeoutOrOff => {
                or_variable(json!({ "anyOf": [{ "enum": ["off"] }, duration()] }))
            }
            Kind::Size(..) => or_variable(size()),
            Kind::SizeOrOff(..) => or_variable(json!({ "anyOf": [{ "enum": ["off"] }, size()] })),
            Kind::Texts => json!({
                "anyOf": [{ "type": "array", "items": { "type": "string" } }, variable()]
            }),
            Kind::Statuses(least, most) => {
                let one = json!({ "type": "integer", "minimum": least, "maximum": most });
                let text = json!({ "type": "string", "pattern": r"^[0-9]{3}(-[0-9]{3})?$|\$\{" });
                let list = json!({ "type": "array", "items": { "anyOf": [one, text] } });
                json!({ "anyOf": [list, variable()] })
            }
            Kind::Integers(least, most) => {
                let one =
                    or_variable(json!({ "type": "integer", "minimum": least, "maximum": most }));
                json!({ "anyOf": [{ "type": "array", "items": one }, variable()] })
            }
            Kind::Headers | Kind::Named => {
                json!({ "type": "object", "additionalProperties": { "type": "string" } })
            }
            Kind::Env => {
                let named =
                    json!({ "type": "object", "additionalProperties": { "type": "string" } });
                let entry = json!({ "type": "string", "pattern": r"^[^=]+=|\$\{" });
                let list = json!({ "type": "array", "items": entry });
                json!({ "anyOf": [named, list, variable()] })
            }
            Kind::NamedScalars => json!({
                "type": "object",
                "additionalProperties": { "type": ["string", "number", "boolean"] }
            }),
            Kind::Block(block) => {
                let words = match block.name {
                    "auth" | "authorize" | "jwt" | "process" | "go_plugin" | "limits"
                    | "rlimits" | "filter" | "fallback" | "reload" => {
                        return self.reference(block);
                    }
                    "retry" | "hedge" | "circuit_breaker" | "outlier_detection"
                    | "health_check" | "rate_limit" | "redis" | "concurrency" => {
                        json!(["off", "default"])
                    }
                    _ => json!(["default"]),
                };
                json!({ "anyOf": [self.reference(block), { "enum": words }] })
            }
            Kind::Endpoint => {
                json!({ "anyOf": [{ "type": "string" }, self.reference(&keys::ENDPOINT)] })
            }
            Kind::Endpoints => {
                let item = self.kind(Kind::Endpoint);
                let list = json!({ "type": "array", "minItems": 1, "items": item });
                json!({ "anyOf": [list, variable()] })
            }
            Kind::Layers => json!({ "type": "array", "items": self.reference(&keys::LAYER) }),
            Kind::Targets => json!({
                "type": "array",
                "minItems": 1,
                "maxItems": keys::MOST_TARGETS,
                "items": self.reference(&keys::TARGET),
            }),
            Kind::Options => json!({ "type": "object" }),
            Kind::Plugins => {
                let plugin = self.reference(&keys::PLUGIN);
                let named = json!({ "allOf": [plugin, { "required": ["name"] }] });
                let unnamed = json!({ "allOf": [plugin, { "not": { "required": ["name"] } }] });
                json!({
                    "anyOf": [
                        { "type": "array", "items": named },
                        { "type": "object", "additionalProperties": unnamed },
                    ]
                })
            }
        }
    }

    /// A reference to the definition of `block`, which is made if it is the first.
    fn reference(&mut self, block: &'static Block) -> Value {
        if !self.0.contains_key(block.name) {
            let table = self.table(block);
            self.0.insert(block.name.to_owned(), table);
        }
        json!({ "$ref": format!("{DEFINITIONS}{}", block.name) })
    }
}

/// Where a value of another type than text may be a variable.
#[allow(clippy::needless_pass_by_value)] // it is made for this
fn or_variable(schema: Value) -> Value {
    json!({ "anyOf": [schema, variable()] })
}

fn variable() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn duration() -> Value {
    json!({
        "type": "string",
        "pattern": r"^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+)$",
    })
}

fn size() -> Value {
    json!({
        "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|KiB|MiB|GiB)?$" },
        ]
    })
}

/// What a value may be, in words.
fn takes(kind: Kind) -> String {
    let number = |number: f64| match number {
        1e9 => "10^9".to_owned(),
        number => number.to_string(),
    };
    let bytes = |least, most| match (least, most) {
        (0, most) if most > u64::MAX >> 2 => "a size".to_owned(),
        (least, most) => format!(
            "a size, `{}` to `{}`",
            super::units::write_size(least),
            super::units::write_size(most)
        ),
    };
    match kind {
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Text | Kind::Word(_) | Kind::WordOrName(_) => "text".to_owned(),
        Kind::Secret => "a secret".to_owned(),
        Kind::File => "a path".to_owned(),
        Kind::Integer(least, u32::MAX) => format!("a whole number, {least} or more"),
        Kind::Integer(least, most) => format!("a whole number, {least} to {most}"),
        Kind::Number(least, most) => format!("a number, {} to {}", number(least), number(most)),
        Kind::Rate(least, most) => {
            format!("a number, {} to {}, or a rate", number(least), number(most))
        }
        Kind::Duration => "a duration".to_owned(),
        Kind::Timeout => "a duration above zero".to_owned(),
        Kind::TimeoutOrOff => "a duration, or `off`".to_owned(),
        Kind::Size(least, most) => bytes(least, most),
        Kind::SizeOrOff(least, most) => format!("{}, or `off`", bytes(least, most)),
        Kind::Texts => "a list of texts".to_owned(),
        Kind::Statuses(..) => "a list of statuses".to_owned(),
        Kind::Integers(..) => "a list of whole numbers".to_owned(),
        Kind::Headers => "a table of secrets".to_owned(),
        Kind::Env => "a table of secrets, or a list of `NAME=value`".to_owned(),
        Kind::Named => "a table of texts".to_owned(),
        Kind::NamedScalars => "a table of texts, numbers and booleans".to_owned(),
        Kind::Block(_) => "a block".to_owned(),
        Kind::Endpoint => "an endpoint".to_owned(),
        Kind::Endpoints => "a list of endpoints".to_owned(),
        Kind::Layers => "a list of layers".to_owned(),
        Kind::Targets => "a list of targets".to_owned(),
        Kind::Options => "a table".to_owned(),
        Kind::Plugins => "a list or a table of plugins".to_owned(),
    }
}

/// The default as a value, where it is one.
fn default(key: &Key) -> Option<Value> {
    let written = key.default;
    match key.kind {
        Kind::Bool | Kind::Integer(..) | Kind::Number(..) | Kind::Texts | Kind::Integers(..) => {
            serde_json::from_str(written).ok()
        }
        Kind::Duration
        | Kind::Timeout
        | Kind::TimeoutOrOff
        | Kind::Size(..)
        | Kind::SizeOrOff(..)
        | Kind::Word(_) => (!written.contains([' ', '`'])
            && !matches!(written, "" | "required" | "none"))
        .then(|| written.into()),
        _ => None,
    }
}
