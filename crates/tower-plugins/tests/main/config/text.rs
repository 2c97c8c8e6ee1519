//! A config as text, and back.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tower_plugins::Place;
use tower_plugins::config::{
    AdaptiveLimit, Address, AuthStyle, AuthorizeSpec, BalanceSpec, BalanceStrategy, BreakerSpec,
    BudgetKind, ClaimValue, ConcurrencySpec, Config, ConnectionSpec, CredentialsSpec, EndpointSpec,
    Environment, FallbackSpec, FilterSpec, Format, HealthKind, HealthSpec, HedgeSpec, JitterKind,
    JwtAlgorithm, JwtKey, JwtSpec, KeySpec, LayerSpec, Loader, Number, OAuth2Spec, Options,
    OutlierSpec, PluginName, PluginSpec, Policy, Protocol, ProxySpec, RateLimitSpec, RedisSpec,
    ReloadSpec, RetryOn, RetrySpec, Secret, Secrets, ShadowSpec, SplitSpec, SubsetFallback,
};
use tower_plugins_layers::RateLimiter;

use crate::transport::tls::server::Ca;

const FORMATS: [Format; 3] = [Format::Json, Format::Yaml, Format::Toml];

/// A duration in whole nanoseconds, of every magnitude.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1_u64..1_000,
        1_u64..10_000_000_000,
        (1_u64..86_400).prop_map(|seconds| seconds * 1_000_000_000),
    ]
    .prop_map(Duration::from_nanos)
}

fn number(least: f64, most: f64) -> impl Strategy<Value = Number> {
    prop_oneof![
        (least..=most),
        (least.ceil()..=most.floor()).prop_map(f64::round),
    ]
    .prop_map(|number| Number::new(number).unwrap())
}

fn name() -> impl Strategy<Value = PluginName> {
    prop_oneof![
        "[A-Za-z0-9][A-Za-z0-9._-]{0,12}",
        // Names that formats could take for something else.
        prop::sample::select(vec![
            "n", "no", "true", "1.10", "0x1f", "1e5", "null", "007", "off"
        ])
        .prop_map(str::to_owned),
    ]
    .prop_map(|name| PluginName::new(&name).unwrap())
}

/// A secret that fits a header, and that formats or the reader could take for something else.
fn secret() -> impl Strategy<Value = Secret> {
    prop_oneof![
        "[!-~]([ -~]{0,20}[!-~])?",
        prop::sample::select(vec![
            "***", "file:/x", "literal:", "${A}", "$${A}", "$", "true", "1.10", "- a", "#", "\"",
            "'", "a: b", "~", "!tag", "&a", "*a", "@", "`", "%", "{", "[", "|", ">", "a # b",
        ])
        .prop_map(str::to_owned),
    ]
    .prop_map(Secret::new)
}

fn credentials() -> impl Strategy<Value = CredentialsSpec> {
    let header = "[a-w][a-z0-9]{0,8}".prop_filter_map("reserved", |name| {
        let reserved = ["connection", "expect", "host", "te", "trailer", "upgrade"];
        (!reserved.contains(&name.as_str())).then(|| http::HeaderName::try_from(name).unwrap())
    });
    let headers = prop::collection::btree_map("[a-d][0-9]", secret(), 1..4).prop_map(|headers| {
        let name = |name: String| http::HeaderName::try_from(name).unwrap();
        headers
            .into_iter()
            .map(|(key, value)| (name(key), value))
            .collect()
    });
    prop_oneof![
        Just(CredentialsSpec::None),
        (header, secret()).prop_map(|(header, key)| CredentialsSpec::ApiKey { header, key }),
        secret().prop_map(|token| CredentialsSpec::Bearer { token }),
        ("[ -9;-~\u{e9}]{1,10}", secret())
            .prop_map(|(username, password)| CredentialsSpec::Basic { username, password }),
        headers.prop_map(|headers| CredentialsSpec::Custom { headers }),
        oauth2().prop_map(|spec| CredentialsSpec::OAuth2(spec.into())),
    ]
}

fn oauth2() -> impl Strategy<Value = OAuth2Spec> {
    let url = "https://[a-z]{1,8}(/[a-z]{0,4}){0,2}|http://localhost:1/";
    let scopes = prop::collection::vec("[!#-Z^-~]{1,8}", 0..3);
    let audience = prop::option::of("[!-~]{1,10}");
    let times = (duration(), 1_u64..=30_000_000_000);
    (
        url,
        "[!-~]{1,10}",
        secret(),
        scopes,
        audience,
        times,
        any::<bool>(),
    )
        .prop_map(
            |(url, id, secret, scopes, audience, (before, timeout), in_body)| {
                let mut spec = OAuth2Spec::new(&url, id, secret).unwrap();
                spec.scopes = scopes;
                spec.audience = audience;
                spec.refresh_before = before;
                spec.timeout = Duration::from_nanos(timeout);
                if in_body {
                    spec.auth_style = AuthStyle::Body;
                }
                spec
            },
        )
}

fn authorize() -> impl Strategy<Value = AuthorizeSpec> {
    let callers = || prop::collection::btree_map("[A-Za-z0-9][A-Za-z0-9._-]{0,8}", secret(), 0..3);
    (callers(), callers(), any::<bool>(), prop::option::of(jwt())).prop_filter_map(
        "nobody, or two with one secret",
        |(keys, tokens, other, jwt)| {
            let mut spec = AuthorizeSpec::new();
            spec.api_keys = keys.into_iter().collect();
            spec.bearer_tokens = tokens.into_iter().collect();
            if other && !spec.api_keys.is_empty() {
                spec.api_key_header = http::HeaderName::from_static("x-own");
            }
            let twice =
                |all: &[(String, Secret)]| matches!(all, [(_, one), (_, other)] if one == other);
            let is_nobody =
                spec.api_keys.is_empty() && spec.bearer_tokens.is_empty() && jwt.is_none();
            spec.jwt = jwt;
            (spec.anonymous, spec.forward_credentials) = (other, spec.bearer_tokens.len() == 1);
            (!is_nobody && !twice(&spec.api_keys) && !twice(&spec.bearer_tokens)).then_some(spec)
        },
    )
}

fn jwt() -> impl Strategy<Value = JwtSpec> {
    let texts = || prop::collection::vec("[!-~\u{e9}]{1,10}", 0..3);
    let claim = prop_oneof![
        "[ -~]{1,10}".prop_map(ClaimValue::Text),
        any::<bool>().prop_map(ClaimValue::Bool),
        any::<i64>().prop_map(ClaimValue::Integer),
        number(-1e9, 1e9).prop_map(ClaimValue::Number),
    ];
    let claims = prop::collection::btree_map("[a-z]{1,5}", claim, 0..3);
    (texts(), texts(), duration(), "[!-~]{1,8}", texts(), claims).prop_map(
        |(issuers, audiences, leeway, claim, scopes, claims)| {
            let secret = "a secret of more than thirty-two bytes".to_owned();
            let mut spec = JwtSpec::new(JwtKey::Secret(Secret::new(secret)));
            spec.algorithms = vec![JwtAlgorithm::Hs256];
            spec.issuers = issuers;
            spec.audiences = audiences;
            spec.leeway = leeway;
            spec.name_claim = claim.clone();
            spec.scope_claim = claim;
            spec.required_scopes = scopes;
            spec.required_claims = claims;
            spec
        },
    )
}

fn redis() -> impl Strategy<Value = RedisSpec> {
    let prefix = prop::option::of("[ -~]{0,10}");
    ("[a-z]{1,8}", prefix, duration(), any::<bool>()).prop_map(|(host, prefix, time, open)| {
        let mut spec = RedisSpec::new(Secret::new(format!("redis://u:p@{host}/1")));
        spec.prefix = prefix;
        spec.timeout = time;
        spec.fail_open = open;
        spec
    })
}

fn fallback() -> impl Strategy<Value = FallbackSpec> {
    let usual = FallbackSpec::default().on;
    let on = prop::sample::subsequence(usual, 1..11);
    let fixed = (on.clone(), 200_u16..600, "[ -~]{0,20}", "[!-~]{1,20}");
    let fixed = fixed.prop_map(|(on, status, body, kind)| {
        let mut spec = FallbackSpec::default();
        spec.on = on;
        spec.status = http::StatusCode::from_u16(status).unwrap();
        spec.body = body;
        spec.content_type = kind;
        spec
    });
    let asked = (on, "[a-z]{1,8}").prop_map(|(on, service)| {
        let mut spec = FallbackSpec::default();
        spec.on = on;
        spec.service = Some(service);
        spec
    });
    prop_oneof![fixed, asked]
}

fn filter() -> impl Strategy<Value = FilterSpec> {
    let names = || prop::sample::subsequence(vec!["cookie", "x-a", "x-b"], 0..=3);
    ("[a-z]{1,8}", names(), names(), duration(), any::<bool>()).prop_map(
        |(service, seen, copied, timeout, open)| {
            let names = |names: Vec<&'static str>| {
                let names = names.into_iter();
                names.map(http::HeaderName::from_static).collect()
            };
            let mut spec = FilterSpec::new(service);
            spec.headers = names(seen);
            spec.copy_headers = names(copied);
            spec.timeout = timeout;
            spec.fail_open = open;
            spec
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        number(-1e9, 1e9).prop_map(|number| Value::from(number.get())),
        "[ -~]{0,8}|[$]{0,3}[{]A[}]".prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(2, 8, 3, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("[ -~]{0,8}", value, 0..3)
                .prop_map(|table| table.into_iter().collect()),
        ]
    });
    let options = prop::collection::hash_map("[a-z]{1,8}", value, 0..3);
    options.prop_map(|options| Options::of(options).unwrap())
}

fn layers() -> impl Strategy<Value = Vec<LayerSpec>> {
    let layer = ("[A-Za-z0-9][A-Za-z0-9._-]{0,8}", any::<bool>(), options());
    let layer = layer.prop_map(|(name, is_attempt, options)| {
        let mut layer = LayerSpec::new(&name);
        if is_attempt {
            layer.at = Place::Attempt;
        }
        layer.options = options;
        layer
    });
    prop::collection::vec(layer, 0..3)
}

fn retry() -> impl Strategy<Value = RetrySpec> {
    let path = prop_oneof![
        "/[a-z/]{0,8}[*]?",
        Just("/${A}".to_owned()),
        Just("/a, b".to_owned())
    ];
    let paths = || prop::collection::vec(path.clone(), 0..3);
    let on = prop::collection::vec(
        prop::sample::select(vec![
            RetryOn::ServerError,
            RetryOn::RetryAfter,
            RetryOn::Grpc(8),
            RetryOn::Status(http::StatusCode::CONFLICT),
        ]),
        0..3,
    );
    (
        1_u32..=100,
        (duration(), duration()),
        number(1.0, 100.0),
        prop::option::of(any::<bool>()),
        (0..3, number(0.0, 1.0), 0_u32..=1_000_000, 1_u32..=1_000),
        (paths(), paths(), on),
        0_u64..=1 << 30,
        (any::<bool>(), any::<bool>(), prop::option::of(duration())),
    )
        .prop_map(
            |(retries, (a, b), multiplier, jitter, budget, (paths, never, on), replay, more)| {
                let (header, own, wait) = more;
                let mut retry = RetrySpec::default();
                retry.max_retries = retries;
                retry.initial_interval = a.min(b);
                retry.max_interval = a.max(b);
                retry.multiplier = multiplier;
                retry.random_jitter = jitter.is_some();
                if jitter == Some(true) {
                    retry.jitter = JitterKind::Decorrelated;
                }
                // What another budget has does nothing, and is the library's.
                let (kind, ratio, least, tokens) = budget;
                match kind {
                    0 => {
                        retry.budget_ratio = ratio;
                        retry.budget_min_per_second = least;
                    }
                    1 => {
                        retry.budget = BudgetKind::InFlight;
                        retry.budget_ratio = ratio;
                        retry.budget_min_in_flight = least;
                    }
                    _ => {
                        retry.budget = BudgetKind::Tokens;
                        retry.budget_max_tokens = tokens;
                        retry.budget_token_ratio = ratio;
                    }
                }
                retry.on = on;
                retry.idempotent = paths;
                retry.never = never;
                retry.max_replay_bytes = replay;
                let name = http::HeaderName::from_static("x-attempt");
                retry.attempt_header = header.then_some(name);
                retry.endpoint_budget = own;
                retry.first_frame_wait = wait;
                retry
            },
        )
}

fn hedge() -> impl Strategy<Value = HedgeSpec> {
    (
        prop::option::of((0.001..=0.999).prop_map(|share| Number::new(share).expect("a number"))),
        duration(),
        any::<bool>(),
        1_u32..=1_000_000,
        1_u32..=4,
        prop::collection::vec("/[a-z/]{0,8}[*]?", 0..3),
    )
        .prop_map(|(quantile, delay, both, samples, most, paths)| {
            let mut hedge = HedgeSpec::default();
            hedge.quantile = quantile;
            hedge.delay = Some(delay).filter(|_| both || quantile.is_none());
            if quantile.is_some() {
                hedge.min_samples = samples;
            }
            hedge.max_hedges = most;
            hedge.paths = paths;
            hedge
        })
}

fn breaker() -> impl Strategy<Value = BreakerSpec> {
    let rate = prop::option::of(number(0.001, 1.0));
    (
        (1_u32..=1_000_000, any::<bool>()),
        rate,
        (
            prop::option::of(duration()),
            number(0.001, 1.0),
            prop::option::of(prop::collection::btree_set(400_u16..=655, 0..9)),
            prop::option::of(prop::collection::btree_set(1_u8..=16, 0..5)),
        ),
        (duration(), prop::option::of(1_u32..=65_536)),
        1_u32..=1_000_000,
        (duration(), prop::option::of(duration()), number(0.0, 1.0)),
        1_u32..=1_000,
    )
        .prop_map(
            |((threshold, without), rate, slow, (window, calls), least, recovery, successes)| {
                let mut breaker = BreakerSpec::default();
                let judges = rate.is_some() || slow.0.is_some();
                breaker.failure_threshold = Some(threshold).filter(|_| !judges || !without);
                breaker.failure_rate = rate;
                breaker.failure_statuses = slow.2;
                breaker.failure_grpc_codes = slow.3;
                if slow.0.is_some() {
                    (breaker.slow_call_duration, breaker.slow_call_rate) = (slow.0, slow.1);
                }
                if judges {
                    breaker.window_calls = calls;
                    if calls.is_none() {
                        breaker.window = window;
                    }
                    breaker.min_request_threshold = least;
                }
                breaker.recovery_timeout = recovery.0;
                breaker.max_recovery_timeout = recovery.1.map(|more| recovery.0 + more);
                breaker.recovery_jitter = recovery.2;
                breaker.success_threshold = successes;
                breaker
            },
        )
}

fn outlier() -> impl Strategy<Value = OutlierSpec> {
    (
        (
            1_u32..=1_000_000,
            prop::option::of(number(0.001, 100.0)),
            prop::option::of(1_u32..=100),
            any::<bool>(),
        ),
        (1_u32..=1_000_000, 1_u32..=10_000),
        (duration(), duration(), duration(), duration()),
        (0_u32..=100, any::<bool>()),
    )
        .prop_map(
            |(
                (in_a_row, factor, percent, without),
                (requests, hosts),
                (interval, one, other, jitter),
                (most, always),
            )| {
                let mut outlier = OutlierSpec::default();
                let by_rates = factor.is_some() || percent.is_some();
                outlier.consecutive_failures = Some(in_a_row).filter(|_| !(by_rates && without));
                outlier.success_rate_stdev_factor = factor;
                outlier.failure_percentage_threshold = percent;
                if by_rates {
                    outlier.min_requests = requests;
                    outlier.min_hosts = hosts;
                }
                outlier.interval = interval;
                outlier.base_ejection_time = one.min(other);
                outlier.max_ejection_time = one.max(other);
                outlier.max_ejection_time_jitter = jitter;
                outlier.max_ejection_percent = most;
                outlier.always_eject_one_host = always || most == 0;
                outlier
            },
        )
}

fn health() -> impl Strategy<Value = HealthSpec> {
    let kind = prop_oneof![
        (
            prop::sample::select(vec!["/health", "/a/$b?c=${D}", "/"]),
            prop::collection::btree_set(200_u16..=599, 1..5),
        )
            .prop_map(|(path, statuses)| {
                let path = path.parse().unwrap();
                HealthKind::Http { path, statuses }
            }),
        prop_oneof![label(), Just(String::new())].prop_map(|service| HealthKind::Grpc { service }),
        label().prop_map(|service| HealthKind::GrpcWatch { service }),
        Just(HealthKind::Tcp),
    ];
    (
        kind,
        [duration(), duration(), duration(), duration()],
        any::<[bool; 2]>(),
        number(0.0, 1.0),
        (1_u32..=1_000, 1_u32..=1_000),
    )
        .prop_map(
            |(kind, times, [other, slow], jitter, (failures, successes))| {
                let [interval, unhealthy, timeout, degraded] = times;
                let mut health = HealthSpec::default();
                health.kind = kind;
                health.interval = interval.max(timeout);
                health.unhealthy_interval =
                    Some(unhealthy).filter(|time| other && *time != health.interval);
                health.timeout = timeout.min(interval);
                health.degraded_after =
                    Some(degraded).filter(|time| slow && *time < health.timeout);
                health.jitter = jitter;
                health.failure_limit = failures;
                health.healthy_threshold = successes;
                health
            },
        )
}

/// Texts that formats or the reader could take for something else.
fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,4}",
        prop::sample::select(vec!["1.10", "true", "${A}", "null", "a: b", "~"])
            .prop_map(str::to_owned),
    ]
}

fn key() -> impl Strategy<Value = KeySpec> {
    prop_oneof![
        "[a-z][a-z-]{0,6}".prop_map(|name| KeySpec::Header(name.parse().unwrap())),
        "[A-Za-z_.$-]{1,6}".prop_map(KeySpec::Cookie),
    ]
}

fn balance() -> impl Strategy<Value = BalanceSpec> {
    let strategy = prop::sample::select(vec![
        BalanceStrategy::PeakEwma,
        BalanceStrategy::RoundRobin,
        BalanceStrategy::WeightedRoundRobin,
        BalanceStrategy::Random,
        BalanceStrategy::WeightedRandom,
        BalanceStrategy::LeastRequest,
        BalanceStrategy::LeastConnections,
        BalanceStrategy::LeastLatency,
        BalanceStrategy::RingHash,
        BalanceStrategy::Maglev,
    ]);
    (
        strategy,
        key(),
        prop::option::of(number(1.0, 1_000.0)),
        (number(0.0, 10.0), number(0.0, 1.0), number(1.0, 100.0)),
        prop::option::of(label()),
        prop::collection::btree_map(label(), label(), 0..3),
        prop::collection::btree_map(label(), key(), 0..3),
        any::<bool>(),
        prop::option::of((duration(), number(0.001, 1.0), number(0.01, 100.0))),
    )
        .prop_map(
            |(
                strategy,
                key,
                factor,
                (bias, panic, over),
                zone,
                subset,
                subset_on,
                strict,
                slow,
            )| {
                let mut balance = BalanceSpec::default();
                balance.strategy = strategy;
                if strategy.is_hash() {
                    balance.hash_on = Some(key);
                    balance.load_factor = factor;
                }
                if strategy == BalanceStrategy::LeastRequest {
                    balance.least_request_bias = bias;
                }
                balance.panic_threshold = panic;
                balance.overprovisioning = over;
                balance.zone = zone;
                if strict && !(subset.is_empty() && subset_on.is_empty()) {
                    balance.subset_fallback = SubsetFallback::None;
                }
                balance.subset = subset;
                balance.subset_on = subset_on;
                if let Some((window, least, aggression)) = slow.filter(|_| !strategy.is_hash()) {
                    balance.slow_start_window = Some(window);
                    balance.slow_start_min_weight = least;
                    balance.slow_start_aggression = aggression;
                }
                balance
            },
        )
}

fn endpoint(address: Address) -> impl Strategy<Value = EndpointSpec> {
    let labels = prop::collection::btree_map(label(), label(), 0..3);
    (
        1_u32..=1_000_000,
        0_u32..=1_000,
        prop::option::of(label()),
        labels,
    )
        .prop_map(move |(weight, priority, zone, labels)| {
            let mut endpoint = EndpointSpec::from(address.clone());
            endpoint.weight = weight;
            endpoint.priority = priority;
            endpoint.zone = zone;
            endpoint.labels = labels;
            endpoint
        })
}

fn connection() -> impl Strategy<Value = ConnectionSpec> {
    (
        any::<bool>(),
        1_u32..=100_000,
        0_u32..=100_000,
        duration(),
        duration(),
        any::<bool>(),
        8_u32 << 10..=16 << 20,
        prop::option::of(0_u64..1 << 60),
        prop::option::of(1_u32..=1_000_000),
        prop::option::of(duration()),
        prop::option::of(any::<bool>()),
        any::<bool>(),
    )
        .prop_map(
            |(
                http2,
                open,
                idle,
                idle_timeout,
                timeout,
                keep,
                head,
                body,
                streams,
                age,
                proxy,
                plain,
            )| {
                let mut connection = ConnectionSpec::default();
                if http2 {
                    connection.protocol = Protocol::Http2;
                    connection.max_streams = streams.unwrap_or(connection.max_streams);
                }
                connection.max_connections = open;
                connection.max_idle_connections = if keep { idle.min(open) } else { 32.min(open) };
                connection.max_age = age.filter(|_| keep);
                connection.proxy = match proxy {
                    None => ProxySpec::Off,
                    Some(false) => ProxySpec::Environment,
                    Some(true) => ProxySpec::At("proxy:3128".parse().unwrap()),
                };
                if proxy == Some(true) {
                    connection.proxy_auth = Some(Secret::new("user:${A}".to_owned()));
                }
                connection.keep_alive = keep;
                connection.disable_compression = plain;
                if keep && connection.max_idle_connections > 0 {
                    connection.idle_timeout = idle_timeout;
                }
                connection.connection_timeout = timeout;
                connection.max_response_head = head;
                connection.max_response_body = body;
                connection
            },
        )
}

fn address() -> impl Strategy<Value = Vec<Address>> {
    let prefix = prop_oneof![Just(""), Just("/v1"), Just("/a/$b")];
    let host = prop_oneof!["[a-z]{1,8}(:[1-9][0-9]{0,3})?", Just("[::1]:80".to_owned())];
    let http = prop::collection::btree_set(host, 1..4);
    (http, prefix, 0..8).prop_map(|(hosts, prefix, kind)| {
        let addresses = hosts.into_iter().map(|host| match kind {
            0 => Address::http(&format!("http://{host}{prefix}")),
            1 => Address::https(&format!("https://{host}{prefix}")),
            2 => Address::unix(format!(
                "/run/${{A}}/{}",
                host.replace(['[', ']', ':'], "-")
            )),
            3 => Address::unix_json(format!("/run/$/{}", host.replace(['[', ']', ':'], "-"))),
            6 | 7 => {
                let name = host.replace(['[', ']'], "").replace("::1", "a.b");
                Address::dns(&format!("dns:///{name}"), kind == 7)
            }
            4 => Address::custom("mirror", &format!("${{A}} {host}")),
            _ => Address::in_process(&format!("s{}", host.replace(['[', ']', ':'], "-"))),
        });
        addresses.map(Result::unwrap).collect()
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let rate_limit = (
        number(0.001, 1e9),
        1_u32..,
        duration(),
        prop::option::of(1_u32..=10_000_000),
        any::<bool>(),
        prop::option::of(redis()),
    )
        .prop_map(|(rate, burst, wait, keys, headers, redis)| {
            let mut limit = RateLimitSpec::new(rate);
            limit.burst_size = burst.min(RateLimiter::max_burst(rate.get()));
            limit.max_wait = wait;
            if let Some(keys) = keys {
                limit.key_header = Some(http::HeaderName::from_static("x-tenant"));
                if redis.is_none() {
                    limit.max_keys = keys;
                }
                limit.cost_header = Some(http::HeaderName::from_static("x-cost"));
            }
            limit.redis = redis;
            limit.headers = headers;
            limit
        });
    let adaptive = prop::option::of(prop_oneof![
        Just(AdaptiveLimit::Gradient),
        Just(AdaptiveLimit::Aimd)
    ]);
    let concurrency = (
        1_u32..=1_000_000,
        0_u32..10,
        duration(),
        adaptive,
        any::<bool>(),
    )
        .prop_map(|(most, queued, wait, adaptive, priorities)| {
            let mut limit = ConcurrencySpec::new(most);
            limit.max_queued = queued;
            limit.max_wait = if queued > 0 { wait } else { Duration::ZERO };
            limit.adaptive = adaptive;
            limit.priority_header = priorities.then(|| http::HeaderName::from_static("x-priority"));
            limit
        });
    let option = prop::option::of::<BoxedStrategy<Duration>>;
    (
        (
            duration(),
            option(duration().boxed()),
            prop::option::of("x-[a-z]{1,5}(-ms)?"),
            option(duration().boxed()),
            option(duration().boxed()),
        ),
        prop::option::of(rate_limit.boxed()),
        prop::option::of(concurrency.boxed()),
        prop::option::of((retry().boxed(), prop::option::of(hedge().boxed()))),
        (
            prop::option::of(breaker().boxed()),
            prop::option::of(outlier().boxed()),
            prop::option::of(health().boxed()),
        ),
        balance().boxed(),
        (
            credentials().boxed(),
            prop::option::of(authorize().boxed()),
            prop::option::of(fallback().boxed()),
            layers().boxed(),
            prop::option::of(filter().boxed()),
            prop::option::of(split().boxed()),
            prop::option::of(shadow().boxed()),
        ),
    )
        .prop_map(
            |(
                (drain, deadline, header, idle, attempt),
                limit,
                concurrency,
                retry,
                (breaker, outlier, health),
                balance,
                (auth, authorize, fallback, layers, filter, split, shadow),
            )| {
                let mut policy = Policy::default();
                policy.drain_timeout = drain;
                policy.ready_within = attempt.filter(|_| limit.is_none());
                policy.exclusive = deadline.is_none();
                policy.deadline = deadline;
                policy.timeout_header = header.map(|name| name.parse().unwrap());
                policy.stream_idle_timeout = idle;
                policy.attempt_timeout = attempt;
                policy.rate_limit = limit;
                policy.concurrency = concurrency;
                // A hedge takes retry.
                let (retry, hedge) = retry.unzip();
                policy.retry = retry;
                policy.hedge = hedge.flatten();
                policy.breaker = breaker;
                policy.outlier = outlier;
                policy.health = health;
                policy.balance = balance;
                policy.credentials = auth;
                policy.authorize = authorize;
                policy.fallback = fallback;
                policy.layers = layers;
                policy.filter = filter;
                policy.split = split;
                policy.shadow = shadow;
                policy
            },
        )
}

/// A plugin that no other is called.
fn elsewhere() -> PluginName {
    PluginName::new("0elsewhere").unwrap()
}

fn split() -> impl Strategy<Value = SplitSpec> {
    let percents = prop::collection::vec(number(0.0, 30.0), 0..3);
    (number(0.0, 40.0), percents, prop::option::of(key())).prop_map(|(percent, others, key)| {
        let mut split = SplitSpec::new(elsewhere(), percent);
        for (index, percent) in others.into_iter().enumerate() {
            let name = PluginName::new(&format!("0elsewhere{index}")).unwrap();
            split = split.and(name, percent);
        }
        split.hash_on = key;
        split
    })
}

fn shadow() -> impl Strategy<Value = ShadowSpec> {
    (
        number(0.0, 100.0),
        any::<bool>(),
        1_u32..=100_000,
        duration(),
    )
        .prop_map(|(percent, idempotent, most, timeout)| {
            let mut shadow = ShadowSpec::new(elsewhere());
            shadow.percent = percent;
            shadow.idempotent_only = idempotent;
            shadow.max_concurrent = most;
            shadow.timeout = timeout;
            shadow
        })
}

fn plugin() -> impl Strategy<Value = PluginSpec> {
    let endpoints = address()
        .prop_flat_map(|addresses| addresses.into_iter().map(endpoint).collect::<Vec<_>>());
    (name(), endpoints, policy().boxed(), connection(), options()).prop_map(
        |(name, endpoints, policy, connection, options)| {
            let (mut policy, mut connection) = (policy, connection);
            match (
                policy.health.as_ref().map(|health| &health.kind),
                &endpoints[0].address,
            ) {
                (Some(HealthKind::Tcp), Address::InProcess { .. })
                | (
                    Some(HealthKind::Grpc { .. } | HealthKind::GrpcWatch { .. }),
                    Address::UnixJson { .. },
                ) => policy.health = None,
                (Some(HealthKind::Grpc { .. } | HealthKind::GrpcWatch { .. }), _) => {
                    let library = ConnectionSpec::default();
                    connection.protocol = Protocol::Http2;
                    connection.max_connections = library.max_connections;
                    connection.max_idle_connections = library.max_idle_connections;
                }
                _ => {}
            }
            let mut plugin = PluginSpec::new(name, endpoints[0].address.clone());
            match endpoints[0].address {
                Address::InProcess { .. } => {}
                Address::UnixJson { .. } => {
                    // What is HTTP's is not said.
                    let usual = ConnectionSpec::default();
                    if connection.protocol == usual.protocol {
                        plugin.upstream.connection = connection;
                        plugin.upstream.connection.max_response_head = usual.max_response_head;
                        plugin.upstream.connection.max_age = usual.max_age;
                        plugin.upstream.connection.proxy = ProxySpec::Off;
                        plugin.upstream.connection.proxy_auth = None;
                        plugin.upstream.connection.disable_compression = false;
                    }
                }
                Address::Unix { .. } => {
                    plugin.upstream.connection = connection;
                    plugin.upstream.connection.proxy = ProxySpec::Off;
                    plugin.upstream.connection.proxy_auth = None;
                    plugin.upstream.connection.disable_compression = false;
                }
                Address::Custom { .. } => {
                    plugin.upstream.connection = connection;
                    plugin.upstream.options = options;
                }
                _ => plugin.upstream.connection = connection,
            }
            if let Address::UnixJson { .. } = endpoints[0].address {
                // Nor is what streams need.
                policy.stream_idle_timeout = None;
            }
            plugin.upstream.endpoints = endpoints;
            plugin.policy = policy.into();
            let mut endpoints = plugin.upstream.endpoints.iter();
            plugin.policy.allow_plaintext = plugin.policy.credentials != CredentialsSpec::None
                && endpoints.any(|end| match &end.address {
                    Address::Http { .. } => true,
                    Address::Dns(name) => !name.https,
                    _ => false,
                });
            plugin
        },
    )
}

pub(crate) fn config() -> impl Strategy<Value = Config> {
    prop::collection::vec(plugin(), 0..5)
        .prop_map(|plugins| plugins.into_iter().fold(Config::new(), Config::with))
}

fn reload() -> impl Strategy<Value = ReloadSpec> {
    let strategies = ["graceful", "immediate", "blue-green", "canary", "rolling"];
    (
        prop::sample::select(strategies.to_vec()),
        prop::option::of(duration()),
        [duration(), duration(), duration(), duration()],
        [
            1_u32..1_000,
            1..1_000,
            1..1_000,
            1..1_000,
            1..1_000,
            1..1_000,
        ],
        any::<bool>(),
        prop::collection::btree_set(1_u32..=99, 0..4),
        prop::option::of("x-[a-z]{1,5}"),
        (number(0.0, 1.0), number(1.0, 1_000.0)),
    )
        .prop_map(
            |(strategy, graceful, times, numbers, rollback, steps, header, (increase, factor))| {
                let mut reload = ReloadSpec::default();
                reload.strategy = strategy.parse().unwrap();
                reload.graceful_timeout = graceful;
                reload.rollback_on_failure = rollback;
                reload.canary_steps = steps.into_iter().collect();
                reload.stick_to = header.map(|name| name.parse().unwrap());
                reload.max_failure_increase = increase;
                reload.max_latency_factor = factor;
                [
                    reload.health_check_timeout,
                    reload.validation_timeout,
                    reload.observe_for,
                    reload.canary_step_time,
                ] = times;
                [
                    reload.max_concurrent_reloads,
                    reload.canary_min_calls,
                    reload.min_calls,
                    reload.history,
                    reload.max_retiring,
                    reload.max_held,
                ] = numbers;
                reload
            },
        )
}

/// A config with all that a plan does not look at.
fn whole() -> impl Strategy<Value = Config> {
    (config(), prop::collection::vec(plugin(), 0..2), reload()).prop_map(
        |(mut config, disabled, reload)| {
            let named = disabled
                .into_iter()
                .map(|plugin| (plugin.name.clone(), plugin));
            config.disabled = named
                .filter(|(name, _)| !config.plugins.contains_key(name))
                .collect();
            config.reload = reload;
            config
        },
    )
}

fn read(text: &str, format: Format) -> Config {
    let loaded = Loader::text(text, format)
        .environment(Environment::empty())
        .load();
    loaded
        .config
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_config_that_is_written_and_read_is_equal(config in whole()) {
        for format in FORMATS {
            let text = config.to_text(format, Secrets::Shown);
            prop_assert_eq!(&read(&text, format), &config, "{}", text);
        }
    }

    #[test]
    fn what_is_written_fits_the_schema(config in whole()) {
        let text = config.to_text(Format::Json, Secrets::Shown);
        let validator = super::docs::validator();
        let value = serde_json::from_str(&text).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        prop_assert!(errors.is_empty(), "{:?}\n{}", errors, text);
    }
}

/// `//` is left out after `unix:` only, where it is part of a URL.
#[test]
fn endpoints_that_are_found_elsewhere_are_written_and_read() {
    for text in [
        "plugins: { p: { transport: https, endpoint: { from: hosts } } }",
        "plugins: { p: { transport: mirror, endpoints: [{ from: hosts }, a] } }",
        "plugins: { p: { transport: grpc-tls, endpoint: { from: hosts }, grpc: { compression: gzip } } }",
        "plugins: { p: { transport: grpc-tls, endpoint: 'dns:a.b:50051' } }",
        "plugins: { p: { transport: https, endpoint: { url: 'dns://10.0.0.2/a.b', path: /v1 }, dns: { min_ttl: 1s } } }",
        "plugins: { p: { transport: http, endpoints: ['dns+srv:///_a._tcp.b.', 'dns:c:81', 'http://d'] } }",
    ] {
        let config = Config::parse(text, Format::Yaml).unwrap();
        for format in [Format::Json, Format::Yaml, Format::Toml] {
            let written = config.to_text(format, Secrets::Shown);
            assert_eq!(
                Config::parse(&written, format).unwrap(),
                config,
                "{written}"
            );
        }
    }
}

#[test]
fn a_socket_with_two_slashes_is_written_and_read() {
    let socket = |written: &str| {
        let text = format!("plugins: {{ a: {{ transport: unix, endpoint: '{written}' }} }}");
        read(&text, Format::Yaml)
    };
    let config = socket("unix:////run/a.sock");
    assert_eq!(config, socket("//run/a.sock"));
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        assert_eq!(read(&text, format), config, "{text}");
    }
}

#[test]
fn a_secret_that_is_hidden_is_nowhere_and_is_not_taken_for_one() {
    let mut plugin = PluginSpec::http("a", "http://h").unwrap();
    plugin.policy.credentials = CredentialsSpec::Bearer {
        token: Secret::new("hunter2".to_owned()),
    };
    let config = Config::new().with(plugin);
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Hidden);
        assert!(!text.contains("hunter2"), "{text}");
        let error = Config::parse(&text, format).unwrap_err();
        assert!(error.to_string().contains("was not shown"), "{error}");
        assert!(config.to_text(format, Secrets::Shown).contains("hunter2"));
    }
}

#[test]
fn files_are_written_as_the_files_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        path.display().to_string()
    };
    let ca = Ca::new();
    let me = ca.certify(&["me"]).identity();
    let text = format!(
        "plugins:
  - name: a
    transport: https
    endpoint: https://a
    auth: {{ method: bearer, token: 'file:{}' }}
    tls: {{ ca_file: {}, cert_file: {}, key_file: {}, server_name: b, min_version: '1.3', expiry_warning: 30d,
           pins: [sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=] }}
  - name: b
    transport: https
    endpoint: https://b
    auth: {{ method: mtls, cert_file: {}, key_file: {} }}
",
        put("token", b"hunter2"),
        put("ca.pem", ca.file().expose()),
        put("me.pem", me.cert.expose()),
        put("me.key", me.key.expose()),
        put("me.pem", me.cert.expose()),
        put("me.key", me.key.expose()),
    );
    let config = read(&text, Format::Yaml);
    assert!(config.plugins["b"].upstream.tls.identity.is_some());
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        assert_eq!(read(&text, format), config, "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("PRIVATE"),
            "{text}"
        );
    }
    // What a file holds is what is compared, whatever it is called.
    put("token", b"hunter3");
    assert_ne!(read(&text, Format::Yaml), config);
}

#[test]
fn plugins_that_speak_grpc_are_written_as_such() {
    let text = "plugins:
  a: { transport: grpc, endpoints: ['h:1', 'unix:/run/a.sock', { url: 'http://i:2', path: /v1 }],
       grpc: { max_request_message: 1KiB, max_response_message: 3GiB, compression: gzip } }
  b: { transport: grpc-tls, endpoint: 'h:443', tls: { server_name: b } }
  c: { transport: grpc, endpoint: 'unix:////run/a.sock' }
";
    let config = read(text, Format::Yaml);
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        assert_eq!(read(&text, format), config, "{text}");
    }
}

#[test]
fn plugins_that_are_processes_are_written_and_read_and_their_environment_is_hidden() {
    let text = "plugins:
  a: { transport: exec-json, executable: /usr/bin/a, args: ['', '${}'], env: { A: 'file:x', B: s3cret },
       work_dir: /tmp, process: { instances: 3, inherit_env: true, umask: '0027', no_new_privileges: false,
       checksum: 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
       stop_timeout: 0s, idle_timeout: 5m, restart: on-failure, max_restarts: 7, restart_window: 2m,
       pid_namespace: true, limits: { memory: 64MiB, cpu: 1.5, pids: 9, cgroup: '..' },
       rlimits: { nofile: 40, address_space: 4GiB, core: 0, fsize: 1000, cpu: 60, nproc: 70 } },
       connection: { connection_timeout: 7s, max_response_body: 1KiB }, health_check: { interval: 3s } }
  b: { transport: exec-json, executable: /usr/bin/b, process: { restart: never, limits: {} } }
  c: { transport: exec-json, executable: /bin/sh, start: ready, process: { watch: true } }
";
    let text = text
        .replace("file:x", "literal:file:x")
        .replace("${}", "$$");
    let config = read(&text, Format::Yaml);
    assert_eq!(config.plugins["a"].upstream.endpoints.len(), 3);
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        assert_eq!(read(&text, format), config, "{text}");
        let hidden = config.to_text(format, Secrets::Hidden);
        assert!(!hidden.contains("s3cret"), "{hidden}");
    }
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn plugins_of_go_plugin_are_written_and_read() {
    let text = "
default_grpc: { max_request_message: 1MiB }
plugins:
  a: { transport: subprocess, executable: /usr/bin/a, process: { start_timeout: 2s, instances: 2, stdin: inherit },
       go_plugin: { cookie_key: A, cookie_value: b, protocol_versions: [6, 5, 6], auto_mtls: false, multiplex: true,
       socket_dir: /run/a, socket_group: '7', min_port: 1, max_port: 2 },
       connection: { max_connections: 3, max_streams: 9, connection_timeout: 7s, max_response_body: 1KiB }, health_check: {} }
  b: { transport: subprocess, executable: /usr/bin/b, process: { stdin: terminal }, grpc: { max_response_message: 5MiB } }
  c: { transport: subprocess, executable: /usr/bin/c, tls: { server_name: c }, health_check: { kind: process } }
  d: { transport: subprocess, go_plugin: { socket_dir: /run/d,
       reattach: '{\"Protocol\":\"grpc\",\"ProtocolVersion\":6,\"Pid\":4711,\"Test\":true,\"Addr\":{\"Network\":\"unix\",\"String\":\"/tmp/plugin42\"}}' } }
";
    let config = read(text, Format::Yaml);
    let versions = &config.plugins["a"].upstream.go_plugin.protocol_versions;
    assert_eq!(*versions, [5, 6]);
    let grpc = config.plugins["b"].upstream.grpc.clone().unwrap();
    assert_eq!(grpc.max_request_message, 1 << 20);
    assert_eq!(grpc.max_response_message, 5 << 20);
    let grpc = config.plugins["a"].upstream.grpc.clone().unwrap();
    assert_eq!(grpc.max_response_message, i32::MAX.unsigned_abs());
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        assert_eq!(read(&text, format), config, "{text}");
    }
}

/// What of a layer's options is a secret is not known.
#[test]
fn no_text_in_a_layers_options_is_shown() {
    let text = "plugins: { a: { transport: in-process, endpoint: s, layers: [
        { name: l, options: { key: s3cret, size: 7, more: [{ key: s3cret }] } }
    ] } }";
    let config = read(text, Format::Yaml);
    for format in FORMATS {
        assert!(config.to_text(format, Secrets::Shown).contains("s3cret"));
        let hidden = config.to_text(format, Secrets::Hidden);
        assert!(!hidden.contains("s3cret"), "{hidden}");
        assert!(hidden.contains('7'), "{hidden}");
    }
    let printed = format!("{config:?}");
    assert!(
        printed.contains("size") && !printed.contains("s3cret"),
        "{printed}"
    );
}

/// No answer of `unix-json` is a stream.
#[test]
fn what_defaults_say_of_streams_is_nothing_for_lines() {
    let text = "{ default_connection: { stream_idle_timeout: 5s }, plugins: {
        lines: { transport: unix-json, endpoint: /run/p.sock },
        http: { transport: http, endpoint: 'http://h' } } }";
    let config = read(text, Format::Yaml);
    let idle = |name: &str| config.plugins[name].policy.stream_idle_timeout;
    assert_eq!(idle("lines"), None);
    assert_eq!(idle("http"), Some(std::time::Duration::from_secs(5)));
    for format in FORMATS {
        let text = config.to_text(format, Secrets::Shown);
        assert_eq!(read(&text, format), config, "{text}");
    }
}
