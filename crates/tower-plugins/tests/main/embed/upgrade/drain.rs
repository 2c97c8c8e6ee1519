//! How long an upgraded connection lives, and what ends it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tower::{ServiceBuilder, service_fn};
use tower_plugins::config::PluginSpec;
use tower_plugins::{Body, Error, Plugins, Reason};
use tower_plugins_layers::drain::DrainHold;
use tower_plugins_layers::filter::FilterBody;
use tower_plugins_layers::{DrainHandle, DrainLayer, FilterLayer, FilterPolicy, RespondLayer};

use super::server::Raw;
use super::{Front, echoes, idle, upgraded};
use crate::support::{config, within};

#[tokio::test]
async fn an_upgraded_connection_outlives_reloads_and_its_node_waits_for_it() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 1h").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let mut early = [0; 5];
    within(stream.read_exact(&mut early)).await.unwrap();
    let mut own = upgraded(&plugins.plugin("p")).await;
    within(own.read_exact(&mut early)).await.unwrap();
    let left = plugins
        .reload(raw.config("drain_timeout: 2h"))
        .await
        .unwrap();
    for hours in 3..10 {
        let keys = format!("drain_timeout: {hours}h");
        plugins.reload(raw.config(&keys)).await.unwrap();
        echoes(&mut stream, "still here").await;
        echoes(&mut own, "and here").await;
    }
    let retirement = tokio::spawn(left.retirement.wait());
    drop(own);
    echoes(&mut stream, "and on").await;
    assert!(!retirement.is_finished());
    drop(stream);
    let retired = within(retirement).await.unwrap();
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_cost_no_upgraded_connection_a_byte() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 1h").await;
    let front = Arc::new(Front::start(&plugins).await);
    let (over, is_over) = watch::channel(false);
    let talkers: Vec<_> = (0..8)
        .map(|talker| {
            let (front, is_over) = (Arc::clone(&front), is_over.clone());
            tokio::spawn(async move {
                let mut talks = 0;
                while !*is_over.borrow() {
                    let mut stream = front.upgraded().await;
                    let mut early = [0; 5];
                    within(stream.read_exact(&mut early)).await.unwrap();
                    for word in 0..20 {
                        echoes(&mut stream, &format!("{talker} {talks} {word}")).await;
                    }
                    talks += 1;
                }
                talks
            })
        })
        .collect();
    let mut retirements = Vec::new();
    for hours in 2..102 {
        let keys = format!("drain_timeout: {hours}h");
        let report = plugins.reload(raw.config(&keys)).await.unwrap();
        retirements.push(report.retirement);
        tokio::task::yield_now().await;
    }
    over.send(true).unwrap();
    for talker in talkers {
        assert!(within(talker).await.unwrap() > 0);
    }
    for retirement in retirements {
        let retired = within(retirement.wait()).await;
        assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));
    }
    idle(&plugins).await;
}

#[tokio::test]
async fn drain_timeout_cuts_an_upgraded_connection() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 50ms").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let mut own = upgraded(&plugins.plugin("p")).await;
    let reader = tokio::spawn(async move {
        let error = own.read_to_end(&mut Vec::new()).await.unwrap_err();
        let again = own.write_all(b"more").await.unwrap_err();
        (error, again)
    });
    let report = plugins
        .reload(raw.config("drain_timeout: 1h"))
        .await
        .unwrap();
    let retired = within(report.retirement.wait()).await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (2, 0));
    let (error, again) = within(reader).await.unwrap();
    for error in [error, again] {
        let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!(error.reason(), Some(Reason::DrainCancelled));
        assert_eq!(error.plugin(), Some("p"));
    }
    // However it ends: it ends.
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
}

#[tokio::test]
async fn fault_19_an_upgraded_connection_survives_reloads_until_its_plugin_is_gone_for_a_drain() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 300ms").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    within(stream.read_exact(&mut [0; 5])).await.unwrap();
    for n in 0..5 {
        let other = PluginSpec::http(&format!("other-{n}"), "http://127.0.0.1:9").unwrap();
        plugins.update(other).await.unwrap();
        echoes(&mut stream, "its route is what it was").await;
    }
    let removed = plugins.remove("p").await.unwrap();
    echoes(&mut stream, "and may come to its end").await;
    let retired = within(removed.retirement.wait()).await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));
    assert!(retired[0].elapsed >= Duration::from_millis(300));
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
}

#[tokio::test]
async fn a_connection_that_is_silent_for_too_long_is_cut() {
    let raw = Raw::start().await;
    let mut silent = raw.config("");
    let policy = &mut silent.plugins.get_mut("p").unwrap().policy;
    policy.stream_idle_timeout = Some(Duration::from_millis(100));
    let plugins = Plugins::builder().start(silent).await.unwrap();
    let mut own = upgraded(&plugins.plugin("p")).await;
    let error = within(own.read_to_end(&mut Vec::new())).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(error.reason(), Some(Reason::StreamIdle));
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    drop(own);
    idle(&plugins).await;
}

#[tokio::test]
async fn the_programs_own_drain_and_a_filter_before_the_route_know_of_it() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("").await;
    let drain = DrainHandle::new();
    let yes = service_fn(|_: Request<FilterBody>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(DrainLayer::new(drain.clone()))
        .layer(FilterLayer::new(FilterPolicy::new(), yes));
    let app = Router::new()
        .route_service("/{*rest}", plugins.plugin("p").into_route())
        .layer(layers);
    let front = Front::serve(app).await;
    let mut stream = front.upgraded().await;
    assert_eq!((drain.active(), plugins.active_requests("p")), (1, 1));
    let report = within(drain.shutdown(Duration::from_millis(50))).await;
    assert_eq!((report.cancelled, report.left), (1, 0));
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
    idle(&plugins).await;
}

#[tokio::test]
async fn a_shutdown_cuts_it_after_its_time() {
    let raw = Raw::start().await;
    let plugins = raw.plugins("drain_timeout: 1h").await;
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    within(plugins.shutdown(Duration::from_millis(50)))
        .await
        .unwrap();
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    raw.until_open(0).await;
}

/// A service of the program that takes the caller's connection itself, and echoes.
async fn takes(mut request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let hold = request.extensions_mut().remove::<DrainHold>().unwrap();
    let caller = hyper::upgrade::on(&mut request);
    tokio::spawn(hold.keep(async move {
        let caller = TokioIo::new(caller.await.unwrap());
        let (mut read, mut write) = tokio::io::split(caller);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("echo"));
    Ok(response)
}

#[tokio::test]
async fn a_service_of_the_program_takes_the_connection_itself_and_a_drain_waits_for_it() {
    let with = |drain: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: takes, drain_timeout: {drain} }} }}"
        ))
    };
    let builder = Plugins::builder().service("takes", service_fn(takes));
    let plugins = builder.start(with("1h")).await.unwrap();
    let front = Front::start(&plugins).await;
    let mut stream = front.upgraded().await;
    echoes(&mut stream, "hello").await;
    let report = plugins.reload(with("50ms")).await.unwrap();
    let retirement = tokio::spawn(report.retirement.wait());
    echoes(&mut stream, "still here").await;
    assert!(!retirement.is_finished());
    drop(stream);
    let retired = within(retirement).await.unwrap();
    assert_eq!((retired[0].cancelled, retired[0].remaining), (0, 0));

    let mut stream = front.upgraded().await;
    let report = plugins.reload(with("1h")).await.unwrap();
    let retired = within(report.retirement.wait()).await;
    assert_eq!((retired[0].cancelled, retired[0].remaining), (1, 0));
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
}
