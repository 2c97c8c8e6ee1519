use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_plugins_layers::filter::{
    Change, Decision, FilterBody, FilterLayer, FilterPolicy, Larger,
};
use tower_plugins_layers::test_util::{Answer, Probe, ScriptedBody};
use tower_plugins_layers::{BoxError, CallContext, Principal, Reason};

use crate::support::{is_pending, millis, reason, request, secs, timed};

const OWNER: HeaderName = HeaderName::from_static("x-owner");

type Boxed = UnsyncBoxBody<Bytes, BoxError>;
type Asked = Arc<Mutex<Vec<(http::request::Parts, String)>>>;

/// A filter that answers with `status` and an owner, and writes down what it was asked.
fn gate(
    status: u16,
) -> (
    impl Service<Request<FilterBody>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Asked,
) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let gate = service_fn(move |question: Request<FilterBody>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = question.into_parts();
            let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
            seen.lock().unwrap().push((head, body));
            let answer = Response::builder().status(status);
            Ok(answer.header(OWNER, "ann").body("gate".into())?)
        }
    });
    (gate, asked)
}

/// Says in its body what it was sent.
fn echo()
-> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = BoxError, Future: Send>
+ Clone
+ Sync {
    service_fn(|request: Request<()>| async move {
        let owners: Vec<_> = request.headers().get_all(OWNER).iter().collect();
        Ok(Response::new(
            format!("{} {owners:?}", request.uri()).into(),
        ))
    })
}

async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn get() -> Request<()> {
    Request::get("/things?all")
        .header(OWNER, "a-liar")
        .header(AUTHORIZATION, "Bearer t0ken")
        .header(COOKIE, "a=1")
        .header(COOKIE, "b=2")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn the_filter_sees_method_and_path_and_the_headers_it_may_see() {
    let (gate, asked) = gate(200);
    let layer = FilterLayer::new(FilterPolicy::new().headers([COOKIE]), gate);
    let mut request = get();
    *request.method_mut() = Method::DELETE;
    request.extensions_mut().insert(CallContext::new());
    request.extensions_mut().insert(Principal::new("ann"));
    layer.layer(echo()).oneshot(request).await.unwrap();
    let asked = asked.lock().unwrap();
    let (head, body) = &asked[0];
    assert_eq!(
        (&head.method, head.uri.to_string().as_str()),
        (&Method::DELETE, "/things?all")
    );
    let cookies: Vec<_> = head.headers.iter().map(|(_, value)| value).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(body, "");
    assert!(head.extensions.get::<CallContext>().is_some());
    assert_eq!(head.extensions.get::<Principal>().unwrap().name(), "ann");
}

#[tokio::test]
async fn chosen_headers_of_its_answer_take_the_place_of_the_callers() {
    let (yes, _) = gate(204);
    let layer = FilterLayer::new(FilterPolicy::new().copy_headers([OWNER]), yes);
    let response = layer.layer(echo()).oneshot(get()).await.unwrap();
    assert_eq!(text(response).await, "/things?all [\"ann\"]");
    // Others do not, and the caller's own stay.
    let (yes, _) = gate(200);
    let layer = FilterLayer::new(FilterPolicy::new(), yes);
    let response = layer.layer(echo()).oneshot(get()).await.unwrap();
    assert_eq!(text(response).await, "/things?all [\"a-liar\"]");
}

#[tokio::test]
async fn another_status_is_the_answer_and_the_service_is_not_called() {
    let probe = Probe::new(Answer::Frames);
    let journal = probe.journal();
    for status in [302, 401, 403, 429] {
        let (no, _) = gate(status);
        let service = FilterLayer::new(FilterPolicy::new(), no).layer(probe.clone());
        let response = service.oneshot(get()).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[OWNER], "ann");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "gate");
    }
    assert_eq!(journal.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_cannot_be_asked_refuses_unless_it_fails_open() {
    let (broken, _) = gate(503);
    let failing = service_fn(|_: Request<FilterBody>| async {
        Err::<Response<Full<Bytes>>, BoxError>("away".into())
    });
    let silent = service_fn(|_: Request<FilterBody>| async {
        std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>().await
    });
    let closed = FilterPolicy::new()
        .timeout(millis(200))
        .copy_headers([OWNER]);
    let open = closed.clone().fail_open(true);

    let refused = FilterLayer::new(closed.clone(), broken.clone()).layer(echo());
    assert_eq!(
        reason(refused.oneshot(get()).await),
        Some(Reason::FilterFailed)
    );
    let refused = FilterLayer::new(closed.clone(), failing).layer(echo());
    assert_eq!(
        reason(refused.oneshot(get()).await),
        Some(Reason::FilterFailed)
    );
    let refused = FilterLayer::new(closed, silent).layer(echo());
    let (result, took) = timed(refused.oneshot(get())).await;
    assert_eq!(
        (reason(result), took),
        (Some(Reason::FilterFailed), millis(200))
    );

    // What the caller wrote in the filter's name does not pass even then.
    let passed = FilterLayer::new(open, silent).layer(echo());
    let (result, took) = timed(passed.oneshot(get())).await;
    assert_eq!(
        (text(result.unwrap()).await.as_str(), took),
        ("/things?all []", millis(200))
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_the_question_and_calls_nothing() {
    let filter = Probe::new(Answer::Never);
    let inside = Probe::new(Answer::Frames);
    let (asked, called) = (filter.journal(), inside.journal());
    let mut service = FilterLayer::new(FilterPolicy::new(), filter).layer(inside);
    std::future::poll_fn(|cx| Service::<Request<()>>::poll_ready(&mut service, cx))
        .await
        .unwrap();
    let mut call = service.call(request());
    for _ in 0..5 {
        assert!(is_pending(&mut call).await);
    }
    assert_eq!((asked.under_way(), called.calls()), (1, 0));
    drop(call);
    assert_eq!(asked.under_way(), 0);
}

#[tokio::test]
async fn a_reading_of_ones_own_may_rewrite_answer_or_fail() {
    let decide = |answer: Response<Full<Bytes>>| match answer.status() {
        StatusCode::OK => Decision::Continue(Change {
            uri: Some("/elsewhere".parse().unwrap()),
            remove: vec![OWNER],
            ..Change::default()
        }),
        StatusCode::CREATED => Decision::Answer(answer),
        _ => Decision::Failed("no sense".into()),
    };
    let with = |status| FilterLayer::new(FilterPolicy::new(), gate(status).0).decide(decide);
    let response = with(200).layer(echo()).oneshot(get()).await.unwrap();
    assert_eq!(text(response).await, "/elsewhere []");
    let response = with(201).layer(echo()).oneshot(get()).await.unwrap();
    assert_eq!(text(response).await, "gate");
    let result = with(403).layer(echo()).oneshot(get()).await;
    assert_eq!(reason(result), Some(Reason::FilterFailed));
}

fn post(frames: &'static [&'static str]) -> Request<Boxed> {
    let body = ScriptedBody::frames(frames.iter().copied());
    Request::post("/things").body(body.boxed_unsync()).unwrap()
}

#[tokio::test]
async fn the_filter_sees_as_much_of_a_body_as_it_may_and_the_service_all_of_it() {
    let whole = || {
        service_fn(|request: Request<Boxed>| async {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::new(Full::new(body)))
        })
    };
    let wrap = |body| BodyExt::boxed_unsync(body);
    for (frames, partial, seen) in [
        (&["one", "two"][..], false, "onetwo"),
        (&[], false, ""),
        (&["one", "two", "three"], true, "onetwot"),
        (&["oneandmore", "two"], true, "oneandm"),
    ] {
        let all = frames.concat();
        let (yes, asked) = gate(200);
        let layer = FilterLayer::new(FilterPolicy::new(), yes).send_body(7, Larger::Partial, wrap);
        let response = layer.layer(whole()).oneshot(post(frames)).await.unwrap();
        assert_eq!(text(response).await, all);
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked[0].1, seen);
        assert_eq!(asked[0].0.headers.contains_key("x-partial-body"), partial);

        let (yes, asked) = gate(200);
        let layer = FilterLayer::new(FilterPolicy::new(), yes).send_body(7, Larger::Refuse, wrap);
        let result = layer.layer(whole()).oneshot(post(frames)).await;
        if partial {
            assert_eq!(reason(result), Some(Reason::FilterFailed));
            assert!(asked.lock().unwrap().is_empty());
        } else {
            assert_eq!(text(result.unwrap()).await, all);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_callers_doing() {
    let broken = ScriptedBody::new([Some(Err("gone".into()))]);
    let request = Request::post("/").body(broken.boxed_unsync()).unwrap();
    let wrap = |body| BodyExt::boxed_unsync(body);
    let open = FilterPolicy::new().fail_open(true);
    let layer = FilterLayer::new(open, gate(200).0).send_body(7, Larger::Refuse, wrap);
    let inside = service_fn(|_: Request<Boxed>| async {
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    });
    let result = layer.layer(inside).oneshot(request).await;
    assert_eq!(reason(result), Some(Reason::RequestBroken));
}

#[test]
fn a_policy_is_read_from_text_and_what_makes_no_sense_is_refused() {
    let policy = FilterPolicy::new()
        .headers([COOKIE])
        .copy_headers([OWNER])
        .timeout(secs(2))
        .fail_open(true);
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<FilterPolicy>(&text).unwrap(), policy);
    assert_eq!(
        serde_json::from_str::<FilterPolicy>("{}").unwrap(),
        FilterPolicy::new()
    );
    for wrong in [
        r#"{"headers":["a b"]}"#,
        r#"{"timeout":"0s"}"#,
        r#"{"timeout":1}"#,
        r#"{"open":true}"#,
    ] {
        assert!(
            serde_json::from_str::<FilterPolicy>(wrong).is_err(),
            "{wrong}"
        );
    }
}
