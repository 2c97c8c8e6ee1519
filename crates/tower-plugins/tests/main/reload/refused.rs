use tower_plugins::Plugins;
use tower_plugins::config::{Config, Format};

use crate::support::{Shelf, causes, config, get, text};

const ONE: &str = "
    plugins:
      a: { transport: in-process, endpoint: shelf }
";

#[tokio::test]
async fn a_plugin_that_cannot_be_made_leaves_everything_as_it_was() {
    let plugins = Shelf::default().start(ONE).await;
    let before = plugins.status();
    let error = plugins
        .reload(config(
            "
            plugins:
              a: { transport: in-process, endpoint: shelf, rate_limit: { requests_per_second: 1, burst_size: 1 } }
              b: { transport: in-process, endpoint: nobody }
              c: { transport: in-process, endpoint: shelf }
            ",
        ))
        .await
        .unwrap_err();
    assert!(error.is_config());
    assert_eq!(error.plugin(), Some("b"));
    let said = causes(&error);
    assert!(
        said.contains("`b`") && said.contains("`nobody`") && said.contains("Plugins::builder()"),
        "{said}"
    );
    assert_eq!(plugins.names(), ["a"]);
    let after = plugins.status();
    assert_eq!(after.generation, before.generation);
    assert_eq!((after.accepted, after.rejected), (before.accepted, 1));
    assert!(causes(&*after.last_error.unwrap()).contains("nobody"));
    let (a, c) = (plugins.plugin("a"), plugins.plugin("c"));
    for _ in 0..3 {
        assert_eq!(text(&a, get("/")).await.unwrap(), "hello", "no limit came");
    }
    assert!(text(&c, get("/")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_config_that_is_taken_clears_the_error_of_the_last() {
    let plugins = Shelf::default().start(ONE).await;
    let bad = config("plugins: { b: { transport: in-process, endpoint: nobody } }");
    plugins.reload(bad).await.unwrap_err();
    assert!(plugins.status().last_error.is_some());
    let report = plugins.reload(config(ONE)).await.unwrap();
    assert!(report.plan.is_empty());
    assert!(plugins.status().last_error.is_none());
}

#[tokio::test]
async fn a_start_with_a_plugin_that_cannot_be_made_fails() {
    let error = Plugins::builder().start(config(ONE)).await.unwrap_err();
    assert_eq!(error.plugin(), Some("a"));
    assert!(causes(&error).contains("`shelf`"));
}

#[tokio::test]
async fn a_config_that_changes_nothing_makes_no_generation() {
    let plugins = Shelf::default().start(ONE).await;
    let report = plugins.reload(config(ONE)).await.unwrap();
    assert_eq!(report.generation.get(), 1);
    assert_eq!(report.to_string(), "generation 1: nothing to do");
    assert!(report.retirement.is_empty());
    assert_eq!(plugins.status().accepted, 2);
}

#[tokio::test]
async fn reloads_that_come_at_once_are_made_one_after_the_other_or_overtaken() {
    let plugins = Shelf::default().start(ONE).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let plugins = plugins.clone();
        tasks.spawn(async move {
            let text =
                format!("plugins: {{ p{number}: {{ transport: in-process, endpoint: shelf }} }}");
            let config = Config::parse(&text, Format::Yaml).unwrap();
            let report = plugins.reload(config).await?;
            Ok::<_, tower_plugins::Error>((
                report.generation.get(),
                format!("p{number}"),
                report.retirement.len(),
            ))
        });
    }
    let ends = tasks.join_all().await;
    let overtaken = ends.iter().filter_map(|end| end.as_ref().err());
    for error in overtaken {
        assert!(error.is_superseded(), "{error}");
    }
    let mut done: Vec<_> = ends.into_iter().filter_map(Result::ok).collect();
    done.sort_unstable();
    let generations: Vec<_> = done.iter().map(|done| done.0).collect();
    assert_eq!(generations, (2..2 + done.len() as u64).collect::<Vec<_>>());
    assert!(
        done.iter().all(|done| done.2 == 1),
        "each replaced the one before"
    );
    assert_eq!(plugins.names(), [done.last().unwrap().1.clone()]);
}

#[tokio::test]
async fn a_reload_goes_on_when_its_caller_does_not_wait() {
    let plugins = Shelf::default().start(ONE).await;
    let mut status = plugins.subscribe();
    {
        let two = config("plugins: { two: { transport: in-process, endpoint: shelf } }");
        tokio::select! {
            biased;
            _ = plugins.reload(two) => panic!("the task had no turn yet"),
            () = std::future::ready(()) => {}
        }
    }
    status
        .wait_for(|status| status.generation.get() == 2)
        .await
        .unwrap();
    assert_eq!(plugins.names(), ["two"]);
}

#[tokio::test]
async fn a_handle_may_be_older_than_its_plugin_and_outlive_it() {
    let plugins = Shelf::default().start(ONE).await;
    let late = plugins.plugin("late");
    let error = text(&late, get("/")).await.unwrap_err();
    assert!(error.is_not_found() && error.plugin() == Some("late"));
    let with = config("plugins: { late: { transport: in-process, endpoint: shelf } }");
    plugins.reload(with).await.unwrap();
    assert_eq!(text(&late, get("/")).await.unwrap(), "hello");
    plugins.reload(config(ONE)).await.unwrap();
    assert!(text(&late, get("/")).await.unwrap_err().is_not_found());
    assert!(
        text(&plugins.plugin("no such {name}"), get("/"))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn plugins_that_are_dropped_leave_no_task_and_their_handles_work() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let plugins = Shelf::default().start(ONE).await;
    let handle = plugins.plugin("a");
    let clone = plugins.clone();
    drop(plugins);
    assert_eq!(tasks(), before + 1, "a clone keeps the set");
    drop(clone);
    crate::support::within(async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(text(&handle, get("/")).await.unwrap(), "hello");
}
