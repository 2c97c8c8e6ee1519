//! `split` and `shadow`: calls, or copies of them, that go to another plugin.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use tower_plugins::{Body, Plugins, Reason};

use super::stage::Answer::{Never, Status};
use super::stage::{SECOND, Stage};
use crate::support::{causes, channel, config, data, get, post, read};

/// `p` with further keys, and `other` and `third` beside it.
async fn stage(keys: &str) -> Stage {
    Stage::start(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: one, {keys} }},
            other: {{ transport: in-process, endpoint: two }},
            third: {{ transport: in-process, endpoint: slow }} }}"
    ))
    .await
}

/// Which service got how many of so many calls, and copies of them.
async fn spread(stage: &Stage, calls: usize) -> BTreeMap<&'static str, usize> {
    stage.seen();
    for _ in 0..calls {
        stage.call().await.unwrap();
    }
    settle().await;
    let mut spread = BTreeMap::new();
    for seen in stage.seen() {
        *spread.entry(seen.service).or_default() += 1;
    }
    spread
}

/// Lets what was begun come to its end.
async fn settle() {
    tokio::time::sleep(10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn split_sends_a_part_of_this_plugins_calls_to_another() {
    let stage =
        stage("split: { to: other, percent: 100 }, authorize: { api_keys: { a: k } }").await;
    let mut known = get("/x");
    known
        .headers_mut()
        .insert("x-api-key", "k".parse().unwrap());
    // Who may call is this plugin's to say, for all of its calls.
    let error = stage.send("p", get("/x")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Unauthenticated));
    let response = stage.send("p", known).await.unwrap();
    assert_eq!(response.headers()["x-service"], "two");
    assert_eq!(stage.seen()[0].request.uri().path(), "/x");
    // A call of the other's own is not touched.
    let response = stage.send("third", get("/")).await.unwrap();
    assert_eq!(response.headers()["x-service"], "slow");
}

#[tokio::test(start_paused = true)]
async fn to_of_split_is_who_gets_the_part() {
    for (to, service) in [("other", "two"), ("third", "slow")] {
        let stage = stage(&format!("split: {{ to: {to}, percent: 100 }}")).await;
        assert_eq!(spread(&stage, 3).await, [(service, 3)].into());
    }
    let yaml =
        "plugins: { p: { transport: in-process, endpoint: s, split: { to: nobody, percent: 1 } } }";
    let service = crate::support::Shelf::default();
    let refused = Plugins::builder()
        .service("s", service)
        .start(config(yaml))
        .await;
    let error = causes(&refused.unwrap_err());
    assert!(
        error.contains("split.to: there is no plugin `nobody`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn percent_of_split_is_how_large_the_part_is() {
    fastrand::seed(7);
    for (percent, within) in [(0, 0..=0), (25, 200..=300), (100, 1_000..=1_000)] {
        let stage = stage(&format!("split: {{ to: other, percent: {percent} }}")).await;
        let spread = spread(&stage, 1_000).await;
        let there = spread.get("two").copied().unwrap_or_default();
        assert!(within.contains(&there), "{percent}: {spread:?}");
        assert_eq!(spread.values().sum::<usize>(), 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn hash_on_of_split_keeps_a_key_on_its_way() {
    let way = async |percent: usize, user: usize| {
        let keys = format!("split: {{ to: other, percent: {percent}, hash_on: 'header:x-user' }}");
        let stage = stage(&keys).await;
        let mut ways = Vec::new();
        for _ in 0..5 {
            let request = Request::get("/").header("x-user", format!("user-{user}"));
            let request = request.body(Body::empty()).unwrap();
            let response = stage.send("p", request).await.unwrap();
            ways.push(response.headers()["x-service"] == "two");
        }
        ways.dedup();
        assert_eq!(ways.len(), 1, "{user}");
        ways[0]
    };
    let (mut few, mut more) = (0, 0);
    for user in 0..100 {
        let (in_few, in_more) = (way(20, user).await, way(50, user).await);
        assert!(in_more || !in_few, "{user} came back when the part grew");
        few += usize::from(in_few);
        more += usize::from(in_more);
    }
    assert!(
        (8..=32).contains(&few) && (35..=65).contains(&more),
        "{few}, {more}"
    );
}

/// Whether `found` of `calls` are as many as a part of `percent` should be: within five standard deviations of a binomial
/// distribution, which one of a million runs is not.
fn is_part(found: usize, calls: usize, percent: f64) -> bool {
    let (calls, part) = (calls as f64, percent / 100.0);
    let deviation = (calls * part * (1.0 - part)).sqrt();
    (found as f64 - calls * part).abs() <= 5.0 * deviation
}

#[tokio::test(start_paused = true)]
async fn targets_of_split_are_several_plugins_with_a_part_each() {
    let targets = ["other", "third"].map(|plugin| format!("{{ plugin: {plugin}, percent: 50 }}"));
    let stage = stage(&format!("split: {{ targets: [{}] }}", targets.join(", "))).await;
    let spread = spread(&stage, 100).await;
    assert_eq!(spread.keys().collect::<Vec<_>>(), [&"slow", &"two"]);
}

#[tokio::test(start_paused = true)]
async fn percent_of_a_target_is_how_large_its_part_is() {
    fastrand::seed(7);
    for (other, third) in [(30.0, 20.0), (0.5, 99.5), (0.0, 10.0), (100.0, 0.0)] {
        let stage = stage(&format!(
            "split: {{ targets: [{{ plugin: other, percent: {other} }}, {{ plugin: third, percent: {third} }}] }}"
        ))
        .await;
        let calls = 2_000;
        let spread = spread(&stage, calls).await;
        let here = 100.0 - other - third;
        for (service, percent) in [("one", here), ("two", other), ("slow", third)] {
            let found = spread.get(service).copied().unwrap_or_default();
            assert!(
                is_part(found, calls, percent),
                "{service}: {percent} % of {spread:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn plugin_of_a_target_is_who_gets_its_part() {
    for (plugin, service) in [("other", "two"), ("third", "slow")] {
        let target = format!("{{ plugin: {plugin}, percent: 100 }}");
        let stage = stage(&format!("split: {{ targets: [{target}] }}")).await;
        assert_eq!(spread(&stage, 3).await, [(service, 3)].into());
    }
}

/// Where a call of each of so many users goes.
async fn ways(keys: &str, users: usize) -> Vec<String> {
    let stage = stage(keys).await;
    let mut ways = Vec::new();
    for user in 0..users {
        let mut of_user = Vec::new();
        for _ in 0..2 {
            let request = Request::get("/").header("x-user", format!("user-{user}"));
            let request = request.body(Body::empty()).unwrap();
            let response = stage.send("p", request).await.unwrap();
            of_user.push(response.headers()["x-service"].to_str().unwrap().to_owned());
        }
        assert_eq!(of_user[0], of_user[1]);
        ways.push(of_user.remove(0));
    }
    ways
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_target_and_the_last_one_loses_none_when_it_grows() {
    let split = |third: u32| {
        format!(
            "split: {{ hash_on: 'header:x-user', targets: [{{ plugin: other, percent: 30 }}, {{ plugin: third, percent: {third} }}] }}"
        )
    };
    let users = 600;
    let (few, more) = (ways(&split(20), users).await, ways(&split(40), users).await);
    // Another process, as it were, sends each the same way.
    assert_eq!(few, ways(&split(20), users).await);
    for (service, percent) in [("one", 50.0), ("two", 30.0), ("slow", 20.0)] {
        let found = few.iter().filter(|way| **way == service).count();
        assert!(is_part(found, users, percent), "{service}: {found}");
    }
    for (before, after) in few.iter().zip(&more) {
        let came = (&**before, &**after) == ("one", "slow");
        assert!(before == after || came, "from {before} to {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_split_to_nobody_or_back_to_itself_is_refused_and_the_old_one_stays() {
    let yaml = |p: &str, other: &str| {
        format!(
            "plugins: {{ p: {{ transport: in-process, endpoint: one, {p} }},
                other: {{ transport: in-process, endpoint: two, {other} }},
                third: {{ transport: in-process, endpoint: slow }} }}"
        )
    };
    let all_to = |name: &str| format!("split: {{ to: {name}, percent: 100 }}");
    let stage = Stage::start(&yaml(&all_to("other"), "")).await;
    let half = |name: &str| {
        format!(
            "split: {{ targets: [{{ plugin: third, percent: 1 }}, {{ plugin: {name}, percent: 50 }}] }}"
        )
    };
    for (p, other, why) in [
        (
            half("nobody"),
            String::new(),
            "split.targets[1].plugin: there is no plugin `nobody`",
        ),
        (
            half("other"),
            all_to("p"),
            "split: other -> p -> other leads back",
        ),
    ] {
        let refused = stage.plugins.reload(config(&yaml(&p, &other))).await;
        let error = causes(&refused.unwrap_err());
        assert!(error.contains(why), "{error}");
        assert_eq!(spread(&stage, 2).await, [("two", 2)].into());
    }
    // One that is off leads nowhere, and two that meet lead to no one's beginning.
    let off = "split: { to: p, percent: 0 }";
    for (p, other) in [
        (half("other"), off.to_owned()),
        (half("other"), all_to("third")),
    ] {
        stage
            .plugins
            .reload(config(&yaml(&p, &other)))
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn shadow_copies_this_plugins_calls_to_another_and_drops_its_answers() {
    let stage = stage("shadow: { to: other, idempotent_only: false }").await;
    let request = Request::post("/x?y").header("x-a", "b");
    let request = request.body(Body::from("hello")).unwrap();
    let response = stage.send("p", request).await.unwrap();
    assert_eq!(response.headers()["x-service"], "one");
    assert_eq!(read(response).await, "one");
    settle().await;
    let seen = stage.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(seen.request.uri(), "/x?y");
        assert_eq!(seen.request.method(), "POST");
        assert_eq!(seen.request.headers()["x-a"], "b");
        assert_eq!(seen.request.body(), "hello");
    }
    assert_ne!(seen[0].service, seen[1].service);

    // A body that comes by and by is copied when it is there; one that is too large is not.
    let (frames, body) = channel();
    let call = {
        let stage = stage.clone();
        tokio::spawn(async move { stage.send("p", post("/", body)).await })
    };
    for part in ["he", "llo"] {
        frames.send(data(part)).unwrap();
    }
    settle().await;
    assert!(stage.seen().is_empty());
    drop(frames);
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
    settle().await;
    let seen = stage.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.request.body() == "hello"));
    stage
        .send("p", post("/", vec![b'a'; 1 << 20]))
        .await
        .unwrap();
    settle().await;
    assert_eq!(stage.seen().len(), 1);

    // Whatever becomes of a copy, the call is well.
    stage.next([Status(200), Status(500)]);
    assert_eq!(stage.call().await.unwrap(), 200);
    settle().await;
    assert_eq!(stage.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn to_of_shadow_is_who_gets_the_copies() {
    for (to, service) in [("other", "two"), ("third", "slow")] {
        let stage = stage(&format!("shadow: {{ to: {to} }}")).await;
        assert_eq!(spread(&stage, 3).await, [("one", 3), (service, 3)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn percent_of_shadow_is_how_many_calls_are_copied() {
    fastrand::seed(7);
    for (percent, within) in [(0, 0..=0), (25, 180..=320), (100, 1_000..=1_000)] {
        let keys = format!("shadow: {{ to: other, percent: {percent}, max_concurrent: 1000 }}");
        let spread = spread(&stage(&keys).await, 1_000).await;
        assert_eq!(spread["one"], 1_000);
        let copies = spread.get("two").copied().unwrap_or_default();
        assert!(within.contains(&copies), "{percent}: {spread:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn idempotent_only_spares_calls_that_may_not_be_repeated() {
    for (keys, copied) in [
        ("", 1),
        ("idempotent_only: true", 1),
        ("idempotent_only: false", 2),
    ] {
        let stage = stage(&format!("shadow: {{ to: other, {keys} }}")).await;
        stage.send("p", post("/", "hello")).await.unwrap();
        let mut named = post("/", "hello");
        named
            .headers_mut()
            .insert("idempotency-key", "7".parse().unwrap());
        stage.send("p", named).await.unwrap();
        settle().await;
        assert_eq!(stage.seen().len(), 2 + copied, "{keys}");
        // An upgrade is a connection that somebody talks on, and no retry repeats it either.
        let mut upgrade = get("/");
        let headers = upgrade.headers_mut();
        headers.insert("connection", "upgrade".parse().unwrap());
        headers.insert("upgrade", "websocket".parse().unwrap());
        stage.send("p", upgrade).await.unwrap();
        settle().await;
        assert_eq!(stage.seen().len(), copied, "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn max_concurrent_is_how_many_copies_may_be_under_way() {
    let stage = stage("shadow: { to: third, max_concurrent: 2 }").await;
    // `slow` needs a second, in which these calls are long over.
    assert_eq!(spread(&stage, 5).await, [("one", 5), ("slow", 2)].into());
    assert_eq!(spread(&stage, 1).await, [("one", 1), ("slow", 1)].into());
}

#[tokio::test(start_paused = true)]
async fn timeout_of_shadow_is_how_long_a_copy_may_take() {
    let stage = stage("shadow: { to: other, max_concurrent: 1, timeout: 1s }").await;
    stage.next([Status(200), Never]);
    stage.call().await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    stage.call().await.unwrap();
    assert_eq!(stage.seen().len(), 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(spread(&stage, 1).await, [("one", 1), ("two", 1)].into());
}

/// A call of `p` that shows `key`.
async fn shows(stage: &Stage, key: &str) -> Result<String, Option<Reason>> {
    let request = Request::get("/").header("x-api-key", key);
    let request = request.body(Body::empty()).unwrap();
    match stage.send("p", request).await {
        Ok(response) => Ok(response.headers()["x-service"].to_str().unwrap().to_owned()),
        Err(error) => Err(error.reason()),
    }
}

/// `p`, which lets in as `here` says and sends its calls on, and `other`, which lets in as `there` says.
async fn two_doors(here: &str, there: &str, on: &str) -> Stage {
    Stage::start(&format!(
        "plugins: {{ p: {{ transport: in-process, endpoint: one, {here} {on} }},
            other: {{ transport: in-process, endpoint: two, authorize: {{ {there} }} }} }}"
    ))
    .await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_let_in_here_is_let_in_where_a_split_sends_it() {
    let split = "split: { to: other, percent: 100 }";
    let there = "api_keys: { b: theirs }";
    let stage = two_doors("authorize: { api_keys: { a: ours } },", there, split).await;
    assert_eq!(shows(&stage, "ours").await, Ok("two".to_owned()));
    let refused = Err(Some(Reason::Unauthenticated));
    assert_eq!(shows(&stage, "theirs").await, refused);
    // A call of the other's own is asked as ever.
    let error = stage.send("other", get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Unauthenticated));

    // Whoever nobody knows here is asked there, and so is everybody where nobody is asked here.
    let anonymous = "authorize: { api_keys: { a: ours }, anonymous: true },";
    let stage = two_doors(anonymous, there, split).await;
    assert_eq!(shows(&stage, "ours").await, Ok("two".to_owned()));
    assert_eq!(stage.refusal().await, Some(Reason::Unauthenticated));
    let stage = two_doors("", there, split).await;
    assert_eq!(shows(&stage, "ours").await, refused);
    assert_eq!(shows(&stage, "theirs").await, Ok("two".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_call_that_was_let_in_here_is_let_in_there() {
    let shadow = "shadow: { to: other }";
    let ours = "authorize: { api_keys: { a: ours } },";
    let stage = two_doors(ours, "api_keys: { b: theirs }", shadow).await;
    assert_eq!(shows(&stage, "ours").await, Ok("one".to_owned()));
    settle().await;
    assert_eq!(stage.seen().len(), 2);
    let stage = two_doors("", "api_keys: { b: theirs }", shadow).await;
    assert_eq!(shows(&stage, "ours").await, Ok("one".to_owned()));
    settle().await;
    assert_eq!(stage.seen().len(), 1);
}

/// The other has its own word on whether its plugin sees what callers show.
#[tokio::test(start_paused = true)]
async fn what_a_caller_showed_goes_on_only_where_both_forward_it() {
    let split = "split: { to: other, percent: 100 }";
    let ours = "authorize: { api_keys: { a: ours }, forward_credentials: true },";
    for (there, is_seen) in [
        ("api_keys: { b: theirs }", false),
        ("api_keys: { b: theirs }, forward_credentials: true", true),
    ] {
        let stage = two_doors(ours, there, split).await;
        assert_eq!(shows(&stage, "ours").await, Ok("two".to_owned()));
        let seen = stage.seen().remove(0).request;
        assert_eq!(seen.headers().contains_key("x-api-key"), is_seen);
    }
}
