//! The policy as text.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::FilterPolicy;

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    headers: Vec<String>,
    copy_headers: Vec<String>,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    fail_open: bool,
}

impl Default for Raw {
    fn default() -> Self {
        FilterPolicy::new().into()
    }
}

impl From<FilterPolicy> for Raw {
    fn from(policy: FilterPolicy) -> Self {
        let text = |names: &[HeaderName]| names.iter().map(ToString::to_string).collect();
        Self {
            headers: text(&policy.headers),
            copy_headers: text(&policy.copy_headers),
            timeout: policy.timeout,
            fail_open: policy.fail_open,
        }
    }
}

impl TryFrom<Raw> for FilterPolicy {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let names = |names: &[String]| -> Result<Vec<HeaderName>, String> {
            let name = |name: &String| {
                name.parse()
                    .map_err(|_| format!("no header's name: {name}"))
            };
            names.iter().map(name).collect()
        };
        if raw.timeout.is_zero() {
            return Err("timeout: zero leaves no time to answer".to_owned());
        }
        Ok(Self::new()
            .headers(names(&raw.headers)?)
            .copy_headers(names(&raw.copy_headers)?)
            .timeout(raw.timeout)
            .fail_open(raw.fail_open))
    }
}
