//! No call is answered with what was meant for another.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{pause, resume};
use tower_plugins::Body;
use tower_plugins::transport::Transport;
use tower_plugins_layers::{BoxError, Reason, Unsent};

use super::{Peer, Talk, call, echoed, execute};
use crate::support::{read, within};
use crate::transport::server::chain;

/// What a call fails with that is answered with `said`, and the connection on which it was.
async fn failed(peer: &Peer, limit: Option<u64>, said: &[u8]) -> (BoxError, Talk) {
    let reach = peer.reach_with(|spec| spec.max_response_body = limit);
    let plugin = async {
        let mut talk = peer.accept().await;
        talk.line().await;
        talk.say(std::str::from_utf8(said).unwrap()).await;
        talk
    };
    let (outcome, mut talk) = tokio::join!(call(&reach, execute("r-1", "1")), plugin);
    talk.until_closed().await;
    (outcome.unwrap_err(), talk)
}

#[tokio::test]
async fn an_answer_that_comes_after_the_timeout_is_never_another_calls() {
    let peer = Peer::start();
    let reach = peer.reach();
    let mut late = reach.call(execute("r", "\"late\""));
    let (mut old, line) = tokio::select! {
        outcome = &mut late => panic!("{outcome:?}"),
        old = async {
            let mut talk = peer.accept().await;
            let line = talk.line().await;
            (talk, line)
        } => old,
    };
    pause();
    let cut = tokio::time::timeout(Duration::from_secs(1), late).await;
    resume();
    assert!(cut.is_err());
    // The next call has the same id, and the same shape: nothing but the connection tells them apart.
    let (response, mut new) = tokio::join!(
        async { read(call(&reach, execute("r", "\"next\"")).await.unwrap()).await },
        async {
            old.say(&echoed(&line)).await;
            let mut new = peer.accept().await;
            new.echo().await;
            new
        }
    );
    assert_eq!(response, "\"next\"");
    old.until_closed().await;
    let (response, _) = tokio::join!(call(&reach, execute("r", "3")), new.echo());
    assert_eq!(read(response.unwrap()).await, "3");
}

#[tokio::test]
async fn a_call_that_is_dropped_closes_its_connection_wherever_it_is() {
    let peer = Peer::start();
    let reach = peer.reach_with(|spec| spec.max_connections = 1);
    for answer in ["", "{\"request_id\":\"r\",\"succ"] {
        let mut under_way = reach.call(execute("r", "1"));
        let mut talk = tokio::select! {
            outcome = &mut under_way => panic!("{outcome:?}"),
            talk = async {
                let mut talk = peer.accept().await;
                talk.line().await;
                talk.say(answer).await;
                talk
            } => talk,
        };
        drop(under_way);
        talk.until_closed().await;
    }
    // Its place is free, too.
    let (response, _) = tokio::join!(call(&reach, execute("r", "2")), async {
        peer.accept().await.echo().await
    });
    assert_eq!(read(response.unwrap()).await, "2");
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_and_ends_the_connection() {
    let peer = Peer::start();
    for (said, part) in [
        (
            &b"{\"request_id\":\"r-2\",\"success\":true}\n"[..],
            "the answer to \"r-1\" was one to \"r-2\"",
        ),
        (
            b"{\"success\":true}\n",
            "the answer to \"r-1\" was one to \"\"",
        ),
        (b"\n", "not answer with a line as it should"),
        (
            b"{\"request_id\":\"r-1\",\"success\":tru}\n",
            "not answer with a line as it should",
        ),
        (
            b"{\"request_id\":\"r-1\",\"success\":true} {}\n",
            "not answer with a line as it should",
        ),
        (
            b"{\"request_id\":\"r-1\",\"success\":true,\"data\":{]}\n",
            "not answer with a line as it should",
        ),
        (b"hunter2\n", "not answer with a line as it should"),
    ] {
        let (error, _) = failed(&peer, None, said).await;
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
        let chain = chain(&error);
        assert!(
            chain.contains(part) && chain.contains("unix-json:/"),
            "{chain}"
        );
        assert!(!chain.contains("hunter2"), "what it says may be a secret");
        assert!(
            Unsent::<Body>::recover(error).is_err(),
            "it may have been done"
        );
    }
}

#[tokio::test]
async fn a_line_that_is_longer_than_allowed_is_not_read_to_its_end() {
    let peer = Peer::start();
    let answer = echoed("{\"type\":\"execute\",\"request_id\":\"r-1\",\"data\":\"0123456789\"}");
    let length = answer.len() as u64 - 1;
    for (limit, said) in [
        (length - 1, answer.clone()),
        // It never ends.
        (length, "x".repeat(100_000)),
    ] {
        let (error, _) = failed(&peer, Some(limit), said.as_bytes()).await;
        assert_eq!(Reason::of(&*error), Some(Reason::ResponseTooLarge));
        assert!(
            chain(&error).contains(&format!("{limit} bytes")),
            "{}",
            chain(&error)
        );
    }
    let reach = peer.reach_with(|spec| spec.max_response_body = Some(length));
    let (response, _) = tokio::join!(call(&reach, execute("r-1", "\"0123456789\"")), async {
        peer.accept().await.echo().await
    });
    assert_eq!(read(response.unwrap()).await, "\"0123456789\"");
}

#[tokio::test]
async fn a_large_line_arrives_whole() {
    let peer = Peer::start();
    let reach = peer.reach();
    tokio::spawn(peer.echo());
    let text = format!("\"{}\"", "x".repeat(8 << 20));
    let request = http::Request::post("/").body(text.clone().into()).unwrap();
    let response = call(&reach, request).await.unwrap();
    assert!(read(response).await == text);
}

#[tokio::test]
async fn a_connection_on_which_more_comes_than_was_asked_for_is_not_used_again() {
    let peer = Peer::start();
    let reach = peer.reach();
    // Beside the answer, or when nobody asked.
    for at_once in [true, false] {
        let (response, mut talk) = tokio::join!(call(&reach, execute("r", "1")), async {
            let mut talk = peer.accept().await;
            let line = talk.line().await;
            let more = if at_once {
                echoed(&line)
            } else {
                String::new()
            };
            talk.say(&(echoed(&line) + &more)).await;
            talk
        });
        assert_eq!(read(response.unwrap()).await, "1");
        if !at_once {
            talk.say("{\"request_id\":\"r\",\"success\":true,\"data\":\"stale\"}\n")
                .await;
        }
        let (response, mut fresh) = tokio::join!(call(&reach, execute("r", "2")), async {
            let mut fresh = peer.accept().await;
            fresh.echo().await;
            fresh
        });
        assert_eq!(read(response.unwrap()).await, "2");
        talk.until_closed().await;
        // So that the next round begins without a connection.
        fresh.say("x").await;
    }
}

#[tokio::test]
async fn a_plugin_that_goes_away_under_way_may_have_done_it() {
    let peer = Peer::start();
    let reach = peer.reach();
    for answer in ["", "{\"request_id\":\"r\""] {
        let (outcome, ()) = tokio::join!(call(&reach, execute("r", "1")), async {
            let mut talk = peer.accept().await;
            talk.line().await;
            talk.say(answer).await;
        });
        let error = outcome.unwrap_err();
        assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
        assert!(
            chain(&error).contains("it closed the connection"),
            "{}",
            chain(&error)
        );
        assert!(Unsent::<Body>::recover(error).is_err());
    }
}

#[tokio::test]
async fn a_request_that_was_not_sent_comes_back_as_it_was() {
    let peer = Peer::start();
    let gone = peer.path.clone();
    let reach = peer.reach();
    drop(peer);
    assert!(!gone.with_extension("other").exists());
    let error = call(&reach, execute("r-1", "{\n}")).await.unwrap_err();
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectFailed));
    let (request, _) = Unsent::<Body>::recover(error).unwrap();
    let request = request.unwrap();
    assert_eq!(request.headers()["x-request-id"], "r-1");
    let body: Bytes = within(request.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, "{\n}");
}
