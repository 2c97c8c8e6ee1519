//! `connection` and `tls`.

use super::super::blocks::PROTOCOLS;
use super::super::dns::FAMILIES;
use super::super::tls::VERSIONS;
use super::super::tree::Node;
use super::super::{Address, Identity, Policy, Protocol, TlsSpec, Upstream};
use super::values::{
    bool, duration, duration_or_off, file, header_or_off, integer, size, table, text, word,
};

pub(super) fn connection(policy: &Policy, upstream: &Upstream, transport: &str) -> Node<'static> {
    let spec = &upstream.connection;
    let timeouts = [
        ("request_timeout", duration_or_off(policy.deadline)),
        (
            "timeout_header",
            header_or_off(policy.timeout_header.as_ref()),
        ),
        (
            "stream_idle_timeout",
            duration_or_off(policy.stream_idle_timeout),
        ),
    ];
    if transport == "in-process" {
        return table(timeouts);
    }
    let pooled = spec.protocol == Protocol::Http1;
    let keeps = spec.keep_alive && (!pooled || spec.max_idle_connections > 0);
    let [request, header, idle] = timeouts;
    let is_http = transport != "unix-json";
    table([
        (
            "protocol",
            word(&PROTOCOLS, &spec.protocol).filter(|_| is_http),
        ),
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
        (
            "max_response_head",
            size(spec.max_response_head.into()).filter(|_| is_http),
        ),
        (
            "max_response_body",
            match spec.max_response_body {
                Some(bytes) => size(bytes),
                None => text("off").filter(|_| is_http),
            },
        ),
    ])
}

pub(super) fn tls(tls: &TlsSpec) -> Node<'static> {
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

/// Where no name is looked up it says nothing.
pub(super) fn dns(upstream: &Upstream) -> Option<Node<'static>> {
    let mut endpoints = upstream.endpoints.iter();
    endpoints.find(|endpoint| matches!(endpoint.address, Address::Dns(_)))?;
    let spec = &upstream.dns;
    Some(table([
        ("min_ttl", duration(spec.min_ttl)),
        ("max_ttl", duration(spec.max_ttl)),
        ("timeout", duration(spec.timeout)),
        ("max_endpoints", integer(spec.max_endpoints)),
        ("family", word(&FAMILIES, &spec.family)),
    ]))
}
