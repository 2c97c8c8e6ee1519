//! THE table of keys: what may be written, and what each key means.
//!
//! What the reader accepts, the JSON Schema and the tables of `docs/config.md` all come from here.

mod access;
mod attempts;
mod auth;
mod balance;
mod breaker;
mod connection;
mod dns;
mod elsewhere;
mod go_plugin;
mod gone;
mod grpc;
mod health;
mod jwt;
mod limits;
mod outlier;
mod process;
mod reload;
mod top;

pub(super) use access::{AUTHORIZE, FALLBACK, FILTER};
pub(super) use attempts::{HEDGE, RETRY};
pub(super) use auth::AUTH;
pub(super) use balance::LOAD_BALANCING;
pub(super) use breaker::CIRCUIT_BREAKER;
pub(super) use connection::{CONNECTION, TLS};
pub(super) use dns::DNS;
pub(super) use elsewhere::{MOST_TARGETS, SHADOW, SPLIT, TARGET};
pub(super) use go_plugin::GO_PLUGIN;
pub(super) use gone::{ALLOWLIST, MANIFEST};
pub(super) use grpc::GRPC;
pub(super) use health::HEALTH_CHECK;
pub(super) use jwt::JWT;
pub(super) use limits::{CONCURRENCY, RATE_LIMIT, REDIS};
pub(super) use outlier::OUTLIER_DETECTION;
pub(super) use process::{LIMITS, PROCESS, RLIMITS};
pub(super) use reload::RELOAD;
pub(super) use top::{ENDPOINT, LAYER, PLUGIN, ROOT};

/// A table of the config, and the keys that it may have.
#[derive(Debug)]
pub(super) struct Block {
    /// What it is called: its key in a plugin, or `root`, `plugin`, `endpoint`.
    pub(super) name: &'static str,
    /// What it is for, in a sentence of Markdown.
    #[cfg_attr(not(feature = "schema"), expect(dead_code))]
    pub(super) about: &'static str,
    pub(super) keys: &'static [Key],
    /// Keys that other programs and later versions have, and what to do about each.
    pub(super) gone: &'static [(&'static str, &'static str)],
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What holds when it is absent, as the documentation shows it; `required` if it may not be.
    #[cfg_attr(not(feature = "schema"), expect(dead_code))]
    pub(super) default: &'static str,
    /// What it does, and why its default is what it is, in Markdown.
    #[cfg_attr(not(feature = "schema"), expect(dead_code))]
    pub(super) about: &'static str,
    /// A value, as JSON.
    #[cfg_attr(not(feature = "schema"), expect(dead_code))]
    pub(super) example: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    Text,
    /// One of these.
    Word(&'static [&'static str]),
    /// One of these, or a name that the program registered.
    WordOrName(&'static [&'static str]),
    /// A text that is never shown.
    Secret,
    /// The path of a file.
    File,
    Integer(u32, u32),
    Number(f64, f64),
    /// A number of times a second, or a text with its unit.
    Rate(f64, f64),
    /// It may be zero.
    Duration,
    /// Above zero.
    Timeout,
    /// Above zero, or `off`.
    TimeoutOrOff,
    Size(u64, u64),
    SizeOrOff(u64, u64),
    Texts,
    /// A list of statuses, and of ranges of them.
    #[cfg_attr(not(feature = "schema"), expect(dead_code))]
    Statuses(u16, u16),
    /// A list of whole numbers.
    #[cfg_attr(not(feature = "schema"), expect(dead_code))]
    Integers(u32, u32),
    /// A table from the name of a header to a secret.
    Headers,
    /// A table from the name of a variable to a secret, or a list of `NAME=value`.
    Env,
    /// A table from names to texts.
    Named,
    /// A table from names to texts, numbers and booleans.
    NamedScalars,
    Block(&'static Block),
    /// A text, or a table.
    Endpoint,
    Endpoints,
    /// A list of layers, each a table.
    Layers,
    /// A list of other plugins and their parts, each a table.
    Targets,
    /// A table of anything.
    Options,
    /// A list of plugins, or a table of them.
    Plugins,
}

/// Whether any block has a key of this name.
pub(super) fn is_known(name: &str) -> bool {
    let blocks = [
        &ROOT,
        &PLUGIN,
        &ENDPOINT,
        &LAYER,
        &AUTH,
        &AUTHORIZE,
        &JWT,
        &FILTER,
        &FALLBACK,
        &RETRY,
        &HEDGE,
        &CIRCUIT_BREAKER,
        &OUTLIER_DETECTION,
        &HEALTH_CHECK,
        &CONNECTION,
        &DNS,
        &PROCESS,
        &LIMITS,
        &RLIMITS,
        &SPLIT,
        &TARGET,
        &SHADOW,
        &RATE_LIMIT,
        &REDIS,
        &CONCURRENCY,
        &LOAD_BALANCING,
        &TLS,
        &GRPC,
        &GO_PLUGIN,
        &RELOAD,
    ];
    blocks.iter().any(|block| block.key(name).is_some())
}

impl Block {
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }

    /// What to do about `name`, which is known and no key of this version.
    pub(super) fn gone(&self, name: &str) -> Option<&'static str> {
        let (_, advice) = self.gone.iter().find(|(gone, _)| *gone == name)?;
        Some(advice)
    }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
    about: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        about,
        example,
    }
}

/// Of a block that is off until it is there, and of one that is on.
const ENABLED: Key = key(
    "enabled",
    Kind::Bool,
    "true",
    "false",
    "whether the block is in force; not inherited: a block that is there is on",
);
