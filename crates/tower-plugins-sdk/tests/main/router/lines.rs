//! Lines of JSON, byte for byte.

use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::Request;
use tower_plugins_sdk::router::{Caller, Input, Output, Router, State};

use super::support::{router, within};

/// What comes out when `input` goes in.
async fn exec<S: Send + Sync + 'static>(router: Router<S>, input: &str) -> String {
    let mut output = Vec::new();
    within(router.serve_lines(input.as_bytes(), &mut output))
        .await
        .unwrap();
    String::from_utf8(output).unwrap()
}

#[tokio::test]
async fn a_line_is_answered_by_a_line_with_its_id() {
    let input = r#"{"id":"r-1","method":"execute","payload":{"operation":"divide","dividend":6,"divisor":3},"context":{"request_id":"r-1","timeout":1500000000,"max_retries":0}}
{"id":"é","method":"execute","payload":{"operation":"divide","dividend":6,"divisor":0}}
{"id":"r-3","payload":null,"context":{"headers":{"x-operation":"version"}}}
"#;
    let output = "{\"id\":\"r-1\",\"result\":2}
{\"id\":\"é\",\"error\":\"division by zero\"}
{\"id\":\"r-3\",\"result\":\"1.2\"}
";
    assert_eq!(exec(router(), input).await, output);
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_the_next_line_is_read() {
    let long = "x".repeat(70_000);
    let input = format!("nonsense\n{long}\n{{\"id\":\"r\",\"payload\":7}}\n");
    let echo = async |Input(value): Input<u32>| Output(value);
    let output = exec(Router::new().max_request(0).method("echo", echo), &input).await;
    let lines: Vec<&str> = output.lines().collect();
    assert!(
        lines[0].starts_with(r#"{"id":"","error":"the line is no request: "#),
        "{output}"
    );
    assert_eq!(
        lines[1],
        r#"{"id":"","error":"the line is longer than this plugin reads"}"#
    );
    assert_eq!(
        lines[2],
        r#"{"id":"r","error":"the request is larger than 0 bytes, the most that is read"}"#
    );
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_handler_sees_what_a_line_has_beside_its_payload() {
    let seen = async |caller: Caller| {
        let left = caller.time_left().map(|left| left.as_secs() + 1);
        let (id, metadata) = (
            caller.request_id().map(str::to_owned),
            caller.metadata().clone(),
        );
        Output((id, left, caller.header("x-a").map(str::to_owned), metadata))
    };
    let input = r#"{"id":"r","payload":1,"context":{"timeout":5000000000,"headers":{"X-A":"1"},"metadata":{"m":"2"}}}"#;
    let output = exec(Router::new().method("seen", seen), input).await;
    assert_eq!(
        output,
        "{\"id\":\"r\",\"result\":[\"r\",5,\"1\",{\"m\":\"2\"}]}\n"
    );
}

#[tokio::test]
async fn what_a_caller_shows_is_not_printed() {
    let seen = async |caller: Caller| format!("{caller:?}");
    let input = r#"{"id":"r","payload":1,"context":{"headers":{"authorization":"s3cret"},"metadata":{"m":"s3cret"}}}"#;
    let output = exec(Router::new().method("seen", seen), input).await;
    assert!(
        output.contains("authorization") && !output.contains("s3cret"),
        "{output}"
    );
}

/// A layer that refuses by an answer of its own.
async fn gate(request: Request<Body>, next: Next) -> Response {
    match request.headers().get("x-key") {
        Some(key) if key == "open" => next.run(request).await,
        _ => (http::StatusCode::UNAUTHORIZED, "show your key").into_response(),
    }
}

#[tokio::test]
async fn a_layer_stands_before_lines_too() {
    let router =
        Router::with_state(7).method("seven", async |State(seven): State<u32>| Output(seven));
    let input = r#"{"id":"a","payload":null}
{"id":"b","payload":null,"context":{"headers":{"x-key":"open"}}}"#;
    let output = exec(router.layer(from_fn(gate)), input).await;
    let refused = r#"{"id":"a","error":"401 Unauthorized show your key"}"#;
    assert_eq!(
        output,
        format!("{refused}\n{{\"id\":\"b\",\"result\":7}}\n")
    );
}

#[tokio::test]
async fn an_envelope_within_a_line_is_data() {
    let echo = async |Input(value): Input<serde_json::Value>| value;
    let envelope = r#"{"data":1,"request_id":"r","timeout":"1s"}"#;
    let input = format!("{{\"id\":\"r\",\"payload\":{envelope}}}");
    let output = exec(Router::new().method("echo", echo), &input).await;
    assert_eq!(output, format!("{{\"id\":\"r\",\"result\":{envelope}}}\n"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_peer_that_has_said_all_is_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lines");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(router().serve_unix(listener, std::future::pending()));
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let input = b"{\"type\":\"execute\",\"request_id\":\"r\",\"data\":null,\"headers\":{\"x-operation\":\"cached\"}}
{\"type\":\"ping\",\"request_id\":\"p\"}";
    stream.write_all(input).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut output = String::new();
    within(stream.read_to_string(&mut output)).await.unwrap();
    assert_eq!(
        output,
        "{\"type\":\"execute\",\"request_id\":\"r\",\"success\":true,\"data\":7,\"headers\":{\"cache\":\"hit\"}}
{\"type\":\"ping\",\"request_id\":\"p\",\"success\":true,\"data\":\"OK\"}\n"
    );
}
