//! The envelope, byte by byte: over HTTP, and in the lines of a Unix socket.

use axum::Json;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_plugins_proto::envelope;

use super::*;
use crate::transport::unix_json::Peer;

#[derive(Serialize)]
struct Text {
    text: &'static str,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Answer {
    text: String,
}

static RUN: Method<Text, Answer, Envelope> = Method::with_codec(HttpMethod::POST, "/run", Envelope);

const ASK: Text = Text { text: "a < b" };

/// One message of HTTP/1.1 with a `content-length`, as it came.
async fn message(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = within(stream.read(&mut chunk)).await.unwrap();
        assert!(read > 0, "the message is cut");
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse::<usize>().unwrap())
        });
        if body.len() == length.unwrap() {
            return text;
        }
    }
}

/// Head and body; the head's lines but the first in order, as their order says nothing.
fn parts(message: &str) -> (Vec<&str>, &str) {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    (lines, body)
}

/// As a Go server writes `body`, which is JSON.
fn answered(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nDate: Mon, 15 Sep 2025 10:00:00 GMT\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What a call makes of `answer`, and what was sent.
async fn over_http(answer: &str) -> (Result<Answer, Error>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let yaml = format!(
        "plugins: {{ p: {{ transport: http, endpoint: 'http://{at}/v1', retry: off, \
         auth: {{ method: api-key, api_key: k-1 }} }} }}"
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    let (outcome, sent) = tokio::join!(asked(&plugins), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let sent = message(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        sent
    });
    (outcome, sent.replace(&at.to_string(), "HOST"))
}

async fn over_unix_json(answer: &str) -> (Result<Answer, Error>, String) {
    let peer = Peer::start();
    let yaml = format!(
        "plugins: {{ p: {{ transport: unix-json, endpoint: {}, retry: off }} }}",
        peer.path.display()
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    let (outcome, sent) = tokio::join!(asked(&plugins), async {
        let mut talk = peer.accept().await;
        let sent = talk.line().await;
        talk.say(answer).await;
        sent
    });
    (outcome, sent)
}

async fn asked(plugins: &Plugins) -> Result<Answer, Error> {
    let plugin = plugins.plugin("p");
    let call = plugin.invoke(&RUN, &ASK);
    let call = call.request_id("r-1").header("X-Tenant", "seven");
    within(call.timeout(Duration::from_secs(90)).into_future()).await
}

#[tokio::test]
async fn a_request_has_these_bytes_over_http() {
    let answer = answered(
        "200 OK",
        "{\"data\":{\"text\":\"A\"},\"request_id\":\"r-1\"}\n",
    );
    let (outcome, sent) = over_http(&answer).await;
    assert_eq!(outcome.unwrap().text, "A");
    let (head, body) = parts(&sent);
    assert_eq!(
        body,
        r#"{"data":{"text":"a < b"},"request_id":"r-1","timeout":"1m30s","headers":{"x-tenant":"seven"}}"#
    );
    assert_eq!(
        head,
        [
            "POST /v1/run HTTP/1.1",
            "accept-encoding: gzip",
            &format!("content-length: {}", body.len()),
            "content-type: application/json",
            "host: HOST",
            "x-api-key: k-1",
            "x-request-id: r-1",
            "x-tenant: seven",
        ]
    );
}

#[tokio::test]
async fn a_request_has_these_bytes_over_unix_json() {
    let answer = "{\"type\":\"execute\",\"request_id\":\"r-1\",\"success\":true,\"data\":{\"text\":\"A\"}}\n";
    let (outcome, sent) = over_unix_json(answer).await;
    assert_eq!(outcome.unwrap().text, "A");
    // The rest of the time is less than the config's 30 s.
    let (line, millis) = sent.split_once("\"timeout_ms\":").unwrap();
    assert_eq!(
        line,
        r#"{"type":"execute","request_id":"r-1","data":{"text":"a < b"},"headers":{"x-tenant":"seven"},"#
    );
    let millis: u64 = millis.strip_suffix("}\n").unwrap().parse().unwrap();
    assert!((1..=30_000).contains(&millis), "{millis}");
}

/// What an outcome is to its caller.
fn told(outcome: &Result<Answer, Error>) -> (Option<&str>, bool, bool, u16, bool, Option<Reason>) {
    let error = match outcome {
        Ok(answer) => return (Some(&answer.text), false, false, 200, false, None),
        Err(error) => error,
    };
    (
        None,
        error.is_answer(),
        error.is_codec(),
        error.http_status().as_u16(),
        error.is_retryable(),
        error.reason(),
    )
}

#[tokio::test]
async fn an_answer_is_the_same_over_http_and_over_unix_json() {
    let head = r#""type":"execute","request_id":"r-1""#;
    for (over_http_said, line, words) in [
        (
            r#"{"data":{"text":"x \u003c y\u2028"},"request_id":"r-1"}"#,
            format!("{{{head},\"success\":true,\"data\":{{\"text\":\"x \\u003c y\\u2028\"}}}}\n"),
            "",
        ),
        (
            r#"{"data":{"text":"x","more":1},"request_id":"r-1","metadata":{"cache":"hit"},"later":1}"#,
            format!(
                "{{{head},\"success\":true,\"data\":{{\"text\":\"x\",\"more\":1}},\"headers\":{{\"cache\":\"hit\"}},\"later\":1}}\n"
            ),
            "",
        ),
        (
            r#"{"error":"no such text","request_id":"r-1"}"#,
            format!("{{{head},\"success\":false,\"error\":\"no such text\"}}\n"),
            "the plugin answered with an error: no such text",
        ),
        (
            r#"{"data":{"text":"x"},"error":"but it broke","request_id":"r-1"}"#,
            format!(
                "{{{head},\"success\":false,\"data\":{{\"text\":\"x\"}},\"error\":\"but it broke\"}}\n"
            ),
            "but it broke",
        ),
        (
            r#"{"data":7,"request_id":"r-1"}"#,
            format!("{{{head},\"success\":true,\"data\":7}}\n"),
            "the response could not be decoded",
        ),
        (
            r#"{"request_id":"r-1"}"#,
            format!("{{{head},\"success\":true}}\n"),
            "the response could not be decoded",
        ),
    ] {
        let (http, _) = over_http(&answered("200 OK", over_http_said)).await;
        let (unix, _) = over_unix_json(&line).await;
        assert_eq!(told(&http), told(&unix), "{over_http_said} {line}");
        for outcome in [http, unix] {
            let said = outcome
                .err()
                .map(|error| causes(&error))
                .unwrap_or_default();
            assert!(said.contains(words), "{said}");
        }
    }
}

#[tokio::test]
async fn a_status_that_is_no_success_is_an_error_with_what_the_answer_said() {
    for status in ["400 Bad Request", "503 Service Unavailable"] {
        let (outcome, _) = over_http(&answered(status, "{\"error\":\"busy\"}\n")).await;
        let error = outcome.unwrap_err();
        assert!(status.starts_with(error.answered_status().unwrap().as_str()));
        assert!(causes(&error).contains("busy"));
    }
    let (outcome, _) = over_http(&answered("200 OK", "<html>")).await;
    assert!(outcome.unwrap_err().is_codec());
}

/// A plugin for hosts written with go-plugins: the types of the wire, and axum.
#[tokio::test]
async fn a_plugin_reads_and_writes_these_bytes() {
    async fn shout(
        Json(asked): Json<envelope::Request<'static, Value>>,
    ) -> Json<envelope::Response<Value>> {
        let id = asked.request_id;
        Json(match asked.data["text"].as_str() {
            Some(text) => envelope::Response::success(id, text.to_uppercase().into()),
            None => envelope::Response::failure(id, "it needs a text"),
        })
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let app = Router::new().route("/run", axum::routing::post(shout));
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let mut stream = TcpStream::connect(at).await.unwrap();
    for (body, answer) in [
        (
            r#"{"data":{"text":"a \u003c b"},"request_id":"req_1757930400000000000","timeout":"30s","headers":{"X-Tenant":"seven"}}"#,
            r#"{"data":"A < B","request_id":"req_1757930400000000000"}"#,
        ),
        (
            r#"{"data":null,"request_id":"r","timeout":"1m0.5s","metadata":{"a":"b"}}"#,
            r#"{"error":"it needs a text","request_id":"r"}"#,
        ),
    ] {
        // As Go's client writes it.
        let request = format!(
            "POST /run HTTP/1.1\r\nHost: {at}\r\nUser-Agent: go-plugins/1.0\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nX-Request-Id: r-1\r\nAccept-Encoding: gzip\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let said = message(&mut stream).await;
        let (head, body) = parts(&said);
        assert_eq!(head[0], "HTTP/1.1 200 OK");
        assert!(head.contains(&"content-type: application/json"));
        assert_eq!(body, answer);
    }
    server.abort();
}
