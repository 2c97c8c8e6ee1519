//! Calls both ways.

mod left;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};
use tonic::{Code, Request, Response, Status};
use tower_plugins::config::{Config, Format};
use tower_plugins::session::{Callbacks, Offer, Session, SessionError};
use tower_plugins::transport::subprocess::Exited;
use tower_plugins::{Plugins, Reason};
use tower_plugins_interop::peer::adder_client::AdderClient;
use tower_plugins_interop::peer::adder_server::{Adder, AdderServer};
use tower_plugins_interop::peer::peer_client::PeerClient;
use tower_plugins_interop::peer::{AddRequest, CountRequest, Empty, Number};
use tower_plugins_interop::{Version, go};

use super::refusals::causes;
use super::{BOUND, keys, start, within};
use crate::sdk::PLUGIN;
use crate::sdk::trust::authority;
use crate::support::{MODES, Mode};

/// What the plugin is offered.
#[derive(Clone, Default)]
pub(super) struct Adds {
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Adder for Adds {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<Number>, Status> {
        self.calls.fetch_add(1, SeqCst);
        let AddRequest { left, right } = request.into_inner();
        Ok(Response::new(Number {
            value: left + right,
        }))
    }
}

/// One of the plugin `p`.
async fn session(plugins: &Plugins) -> Session {
    within(plugins.plugin("p").session()).await.unwrap()
}

fn peer(session: &Session) -> PeerClient<Session> {
    PeerClient::new(session.clone())
}

/// What the plugin's counter is when `amount` was added by what it is offered.
async fn count(session: &Session, offer: &Offer, amount: i64) -> Result<i64, Status> {
    let add_server = offer.id();
    let request = CountRequest { add_server, amount };
    let total = within(peer(session).count(request)).await?;
    Ok(total.into_inner().value)
}

/// What something that the plugin offers makes of both.
async fn added(session: &Session, left: i64, right: i64) -> i64 {
    let offered = within(peer(session).offer(Empty {})).await.unwrap();
    let channel = within(session.connect(offered.into_inner().id)).await;
    let mut adder = AdderClient::new(channel.unwrap());
    let sum = within(adder.add(AddRequest { left, right })).await;
    sum.unwrap().into_inner().value
}

async fn pid(session: &Session) -> i32 {
    let said = within(peer(session).describe(Empty {})).await;
    said.unwrap().into_inner().pid
}

fn kill(pid: i32) {
    let killed = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

fn exited<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a Exited {
    Exited::find(error).unwrap_or_else(|| panic!("{error:?}"))
}

/// Our host with a plugin of `version`, in each mode whose broker works.
async fn calls_both_ways(version: Version) {
    let Some(program) = go(version) else { return };
    for mode in MODES {
        if mode.is_of(version) && mode.has_broker(version) {
            call_each_other(&program, mode).await;
        }
    }
}

/// Has the two sides of `session`, which is said to be `at`, call each other.
pub(super) async fn both_ways(session: &Session, at: &str) {
    let adds = Adds::default();
    let mut total = 0;
    for amount in 1..=8 {
        let offer = session.serve(AdderServer::new(adds.clone())).await.unwrap();
        total += amount;
        let counted = count(session, &offer, amount).await.unwrap();
        assert_eq!(counted, total, "{at}");
        assert_eq!(added(session, 40, amount).await, 40 + amount, "{at}");
    }
    assert_eq!(adds.calls.load(SeqCst), 8, "{at}");
}

async fn call_each_other(program: &Path, mode: Mode) {
    let at = format!("{} {mode:?}", program.display());
    let plugins = start(&format!("{}, {}", keys(program, &[]), mode.key())).await;
    both_ways(&session(&plugins).await, &at).await;
    within(plugins.shutdown(BOUND)).await.unwrap();
}

#[tokio::test]
async fn host_and_plugin_of_our_sdk_call_each_other() {
    for mode in MODES {
        call_each_other(Path::new(PLUGIN), mode).await;
    }
}

#[tokio::test]
async fn host_and_plugin_of_1_0_1_call_each_other() {
    calls_both_ways(Version::V1_0_1).await;
}

#[tokio::test]
async fn host_and_plugin_of_1_4_10_call_each_other() {
    calls_both_ways(Version::V1_4_10).await;
}

#[tokio::test]
async fn host_and_plugin_of_1_6_3_call_each_other() {
    calls_both_ways(Version::V1_6_3).await;
}

#[tokio::test]
async fn host_and_plugin_of_1_8_0_call_each_other() {
    calls_both_ways(Version::V1_8_0).await;
}

#[tokio::test]
async fn host_and_plugin_with_certificates_of_the_config_call_each_other() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let own = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("host.key"), own).unwrap();
    let files = folder.path().display().to_string();
    let keys = keys(&program, &["-tls", &files]);
    let tls = format!(
        "tls: {{ ca_file: '{files}/ca.crt', cert_file: '{files}/host.crt', key_file: '{files}/host.key' }}"
    );
    for multiplex in [false, true] {
        let go_plugin = format!("go_plugin: {{ multiplex: {multiplex} }}");
        let plugins = start(&format!("{keys}, {tls}, {go_plugin}")).await;
        let session = session(&plugins).await;
        let offer = session.serve(AdderServer::new(Adds::default())).await;
        let counted = count(&session, &offer.unwrap(), 3).await.unwrap();
        assert_eq!((counted, added(&session, 1, 2).await), (3, 3));
    }
}

/// The newest plugin, in `mode`, with more keys.
async fn newest(mode: Mode, more: &str) -> Option<Plugins> {
    let program = go(Version::V1_8_0)?;
    let keys = keys(&program, &[]);
    Some(start(&format!("{keys}, {}, {more}", mode.key())).await)
}

const DEFAULT: Mode = Mode {
    auto_mtls: true,
    multiplexed: false,
};

#[tokio::test]
async fn a_stream_goes_on_both_ways_while_each_side_calls_the_other() {
    for mode in MODES {
        let Some(plugins) = newest(mode, "").await else {
            return;
        };
        let session = session(&plugins).await;
        let (numbers, mut sent) = mpsc::channel(1);
        let sent = stream::poll_fn(move |context| sent.poll_recv(context));
        let mut peer = peer(&session);
        let doubles = peer.doubles(sent);
        let (doubles, ()) = tokio::join!(within(doubles), async {
            numbers.send(Number { value: 0 }).await.unwrap();
        });
        let mut doubles = doubles.unwrap().into_inner();
        let mut total = 0;
        for value in 1..=20 {
            assert_eq!(
                within(doubles.next()).await.unwrap().unwrap().value,
                2 * (value - 1)
            );
            let offer = session.serve(AdderServer::new(Adds::default())).await;
            let offer = offer.unwrap();
            total += value;
            let both =
                async { tokio::join!(count(&session, &offer, value), added(&session, value, 1)) };
            let (counted, sum) = both.await;
            assert_eq!((counted.unwrap(), sum), (total, value + 1));
            numbers.send(Number { value }).await.unwrap();
        }
    }
}

#[tokio::test]
async fn closures_are_called_back() {
    let Some(plugins) = newest(DEFAULT, "").await else {
        return;
    };
    let session = session(&plugins).await;
    let mut asked = Vec::new();
    let callbacks = Callbacks::new().unary("/peer.v1.Adder/Add", move |request: AddRequest| {
        asked.push(request.right);
        let value = asked.iter().sum();
        async move {
            match value {
                0..100 => Ok(Number { value }),
                _ => Err(Status::out_of_range("too much")),
            }
        }
    });
    for (amount, total) in [(3, 3), (4, 7), (90, 97)] {
        let offer = session.serve(callbacks.clone()).await.unwrap();
        assert_eq!(count(&session, &offer, amount).await.unwrap(), total);
    }
    let offer = session.serve(callbacks.clone()).await.unwrap();
    let refused = count(&session, &offer, 3).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::OutOfRange, "too much")
    );
    let offer = session.serve(Callbacks::new()).await.unwrap();
    let refused = count(&session, &offer, 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_callback_that_panics_or_fails_is_an_error_of_that_call() {
    let Some(plugins) = newest(DEFAULT, "").await else {
        return;
    };
    let session = session(&plugins).await;
    let panics = Callbacks::new().unary("/peer.v1.Adder/Add", |_: AddRequest| async {
        panic!("out of cheese");
        #[expect(unreachable_code)]
        Ok(Number::default())
    });
    let offer = session.serve(panics).await.unwrap();
    let failed = count(&session, &offer, 1).await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    let fails = tower::service_fn(|_: http::Request<tower_plugins::Body>| async {
        Err::<http::Response<tower_plugins::Body>, _>("no")
    });
    let offer = session.serve(fails).await.unwrap();
    assert!(count(&session, &offer, 1).await.is_err());
    // Nothing else came of it.
    let offer = session.serve(AdderServer::new(Adds::default())).await;
    assert_eq!(count(&session, &offer.unwrap(), 1).await.unwrap(), 1);
}

#[tokio::test]
async fn who_knows_an_id_beforehand_is_offered_that_and_once() {
    let Some(plugins) = newest(DEFAULT, "").await else {
        return;
    };
    let session = session(&plugins).await;
    let adds = AdderServer::new(Adds::default());
    let offer = session.serve_as(1_000, adds.clone()).await.unwrap();
    assert_eq!(offer.id(), 1_000);
    let twice = session.serve_as(1_000, adds.clone()).await.unwrap_err();
    assert!(matches!(twice, SessionError::Link(_)), "{twice}");
    assert_eq!(count(&session, &offer, 1).await.unwrap(), 1);
    within(offer.finish()).await;
    let again = session.serve_as(1_000, adds).await.unwrap();
    assert_eq!(count(&session, &again, 1).await.unwrap(), 2);
}

/// A callback that says when it began, and waits; and whether it was dropped.
fn waits() -> (Callbacks, Arc<Notify>, Arc<Notify>, Arc<Notify>) {
    struct Dropped(Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let [begun, go_on, dropped] = [(); 3].map(|()| Arc::new(Notify::new()));
    let (begins, goes_on, drops) = (begun.clone(), go_on.clone(), dropped.clone());
    let callbacks = Callbacks::new().unary("/peer.v1.Adder/Add", move |request: AddRequest| {
        let (begins, goes_on) = (begins.clone(), goes_on.clone());
        let dropped = Dropped(drops.clone());
        async move {
            let _dropped = dropped;
            begins.notify_one();
            goes_on.notified().await;
            let value = request.left + request.right;
            Ok(Number { value })
        }
    });
    (callbacks, begun, go_on, dropped)
}

#[tokio::test]
async fn a_callback_under_way_ends_when_its_plugin_dies_and_a_new_session_reaches_the_next() {
    for mode in MODES {
        let Some(plugins) = newest(mode, "").await else {
            return;
        };
        let session = session(&plugins).await;
        let (callbacks, begun, _, dropped) = waits();
        let mut offer = session.serve(callbacks).await.unwrap();
        let offered = within(peer(&session).offer(Empty {})).await.unwrap();
        let channel = session.connect(offered.into_inner().id).await.unwrap();
        let pid = pid(&session).await;
        let (counted, ()) = tokio::join!(count(&session, &offer, 1), async {
            within(begun.notified()).await;
            kill(pid);
            within(dropped.notified()).await;
        });
        let lost = counted.unwrap_err();
        assert_eq!(exited(&lost).signal(), Some(9));
        within(offer.ended()).await;
        assert_eq!(within(session.ended()).await.signal(), Some(9));

        // All that is of this session says so.
        let error = count(&session, &offer, 1).await.unwrap_err();
        assert_eq!(exited(&error).signal(), Some(9));
        assert!(causes(&error).contains("begin a new one"), "{error:?}");
        let adds = AdderServer::new(Adds::default());
        for ended in [
            within(session.serve(adds.clone())).await.map(drop),
            within(session.connect(7)).await.map(drop),
        ] {
            let ended = ended.unwrap_err();
            assert!(matches!(ended, SessionError::Ended(_)), "{ended}");
        }
        let request = AddRequest { left: 1, right: 2 };
        let error = within(AdderClient::new(channel).add(request)).await;
        assert_eq!(exited(&error.unwrap_err()).signal(), Some(9));

        let next = self::session(&plugins).await;
        let offer = next.serve(adds).await.unwrap();
        assert_eq!(count(&next, &offer, 1).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_dropped_offer_drops_its_calls_and_one_that_is_finished_waits_for_them() {
    let Some(plugins) = newest(DEFAULT, "").await else {
        return;
    };
    let session = session(&plugins).await;
    let (callbacks, begun, go_on, dropped) = waits();
    let offer = session.serve(callbacks.clone()).await.unwrap();
    let id = offer.id();
    let call = |add_server| {
        let request = CountRequest {
            add_server,
            amount: 5,
        };
        let mut peer = peer(&session);
        async move { within(peer.count(request)).await }
    };
    let (counted, ()) = tokio::join!(call(id), async {
        within(begun.notified()).await;
        drop(offer);
        within(dropped.notified()).await;
    });
    assert!(counted.is_err());

    let offer = session.serve(callbacks).await.unwrap();
    let id = offer.id();
    let (counted, ()) = tokio::join!(call(id), async {
        within(begun.notified()).await;
        let finish = offer.finish();
        go_on.notify_one();
        within(finish).await;
    });
    assert_eq!(counted.unwrap().into_inner().value, 5);
}

#[tokio::test]
async fn a_session_goes_to_one_of_several_processes_and_to_no_other() {
    let Some(plugins) = newest(DEFAULT, "process: { instances: 3 }").await else {
        return;
    };
    let [one, other] = [session(&plugins).await, session(&plugins).await];
    for session in [&one, &other] {
        let mut pids = HashSet::new();
        for _ in 0..20 {
            pids.insert(pid(session).await);
        }
        assert_eq!(pids.len(), 1);
    }
    let first = pid(&one).await;
    kill(first);
    assert_eq!(within(one.ended()).await.signal(), Some(9));
    let error = within(peer(&one).describe(Empty {})).await.unwrap_err();
    assert_eq!(exited(&error).signal(), Some(9));
}

#[tokio::test]
async fn calls_of_a_session_are_not_split_off_to_another_plugin() {
    let Some(program) = go(Version::V1_8_0) else {
        return;
    };
    let says_no = tower::service_fn(|_: http::Request<tower_plugins::Body>| async {
        Err::<http::Response<tower_plugins::Body>, _>("no")
    });
    let keys = keys(&program, &[]);
    let config = format!(
        "plugins: {{ p: {{ {keys}, split: {{ to: q, percent: 100 }} }}, q: {{ transport: in-process, endpoint: s }} }}"
    );
    let config = Config::parse(&config, Format::Yaml).unwrap();
    let builder = Plugins::builder().service("s", says_no);
    let plugins = builder.start(config).await.unwrap();
    assert!(super::doubled(&plugins, 1).await.is_err());
    let session = session(&plugins).await;
    assert!(pid(&session).await > 0);
}

#[tokio::test]
async fn what_is_offered_keeps_its_process_from_being_idle() {
    let Some(plugins) = newest(DEFAULT, "process: { idle_timeout: 50ms }").await else {
        return;
    };
    let session = session(&plugins).await;
    let offer = session.serve(AdderServer::new(Adds::default())).await;
    let offer = offer.unwrap();
    let idle = session.ended();
    let kept = tokio::time::timeout(std::time::Duration::from_millis(500), idle).await;
    assert!(kept.is_err(), "it was stopped");
    assert_eq!(count(&session, &offer, 1).await.unwrap(), 1);
    drop(offer);
    within(session.ended()).await;
}

#[tokio::test]
async fn what_is_no_process_has_no_session() {
    let service = tower::service_fn(|_: http::Request<tower_plugins::Body>| async {
        Ok::<_, std::io::Error>(http::Response::new(tower_plugins::Body::empty()))
    });
    let builder = Plugins::builder().service("s", service);
    let plugins = super::start_with(builder, "transport: in-process, endpoint: s").await;
    let error = plugins.plugin("p").session().await.unwrap_err();
    assert!(matches!(error, SessionError::NoProcess(_)), "{error}");
    let error = plugins.plugin("q").session().await.unwrap_err();
    let SessionError::Plugin(error) = error else {
        panic!("{error}");
    };
    assert!(error.is_not_found());

    let plugins = start("transport: subprocess, executable: /nowhere").await;
    let error = plugins.plugin("p").session().await.unwrap_err();
    let SessionError::Plugin(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
}
