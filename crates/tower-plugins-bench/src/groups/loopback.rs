//! A call to another process on this machine.

use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tower::service_fn;
use tower_plugins::config::{Config, Format};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins};
use tower_service::Service;

use super::{Group, full};
use crate::Result;
use crate::harness::{Calls, Run, Variant, in_turn, pin, runtime};
use crate::server::{Server, Wire};

pub(super) const GROUP: Group = Group {
    name: "loopback",
    about: "An echo of 200 bytes by a server in another process, one call at a time: CPU time of the client's only thread, which is pinned to one CPU, the server to another.",
    variants,
    prepare: Some(|| pin(0)),
    summary: None,
};

const CALLS: Calls = Calls::Counted(500);

/// What makes a variant over a wire out of a server.
type Make = fn(Runtime, Server, Wire) -> Result<Run>;

fn variants() -> Vec<Variant> {
    let clients: [(&str, Make); 4] = [
        ("raw", raw),
        ("legacy", legacy),
        ("transport", transport),
        ("full", plugin),
    ];
    let mut variants = Vec::new();
    for wire in Wire::ALL {
        let floor = match wire {
            Wire::H1 => "raw-h1",
            Wire::H2 => "raw-h2",
            Wire::Unix => "raw-unix",
        };
        for (name, client) in clients {
            let name = format!("{name}-{}", wire.as_str());
            variants.push(Variant::new(name, floor, CALLS, move || {
                client(runtime()?, Server::start(wire.as_str())?, wire)
            }));
        }
    }
    variants
}

static PAYLOAD: [u8; 200] = [b'x'; 200];
const PATH: &str = "/v1/items/10";

/// A call with a body that may be repeated.
fn request<B: From<Bytes>>(uri: Uri) -> Request<B> {
    let mut request = Request::new(Bytes::from_static(&PAYLOAD).into());
    *request.method_mut() = Method::PUT;
    *request.uri_mut() = uri;
    let octets = HeaderValue::from_static("application/octet-stream");
    let headers = request.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, octets);
    request
}

/// The connection that hyper gives, with nothing around it.
fn raw(runtime: Runtime, server: Server, wire: Wire) -> Result<Run> {
    match wire {
        Wire::H1 => {
            let stream = runtime.block_on(tcp(&server))?;
            raw_h1(runtime, server, stream, true)
        }
        Wire::Unix => {
            let stream = runtime.block_on(UnixStream::connect(&server.address))?;
            raw_h1(runtime, server, stream, false)
        }
        Wire::H2 => raw_h2(runtime, server),
    }
}

async fn tcp(server: &Server) -> Result<TcpStream> {
    let stream = TcpStream::connect(&server.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn raw_h1(
    runtime: Runtime,
    server: Server,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tcp: bool,
) -> Result<Run> {
    let host = if tcp { &server.address } else { "localhost" };
    let host = HeaderValue::from_str(host)?;
    let (mut sender, connection) =
        runtime.block_on(http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)))?;
    runtime.spawn(connection);
    Ok(in_turn(runtime, async move || {
        let _alive = &server;
        let mut request = request(Uri::from_static(PATH));
        request
            .headers_mut()
            .insert(http::header::HOST, host.clone());
        request
            .headers_mut()
            .insert(API_KEY, HeaderValue::from_static(KEY));
        sender.ready().await?;
        full::drain(sender.send_request(request).await?).await
    }))
}

fn raw_h2(runtime: Runtime, server: Server) -> Result<Run> {
    let stream = runtime.block_on(tcp(&server))?;
    let handshake =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = runtime.block_on(handshake)?;
    runtime.spawn(connection);
    let uri: Uri = format!("http://{}{PATH}", server.address).parse()?;
    Ok(in_turn(runtime, async move || {
        let _alive = &server;
        let mut request = request(uri.clone());
        request
            .headers_mut()
            .insert(API_KEY, HeaderValue::from_static(KEY));
        sender.ready().await?;
        full::drain(sender.send_request(request).await?).await
    }))
}

/// What the plugin's credentials send is sent by the others too: the bytes on the wire are equal.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const KEY: &str = "a-key-that-is-no-secret";

/// The pooling client of hyper-util.
fn legacy(runtime: Runtime, server: Server, wire: Wire) -> Result<Run> {
    let mut builder = Client::builder(TokioExecutor::new());
    if wire == Wire::Unix {
        let path = PathBuf::from(&server.address);
        let connector = service_fn(move |_: Uri| {
            let path = path.clone();
            Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
        });
        return legacy_over(runtime, server, builder.build(connector), "localhost");
    }
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = builder.http2_only(wire == Wire::H2).build(connector);
    let host = server.address.clone();
    legacy_over(runtime, server, client, &host)
}

fn legacy_over<C>(
    runtime: Runtime,
    server: Server,
    client: Client<C, Full<Bytes>>,
    host: &str,
) -> Result<Run>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let uri: Uri = format!("http://{host}{PATH}").parse()?;
    Ok(in_turn(runtime, async move || {
        let _alive = &server;
        let mut request = request(uri.clone());
        request
            .headers_mut()
            .insert(API_KEY, HeaderValue::from_static(KEY));
        full::drain(client.request(request).await?).await
    }))
}

/// The config of a plugin behind `server`.
fn config(server: &Server, wire: Wire) -> Result<Config> {
    let transport = if wire == Wire::Unix { "unix" } else { "http" };
    let protocol = if wire == Wire::H2 { "http2" } else { "http1" };
    let scheme = if wire == Wire::Unix { "" } else { "http://" };
    // So that the bytes on the wire are equal.
    let plain = if wire == Wire::Unix {
        ""
    } else {
        ", disable_compression: true"
    };
    let text = format!(
        "
plugins:
  - name: full
    transport: {transport}
    endpoint: {scheme}{}
    connection: {{ request_timeout: 10s, protocol: {protocol}{plain} }}
{}",
        server.address,
        full::ARMED
    );
    Ok(Config::parse(&text, Format::Yaml)?)
}

/// What a plugin calls through, without its layers.
fn transport(runtime: Runtime, server: Server, wire: Wire) -> Result<Run> {
    let config = config(&server, wire)?;
    let upstream = &config.plugins["full"].upstream;
    let transport = runtime
        .block_on(async { Http::new(&upstream.endpoints[0].address, &upstream.connection) })?;
    Ok(in_turn(runtime, async move || {
        let _alive = &server;
        let mut request = request::<Body>(Uri::from_static(PATH));
        request
            .headers_mut()
            .insert(API_KEY, HeaderValue::from_static(KEY));
        full::drain(transport.call(request).await?).await
    }))
}

/// The plugin with every layer armed.
fn plugin(runtime: Runtime, server: Server, wire: Wire) -> Result<Run> {
    let config = config(&server, wire)?;
    let plugins = runtime.block_on(Plugins::builder().start(config))?;
    let mut plugin = plugins.plugin("full");
    Ok(in_turn(runtime, async move || {
        let _alive = (&server, &plugins);
        let request = request::<Body>(Uri::from_static(PATH));
        full::drain(plugin.call(request).await?).await
    }))
}
