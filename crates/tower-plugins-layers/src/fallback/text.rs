//! The policy as text.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use super::FallbackPolicy;
use crate::Reason;

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    on: Vec<String>,
    on_statuses: Vec<u16>,
    on_any_error: bool,
    header: Option<String>,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
}

impl Default for Raw {
    fn default() -> Self {
        FallbackPolicy::new().into()
    }
}

impl From<FallbackPolicy> for Raw {
    fn from(policy: FallbackPolicy) -> Self {
        Self {
            on: policy
                .reasons()
                .map(|reason| reason.as_str().to_owned())
                .collect(),
            on_statuses: policy.on_statuses.iter().map(StatusCode::as_u16).collect(),
            on_any_error: policy.on_any_error,
            header: policy.header.map(|name| name.as_str().to_owned()),
            timeout: policy.timeout,
        }
    }
}

impl TryFrom<Raw> for FallbackPolicy {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for word in &raw.on {
            let mut all = Reason::ALL.into_iter();
            let reason = all.find(|reason| reason.as_str() == word);
            match reason {
                Some(Reason::RequestBroken) => {
                    return Err("request_broken: nobody is left to have the answer".to_owned());
                }
                Some(reason) => reasons.push(reason),
                None => return Err(format!("no such reason: {word}")),
            }
        }
        let mut statuses = Vec::new();
        for code in raw.on_statuses {
            let status = StatusCode::from_u16(code).map_err(|_| format!("no status: {code}"))?;
            statuses.push(status);
        }
        let header = raw
            .header
            .as_deref()
            .map(str::parse::<HeaderName>)
            .transpose();
        if raw.timeout.is_zero() {
            return Err("timeout: zero leaves no time to answer".to_owned());
        }
        Ok(Self::new()
            .on(reasons)
            .on_statuses(statuses)
            .on_any_error(raw.on_any_error)
            .header(header.map_err(|_| "header: no header's name".to_owned())?)
            .timeout(raw.timeout))
    }
}
