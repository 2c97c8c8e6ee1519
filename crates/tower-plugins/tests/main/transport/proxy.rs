//! Endpoints on the other side of a proxy.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tower_plugins::Body;
use tower_plugins::config::{Address, Protocol, ProxySpec, Secret};
use tower_plugins::transport::{Http, Transport};
use tower_plugins_layers::{Reason, Unsent};

use super::server::{Server, Socket, chain, echo, post, read, spec, within};
use super::tls::server::{Ca, Setup};

/// A proxy that leads to this machine, whatever it is asked for, and knows what it was asked.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// One that leads to `port` of this machine, for who says `credentials`, if any are needed.
    pub(crate) async fn to(port: u16, credentials: Option<&'static str>) -> Self {
        Self::by(move |_| port, credentials).await
    }

    /// One that leads to the port that `route` has for a host and port, as `to` does.
    pub(crate) async fn by(
        route: impl Fn(&str) -> u16 + Clone + Send + 'static,
        credentials: Option<&'static str>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let asked = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tasks.spawn(serve(
                    stream,
                    route.clone(),
                    credentials,
                    Arc::clone(&asked),
                ));
            }
        });
        Self {
            port: own,
            heads,
            task,
        }
    }

    /// The heads of what it was asked.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    route: impl Fn(&str) -> u16,
    credentials: Option<&'static str>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.clone());
    if credentials.is_some_and(|credentials| !head.contains(credentials)) {
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        client.write_all(answer).await.unwrap();
        return;
    }
    let port = route(head.split(' ').nth(1).unwrap());
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let long = "x".repeat(3000);
    let answer = format!("HTTP/1.1 200 Connection established\r\nx-long: {long}\r\n\r\n");
    client.write_all(answer.as_bytes()).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

pub(crate) fn port_of(address: &Address) -> u16 {
    match address {
        Address::Http { authority, .. } => authority.port_u16().unwrap(),
        _ => panic!("it is no TCP socket"),
    }
}

#[tokio::test]
async fn a_tunnel_carries_both_protocols_with_tls_and_without() {
    let ca = Ca::new();
    let shows = ca.certify(&["search.internal"]);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let plain = Server::start(Socket::Tcp, protocol, echo).await;
        let secure = Setup::new(&shows).start().await;
        let http = Address::http("http://search.internal").unwrap();
        let https = Address::https("https://search.internal").unwrap();
        for (address, port, asked) in [
            (
                http,
                port_of(&plain.address),
                "CONNECT search.internal:80 HTTP/1.1\r\nhost: search.internal:80\r\n\r\n",
            ),
            (
                https,
                secure.port,
                "CONNECT search.internal:443 HTTP/1.1\r\nhost: search.internal:443\r\n\r\n",
            ),
        ] {
            let proxy = Proxy::to(port, None).await;
            let mut spec = spec(protocol);
            spec.proxy = ProxySpec::At(format!("127.0.0.1:{}", proxy.port).parse().unwrap());
            let http = Http::with_tls(&address, &spec, &ca.trusted()).unwrap();
            for _ in 0..3 {
                let response = within(http.call(post("/", "hello"))).await.unwrap();
                assert_eq!(read(response).await, "hello");
            }
            assert_eq!(proxy.heads(), [asked]);
        }
    }
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_told_of_without_its_credentials() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let proxy = Proxy::to(
        port_of(&server.address),
        Some("authorization: Basic dXNlcjpodW50ZXIy"),
    )
    .await;
    let at = |port: u16, auth: &str| {
        let mut spec = spec(Protocol::Http1);
        spec.proxy = ProxySpec::At(format!("127.0.0.1:{port}").parse().unwrap());
        spec.proxy_auth = Some(Secret::new(auth.to_owned()));
        Http::new(&Address::http("http://search.internal").unwrap(), &spec).unwrap()
    };
    let known = at(proxy.port, "user:hunter2");
    let response = within(known.call(post("/", "hello"))).await.unwrap();
    assert_eq!(read(response).await, "hello");
    assert!(!format!("{known:?}").contains("hunter2"));

    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = gone.local_addr().unwrap().port();
    drop(gone);
    for (port, auth, why) in [
        (proxy.port, "user:wrong", "set connection.proxy_auth"),
        (nowhere, "user:hunter2", "refused"),
    ] {
        let error = within(at(port, auth).call(post("/", "mine")))
            .await
            .unwrap_err();
        let text = chain(&error);
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectFailed), "{text}");
        assert!(
            text.contains(&format!("the proxy at 127.0.0.1:{port}")),
            "{text}"
        );
        assert!(text.contains(why), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("wrong"),
            "{text}"
        );
        assert!(Unsent::<Body>::recover(error).is_ok());
    }
}
