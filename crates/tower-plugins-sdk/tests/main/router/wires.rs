//! One router, called by a real host over each wire.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tower_plugins::call::{Codec, Envelope, Json, Method};
use tower_plugins::config::{Config, Format};
use tower_plugins::{Error, Plugin as Called, Plugins};
use tower_plugins_sdk::Plugin;

use super::support::{router, within};

static VERSION: Method<(), String> = Method::get("/version");

/// A call, and what it comes to.
struct Case {
    method: &'static str,
    input: Value,
    outcome: Result<Value, Failure>,
}

/// A failure, as each wire tells it.
struct Failure {
    text: &'static str,
    status: u16,
    code: i32,
    /// Whether a handler has decided on it, for good: an envelope has it then.
    is_verdict: bool,
}

fn cases() -> Vec<Case> {
    let fails = |text, status, code: tonic::Code, is_verdict| {
        Err(Failure {
            text,
            status,
            code: code as i32,
            is_verdict,
        })
    };
    let case = |method, input, outcome| Case {
        method,
        input,
        outcome,
    };
    use tonic::Code;
    vec![
        case(
            "/divide",
            json!({ "dividend": 42, "divisor": 2 }),
            Ok(json!(21)),
        ),
        case("/version", json!(null), Ok(json!("1.2"))),
        case("/cached", json!(null), Ok(json!(7))),
        case(
            "/whoami",
            json!(null),
            Ok(json!({ "desk": "front", "request_id": "r-1", "tenant": "seven", "hurried": true })),
        ),
        case(
            "/divide",
            json!({ "dividend": 1, "divisor": 0 }),
            fails("division by zero", 400, Code::InvalidArgument, true),
        ),
        case(
            "/parse",
            json!("seven"),
            fails("invalid digit found in string", 500, Code::Internal, true),
        ),
        case(
            "/divide",
            json!({ "dividend": "one" }),
            fails(
                "the request is not what this method takes",
                400,
                Code::InvalidArgument,
                false,
            ),
        ),
        case(
            "/busy",
            json!(null),
            fails("not now", 503, Code::Unavailable, false),
        ),
        case(
            "/panic",
            json!(null),
            fails("the handler of panic panicked", 500, Code::Internal, false),
        ),
        case(
            "/divid",
            json!(null),
            fails(
                "there is no method divid: the nearest is divide",
                404,
                Code::Unimplemented,
                false,
            ),
        ),
    ]
}

/// How a wire tells failures.
#[derive(Clone, Copy, PartialEq)]
enum Tells {
    /// By the status of HTTP, and a body of JSON.
    Status,
    /// By an envelope, or by the status.
    Envelope,
    /// By gRPC's status.
    Code,
    /// By a line without a result.
    Line,
    /// By a line, which the host puts into an envelope.
    EnvelopedLine,
}

async fn called<C>(plugin: &Called, case: &Case, codec: C) -> Result<Value, Error>
where
    C: Codec<Value, Value> + Sync,
{
    let method = Method::with_codec(http::Method::POST, case.method, codec);
    let call = plugin
        .invoke(&method, &case.input)
        .request_id("r-1")
        .header("x-tenant", "seven")
        .timeout(Duration::from_secs(30));
    // What has no path names its method so.
    let call = call.header("x-operation", case.method.trim_start_matches('/'));
    within(call.into_future()).await
}

fn check(wire: &str, tells: Tells, case: &Case, outcome: Result<Value, Error>) {
    let what = format!("{wire}: {} of {}", case.method, case.input);
    let (expected, error) = match (&case.outcome, outcome) {
        (Ok(expected), Ok(answer)) => return assert_eq!(&answer, expected, "{what}"),
        (Err(expected), Err(error)) => (expected, error),
        (_, outcome) => panic!("{what}: {outcome:?}"),
    };
    let text = causes(&error);
    let status = error.answered_status().map(|status| status.as_u16());
    match tells {
        Tells::Code => assert_eq!(error.answered_code(), Some(expected.code), "{what}"),
        Tells::Line => assert_eq!(status, Some(422), "{what}: {text}"),
        Tells::EnvelopedLine => assert_eq!(status, None, "{what}: {text}"),
        Tells::Envelope if expected.is_verdict => assert_eq!(status, None, "{what}: {text}"),
        Tells::Status | Tells::Envelope => {
            assert_eq!(status, Some(expected.status), "{what}: {text}");
        }
    }
    assert!(text.contains(expected.text), "{what}: {text}");
    assert!(!text.contains("a secret"), "{what}: {text}");
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A shell that has this very program be the plugin that is the test `child`: what the harness writes goes to standard
/// error, and the descriptor 3 is the standard output.
#[cfg(unix)]
fn process(transport: &str, child: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let shell =
        format!("exec \"$0\" --exact router::wires::{child} --ignored --nocapture 3>&1 1>&2");
    let args = json!(["-c", shell, program]);
    format!("transport: {transport}, executable: /bin/sh, args: {args}")
}

#[cfg(unix)]
fn standard_output() -> std::fs::File {
    let output = std::fs::OpenOptions::new().write(true).open("/dev/fd/3");
    output.unwrap()
}

#[cfg(unix)]
#[tokio::test]
#[ignore = "the child of another test"]
async fn a_plugin_on_standard_streams() {
    let output = tokio::fs::File::from_std(standard_output());
    router()
        .serve_lines(tokio::io::stdin(), output)
        .await
        .unwrap();
}

#[cfg(unix)]
#[tokio::test]
#[ignore = "the child of another test"]
async fn a_plugin_of_go_plugins_protocol() {
    rustix::stdio::dup2_stdout(standard_output()).unwrap();
    let plugin = Plugin::new("desk", "1.2.0").router(router());
    plugin.serve().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn one_router_answers_the_same_over_every_wire() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (unix, lines) = (
        UnixListener::bind(at("http")).unwrap(),
        UnixListener::bind(at("lines")).unwrap(),
    );
    let app = router().into_axum();
    let plugin = || Plugin::new("desk", "1.2.0").router(router());
    tokio::spawn(plugin().serve_on(tcp));
    tokio::spawn(plugin().serve_on(unix));
    tokio::spawn(router().serve_unix(lines, std::future::pending()));

    let json = Tells::Status;
    let wires = [
        (
            format!(
                "transport: http, endpoint: 'http://{address}', connection: {{ timeout_header: x-timeout }}"
            ),
            json,
            Tells::Envelope,
        ),
        (
            format!(
                "transport: http, endpoint: 'http://{address}', connection: {{ protocol: http2, timeout_header: x-timeout }}"
            ),
            json,
            Tells::Envelope,
        ),
        (
            format!(
                "transport: unix, endpoint: '{}', connection: {{ timeout_header: x-timeout }}",
                at("http").display()
            ),
            json,
            Tells::Envelope,
        ),
        (
            "transport: in-process, endpoint: desk, connection: { timeout_header: x-timeout }"
                .to_owned(),
            json,
            Tells::Envelope,
        ),
        (
            format!("transport: grpc, endpoint: '{address}'"),
            Tells::Code,
            Tells::Code,
        ),
        (
            format!("transport: grpc, endpoint: '{address}', grpc: {{ compression: gzip }}"),
            Tells::Code,
            Tells::Code,
        ),
        (
            format!(
                "transport: unix-json, endpoint: '{}'",
                at("lines").display()
            ),
            Tells::Line,
            Tells::EnvelopedLine,
        ),
        (
            process("exec-json", "a_plugin_on_standard_streams"),
            Tells::Line,
            Tells::EnvelopedLine,
        ),
        (
            process("subprocess", "a_plugin_of_go_plugins_protocol"),
            Tells::Code,
            Tells::Code,
        ),
    ];
    for (wire, plain, enveloped) in wires {
        let yaml = format!("plugins: {{ p: {{ retry: off, circuit_breaker: off, {wire} }} }}");
        let config = Config::parse(&yaml, Format::Yaml).unwrap();
        let plugins = Plugins::builder().service("desk", app.clone());
        let plugins = plugins.start(config).await.unwrap();
        let plugin = plugins.plugin("p");
        for case in cases() {
            check(&wire, plain, &case, called(&plugin, &case, Json).await);
            let outcome = called(&plugin, &case, Envelope).await;
            check(&format!("{wire}, enveloped"), enveloped, &case, outcome);
        }
        plugins.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_host_gets_what_may_be_repeated_and_learns_what_the_plugin_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lines");
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let lines = UnixListener::bind(&socket).unwrap();
    tokio::spawn(Plugin::new("desk", "1.2.0").router(router()).serve_on(tcp));
    tokio::spawn(router().serve_unix(lines, std::future::pending()));
    let yaml = format!(
        "plugins:
  http: {{ transport: http, endpoint: 'http://{address}' }}
  grpc: {{ transport: grpc, endpoint: '{address}' }}
  lines: {{ transport: unix-json, endpoint: '{}' }}",
        socket.display()
    );
    let config = Config::parse(&yaml, Format::Yaml).unwrap();
    let plugins = Plugins::builder().start(config).await.unwrap();
    for name in ["http", "grpc", "lines"] {
        let plugin = plugins.plugin(name);
        let version = plugin
            .invoke(&VERSION, &())
            .header("x-operation", "version");
        assert_eq!(
            within(version.into_future()).await.unwrap(),
            "1.2",
            "{name}"
        );
        let info = within(plugin.info()).await.unwrap();
        assert_eq!(info.name, "desk", "{name}");
        assert_eq!(info.version.as_deref(), Some("1.2.0"), "{name}");
        let methods = [
            "busy", "cached", "divide", "panic", "parse", "version", "whoami",
        ];
        assert_eq!(info.capabilities, methods, "{name}");
    }
}
