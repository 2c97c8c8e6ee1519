//! An axum app with plugins as routes, as its fallback and as the filter in front of it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get as route;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceBuilder, service_fn};
use tower_plugins::config::{Address, Config, ConnectionSpec, PluginName, Protocol};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Plugins};
use tower_plugins_layers::{BoxError, FilterLayer, FilterPolicy, RespondLayer};

use crate::support::{Server, Socket, channel, config, data, get, post, read, within};

const USER: HeaderName = HeaderName::from_static("x-user");

/// An app on a real listener, and a client of it.
struct Front {
    http: Http,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Front {
    async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let url = Address::http(&format!("http://{address}")).unwrap();
        Self {
            http: Http::new(&url, &ConnectionSpec::default()).unwrap(),
            address,
            server,
        }
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        within(self.http.call(request)).await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let text = read(self.call(get(path)).await).await;
        String::from_utf8(text.to_vec()).unwrap()
    }
}

/// Plugins that say their name and the path they were asked for.
async fn named() -> (Plugins, Config) {
    let say = |name: &'static str| {
        service_fn(move |request: Request<Body>| async move {
            let text = format!("{name}: {} {}", request.method(), request.uri());
            Ok::<_, BoxError>(Response::new(Body::from(text)))
        })
    };
    let config = config(
        "plugins: { search: { transport: in-process, endpoint: search },
                    rest: { transport: in-process, endpoint: rest } }",
    );
    let builder = Plugins::builder().service("search", say("search"));
    let builder = builder.service("rest", say("rest"));
    (builder.start(config.clone()).await.unwrap(), config)
}

#[tokio::test]
async fn plugins_are_routes_and_the_fallback_of_an_app() {
    let (plugins, mut config) = named().await;
    let search = plugins.plugin("search").into_route();
    let app = Router::new()
        .route("/own", route(|| async { "the app's own" }))
        .route_service("/search/{*rest}", search.clone())
        .nest_service("/v2", search)
        .route_service("/later", plugins.plugin("later").into_route())
        .fallback_service(plugins.plugin("rest").into_route());
    let front = Front::start(app).await;
    assert_eq!(front.text("/own").await, "the app's own");
    assert_eq!(
        front.text("/search/a?q=1").await,
        "search: GET /search/a?q=1"
    );
    assert_eq!(front.text("/v2/a?q=1").await, "search: GET /a?q=1");
    assert_eq!(
        front.text("/anything/else").await,
        "rest: GET /anything/else"
    );
    let response = front.call(post("/search/b", "body")).await;
    assert_eq!(read(response).await, "search: POST /search/b");

    // A name that is not in the config yet is a 404, until it is.
    assert_eq!(front.call(get("/later")).await.status(), 404);
    let mut later = config.plugins["rest"].clone();
    later.name = PluginName::new("later").unwrap();
    config.insert(later);
    plugins.reload(config).await.unwrap();
    assert_eq!(front.text("/later").await, "rest: GET /later");
}

/// What the deciding plugin was asked.
type Asked = Arc<Mutex<Vec<(Method, String, HeaderMap)>>>;

/// A plugin `auth` over HTTP that lets in who shows the token.
async fn auth() -> (Server, Plugins, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let server = Server::start(Socket::Tcp, Protocol::Http1, move |request| {
        let (head, _) = request.into_parts();
        let is_known = head
            .headers
            .get(AUTHORIZATION)
            .is_some_and(|shown| shown == "Bearer t");
        let question = (head.method, head.uri.to_string(), head.headers);
        seen.lock().unwrap().push(question);
        async move {
            let mut answer = Response::new(Body::from("who are you?"));
            if is_known {
                let ann = HeaderValue::from_static("ann");
                answer.headers_mut().insert(USER, ann);
            } else {
                *answer.status_mut() = StatusCode::FOUND;
                let login = HeaderValue::from_static("/login");
                answer.headers_mut().insert(LOCATION, login);
            }
            answer
        }
    })
    .await;
    let config = config(&format!(
        "plugins: {{ auth: {{ transport: http, endpoint: '{}', retry: off }} }}",
        server.address
    ));
    let plugins = Plugins::builder().start(config).await.unwrap();
    (server, plugins, asked)
}

async fn hello(headers: HeaderMap) -> String {
    let user = headers.get(USER).map(|user| user.to_str().unwrap());
    format!("hello {}", user.unwrap_or("nobody"))
}

fn policy() -> FilterPolicy {
    let policy = FilterPolicy::new().headers([AUTHORIZATION, HOST]);
    policy.copy_headers([USER])
}

fn asking(path: &str, token: Option<&'static str>) -> Request<Body> {
    let mut request = post(path, "body");
    let headers = request.headers_mut();
    headers.insert(USER, HeaderValue::from_static("forged"));
    headers.insert("x-forwarded-method", HeaderValue::from_static("forged"));
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_static(token));
    }
    request
}

#[tokio::test]
async fn a_filter_layer_asks_a_plugin_before_going_on() {
    let (_server, plugins, asked) = auth().await;
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(FilterLayer::new(policy(), plugins.plugin("auth")));
    let app = Router::new()
        .route("/{*rest}", route(hello).post(hello))
        .layer(layers);
    let front = Front::start(app).await;

    let response = front.call(asking("/a/b?c=d", Some("Bearer t"))).await;
    assert_eq!(response.status(), 200);
    assert_eq!(read(response).await, "hello ann");
    let response = front.call(asking("/a/b", None)).await;
    assert_eq!(
        (
            response.status(),
            response.headers()[LOCATION].to_str().unwrap()
        ),
        (StatusCode::FOUND, "/login")
    );
    assert_eq!(read(response).await, "who are you?");
    {
        let asked = asked.lock().unwrap();
        // It is asked at the path of the call, with its method, and sees no more headers than it should.
        assert_eq!(asked[0].0, Method::POST);
        assert_eq!(asked[0].1, "/a/b?c=d");
        assert!(!asked[0].2.contains_key(USER));
        assert!(!asked[0].2.contains_key("x-forwarded-method"));
    }

    // It cannot be asked: nobody is let in.
    plugins.reload(Config::default()).await.unwrap();
    let response = front.call(asking("/a/b", Some("Bearer t"))).await;
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn forward_authentication_is_asked_at_its_own_path_what_the_call_is() {
    let (_server, plugins, asked) = auth().await;
    let path = PathAndQuery::from_static("/verify?app=shop");
    let auth = plugins.plugin("auth").into_forward_auth(path);
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(FilterLayer::new(policy(), auth));
    let app = Router::new()
        .route("/{*rest}", route(hello).post(hello))
        .layer(layers);
    let front = Front::start(app).await;
    let response = front.call(asking("/a/b?c=d", Some("Bearer t"))).await;
    assert_eq!(read(response).await, "hello ann");
    assert_eq!(
        front.call(asking("/a/b", Some("other"))).await.status(),
        302
    );
    let asked = asked.lock().unwrap();
    let (method, uri, headers) = &asked[0];
    assert_eq!((method, uri.as_str()), (&Method::GET, "/verify?app=shop"));
    let header = |name: &str| headers[name].to_str().unwrap();
    assert_eq!(header("x-forwarded-method"), "POST");
    assert_eq!(header("x-forwarded-uri"), "/a/b?c=d");
    assert_eq!(header("x-forwarded-host"), front.address);
    assert_eq!(header("authorization"), "Bearer t");
    assert!(!headers.contains_key(USER));
}

#[tokio::test]
async fn the_first_event_of_a_stream_arrives_before_the_second_is_made() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (events, body) = channel();
        let body = Mutex::new(Some(body));
        let server = Server::start(Socket::Tcp, protocol, move |_| {
            let mut response = Response::new(body.lock().unwrap().take().unwrap());
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", kind);
            async { response }
        })
        .await;
        let word = if protocol == Protocol::Http1 {
            "http1"
        } else {
            "http2"
        };
        // A stream outlives the deadline that the config has for calls.
        let config = config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: '{}',
               connection: {{ protocol: {word}, request_timeout: 5s }}, retry: {{ max_retries: 3 }} }} }}",
            server.address
        ));
        let plugins = Plugins::builder().start(config).await.unwrap();
        let app = Router::new().route_service("/events", plugins.plugin("p").into_route());
        let front = Front::start(app).await;
        // No event yet: the head is here.
        let mut response = front.call(get("/events")).await;
        for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
            events.send(data(event)).unwrap();
            let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
        // Whoever listens no more ends it at its source.
        drop(response);
        within(events.closed()).await;
    }
}

/// Is dropped with the call it belongs to.
struct Dropped(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_polls_ends_the_call_at_the_plugin() {
    for (protocol, word) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let (began, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(Socket::Tcp, protocol, move |_| {
            began.send(()).unwrap();
            let guard = Dropped(ended.clone());
            async move {
                let _guard = guard;
                std::future::pending().await
            }
        })
        .await;
        let config = config(&format!(
            "plugins: {{ p: {{ transport: http, endpoint: '{}', connection: {{ protocol: {word} }} }} }}",
            server.address
        ));
        let plugins = Plugins::builder().start(config).await.unwrap();
        let app = Router::new().fallback_service(plugins.plugin("p").into_route());
        let front = Front::start(app).await;
        let mut client = TcpStream::connect(&front.address).await.unwrap();
        client
            .write_all(b"GET /poll HTTP/1.1\r\nhost: front\r\n\r\n")
            .await
            .unwrap();
        within(begins.recv()).await.unwrap();
        assert_eq!(plugins.active_requests("p"), 1);
        drop(client);
        within(ends.recv()).await.unwrap();
        within(async {
            while plugins.active_requests("p") > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
