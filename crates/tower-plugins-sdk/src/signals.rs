//! Signals of the system that end the plugin.

#[cfg(not(unix))]
pub(crate) use self::other::Signals;
#[cfg(unix)]
pub(crate) use self::unix::Signals;

#[cfg(unix)]
mod unix {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use crate::Error;

    /// SIGTERM, and SIGINT where that ends the plugin. They are taken from when it is made.
    pub(crate) struct Signals {
        terminate: Signal,
        interrupt: Signal,
        /// A Ctrl-C in the host's terminal is for the host, which then ends the plugin as it sees fit.
        hosted: bool,
    }

    impl Signals {
        pub(crate) fn own() -> Result<Self, Error> {
            Self::new(false)
        }

        #[cfg(feature = "subprocess")]
        pub(crate) fn hosted() -> Result<Self, Error> {
            Self::new(true)
        }

        fn new(hosted: bool) -> Result<Self, Error> {
            let take = |kind| signal(kind).map_err(Error::system("cannot take a signal"));
            Ok(Self {
                terminate: take(SignalKind::terminate())?,
                interrupt: take(SignalKind::interrupt())?,
                hosted,
            })
        }

        /// Waits for one that ends the plugin.
        pub(crate) async fn terminated(mut self) {
            self.next().await;
        }

        /// Waits for a second one, of who does not want to wait.
        pub(crate) async fn insisted(mut self) {
            self.next().await;
            self.next().await;
        }

        async fn next(&mut self) {
            if self.hosted {
                self.terminate.recv().await;
                return;
            }
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
        }
    }
}

#[cfg(not(unix))]
mod other {
    use crate::Error;

    /// Ctrl-C, where that ends the plugin.
    pub(crate) struct Signals {
        hosted: bool,
    }

    impl Signals {
        pub(crate) fn own() -> Result<Self, Error> {
            Ok(Self { hosted: false })
        }

        #[cfg(feature = "subprocess")]
        pub(crate) fn hosted() -> Result<Self, Error> {
            Ok(Self { hosted: true })
        }

        /// Waits for one that ends the plugin.
        pub(crate) async fn terminated(self) {
            self.next().await;
        }

        /// Waits for a second one, of who does not want to wait.
        pub(crate) async fn insisted(self) {
            self.next().await;
            self.next().await;
        }

        async fn next(&self) {
            while tokio::signal::ctrl_c().await.is_ok() {
                if !self.hosted {
                    return;
                }
            }
            // It cannot be heard here.
            std::future::pending().await
        }
    }
}
