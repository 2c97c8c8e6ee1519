use std::process::Command;

use tokio::time::Instant;
use tower_plugins::Plugins;

use super::folder::{Folder, ONE, TWO, until};
use crate::support::{causes, within};

/// Sends this process SIGHUP.
fn hang_up() {
    let kill = format!("kill -HUP {}", std::process::id());
    let status = Command::new("sh").arg("-c").arg(kill).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_hangup_reads_the_files_again_though_they_have_not_changed() {
    let folder = Folder::with(ONE);
    let builder = Plugins::builder().reload_on_hangup();
    let plugins = folder.start(builder).await.unwrap();
    // More may come of them than are sent here: the signals are the whole process's.
    hang_up();
    let status = until(&plugins, |status| status.accepted > 1).await;
    assert_eq!(status.generation.get(), 1, "it is what runs");

    folder.write(
        "plugins.yaml",
        "plugins: { one: { transport: in-process, endpoint: nobody } }",
    );
    let first = until(&plugins, |status| status.rejected > 0).await;
    hang_up();
    let again = until(&plugins, |status| status.rejected > first.rejected).await;
    assert!(causes(&*again.last_error.unwrap()).contains("nobody"));

    std::fs::remove_file(folder.path("plugins.yaml")).unwrap();
    hang_up();
    until(&plugins, |status| {
        let error = status.last_error.as_ref();
        error.is_some_and(|error| causes(&**error).contains("cannot be read"))
    })
    .await;
    folder.write("plugins.yaml", TWO);
    until(&plugins, |status| status.last_error.is_none()).await;
    assert_eq!(plugins.names(), ["two"]);
}

#[tokio::test]
async fn a_burst_of_hangups_is_at_most_ten_reloads_a_second() {
    let folder = Folder::with(ONE);
    let builder = Plugins::builder().reload_on_hangup();
    let plugins = folder.start(builder).await.unwrap();
    let begun = Instant::now();
    for _ in 0..50 {
        hang_up();
        tokio::task::yield_now().await;
    }
    // The last is seen as well: what is read after it is what the file says then.
    folder.write("plugins.yaml", TWO);
    hang_up();
    within(async {
        let mut status = plugins.subscribe();
        while plugins.names() != ["two"] {
            status.changed().await.unwrap();
        }
    })
    .await;
    let most = begun.elapsed().as_millis() / 100 + 3;
    let accepted = plugins.status().accepted;
    assert!(u128::from(accepted) <= most, "{accepted} of {most}");
}
