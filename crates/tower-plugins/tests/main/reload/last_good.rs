use std::fs;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower_plugins::Plugins;

use super::folder::{Folder, ONE, TWO, until};
use crate::support::causes;

const BROKEN: &str = "plugins:\n  one: { transport: in-process, endpo";

/// Starts without a config that is any good, and says why that was refused.
async fn refusal(folder: &Folder) -> String {
    let plugins = folder.keeping(&[]).await.unwrap();
    assert_eq!(plugins.names(), ["one"]);
    let error = plugins.status().last_error;
    causes(&*error.unwrap())
}

#[tokio::test]
async fn a_start_whose_file_is_broken_takes_the_last_good_config_until_the_file_is_mended() {
    let folder = Folder::with(ONE);
    let plugins = folder.keeping(&[]).await.unwrap();
    folder.until_kept(&[ONE]).await;
    drop(plugins);
    let nobody = "plugins: { one: { transport: in-process, endpoint: nobody } }";
    for (broken, part) in [
        (BROKEN, "plugins.yaml:2:"),
        ("", "is empty"),
        (nobody, "nobody"),
    ] {
        folder.write("plugins.yaml", broken);
        let said = refusal(&folder).await;
        assert!(said.contains(part), "{said}");
    }

    let plugins = folder.keeping(&[]).await.unwrap();
    folder.until_kept(&[ONE]).await;
    folder.write("plugins.yaml", TWO);
    until(&plugins, |status| status.last_error.is_none()).await;
    assert_eq!(plugins.names(), ["two"]);
    folder.until_kept(&[TWO]).await;
}

#[tokio::test]
async fn a_start_whose_file_is_missing_takes_the_last_good_config() {
    let folder = Folder::with(ONE);
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[ONE]).await;
    fs::remove_file(folder.path("plugins.yaml")).unwrap();
    let said = refusal(&folder).await;
    assert!(said.contains("plugins.yaml"), "{said}");
}

#[tokio::test]
async fn a_config_that_is_refused_is_not_kept() {
    let folder = Folder::with(ONE);
    let plugins = folder.keeping(&[]).await.unwrap();
    folder.until_kept(&[ONE]).await;
    folder.write("plugins.yaml", BROKEN);
    until(&plugins, |status| status.rejected == 1).await;
    folder.write("plugins.yaml", TWO);
    folder.until_kept(&[TWO]).await;

    let other = Folder::with(BROKEN);
    let error = other.keeping(&[]).await.unwrap_err();
    assert!(causes(&error).contains("plugins.yaml:2:"));
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_kept_is_for_its_owner_alone_and_not_taken_if_others_can_change_it() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::with(ONE);
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[ONE]).await;
    let [(file, _)] = &folder.kept()[..] else {
        panic!("{:?}", folder.kept());
    };
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    assert_eq!(mode(&folder.path("kept")), 0o700);
    assert_eq!(mode(&folder.path("kept/index.json")), 0o600);

    folder.write("plugins.yaml", BROKEN);
    for (path, open, closed) in [
        (file, 0o620, 0o600),
        (&folder.path("kept"), 0o770, 0o700),
        (&folder.path("kept/index.json"), 0o602, 0o600),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
        folder.keeping(&[]).await.unwrap_err();
        fs::set_permissions(path, fs::Permissions::from_mode(closed)).unwrap();
        folder.keeping(&[]).await.unwrap();
    }
}

#[tokio::test]
async fn variables_are_kept_as_they_are_written() {
    let text = "plugins: { one: { transport: in-process, endpoint: '${WHERE}',
        authorize: { api_keys: { me: '${TOKEN}' } } } }";
    let folder = Folder::with(text);
    let variables = [("WHERE", "shelf"), ("TOKEN", "hunter2")];
    drop(folder.keeping(&variables).await.unwrap());
    folder.until_kept(&[text]).await;
    folder.write("plugins.yaml", BROKEN);
    folder.keeping(&[]).await.unwrap_err();
    let plugins = folder.keeping(&variables).await.unwrap();
    assert_eq!(plugins.names(), ["one"]);
}

#[tokio::test]
async fn included_files_are_kept_with_the_main_one_and_see_files_from_where_they_were() {
    let main = "include: [conf.d]";
    let part = "plugins: { one: { transport: in-process, endpoint: shelf,
        authorize: { api_keys: { me: 'file:key' } } } }";
    let folder = Folder::with(main);
    folder.write("conf.d/part.yaml", part);
    folder.write("conf.d/key", "a key of some length");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = folder.path("conf.d/key");
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[main, part]).await;

    folder.write("conf.d/part.yaml", BROKEN);
    let said = refusal(&folder).await;
    assert!(said.contains("conf.d/part.yaml:2:"), "{said}");
    fs::remove_file(folder.path("conf.d/key")).unwrap();
    folder.keeping(&[]).await.unwrap_err();
}

#[tokio::test]
async fn what_is_half_written_is_neither_taken_nor_left() {
    let folder = Folder::with(ONE);
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[ONE]).await;
    // As a crash leaves them: another config of which the index says nothing yet.
    let half = format!("kept/{}/0-plugins.yaml", "0f".repeat(16));
    folder.write(&half, "plugins: { tw");
    folder.write("kept/.index.json.new", "{ \"direc");
    folder.write("plugins.yaml", BROKEN);
    refusal(&folder).await;
    folder.write("plugins.yaml", TWO);
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[TWO]).await;

    // And as a disk may, which lost what it was given.
    let (file, _) = folder.kept().remove(0);
    fs::write(file, "plugins: { two: { transport: in-process, end").unwrap();
    folder.write("plugins.yaml", BROKEN);
    let error = folder.keeping(&[]).await.unwrap_err();
    assert!(causes(&error).contains("plugins.yaml:2:"));
    // It is mended by the next that is taken, though that is the same.
    folder.write("plugins.yaml", TWO);
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[TWO]).await;
}

#[tokio::test]
async fn the_last_good_config_of_another_file_is_not_taken() {
    let folder = Folder::with(ONE);
    drop(folder.keeping(&[]).await.unwrap());
    folder.until_kept(&[ONE]).await;
    let other = Folder::with(BROKEN);
    let builder = Plugins::builder().keep_last_good(folder.path("kept"));
    let error = other.start(builder).await.unwrap_err();
    assert!(causes(&error).contains("plugins.yaml:2:"));
}

#[tokio::test]
async fn a_config_that_cannot_be_kept_runs_all_the_same() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let failed = || {
        let counts = snapshots.snapshot().into_vec();
        let of = |key: &metrics::Key| {
            let mut labels = key.labels();
            key.name() == "plugin_config_kept_total"
                && labels.all(|it| (it.key(), it.value()) == ("outcome", "failed"))
        };
        let found = counts.into_iter().find(|(key, ..)| of(key.key()));
        match found {
            Some((.., DebugValue::Counter(count))) => count,
            _ => 0,
        }
    };
    let folder = Folder::with(ONE);
    folder.write("kept", "no directory");
    let plugins = folder.keeping(&[]).await.unwrap();
    folder.write("plugins.yaml", TWO);
    until(&plugins, |status| status.generation.get() == 2).await;
    assert_eq!(plugins.status().rejected, 0);
    crate::support::within(async {
        let mut count = 0;
        while count == 0 {
            tokio::task::yield_now().await;
            count += failed();
        }
    })
    .await;
    // There is room again.
    fs::remove_file(folder.path("kept")).unwrap();
    folder.write("plugins.yaml", ONE);
    folder.until_kept(&[ONE]).await;
}

/// Two plugins, in a text of which no part is a config.
fn whole(n: usize) -> String {
    let plugin = |name| format!("{name}{n}: {{ transport: in-process, endpoint: shelf }}");
    format!("{{ plugins: {{ {}, {} }} }}", plugin("a"), plugin("b"))
}

#[tokio::test]
async fn whatever_becomes_of_the_file_and_the_disk_one_config_runs_whole() {
    let folder = Folder::with(&whole(0));
    let mut plugins = folder.keeping(&[]).await.unwrap();
    let is_whole = |plugins: &Plugins, n: usize| {
        assert_eq!(plugins.names(), [format!("a{n}"), format!("b{n}")]);
    };
    for n in 1..9 {
        let next = whole(n);
        for part in 1..4 {
            let rejected = plugins.status().rejected;
            // As it is in the middle of a write.
            fs::write(folder.path("plugins.yaml"), &next[..next.len() * part / 4]).unwrap();
            until(&plugins, |status| status.rejected > rejected).await;
            is_whole(&plugins, n - 1);
        }
        let is_full = n % 3 == 0;
        if is_full {
            let _ = fs::remove_dir_all(folder.path("kept"));
            folder.write("kept", "no room");
        }
        let generation = plugins.status().generation;
        fs::write(folder.path("plugins.yaml"), &next).unwrap();
        until(&plugins, |status| status.generation > generation).await;
        is_whole(&plugins, n);
        if is_full {
            fs::remove_file(folder.path("kept")).unwrap();
            continue;
        }
        folder.until_kept(&[&next]).await;
        drop(plugins);
        folder.write("plugins.yaml", BROKEN);
        plugins = folder.keeping(&[]).await.unwrap();
        is_whole(&plugins, n);
    }
}

#[tokio::test]
async fn a_config_that_was_taken_is_kept_though_a_newer_one_that_is_refused_cut_its_watch_short() {
    let watched = |plugin: &str| {
        format!(
            "{{ reload: {{ strategy: blue-green, observe_for: 1h }}, plugins: {{ one: {{ {plugin} }} }} }}"
        )
    };
    let one = watched("transport: in-process, endpoint: shelf");
    let two = watched("transport: in-process, endpoint: shelf, drain_timeout: 1s");
    let nobody = watched("transport: in-process, endpoint: nobody");
    let folder = Folder::with(&one);
    let plugins = folder.keeping(&[]).await.unwrap();
    folder.until_kept(&[&one]).await;
    folder.write("plugins.yaml", &two);
    until(&plugins, |status| status.generation.get() == 2).await;
    folder.write("plugins.yaml", &nobody);
    until(&plugins, |status| status.rejected == 1).await;
    folder.until_kept(&[&two]).await;
}
