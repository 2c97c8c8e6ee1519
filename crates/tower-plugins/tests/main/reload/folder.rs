//! A folder with a config that is watched, and what is kept of it beside it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tower_plugins::config::Environment;
use tower_plugins::reload::ReloadStatus;
use tower_plugins::{Builder, Error, Plugins};

use crate::support::{Shelf, within};

pub(crate) const ONE: &str = "plugins: { one: { transport: in-process, endpoint: shelf } }";
pub(crate) const TWO: &str = "plugins: { two: { transport: in-process, endpoint: shelf } }";

pub(crate) struct Folder(TempDir);

impl Folder {
    /// With `text` as the config.
    pub(crate) fn with(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("plugins.yaml", text);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a file with `text` in the place of `name`.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    pub(crate) async fn start(&self, builder: Builder) -> Result<Plugins, Error> {
        let builder = builder.service("shelf", Shelf::default());
        within(builder.watch(self.path("plugins.yaml"))).await
    }

    /// Plugins of the config, which is kept in `kept`, with these variables.
    pub(crate) async fn keeping(&self, variables: &[(&str, &str)]) -> Result<Plugins, Error> {
        let builder = Plugins::builder().keep_last_good(self.path("kept"));
        let variables = Environment::from_iter(variables.iter().copied());
        self.start(builder.environment(variables)).await
    }

    /// The files that are kept, with what they hold; none until there is an index.
    pub(crate) fn kept(&self) -> Vec<(PathBuf, String)> {
        let index = self.path("kept/index.json");
        if !index.exists() {
            return Vec::new();
        }
        let mut kept = Vec::new();
        let mut directories = vec![self.path("kept")];
        while let Some(directory) = directories.pop() {
            // It may be replaced while this looks.
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if path != index {
                    kept.push((path.clone(), fs::read_to_string(path).unwrap_or_default()));
                }
            }
        }
        kept.sort();
        kept
    }

    /// Waits until these texts are kept and nothing else.
    pub(crate) async fn until_kept(&self, texts: &[&str]) {
        within(async {
            while !self.kept().iter().map(|(_, text)| text).eq(texts) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

pub(crate) async fn until(
    plugins: &Plugins,
    condition: impl FnMut(&ReloadStatus) -> bool,
) -> ReloadStatus {
    let mut status = plugins.subscribe();
    within(status.wait_for(condition)).await.unwrap().clone()
}
