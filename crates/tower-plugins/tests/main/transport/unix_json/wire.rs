//! What is on the wire, byte by byte.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use tokio::time::{Instant, pause, resume};
use tower_plugins::Body;
use tower_plugins::transport::Transport;
use tower_plugins_layers::Reason;

use super::{Peer, Talk, call, execute};
use crate::support::read;
use crate::transport::server::chain;

/// What a call with `request` puts on the wire, and what becomes of the answer `said`.
async fn exchange(request: Request<Body>, said: &str) -> (String, StatusCode, String) {
    let peer = Peer::start();
    let reach = peer.reach();
    let plugin = async {
        let mut talk = peer.accept().await;
        let line = talk.line().await;
        talk.say(said).await;
        (talk, line)
    };
    let (response, (_talk, line)) = tokio::join!(call(&reach, request), plugin);
    let response = response.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let status = response.status();
    let body = String::from_utf8(read(response).await.to_vec()).unwrap();
    (line, status, body)
}

#[tokio::test]
async fn a_call_is_one_line_in_these_bytes_and_its_answer_is_read_from_these() {
    let (line, status, body) = exchange(
        execute("r-1", r#"{"operation":"list","path":"/tmp"}"#),
        "{\"type\":\"execute\",\"request_id\":\"r-1\",\"success\":true,\"data\":{\"files\":[\"a\"]}}\n",
    )
    .await;
    assert_eq!(
        line,
        "{\"type\":\"execute\",\"request_id\":\"r-1\",\"data\":{\"operation\":\"list\",\"path\":\"/tmp\"}}\n"
    );
    assert_eq!((status.as_u16(), &*body), (200, r#"{"files":["a"]}"#));
}

#[tokio::test]
async fn headers_go_into_the_line_and_come_back_from_it() {
    let request = Request::post("/ignored?by=all")
        .header("X-Request-ID", "r-2")
        .header("host", "example.org")
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", "2")
        .header("accept-encoding", "gzip")
        .header("X-Tenant", "seven")
        .header("accept", "text/plain")
        .header("accept", "text/html")
        .header("authorization", "Bearer t")
        .header(
            "x-umlaut",
            HeaderValue::from_bytes("\u{fc}".as_bytes()).unwrap(),
        );
    let peer = Peer::start();
    let reach = peer.reach();
    let plugin = async {
        let mut talk = peer.accept().await;
        let line = talk.line().await;
        let headers = r#"{"X-Cache":"hit","content-length":"7","no name":"x","x-lines":"a\nb"}"#;
        talk.say(&format!(
            "{{\"request_id\":\"r-2\",\"success\":true,\"headers\":{headers},\"later\":[1]}}\n"
        ))
        .await;
        line
    };
    let request = request.body("[]".into()).unwrap();
    let (response, line) = tokio::join!(call(&reach, request), plugin);
    assert_eq!(
        line,
        "{\"type\":\"execute\",\"request_id\":\"r-2\",\"data\":[],\"headers\":{\"accept\":\"text/plain, text/html\",\
         \"authorization\":\"Bearer t\",\"x-tenant\":\"seven\",\"x-umlaut\":\"\u{fc}\"}}\n"
    );
    let response = response.unwrap();
    let mut names: Vec<_> = response
        .headers()
        .keys()
        .map(|name| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "x-cache"]);
    assert_eq!(read(response).await, "null", "no data is nothing");
}

#[tokio::test]
async fn what_is_left_of_the_deadline_is_said_in_milliseconds() {
    let peer = Peer::start();
    let reach = peer.reach();
    let (_, mut talk) = tokio::join!(
        async { call(&reach, execute("r-0", "1")).await.unwrap() },
        async {
            let mut talk = peer.accept().await;
            talk.echo().await;
            talk
        }
    );
    for (left, said) in [(1_500_000, 1_500), (1_999, 1), (1, 1), (0, 1)] {
        // The connection is there: what the call does at once is all in this one moment.
        pause();
        let deadline = Instant::now() + Duration::from_micros(left);
        let mut under_way = reach.call_until(execute("r-1", "1"), Some(deadline));
        let first = poll_fn(|cx| Poll::Ready(under_way.as_mut().poll(cx)));
        assert!(first.await.is_pending());
        resume();
        assert_eq!(
            talk.echo().await,
            format!(
                "{{\"type\":\"execute\",\"request_id\":\"r-1\",\"data\":1,\"timeout_ms\":{said}}}\n"
            )
        );
        crate::support::within(under_way).await.unwrap();
    }
}

#[tokio::test]
async fn health_info_and_ping_are_lines_of_their_own_types() {
    for word in ["health", "info", "ping"] {
        let get = Request::get(format!("/{word}")).header("x-request-id", "r-3");
        let (line, status, body) = exchange(
            get.body(Body::empty()).unwrap(),
            &format!("{{\"type\":\"{word}\",\"request_id\":\"r-3\",\"success\":true,\"data\":{{\"name\":\"files\"}}}}\n"),
        )
        .await;
        assert_eq!(
            line,
            format!("{{\"type\":\"{word}\",\"request_id\":\"r-3\",\"data\":null}}\n")
        );
        assert_eq!((status.as_u16(), &*body), (200, r#"{"name":"files"}"#));
    }
    // Only these: any other call without a body asks for nothing in particular.
    let (line, ..) = exchange(
        Request::get("/healthy")
            .header("x-request-id", "r-3")
            .body(Body::empty())
            .unwrap(),
        "{\"request_id\":\"r-3\",\"success\":true}\n",
    )
    .await;
    assert_eq!(
        line,
        "{\"type\":\"execute\",\"request_id\":\"r-3\",\"data\":null}\n"
    );
}

#[tokio::test]
async fn json_that_stands_in_many_lines_goes_into_one_and_is_else_as_it_was() {
    let (line, _, body) = exchange(
        execute("r-4", "\r\n{\n  \"text\": \"a\\nb\",\n\t\"big\": 1e400, \"a\": 1, \"a\": 2\n}\n"),
        "  {\"request_id\" : \"r-4\",\"success\":true,\"data\": {\"text\":\"a \\u003c b\", \"big\":1e400}  }\r\n",
    )
    .await;
    assert_eq!(
        line,
        "{\"type\":\"execute\",\"request_id\":\"r-4\",\"data\":{   \"text\": \"a\\nb\", \t\"big\": 1e400, \"a\": 1, \"a\": 2 }}\n"
    );
    assert_eq!(body, "{\"text\":\"a \\u003c b\", \"big\":1e400}");
}

#[tokio::test]
async fn an_answer_without_success_is_a_422_with_the_plugins_words() {
    for (said, words) in [
        (r#""success":false,"error":"no such file""#, "no such file"),
        (
            r#""success":false,"data":7,"error":"a \"quote\"""#,
            r#"a \"quote\""#,
        ),
        (r#""error":"no such file""#, "no such file"),
        (r#""success":false"#, "it said no more than that"),
    ] {
        let (_, status, body) = exchange(
            execute("r-5", "1"),
            &format!("{{\"type\":\"execute\",\"request_id\":\"r-5\",{said}}}\n"),
        )
        .await;
        assert_eq!(status, 422);
        assert_eq!(body, format!(r#"{{"error":"{words}","request_id":"r-5"}}"#));
    }
}

#[tokio::test]
async fn a_call_without_an_id_gets_one_of_its_own() {
    let peer = Peer::start();
    let reach = peer.reach();
    let mut ids = Vec::new();
    let mut talk: Option<Talk> = None;
    for _ in 0..3 {
        let request = Request::post("/").body("1".into()).unwrap();
        let (response, line) = tokio::join!(call(&reach, request), async {
            if talk.is_none() {
                talk = Some(peer.accept().await);
            }
            talk.as_mut().unwrap().echo().await
        });
        response.unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        ids.push(line["request_id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| id.len() > 8));
}

#[tokio::test]
async fn what_no_line_can_carry_is_the_callers_error_and_is_not_sent() {
    let peer = Peer::start();
    let reach = peer.reach();
    let latin1 = HeaderValue::from_bytes(b"\xfc").unwrap();
    let latin1 = Request::post("/").header("x-umlaut", latin1);
    for (request, part) in [
        (execute("r", "plain text"), "its body is not the JSON"),
        (execute("r", "1 2"), "its body is not the JSON"),
        (execute("r", "\"a\nb\""), "its body is not the JSON"),
        (
            latin1.body("1".into()).unwrap(),
            "its header x-umlaut is not UTF-8",
        ),
        (
            Request::post("/")
                .body(vec![b'1'; (16 << 20) + 1].into())
                .unwrap(),
            "larger than 16777216 bytes",
        ),
    ] {
        let error = call(&reach, request).await.unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::RequestBroken));
        assert!(chain(&error).contains(part), "{}", chain(&error));
    }
    let (response, line) = tokio::join!(call(&reach, execute("r-6", "7")), async {
        peer.accept().await.echo().await
    });
    response.unwrap();
    assert!(line.contains("r-6"), "it is the first that was sent");
}
