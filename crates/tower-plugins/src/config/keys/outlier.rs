use super::{Block, ENABLED, Kind, key};

pub(in super::super) static OUTLIER_DETECTION: Block = Block {
    name: "outlier_detection",
    about: "Off unless the block is there, here or as `default_outlier_detection`. Leaves endpoints out for a while that \
            fail more than the others; the rules are Envoy's. It counts what `circuit_breaker` counts as a failure, \
            beside the breakers.",
    keys: &[
        ENABLED,
        key(
            "consecutive_failures",
            Kind::Integer(0, 1_000_000),
            "5",
            "3",
            "failures without a success between them that eject an endpoint at once; 0 is never",
        ),
        key(
            "success_rate_stdev_factor",
            Kind::Number(0.0, 100.0),
            "1.9",
            "2.5",
            "ejects, at the end of an interval, an endpoint whose success rate is more than this many standard deviations below the mean of all; 0 is never. Of fewer than five endpoints none is ever 1.9 below. Envoy's number is a thousand times as large",
        ),
        key(
            "failure_percentage_threshold",
            Kind::Integer(0, 100),
            "0",
            "50",
            "ejects, at the end of an interval, an endpoint of whose calls at least this percentage has failed; 0 is never",
        ),
        key(
            "min_requests",
            Kind::Integer(1, 1_000_000),
            "100",
            "20",
            "calls of an endpoint in an interval before its rates count: one with fewer is neither judged nor compared with",
        ),
        key(
            "min_hosts",
            Kind::Integer(1, 10_000),
            "5",
            "3",
            "endpoints with that many calls before any is judged by its rates",
        ),
        key(
            "interval",
            Kind::Timeout,
            "10s",
            r#""5s""#,
            "how often rates are judged, by the first call after its end; at most a day",
        ),
        key(
            "base_ejection_time",
            Kind::Timeout,
            "30s",
            r#""10s""#,
            "how long an endpoint is left out; the n-th time n times as long, and each healthy interval takes one from n",
        ),
        key(
            "max_ejection_time",
            Kind::Timeout,
            "300s, or `base_ejection_time` if that is longer",
            r#""120s""#,
            "the longest that an endpoint is left out",
        ),
        key(
            "max_ejection_time_jitter",
            Kind::Duration,
            "0s",
            r#""5s""#,
            "up to this time is added at random, so that many callers do not come back at one moment",
        ),
        key(
            "max_ejection_percent",
            Kind::Integer(0, 100),
            "10",
            "30",
            "an endpoint is ejected only if no more than this percentage of them is out afterwards",
        ),
        key(
            "always_eject_one_host",
            Kind::Bool,
            "true",
            "false",
            "one of two or more may be out although it is a larger share; 10 % of fewer than ten is none",
        ),
    ],
    gone: &[],
};
