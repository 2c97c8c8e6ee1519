//! What is on the wire.

use super::*;

#[tokio::test]
async fn json_is_written_and_read_in_these_bytes() {
    let served = Served::start("").await;
    served.answers(200, r#" {"allowed": true, "later": 1} "#);
    let verdict = served.check().await.unwrap();
    assert_eq!(verdict, Verdict { allowed: true });
    let seen = served.seen();
    let [seen] = seen.as_slice() else {
        panic!("one request")
    };
    assert_eq!(
        (&seen.method, seen.uri.path()),
        (&HttpMethod::POST, "/v1/check")
    );
    assert_eq!(seen.body, r#"{"token":"t"}"#);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("content-length"), "13");
}

#[tokio::test]
async fn nothing_is_an_empty_body_both_ways() {
    let served = Served::start("").await;
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    let seen = served.seen().pop().unwrap();
    assert_eq!(seen.method, HttpMethod::GET);
    assert_eq!(seen.uri.path_and_query().unwrap(), "/ping?deep=1");
    assert!(seen.body.is_empty());
    assert_eq!(
        (seen.header("content-type"), seen.header("content-length")),
        ("", "")
    );
    served.answers(204, "");
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    served.answers(200, "null");
    within(served.plugin.invoke(&PING, &()).into_future())
        .await
        .unwrap();
    let maybe: Method<(), Option<u32>> = Method::post("/maybe");
    let none = within(served.plugin.invoke(&maybe, &()).into_future())
        .await
        .unwrap();
    assert_eq!(none, None);
    let error = served.check().await.unwrap_err();
    assert!(error.is_codec(), "nothing is no verdict");
}

#[tokio::test]
async fn an_envelope_is_written_and_read_in_these_bytes() {
    let served = Served::start("").await;
    let run = enveloped::<Check, Verdict>();
    served.answers(200, r#"{"data":{"allowed":true},"request_id":"r-1"}"#);
    let call = served
        .plugin
        .invoke(&run, &TOKEN)
        .request_id("r-1")
        .timeout(Duration::from_millis(1_500));
    assert!(within(call.into_future()).await.unwrap().allowed);
    let seen = served.seen().pop().unwrap();
    assert_eq!(
        seen.body,
        r#"{"data":{"token":"t"},"request_id":"r-1","timeout":"1.5s"}"#
    );
    assert_eq!(seen.header("x-request-id"), "r-1");
    assert_eq!(seen.header("content-type"), "application/json");

    served.answers(200, r#"{"error":"no such user","request_id":""}"#);
    let error = within(served.plugin.invoke(&run, &TOKEN).into_future())
        .await
        .unwrap_err();
    assert!(error.is_answer() && error.answered_status().is_none());
    assert!(causes(&error).contains("no such user"));
    assert_eq!(
        served.seen().pop().unwrap().body,
        r#"{"data":{"token":"t"},"request_id":"","timeout":"0s"}"#
    );

    served.answers(200, "{}");
    let nothing = enveloped::<(), ()>();
    within(served.plugin.invoke(&nothing, &()).into_future())
        .await
        .unwrap();
    assert_eq!(
        served.seen().pop().unwrap().body,
        r#"{"data":null,"request_id":"","timeout":"0s"}"#
    );
    served.answers(200, "{}");
    let error = within(served.plugin.invoke(&run, &TOKEN).into_future())
        .await
        .unwrap_err();
    assert!(error.is_codec());
}

#[tokio::test]
async fn a_request_that_cannot_be_made_is_the_callers_error_and_is_not_sent() {
    let served = Served::start("").await;
    let bad = [
        served
            .plugin
            .invoke(&CHECK, &TOKEN)
            .header("no header", "v"),
        served
            .plugin
            .invoke(&CHECK, &TOKEN)
            .header("name", "line\r\nbreak"),
        served
            .plugin
            .invoke(&CHECK, &TOKEN)
            .request_id("line\nbreak"),
        served.plugin.invoke(&CHECK, &TOKEN).idempotency_key("\0"),
    ];
    for call in bad {
        let error = call.await.unwrap_err();
        assert!(error.is_codec());
        assert_eq!((error.http_status().as_u16(), error.grpc_code()), (400, 3));
        assert_eq!((error.blame(), error.plugin()), (Blame::Caller, Some("p")));
    }
    static NO_PATH: Method<(), ()> = Method::get("ping");
    assert!(
        served
            .plugin
            .invoke(&NO_PATH, &())
            .await
            .unwrap_err()
            .is_codec()
    );
    let odd: Method<std::collections::HashMap<Vec<u8>, u8>, ()> = Method::post("/");
    let keyed_by_lists = [(vec![1], 1)].into();
    assert!(
        served
            .plugin
            .invoke(&odd, &keyed_by_lists)
            .await
            .unwrap_err()
            .is_codec()
    );
    assert!(served.seen().is_empty());
}

#[tokio::test]
async fn headers_are_sent_as_they_were_given() {
    let served = Served::start("auth: { method: bearer, token: from-config }").await;
    let call = served
        .plugin
        .invoke(&PING, &())
        .header("x-tenant", "one")
        .header("x-tenant", "two")
        .header(
            http::header::ACCEPT,
            HeaderValue::from_static("application/json"),
        )
        .request_id("first")
        .request_id("r-7");
    within(call.into_future()).await.unwrap();
    let seen = served.seen().pop().unwrap();
    let tenants: Vec<_> = seen.headers.get_all("x-tenant").iter().collect();
    assert_eq!(tenants, ["one", "two"]);
    let ids: Vec<_> = seen.headers.get_all("x-request-id").iter().collect();
    assert_eq!(ids, ["r-7"], "a request has one name");
    assert_eq!(seen.header("accept"), "application/json");
    assert_eq!(seen.header("authorization"), "Bearer from-config");
}

/// A codec of a user's own.
#[derive(Clone, Copy, Debug)]
struct Upper;

impl Codec<str, String> for Upper {
    fn encode(
        &self,
        value: &str,
        request: &mut http::Request<Body>,
        _: Option<Duration>,
    ) -> Result<(), tower_plugins_layers::BoxError> {
        *request.body_mut() = value.to_uppercase().into();
        Ok(())
    }

    fn decode(&self, response: Response<Bytes>) -> Result<String, DecodeError> {
        String::from_utf8(response.into_body().to_vec())
            .map_err(|error| DecodeError::Invalid(error.into()))
    }
}

#[tokio::test]
async fn a_codec_may_be_the_users_own() {
    let served = Served::start("").await;
    served.answers(200, "answer");
    let shout = Method::with_codec(HttpMethod::PUT, "/shout", Upper);
    let answer = within(served.plugin.invoke(&shout, "hey").into_future())
        .await
        .unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(served.seen().pop().unwrap().body, "HEY");
}
