//! Our host with plugins in Go and Python.

mod attached;
mod calls;
mod ends;
mod load;
mod log;
mod others;
mod output;
mod python;
mod refusals;
mod sessions;
mod trust;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Builder, Plugin, Plugins};
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::peer::{Description, Empty, Number};

use crate::support::Mode;

/// What a test waits for an event at most.
const BOUND: Duration = Duration::from_secs(60);

async fn within<F: Future>(what: F) -> F::Output {
    timeout(BOUND, what).await.expect("it takes too long")
}

/// The keys of the plugin `p`, which is `program` in Go, with `arguments`.
fn keys(program: &Path, arguments: &[&str]) -> String {
    let arguments = [&["plugin"], arguments].concat();
    let arguments = serde_json::to_string(&arguments).unwrap();
    let program = program.display();
    format!(
        "transport: subprocess, executable: '{program}', args: {arguments}, retry: off, circuit_breaker: off"
    )
}

fn config(keys: &str) -> Config {
    Config::parse(&format!("plugins: {{ p: {{ {keys} }} }}"), Format::Yaml).unwrap()
}

/// The plugin `p` with these keys.
async fn start(keys: &str) -> Plugins {
    start_with(Plugins::builder(), keys).await
}

async fn start_with(builder: Builder, keys: &str) -> Plugins {
    builder.start(config(keys)).await.unwrap()
}

fn peer(plugins: &Plugins) -> PeerClient<Plugin> {
    const MOST: usize = 128 << 20;
    PeerClient::new(plugins.plugin("p"))
        .max_decoding_message_size(MOST)
        .max_encoding_message_size(MOST)
}

/// The plugin `name` with these keys: what is logged is told apart by its name.
async fn named(name: &str, keys: &str) -> (Plugins, PeerClient<Plugin>) {
    let text = format!("plugins: {{ {name}: {{ {keys} }} }}");
    let config = Config::parse(&text, Format::Yaml).unwrap();
    let plugins = Plugins::builder().start(config).await.unwrap();
    let client = PeerClient::new(plugins.plugin(name));
    (plugins, client)
}

async fn doubled(plugins: &Plugins, value: i64) -> Result<i64, tonic::Status> {
    let answer = within(peer(plugins).double(Number { value })).await?;
    Ok(answer.into_inner().value)
}

async fn describe(plugins: &Plugins) -> Description {
    let answer = within(peer(plugins).describe(Empty {})).await;
    answer.unwrap().into_inner()
}

impl Mode {
    /// The key of our host.
    fn key(self) -> String {
        let Self {
            auto_mtls,
            multiplexed,
        } = self;
        format!("go_plugin: {{ auto_mtls: {auto_mtls}, multiplex: {multiplexed} }}")
    }
}

/// Waits until nothing is left of the process `pid`.
async fn until_gone(pid: i32) {
    let gone = async {
        while Path::new(&format!("/proc/{pid}")).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(gone).await;
}
