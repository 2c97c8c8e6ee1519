//! From the file of a config to what runs, for as long as the set of plugins is there.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::last_good::Keeper;
use super::watch::{Snapshot, Watch};
use super::{ReloadReport, Reloader, Verdict, report};
use crate::config::{Config, Environment, FileContents, Loader};
use crate::error::Error;

/// What a program says of the config that is watched.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    pub(crate) environment: Option<Environment>,
    /// Where its files are kept.
    pub(crate) last_good: Option<PathBuf>,
    /// Whether SIGHUP has it read again.
    #[cfg(unix)]
    pub(crate) on_hangup: bool,
}

/// Makes what a config's file says what runs.
#[derive(Debug)]
pub(crate) struct Follow {
    path: PathBuf,
    watch: Watch,
    environment: Option<Environment>,
    keeper: Option<Keeper>,
    #[cfg(unix)]
    hangup: Option<Signal>,
}

impl Follow {
    pub(crate) fn new(path: &Path, followed: Followed) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut watch = Watch::new(&path)?;
        if let Some(environment) = &followed.environment {
            watch = watch.environment(environment.clone());
        }
        Ok(Self {
            path,
            watch,
            environment: followed.environment,
            keeper: followed.last_good.map(Keeper::start),
            #[cfg(unix)]
            hangup: match followed.on_hangup {
                true => Some(signal(SignalKind::hangup())?),
                false => None,
            },
        })
    }

    /// Has the config of the file run; if that is refused, the last good one.
    pub(crate) async fn start(&mut self, reloader: &Reloader) -> Result<(), Error> {
        let snapshot = self.watch.changed().await;
        let files = snapshot.files().to_vec();
        let done = match taken(snapshot) {
            Ok(config) => reloader.reload(config).await.map(drop),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                self.keep(files);
                Ok(())
            }
            Err(refused) => self.start_from_last_good(refused, reloader).await,
        }
    }

    /// Has the config run that was kept, for the reason that that of the file is `refused`, which is the error if there
    /// is none.
    async fn start_from_last_good(&self, refused: Error, reloader: &Reloader) -> Result<(), Error> {
        let Some(keeper) = &self.keeper else {
            return Err(refused);
        };
        let dir = keeper.dir().display();
        let started = match keeper.kept(&self.path).await {
            Ok(None) => return Err(refused),
            Ok(Some(files)) => match self.load(files).await {
                Ok(config) => reloader.reload(config).await.map(drop),
                Err(error) => Err(error),
            },
            Err(error) => Err(Error::watch(error)),
        };
        let reason = report::with_causes(&refused);
        if let Err(error) = started {
            let error = report::with_causes(&error);
            tracing::warn!(%dir, %error, "the last good config is of no use");
            return Err(refused);
        }
        let file = self.path.display();
        tracing::warn!(%file, %dir, error = %reason, "started from the last good config");
        reloader.reject(refused).await?;
        // Whoever asks first is to be told. It fails only if the reloader is gone.
        let mut status = reloader.status().clone();
        let _ = status.wait_for(|status| status.last_error.is_some()).await;
        Ok(())
    }

    async fn load(&self, files: Vec<FileContents>) -> Result<Config, Error> {
        let mut loader = Loader::kept(files);
        if let Some(environment) = &self.environment {
            loader = loader.environment(environment.clone());
        }
        let loaded = tokio::task::spawn_blocking(move || loader.load());
        let loaded = loaded
            .await
            .map_err(|error| Error::watch(io::Error::other(error)))?;
        Ok(loaded.config?)
    }

    /// Goes on until the set of plugins is dropped or shut down. While a config is taken, which may be watched for a
    /// while, the next one is waited for.
    pub(crate) async fn run(mut self, reloader: Weak<Reloader>) {
        let mut under_way = VecDeque::new();
        loop {
            let snapshot = tokio::select! {
                snapshot = self.next() => snapshot,
                good = good(&mut under_way) => {
                    if let Some(files) = good {
                        self.keep(files);
                    }
                    continue;
                }
            };
            let Some(reloader) = reloader.upgrade() else {
                return;
            };
            let files = snapshot.files().to_vec();
            let done = match taken(snapshot) {
                Ok(config) => {
                    let answer = reloader.offer(config).await;
                    answer.map(|answer| under_way.push_back((answer, files)))
                }
                Err(error) => reloader.reject(error).await,
            };
            if done.is_err_and(|error| error.is_shutdown()) {
                return;
            }
        }
    }

    /// What the file says next; what it says now, after a hangup.
    async fn next(&mut self) -> Snapshot {
        #[cfg(unix)]
        if let Some(hangup) = &mut self.hangup {
            loop {
                tokio::select! {
                    snapshot = self.watch.changed() => return snapshot,
                    Some(()) = hangup.recv() => self.watch.again(),
                }
            }
        }
        self.watch.changed().await
    }

    fn keep(&self, files: Vec<FileContents>) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(files);
        }
    }
}

/// What answers a reload that is under way, and the files that it is of.
type UnderWay = (
    oneshot::Receiver<Result<ReloadReport, Error>>,
    Vec<FileContents>,
);

/// Waits for the end of the first that is under way, if one is; gives its files if it was taken and is not known to be
/// worse. There are few: a newer one ends those before it.
async fn good(under_way: &mut VecDeque<UnderWay>) -> Option<Vec<FileContents>> {
    let Some((answer, _)) = under_way.front_mut() else {
        return std::future::pending().await;
    };
    let is_good = match answer.await {
        Ok(Ok(report)) => !matches!(report.verdict, Verdict::Worse { .. }),
        Ok(Err(_)) | Err(_) => false,
    };
    let (_, files) = under_way.pop_front()?;
    is_good.then_some(files)
}

/// The config of `snapshot`, its warnings logged.
fn taken(snapshot: Snapshot) -> Result<Config, Error> {
    for warning in snapshot.warnings() {
        tracing::warn!("config: {warning}");
    }
    Ok(snapshot.config()?)
}
