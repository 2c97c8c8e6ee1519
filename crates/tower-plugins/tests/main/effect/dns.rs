use std::net::Ipv4Addr;

use http::Response;
use tower_plugins::config::{DnsSpec, Protocol};
use tower_plugins::{Body, Plugins, Reason};

use crate::endpoints::dns::server::NameServer;
use crate::support::{Server, Socket, call, config, get, text, within};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// `p` at this name, with the block `dns`.
async fn start(url: &str, keys: &str) -> Plugins {
    let yaml =
        format!("plugins: {{ p: {{ transport: http, endpoint: '{url}', dns: {{ {keys} }} }} }}");
    Plugins::builder().start(config(&yaml)).await.unwrap()
}

/// How many endpoints there are, once that is known.
async fn endpoints(plugins: &Plugins) -> usize {
    // Nobody is there; it waits for the answer.
    let _ = call(&plugins.plugin("p"), get("/")).await;
    plugins.breakers("p").len()
}

async fn server() -> (Server, u16) {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        Response::new(Body::from("here"))
    })
    .await;
    let port = server
        .address
        .to_string()
        .rsplit_once(':')
        .unwrap()
        .1
        .parse();
    (server, port.unwrap())
}

#[tokio::test]
async fn dns_is_how_names_of_this_plugin_are_looked_up() {
    let names = NameServer::start().await;
    names.addresses("search.test", 0, &[HERE, Ipv4Addr::new(127, 0, 0, 2)]);
    let url = names.url("search.test:9");
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{url}', dns: {{ max_endpoints: 1 }} }},
            q: {{ transport: http, endpoint: '{url}' }} }}"
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    assert_eq!(endpoints(&plugins).await, 1);
    let _ = call(&plugins.plugin("q"), get("/")).await;
    assert_eq!(plugins.breakers("q").len(), 2);
}

#[tokio::test]
async fn default_dns_holds_for_plugins_that_do_not_say_otherwise() {
    let names = NameServer::start().await;
    let found = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last));
    names.addresses("search.test", 0, &found);
    let url = names.url("search.test:9");
    let plugin = |name: &str, keys: &str| {
        format!("{name}: {{ transport: http, endpoint: '{url}', {keys} }}")
    };
    let yaml = format!(
        "{{ default_dns: {{ max_endpoints: 1, max_ttl: 1m }}, plugins: {{ {}, {}, {},
            fixed: {{ transport: http, endpoint: 'http://localhost' }} }} }}",
        plugin("inherits", ""),
        plugin("own", "dns: { max_endpoints: 2 }"),
        plugin("library", "dns: default"),
    );
    let config = config(&yaml);
    // By field: what the plugin does not say stays.
    let minute = std::time::Duration::from_secs(60);
    assert_eq!(config.plugins["own"].upstream.dns.max_ttl, minute);
    // Where no name is looked up it is as if nobody had said it.
    let fixed = &config.plugins["fixed"].upstream.dns;
    assert_eq!(*fixed, DnsSpec::default());
    let plugins = Plugins::builder().start(config).await.unwrap();
    for (name, expected) in [("inherits", 1), ("own", 2), ("library", 3)] {
        let _ = call(&plugins.plugin(name), get("/")).await;
        assert_eq!(plugins.breakers(name).len(), expected, "{name}");
    }
}

#[tokio::test]
async fn min_ttl_is_the_shortest_time_between_two_lookups() {
    let (_server, port) = server().await;
    let names = NameServer::start().await;
    for name in ["late.test", "soon.test"] {
        // Out of date at once.
        names.addresses(name, 0, &[HERE]);
    }
    let late = names.url(&format!("late.test:{port}"));
    let late = start(&late, "min_ttl: 1h, max_ttl: 1h, family: ipv4").await;
    assert_eq!(text(&late.plugin("p"), get("/")).await.unwrap(), "here");
    let _soon = start(&names.url("soon.test:9"), "min_ttl: 1ms, family: ipv4").await;
    within(async {
        while names.asked_of("soon.test") < 5 {
            names.asked(1).await;
        }
    })
    .await;
    assert_eq!(names.asked_of("late.test"), 1);
}

#[tokio::test]
async fn max_ttl_is_the_longest_time_between_two_lookups() {
    let names = NameServer::start().await;
    names.addresses("search.test", 86_400, &[HERE]);
    let keys = "min_ttl: 1ms, max_ttl: 5ms, family: ipv4";
    let _plugins = start(&names.url("search.test:9"), keys).await;
    within(async {
        while names.asked_of("search.test") < 5 {
            names.asked(1).await;
        }
    })
    .await;
}

#[tokio::test]
async fn timeout_is_how_long_a_lookup_may_take() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = format!("dns://{}/search.test:80", silent.local_addr().unwrap());
    let plugins = start(&url, "timeout: 20ms").await;
    let error = call(&plugins.plugin("p"), get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));
}

#[tokio::test]
async fn max_endpoints_is_how_many_of_an_answer_are_taken() {
    let names = NameServer::start().await;
    let many: Vec<_> = (1..=20).map(|n| Ipv4Addr::new(127, 0, 0, n)).collect();
    names.addresses("search.test", 0, &many);
    let url = names.url("search.test:9");
    for (keys, count) in [("", 20), ("max_endpoints: 3", 3)] {
        assert_eq!(endpoints(&start(&url, keys).await).await, count, "{keys}");
    }
}

#[tokio::test]
async fn family_is_which_addresses_are_asked_for() {
    let names = NameServer::start().await;
    names.addresses("search.test", 0, &[HERE, Ipv4Addr::new(127, 0, 0, 2)]);
    names.address6("search.test", 0, "::1".parse().unwrap());
    let url = names.url("search.test:9");
    for (keys, count) in [
        ("", 3),
        ("family: any", 3),
        ("family: ipv4", 2),
        ("family: ipv6", 1),
    ] {
        assert_eq!(endpoints(&start(&url, keys).await).await, count, "{keys}");
    }
}
