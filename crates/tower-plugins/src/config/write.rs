//! A config as text, every key written out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::attempts::{BUDGETS, JITTERS};
use super::balance::{FALLBACKS, STRATEGIES};
use super::blocks::PROTOCOLS;
use super::format::Format;
use super::grpc::COMPRESSIONS;
use super::layers::PLACES;
use super::limits::ADAPTIVE;
use super::secret::{self, HIDDEN};
use super::tls::VERSIONS;
use super::tree::{Entry, Node, Value};
use super::{
    Address, AuthorizeSpec, BalanceSpec, BalanceStrategy, BreakerSpec, BudgetKind, ConcurrencySpec,
    Config, CredentialsSpec, EndpointSpec, FallbackSpec, FileContents, FilterSpec, GrpcSpec,
    HedgeSpec, Identity, KeySpec, LayerSpec, Number, OutlierSpec, PluginSpec, Policy,
    RateLimitSpec, RetryOn, RetrySpec, Secret, TlsSpec, Upstream, expand, units,
};

/// Whether secrets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Secrets {
    /// As `***`, which is refused when it is read.
    Hidden,
    /// As they are; those from files as the file they are from.
    Shown,
}

impl Config {
    /// This config as text. Every key is written out, those with their default as well: read again,
    /// with secrets shown and while the files it names are the same, it is an equal config.
    ///
    /// What a file cannot say is left out, and then missed when it is read: paths that are no UTF-8, and
    /// endpoints of different kinds in one plugin.
    ///
    /// ```
    /// use tower_plugins::config::{Config, Format, PluginSpec, Secrets};
    ///
    /// let config = Config::new().with(PluginSpec::http("search", "http://10.0.0.1:8080")?);
    /// let text = config.to_text(Format::Toml, Secrets::Shown);
    /// assert_eq!(Config::parse(&text, Format::Toml)?, config);
    /// # Ok::<(), tower_plugins::config::ConfigError>(())
    /// ```
    #[must_use]
    pub fn to_text(&self, format: Format, secrets: Secrets) -> String {
        let writer = Writer { secrets };
        let plugins = self.plugins.values().map(|plugin| writer.plugin(plugin));
        let root = table([
            (
                "allow_empty",
                Some(Node::unplaced(Value::Bool(self.plugins.is_empty()))),
            ),
            ("plugins", Some(list(plugins.collect()))),
        ]);
        // None of them fails for values like these; what came of it is read back by tests.
        match format {
            Format::Json => serde_json::to_string_pretty(&root).unwrap_or_default(),
            Format::Yaml => serde_saphyr::to_string(&root).unwrap_or_default(),
            Format::Toml => toml::to_string(&root).unwrap_or_default(),
        }
    }
}

fn list(items: Vec<Node<'static>>) -> Node<'static> {
    Node::unplaced(Value::List(items))
}

/// The table of those keys that have a value.
fn table<const N: usize>(keys: [(&'static str, Option<Node<'static>>); N]) -> Node<'static> {
    let entries = keys.into_iter().filter_map(|(key, node)| {
        let node = node?;
        Some(Entry::unplaced(key, node))
    });
    Node::unplaced(Value::Table(entries.collect()))
}

fn text(text: &str) -> Option<Node<'static>> {
    Some(Node::text(expand::escape(text).into_owned()))
}

fn duration(duration: Duration) -> Option<Node<'static>> {
    Some(Node::text(units::write_duration(duration)))
}

fn duration_or_off(time: Option<Duration>) -> Option<Node<'static>> {
    time.map_or_else(|| text("off"), duration)
}

fn size(bytes: u64) -> Option<Node<'static>> {
    Some(Node::text(units::write_size(bytes)))
}

fn integer(whole: u32) -> Option<Node<'static>> {
    Some(Node::unplaced(Value::Integer(whole.into())))
}

fn number(number: Number) -> Option<Node<'static>> {
    Some(Node::unplaced(Value::Float(number.get())))
}

fn bool(bool: bool) -> Option<Node<'static>> {
    Some(Node::unplaced(Value::Bool(bool)))
}

fn off() -> Option<Node<'static>> {
    text("off")
}

fn file(file: &FileContents) -> Option<Node<'static>> {
    text(file.path().to_str()?)
}

fn word<T: PartialEq>(words: &[(&str, T)], meaning: &T) -> Option<Node<'static>> {
    let (word, _) = words.iter().find(|(_, known)| known == meaning)?;
    text(word)
}

struct Writer {
    secrets: Secrets,
}

impl Writer {
    fn plugin(&self, plugin: &PluginSpec) -> Node<'static> {
        let PluginSpec {
            name,
            policy,
            upstream,
        } = plugin;
        let transport = match upstream.endpoints.first().map(|endpoint| &endpoint.address) {
            Some(Address::Https { .. }) if upstream.grpc.is_some() => "grpc-tls",
            Some(Address::Http { .. } | Address::Unix { .. }) if upstream.grpc.is_some() => "grpc",
            Some(Address::Https { .. }) => "https",
            Some(Address::Unix { .. }) => "unix",
            Some(Address::InProcess { .. }) => "in-process",
            Some(Address::Http { .. }) | None => "http",
        };
        let endpoints = upstream.endpoints.iter();
        let endpoints = endpoints.filter_map(|one| endpoint(one, upstream.grpc.is_some()));
        let endpoints = endpoints.collect();
        let is_tls = transport == "https" || transport == "grpc-tls";
        table([
            ("name", text(name.as_str())),
            ("transport", text(transport)),
            ("endpoints", Some(list(endpoints))),
            ("drain_timeout", duration(policy.drain_timeout)),
            ("auth", Some(self.auth(&policy.credentials))),
            (
                "authorize",
                policy.authorize.as_ref().map(|spec| self.authorize(spec)),
            ),
            ("filter", policy.filter.as_ref().map(filter)),
            ("fallback", policy.fallback.as_ref().map(fallback)),
            ("layers", self.layers(&policy.layers)),
            ("retry", retry(policy)),
            ("hedge", policy.hedge.as_ref().map_or_else(off, hedge)),
            (
                "circuit_breaker",
                policy.breaker.as_ref().map_or_else(off, breaker),
            ),
            (
                "outlier_detection",
                policy.outlier.as_ref().map_or_else(off, outlier),
            ),
            ("connection", Some(connection(policy, upstream, transport))),
            (
                "rate_limit",
                policy.rate_limit.as_ref().map_or_else(off, rate_limit),
            ),
            (
                "concurrency",
                policy.concurrency.as_ref().map_or_else(off, concurrency),
            ),
            ("load_balancing", Some(balance(&policy.balance))),
            ("tls", is_tls.then(|| tls(&upstream.tls))),
            ("grpc", upstream.grpc.as_ref().map(grpc)),
        ])
    }

    fn auth(&self, credentials: &CredentialsSpec) -> Node<'static> {
        match credentials {
            CredentialsSpec::None => table([("method", text("none"))]),
            CredentialsSpec::ApiKey { header, key } => table([
                ("method", text("api-key")),
                ("header", text(header.as_str())),
                ("api_key", Some(self.secret(key))),
            ]),
            CredentialsSpec::Bearer { token } => table([
                ("method", text("bearer")),
                ("token", Some(self.secret(token))),
            ]),
            CredentialsSpec::Basic { username, password } => table([
                ("method", text("basic")),
                ("username", text(username)),
                ("password", Some(self.secret(password))),
            ]),
            CredentialsSpec::Custom { headers } => {
                let entry = |(name, value): &(http::HeaderName, Secret)| Entry {
                    key: name.as_str().to_owned().into(),
                    ..Entry::unplaced("", self.secret(value))
                };
                let headers = headers.iter().map(entry).collect();
                table([
                    ("method", text("custom")),
                    ("headers", Some(Node::unplaced(Value::Table(headers)))),
                ])
            }
        }
    }

    fn layers(&self, layers: &[LayerSpec]) -> Option<Node<'static>> {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                let options = layer.options.table();
                table([
                    ("name", text(&layer.name)),
                    ("at", word(&PLACES, &layer.at)),
                    (
                        "options",
                        (!options.is_empty()).then(|| self.options(options)),
                    ),
                ])
            })
            .collect();
        (!layers.is_empty()).then(|| list(layers))
    }

    fn options(&self, options: &serde_json::Map<String, serde_json::Value>) -> Node<'static> {
        let entries = options.iter().map(|(key, value)| Entry {
            key: key.clone().into(),
            ..Entry::unplaced("", self.option(value))
        });
        Node::unplaced(Value::Table(entries.collect()))
    }

    /// What of it is a secret is not known: no text is shown where secrets are not.
    fn option(&self, value: &serde_json::Value) -> Node<'static> {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(bool) => Value::Bool(*bool),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Value::Integer(whole),
                (None, number) => Value::Float(number.unwrap_or(f64::INFINITY)),
            },
            Json::String(_) if self.secrets == Secrets::Hidden => {
                return Node::text(HIDDEN.to_owned());
            }
            Json::String(text) => return Node::text(expand::escape(text).into_owned()),
            Json::Array(items) => Value::List(items.iter().map(|item| self.option(item)).collect()),
            Json::Object(options) => return self.options(options),
        };
        Node::unplaced(value)
    }

    fn authorize(&self, spec: &AuthorizeSpec) -> Node<'static> {
        let AuthorizeSpec {
            api_keys,
            api_key_header,
            bearer_tokens,
        } = spec;
        let callers = |callers: &[(String, Secret)]| {
            let entry = |(name, secret): &(String, Secret)| Entry {
                key: name.clone().into(),
                ..Entry::unplaced("", self.secret(secret))
            };
            let entries = callers.iter().map(entry).collect();
            (!callers.is_empty()).then(|| Node::unplaced(Value::Table(entries)))
        };
        let header = || text(api_key_header.as_str());
        table([
            ("api_keys", callers(api_keys)),
            // Without keys it does nothing, and is refused.
            (
                "api_key_header",
                (!api_keys.is_empty()).then(header).flatten(),
            ),
            ("bearer_tokens", callers(bearer_tokens)),
        ])
    }

    fn secret(&self, secret: &Secret) -> Node<'static> {
        Node::text(match self.secrets {
            Secrets::Hidden => HIDDEN.to_owned(),
            Secrets::Shown => secret::write(secret),
        })
    }
}

fn endpoint(endpoint: &EndpointSpec, is_grpc: bool) -> Option<Node<'static>> {
    let (url, path) = match &endpoint.address {
        Address::Http { authority, prefix } => (format!("http://{authority}"), Some(prefix)),
        Address::Https { authority, prefix } => (format!("https://{authority}"), Some(prefix)),
        Address::Unix { path, prefix } => {
            let path = path.to_str()?;
            // A target of gRPC has to say that it is a socket.
            let scheme = if is_grpc { "unix://" } else { "" };
            (format!("{scheme}{path}"), Some(prefix))
        }
        Address::InProcess { service } => (service.clone(), None),
    };
    let path = path.filter(|path| !path.is_empty());
    Some(table([
        ("url", text(&url)),
        ("path", path.and_then(|path| text(path))),
        ("weight", integer(endpoint.weight)),
        ("priority", integer(endpoint.priority)),
        ("zone", endpoint.zone.as_deref().and_then(text)),
        ("labels", named(&endpoint.labels, |value| text(value))),
    ]))
}

/// A table with names of its own.
fn named<T>(
    values: &BTreeMap<String, T>,
    write: impl Fn(&T) -> Option<Node<'static>>,
) -> Option<Node<'static>> {
    let entry = |(name, value): (&String, &T)| {
        Some(Entry {
            key: name.clone().into(),
            ..Entry::unplaced("", write(value)?)
        })
    };
    let entries = values.iter().filter_map(entry).collect();
    Some(Node::unplaced(Value::Table(entries)))
}

fn key(key: &KeySpec) -> Option<Node<'static>> {
    match key {
        KeySpec::Header(name) => text(&format!("header:{name}")),
        KeySpec::Cookie(name) => text(&format!("cookie:{name}")),
    }
}

fn balance(spec: &BalanceSpec) -> Node<'static> {
    let BalanceSpec {
        strategy,
        hash_on,
        load_factor,
        least_request_bias,
        panic_threshold,
        overprovisioning,
        zone,
        subset,
        subset_on,
        subset_fallback,
        slow_start_window,
        slow_start_min_weight,
        slow_start_aggression,
    } = spec;
    // What does nothing beside the others is refused, so it is left out.
    let by_calls = *strategy == BalanceStrategy::LeastRequest;
    let in_subsets = !(subset.is_empty() && subset_on.is_empty());
    let bound = load_factor.unwrap_or(Number::finite(0.0));
    table([
        ("strategy", word(&STRATEGIES, strategy)),
        ("hash_on", hash_on.as_ref().and_then(key)),
        ("load_factor", number(bound).filter(|_| strategy.is_hash())),
        (
            "least_request_bias",
            number(*least_request_bias).filter(|_| by_calls),
        ),
        ("panic_threshold", number(*panic_threshold)),
        ("overprovisioning", number(*overprovisioning)),
        ("zone", zone.as_deref().and_then(text)),
        ("subset", named(subset, |value| text(value))),
        ("subset_on", named(subset_on, key)),
        (
            "subset_fallback",
            word(&FALLBACKS, subset_fallback).filter(|_| in_subsets),
        ),
        (
            "slow_start_window",
            duration_or_off(*slow_start_window).filter(|_| !strategy.is_hash()),
        ),
        (
            "slow_start_min_weight",
            number(*slow_start_min_weight).filter(|_| slow_start_window.is_some()),
        ),
        (
            "slow_start_aggression",
            number(*slow_start_aggression).filter(|_| slow_start_window.is_some()),
        ),
    ])
}

fn filter(spec: &FilterSpec) -> Node<'static> {
    let FilterSpec {
        service,
        headers,
        copy_headers,
        timeout,
        fail_open,
    } = spec;
    let names = |names: &[http::HeaderName]| {
        list(
            names
                .iter()
                .filter_map(|name| text(name.as_str()))
                .collect(),
        )
    };
    table([
        ("service", text(service)),
        ("headers", Some(names(headers))),
        ("copy_headers", Some(names(copy_headers))),
        ("timeout", duration(*timeout)),
        ("fail_open", bool(*fail_open)),
    ])
}

fn fallback(spec: &FallbackSpec) -> Node<'static> {
    let FallbackSpec {
        on,
        service,
        status,
        body,
        content_type,
    } = spec;
    let reasons = on.iter().filter_map(|reason| text(reason.as_str()));
    // Where a service answers there is no fixed answer.
    let fixed = |node: Option<Node<'static>>| node.filter(|_| service.is_none());
    table([
        ("on", Some(list(reasons.collect()))),
        ("service", service.as_deref().and_then(text)),
        ("status", fixed(integer(status.as_u16().into()))),
        ("body", fixed(text(body))),
        ("content_type", fixed(text(content_type))),
    ])
}

fn retry(policy: &Policy) -> Option<Node<'static>> {
    let Some(retry) = &policy.retry else {
        // A limit for the one attempt there is may be set all the same.
        return match policy.attempt_timeout {
            Some(_) => Some(table([
                ("max_retries", integer(0)),
                ("attempt_timeout", duration_or_off(policy.attempt_timeout)),
            ])),
            None => off(),
        };
    };
    let RetrySpec {
        max_retries,
        initial_interval,
        max_interval,
        multiplier,
        random_jitter,
        jitter,
        on,
        budget,
        budget_ratio,
        budget_min_per_second,
        budget_min_in_flight,
        budget_max_tokens,
        budget_token_ratio,
        idempotent,
        never,
        max_replay_bytes,
        attempt_header,
    } = retry;
    let on: Vec<_> = on.iter().map(ToString::to_string).collect();
    // The keys of another budget are refused, as they do nothing.
    let of =
        |kinds: &[BudgetKind], node: Option<Node<'static>>| node.filter(|_| kinds.contains(budget));
    let share = [BudgetKind::Ratio, BudgetKind::InFlight];
    let header = attempt_header
        .as_ref()
        .map_or("off", http::HeaderName::as_str);
    Some(table([
        ("max_retries", integer(*max_retries)),
        ("initial_interval", duration(*initial_interval)),
        ("max_interval", duration(*max_interval)),
        ("multiplier", number(*multiplier)),
        ("random_jitter", bool(*random_jitter)),
        ("jitter", word(&JITTERS, jitter).filter(|_| *random_jitter)),
        ("on", texts(&on)),
        ("budget", word(&BUDGETS, budget)),
        ("budget_ratio", of(&share, number(*budget_ratio))),
        (
            "budget_min_per_second",
            of(&[BudgetKind::Ratio], integer(*budget_min_per_second)),
        ),
        (
            "budget_min_in_flight",
            of(&[BudgetKind::InFlight], integer(*budget_min_in_flight)),
        ),
        (
            "budget_max_tokens",
            of(&[BudgetKind::Tokens], integer(*budget_max_tokens)),
        ),
        (
            "budget_token_ratio",
            of(&[BudgetKind::Tokens], number(*budget_token_ratio)),
        ),
        ("idempotent", texts(idempotent)),
        ("never", texts(never)),
        ("attempt_header", text(header)),
        ("max_replay_bytes", size(*max_replay_bytes)),
        ("attempt_timeout", duration_or_off(policy.attempt_timeout)),
    ]))
}

fn texts(texts: &[String]) -> Option<Node<'static>> {
    Some(list(texts.iter().filter_map(|item| text(item)).collect()))
}

fn hedge(hedge: &HedgeSpec) -> Option<Node<'static>> {
    let HedgeSpec {
        quantile,
        delay,
        min_samples,
        max_hedges,
        paths,
    } = hedge;
    // Without a quantile this is refused, as it does nothing.
    let min_samples = quantile.and_then(|_| integer(*min_samples));
    Some(table([
        ("quantile", quantile.and_then(number)),
        ("delay", delay.and_then(duration)),
        ("min_samples", min_samples),
        ("max_hedges", integer(*max_hedges)),
        ("paths", texts(paths)),
    ]))
}

fn breaker(breaker: &BreakerSpec) -> Option<Node<'static>> {
    let BreakerSpec {
        failure_threshold,
        failure_rate,
        failure_statuses,
        failure_grpc_codes,
        slow_call_duration,
        slow_call_rate,
        window,
        window_calls,
        min_request_threshold,
        recovery_timeout,
        max_recovery_timeout,
        recovery_jitter,
        success_threshold,
    } = breaker;
    // What would do nothing is refused when it is read.
    let judges = breaker.judges_shares();
    Some(table([
        ("failure_threshold", integer(failure_threshold.unwrap_or(0))),
        ("failure_rate", failure_rate.and_then(number)),
        ("failure_statuses", failure_statuses.as_ref().map(statuses)),
        (
            "failure_grpc_codes",
            failure_grpc_codes.as_ref().map(grpc_codes),
        ),
        ("slow_call_duration", duration_or_off(*slow_call_duration)),
        (
            "slow_call_rate",
            number(*slow_call_rate).filter(|_| slow_call_duration.is_some()),
        ),
        (
            "window",
            duration(*window).filter(|_| judges && window_calls.is_none()),
        ),
        (
            "window_calls",
            window_calls.and_then(integer).filter(|_| judges),
        ),
        (
            "min_request_threshold",
            integer(*min_request_threshold).filter(|_| judges),
        ),
        ("recovery_timeout", duration(*recovery_timeout)),
        (
            "max_recovery_timeout",
            max_recovery_timeout.and_then(duration),
        ),
        ("recovery_jitter", number(*recovery_jitter)),
        ("success_threshold", integer(*success_threshold)),
    ]))
}

fn outlier(outlier: &OutlierSpec) -> Option<Node<'static>> {
    let OutlierSpec {
        consecutive_failures,
        success_rate_stdev_factor,
        failure_percentage_threshold,
        min_requests,
        min_hosts,
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter,
        max_ejection_percent,
        always_eject_one_host,
    } = outlier;
    let factor = success_rate_stdev_factor.unwrap_or(Number::finite(0.0));
    // Without a rate two are refused, as they do nothing.
    let by_rates = success_rate_stdev_factor.is_some() || failure_percentage_threshold.is_some();
    Some(table([
        (
            "consecutive_failures",
            integer(consecutive_failures.unwrap_or(0)),
        ),
        ("success_rate_stdev_factor", number(factor)),
        (
            "failure_percentage_threshold",
            integer(failure_percentage_threshold.unwrap_or(0)),
        ),
        ("min_requests", integer(*min_requests).filter(|_| by_rates)),
        ("min_hosts", integer(*min_hosts).filter(|_| by_rates)),
        ("interval", duration(*interval)),
        ("base_ejection_time", duration(*base_ejection_time)),
        ("max_ejection_time", duration(*max_ejection_time)),
        (
            "max_ejection_time_jitter",
            duration(*max_ejection_time_jitter),
        ),
        ("max_ejection_percent", integer(*max_ejection_percent)),
        ("always_eject_one_host", bool(*always_eject_one_host)),
    ]))
}

fn statuses(statuses: &BTreeSet<u16>) -> Node<'static> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for status in statuses {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *status => *last = *status,
            _ => ranges.push((*status, *status)),
        }
    }
    let nodes = ranges.into_iter().filter_map(|(first, last)| {
        if first == last {
            integer(first.into())
        } else {
            text(&format!("{first}-{last}"))
        }
    });
    list(nodes.collect())
}

fn grpc_codes(codes: &BTreeSet<u8>) -> Node<'static> {
    let names = codes.iter().filter_map(|code| {
        let word = RetryOn::Grpc(*code).to_string();
        text(word.strip_prefix("grpc:")?)
    });
    list(names.collect())
}

fn connection(policy: &Policy, upstream: &Upstream, transport: &str) -> Node<'static> {
    let spec = &upstream.connection;
    let timeouts = [
        ("request_timeout", duration_or_off(policy.deadline)),
        (
            "timeout_header",
            (policy.timeout_header.as_ref())
                .map_or_else(|| text("off"), |name| text(name.as_str())),
        ),
        (
            "stream_idle_timeout",
            duration_or_off(policy.stream_idle_timeout),
        ),
    ];
    if transport == "in-process" {
        return table(timeouts);
    }
    let pooled = spec.protocol == super::Protocol::Http1;
    let keeps = spec.keep_alive && (!pooled || spec.max_idle_connections > 0);
    let [request, header, idle] = timeouts;
    table([
        ("protocol", word(&PROTOCOLS, &spec.protocol)),
        (
            "max_connections",
            integer(spec.max_connections).filter(|_| pooled),
        ),
        (
            "max_idle_connections",
            integer(spec.max_idle_connections).filter(|_| pooled && spec.keep_alive),
        ),
        (
            "idle_timeout",
            duration(spec.idle_timeout).filter(|_| keeps),
        ),
        ("connection_timeout", duration(spec.connection_timeout)),
        request,
        header,
        idle,
        ("keep_alive", bool(spec.keep_alive)),
        ("max_response_head", size(spec.max_response_head.into())),
        (
            "max_response_body",
            spec.max_response_body.map_or_else(|| text("off"), size),
        ),
    ])
}

fn rate_limit(limit: &RateLimitSpec) -> Option<Node<'static>> {
    Some(table([
        ("requests_per_second", number(limit.requests_per_second)),
        ("burst_size", integer(limit.burst_size)),
        ("max_wait", duration(limit.max_wait)),
        ("key_header", limit.key_header.as_ref().and_then(header)),
        (
            "max_keys",
            limit
                .key_header
                .as_ref()
                .and_then(|_| integer(limit.max_keys)),
        ),
        ("headers", bool(limit.headers)),
    ]))
}

fn header(name: &http::HeaderName) -> Option<Node<'static>> {
    text(name.as_str())
}

fn concurrency(limit: &ConcurrencySpec) -> Option<Node<'static>> {
    Some(table([
        ("max_concurrent", integer(limit.max_concurrent)),
        ("max_queued", integer(limit.max_queued)),
        ("max_wait", duration(limit.max_wait)),
        ("adaptive", word(&ADAPTIVE, &limit.adaptive)),
        (
            "priority_header",
            limit.priority_header.as_ref().and_then(header),
        ),
    ]))
}

fn grpc(spec: &GrpcSpec) -> Node<'static> {
    table([
        ("max_request_message", size(spec.max_request_message.into())),
        (
            "max_response_message",
            size(spec.max_response_message.into()),
        ),
        ("compression", word(&COMPRESSIONS, &spec.compression)),
    ])
}

fn tls(tls: &TlsSpec) -> Node<'static> {
    let identity: Option<&Identity> = tls.identity.as_ref();
    table([
        ("ca_file", tls.ca.as_ref().and_then(file)),
        ("server_name", tls.server_name.as_deref().and_then(text)),
        (
            "cert_file",
            identity.and_then(|identity| file(&identity.cert)),
        ),
        (
            "key_file",
            identity.and_then(|identity| file(&identity.key)),
        ),
        ("min_version", word(&VERSIONS, &tls.min_version)),
    ])
}
