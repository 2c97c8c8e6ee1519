//! A plugin on a runtime of one thread, for what plugins do that are no example.
//!
//! ```text
//! corners [once | twice | dropped]
//! ```

use std::io::{self, Read, Write};
use std::sync::Arc;

use tokio::sync::Notify;
use tower_plugins_interop::pattern;
use tower_plugins_sdk::axum::extract::Path;
use tower_plugins_sdk::axum::{Router, routing::get};
use tower_plugins_sdk::{Broker, Plugin, Services};

/// `GET /print/LENGTH` prints that many bytes, and holds the one thread meanwhile.
async fn print(Path(length): Path<usize>) -> &'static str {
    let mut stdout = io::stdout().lock();
    let printed = stdout
        .write_all(&pattern(length))
        .and_then(|()| stdout.flush());
    printed.map_or("not printed", |()| "printed")
}

/// `GET /flood` prints from then on, and for ever: a MiB before it answers.
async fn flood() -> &'static str {
    let (flood, floods) = tokio::sync::oneshot::channel();
    std::thread::spawn(|| {
        let lines = pattern(1 << 20);
        let print = || io::stdout().lock().write_all(&lines);
        drop(print());
        flood.send(()).ok();
        while print().is_ok() {}
    });
    drop(floods.await);
    "flooding"
}

/// `GET /offer` offers something by the broker.
async fn offer(broker: Broker) -> String {
    match broker.serve(Services::new()).await {
        Ok(offer) => offer.until_the_end().to_string(),
        Err(error) => error.to_string(),
    }
}

fn plugin(finish: Arc<Notify>) -> Plugin {
    let plugin = Plugin::new("corners", "1.0.0");
    let broker = plugin.broker();
    let finish = move || async move {
        finish.notify_one();
        "finishing"
    };
    let router = Router::new()
        .route("/print/{length}", get(print))
        .route("/flood", get(flood))
        .route("/offer", get(move || offer(broker.clone())))
        .route("/finish", get(finish));
    plugin.router(router)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tower_plugins_sdk::Error> {
    let finish = Arc::new(Notify::new());
    let finished = finish.clone();
    let finished = async move { finished.notified().await };
    let plugin = plugin(finish);
    match std::env::args().nth(1).as_deref() {
        Some("twice") => {
            let another = Plugin::new("another", "1.0.0").serve();
            let (one, another) = tokio::join!(plugin.serve(), another);
            if let Err(error) = another {
                eprintln!("{error}");
            }
            one
        }
        Some("dropped") => {
            tokio::select! {
                served = plugin.serve() => return served,
                () = finished => {}
            }
            println!("it goes on");
            let until_told = || io::stdin().read_to_end(&mut Vec::new());
            drop(tokio::task::spawn_blocking(until_told).await);
            Ok(())
        }
        _ => plugin.with_graceful_shutdown(finished).serve().await,
    }
}
