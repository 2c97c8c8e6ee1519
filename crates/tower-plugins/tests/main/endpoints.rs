//! A plugin at several endpoints.

mod changing;
mod death;
pub(crate) mod dns;
mod plaintext;
mod series;
mod spread;
mod tail;

use std::net::SocketAddr;
use std::sync::Arc;

use http::Response;
use tower_plugins::config::Protocol;
use tower_plugins::{Body, Plugin, Plugins};

use crate::support::{Server, Socket, get, text, within};

/// A server that answers with its name.
async fn named(name: &'static str, at: Option<SocketAddr>) -> Server {
    let socket = at.map_or(Socket::Tcp, Socket::At);
    Server::start(socket, Protocol::Http1, move |_| async move {
        Response::new(Body::from(name))
    })
    .await
}

/// Who answers the next call.
async fn who(plugin: &Plugin) -> String {
    text(plugin, get("/")).await.unwrap()
}

/// Who answers so many calls, in order and each once.
async fn all(plugin: &Plugin, calls: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..calls {
        all.push(who(plugin).await);
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Calls until these are all that answer.
async fn until(plugins: &Plugins, names: &[&str]) {
    let plugin = plugins.plugin("p");
    let calls = 2 * names.len() + 2;
    let answers = async || {
        // A call that is refused at once waits for nobody.
        tokio::task::yield_now().await;
        let mut all = Vec::new();
        for _ in 0..calls {
            let answer = text(&plugin, get("/")).await;
            all.push(answer.unwrap_or_else(|error| error.to_string()));
        }
        all.sort_unstable();
        all.dedup();
        all
    };
    within(async { while answers().await != names {} }).await;
}

/// Where a server is.
fn at(server: &Server) -> SocketAddr {
    let url = server.address.to_string();
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// What calls share.
fn shared<T: Default>() -> Arc<T> {
    Arc::default()
}
