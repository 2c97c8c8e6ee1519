use tower_plugins::Plugins;

use crate::reload::folder::{Folder, ONE, until};
use crate::support::causes;

#[tokio::test]
async fn validation_timeout_is_how_long_reading_the_files_may_take() {
    let folder = Folder::with(&format!("reload: {{ validation_timeout: 1ms }}\n{ONE}"));
    let plugins = folder.start(Plugins::builder()).await.unwrap();
    let mut large = "plugins:\n  two: { transport: in-process, endpoint: shelf }\n".to_owned();
    for n in 0..3_000 {
        large += &format!("  p{n}: {{ transport: in-process, endpoint: shelf, enabled: false }}\n");
    }
    folder.write("plugins.yaml", &large);
    let status = until(&plugins, |status| status.last_error.is_some()).await;
    let said = causes(&*status.last_error.unwrap());
    assert!(
        said.contains("within 1ms (reload.validation_timeout)"),
        "{said}"
    );
    // It is taken when it has been read; there are 10 seconds for the next.
    until(&plugins, |status| {
        status.last_error.is_none() && plugins.names() == ["two"]
    })
    .await;
    let rejected = plugins.status().rejected;
    folder.write("plugins.yaml", &large.replace("two", "three"));
    until(&plugins, |_| plugins.names() == ["three"]).await;
    assert_eq!(plugins.status().rejected, rejected);
}
