//! `rate_limit` and `concurrency`.

use super::super::limits::ADAPTIVE;
use super::super::tree::Node;
use super::super::{ConcurrencySpec, RateLimitSpec, RedisSpec};
use super::Writer;
use super::values::{bool, duration, header_or_off, integer, number, off, table, text, word};

impl Writer {
    pub(super) fn rate_limit(&self, limit: &RateLimitSpec) -> Node<'static> {
        let RateLimitSpec {
            requests_per_second,
            burst_size,
            max_wait,
            key_header,
            max_keys,
            cost_header,
            headers,
            redis,
        } = limit;
        // Elsewhere it does nothing, and is refused.
        let counts_keys = key_header.is_some() && redis.is_none();
        table([
            ("requests_per_second", number(*requests_per_second)),
            ("burst_size", integer(*burst_size)),
            ("max_wait", duration(*max_wait)),
            ("key_header", header_or_off(key_header.as_ref())),
            ("max_keys", integer(*max_keys).filter(|_| counts_keys)),
            ("cost_header", header_or_off(cost_header.as_ref())),
            ("headers", bool(*headers)),
            (
                "redis",
                redis
                    .as_ref()
                    .map_or_else(off, |spec| Some(self.redis(spec))),
            ),
        ])
    }

    fn redis(&self, spec: &RedisSpec) -> Node<'static> {
        let RedisSpec {
            url,
            prefix,
            timeout,
            fail_open,
        } = spec;
        table([
            ("url", Some(self.secret(url))),
            ("prefix", prefix.as_deref().and_then(text)),
            ("timeout", duration(*timeout)),
            ("fail_open", bool(*fail_open)),
        ])
    }
}

pub(super) fn concurrency(limit: &ConcurrencySpec) -> Option<Node<'static>> {
    Some(table([
        ("max_concurrent", integer(limit.max_concurrent)),
        ("max_queued", integer(limit.max_queued)),
        ("max_wait", duration(limit.max_wait)),
        ("adaptive", word(&ADAPTIVE, &limit.adaptive)),
        (
            "priority_header",
            header_or_off(limit.priority_header.as_ref()),
        ),
    ]))
}
