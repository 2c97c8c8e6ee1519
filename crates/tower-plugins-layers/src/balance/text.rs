//! Policies as text.

use std::collections::BTreeMap;

use http::HeaderName;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{BalancePolicy, KeyFrom, Strategy, SubsetFallback};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum RawKey {
    Header(String),
    Cookie(String),
}

impl TryFrom<RawKey> for KeyFrom {
    type Error = String;

    fn try_from(raw: RawKey) -> Result<Self, String> {
        match raw {
            RawKey::Header(name) => match name.parse::<HeaderName>() {
                Ok(name) => Ok(Self::header(name)),
                Err(error) => Err(format!("header `{name}`: {error}")),
            },
            RawKey::Cookie(name) if name.is_empty() || name.contains(['=', ';', ' ']) => {
                Err(format!("cookie `{name}` is no name of a cookie"))
            }
            RawKey::Cookie(name) => Ok(Self::cookie(name)),
        }
    }
}

impl RawKey {
    fn of(key: &KeyFrom) -> Option<Self> {
        let header = key.header_name().map(|name| Self::Header(name.to_string()));
        header.or_else(|| key.cookie_name().map(|name| Self::Cookie(name.into())))
    }
}

/// The fields of a policy, before they are looked at.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPolicy {
    strategy: Strategy,
    bias: f64,
    hash_on: Vec<RawKey>,
    load_factor: Option<f64>,
    panic_threshold: f64,
    overprovisioning: f64,
    zone: Option<String>,
    subset: BTreeMap<String, String>,
    subset_on: BTreeMap<String, RawKey>,
    subset_fallback: SubsetFallback,
}

impl Default for RawPolicy {
    fn default() -> Self {
        let policy = BalancePolicy::default();
        Self {
            strategy: policy.strategy,
            bias: policy.bias,
            hash_on: Vec::new(),
            load_factor: policy.load_factor,
            panic_threshold: policy.panic_threshold,
            overprovisioning: policy.overprovisioning,
            zone: None,
            subset: BTreeMap::new(),
            subset_on: BTreeMap::new(),
            subset_fallback: policy.subset_fallback,
        }
    }
}

fn check(name: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}: it must be {least} to {most}"))
}

impl TryFrom<RawPolicy> for BalancePolicy {
    type Error = String;

    fn try_from(raw: RawPolicy) -> Result<Self, String> {
        check("bias", raw.bias, 0.0, 100.0)?;
        check("load_factor", raw.load_factor.unwrap_or(1.0), 1.0, 1e6)?;
        check("panic_threshold", raw.panic_threshold, 0.0, 1.0)?;
        check("overprovisioning", raw.overprovisioning, 1.0, 1e6)?;
        let mut policy = Self::new(raw.strategy)
            .bias(raw.bias)
            .load_factor(raw.load_factor)
            .panic_threshold(raw.panic_threshold)
            .overprovisioning(raw.overprovisioning)
            .subset_fallback(raw.subset_fallback);
        for key in raw.hash_on {
            policy = policy.hash_on(key.try_into()?);
        }
        if let Some(zone) = raw.zone {
            policy = policy.zone(zone);
        }
        for (name, value) in raw.subset {
            policy = policy.subset(name, value);
        }
        for (name, key) in raw.subset_on {
            policy = policy.subset_on(name, key.try_into()?);
        }
        Ok(policy)
    }
}

impl Serialize for BalancePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |key| {
            RawKey::of(key)
                .ok_or_else(|| S::Error::custom("a key that a function finds has no text"))
        };
        let subset_on = self.subset_on.iter();
        let raw = RawPolicy {
            strategy: self.strategy,
            bias: self.bias,
            hash_on: self.hash_on.iter().map(text).collect::<Result<_, _>>()?,
            load_factor: self.load_factor,
            panic_threshold: self.panic_threshold,
            overprovisioning: self.overprovisioning,
            zone: self.zone.as_deref().map(Into::into),
            subset: self
                .subset
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            subset_on: subset_on
                .map(|(name, key)| Ok((name.to_string(), text(key)?)))
                .collect::<Result<_, S::Error>>()?,
            subset_fallback: self.subset_fallback,
        };
        raw.serialize(serializer)
    }
}
