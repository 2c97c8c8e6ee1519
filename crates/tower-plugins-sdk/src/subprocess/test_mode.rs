//! A plugin in the process of a test or a debugger, for a host to attach to.

use std::fmt;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_plugins_proto::go_plugin::socket::Listen;
use tower_plugins_proto::go_plugin::{Address, env};

use super::Hosted;
use crate::{Error, Plugin};

/// How a host attaches to a plugin that it did not start. Written with `{}` it is the JSON of Go's tools.
///
/// ```
/// use tower_plugins_sdk::Plugin;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let serving = Plugin::new("greeter", "1.0.0").test().await?;
/// let providers = format!(r#"{{"example.com/acme/greeter":{}}}"#, serving.reattach());
/// assert!(providers.contains(r#""Protocol":"grpc","ProtocolVersion":1,"#));
/// serving.stop().await;
/// # Ok::<(), tower_plugins_sdk::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reattach {
    version: u32,
    address: Address,
}

impl Reattach {
    /// The version of the program's own protocol.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Where the plugin listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// As one value of `TF_REATTACH_PROVIDERS`, for example, with this process's id. `Test` says that it is not the host's to end.
impl fmt::Display for Reattach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, address } = self;
        let (pid, network) = (std::process::id(), address.network());
        let address = json(&address.to_string());
        write!(
            f,
            r#"{{"Protocol":"grpc","ProtocolVersion":{version},"Pid":{pid},"Test":true,"Addr":{{"Network":"{network}","String":{address}}}}}"#
        )
    }
}

/// A text in JSON. An address has no control characters.
fn json(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A plugin that serves in this process, until it is stopped or dropped.
#[derive(Debug)]
pub struct TestMode {
    reattach: Reattach,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl TestMode {
    /// How a host attaches to it.
    #[must_use]
    pub fn reattach(&self) -> &Reattach {
        &self.reattach
    }

    /// Finishes the calls under way, and ends.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // It does not panic, and nobody else aborts it.
        drop((&mut self.serving).await);
    }

    /// Waits until it has ended, as a host may say so.
    pub async fn ended(&mut self) {
        drop((&mut self.serving).await);
    }
}

impl Drop for TestMode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Plugin {
    /// Serves in this process, for a host that attaches: in a test, or under a debugger. No cookie is looked at, no line is written, what
    /// is printed stays here, and signals do what they did.
    ///
    /// It speaks no TLS unless it has a certificate of its own. The broker works; with a host that was told `Test`, that does not
    /// end it.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] if it cannot listen, and [`Error::Descriptors`].
    pub async fn test(mut self) -> Result<TestMode, Error> {
        let stop = CancellationToken::new();
        let told = {
            let (graceful, stop) = (self.graceful.take(), stop.clone());
            async move {
                tokio::select! {
                    () = crate::plugin::told(graceful) => {}
                    () = stop.cancelled() => {}
                }
            }
        };
        let offered = std::env::var(env::PROTOCOL_VERSIONS).ok();
        let (version, plugin) = self.choose(offered.as_deref());
        let host = |error: &dyn fmt::Display| Error::Host(error.to_string());
        let listen = Listen::from_env().map_err(|error| host(&error))?;
        let listener = listen.bind().map_err(|error| host(&error))?;
        let reattach = Reattach {
            version,
            address: listener.address().clone(),
        };
        let tls = plugin.tls_of_host(None, None)?;
        let hosted = Hosted::new(plugin, tls, listen).await?;
        let serving = tokio::spawn(hosted.run(listener, told));
        Ok(TestMode {
            reattach,
            stop,
            serving,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_json_of_gos_tools() {
        let reattach = Reattach {
            version: 6,
            address: Address::Unix("/tmp/a \"b\"".into()),
        };
        let pid = std::process::id();
        assert_eq!(
            reattach.to_string(),
            format!(
                r#"{{"Protocol":"grpc","ProtocolVersion":6,"Pid":{pid},"Test":true,"Addr":{{"Network":"unix","String":"/tmp/a \"b\""}}}}"#
            )
        );
    }
}
