//! `load_balancing`, and what is said of endpoints for it.

use std::collections::BTreeMap;

use super::blocks::Overlay;
use super::error::ProblemKind;
use super::fault::Fault;
use super::given::Given;
use super::keys::{Kind, LOAD_BALANCING};
use super::table::{Table, join};
use super::tree::Value;
use super::{BalanceSpec, BalanceStrategy, KeySpec, SubsetFallback};

/// The words that are read; the first of each meaning is written.
pub(super) const STRATEGIES: [(&str, BalanceStrategy); 11] = [
    ("peak-ewma", BalanceStrategy::PeakEwma),
    ("round-robin", BalanceStrategy::RoundRobin),
    ("weighted-round-robin", BalanceStrategy::WeightedRoundRobin),
    ("random", BalanceStrategy::Random),
    ("weighted-random", BalanceStrategy::WeightedRandom),
    ("least-request", BalanceStrategy::LeastRequest),
    ("least-connections", BalanceStrategy::LeastConnections),
    ("least-latency", BalanceStrategy::LeastLatency),
    ("ring-hash", BalanceStrategy::RingHash),
    ("maglev", BalanceStrategy::Maglev),
    ("consistent-hash", BalanceStrategy::RingHash),
];

pub(super) const FALLBACKS: [(&str, SubsetFallback); 2] =
    [("any", SubsetFallback::Any), ("none", SubsetFallback::None)];

/// Keys that count only beside others, and which.
const INERT: [(&str, &str); 7] = [
    (
        "hash_on",
        "does nothing without strategy: ring-hash or maglev",
    ),
    (
        "load_factor",
        "does nothing without strategy: ring-hash or maglev",
    ),
    (
        "least_request_bias",
        "does nothing without strategy: least-request",
    ),
    (
        "subset_fallback",
        "does nothing without subset or subset_on",
    ),
    (
        "slow_start_window",
        "does nothing with strategy: ring-hash or maglev",
    ),
    (
        "slow_start_min_weight",
        "does nothing without slow_start_window",
    ),
    (
        "slow_start_aggression",
        "does nothing without slow_start_window",
    ),
];

impl Overlay for BalanceSpec {
    fn read(&self, table: &mut Table<'_>) -> Self {
        if LOAD_BALANCING.names().all(|key| !table.has(key)) {
            table.require("strategy");
        }
        let load_factor = match table.number("load_factor") {
            Some(factor) if factor.get() > 0.0 && factor.get() < 1.0 => {
                let message = "is below 1, the mean, which somebody always has: write 1 or more, or 0 for no bound";
                table.problem("load_factor", Fault::of_secret(message));
                self.load_factor
            }
            Some(factor) => Some(factor).filter(|factor| factor.get() > 0.0),
            None => self.load_factor,
        };
        let spec = Self {
            strategy: strategy(table).unwrap_or(self.strategy),
            hash_on: table
                .read("hash_on", |given, _| key_of(given))
                .or_else(|| self.hash_on.clone()),
            load_factor,
            least_request_bias: table
                .number("least_request_bias")
                .unwrap_or(self.least_request_bias),
            panic_threshold: table
                .number("panic_threshold")
                .unwrap_or(self.panic_threshold),
            overprovisioning: table
                .number("overprovisioning")
                .unwrap_or(self.overprovisioning),
            zone: match zone(table) {
                Some(zone) => Some(zone).filter(|zone| zone != "off"),
                None => self.zone.clone(),
            },
            subset: named(table, "subset", text).unwrap_or_else(|| self.subset.clone()),
            subset_on: named(table, "subset_on", key_of).unwrap_or_else(|| self.subset_on.clone()),
            subset_fallback: table
                .word("subset_fallback", &FALLBACKS)
                .unwrap_or(self.subset_fallback),
            slow_start_window: table
                .timeout_or_off("slow_start_window")
                .unwrap_or(self.slow_start_window),
            slow_start_min_weight: table
                .number("slow_start_min_weight")
                .unwrap_or(self.slow_start_min_weight),
            slow_start_aggression: table
                .number("slow_start_aggression")
                .unwrap_or(self.slow_start_aggression),
        };
        if table.is_sound() {
            spec.check(table);
        }
        spec
    }
}

impl BalanceSpec {
    fn check(&self, table: &Table<'_>) {
        for (key, why) in INERT {
            if table.has(key) && !self.counts(key) {
                table.problem(key, Fault::new(ProblemKind::Ineffective, why));
            }
        }
        if self.strategy.is_hash() && self.hash_on.is_none() {
            let key = if table.has("strategy") {
                "strategy"
            } else {
                "hash_on"
            };
            let message = "needs hash_on: header:NAME or cookie:NAME, or calls go anywhere";
            table.conflict(key, message);
        }
    }

    fn counts(&self, key: &str) -> bool {
        match key {
            "hash_on" | "load_factor" => self.strategy.is_hash(),
            "least_request_bias" => self.strategy == BalanceStrategy::LeastRequest,
            "subset_fallback" => !(self.subset.is_empty() && self.subset_on.is_empty()),
            "slow_start_window" => !self.strategy.is_hash(),
            "slow_start_min_weight" | "slow_start_aggression" => self.slow_start_window.is_some(),
            _ => true,
        }
    }

    /// Without what does nothing, which is as if nobody had said it.
    pub(super) fn armed(&self) -> Self {
        let library = Self::default();
        let mut spec = self.clone();
        if !self.counts("hash_on") {
            spec.hash_on = None;
            spec.load_factor = library.load_factor;
        }
        if !self.counts("least_request_bias") {
            spec.least_request_bias = library.least_request_bias;
        }
        if !self.counts("subset_fallback") {
            spec.subset_fallback = library.subset_fallback;
        }
        if !self.counts("slow_start_window") {
            spec.slow_start_window = None;
        }
        if spec.slow_start_window.is_none() {
            spec.slow_start_min_weight = library.slow_start_min_weight;
            spec.slow_start_aggression = library.slow_start_aggression;
        }
        spec
    }
}

fn strategy(table: &mut Table<'_>) -> Option<BalanceStrategy> {
    if let Some(Value::Text(word)) = table.get("strategy").map(|node| &node.value)
        && &**word == "priority"
    {
        table.pass(&["strategy"]);
        let message = "is no strategy here: `priority` of the endpoints counts with each of them, 0 first; \
                       remove this";
        table.problem("strategy", Fault::new(ProblemKind::Unavailable, message));
        return None;
    }
    table.word("strategy", &STRATEGIES)
}

/// Where a key is: `header:NAME` or `cookie:NAME`.
pub(super) fn key_of(given: &Given<'_>) -> Result<KeySpec, Fault> {
    let wrong = || Fault::of_value("is neither `header:NAME` nor `cookie:NAME`");
    let (kind, name) = given.text()?.split_once(':').ok_or_else(wrong)?;
    match kind {
        "header" => {
            let name = name.parse();
            name.map(KeySpec::Header)
                .map_err(|_| Fault::of_value("has no name of a header after `header:`"))
        }
        "cookie"
            if !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !b"=;,\"".contains(&b)) =>
        {
            Ok(KeySpec::Cookie(name.to_owned()))
        }
        "cookie" => Err(Fault::of_value("has no name of a cookie after `cookie:`")),
        _ => Err(wrong()),
    }
}

fn text(given: &Given<'_>) -> Result<String, Fault> {
    let text = given.text()?;
    if text.is_empty() {
        return Err(Fault::of_secret("is empty"));
    }
    Ok(text.to_owned())
}

pub(super) fn zone(table: &mut Table<'_>) -> Option<String> {
    table.read("zone", |given, _| text(given))
}

/// A table from names to texts.
pub(super) fn labels(table: &mut Table<'_>) -> BTreeMap<String, String> {
    named(table, "labels", text).unwrap_or_default()
}

pub(super) fn named<T>(
    table: &mut Table<'_>,
    key: &'static str,
    parse: impl Fn(&Given<'_>) -> Result<T, Fault>,
) -> Option<BTreeMap<String, T>> {
    let (report, doc, path) = (table.report(), table.doc(), table.path_of(key));
    let entries = table.read(key, |given, kind| match (&given.node.value, kind) {
        (Value::Table(entries), Kind::Named | Kind::NamedScalars) => Ok(entries),
        _ => Err(given.expected("a table")),
    })?;
    let mut named = BTreeMap::new();
    for entry in entries {
        let path = join(&path, &entry.key);
        match report.given(&entry.node) {
            Ok(given) => match parse(&given) {
                Ok(value) => {
                    named.insert(entry.key.to_string(), value);
                }
                Err(fault) => report.add_given(doc, entry.at, path, fault, &given),
            },
            Err(fault) => report.add(doc, entry.at, path, fault),
        }
    }
    Some(named)
}
