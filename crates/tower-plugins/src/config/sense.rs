//! Values that are fine one by one and mean nothing together.

use std::time::Duration;

use super::blocks::Blocks;
use super::endpoints::Transport;
use super::error::ProblemKind;
use super::fault::Fault;
use super::table::{Table, is_unset, join};
use super::units::write_duration;
use super::{BudgetKind, ConnectionSpec, KeySpec, Policy, Protocol, ProxySpec, health, unix_json};

/// Refuses keys of the plugin `table` that would do nothing. One that is inherited may: it is not
/// about this plugin.
pub(super) fn refuse_inert(
    table: &Table<'_>,
    transport: Option<&Transport>,
    connection: &ConnectionSpec,
    policy: &Policy,
) {
    let refuse = |block: &str, key: &str, why: &str| {
        refuse_key(table, block, key, Fault::new(ProblemKind::Ineffective, why));
    };
    if let Some(breaker) = &policy.breaker {
        if !breaker.judges_shares() {
            for key in ["window", "window_calls", "min_request_threshold"] {
                let why = "does nothing without failure_rate or slow_call_duration: \
                           set one of them, or remove this";
                refuse("circuit_breaker", key, why);
            }
        }
        if breaker.slow_call_duration.is_none() {
            let why = "does nothing without slow_call_duration: set that, or remove this";
            refuse("circuit_breaker", "slow_call_rate", why);
        }
    }
    let limit = policy.rate_limit.as_ref();
    if limit.is_some_and(|limit| limit.key_header.is_none()) {
        refuse(
            "rate_limit",
            "max_keys",
            "does nothing without key_header: set that, or remove this",
        );
    } else if limit.is_some_and(|limit| limit.redis.is_some()) {
        refuse(
            "rate_limit",
            "max_keys",
            "does nothing with redis, where a bucket that is full again expires: remove this",
        );
    }
    if let Some(callers) = &policy.authorize {
        let hash_on = match &policy.balance.hash_on {
            Some(KeySpec::Header(name)) => Some(name),
            _ => None,
        };
        let places = policy.concurrency.as_ref();
        for (block, key, header) in [
            (
                "rate_limit",
                "key_header",
                limit.and_then(|limit| limit.key_header.as_ref()),
            ),
            (
                "rate_limit",
                "cost_header",
                limit.and_then(|limit| limit.cost_header.as_ref()),
            ),
            (
                "concurrency",
                "priority_header",
                places.and_then(|places| places.priority_header.as_ref()),
            ),
            ("load_balancing", "hash_on", hash_on),
        ] {
            if header.is_some_and(|header| callers.takes(header)) {
                let why = "is the header that authorize takes off the request before: no call would \
                           have it. Take another";
                refuse(block, key, why);
            }
        }
    }
    health::refuse_inert(table, transport, connection, policy.health.as_ref(), refuse);
    if transport == Some(&Transport::InProcess) {
        for key in ON_THE_WIRE {
            refuse("connection", key, "does nothing for an in-process plugin");
        }
    } else {
        if transport == Some(&Transport::UnixJson) {
            let keys = &unix_json::INERT;
            let why = "which is not HTTP";
            unix_json::refuse_inert("unix-json", keys, why, connection, policy, refuse);
        }
        if transport == Some(&Transport::ExecJson) {
            let of_process = ["connection_timeout", "max_response_body"];
            let mut keys = ON_THE_WIRE.to_vec();
            keys.retain(|key| !of_process.contains(key));
            let why = "which has a process and no connections";
            unix_json::refuse_inert("exec-json", &keys, why, connection, policy, refuse);
            return;
        }
        if transport == Some(&Transport::Subprocess) {
            for key in NOT_OF_SUBPROCESS {
                let why = "does nothing with subprocess, whose connections are HTTP/2 and last as long as the process: remove it";
                refuse("connection", key, why);
            }
            return;
        }
        if transport == Some(&Transport::Unix) {
            let why = "does nothing over a Unix socket, where nothing is compressed: remove it";
            refuse("connection", "disable_compression", why);
        }
        if transport.is_some_and(Transport::is_grpc) {
            let why = "does nothing for gRPC, which compresses messages by itself: grpc.compression is for that";
            refuse("connection", "disable_compression", why);
        }
        if !matches!(connection.proxy, ProxySpec::At(_)) {
            let why = "does nothing without proxy: http://…: set that, or remove this";
            refuse("connection", "proxy_auth", why);
        }
        if connection.protocol == Protocol::Http1 {
            let why =
                "does nothing with protocol: http1, where a connection has one call at a time";
            refuse("connection", "max_streams", why);
        }
        if !connection.keep_alive {
            for key in ["max_idle_connections", "max_age"] {
                refuse("connection", key, "does nothing with keep_alive: false");
            }
        }
        if !connection.keep_alive || connection.max_idle_connections == 0 {
            let why = "does nothing where no connection is kept without a call";
            refuse("connection", "idle_timeout", why);
        }
    }
}

/// Refuses a proxy on the way to sockets of this machine.
pub(super) fn refuse_proxy(table: &Table<'_>, over_socket: bool) {
    if over_socket {
        let why = "does nothing over a Unix socket, which is on this machine: remove it";
        let fault = Fault::new(ProblemKind::Ineffective, why);
        refuse_key(table, "connection", "proxy", fault);
    }
}

/// Refuses `key` of the block `block`, if it is there.
fn refuse_key(table: &Table<'_>, block: &str, key: &str, fault: Fault) {
    let written = table.get(block).and_then(|block| block.entries());
    let Some(entries) = written.filter(|entries| !is_unset(table.block_of(block), entries)) else {
        return;
    };
    if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
        let path = join(&table.path_of(block), key);
        table.report().add(table.doc(), entry.at, path, fault);
    }
}

/// `protocol` is the one asked for: gRPC has no other than HTTP/2.
pub(super) fn refuse_grpc(table: &Table<'_>, transport: Option<&Transport>, protocol: Protocol) {
    let Some(transport) = transport else { return };
    if *transport == Transport::Subprocess {
        return;
    }
    if !transport.is_grpc() {
        if table.has("grpc") {
            let why = "does nothing without transport: grpc, grpc-tls or subprocess";
            table.problem("grpc", Fault::new(ProblemKind::Ineffective, why));
        }
    } else if protocol == Protocol::Http1 {
        let why = "is http1, and gRPC goes over HTTP/2 only: remove it";
        let fault = Fault::new(ProblemKind::Conflict, why);
        refuse_key(table, "connection", "protocol", fault);
    }
}

pub(super) fn refuse_tls(table: &Table<'_>, transport: Option<&Transport>, mtls: bool) {
    if transport.is_none_or(|transport| transport.is_tls() || *transport == Transport::Subprocess) {
        return;
    }
    let ineffective = |why| Fault::new(ProblemKind::Ineffective, why);
    if table.has("tls") {
        table.problem(
            "tls",
            ineffective("does nothing without transport: https, grpc-tls or subprocess"),
        );
    }
    if mtls {
        table.problem(
            "auth",
            ineffective("method: mtls takes transport: https, grpc-tls or subprocess"),
        );
    }
}

/// Refuses a timeout in a header that has something else.
pub(super) fn refuse_shared_header(table: &Table<'_>, policy: &Policy) {
    let Some(name) = &policy.timeout_header else {
        return;
    };
    if policy.credentials.sets(name) {
        let message = format!("timeout_header, {name}, is where auth puts a secret: name another");
        table.conflict("connection", message);
    }
}

/// Hedges are attempts by the rules of `retry`, and from its budget.
pub(super) fn refuse_hedge_alone(table: &Table<'_>, blocks: &Blocks) {
    if table.has("hedge") && blocks.hedges_alone() {
        table.conflict(
            "hedge",
            "takes the rules and the budget of `retry`, which is off: switch retry on, or hedge off",
        );
    }
}

/// Warns of what can hardly be meant, and does no harm.
pub(super) fn warn_of_vain(table: &Table<'_>, connection: &ConnectionSpec, policy: &Policy) {
    let deadline = policy.deadline;
    let never_reached = |block: &str, key: &str, time: Option<Duration>| {
        let Some(time) = time else { return };
        if let Some(deadline) = deadline.filter(|deadline| time >= *deadline) {
            let (time, deadline) = (write_duration(time), write_duration(deadline));
            let message = format!(
                "{key}, {time}, is never reached: connection.request_timeout, {deadline}, is over first"
            );
            table.warn(block, message);
        }
    };
    never_reached("retry", "attempt_timeout", policy.attempt_timeout);
    let wait = policy.rate_limit.as_ref().map(|limit| limit.max_wait);
    never_reached("rate_limit", "max_wait", wait);
    let wait = policy.concurrency.as_ref().map(|limit| limit.max_wait);
    never_reached("concurrency", "max_wait", wait);
    // The library's own is longer than most calls, and no mistake of anybody.
    let timeout = Some(connection.connection_timeout)
        .filter(|timeout| *timeout != ConnectionSpec::default().connection_timeout);
    never_reached("connection", "connection_timeout", timeout);

    let Some(retry) = &policy.retry else { return };
    if let Some(hedge) = &policy.hedge {
        never_reached("hedge", "delay", hedge.delay);
    }
    let reserve = match retry.budget {
        BudgetKind::Ratio => retry.budget_min_per_second,
        BudgetKind::InFlight => retry.budget_min_in_flight,
        BudgetKind::Tokens => 1,
    };
    if retry.budget_ratio.get() == 0.0 && reserve == 0 {
        let message = "is on and its budget is nothing: no attempt is ever repeated";
        table.warn("retry", message);
    }
    if !retry.random_jitter {
        never_reached("retry", "initial_interval", Some(retry.initial_interval));
    }
}

/// What HTTP/2 with a process of this program's has no use for.
const NOT_OF_SUBPROCESS: [&str; 8] = [
    "proxy",
    "proxy_auth",
    "protocol",
    "max_idle_connections",
    "idle_timeout",
    "max_age",
    "keep_alive",
    "disable_compression",
];

/// The keys of `connection` that are about a connection, rather than a call.
const ON_THE_WIRE: [&str; 13] = [
    "proxy",
    "proxy_auth",
    "protocol",
    "max_connections",
    "max_streams",
    "max_idle_connections",
    "idle_timeout",
    "max_age",
    "connection_timeout",
    "keep_alive",
    "disable_compression",
    "max_response_head",
    "max_response_body",
];
