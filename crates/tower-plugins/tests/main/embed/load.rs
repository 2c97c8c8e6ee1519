//! An axum app in front of plugins, under the load of programs that others have written.

use std::process::Output;

use axum::Router;
use tokio::net::TcpListener;
use tokio::process::Command;
use tower_plugins::config::Protocol;
use tower_plugins::{Body, Plugins};

use crate::support::{Server, Socket, config, skipped, within};

/// What `program` says of its load on a gateway; `None` if it is not installed.
async fn load(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let installed = command.arg("--version").output().await;
    if installed.is_err() {
        skipped(program);
        return None;
    }
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        http::Response::new(Body::from("hello, whoever you are"))
    })
    .await;
    let config = config(&format!(
        "plugins: {{ p: {{ transport: http, endpoint: '{}', retry: off }} }}",
        server.address
    ));
    let plugins = Plugins::builder().start(config).await.unwrap();
    let app = Router::new().route_service("/{*rest}", plugins.plugin("p").into_route());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hello", listener.local_addr().unwrap());
    let front = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let mut command = Command::new(program);
    let command = command.args(arguments).arg(&url).kill_on_drop(true);
    let Output { status, stdout, .. } = within(command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{said}");
    within(async {
        while plugins.active_requests("p") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    front.abort();
    Some(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn h2load_loads_the_gateway_over_both_protocols_and_no_request_fails() {
    for protocol in ["--h1", "-m10"] {
        let arguments = ["-n1000", "-c8", "-t1", protocol];
        let Some(said) = load("h2load", &arguments).await else {
            return;
        };
        let all = "1000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(all) && said.contains("1000 2xx"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrk_loads_the_gateway_and_no_request_fails() {
    let Some(said) = load("wrk", &["-t1", "-c8", "-d1s"]).await else {
        return;
    };
    assert!(said.contains("requests in"), "{said}");
    for trouble in ["Socket errors", "Non-2xx"] {
        assert!(!said.contains(trouble), "{said}");
    }
}
