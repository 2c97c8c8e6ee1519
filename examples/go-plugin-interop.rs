//! A plugin in Go under a host in Rust, and a plugin in Rust under a host in Go.
//!
//! `cargo run --example go-plugin-interop` builds a program in Go with HashiCorp's go-plugin, which is both a plugin and a host:
//! its sources are in `crates/tower-plugins-interop/peers/go-plugin`. A set of plugins starts and calls the plugin; then the host
//! starts this example, which is a plugin with `tower-plugins-sdk`, and calls it. Without Go it says so, and ends.

use std::time::Duration;

use tonic::{Request, Response, Status};
use tower_plugins::Plugins;
use tower_plugins::config::{Config, Format};
use tower_plugins_interop::peer::adder_server::{Adder, AdderServer};
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::peer::{AddRequest, Number};
use tower_plugins_interop::{GoHost, Version, go};
use tower_plugins_sdk::{Handshake, Plugin};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result {
    // By the cookie a plugin knows that a host has started it.
    let cookie = std::env::var_os(Handshake::default().cookie_key());
    if Handshake::default().is_met(cookie.as_deref()) {
        return plugin().await;
    }
    let Some(program) = go(Version::V1_8_0) else {
        println!("there is no Go here, or no go-plugin: nothing to show");
        return Ok(());
    };
    host(&program).await?;
    under_a_host_in_go().await
}

/// The Go plugin under our host.
async fn host(program: &std::path::Path) -> Result {
    let program = program.display();
    let config = format!(
        "plugins: {{ doubler: {{ transport: subprocess, executable: '{program}', args: [plugin] }} }}"
    );
    let plugins = Plugins::builder()
        .start(Config::parse(&config, Format::Yaml)?)
        .await?;
    // Any client that tonic generates takes a plugin as its channel.
    let mut client = PeerClient::new(plugins.plugin("doubler"));
    let answer = client.double(Number { value: 21 }).await?;
    println!("a plugin in Go makes of 21: {}", answer.into_inner().value);
    plugins.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

/// This program under the Go host, with certificates that both make for this run.
async fn under_a_host_in_go() -> Result {
    let host = GoHost::new(Version::V1_8_0).ok_or("it was there before")?;
    let seen = host.flags(["-automtls"]);
    let seen = seen.run("add,kill", std::env::current_exe()?).await?;
    println!(
        "a host in Go hears from a plugin in Rust: {}",
        seen.step("add")["value"]
    );
    println!(
        "it ended the plugin by force: {}",
        seen.step("kill")["forced"]
    );
    Ok(())
}

/// What the Go host calls.
async fn plugin() -> Result {
    let plugin = Plugin::new("adder", env!("CARGO_PKG_VERSION"));
    Ok(plugin.service(AdderServer::new(Sums)).serve().await?)
}

struct Sums;

#[tonic::async_trait]
impl Adder for Sums {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<Number>, Status> {
        let AddRequest { left, right } = request.into_inner();
        let value = left + right;
        Ok(Response::new(Number { value }))
    }
}
