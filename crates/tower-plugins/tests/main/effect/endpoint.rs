use tower_plugins::Plugins;
use tower_plugins::config::Protocol;

use super::stage::Stage;
use crate::support::{Server, Socket, config, get, text};

/// A server that answers with the path it was asked for.
async fn server(socket: Socket) -> Server {
    Server::start(socket, Protocol::Http1, |request| async move {
        http::Response::new(request.uri().path().to_owned().into())
    })
    .await
}

/// The path that arrives when `/x` is asked of this endpoint.
async fn arrives(transport: &str, endpoint: &str) -> String {
    let yaml = format!("plugins: {{ p: {{ transport: {transport}, endpoint: {endpoint} }} }}");
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    text(&plugins.plugin("p"), get("/x")).await.unwrap()
}

#[tokio::test]
async fn url_is_where_the_endpoint_is_and_what_is_put_before_paths() {
    let tcp = server(Socket::Tcp).await;
    let url = tcp.address.to_string();
    for (endpoint, path) in [
        (format!("'{url}'"), "/x"),
        (format!("{{ url: '{url}' }}"), "/x"),
        (format!("{{ url: '{url}/a/b/' }}"), "/a/b/x"),
    ] {
        assert_eq!(arrives("http", &endpoint).await, path, "{endpoint}");
    }
    let unix = server(Socket::Unix).await;
    let url = unix.address.to_string();
    for socket in [&*url, url.strip_prefix("unix:").unwrap()] {
        let endpoint = format!("{{ url: '{socket}' }}");
        assert_eq!(arrives("unix", &endpoint).await, "/x", "{endpoint}");
    }
    assert_eq!((tcp.accepted(), unix.accepted()), (3, 2));
    for service in ["one", "two"] {
        let yaml = format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: {{ url: {service} }} }} }}"
        );
        let stage = Stage::start(&yaml).await;
        stage.call().await.unwrap();
        assert_eq!(stage.seen()[0].service, service);
    }
}

#[tokio::test]
async fn path_is_put_before_the_path_of_each_request() {
    for (socket, transport) in [(Socket::Tcp, "http"), (Socket::Unix, "unix")] {
        let server = server(socket).await;
        for (path, arrived) in [("/v1", "/v1/x"), ("/a/b/", "/a/b/x")] {
            let endpoint = format!("{{ url: '{}', path: {path} }}", server.address);
            assert_eq!(arrives(transport, &endpoint).await, arrived, "{endpoint}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn from_is_what_the_program_tells_of_endpoints() {
    let insert = |name: &'static str| {
        let address = tower_plugins::config::Address::in_process(name).unwrap();
        Ok::<_, std::convert::Infallible>(tower::discover::Change::Insert((), address.into()))
    };
    for (from, status) in [("first", 200), ("second", 201)] {
        let services = [("s200", 200), ("s201", 201)];
        let mut builder = Plugins::builder()
            .endpoints("first", futures_util::stream::iter([insert("s200")]))
            .endpoints("second", futures_util::stream::iter([insert("s201")]));
        for (name, status) in services {
            let service =
                tower::service_fn(move |_: http::Request<tower_plugins::Body>| async move {
                    let response = http::Response::builder().status(status);
                    response.body(tower_plugins::Body::empty())
                });
            builder = builder.service(name, service);
        }
        let yaml =
            format!("plugins: {{ p: {{ transport: in-process, endpoint: {{ from: {from} }} }} }}");
        let plugins = builder.start(config(&yaml)).await.unwrap();
        let response = crate::support::call(&plugins.plugin("p"), get("/"))
            .await
            .unwrap();
        assert_eq!(response.status(), status);
    }
}
