//! A policy as serde reads and writes it.

use serde::{Deserialize, Serialize};

use super::policy::{ClassifyPolicy, FIRST, LAST_CODE, STATUSES, is_code, is_status};
use crate::retry::GRPC_CODES;

/// What is absent is as in [`ClassifyPolicy::new`].
#[derive(Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Text {
    failure_statuses: Vec<Item>,
    failure_grpc_codes: Vec<Item>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Item {
    Number(u16),
    Text(String),
}

impl Default for Text {
    fn default() -> Self {
        Self::from(ClassifyPolicy::new())
    }
}

impl From<ClassifyPolicy> for Text {
    fn from(policy: ClassifyPolicy) -> Self {
        let mut failure_statuses = Vec::new();
        let mut status = FIRST;
        while is_status(status) {
            let run = (status..FIRST + STATUSES).take_while(|status| policy.is_failure(*status));
            match run.count() as u16 {
                0 => {}
                1 => failure_statuses.push(Item::Number(status)),
                more => {
                    let last = status + more - 1;
                    failure_statuses.push(Item::Text(format!("{status}-{last}")));
                    status = last;
                }
            }
            status += 1;
        }
        let codes = (1..).zip(GRPC_CODES);
        let codes = codes.filter(|(code, _)| policy.is_failure_code(*code));
        Self {
            failure_statuses,
            failure_grpc_codes: codes.map(|(_, name)| Item::Text(name.to_owned())).collect(),
        }
    }
}

impl TryFrom<Text> for ClassifyPolicy {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let mut statuses = Vec::new();
        for item in &text.failure_statuses {
            let (first, last) = range(item).ok_or_else(|| {
                format!(
                    "{} is no status that may be a failure, nor a range of them: write one from {FIRST} to {}, \
                     or two such as \"502-504\"",
                    item.shown(),
                    FIRST + STATUSES - 1
                )
            })?;
            statuses.extend(first..=last);
        }
        let codes = text.failure_grpc_codes.iter().map(|item| {
            code(item).ok_or_else(|| {
                format!(
                    "{} is no gRPC code that may be a failure: write one from 1 to {LAST_CODE}, or its name, \
                     such as \"unavailable\"",
                    item.shown()
                )
            })
        });
        let codes = codes.collect::<Result<Vec<_>, _>>()?;
        Ok(Self::new()
            .failure_statuses(statuses)
            .failure_grpc_codes(codes))
    }
}

impl Item {
    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
        }
    }
}

fn range(item: &Item) -> Option<(u16, u16)> {
    let (first, last) = match item {
        Item::Number(status) => (*status, *status),
        Item::Text(text) => {
            let (first, last) = text.split_once('-')?;
            (first.parse().ok()?, last.parse().ok()?)
        }
    };
    (is_status(first) && is_status(last) && first <= last).then_some((first, last))
}

fn code(item: &Item) -> Option<u8> {
    match item {
        Item::Number(code) => u8::try_from(*code).ok().filter(|code| is_code(*code)),
        Item::Text(name) => {
            let mut codes = (1..).zip(GRPC_CODES);
            codes.find(|(_, code)| code == name).map(|(code, _)| code)
        }
    }
}
