use http::StatusCode;
use serde_json::json;
use tower_plugins::{Body, Reason};

use super::{ask, asked, pid, start, until_gone};
use crate::support::{call, causes, post, read};

/// Answers with the line itself.
const LINE: &str = "
for line in sys.stdin:
    print(json.dumps({'id': json.loads(line)['id'], 'result': line}), flush=True)
";

#[tokio::test]
async fn a_call_is_a_line_of_these_bytes() {
    let plugins = start(LINE, "connection: { request_timeout: off }").await;
    let request = http::Request::post("/anything")
        .header("x-request-id", "r-1")
        .header("X-Tenant", "seven")
        .header("content-type", "application/json")
        .body(Body::from("{\"a\":\n1}"))
        .unwrap();
    let response = call(&plugins.plugin("p"), request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let line: String = serde_json::from_slice(&read(response).await).unwrap();
    assert_eq!(
        line,
        "{\"id\":\"r-1\",\"method\":\"execute\",\"payload\":{\"a\": 1},\"context\":{\"request_id\":\"r-1\",\
         \"timeout\":0,\"max_retries\":0,\"headers\":{\"x-tenant\":\"seven\"}}}\n"
    );
}

#[tokio::test]
async fn the_plugin_is_told_how_long_the_caller_waits() {
    let plugins = start(LINE, "connection: { request_timeout: 20s }").await;
    let line = ask(&plugins, "null").await.unwrap();
    let line: serde_json::Value = serde_json::from_str(line.as_str().unwrap()).unwrap();
    let timeout = line["context"]["timeout"].as_u64().unwrap();
    assert!(
        (1_000_000_000..=20_000_000_000).contains(&timeout),
        "{timeout}"
    );
}

#[tokio::test]
async fn what_the_plugin_says_went_wrong_is_a_422_with_or_without_an_id() {
    let code = "
for line in sys.stdin:
    asked = json.loads(line)
    answer = {'error': 'no such ' + asked['payload']}
    if asked['payload'] == 'page':
        answer['id'] = asked['id']
    print(json.dumps(answer), flush=True)
";
    let plugins = start(code, "").await;
    for what in ["page", "book"] {
        let body = match what {
            "page" => "\"page\"",
            _ => "\"book\"",
        };
        let response = call(&plugins.plugin("p"), post("/", body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let body: serde_json::Value = serde_json::from_slice(&read(response).await).unwrap();
        assert_eq!(body["error"], format!("no such {what}"));
    }
}

#[tokio::test]
async fn an_answer_that_came_too_late_is_nobodys() {
    let code = "
def answer(asked):
    if asked == 'slow':
        time.sleep(0.4)
    return [asked, os.getpid()]
serve(answer)
";
    let plugins = start(code, "connection: { request_timeout: 10s }").await;
    let first = ask(&plugins, "\"first\"").await.unwrap();
    let plugin = plugins.plugin("p");
    let cut = tokio::time::timeout(
        std::time::Duration::from_millis(100),
        asked(&plugin, "\"slow\""),
    );
    assert!(cut.await.is_err());
    let next = ask(&plugins, "\"next\"").await.unwrap();
    assert_eq!(next[0], json!("next"));
    assert_ne!(next[1], first[1], "a process that is out of step is killed");
    until_gone(u32::try_from(first[1].as_u64().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn what_is_no_answer_fails_the_call_and_ends_the_process() {
    for (code, why) in [
        ("print('hello', flush=True)", "wrong at byte"),
        (
            "print('{\"id\":\"other\",\"result\":1}', flush=True)",
            "out of step",
        ),
        ("print('x' * 2000, flush=True)", "longer than 1000 bytes"),
    ] {
        let code = format!(
            "
for line in sys.stdin:
    asked = json.loads(line)
    if asked['payload']:
        {code}
    else:
        print(json.dumps({{'id': asked['id'], 'result': os.getpid()}}), flush=True)
"
        );
        let plugins = start(&code, "connection: { max_response_body: 1000 }").await;
        let first = pid(&plugins).await;
        let error = ask(&plugins, "true").await.unwrap_err();
        assert!(causes(&error).contains(why), "{}", causes(&error));
        assert_ne!(pid(&plugins).await, first);
    }
}

#[tokio::test]
async fn calls_take_turns_and_wait_no_longer_than_connection_timeout() {
    let code = "
def answer(asked):
    time.sleep(asked)
    return asked
serve(answer)
";
    let plugins = start(code, "connection: { connection_timeout: 300ms }").await;
    assert_eq!(ask(&plugins, "0").await.unwrap(), 0);
    let (slow, waits) = tokio::join!(ask(&plugins, "1"), ask(&plugins, "0"));
    assert_eq!(slow.unwrap(), 1);
    assert_eq!(waits.unwrap_err().reason(), Some(Reason::PoolExhausted));
}
