use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use tower_plugins::{Body, Plugins, Reason};

use crate::support::{Server, Socket, call, config, echo, get, text};
use tower_plugins::config::{Config, Protocol};

const GENERATIONS: usize = 200;

/// Both plugins in one generation.
fn generation(number: usize) -> Config {
    config(&format!(
        "plugins:
          one: {{ transport: in-process, endpoint: s{number} }}
          two: {{ transport: in-process, endpoint: s{number} }}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_finds_one_plugin_of_a_new_graph_beside_another_of_the_old() {
    let mut builder = Plugins::builder();
    for number in 0..GENERATIONS {
        let answer = move |_: Request<Body>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(number.to_string())))
        };
        builder = builder.service(&format!("s{number}"), tower::service_fn(answer));
    }
    let plugins = builder.start(generation(0)).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (plugins, over) = (plugins.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let (one, two) = (plugins.plugin("one"), plugins.plugin("two"));
                let (mut newest, mut changes) = (0, 0);
                while !over.load(Ordering::Relaxed) {
                    // Whichever is asked later must be of the same graph or of a later one.
                    for plugin in [&one, &two, &two, &one] {
                        let answer: usize = text(plugin, get("/")).await.unwrap().parse().unwrap();
                        assert!(answer >= newest, "{answer} was answered after {newest}");
                        changes += usize::from(answer > newest);
                        newest = answer;
                    }
                    tokio::task::yield_now().await;
                }
                changes
            })
        })
        .collect();
    for number in 1..GENERATIONS {
        plugins.reload(generation(number)).await.unwrap();
        let last = number.to_string();
        assert_eq!(text(&plugins.plugin("one"), get("/")).await.unwrap(), last);
        assert_eq!(text(&plugins.plugin("two"), get("/")).await.unwrap(), last);
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0, "it called through a change");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_down_fails_neither_start_nor_reload() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let down = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let at = |url: &str| {
        config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: \"{url}\", retry: {{ enabled: false }} }} }}"
        ))
    };
    let plugins = Plugins::builder().start(at(&down)).await.unwrap();
    let p = plugins.plugin("p");
    let error = call(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));

    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    plugins
        .reload(at(&server.address.to_string()))
        .await
        .unwrap();
    assert_eq!(text(&p, get("/")).await.unwrap(), "");

    plugins.reload(at(&down)).await.unwrap();
    let error = call(&p, get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
}
