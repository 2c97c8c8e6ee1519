//! A transport of one's own: plugins that are reached by a protocol that only this program speaks, named by
//! the config like any other; and a codec of one's own for typed calls to them.
//!
//! Run it with `cargo run --example custom-transport`. The protocol is that of a small key-value store on a
//! TCP port: `GET key` and a line with the value back. Balancing, retries, breakers, deadlines and
//! reloads come from the stack above; the transport only carries one request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tower_plugins::call::{Codec, DecodeError, Method};
use tower_plugins::config::{Config, Format};
use tower_plugins::transport::{EndpointArgs, ResponseFuture, Transport};
use tower_plugins::{Body, Plugins, Reason};
use tower_plugins_layers::{BoxError, Refused, Unsent};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The transport, of one endpoint.
struct Store {
    /// `host:port`.
    at: String,
    options: StoreOptions,
    connect_within: Duration,
}

/// What a config says of it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreOptions {
    /// Is put before each key.
    namespace: String,
}

impl Store {
    /// `make`, as it is registered: it looks at what the config says, and connects to nothing.
    fn new(args: EndpointArgs<StoreOptions>) -> Result<Self, String> {
        let (_, port) = args.endpoint.rsplit_once(':').ok_or("it has no port")?;
        port.parse::<u16>().map_err(|_| "its port is no number")?;
        Ok(Self {
            at: args.endpoint,
            options: args.options,
            connect_within: args.connection.connection_timeout,
        })
    }

    async fn run(&self, request: Request<Body>) -> Result<Response<Body>> {
        let connect = tokio::time::timeout(self.connect_within, TcpStream::connect(&self.at));
        let stream = match connect.await {
            Ok(Ok(stream)) => stream,
            // With the request in it, so that it can be sent to another endpoint, whatever it is.
            Ok(Err(error)) => return Err(unsent(request, error)),
            Err(elapsed) => return Err(unsent(request, elapsed)),
        };
        let key = request.uri().path().trim_start_matches('/');
        let mut stream = BufReader::new(stream);
        let line = format!("GET {}{key}\n", self.options.namespace);
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        if stream.read_line(&mut answer).await? == 0 {
            return Err(Refused::new(Reason::ConnectionLost).into());
        }
        let mut response = Response::new(Body::empty());
        match answer.trim_end().strip_prefix("VALUE ") {
            Some(value) => *response.body_mut() = value.to_owned().into(),
            None => *response.status_mut() = StatusCode::NOT_FOUND,
        }
        Ok(response)
    }
}

fn unsent(request: Request<Body>, cause: impl Into<BoxError>) -> BoxError {
    let refused = Refused::new(Reason::ConnectFailed).caused_by(cause);
    Unsent::new(Some(request), refused).into()
}

impl Transport for Store {
    fn call(&self, request: Request<Body>) -> ResponseFuture<'_> {
        Box::pin(self.run(request))
    }
}

/// The codec: a value is a text, and a request nothing but its path.
struct Text;

impl Codec<(), String> for Text {
    fn encode(&self, (): &(), _: &mut Request<Body>, _: Option<Duration>) -> Result<(), BoxError> {
        Ok(())
    }

    fn decode(&self, response: Response<Bytes>) -> Result<String, DecodeError> {
        let text = String::from_utf8(response.into_body().into());
        text.map_err(|error| DecodeError::Invalid(error.into()))
    }
}

static COLOUR: Method<(), String, Text> = Method::with_codec(http::Method::GET, "/colour", Text);
static SHAPE: Method<(), String, Text> = Method::with_codec(http::Method::GET, "/shape", Text);

#[tokio::main]
async fn main() -> Result {
    say("1. A key-value store listens on a TCP port.");
    let asked = Arc::new(AtomicU32::new(0));
    let store = start_store(Arc::clone(&asked)).await?;
    println!("   it is at {store}");

    say("2. The program registers how it is reached, as `store`; a config names that.");
    // Nobody listens at the first endpoint.
    let gone = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let yaml = format!(
        "
plugins:
  settings:
    transport: store
    endpoints: ['{gone}', '{store}']
    options: {{ namespace: 'app:' }}
    retry: {{ max_retries: 2, initial_interval: 1ms }}
    connection: {{ connection_timeout: 1s, request_timeout: 5s }}
"
    );
    let plugins = Plugins::builder()
        .transport("store", Store::new)
        .start(Config::parse(&yaml, Format::Yaml)?)
        .await?;
    let settings = plugins.plugin("settings");
    for _ in 0..3 {
        println!("   colour -> {}", settings.invoke(&COLOUR, &()).await?);
    }
    println!("   each was answered, although one of the two endpoints is down");

    say("3. A reload with other options makes the transport anew.");
    plugins
        .reload(Config::parse(&yaml.replace("app:", "test:"), Format::Yaml)?)
        .await?;
    println!("   colour -> {}", settings.invoke(&COLOUR, &()).await?);
    match settings.invoke(&SHAPE, &()).await {
        Ok(shape) => return Err(format!("it has no shape, and it is {shape}").into()),
        Err(error) => println!("   shape -> {:?}", error.answered_status()),
    }

    say("4. What is wrong with it in a config is refused, and what runs goes on.");
    for wrong in [
        yaml.replace("transport: store", "transport: stroe"),
        yaml.replace("namespace", "name_space"),
        yaml.replace(&store, "a place without a port"),
    ] {
        let config = Config::parse(&wrong, Format::Yaml)?;
        match plugins.reload(config).await {
            Ok(_) => return Err("it was to be refused".into()),
            Err(error) => println!("   | {}", error.config().ok_or("another error")?),
        }
    }
    println!("   colour -> {}", settings.invoke(&COLOUR, &()).await?);

    plugins.shutdown(Duration::from_secs(5)).await?;
    let asked = asked.load(Ordering::Relaxed);
    println!("\ncustom-transport: the store was asked {asked} times");
    Ok(())
}

/// The store, which knows a few values by heart.
async fn start_store(asked: Arc<AtomicU32>) -> Result<String> {
    let values = HashMap::from([("app:colour", "blue"), ("test:colour", "red")]);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (values, asked) = (values.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let key = line.trim_end().strip_prefix("GET ");
                    let answer = match key.and_then(|key| values.get(key)) {
                        Some(value) => format!("VALUE {value}\n"),
                        None => "NONE\n".to_owned(),
                    };
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    Ok(at)
}

fn say(step: &str) {
    println!("\n{step}");
}
