//! How a call ends before its handler does.

use axum::body::Body;
use http::Request;
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_plugins_sdk::router::{Output, Router};

use super::support::{Dropped, read, send, within};

/// A router whose one method never ends, and what is told when it has begun, and has nothing to receive any more when
/// its handlers are dropped.
fn endless() -> (Router, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(8);
    let endless = move || {
        let tell = tell.clone();
        async move {
            let _dropped = Dropped(tell.clone());
            tell.send("begun").await.unwrap();
            std::future::pending::<Output<()>>().await
        }
    };
    (Router::new().method("endless", endless), told)
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_when_the_callers_time_is_up() {
    let (router, mut told) = endless();
    let app = router.into_axum();
    let request = Request::post("/endless").header("grpc-timeout", "2S");
    let begun = tokio::time::Instant::now();
    let (status, body) = read(send(&app, request.body(Body::empty()).unwrap()).await).await;
    assert_eq!(
        (status, body["error"].as_str()),
        (504, Some("the caller's time is up"))
    );
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(told.recv().await, Some("begun"));
    assert_eq!(told.recv().await, Some("dropped"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_too_late_does_not_reach_its_handler() {
    let (router, mut told) = endless();
    let request = Request::post("/endless").header("grpc-timeout", "0S");
    let answer = send(&router.into_axum(), request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 504);
    assert!(told.recv().await.is_none(), "the router is gone");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_ends_with_the_callers_time() {
    let (router, _told) = endless();
    let never = Body::from_stream(futures_util::stream::pending::<
        Result<bytes::Bytes, std::io::Error>,
    >());
    let request = Request::post("/endless").header("grpc-timeout", "1S");
    let response = send(&router.into_axum(), request.body(never).unwrap()).await;
    assert_eq!(response.status(), 504);
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_caller_goes_away() {
    let (router, mut told) = endless();
    let app = router.into_axum();
    let call = app.oneshot(Request::post("/endless").body(Body::empty()).unwrap());
    let call = tokio::spawn(call);
    assert_eq!(within(told.recv()).await, Some("begun"));
    call.abort();
    assert_eq!(within(told.recv()).await, Some("dropped"));
}

#[tokio::test(start_paused = true)]
async fn a_line_whose_time_is_up_is_answered_when_its_caller_has_given_up() {
    let (router, mut told) = endless();
    let mut output = Vec::new();
    let input = &br#"{"id":"r","payload":null,"context":{"timeout":1000000000}}"#[..];
    let begun = tokio::time::Instant::now();
    router.serve_lines(input, &mut output).await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), 1100);
    assert_eq!(told.recv().await, Some("begun"));
    let answer = "{\"id\":\"r\",\"error\":\"the caller's time is up\"}\n";
    assert_eq!(String::from_utf8(output).unwrap(), answer);
}

#[cfg(unix)]
#[tokio::test]
async fn a_handler_is_dropped_when_a_connection_of_lines_or_of_http_closes() {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().unwrap();
    for wire in ["lines", "http"] {
        let (router, mut told) = endless();
        let socket = folder.path().join(wire);
        let listener = UnixListener::bind(&socket).unwrap();
        let asked: &[u8] = if wire == "lines" {
            tokio::spawn(router.serve_unix(listener, std::future::pending()));
            b"{\"type\":\"execute\",\"request_id\":\"r\",\"data\":null}\n"
        } else {
            tokio::spawn(axum::serve(listener, router.into_axum()).into_future());
            b"POST /endless HTTP/1.1\r\nhost: p\r\ncontent-length: 0\r\n\r\n"
        };
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(asked).await.unwrap();
        assert_eq!(within(told.recv()).await, Some("begun"), "{wire}");
        drop(stream);
        assert_eq!(within(told.recv()).await, Some("dropped"), "{wire}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_of_lines_that_stops_answers_what_is_under_way() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lines");
    let listener = UnixListener::bind(&socket).unwrap();
    let (begin, mut begun) = mpsc::channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let slow = move || {
        let begin = begin.clone();
        async move {
            let (goes_on, go_on) = tokio::sync::oneshot::channel();
            begin.send(goes_on).await.unwrap();
            go_on.await.unwrap();
            "done"
        }
    };
    let until = async { drop(stopped.await) };
    let router = Router::new().method("slow", slow);
    let server = tokio::spawn(router.serve_unix(listener, until));
    let mut idle = UnixStream::connect(&socket).await.unwrap();
    let mut busy = UnixStream::connect(&socket).await.unwrap();
    busy.write_all(b"{\"type\":\"execute\",\"request_id\":\"r\",\"data\":null}\n")
        .await
        .unwrap();
    let goes_on = within(begun.recv()).await.unwrap();
    stop.send(()).unwrap();
    assert_eq!(
        within(idle.read(&mut [0])).await.unwrap(),
        0,
        "it is closed at once"
    );
    goes_on.send(()).unwrap();
    let mut answer = String::new();
    within(busy.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("\"data\":\"done\""), "{answer}");
    within(server).await.unwrap().unwrap();
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_server_of_lines_that_stops_waits_no_longer_than_five_seconds_for_who_does_not_read() {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let (called, mut calls) = mpsc::channel(1);
    let router = Router::new().method("much", move || {
        called.try_send(()).unwrap();
        async { "a".repeat(8 << 20) }
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = router.serve_unix(listener, async { drop(stopped.await) });
    let served = tokio::spawn(served);
    let mut peer = UnixStream::connect(folder.path().join("s")).await.unwrap();
    let asked = b"{\"type\":\"execute\",\"request_id\":\"r\",\"data\":null}\n";
    peer.write_all(asked).await.unwrap();
    assert_eq!(within(calls.recv()).await, Some(()));
    drop(stop);
    within(served).await.unwrap().unwrap();
}
