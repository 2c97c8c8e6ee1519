//! What a program takes of plugins that are processes.

use super::Builder;
use crate::transport::subprocess::{OnTerminal, Terminal};
use crate::transport::{Output, Sink};

impl Builder {
    /// Has `sink` take what the plugin `plugin` prints, byte by byte: what a plugin of HashiCorp's go-plugin (`transport:
    /// subprocess`) writes to its standard output and error while it serves. Without one it is logged, line by line, under
    /// the target `tower_plugins::process`. One that is registered for the same plugin before is forgotten.
    ///
    /// It is called for one part after the other of each process, and holds up what the plugin prints while it runs: it must not
    /// block. What needs time is sent to a task, over a channel that is bounded. If it panics, that part is lost.
    ///
    /// What a plugin writes past go-plugin, its log and a panic, is on its process's own standard error, and is logged.
    ///
    /// ```
    /// use tower_plugins::transport::{Output, OutputStream};
    /// use tower_plugins::{Plugins, config::Config};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let (printed, mut lines) = tokio::sync::mpsc::channel::<Output>(64);
    /// let plugins = Plugins::builder()
    ///     .output("greeter", move |output: Output| {
    ///         if output.stream == OutputStream::Stdout {
    ///             // What nobody has time for is lost.
    ///             let _ = printed.try_send(output);
    ///         }
    ///     })
    ///     .start(Config::new())
    ///     .await?;
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn output(mut self, plugin: &str, sink: impl Fn(Output) + Send + Sync + 'static) -> Self {
        self.services.add_sink(plugin, Sink::new(sink));
        self
    }

    /// Has `take` take the terminal of each process of the plugin `plugin`, which has one with `transport: subprocess` and
    /// `process.stdin: terminal`: to show what it shows, and to answer what it asks. Without one, what the plugin writes
    /// to its terminal is logged, line by line, under the target `tower_plugins::process`, and it waits for ever for what it asks. One
    /// that is registered for the same plugin before is forgotten.
    ///
    /// It is called at each start of a process, before anything is read of it, within the runtime, and must not block: what is done with the terminal is
    /// done in a task. If it panics, the terminal is dropped, and what is written to it is logged.
    ///
    /// The plugin begins to serve as any other: what it asks before it says where it listens is asked within `process.start_timeout`.
    ///
    /// ```
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use tower_plugins::transport::subprocess::Terminal;
    /// use tower_plugins::{Plugins, config::Config};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let plugins = Plugins::builder()
    ///     .terminal("tunnel", |mut terminal: Terminal| {
    ///         tokio::spawn(async move {
    ///             let mut shown = Vec::new();
    ///             while let Ok(1..) = terminal.read_buf(&mut shown).await {
    ///                 if shown.ends_with(b"(yes/no)? ") {
    ///                     let _ = terminal.write_all(b"yes\n").await;
    ///                     shown.clear();
    ///                 }
    ///             }
    ///         });
    ///     })
    ///     .start(Config::new())
    ///     .await?;
    /// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn terminal(
        mut self,
        plugin: &str,
        take: impl Fn(Terminal) + Send + Sync + 'static,
    ) -> Self {
        self.services.add_terminal(plugin, OnTerminal::new(take));
        self
    }
}
