//! What callers do that is no example.

use axum::body::Body;
use http::Request;
use http::header::ALLOW;
use tower_plugins_sdk::router::{Output, Router};

use super::support::{read, router, send};

async fn call(app: &axum::Router, method: &str, path: &str) -> axum::response::Response {
    let request = Request::builder().method(method).uri(path);
    send(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let app = router().into_axum();
    let refused = call(&app, "PUT", "/version").await;
    let allowed = refused.headers()[ALLOW].to_str().unwrap().to_owned();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
    let (status, body) = read(refused).await;
    assert_eq!(status, 405);
    let error = body["error"].as_str().unwrap();
    assert!(error.contains("GET"), "{error}");
    let refused = call(&app, "GET", "/divide").await;
    assert_eq!(refused.headers()[ALLOW], "POST");
    assert_eq!(read(refused).await.0, 405);
    assert_eq!(call(&app, "POST", "/health").await.status(), 405);
    assert_eq!(call(&app, "HEAD", "/version").await.status(), 200);
}

#[tokio::test]
async fn a_long_text_of_an_error_is_cut_between_characters() {
    let long = "ü".repeat(4_000);
    let app = Router::new()
        .method("long", move || {
            let long = long.clone();
            async move { Err::<Output<()>, _>(long) }
        })
        .into_axum();
    let (status, body) = read(call(&app, "POST", "/long").await).await;
    assert_eq!(status, 500);
    assert_eq!(body["error"].as_str().unwrap().len(), 4_096);
}
