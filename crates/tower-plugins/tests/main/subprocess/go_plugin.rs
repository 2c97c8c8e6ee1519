//! Plugins of go-plugin, past the first line.

use std::time::Duration;

use http_body_util::BodyExt;
use tower_plugins::config::{Address, ConnectionSpec, PluginSpec};
use tower_plugins::transport::subprocess::Exited;
use tower_plugins::transport::{AppVersion, GoPlugin, Transport};
use tower_plugins::{HealthStatus, Reason};
use tower_plugins_proto::go_plugin::tls::Identity;

use super::fake::{Fake, called, start};
use crate::support::{call, causes, get, within};

const PLAIN: &str = "go_plugin: { auto_mtls: false }";

#[tokio::test]
async fn any_request_goes_over_and_the_response_says_the_version() {
    let fake = Fake::new();
    let plugins = fake.start(PLAIN).await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    let response = within(call(&plugins.plugin("p"), get("/hello"))).await;
    let response = response.unwrap();
    assert_eq!(response.extensions().get(), Some(&AppVersion(1)));
}

#[tokio::test]
async fn a_plugin_is_told_to_shut_down_and_then_asked_by_a_signal() {
    let fake = Fake::new();
    let plugins = fake.start(PLAIN).await;
    within(called(&plugins)).await.unwrap();
    within(plugins.shutdown(Duration::from_secs(30)))
        .await
        .unwrap();
    let asked = fake.asked();
    for path in [
        "/plugin.GRPCStdio/StreamStdio",
        "/plugin.GRPCBroker/StartStream",
        "/plugin.GRPCController/Shutdown",
    ] {
        let times = asked.iter().filter(|asked| *asked == path).count();
        assert_eq!(times, 1, "{path} of {asked:?}");
    }
}

#[tokio::test]
async fn a_plugin_without_a_health_service_is_well_as_it_answers() {
    let fake = Fake::new();
    let keys = format!("{PLAIN}, health_check: {{ interval: 10ms }}, start: ready");
    let plugins = within(fake.start(&keys)).await;
    let mut health = plugins.subscribe_health();
    let is_healthy = |report: &tower_plugins::HealthReport| {
        let plugin = report.plugin("p");
        plugin.is_some_and(|plugin| plugin.status == HealthStatus::Healthy)
    };
    within(health.wait_for(is_healthy)).await.unwrap();
    let asked = fake.asked();
    assert!(
        asked.contains(&"/grpc.health.v1.Health/Check".to_owned()),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_connection_that_broke_is_opened_anew_with_the_same_process() {
    let fake = Fake::new();
    let pids = fake.folder().join("pids");
    let script = format!("echo $$ >>'{}'; say; stay", pids.display());
    let plugins = start(&format!("{}, {PLAIN}", fake.keys(&script))).await;
    for _ in 0..3 {
        assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
        fake.cut();
        // The first may meet the end of it.
        let again = async { while called(&plugins).await.is_err() {} };
        within(again).await;
    }
    let started = std::fs::read_to_string(pids).unwrap();
    assert_eq!(started.lines().count(), 1);
}

/// A process of `/bin/sh` whose connections this process holds, and where its id is written.
fn held(fake: &Fake) -> (GoPlugin, std::path::PathBuf) {
    let pid = fake.folder().join("pid");
    let script = format!("echo $$ >'{}'; say; stay", pid.display());
    let keys = fake.keys(&script);
    let read = format!("plugins: {{ p: {{ {keys}, {PLAIN} }} }}");
    let spec = crate::support::config(&read).plugins["p"].clone();
    let plugin = GoPlugin::new("p", "/bin/sh", &spec.upstream).unwrap();
    (plugin, pid)
}

fn kill(pid: &std::path::Path) {
    let pid = std::fs::read_to_string(pid).unwrap();
    super::signal(pid.trim().parse().unwrap(), "-KILL");
}

#[tokio::test]
async fn a_call_ends_with_its_process_whoever_else_holds_the_connection() {
    let fake = Fake::new();
    let (plugin, pid) = held(&fake);
    let killed = async {
        while !fake.asked().contains(&"/hang".to_owned()) {
            tokio::task::yield_now().await;
        }
        kill(&pid);
    };
    let (answer, ()) = within(async { tokio::join!(plugin.call(get("/hang")), killed) }).await;
    let error = answer.unwrap_err();
    assert_eq!(Exited::find(&*error).unwrap().signal(), Some(9));
    assert_eq!(Reason::of(&*error), Some(Reason::ConnectionLost));
}

#[tokio::test]
async fn a_body_ends_with_its_process_and_is_over_then() {
    let fake = Fake::new();
    let (plugin, pid) = held(&fake);
    let mut body = within(plugin.call(get("/endless")))
        .await
        .unwrap()
        .into_body();
    let killed = async { kill(&pid) };
    let (frame, ()) = within(async { tokio::join!(body.frame(), killed) }).await;
    let error = frame.unwrap().unwrap_err();
    assert_eq!(Exited::find(&*error).unwrap().signal(), Some(9));
    assert!(within(body.frame()).await.is_none());
}

#[tokio::test]
async fn who_has_another_certificate_than_the_announced_one_is_not_spoken_to() {
    let (announced, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let fake = Fake::secured(&announced, &announced);
    let plugins = fake.start("").await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");

    let fake = Fake::secured(&announced, &other);
    let plugins = fake.start("process: { restart: never }").await;
    let text = causes(&within(called(&plugins)).await.unwrap_err());
    assert!(text.contains("is not the one that was announced"), "{text}");
    assert_eq!(fake.asked(), [""; 0]);
}

#[tokio::test]
async fn a_certificate_that_was_not_asked_for_is_told_what_to_do_about() {
    let identity = Identity::generate().unwrap();
    let fake = Fake::secured(&identity, &identity);
    let plugins = fake
        .start(&format!("{PLAIN}, process: {{ max_restarts: 1 }}"))
        .await;
    let text = causes(&within(called(&plugins)).await.unwrap_err());
    assert!(text.contains("write go_plugin.auto_mtls: true"), "{text}");
}

#[tokio::test]
async fn a_plugin_that_is_offline_is_started_by_hand() {
    let fake = Fake::new();
    let gate = fake.folder().join("gate");
    let script = format!("[ -e '{}' ] || exit 4; say; stay", gate.display());
    let keys = format!("{PLAIN}, process: {{ max_restarts: 1, restart_window: 1h }}");
    let plugins = start(&format!("{}, {keys}", fake.keys(&script))).await;
    let error = within(called(&plugins)).await.unwrap_err();
    assert_eq!(
        Exited::find(&error).unwrap().code(),
        Some(4),
        "{}",
        causes(&error)
    );
    std::fs::write(gate, "").unwrap();
    let error = within(called(&plugins)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    plugins.revive("p");
    let served = async {
        while called(&plugins).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(served).await;
}

#[tokio::test]
async fn each_instance_is_a_process() {
    let fake = Fake::new();
    let keys = format!(
        "{PLAIN}, process: {{ instances: 3 }}, load_balancing: {{ strategy: round-robin }}"
    );
    let plugins = fake.start(&keys).await;
    for _ in 0..6 {
        within(called(&plugins)).await.unwrap();
    }
    let streams = fake.asked();
    let streams = streams.iter().filter(|path| path.ends_with("/StreamStdio"));
    assert_eq!(streams.count(), 3);
}

#[test]
fn a_plugin_that_is_made_in_code_is_as_one_of_a_file() {
    let made = PluginSpec::subprocess("p", "/usr/bin/p").unwrap();
    let read = "plugins: { p: { transport: subprocess, executable: /usr/bin/p } }";
    let read = crate::support::config(read).plugins["p"].clone();
    assert_eq!(made.upstream.endpoints, read.upstream.endpoints);
    assert_eq!(made.upstream.connection, read.upstream.connection);
    assert_eq!(made.upstream.grpc, read.upstream.grpc);
    assert_ne!(made.upstream.connection, ConnectionSpec::default());
    assert!(Address::subprocess("relative", 1).is_err());
}

#[tokio::test]
async fn the_streams_of_a_connection_that_broke_are_opened_anew() {
    let fake = Fake::new();
    fake.take_streams();
    let plugins = fake.start(PLAIN).await;
    within(called(&plugins)).await.unwrap();
    for times in 1..=2 {
        let opened = async {
            loop {
                let asked = fake.asked();
                let all = ["/StreamStdio", "/StartStream"].iter().all(|stream| {
                    let of = asked.iter().filter(|path| path.ends_with(stream));
                    of.count() == times
                });
                if all {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(opened).await;
        fake.cut();
    }
}

#[tokio::test]
async fn a_process_that_lives_on_without_its_one_socket_is_replaced() {
    let fake = Fake::multiplexed();
    let pids = fake.folder().join("pids");
    let script = format!("echo $$ >>'{}'; say; stay", pids.display());
    let keys = "go_plugin: { auto_mtls: false, multiplex: true }";
    let plugins = start(&format!("{}, {keys}", fake.keys(&script))).await;
    assert_eq!(within(called(&plugins)).await.unwrap(), "/hello");
    fake.cut();
    let started = || {
        let pids = std::fs::read_to_string(&pids).unwrap();
        let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
        pids
    };
    let replaced = async {
        while started().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(replaced).await;
    super::until_gone(started()[0]).await;
}
