//! Endpoints that the program tells of while plugins run.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use http::Response;
use tokio::sync::{mpsc, oneshot};
use tower::discover::Change;
use tower::{ServiceExt, service_fn};
use tower_plugins::config::{Address, EndpointSpec, Protocol};
use tower_plugins::{Body, HealthStatus, Plugins, Reason};
use tower_plugins_layers::breaker::BreakerState;

use super::{all, named, until, who};
use crate::support::{
    Server, Shelf, Socket, call, causes, channel, config, data, get, read, text, within,
};

type Told = Result<Change<&'static str, EndpointSpec>, std::io::Error>;
type Changes = mpsc::UnboundedSender<Told>;

/// Changes, as the test sends them.
fn changes() -> (Changes, impl Stream<Item = Told> + Send) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let next = |mut receiver: mpsc::UnboundedReceiver<Told>| async {
        Some((receiver.recv().await?, receiver))
    };
    (sender, stream::unfold(receiver, next))
}

fn insert(changes: &Changes, key: &'static str, address: Address) {
    changes
        .send(Ok(Change::Insert(key, address.into())))
        .unwrap();
}

fn remove(changes: &Changes, key: &'static str) {
    changes.send(Ok(Change::Remove(key))).unwrap();
}

/// A plugin `p` at the endpoints `hosts`, in turn, with further keys.
fn from_hosts(keys: &str) -> String {
    format!(
        "plugins: {{ p: {{ transport: http, endpoint: {{ from: hosts }},
            load_balancing: {{ strategy: round-robin }}, {keys} }} }}"
    )
}

async fn start(keys: &str) -> (Changes, Plugins) {
    let (sender, stream) = changes();
    let builder = Plugins::builder().endpoints("hosts", stream);
    let plugins = builder.start(config(&from_hosts(keys))).await.unwrap();
    (sender, plugins)
}

#[tokio::test]
async fn endpoints_come_and_go_and_those_that_stay_keep_their_connections() {
    let (one, two, three) = (
        named("one", None).await,
        named("two", None).await,
        named("three", None).await,
    );
    let (changes, plugins) = start("").await;
    insert(&changes, "a", one.address.clone());
    insert(&changes, "b", two.address.clone());
    until(&plugins, &["one", "two"]).await;
    insert(&changes, "c", three.address.clone());
    remove(&changes, "a");
    until(&plugins, &["three", "two"]).await;
    // What left has nothing open, and what stayed never opened anything again.
    one.until_open(0).await;
    assert_eq!(
        (one.accepted(), two.accepted(), three.accepted()),
        (1, 1, 1)
    );
    // Nothing was made anew for it.
    assert_eq!(plugins.status().generation.get(), 1);
    // A key has one endpoint: the last.
    insert(&changes, "b", one.address.clone());
    until(&plugins, &["one", "three"]).await;
}

#[tokio::test]
async fn a_call_under_way_ends_at_the_endpoint_that_left() {
    let (sender, body) = channel();
    let shelf = std::sync::Arc::new(std::sync::Mutex::new(Some(body)));
    let one = Server::start(Socket::Tcp, Protocol::Http1, move |_| {
        let body = shelf.lock().unwrap().take().unwrap_or_else(|| "one".into());
        async { Response::new(body) }
    })
    .await;
    let two = named("two", None).await;
    let (changes, plugins) = start("").await;
    insert(&changes, "a", one.address.clone());
    let response = call(&plugins.plugin("p"), get("/")).await.unwrap();
    insert(&changes, "b", two.address.clone());
    remove(&changes, "a");
    until(&plugins, &["two"]).await;
    sender.send(data("whole")).unwrap();
    drop(sender);
    assert_eq!(read(response).await, "whole");
    one.until_open(0).await;
}

#[tokio::test]
async fn a_reload_of_the_policy_keeps_the_endpoints_and_what_they_have() {
    let (one, two) = (named("one", None).await, named("two", None).await);
    let (changes, plugins) = start("").await;
    insert(&changes, "a", one.address.clone());
    insert(&changes, "b", two.address.clone());
    until(&plugins, &["one", "two"]).await;
    for seconds in 1..4 {
        let keys = format!("connection: {{ request_timeout: {seconds}s }}");
        let report = plugins.reload(config(&from_hosts(&keys))).await.unwrap();
        assert!(report.to_string().contains("restack p"), "{report}");
        assert_eq!(all(&plugins.plugin("p"), 4).await, ["one", "two"]);
        report.retirement.wait().await;
    }
    assert_eq!((one.accepted(), two.accepted()), (1, 1));
    // The new node follows as the old one did.
    remove(&changes, "a");
    until(&plugins, &["two"]).await;
}

#[tokio::test]
async fn a_breaker_remembers_while_others_come_and_go() {
    let (one, two) = (named("one", None).await, named("two", None).await);
    let (changes, plugins) = start("").await;
    insert(&changes, "a", one.address.clone());
    until(&plugins, &["one"]).await;
    let (address, breaker) = plugins.breakers("p").pop().unwrap();
    assert_eq!(address, one.address);
    breaker.force_open();
    insert(&changes, "b", two.address.clone());
    until(&plugins, &["two"]).await;
    let states = plugins.breakers("p");
    let states: Vec<_> = states.iter().map(|(_, breaker)| breaker.state()).collect();
    assert_eq!(states, [BreakerState::Open, BreakerState::Closed]);
    breaker.reset();
    until(&plugins, &["one", "two"]).await;
}

#[tokio::test]
async fn an_endpoint_that_comes_is_checked_and_one_that_goes_is_not() {
    let (one, two) = (named("one", None).await, named("two", None).await);
    let keys = "health_check: { endpoint: /, interval: 5ms, healthy_threshold: 1 }";
    let (changes, plugins) = start(keys).await;
    insert(&changes, "a", one.address.clone());
    let mut health = plugins.subscribe_health();
    let mut until = async |addresses: &[&Address]| {
        let is_so = |report: &tower_plugins::HealthReport| {
            let endpoints = &report.plugin("p").unwrap().endpoints;
            endpoints
                .iter()
                .map(|end| &end.address)
                .eq(addresses.iter().copied())
                && endpoints
                    .iter()
                    .all(|end| end.status == HealthStatus::Healthy)
        };
        within(health.wait_for(is_so)).await.unwrap();
    };
    until(&[&one.address]).await;
    insert(&changes, "b", two.address.clone());
    until(&[&one.address, &two.address]).await;
    remove(&changes, "a");
    until(&[&two.address]).await;
    // Nobody asks it any more: its connections are closed.
    one.until_open(0).await;
}

#[tokio::test]
async fn a_list_of_the_config_may_have_more_that_comes_and_goes() {
    let (one, two) = (named("one", None).await, named("two", None).await);
    let (changes, stream) = changes();
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoints: ['{}', {{ from: hosts }}],
            load_balancing: {{ strategy: round-robin }} }} }}",
        one.address
    );
    let builder = Plugins::builder().endpoints("hosts", stream);
    let plugins = builder.start(config(&yaml)).await.unwrap();
    assert_eq!(who(&plugins.plugin("p")).await, "one");
    insert(&changes, "b", two.address.clone());
    until(&plugins, &["one", "two"]).await;
    remove(&changes, "b");
    until(&plugins, &["one"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_before_the_first_endpoint_waits_for_it_within_its_deadline() {
    let (changes, stream) = changes();
    let yaml = "plugins: { p: { transport: in-process, endpoint: { from: hosts },
        connection: { request_timeout: 1s } } }";
    let builder = Plugins::builder().service("shelf", Shelf::default());
    let builder = builder.endpoints("hosts", stream);
    let plugins = builder.start(config(yaml)).await.unwrap();
    let error = plugins.plugin("p").oneshot(get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
    let waiting = tokio::spawn(plugins.plugin("p").oneshot(get("/")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    insert(&changes, "a", Address::in_process("shelf").unwrap());
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    // It is known then that there is none.
    remove(&changes, "a");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let error = plugins.plugin("p").oneshot(get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoEndpoint));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_an_endpoint_is_left_out_and_errors_change_nothing() {
    let (changes, stream) = changes();
    let yaml = "plugins: { p: { transport: in-process, endpoint: { from: hosts } } }";
    let builder = Plugins::builder().service("shelf", Shelf::default());
    let builder = builder.endpoints("hosts", stream);
    let plugins = builder.start(config(yaml)).await.unwrap();
    insert(&changes, "a", Address::in_process("nobody").unwrap());
    insert(&changes, "b", Address::in_process("shelf").unwrap());
    insert(&changes, "c", Address::source("hosts").unwrap());
    changes.send(Err(std::io::Error::other("gone"))).unwrap();
    let p = plugins.plugin("p");
    assert_eq!(text(&p, get("/")).await.unwrap(), "hello");
    assert_eq!(plugins.breakers("p").len(), 1);
    // With the end of the stream the last endpoints stay.
    drop(changes);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(text(&p, get("/")).await.unwrap(), "hello");
}

#[tokio::test]
async fn no_more_endpoints_are_taken_of_a_source_than_1024() {
    let (changes, stream) = changes();
    let names: Vec<_> = (0..1_100).map(|n| format!("s{n}")).collect();
    let mut builder = Plugins::builder().endpoints("hosts", stream);
    for name in names.clone().leak() {
        let service = service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        builder = builder.service(name, service);
        insert(&changes, name, Address::in_process(name).unwrap());
    }
    let yaml = "plugins: { p: { transport: in-process, endpoint: { from: hosts } } }";
    let plugins = builder.start(config(yaml)).await.unwrap();
    let until = async |count: usize| {
        let settled = async {
            while plugins.breakers("p").len() != count {
                tokio::task::yield_now().await;
            }
        };
        within(settled).await;
    };
    until(1_024).await;
    call(&plugins.plugin("p"), get("/")).await.unwrap();
    // Those beyond came before this one goes.
    changes.send(Ok(Change::Remove("s0"))).unwrap();
    until(1_023).await;
}

#[tokio::test]
async fn the_stream_is_let_go_with_the_plugins() {
    for shut_down in [true, false] {
        let (held, gone) = oneshot::channel::<()>();
        let stream = stream::unfold(held, |held| async {
            std::future::pending::<()>().await;
            Some((
                Ok::<_, Infallible>(Change::<u8, EndpointSpec>::Remove(0)),
                held,
            ))
        });
        let builder = Plugins::builder().endpoints("hosts", stream);
        let plugins = builder.start(config(&from_hosts(""))).await.unwrap();
        if shut_down {
            plugins.shutdown(Duration::from_secs(1)).await.unwrap();
        }
        drop(plugins);
        assert!(within(gone).await.is_err());
    }
}

#[tokio::test]
async fn endpoints_that_nobody_registered_are_refused_and_the_error_says_how_to() {
    let error = Plugins::builder().start(config(&from_hosts(""))).await;
    let error = causes(&error.unwrap_err());
    assert!(
        error.contains("Plugins::builder().endpoints(\"hosts\", …)"),
        "{error}"
    );
}
