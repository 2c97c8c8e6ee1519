//! The policy as text.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::Places;
use super::{AdaptivePolicy, ConcurrencyPolicy, Priority};
use crate::header;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adaptive: Option<AdaptivePolicy>,
    #[serde(default)]
    max_queued: usize,
    #[serde(default, with = "humantime_serde")]
    max_wait: Duration,
    #[serde(default)]
    share: Shares,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority_header: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Shares {
    critical: f64,
    normal: f64,
    sheddable: f64,
    bulk: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Priority::SHARES.into()
    }
}

impl From<[f64; 4]> for Shares {
    fn from([critical, normal, sheddable, bulk]: [f64; 4]) -> Self {
        Self {
            critical,
            normal,
            sheddable,
            bulk,
        }
    }
}

impl From<ConcurrencyPolicy> for Raw {
    fn from(policy: ConcurrencyPolicy) -> Self {
        let (max, adaptive) = match policy.places {
            Places::Fixed(max) => (Some(max), None),
            Places::Adaptive(policy) => (None, Some(policy)),
        };
        Self {
            max,
            adaptive,
            max_queued: policy.max_queued,
            max_wait: policy.max_wait,
            share: policy.shares.into(),
            priority_header: policy.priority_header.map(|name| name.as_str().to_owned()),
        }
    }
}

impl TryFrom<Raw> for ConcurrencyPolicy {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let places = match (raw.max, raw.adaptive) {
            (Some(0), None) => return Err("`max` must be at least 1".into()),
            (Some(max), None) => Places::Fixed(max),
            (None, Some(policy)) => Places::Adaptive(policy),
            (None, None) => return Err("the places are missing: `max` or `adaptive`".into()),
            (Some(_), Some(_)) => {
                return Err(
                    "`max` and `adaptive` contradict each other: the `max` of a limit that adapts \
                     stands in `adaptive`"
                        .into(),
                );
            }
        };
        if (raw.max_queued > 0) == raw.max_wait.is_zero() {
            return Err(
                "waiting takes both `max_queued` and `max_wait`, and neither means refused at once"
                    .into(),
            );
        }
        let Shares {
            critical,
            normal,
            sheddable,
            bulk,
        } = raw.share;
        let shares = [critical, normal, sheddable, bulk];
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err("each `share` must be from 0 to 1".into());
        }
        if !shares.is_sorted_by(|more, less| more >= less) {
            return Err("no `share` may be larger than that of a priority above".into());
        }
        Ok(Self {
            max_queued: raw.max_queued,
            max_wait: raw.max_wait,
            shares,
            priority_header: header::parsed(raw.priority_header.as_deref())?,
            ..Self::with(places)
        })
    }
}
