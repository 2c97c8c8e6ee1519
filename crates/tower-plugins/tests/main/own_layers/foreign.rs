//! Layers of tower-http, in a plugin's stack and on a router beside ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use tower::{ServiceBuilder, service_fn};
use tower_http::map_response_body::MapResponseBodyLayer;
use tower_http::request_id::{
    MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer,
};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_plugins::config::{Address, ConnectionSpec};
use tower_plugins::transport::{Http, Transport};
use tower_plugins::{Body, Builder, Place, Plugins};
use tower_plugins_layers::{RateLimitLayer, RespondLayer};

use super::ONE;
use crate::support::{call, config, get, read, within};

const ID: HeaderName = HeaderName::from_static("x-request-id");
const KEY: HeaderName = HeaderName::from_static("x-key");

/// Numbers requests.
#[derive(Clone, Default)]
struct Numbers(Arc<AtomicU32>);

impl MakeRequestId for Numbers {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Some(RequestId::new(HeaderValue::from(number)))
    }
}

/// A plugin whose service says the id of its request, and whether its key would be printed.
fn says() -> Builder {
    Plugins::builder().service(
        "s",
        service_fn(|request: Request<Body>| async move {
            let headers = request.headers();
            let id = headers[ID].to_str().unwrap().to_owned();
            let sensitive = headers.get(KEY).is_some_and(HeaderValue::is_sensitive);
            Ok::<_, Infallible>(Response::new(Body::from(format!("{id} {sensitive}"))))
        }),
    )
}

fn with_key(path: &str) -> Request<Body> {
    let mut request = get(path);
    request
        .headers_mut()
        .insert(KEY, HeaderValue::from_static("k"));
    request
}

#[tokio::test]
async fn layers_of_tower_http_stand_in_a_plugins_stack() {
    let at = Place::Call;
    let plugins = says()
        .layer(at, "set id", SetRequestIdLayer::new(ID, Numbers::default()))
        .layer(at, "show id", PropagateRequestIdLayer::new(ID))
        .layer(at, "hide key", SetSensitiveRequestHeadersLayer::new([KEY]))
        // It changes the body's type.
        .layer(
            at,
            "limit",
            MapResponseBodyLayer::new(|body: Body| Limited::new(body, 6)),
        )
        .start(config(ONE))
        .await
        .unwrap();
    let plugin = plugins.plugin("p");
    for (id, right) in [("0", "0 true"), ("1", "1 true")] {
        let response = call(&plugin, with_key("/")).await.unwrap();
        assert_eq!(response.headers()[ID], id);
        assert_eq!(read(response).await, right);
    }
    let mut long = with_key("/");
    long.headers_mut()
        .insert(ID, HeaderValue::from_static("a name"));
    let response = call(&plugin, long).await.unwrap();
    let body = response.into_body().collect().await;
    assert!(body.is_err(), "the body is longer than the limit");
    assert_eq!(plugins.active_requests("p"), 0);
}

/// On a real listener: the ids of tower-http reach the plugin, and the answers of our layers have them too.
#[tokio::test]
async fn on_a_router_layers_of_tower_http_and_ours_stand_side_by_side() {
    let plugins = says().start(config(ONE)).await.unwrap();
    let app: Router = Router::new()
        .route_service("/p", plugins.plugin("p").into_route())
        .layer(
            ServiceBuilder::new()
                .layer(SetSensitiveRequestHeadersLayer::new([KEY]))
                .layer(SetRequestIdLayer::new(ID, Numbers::default()))
                .layer(PropagateRequestIdLayer::new(ID))
                .layer(RespondLayer::new())
                .layer(RateLimitLayer::new(0.001, 1)),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::http(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let http = Http::new(&address, &ConnectionSpec::default()).unwrap();
    for (id, status) in [("0", 200), ("1", 429)] {
        let response = within(http.call(with_key("/p"))).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[ID], id);
        if status == 200 {
            assert_eq!(read(response).await, "0 true");
        }
    }
    server.abort();
}
