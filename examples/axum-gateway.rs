//! An axum app as a gateway: plugins as its routes and as its fallback, and one that is asked before others answer.
//!
//! `cargo run --example axum-gateway` starts four small servers, the gateway in front of them and a client, says
//! what happens and ends. To ask for yourself, keep it running:
//!
//! ```sh
//! cargo run --example axum-gateway -- --serve 127.0.0.1:3003
//! curl -i localhost:3003/shop/prices                                # 401: the plugin `auth` does not know you
//! curl -i -H 'authorization: Bearer ann' localhost:3003/shop/prices # 200, for ann
//! curl -N localhost:3003/chat/events                                # events, as they are made
//! curl -i localhost:3003/anything/else                              # the fallback
//! ```
//!
//! A WebSocket at `ws://localhost:3003/chat/room` shouts back what it is told.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message as Said, WebSocket};
use axum::http::header::AUTHORIZATION;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceBuilder;
use tower_plugins::Plugins;
use tower_plugins::config::{Config, Format};
use tower_plugins_layers::{FilterLayer, FilterPolicy, RespondLayer};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const USER: HeaderName = HeaderName::from_static("x-user");

/// Between two events.
const PAUSE: Duration = Duration::from_millis(200);

/// The gateway: all it knows of its plugins is their names.
fn gateway(plugins: &Plugins) -> Router {
    let auth = plugins.plugin("auth");
    let auth = auth.into_forward_auth(PathAndQuery::from_static("/verify"));
    // It sees who the caller says to be, and says who that is.
    let policy = FilterPolicy::new()
        .headers([AUTHORIZATION])
        .copy_headers([USER]);
    let asked_first = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(FilterLayer::new(policy, auth));
    Router::new()
        .route_service("/shop/{*rest}", plugins.plugin("shop").into_route())
        .layer(asked_first)
        // What is added from here on is open to all.
        .route_service("/chat/{*rest}", plugins.plugin("chat").into_route())
        .fallback_service(plugins.plugin("old-site").into_route())
}

/// The plugins, each a server of its own.
async fn servers() -> Result<Config> {
    let auth = Router::new().route("/verify", get(verify));
    let shop = Router::new().route("/shop/prices", get(prices));
    let chat = Router::new()
        .route("/chat/room", get(room))
        .route("/chat/events", get(events));
    let old_site = Router::new().fallback(|uri: Uri| async move { format!("an old page, {uri}") });
    let config = format!(
        "
        plugins:
          auth: {{ transport: http, endpoint: {} }}
          shop: {{ transport: http, endpoint: {} }}
          chat: {{ transport: http, endpoint: {}, drain_timeout: 1s }}
          old-site: {{ transport: http, endpoint: {} }}
        ",
        serve(auth).await?,
        serve(shop).await?,
        serve(chat).await?,
        serve(old_site).await?,
    );
    Ok(Config::parse(&config, Format::Yaml)?)
}

async fn serve(app: Router) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

/// Lets in whoever has a name.
async fn verify(headers: HeaderMap) -> Response<Body> {
    let token = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    match token.and_then(|token| token.strip_prefix("Bearer ")) {
        Some(name) => [(USER, name.to_owned())].into_response(),
        None => (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
    }
}

async fn prices(headers: HeaderMap) -> String {
    let user = headers.get(USER).and_then(|user| user.to_str().ok());
    format!("apples 2, pears 3, for {}", user.unwrap_or("nobody"))
}

/// A WebSocket that shouts back what it is told.
async fn room(upgrade: WebSocketUpgrade) -> Response<Body> {
    upgrade.on_upgrade(async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.recv().await {
            let Said::Text(text) = message else { continue };
            let shout = Said::Text(text.to_uppercase().into());
            if socket.send(shout).await.is_err() {
                return;
            }
        }
    })
}

/// Three events, with a pause after each.
async fn events() -> impl IntoResponse {
    let events = stream::unfold(1, |number| async move {
        if number > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        let event = Event::default().data(format!("event {number}"));
        (number <= 3).then_some((Ok::<_, Infallible>(event), number + 1))
    });
    Sse::new(events)
}

#[tokio::main]
async fn main() -> Result {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => None,
        [serve, address] if serve == "--serve" => Some(address.as_str()),
        _ => return Err("usage: axum-gateway [--serve ADDRESS]".into()),
    };
    let mut config = servers().await?;
    let plugins = Plugins::builder().start(config.clone()).await?;
    let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:0")).await?;
    let address_here = listener.local_addr()?.to_string();
    let app = gateway(&plugins);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    if address.is_some() {
        println!("http://{address_here} serves until Ctrl-C");
        tokio::signal::ctrl_c().await?;
        return Ok(());
    }
    let caller = Caller::new(&address_here);
    show_routes(&caller).await?;
    show_filter(&caller).await?;
    show_events(&caller).await?;
    show_websocket(&caller, &plugins, &mut config).await?;
    plugins.shutdown(Duration::from_secs(1)).await?;
    server.abort();
    println!("\naxum-gateway: done");
    Ok(())
}

async fn show_routes(caller: &Caller) -> Result {
    println!("1. What no route is for is the fallback's.");
    caller.get("/about/us?in=1999", None, 200).await
}

async fn show_filter(caller: &Caller) -> Result {
    println!(
        "\n2. The plugin `auth` is asked before the shop is, and its answer may be the caller's."
    );
    caller.get("/shop/prices", None, 401).await?;
    caller.get("/shop/prices", Some("Bearer ann"), 200).await
}

async fn show_events(caller: &Caller) -> Result {
    println!("\n3. Events are passed on as they are made.");
    let began = Instant::now();
    let response = caller.send("/chat/events", None).await?;
    let mut body = response.into_body();
    let mut first = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let took = began.elapsed();
        first.get_or_insert(took);
        let text = String::from_utf8_lossy(&data);
        println!("   after {:3} ms: {}", took.as_millis(), text.trim_end());
    }
    let (first, all) = (first.ok_or("no event came")?, began.elapsed());
    if all - first < PAUSE {
        return Err("the events came all at once".into());
    }
    Ok(())
}

async fn show_websocket(caller: &Caller, plugins: &Plugins, config: &mut Config) -> Result {
    println!("\n4. A WebSocket goes through, and is a call of its plugin as long as it is open.");
    let stream = TcpStream::connect(&caller.address).await?;
    let url = format!("ws://{}/chat/room", caller.address);
    let (mut socket, answer) = client_async(url, stream).await?;
    println!("   GET /chat/room -> {}", answer.status());
    socket.send(Message::text("hello")).await?;
    let shout = socket.next().await.ok_or("no answer")??;
    println!("   hello -> {shout}");
    if shout != Message::text("HELLO") || plugins.active_requests("chat") != 1 {
        return Err("it is not a call that shouts".into());
    }

    println!(
        "   The plugin leaves the config. Its drain waits for the talk, a second at the most:"
    );
    config.plugins.remove("chat");
    let report = plugins.reload(config.clone()).await?;
    socket.send(Message::text("still here")).await?;
    let shout = socket.next().await.ok_or("no answer")??;
    println!("   still here -> {shout}");
    let retired = report.retirement.wait().await;
    let end = timeout(Duration::from_secs(5), socket.next()).await?;
    println!(
        "   cut: {}, the socket has ended: {}",
        retired[0].cancelled,
        !matches!(end, Some(Ok(_)))
    );
    Ok(())
}

/// One who asks the gateway for things.
struct Caller {
    client: Client<HttpConnector, Body>,
    address: String,
}

impl Caller {
    fn new(address: &str) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            address: address.to_owned(),
        }
    }

    async fn send(&self, path: &str, token: Option<&str>) -> Result<Response<Body>> {
        let mut request = Request::get(format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let response = self.client.request(request.body(Body::empty())?).await?;
        Ok(response.map(Body::new))
    }

    async fn get(&self, path: &str, token: Option<&str>, due: u16) -> Result {
        let response = self.send(path, token).await?;
        let status = response.status().as_u16();
        let text = response.into_body().collect().await?.to_bytes();
        let who = token.map_or(String::new(), |token| format!(" as {token}"));
        println!(
            "   GET {path}{who} -> {status} {}",
            String::from_utf8_lossy(&text)
        );
        if status == due {
            return Ok(());
        }
        Err(format!("GET {path} -> {status}, and {due} was due").into())
    }
}
