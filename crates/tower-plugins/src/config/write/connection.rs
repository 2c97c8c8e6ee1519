//! `connection` and `tls`.

use super::super::blocks::PROTOCOLS;
use super::super::dns::FAMILIES;
use super::super::endpoints::are_sockets;
use super::super::tls::VERSIONS;
use super::super::tree::Node;
use super::super::{Address, Identity, Policy, Protocol, ProxySpec, TlsSpec, Upstream};
use super::Writer;
use super::values::{
    bool, duration, duration_or_off, file, header_or_off, integer, list, off, size, table, text,
    word,
};

impl Writer {
    pub(super) fn connection(
        &self,
        policy: &Policy,
        upstream: &Upstream,
        transport: &str,
    ) -> Node<'static> {
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
        if transport == "exec-json" {
            let [request, header, _] = timeouts;
            return table([
                ("connection_timeout", duration(spec.connection_timeout)),
                ("max_response_body", spec.max_response_body.and_then(size)),
                request,
                header,
            ]);
        }
        if transport == "subprocess" {
            let [request, header, idle] = timeouts;
            return table([
                ("max_connections", integer(spec.max_connections)),
                ("max_streams", integer(spec.max_streams)),
                ("connection_timeout", duration(spec.connection_timeout)),
                ("max_response_head", size(spec.max_response_head.into())),
                (
                    "max_response_body",
                    spec.max_response_body.map_or_else(off, size),
                ),
                request,
                header,
                idle,
            ]);
        }
        let keeps = spec.keep_alive && spec.max_idle_connections > 0;
        let [request, header, idle] = timeouts;
        let is_http = transport != "unix-json";
        table([
            (
                "protocol",
                word(&PROTOCOLS, &spec.protocol).filter(|_| is_http),
            ),
            ("max_connections", integer(spec.max_connections)),
            (
                "max_streams",
                integer(spec.max_streams).filter(|_| spec.protocol == Protocol::Http2),
            ),
            (
                "max_idle_connections",
                integer(spec.max_idle_connections).filter(|_| spec.keep_alive),
            ),
            (
                "idle_timeout",
                duration(spec.idle_timeout).filter(|_| keeps),
            ),
            (
                "max_age",
                duration_or_off(spec.max_age).filter(|_| is_http && spec.keep_alive),
            ),
            ("connection_timeout", duration(spec.connection_timeout)),
            (
                "proxy",
                proxy(&spec.proxy).filter(|_| is_http && !are_sockets(&upstream.endpoints)),
            ),
            (
                "proxy_auth",
                spec.proxy_auth.as_ref().map(|secret| self.secret(secret)),
            ),
            request,
            header,
            (idle.0, idle.1.filter(|_| is_http)),
            ("keep_alive", bool(spec.keep_alive)),
            (
                "disable_compression",
                bool(spec.disable_compression)
                    .filter(|_| is_http && transport != "unix" && upstream.grpc.is_none()),
            ),
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
}

fn proxy(proxy: &ProxySpec) -> Option<Node<'static>> {
    match proxy {
        ProxySpec::Off => text("off"),
        ProxySpec::Environment => text("environment"),
        ProxySpec::At(authority) => text(&format!("http://{authority}")),
    }
}

pub(super) fn tls(tls: &TlsSpec) -> Node<'static> {
    let identity: Option<&Identity> = tls.identity.as_ref();
    let pins = tls.pins.iter().map(|pin| Node::text(pin.to_string()));
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
        (
            "pins",
            Some(list(pins.collect())).filter(|_| !tls.pins.is_empty()),
        ),
        ("expiry_warning", duration_or_off(tls.expiry_warning)),
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
