//! `rate_limit` and `concurrency`: the blocks that are off until they are there.

use std::time::Duration;

use super::blocks::Overlay;
use super::table::Table;
use super::units::write_duration;
use super::{ConcurrencySpec, Number, RateLimitSpec};

#[derive(Clone, Default)]
pub(super) struct RateLimit {
    enabled: bool,
    requests_per_second: Option<Number>,
    burst_size: Option<u32>,
    max_wait: Duration,
}

impl Overlay for RateLimit {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let block = Self {
            enabled: table.bool("enabled").unwrap_or(true),
            requests_per_second: table
                .rate("requests_per_second")
                .or(self.requests_per_second),
            burst_size: table.integer("burst_size").or(self.burst_size),
            max_wait: table.duration("max_wait").unwrap_or(self.max_wait),
        };
        if block.enabled && block.requests_per_second.is_none() {
            table.require("requests_per_second");
        }
        block
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl RateLimit {
    pub(super) fn armed(&self) -> Option<RateLimitSpec> {
        let rate = self.requests_per_second.filter(|_| self.enabled)?;
        let spec = RateLimitSpec::new(rate);
        Some(RateLimitSpec {
            burst_size: self.burst_size.unwrap_or(spec.burst_size),
            max_wait: self.max_wait,
            ..spec
        })
    }
}

#[derive(Clone, Default)]
pub(super) struct Concurrency {
    enabled: bool,
    max_concurrent: Option<u32>,
    max_queued: u32,
    max_wait: Duration,
}

impl Overlay for Concurrency {
    fn read(&self, table: &mut Table<'_>) -> Self {
        let block = Self {
            enabled: table.bool("enabled").unwrap_or(true),
            max_concurrent: table.integer("max_concurrent").or(self.max_concurrent),
            max_queued: table.integer("max_queued").unwrap_or(self.max_queued),
            max_wait: table.duration("max_wait").unwrap_or(self.max_wait),
        };
        if !block.enabled {
            return block;
        }
        if block.max_concurrent.is_none() {
            table.require("max_concurrent");
        }
        if table.is_sound() && (block.max_queued > 0) == block.max_wait.is_zero() {
            table.conflict(
                "max_wait",
                format!(
                    "{} with max_queued {} contradict each other: waiting takes both a queue \
                     and a time, and neither means refused at once",
                    write_duration(block.max_wait),
                    block.max_queued
                ),
            );
        }
        block
    }

    fn off(&self) -> Option<Self> {
        Some(Self {
            enabled: false,
            ..self.clone()
        })
    }
}

impl Concurrency {
    pub(super) fn armed(&self) -> Option<ConcurrencySpec> {
        let max_concurrent = self.max_concurrent.filter(|_| self.enabled)?;
        Some(ConcurrencySpec {
            max_concurrent,
            max_queued: self.max_queued,
            max_wait: self.max_wait,
        })
    }
}
