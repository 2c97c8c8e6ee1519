//! What is so when nothing is said; `docs/config.md` has the reasons.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    BalanceSpec, BalanceStrategy, BreakerSpec, BudgetKind, Compression, ConcurrencySpec,
    ConnectionSpec, CredentialsSpec, GrpcSpec, HealthKind, HealthSpec, HedgeSpec, JitterKind,
    Number, OutlierSpec, Policy, Protocol, ProxySpec, RateLimitSpec, RedisSpec, RetryOn, RetrySpec,
    Secret, SubsetFallback, TlsSpec, TlsVersion,
};

impl Default for Policy {
    /// Retries of what may be repeated, a breaker, and 30 seconds for a call.
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(30),
            ready_within: None,
            exclusive: false,
            deadline: Some(Duration::from_secs(30)),
            timeout_header: None,
            stream_idle_timeout: None,
            attempt_timeout: None,
            rate_limit: None,
            concurrency: None,
            retry: Some(RetrySpec::default()),
            hedge: None,
            breaker: Some(BreakerSpec::default()),
            outlier: None,
            health: None,
            balance: BalanceSpec::default(),
            credentials: CredentialsSpec::default(),
            allow_plaintext: false,
            authorize: None,
            filter: None,
            fallback: None,
            split: None,
            shadow: None,
            layers: Vec::new(),
        }
    }
}

impl Default for BalanceSpec {
    fn default() -> Self {
        Self {
            strategy: BalanceStrategy::default(),
            hash_on: None,
            load_factor: Some(Number::finite(1.25)),
            least_request_bias: Number::finite(1.0),
            panic_threshold: Number::finite(0.5),
            overprovisioning: Number::finite(1.4),
            zone: None,
            subset: BTreeMap::new(),
            subset_on: BTreeMap::new(),
            subset_fallback: SubsetFallback::default(),
            slow_start_window: None,
            slow_start_min_weight: Number::finite(0.1),
            slow_start_aggression: Number::finite(1.0),
        }
    }
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            max_retries: 3,
            initial_interval: Duration::from_millis(100),
            max_interval: Duration::from_secs(5),
            multiplier: Number::finite(2.0),
            random_jitter: true,
            jitter: JitterKind::Full,
            on: RetryOn::DEFAULT.to_vec(),
            budget: BudgetKind::Ratio,
            budget_ratio: Number::finite(0.2),
            budget_min_per_second: 10,
            budget_min_in_flight: 3,
            budget_max_tokens: 10,
            budget_token_ratio: Number::finite(0.1),
            endpoint_budget: false,
            idempotent: Vec::new(),
            never: Vec::new(),
            max_replay_bytes: 64 << 10,
            attempt_header: None,
            first_frame_wait: Some(Duration::from_millis(100)),
        }
    }
}

impl Default for HedgeSpec {
    /// One hedge after the 95th percentile.
    fn default() -> Self {
        Self {
            quantile: Some(Number::finite(0.95)),
            delay: None,
            min_samples: 100,
            max_hedges: 1,
            paths: Vec::new(),
        }
    }
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            failure_threshold: Some(5),
            failure_rate: None,
            failure_statuses: None,
            failure_grpc_codes: None,
            slow_call_duration: None,
            slow_call_rate: Number::finite(1.0),
            window: Duration::from_secs(10),
            window_calls: None,
            min_request_threshold: 20,
            recovery_timeout: Duration::from_secs(30),
            max_recovery_timeout: None,
            recovery_jitter: Number::finite(0.0),
            success_threshold: 2,
        }
    }
}

impl Default for OutlierSpec {
    /// gRFC A50's values, and Envoy's where that has none.
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            success_rate_stdev_factor: Some(Number::finite(1.9)),
            failure_percentage_threshold: None,
            min_requests: 100,
            min_hosts: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: true,
        }
    }
}

impl Default for HealthSpec {
    /// A GET of `/health` every 30 seconds.
    fn default() -> Self {
        Self {
            kind: HealthKind::http(),
            interval: Duration::from_secs(30),
            unhealthy_interval: None,
            jitter: Number::finite(0.1),
            timeout: Duration::from_secs(5),
            failure_limit: 3,
            healthy_threshold: 1,
            degraded_after: None,
        }
    }
}

impl Default for GrpcSpec {
    fn default() -> Self {
        Self {
            max_request_message: 4 << 20,
            max_response_message: 4 << 20,
            compression: Compression::Off,
        }
    }
}

impl Default for ConnectionSpec {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            max_connections: 100,
            max_streams: 100,
            max_idle_connections: 32,
            idle_timeout: Duration::from_secs(30),
            max_age: None,
            connection_timeout: Duration::from_secs(10),
            proxy: ProxySpec::Off,
            proxy_auth: None,
            keep_alive: true,
            disable_compression: false,
            max_response_head: 64 << 10,
            max_response_body: None,
        }
    }
}

impl ConnectionSpec {
    /// Of a plugin that is a process and speaks HTTP: connections last as long as it runs.
    pub(super) fn of_process() -> Self {
        Self {
            protocol: Protocol::Http2,
            ..Self::default()
        }
    }
}

impl Default for TlsSpec {
    /// The system's roots, the host of the URL, and a warning two weeks before a certificate expires.
    fn default() -> Self {
        Self {
            ca: None,
            server_name: None,
            identity: None,
            min_version: TlsVersion::Tls12,
            pins: Vec::new(),
            expiry_warning: Some(Duration::from_secs(14 * 24 * 3600)),
        }
    }
}

impl RateLimitSpec {
    /// A bucket that holds one second's tokens, at least one, and refuses at once.
    #[must_use]
    pub fn new(requests_per_second: Number) -> Self {
        // The cast saturates, and a negative rate gives zero.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let burst_size = requests_per_second.get().ceil() as u32;
        Self {
            requests_per_second,
            burst_size: burst_size.max(1),
            max_wait: Duration::ZERO,
            key_header: None,
            max_keys: 10_000,
            cost_header: None,
            headers: false,
            redis: None,
        }
    }
}

impl RedisSpec {
    /// The server at `url`, which has 100 ms for an answer, and without which calls go on.
    #[must_use]
    pub const fn new(url: Secret) -> Self {
        Self {
            url,
            prefix: None,
            timeout: Duration::from_millis(100),
            fail_open: true,
        }
    }
}

impl ConcurrencySpec {
    /// `max_concurrent` calls at once; one more is refused at once.
    #[must_use]
    pub const fn new(max_concurrent: u32) -> Self {
        Self {
            max_concurrent,
            max_queued: 0,
            max_wait: Duration::ZERO,
            adaptive: None,
            priority_header: None,
        }
    }
}
