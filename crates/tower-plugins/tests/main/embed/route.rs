use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower_plugins::config::{Address, Config, ConnectionSpec, Protocol};
use tower_plugins::embed::Route;
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins};

use crate::support::{Server, Shelf, Socket, channel, config, data, echo, get, post, read, within};

/// A router on a real listener, with a plugin `p` at every path.
struct Front {
    plugins: Plugins,
    http: Http,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Front {
    async fn start(plugins: Plugins) -> Self {
        Self::with(plugins, |route| route).await
    }

    async fn with(plugins: Plugins, set: impl FnOnce(Route) -> Route) -> Self {
        let route = set(plugins.plugin("p").into_route());
        let app = Router::new().route_service("/{*rest}", route);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::http(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            plugins,
            http: Http::new(&address, &ConnectionSpec::default()).unwrap(),
            server,
        }
    }

    /// In front of `server`.
    async fn of(server: &Server, keys: &str) -> Self {
        let config = at(&server.address, keys);
        Self::start(Plugins::builder().start(config).await.unwrap()).await
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        within(self.http.call(request)).await.unwrap()
    }

    /// The status, `Retry-After` and text of the answer to a `GET`.
    async fn get(&self) -> (u16, Option<u64>, String) {
        let response = self.call(get("/some/path")).await;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after");
        let after = after.map(|after| after.to_str().unwrap().parse().unwrap());
        let text = String::from_utf8(read(response).await.to_vec()).unwrap();
        (status, after, text)
    }
}

fn at(address: &Address, keys: &str) -> Config {
    config(&format!(
        "plugins: {{ p: {{ transport: http, endpoint: \"{address}\", {keys} }} }}"
    ))
}

#[tokio::test]
async fn a_request_and_its_answer_go_through_as_they_are() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |request| async move {
        assert_eq!(request.headers()["x-from"], "caller");
        Response::builder()
            .status(StatusCode::CREATED)
            .header("x-path", request.uri().to_string())
            .body(request.into_body())
            .unwrap()
    })
    .await;
    let front = Front::of(&server, "").await;
    let mut request = post("/some/path?q=1", "the body");
    request
        .headers_mut()
        .insert("x-from", "caller".parse().unwrap());
    let response = front.call(request).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-path"], "/some/path?q=1");
    assert_eq!(response.headers()["content-length"], "8");
    assert_eq!(read(response).await, "the body");
}

#[tokio::test]
async fn errors_are_answers_by_the_table() {
    let plugins = Plugins::builder().start(Config::default()).await.unwrap();
    let front = Front::start(plugins).await;
    let (status, after, text) = front.get().await;
    assert_eq!((status, after), (404, None));
    assert!(text.contains("`p`"), "{text}");

    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
    .await;
    let reload = |keys: &str| front.plugins.reload(at(&server.address, keys));
    reload("rate_limit: { requests_per_second: 0.1, burst_size: 1 }")
        .await
        .unwrap();
    assert_eq!(front.get().await.0, 500, "the plugin's own answer");
    let (status, after, _) = front.get().await;
    assert_eq!(status, 429);
    assert!((1..=10).contains(&after.unwrap()), "{after:?}");

    reload("retry: { enabled: false }, circuit_breaker: { failure_threshold: 1, recovery_timeout: 20s }")
        .await
        .unwrap();
    front.get().await;
    let (status, after, text) = front.get().await;
    assert_eq!(status, 503);
    assert!((1..=20).contains(&after.unwrap()), "{after:?}");
    let address = server.address.to_string();
    assert!(
        !text.contains(address.trim_start_matches("http://")),
        "{text}"
    );

    front.plugins.shutdown(Duration::ZERO).await.unwrap();
    let (status, _, text) = front.get().await;
    assert_eq!(status, 503);
    assert!(text.contains("shut down"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_in_time_or_at_all_is_the_gateways_trouble() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| std::future::pending()).await;
    let front = Front::of(&server, "connection: { request_timeout: 50ms }").await;
    assert_eq!(front.get().await.0, 504);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Address::http(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    front
        .plugins
        .reload(at(&nobody, "retry: { enabled: false }"))
        .await
        .unwrap();
    let (status, _, text) = front.get().await;
    assert_eq!(status, 502);
    assert!(!text.contains("127.0.0.1"), "causes stay inside: {text}");
}

#[tokio::test]
async fn neither_body_is_held_back() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, echo).await;
    let front = Front::of(&server, "").await;
    let (frames, body) = channel();
    let request = Request::post("/echo").body(body).unwrap();
    let mut response = front.call(request).await;
    for word in ["one", "two", "three"] {
        // The next is sent only when the last came back.
        frames.send(data(word)).unwrap();
        let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(frames);
    assert!(within(response.body_mut().frame()).await.is_none());
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_call_behind_the_route() {
    let shelf = Shelf::default();
    let plugins = shelf
        .start("plugins: { p: { transport: in-process, endpoint: shelf } }")
        .await;
    let front = Front::start(plugins).await;
    let (frames, body) = channel();
    shelf.put(body);
    frames.send(data("first")).unwrap();
    let mut response = front.call(get("/endless")).await;
    within(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(front.plugins.active_requests("p"), 1);
    drop(response);
    within(frames.closed()).await;
    within(async {
        while front.plugins.active_requests("p") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_breaks_behind_the_route_breaks_in_front_of_it() {
    let shelf = Shelf::default();
    let plugins = shelf
        .start("plugins: { p: { transport: in-process, endpoint: shelf } }")
        .await;
    let front = Front::start(plugins).await;
    let (frames, receiver) = tokio::sync::mpsc::unbounded_channel();
    let broken = tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    shelf.put(Body::new(http_body_util::StreamBody::new(broken)));
    frames.send(Ok(data("first"))).unwrap();
    let mut response = front.call(get("/broken")).await;
    within(response.body_mut().frame()).await.unwrap().unwrap();
    let gone = std::io::Error::other("the disk is gone");
    frames.send(Err(gone)).unwrap();
    assert!(
        within(response.into_body().collect()).await.is_err(),
        "it is not whole"
    );
}

#[tokio::test]
async fn a_grpc_caller_is_answered_in_grpc() {
    let plugins = Plugins::builder().start(Config::default()).await.unwrap();
    let front = Front::start(plugins).await;
    let request = Request::post("/some.Service/Method")
        .header("content-type", "application/grpc+proto")
        .body(Body::empty())
        .unwrap();
    let response = front.call(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "12");
    assert!(
        response.headers()["grpc-message"]
            .to_str()
            .unwrap()
            .contains("`p`")
    );
}

#[tokio::test]
async fn the_state_of_a_limit_and_the_challenge_of_who_is_not_let_in_are_headers() {
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        Response::new(Body::empty())
    })
    .await;
    let front = Front::of(
        &server,
        "authorize: { bearer_tokens: { a: t } },
         rate_limit: { requests_per_second: 0.1, burst_size: 1 }",
    )
    .await;
    let response = front.call(get("/some/path")).await;
    assert_eq!(response.status(), 401);
    assert!(response.headers().contains_key("www-authenticate"));

    for (status, quota) in [(200, None), (429, Some("\"default\";q=1;w=10"))] {
        let mut request = get("/some/path");
        let token = http::HeaderValue::from_static("Bearer t");
        request.headers_mut().insert("authorization", token);
        let response = front.call(request).await;
        assert_eq!(response.status(), status);
        let policy = response.headers().get("ratelimit-policy");
        assert_eq!(policy.map(|policy| policy.to_str().unwrap()), quota);
        let after = response.headers().get_all("retry-after").iter();
        assert_eq!(after.count(), usize::from(quota.is_some()));
    }
}

#[tokio::test]
async fn the_reason_of_an_error_is_a_header_where_it_is_switched_on() {
    const NAME: HeaderName = HeaderName::from_static("x-refused-reason");
    let server = Server::start(Socket::Tcp, Protocol::Http1, |_| async {
        let mut response = Response::new(Body::empty());
        let own = HeaderValue::from_static("the plugin's own");
        response.headers_mut().insert(NAME, own);
        response
    })
    .await;
    let limited = at(
        &server.address,
        "rate_limit: { requests_per_second: 0.1, burst_size: 1 }",
    );
    for (on, refused) in [(false, None), (true, Some("rate_limited"))] {
        let plugins = Plugins::builder().start(limited.clone()).await.unwrap();
        let set = |route: Route| if on { route.reason_header(NAME) } else { route };
        let front = Front::with(plugins, set).await;
        let grpc = || {
            let mut request = post("/some.Service/Method", "");
            let grpc = HeaderValue::from_static("application/grpc");
            request.headers_mut().insert("content-type", grpc);
            request
        };
        for (request, right) in [
            (get("/some/path"), Some("the plugin's own")),
            (get("/some/path"), refused),
            (grpc(), refused),
        ] {
            let response = front.call(request).await;
            let said = response.headers().get(NAME);
            assert_eq!(said.map(|said| said.to_str().unwrap()), right);
        }
        // Not in the config: an error without a reason.
        front.plugins.reload(Config::default()).await.unwrap();
        let response = front.call(get("/some/path")).await;
        assert_eq!(response.status(), 404);
        assert!(!response.headers().contains_key(NAME));
    }
}
