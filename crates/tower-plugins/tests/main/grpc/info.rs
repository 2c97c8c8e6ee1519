//! What plugins say of themselves.

use http::{Request, Response, StatusCode};
use tonic::Status;
use tower_plugins::call::InfoSource;
use tower_plugins::config::{Address, Config, PluginSpec, Protocol};
use tower_plugins::{Body, Plugins, Reason};

use super::server::{Server as Grpc, WAYS, Way};
use crate::support::{Server, Socket, within};

#[tokio::test]
async fn a_grpc_plugin_is_asked_by_its_service() {
    for way in WAYS {
        let server = Grpc::start(way).await;
        let info = within(server.plugin("").await.info()).await.unwrap();
        assert_eq!(
            (&*info.name, info.version.as_deref()),
            ("calculator", Some("1.2.0"))
        );
        assert_eq!(
            (&*info.description, &*info.capabilities),
            ("divides", &["divide".to_owned()][..])
        );
        assert_eq!(info.metadata["author"], "us");
        assert_eq!(info.source, InfoSource::Plugin);
    }
}

#[tokio::test]
async fn a_plugin_that_has_no_answer_is_what_the_config_says() {
    let server = Grpc::start(Way::Tcp).await;
    let plugin = server.plugin("retry: off").await;
    server.desk.fail(Status::unimplemented("not here"));
    let info = within(plugin.info()).await.unwrap();
    assert_eq!((&*info.name, info.source), ("p", InfoSource::Config));
    server.desk.fail(Status::permission_denied("not you"));
    let error = within(plugin.info()).await.unwrap_err();
    assert_eq!(
        (error.answered_code(), error.plugin()),
        (Some(7), Some("p"))
    );

    let none = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(std::io::Error::other("is not asked"))
    });
    let config = Config::new().with(PluginSpec::in_process("local", "none").unwrap());
    let plugins = Plugins::builder().service("none", none).start(config);
    let plugins = plugins.await.unwrap();
    let info = within(plugins.plugin("local").info()).await.unwrap();
    assert_eq!((&*info.name, info.source), ("local", InfoSource::Config));
}

#[tokio::test]
async fn an_http_plugin_is_asked_by_get_info() {
    for socket in [Socket::Tcp, Socket::Unix] {
        let server = Server::start(
            socket,
            Protocol::Http1,
            |request: Request<Body>| async move {
                let (status, text) = match request.uri().path() {
                    "/good/info" => (
                        200,
                        r#"{ "name": "text", "version": "2", "capabilities": ["upper"],
                    "metadata": { "author": "us", "since": 2026 }, "author": "ignored" }"#,
                    ),
                    "/bad/info" => (200, "<html>"),
                    "/down/info" => (500, ""),
                    _ => (404, "{}"),
                };
                let mut response = Response::new(Body::from(text));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            },
        )
        .await;
        let mut config = Config::new();
        for name in ["good", "bad", "down", "none"] {
            let address = match server.address.clone() {
                Address::Http { authority, .. } => Address::Http {
                    authority,
                    prefix: format!("/{name}"),
                },
                Address::Unix { path, .. } => Address::Unix {
                    path,
                    prefix: format!("/{name}"),
                },
                other => other,
            };
            let mut spec = PluginSpec::in_process(name, "x").unwrap();
            spec.upstream.endpoints = vec![address.into()];
            config.insert(spec);
        }
        let plugins = Plugins::builder().start(config).await.unwrap();
        let info = within(plugins.plugin("good").info()).await.unwrap();
        assert_eq!((&*info.name, info.version.as_deref()), ("text", Some("2")));
        assert_eq!(
            (&*info.metadata["author"], &*info.metadata["since"]),
            ("us", "2026")
        );
        assert_eq!(info.source, InfoSource::Plugin);
        let info = within(plugins.plugin("none").info()).await.unwrap();
        assert_eq!((&*info.name, info.source), ("none", InfoSource::Config));
        assert!(
            within(plugins.plugin("bad").info())
                .await
                .unwrap_err()
                .is_codec()
        );
        let error = within(plugins.plugin("down").info()).await.unwrap_err();
        assert_eq!(
            error.answered_status(),
            Some(StatusCode::INTERNAL_SERVER_ERROR)
        );
        assert!(
            within(plugins.plugin("gone").info())
                .await
                .unwrap_err()
                .is_not_found()
        );
    }
}

#[tokio::test]
async fn asking_is_a_call_like_any_other() {
    let server = Grpc::start(Way::Tcp).await;
    let limit = "rate_limit: { requests_per_second: 0.001, burst_size: 1 }";
    let plugin = server.plugin(limit).await;
    within(plugin.info()).await.unwrap();
    let error = within(plugin.info()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RateLimited));
}
