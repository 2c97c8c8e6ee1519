mod tokens;

use std::convert::Infallible;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_plugins_layers::CredentialsLayer;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

async fn headers_after(layer: &CredentialsLayer, request: Request<()>) -> HeaderMap {
    let service = layer.layer(service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(request.headers().clone()))
    }));
    service.oneshot(request).await.unwrap().into_body()
}

#[tokio::test]
async fn what_the_caller_wrote_is_replaced_all_of_it() {
    let layer = CredentialsLayer::bearer("ours").unwrap();
    let request = Request::builder()
        .header(AUTHORIZATION, "Bearer theirs")
        .header(AUTHORIZATION, "Basic also-theirs")
        .header("accept", "*/*")
        .body(())
        .unwrap();
    let headers = headers_after(&layer, request).await;
    let shown: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(shown, ["Bearer ours"]);
    assert_eq!(headers["accept"], "*/*");
}

#[tokio::test]
async fn every_kind_is_sensitive_and_in_its_header() {
    for (layer, name, value) in [
        (CredentialsLayer::bearer("t"), AUTHORIZATION, "Bearer t"),
        (CredentialsLayer::basic("dTpw"), AUTHORIZATION, "Basic dTpw"),
        (
            CredentialsLayer::api_key(API_KEY, "s3cret"),
            API_KEY,
            "s3cret",
        ),
    ] {
        let headers = headers_after(&layer.unwrap(), Request::new(())).await;
        assert_eq!(headers[&name], value);
        assert!(headers[&name].is_sensitive());
        assert!(!format!("{headers:?}").contains(value));
    }
}

#[tokio::test]
async fn no_credentials_leave_the_request_alone() {
    let request = Request::builder()
        .header(AUTHORIZATION, "Bearer theirs")
        .body(())
        .unwrap();
    let headers = headers_after(&CredentialsLayer::none(), request).await;
    assert_eq!(headers[AUTHORIZATION], "Bearer theirs");
}

#[test]
fn a_secret_is_never_printed() {
    let layer = CredentialsLayer::headers([(AUTHORIZATION, "Bearer s3cret"), (API_KEY, "k3y")]);
    let layer = layer.unwrap();
    let printed = format!("{layer:?} {:?}", layer.layer(()));
    assert!(printed.contains("x-api-key"), "{printed}");
    assert!(
        !printed.contains("s3cret") && !printed.contains("k3y"),
        "{printed}"
    );

    let error = CredentialsLayer::bearer("s3cret\nx-admin: yes").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}
