//! What becomes of a call.

use super::*;

#[tokio::test]
async fn a_status_that_is_no_success_is_the_error_with_the_answers_beginning() {
    let served = Served::start("retry: { enabled: false }").await;
    for status in [301, 400, 404, 418, 500, 503] {
        served.answers(status, "it is down: ".repeat(100));
        let error = served.check().await.unwrap_err();
        assert_eq!(error.answered_status().unwrap().as_u16(), status);
        assert!(error.is_answer() && !error.is_retryable() && !error.is_codec());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 2));
        assert_eq!((error.blame(), error.plugin()), (Blame::Plugin, Some("p")));
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        let said = causes(&error);
        assert!(said.contains("it is down") && said.len() < 2_000, "{said}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_cannot_be_decoded() {
    let served = Served::start("").await;
    for answer in ["{", "<html>", r#"{"allowed":"yes"}"#, "{} trailing"] {
        served.answers(200, answer);
        let error = served.check().await.expect_err(answer);
        assert!(error.is_codec() && !error.is_answer());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 13));
        assert_eq!(error.blame(), Blame::Plugin);
    }
}

#[tokio::test]
async fn what_may_be_repeated_is_retried_and_nothing_else() {
    let served = Served::start(QUICK).await;
    let ok = r#"{"allowed":true}"#;
    served.answers(503, "").answers(200, ok);
    let error = served.check().await.unwrap_err();
    assert_eq!(
        error.answered_status(),
        Some(StatusCode::SERVICE_UNAVAILABLE)
    );
    assert_eq!(served.seen().len(), 1, "a POST may have been processed");
    assert!(served.check().await.unwrap().allowed);
    served.seen();

    served.answers(503, "").answers(503, "").answers(200, ok);
    let call = served.plugin.invoke(&CHECK, &TOKEN).idempotency_key("k-1");
    assert!(within(call.into_future()).await.unwrap().allowed);
    let seen = served.seen();
    assert_eq!(seen.len(), 3);
    for seen in &seen {
        assert_eq!(
            (seen.header("idempotency-key"), &seen.body[..]),
            ("k-1", &br#"{"token":"t"}"#[..])
        );
    }

    served.answers(503, "").answers(200, ok);
    assert!(
        within(served.plugin.invoke(&IDEMPOTENT, &TOKEN).into_future())
            .await
            .unwrap()
            .allowed
    );
    assert_eq!(served.seen().len(), 2);
    served.answers(503, "").answers(200, "");
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    assert_eq!(served.seen().len(), 2);
}

#[tokio::test]
async fn the_callers_own_time_bounds_the_whole_call() {
    let served = Served::start("").await;
    let (_frames, silent) = channel();
    served.answers(200, silent);
    let call = served
        .plugin
        .invoke(&CHECK, &TOKEN)
        .timeout(Duration::from_millis(50));
    let error = within(call.into_future()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (504, 4));
    assert_eq!(error.plugin(), Some("p"));
    assert_eq!(served.plugins.active_requests("p"), 0);
    // Time that nobody can count is no limit.
    served.answers(200, r#"{"allowed":true}"#);
    let call = served.plugin.invoke(&CHECK, &TOKEN).timeout(Duration::MAX);
    assert!(within(call.into_future()).await.unwrap().allowed);
}

#[tokio::test]
async fn the_configs_time_holds_if_it_is_shorter() {
    let served = Served::start("connection: { request_timeout: 50ms }").await;
    let (_frames, silent) = channel();
    served.answers(200, silent);
    let call = served
        .plugin
        .invoke(&CHECK, &TOKEN)
        .timeout(Duration::from_secs(3600));
    assert!(within(call.into_future()).await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn no_more_is_read_of_a_response_than_allowed() {
    let served = Served::start("").await;
    let four: Method<(), String> = Method::post("/four");
    served.answers(200, r#""1234""#);
    let call = served.plugin.invoke(&four, &()).max_response(6);
    assert_eq!(within(call.into_future()).await.unwrap(), "1234");
    served.answers(200, r#""1234""#);
    let call = served.plugin.invoke(&four, &()).max_response(5);
    let error = within(call.into_future()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 8));
    // So too if it has no end.
    let (frames, endless) = channel();
    for _ in 0..10 {
        frames.send(crate::support::data("0123456789")).unwrap();
    }
    served.answers(200, endless);
    let call = served.plugin.invoke(&four, &()).max_response(50);
    let error = within(call.into_future()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ResponseTooLarge));
    assert_eq!(served.plugins.active_requests("p"), 0);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_over() {
    let served = Served::start("").await;
    let (frames, silent) = channel();
    served.answers(200, silent);
    let call = served.plugin.invoke(&CHECK, &TOKEN).into_future();
    tokio::select! {
        _ = call => panic!("there is no answer"),
        () = within(async {
            while served.desk.seen.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(served.plugins.active_requests("p"), 1);
        }) => {}
    }
    assert_eq!(served.plugins.active_requests("p"), 0);
    within(frames.closed()).await;
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_named_in_the_error() {
    let served = Served::start("").await;
    let error = served
        .plugins
        .plugin("q")
        .invoke(&CHECK, &TOKEN)
        .await
        .unwrap_err();
    assert!(error.is_not_found() && !error.is_retryable());
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (404, 12));
    assert!(error.to_string().contains("`q`"));
}

#[tokio::test]
async fn a_plugin_that_cannot_be_reached_says_where_it_should_be() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = config(&format!(
        "plugins: {{ p: {{ transport: http, endpoint: \"http://{address}\", {QUICK} }} }}"
    ));
    let plugins = Plugins::builder().start(config).await.unwrap();
    let error = within(plugins.plugin("p").invoke(&CHECK, &TOKEN).into_future())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    assert!(error.is_retryable() && error.blame() == Blame::Plugin);
    assert_eq!((error.http_status().as_u16(), error.grpc_code()), (502, 14));
    let said = causes(&error);
    assert!(
        said.contains(&address.to_string()) && said.contains("plugin `p`"),
        "{said}"
    );
}
