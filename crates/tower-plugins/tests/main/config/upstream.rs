use tower_plugins::config::{
    Address, Compression, Format, GrpcSpec, PluginSpec, Protocol, Secrets,
};

use super::{plugin, problem, spec, yaml};

#[test]
fn only_what_can_be_reached_is_an_endpoint() {
    for (endpoint, part) in [
        ("https://h", "takes transport: https"),
        ("file:///etc/passwd", "does not begin with http://"),
        ("127.0.0.1:8080", "is not a URL"),
        ("http://", "is not a URL"),
        ("http://:80", "has no host"),
        ("http://h:0", "port out of range"),
        ("http://h:70000", "port"),
        ("http://h/p?q=1", "has a query"),
        ("http://h/p#f", "has a fragment"),
        ("http://b\u{fc}cher", "is not a URL"),
        ("http://h:80/a b", "is not a URL"),
    ] {
        let text = format!("plugins: {{ a: {{ transport: http, endpoint: '{endpoint}' }} }}");
        let error = super::only(&yaml(&text).unwrap_err());
        assert!(error.starts_with("plugins.a.endpoint: "), "{error}");
        assert!(error.contains(part), "{error}");
    }
    for (url, part) in [
        ("http://user:hunter2@h", "credentials"),
        ("http://h/?key=hunter2", "has a query"),
        ("http://h/?key=hunter2#f", "has a query"),
    ] {
        let error = Address::http(url).unwrap_err().to_string();
        assert!(
            error.contains(part) && !error.contains("hunter2"),
            "{error}"
        );
    }
    for (url, shown) in [
        ("http://h", "http://h"),
        ("http://h:65535/", "http://h:65535"),
        ("http://h/v1/", "http://h/v1"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://xn--bcher-kva:80", "http://xn--bcher-kva:80"),
    ] {
        assert_eq!(Address::http(url).unwrap().to_string(), shown);
    }
    for path in [
        "",
        "relative",
        "/",
        "/a/../b",
        &format!("/{}", "x".repeat(120)),
        "/a\0b",
    ] {
        assert!(Address::unix(path).is_err(), "{path:?}");
    }
}

#[test]
fn a_target_of_grpc_is_a_host_and_port_a_url_or_a_socket() {
    let read = |transport: &str, endpoint: &str| {
        yaml(&format!(
            "plugins: {{ a: {{ transport: {transport}, endpoint: '{endpoint}' }} }}"
        ))
    };
    for (transport, endpoint, address) in [
        ("grpc", "127.0.0.1:50051", "http://127.0.0.1:50051"),
        ("grpc", "h:1", "http://h:1"),
        ("grpc", "[::1]:50051", "http://[::1]:50051"),
        ("grpc", "http://h", "http://h"),
        ("grpc", "http://h:1/prefix", "http://h:1/prefix"),
        ("grpc", "unix:/run/a.sock", "unix:/run/a.sock"),
        ("grpc", "unix:///run/a.sock", "unix:/run/a.sock"),
        ("grpc", "dns:///h:1", "dns:///h:1"),
        ("grpc", "dns://10.0.0.2/h:1", "dns://10.0.0.2:53/h:1"),
        ("grpc-tls", "h:443", "https://h:443"),
        (
            "grpc-tls",
            "dns+srv:_grpc._tcp.h",
            "dns+srv:///_grpc._tcp.h",
        ),
        ("grpc-tls", "https://h", "https://h"),
    ] {
        let upstream = &read(transport, endpoint).unwrap().plugins["a"].upstream;
        assert_eq!(upstream.endpoints[0].address.to_string(), address);
        assert_eq!(upstream.connection.protocol, Protocol::Http2);
        assert_eq!(upstream.grpc, Some(GrpcSpec::default()));
        let made = match transport {
            "grpc" => PluginSpec::grpc("a", endpoint),
            _ => PluginSpec::grpc_tls("a", endpoint),
        };
        assert_eq!(made.unwrap().upstream, *upstream);
    }
    for (transport, endpoint, part) in [
        ("grpc", "h", "has no port"),
        ("grpc", "https://h:1", "takes transport: grpc-tls"),
        ("grpc", "dns:///h:0", "has a port out of range"),
        ("grpc", "/run/a.sock", "is not a URL"),
        ("grpc", "unix:run/a.sock", "is not the path of a socket"),
        ("grpc", "user:hunter2@h:1", "credentials"),
        ("grpc-tls", "h", "has no port"),
        ("grpc-tls", "http://h:1", "takes transport: grpc"),
        ("grpc-tls", "unix:/run/a.sock", "takes transport: grpc"),
        ("grpc-tls", "under_score.1:1", "has a host that is no name"),
    ] {
        let error = super::only(&read(transport, endpoint).unwrap_err());
        assert!(error.starts_with("plugins.a.endpoint: "), "{error}");
        assert!(error.contains(part), "{endpoint}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn grpc_is_http2_and_its_keys_are_its_own() {
    let grpc = "transport: grpc, endpoint: 'h:1'";
    let with =
        |root: &str, keys: &str| yaml(&format!("{{ {root} plugins: {{ a: {{ {keys} }} }} }}"));
    for (keys, path, part) in [
        (
            format!("{grpc}, connection: {{ protocol: http1 }}"),
            "connection.protocol",
            "gRPC goes over HTTP/2 only",
        ),
        (
            format!("{grpc}, connection: {{ proxy_auth: 'u:p' }}"),
            "connection.proxy_auth",
            "does nothing",
        ),
        (
            format!("{grpc}, tls: {{ server_name: h }}"),
            "tls",
            "without transport: https, grpc-tls or subprocess",
        ),
        (
            format!("{grpc}, grpc: {{ max_response_message: 0 }}"),
            "grpc.max_response_message",
            "out of range",
        ),
        (
            format!("{grpc}, grpc: {{ compression: zip }}"),
            "grpc.compression",
            "gzip",
        ),
        (
            "transport: http, endpoint: 'http://h', grpc: { compression: gzip }".to_owned(),
            "grpc",
            "without transport: grpc, grpc-tls or subprocess",
        ),
    ] {
        let error = super::only(&with("", &keys).unwrap_err());
        assert!(error.starts_with(&format!("plugins.a.{path}")), "{error}");
        assert!(error.contains(part), "{error}");
    }
    let root = "default_connection: { protocol: http1, max_connections: 9 }, default_grpc: { compression: gzip },";
    let config = with(root, grpc).unwrap();
    let upstream = &config.plugins["a"].upstream;
    assert_eq!(upstream.connection.protocol, Protocol::Http2);
    assert_eq!(
        upstream.grpc.as_ref().unwrap().compression,
        Compression::Gzip
    );
    with("", &format!("{grpc}, connection: {{ protocol: http2 }}")).unwrap();
    let plain = with(root, "transport: http, endpoint: 'http://h'").unwrap();
    assert_eq!(plain.plugins["a"].upstream.grpc, None);
}

#[test]
fn a_proxy_that_is_inherited_is_nothing_to_a_socket() {
    let proxy = "proxy: 'http://proxy:3128', proxy_auth: 'u:p', disable_compression: true";
    for (keys, has_proxy) in [
        ("transport: unix, endpoint: /s", false),
        ("transport: grpc, endpoint: 'unix:/s'", false),
        ("transport: grpc, endpoint: 'h:1'", true),
        ("transport: grpc, endpoints: ['unix:/s', 'h:1']", true),
    ] {
        let with =
            |root: &str| yaml(&format!("{{ {root} plugins: {{ a: {{ {keys} }} }} }}")).unwrap();
        let inherited = with(&format!("default_connection: {{ {proxy} }},"));
        assert_eq!(inherited != with(""), has_proxy, "{keys}");
        let text = inherited.to_text(Format::Yaml, Secrets::Shown);
        assert_eq!(yaml(&text).unwrap(), inherited, "{text}");
    }
}

#[test]
fn endpoints_are_one_or_many_and_differ() {
    let with = |keys: &str| yaml(&format!("plugins: {{ a: {{ {keys} }} }}"));
    for (keys, key) in [
        ("transport: http", "endpoint"),
        (
            "transport: http, endpoint: 'http://h', endpoints: ['http://i']",
            "endpoints",
        ),
        ("transport: http, endpoints: []", "endpoints"),
        (
            "transport: http, endpoints: ['http://h', 'http://H/']",
            "endpoints[1]",
        ),
        (
            "transport: http, endpoints: ['http://h', 7]",
            "endpoints[1]",
        ),
        (
            "transport: http, endpoints: [{ path: /v1 }]",
            "endpoints[0].url",
        ),
        (
            "transport: http, endpoint: { url: 'http://h/v1', path: /v1 }",
            "endpoint.path",
        ),
        (
            "transport: http, endpoint: { url: 'http://h', path: v1 }",
            "endpoint.path",
        ),
        (
            "transport: in-process, endpoint: { url: echo, path: /v1 }",
            "endpoint.path",
        ),
        (
            "transport: in-process, endpoint: echo, connection: { protocol: http2 }",
            "connection.protocol",
        ),
        (
            "transport: subprocess, executable: /bin/x, endpoint: /bin/x",
            "endpoint",
        ),
        ("transport: exec, executable: /bin/x", "transport"),
        ("endpoint: 'http://h'", "transport"),
        ("transport: http, type: http, endpoint: 'http://h'", "type"),
        ("transport: http, name: a, endpoint: 'http://h'", "name"),
    ] {
        let error = with(keys).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{error}");
        assert_eq!(
            error.problems()[0].key,
            format!("plugins.a.{key}"),
            "{error}"
        );
    }
    let config = with(
        "type: unix, endpoints: [/run/a, 'unix:/run/b', { url: 'unix:///run/c', path: /v1/ }]",
    );
    let endpoints = config.unwrap().plugins["a"].upstream.endpoints.clone();
    let shown: Vec<String> = endpoints.iter().map(|e| e.address.to_string()).collect();
    assert_eq!(shown, ["unix:/run/a", "unix:/run/b", "unix:/run/c/v1"]);
}

#[test]
fn credentials_are_whole_and_can_be_sent() {
    for (auth, key) in [
        ("token: hunter2", "auth.method"),
        ("method: digest, token: hunter2", "auth.method"),
        ("method: bearer", "auth.token"),
        ("method: bearer, token: ''", "auth.token"),
        ("method: bearer, token: \"hunter2\\r\\nX: y\"", "auth.token"),
        ("method: bearer, token: 'hunter2 '", "auth.token"),
        (
            "method: bearer, token: hunter2, api_key: hunter2",
            "auth.api_key",
        ),
        ("method: none, token: hunter2", "auth.token"),
        (
            "method: basic, username: 'a:b', password: hunter2",
            "auth.username",
        ),
        ("method: basic, username: a", "auth.password"),
        (
            "method: api-key, api_key: hunter2, header: 'a b'",
            "auth.header",
        ),
        ("method: custom, headers: {}", "auth.headers"),
        (
            "method: custom, headers: { Content-Length: hunter2 }",
            "auth.headers.Content-Length",
        ),
        (
            "method: custom, headers: { a: hunter2, A: hunter2 }",
            "auth.headers.A",
        ),
        (
            "method: custom, headers: { a: \"hunter2\\n\" }",
            "auth.headers.a",
        ),
    ] {
        let error = plugin(&format!("auth: {{ {auth} }}")).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{error}");
        assert_eq!(
            error.problems()[0].key,
            format!("plugins[0].{key}"),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let big = "x".repeat(1 << 20);
    let error = problem(&format!("auth: {{ method: bearer, token: {big} }}"));
    assert!(error.len() < 200, "{error}");
    let seed = spec("auth: { method: api_key, api_key: hunter2 }");
    assert_eq!(
        seed,
        spec("auth: { method: api-key, api_key: hunter2, header: X-API-Key }")
    );
    assert!(!format!("{seed:?}").contains("hunter2"));
}
