//! A plugin that calls its host back: it counts words, and has the host read the documents to it.
//!
//! `cargo run --example bidirectional` is both: the host, and, as it starts itself once more, the plugin. It shows, with a socket for each
//! connection and then with one for all,
//!
//! 1. a call to the plugin, whose answer is a stream, while the plugin calls the host, whose answers are streams too;
//! 2. a closure that the plugin calls;
//! 3. a service that the plugin offers to the host;
//! 4. what becomes of all that when the plugin is killed.
//!
//! `examples/proto/word_count.proto` says who offers what; its code is checked in, so that the example needs no protoc. It takes Unix.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::{Stream, StreamExt, iter, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tower_plugins::Plugins;
use tower_plugins::config::{Config, Format};
use tower_plugins::session::{Callbacks, Session};
use tower_plugins::transport::subprocess::Exited;
use tower_plugins_sdk::{Broker, Handshake, Services};

use word_count::counter_client::CounterClient;
use word_count::counter_server::{Counter, CounterServer};
use word_count::library_client::LibraryClient;
use word_count::library_server::{Library, LibraryServer};
use word_count::words_client::WordsClient;
use word_count::words_server::{Words, WordsServer};
use word_count::{
    CountRequest, Counted, Document, Empty, Found, Line, Offered, Verdict, Word, judge_client,
};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction,
    reason = "generated code answers to its generator"
)]
mod word_count {
    include!("generated/word_count/word_count.v1.rs");
}

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tokio::main]
async fn main() -> Result {
    // A host sets this variable for its plugins.
    let cookie = Handshake::default();
    if cookie.is_met(std::env::var_os(cookie.cookie_key()).as_deref()) {
        return plugin().await;
    }
    for multiplex in [false, true] {
        host(multiplex).await?;
    }
    println!("\nbidirectional: done");
    Ok(())
}

// ── The host ──

async fn host(multiplex: bool) -> Result {
    let sockets = match multiplex {
        false => "each connection has a socket of its own",
        true => "all connections are on one socket",
    };
    println!("\n## With certificates on both sides; {sockets}\n");
    let this_program = std::env::current_exe()?;
    let config = format!(
        "plugins: {{ counter: {{ transport: subprocess, executable: '{}', go_plugin: {{ multiplex: {multiplex} }} }} }}",
        this_program.display()
    );
    let plugins = Plugins::builder()
        .start(Config::parse(&config, Format::Yaml)?)
        .await?;

    // What is offered means something to one process of the plugin: a session is with that.
    let session = plugins.plugin("counter").session().await?;
    streams_both_ways(&session).await?;
    a_closure(&session).await?;
    what_the_plugin_offers(&session).await?;
    the_end_of_the_plugin(&plugins, &session).await?;
    plugins.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

/// What the host offers: a service as for any server of tonic's.
struct Shelf;

#[tonic::async_trait]
impl Library for Shelf {
    type ReadStream = Streamed<Line>;

    async fn read(&self, asked: Request<Document>) -> Result<Response<Self::ReadStream>, Status> {
        let name = asked.into_inner().name;
        let text = match name.as_str() {
            "haiku" => "an old silent pond\na frog jumps into the pond\nsplash silence again",
            "motto" => "the medium is the message",
            "endless" => return Ok(Response::new(Box::pin(endless()))),
            _ => return Err(Status::not_found(format!("there is no document {name}"))),
        };
        println!("   host:   the plugin asks for {name:?}");
        let lines = text.lines().map(|text| Ok(Line { text: text.into() }));
        Ok(Response::new(Box::pin(iter(lines))))
    }
}

async fn streams_both_ways(session: &Session) -> Result {
    println!("1. The plugin counts two documents, which it has the host read to it.");
    let offer = session.serve(LibraryServer::new(Shelf)).await?;
    // It is told under which number to find the host.
    let count = CountRequest {
        documents: vec!["haiku".into(), "motto".into()],
        library: offer.id(),
        judge: 0,
    };
    let mut counts = CounterClient::new(session.clone())
        .count(count)
        .await?
        .into_inner();
    while let Some(counted) = counts.message().await? {
        println!(
            "   plugin: {:?} has {} words",
            counted.document, counted.words
        );
    }
    // Nothing is offered any more when this is dropped.
    drop(offer);
    Ok(())
}

async fn a_closure(session: &Session) -> Result {
    println!("2. A closure of the host says which words count. It keeps count itself.");
    let mut asked = 0;
    let judge = Callbacks::new().unary("/word_count.v1.Judge/Counts", move |word: Word| {
        asked += 1;
        let counts = !matches!(word.text.as_str(), "the" | "is" | "a" | "an");
        if !counts {
            println!(
                "   host:   {:?} does not count; that was question {asked}",
                word.text
            );
        }
        async move { Ok(Verdict { counts }) }
    });
    let (judge, library) = (
        session.serve(judge).await?,
        session.serve(LibraryServer::new(Shelf)).await?,
    );
    let count = CountRequest {
        documents: vec!["motto".into()],
        library: library.id(),
        judge: judge.id(),
    };
    let mut counts = CounterClient::new(session.clone())
        .count(count)
        .await?
        .into_inner();
    while let Some(counted) = counts.message().await? {
        println!(
            "   plugin: {:?} has {} words that count",
            counted.document, counted.words
        );
    }
    Ok(())
}

async fn what_the_plugin_offers(session: &Session) -> Result {
    println!("3. The plugin offers what it knows about words, and the host asks.");
    let offered = CounterClient::new(session.clone()).open(Empty {}).await?;
    let channel = session.connect(offered.into_inner().words).await?;
    let mut words = WordsClient::new(channel);
    for text in ["pond", "message", "tower"] {
        let found = words.frequency(Word { text: text.into() }).await?;
        println!(
            "   plugin: {text:?} was there {} times",
            found.into_inner().times
        );
    }
    Ok(())
}

/// A document without an end.
fn endless() -> impl Stream<Item = Result<Line, Status>> + Send {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            println!("   host:   the plugin reads no more");
        }
    }
    let ends = Ends;
    let lines = iter(std::iter::repeat_with(|| Ok(Line { text: "and".into() })));
    println!("   host:   the plugin begins to read what has no end");
    lines.map(move |line| {
        let _ = &ends;
        line
    })
}

async fn the_end_of_the_plugin(plugins: &Plugins, session: &Session) -> Result {
    println!("4. The plugin is killed while it reads a document without an end.");
    let offer = session.serve(LibraryServer::new(Shelf)).await?;
    let count = |documents: &[&str], library| CountRequest {
        documents: documents.iter().copied().map(str::to_owned).collect(),
        library,
        judge: 0,
    };
    let mut counter = CounterClient::new(session.clone());
    let asked = count(&["motto", "endless"], offer.id());
    let mut counts = counter.count(asked).await?.into_inner();
    if let Some(counted) = counts.message().await? {
        println!(
            "   plugin: {:?} has {} words",
            counted.document, counted.words
        );
    }
    // It kills itself: a plugin that crashes is the same to its host.
    let end = count(&["crash"], offer.id());
    drop(CounterClient::new(session.clone()).count(end).await);
    let Err(lost) = counts.message().await else {
        return Err("the call outlived its process".into());
    };
    let exited = Exited::find(&lost).ok_or("the error does not say how the process ended")?;
    println!("   host:   the call ended: signal {:?}", exited.signal());

    let Err(refused) = session.serve(LibraryServer::new(Shelf)).await else {
        return Err("the session outlived its process".into());
    };
    println!("   host:   {refused}");
    let session = plugins.plugin("counter").session().await?;
    let offer = session.serve(LibraryServer::new(Shelf)).await?;
    let counts = CounterClient::new(session)
        .count(count(&["haiku"], offer.id()))
        .await?;
    if let Some(counted) = counts.into_inner().message().await? {
        println!(
            "   plugin: {:?} has {} words, as ever",
            counted.document, counted.words
        );
    }
    Ok(())
}

// ── The plugin ──

async fn plugin() -> Result {
    let plugin = tower_plugins_sdk::Plugin::new("counter", env!("CARGO_PKG_VERSION"));
    let counts = Counts {
        broker: plugin.broker(),
        found: Arc::default(),
    };
    plugin.service(CounterServer::new(counts)).serve().await?;
    Ok(())
}

/// What the plugin serves.
#[derive(Clone)]
struct Counts {
    /// The way back to the host.
    broker: Broker,
    found: Arc<Mutex<BTreeMap<String, u32>>>,
}

#[tonic::async_trait]
impl Counter for Counts {
    type CountStream = Streamed<Counted>;

    async fn count(
        &self,
        asked: Request<CountRequest>,
    ) -> Result<Response<Self::CountStream>, Status> {
        let (this, asked) = (self.clone(), asked.into_inner());
        let (counted, counts) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Err(status) = this.count_each(asked, &counted).await {
                drop(counted.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(counts))))
    }

    async fn open(&self, _: Request<Empty>) -> Result<Response<Offered>, Status> {
        let words = Services::new().service(WordsServer::new(self.clone()));
        let offer = self.broker.serve(words).await.map_err(failed)?;
        let words = offer.until_the_end();
        Ok(Response::new(Offered { words }))
    }
}

impl Counts {
    async fn count_each(
        &self,
        asked: CountRequest,
        counted: &mpsc::Sender<Result<Counted, Status>>,
    ) -> Result<(), Status> {
        if asked.documents == ["crash"] {
            std::process::abort();
        }
        let library = self.broker.connect(asked.library).await.map_err(failed)?;
        let mut library = LibraryClient::new(library);
        let mut judge = match asked.judge {
            0 => None,
            judge => {
                let judge = self.broker.connect(judge).await.map_err(failed)?;
                Some(judge_client::JudgeClient::new(judge))
            }
        };
        for name in asked.documents {
            let document = name.clone();
            let mut lines = library.read(Document { name }).await?.into_inner();
            let mut words = 0;
            while let Some(line) = lines.message().await? {
                for word in line.text.split_whitespace() {
                    let text = word.to_owned();
                    if let Some(judge) = &mut judge
                        && !judge.counts(Word { text }).await?.into_inner().counts
                    {
                        continue;
                    }
                    words += 1;
                    let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                    *found.entry(word.to_owned()).or_default() += 1;
                }
            }
            drop(counted.send(Ok(Counted { document, words })).await);
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Words for Counts {
    async fn frequency(&self, word: Request<Word>) -> Result<Response<Found>, Status> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let times = found.get(&word.into_inner().text).copied().unwrap_or(0);
        Ok(Response::new(Found { times }))
    }
}

fn failed(error: impl std::error::Error) -> Status {
    Status::unavailable(error.to_string())
}
