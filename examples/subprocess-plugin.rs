//! A plugin that is a process, and a host that outlives its crash: both are this program.
//!
//! Run it with `cargo run --example subprocess-plugin`. It starts itself once more, as the plugin, which is written with the SDK and speaks the
//! protocol of HashiCorp's go-plugin. To have the plugin alone, as a server:
//!
//! ```sh
//! cargo run --example subprocess-plugin -- plugin --listen http://127.0.0.1:3004
//! curl -s localhost:3004/greet -H 'content-type: application/json' -d '"Ann"'
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_plugins::Plugins;
use tower_plugins::call::Method;
use tower_plugins::config::{Config, Format};
use tower_plugins::transport::subprocess::Exited;
use tower_plugins_sdk::Plugin;
use tower_plugins_sdk::router::{Input, Output, Router};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What both sides know.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    text: String,
    process: u32,
    /// How many it has greeted. It is in the process's memory, and nowhere else.
    greeted: u32,
}

static GREET: Method<String, Greeting> = Method::post("/greet");
static CRASH: Method<String, ()> = Method::post("/crash");

/// The plugin's side.
async fn plugin() -> Result {
    let router = Router::new().method("greet", greet).method("crash", crash);
    Plugin::new("greeter", env!("CARGO_PKG_VERSION"))
        .router(router)
        .serve()
        .await?;
    Ok(())
}

async fn greet(Input(name): Input<String>) -> Output<Greeting> {
    static GREETED: AtomicU32 = AtomicU32::new(0);
    Output(Greeting {
        text: format!("Good day, {name}!"),
        process: std::process::id(),
        greeted: GREETED.fetch_add(1, Ordering::Relaxed) + 1,
    })
}

async fn crash(Input(why): Input<String>) {
    // The host keeps the last lines of its log.
    eprintln!("I cannot go on: {why}");
    std::process::abort();
}

/// The host's side.
async fn host() -> Result {
    let program = std::env::current_exe()?;
    let config = format!(
        "
        plugins:
          greeter:
            transport: subprocess
            executable: '{}'
            args: [plugin]
            process:
              restart: always
        ",
        program.display()
    );
    let plugins = Plugins::builder()
        .start(Config::parse(&config, Format::Yaml)?)
        .await?;
    let greeter = plugins.plugin("greeter");

    println!("1. The first call starts the plugin's process; the second finds it running.");
    for name in ["Ann", "Ben"] {
        let greeting = greeter.invoke(&GREET, &name.to_owned()).await?;
        show(&greeting);
    }

    println!("2. It crashes while it is called. The call fails, and knows why:");
    match greeter.invoke(&CRASH, &"out of ink".to_owned()).await {
        Ok(()) => return Err("it should have crashed".into()),
        Err(error) => {
            let exited = Exited::find(&error).ok_or("the error should say how it ended")?;
            println!("   {error}: {exited}");
        }
    }

    println!("3. The next call starts it again: another process, which has greeted nobody.");
    let greeting = greeter.invoke(&GREET, &"Cem".to_owned()).await?;
    show(&greeting);

    println!("4. The host ends, and the plugin is told to, and does.");
    plugins.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

fn show(greeting: &Greeting) {
    let Greeting {
        text,
        process,
        greeted,
    } = greeting;
    println!("   {text} (from process {process}, which has greeted {greeted})");
}

#[tokio::main]
async fn main() -> Result {
    if std::env::args().any(|argument| argument == "plugin") {
        return plugin().await;
    }
    host().await
}
