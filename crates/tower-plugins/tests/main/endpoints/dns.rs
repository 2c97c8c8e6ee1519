//! Endpoints that a name server tells of.

pub(crate) mod server;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_resolver::proto::rr::RecordType;
use http::Response;
use tower_plugins::config::{Address, Config, PluginName, PluginSpec, Protocol};
use tower_plugins::{Body, Plugins, Reason};

use self::server::{Failure, NameServer};
use super::{all, named, until, who};
use crate::support::{Server, Socket, call, config, get, text, within};
use crate::transport::tls::server::{Ca, Setup, TlsServer};

/// `127.0.0.n`.
fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, n)
}

/// Two servers at one port, of 127.0.0.1 and of 127.0.0.2.
async fn pair() -> (Server, Server, u16) {
    loop {
        let one = named("one", None).await;
        let port = super::at(&one).port();
        // The port may be somebody's there.
        let at = SocketAddr::new(IpAddr::V4(ip(2)), port);
        if std::net::TcpListener::bind(at).is_ok() {
            let two = named("two", Some(at)).await;
            return (one, two, port);
        }
    }
}

/// `p` at this name, in turn, looked up again soon.
async fn start(name: &str, keys: &str) -> Plugins {
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{name}', load_balancing: {{ strategy: weighted-round-robin }},
            dns: {{ min_ttl: 5ms, max_ttl: 20ms, {keys} }} }} }}"
    );
    Plugins::builder().start(config(&yaml)).await.unwrap()
}

#[tokio::test]
async fn a_name_is_each_of_its_addresses_and_is_looked_up_again() {
    let (one, two, port) = pair().await;
    let names = NameServer::start().await;
    names.addresses("search.test", 0, &[ip(1)]);
    let plugins = start(&names.url(&format!("search.test:{port}")), "").await;
    // The first call waits for the answer.
    assert_eq!(who(&plugins.plugin("p")).await, "one");
    names.addresses("search.test", 0, &[ip(1), ip(2)]);
    until(&plugins, &["one", "two"]).await;
    // Another order, and the same twice, is no change.
    names.addresses("search.test", 3_600, &[ip(2), ip(1), ip(2)]);
    names.asked(5).await;
    until(&plugins, &["one", "two"]).await;
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
    names.addresses("search.test", 3_600, &[ip(2)]);
    until(&plugins, &["two"]).await;
    one.until_open(0).await;
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
}

#[tokio::test]
async fn the_last_answer_stays_when_there_is_no_other() {
    let (_one, _two, port) = pair().await;
    let names = NameServer::start().await;
    names.addresses("search.test", 0, &[ip(1), ip(2)]);
    let plugins = start(&names.url(&format!("search.test:{port}")), "").await;
    until(&plugins, &["one", "two"]).await;
    // The server fails, and then knows no such name.
    for knows in [false, true] {
        names.fails(!knows);
        names.forget("search.test");
        names.asked(3).await;
        assert_eq!(all(&plugins.plugin("p"), 4).await, ["one", "two"]);
    }
    // A reload goes on with it.
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{}', retry: off,
            dns: {{ min_ttl: 5ms, max_ttl: 20ms }} }} }}",
        names.url(&format!("search.test:{port}"))
    );
    plugins.reload(config(&yaml)).await.unwrap();
    who(&plugins.plugin("p")).await;
    names.addresses("search.test", 0, &[ip(2)]);
    until(&plugins, &["two"]).await;
}

#[tokio::test]
async fn the_last_answer_stays_over_a_reload_of_how_it_is_looked_up() {
    let (_one, _two, port) = pair().await;
    let names = NameServer::start().await;
    names.addresses("search.test", 0, &[ip(1)]);
    let url = names.url(&format!("search.test:{port}"));
    let plugins = start(&url, "").await;
    until(&plugins, &["one"]).await;
    names.fails(true);
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{url}', retry: off,
            dns: {{ min_ttl: 6ms, max_ttl: 21ms }} }} }}"
    );
    plugins.reload(config(&yaml)).await.unwrap();
    names.asked(8).await;
    assert_eq!(who(&plugins.plugin("p")).await, "one");
}

/// One of its targets cannot be looked up, which says nothing of where it is.
#[tokio::test]
async fn an_answer_in_part_takes_no_endpoint_away() {
    let (one, two) = (named("one", None).await, named("two", None).await);
    let [at_one, at_two] = [&one, &two].map(|server| super::at(server).port());
    let names = NameServer::start().await;
    names.addresses("one.test", 0, &[ip(1)]);
    names.addresses("two.test", 0, &[ip(1)]);
    let service = "_search._tcp.search.test";
    let both = [(0, 1, at_one, "one.test"), (0, 1, at_two, "two.test")];
    names.service(service, 0, &both);
    let plugins = start(&names.service_url(service), "").await;
    until(&plugins, &["one", "two"]).await;
    names.fails_for("two.test", true);
    let before = names.asked_of(service);
    while names.asked_of(service) < before + 3 {
        names.asked(1).await;
    }
    assert_eq!(all(&plugins.plugin("p"), 8).await, ["one", "two"]);
    // That it is not there is an answer.
    names.fails_for("two.test", false);
    names.forget("two.test");
    until(&plugins, &["one"]).await;
}

/// A name with an address of each kind, of which one cannot be looked up any more.
#[tokio::test]
async fn the_addresses_of_a_kind_stay_while_that_kind_cannot_be_looked_up() {
    let here = Ipv6Addr::LOCALHOST;
    for (failing, failure) in [
        (RecordType::AAAA, Failure::Said),
        (RecordType::AAAA, Failure::Silent),
        (RecordType::A, Failure::Said),
    ] {
        let (_one, _two, port) = pair().await;
        let Ok(_six) = tokio::net::TcpListener::bind((here, port)).await else {
            eprintln!("skipped: no IPv6 here");
            return;
        };
        drop(_six);
        let _six = named("six", Some((here, port).into())).await;
        let names = NameServer::start().await;
        names.addresses("search.test", 0, &[ip(1)]);
        names.address6("search.test", 0, here);
        let url = names.url(&format!("search.test:{port}"));
        let plugins = start(&url, "timeout: 200ms").await;
        until(&plugins, &["one", "six"]).await;
        names.fails_for_kind(failing, Some(failure));
        names.asked(8).await;
        assert_eq!(
            all(&plugins.plugin("p"), 8).await,
            ["one", "six"],
            "{failing} {failure:?}"
        );
        // What is said of the other kind counts meanwhile.
        if failing == RecordType::AAAA {
            names.addresses("search.test", 0, &[ip(2)]);
            until(&plugins, &["six", "two"]).await;
        }
        // That there is none is an answer.
        names.fails_for_kind(failing, None);
        names.forget("search.test");
        names.addresses("search.test", 0, &[ip(1)]);
        until(&plugins, &["one"]).await;
    }
}

#[tokio::test]
async fn a_name_with_a_kind_that_never_had_an_answer_has_the_other() {
    for failure in [Failure::Said, Failure::Silent] {
        let (_one, _two, port) = pair().await;
        let names = NameServer::start().await;
        names.addresses("search.test", 0, &[ip(1)]);
        names.fails_for_kind(RecordType::AAAA, Some(failure));
        let url = names.url(&format!("search.test:{port}"));
        let plugins = start(&url, "timeout: 200ms").await;
        assert_eq!(who(&plugins.plugin("p")).await, "one", "{failure:?}");
    }
}

#[tokio::test]
async fn a_name_that_never_had_an_answer_refuses_calls_and_fails_no_start() {
    let names = NameServer::start().await;
    let plugins = start(&names.url("search.test:80"), "").await;
    let error = call(&plugins.plugin("p"), get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));
    let one = named("one", None).await;
    let port = super::at(&one).port();
    names.service("_p._tcp.search.test", 0, &[(0, 1, port, "one.test")]);
    names.addresses("one.test", 0, &[ip(1)]);
    let plugins = start(&names.service_url("_p._tcp.search.test"), "").await;
    assert_eq!(who(&plugins.plugin("p")).await, "one");
}

#[tokio::test]
async fn a_service_has_ports_weights_and_priorities() {
    let servers = [
        named("one", None).await,
        named("two", None).await,
        named("spare", None).await,
    ];
    let [one, two, spare] = servers.each_ref().map(|server| super::at(server).port());
    let names = NameServer::start().await;
    names.addresses("host.test", 0, &[ip(1)]);
    let service = "_search._tcp.search.test";
    let records = [
        (10, 3, one, "host.test"),
        (10, 1, two, "host.test"),
        (20, 1, spare, "host.test"),
    ];
    names.service(service, 0, &records);
    let plugins = start(&names.service_url(service), "").await;
    let mut spread = std::collections::BTreeMap::<_, usize>::new();
    for _ in 0..40 {
        *spread.entry(who(&plugins.plugin("p")).await).or_default() += 1;
    }
    assert_eq!(
        spread,
        [("one".to_owned(), 30), ("two".to_owned(), 10)].into()
    );
    names.service(service, 0, &records[2..]);
    until(&plugins, &["spare"]).await;
}

#[tokio::test]
async fn the_host_is_the_name_and_the_path_goes_before() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |request| async move {
        let host = request.headers()["host"].to_str().unwrap();
        Response::new(Body::from(format!("{host}{}", request.uri().path())))
    })
    .await;
    let port = super::at(&server).port();
    let names = NameServer::start().await;
    names.addresses("search.test", 0, &[ip(1)]);
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: {{ url: '{}', path: /v1 }} }} }}",
        names.url(&format!("search.test:{port}"))
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    let answer = text(&plugins.plugin("p"), get("/x")).await.unwrap();
    assert_eq!(answer, format!("search.test:{port}/v1/x"));
    let (address, _) = plugins.breakers("p").pop().unwrap();
    assert_eq!(
        address.to_string(),
        format!("http://search.test:{port}/v1 at 127.0.0.1:{port}")
    );
}

#[tokio::test]
async fn certificates_must_have_the_name_and_not_the_address() {
    let ca = Ca::new();
    let shows = ca.certify(&["search.test"]);
    let server: TlsServer = Setup::new(&shows).start().await;
    let names = NameServer::start().await;
    for (name, is_taken) in [("search.test", true), ("other.test", false)] {
        names.addresses(name, 0, &[ip(1)]);
        let url = names.url(&format!("{name}:{}", server.port));
        let address = Address::dns(&url, true).unwrap();
        let mut spec = PluginSpec::new(PluginName::new("p").unwrap(), address);
        spec.upstream.tls = ca.trusted();
        let builder = Plugins::builder();
        let plugins = builder.start(Config::new().with(spec)).await.unwrap();
        let answer = call(&plugins.plugin("p"), get("/")).await;
        assert_eq!(answer.is_ok(), is_taken, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn nobody_is_asked_when_the_plugin_is_gone() {
    let names = NameServer::start().await;
    let one = named("one", None).await;
    names.addresses("search.test", 0, &[ip(1)]);
    let url = names.url(&format!("search.test:{}", super::at(&one).port()));
    let plugins = start(&url, "").await;
    who(&plugins.plugin("p")).await;
    let other = named("two", None).await;
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{}' }} }}",
        other.address
    );
    let report = plugins.reload(config(&yaml)).await.unwrap();
    report.retirement.wait().await;
    assert_eq!(who(&plugins.plugin("p")).await, "two");
    one.until_open(0).await;
    // What asked for the name is over with the node: another asks for another name, many times.
    let before = names.asked_of("search.test");
    names.addresses("clock.test", 0, &[ip(1)]);
    let clock = start(&names.url("clock.test:9"), "").await;
    within(async {
        while names.asked_of("clock.test") < 10 {
            names.asked(1).await;
        }
    })
    .await;
    assert!(names.asked_of("search.test") <= before + 2);
    drop(clock);
}
