//! What a drain costs those who wait for it, and those who have nothing to do with it.

use std::convert::Infallible;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::service_fn;
use tower_plugins::config::{Config, Format};
use tower_plugins::{Body, Plugins};
use tower_service::Service;

use super::{Group, full};
use crate::Result;
use crate::harness::{Calls, Run, Sample, Variant, runtime};

pub(super) const GROUP: Group = Group {
    name: "drain",
    about: "Wall time. `last-byte-to-noticed`: from the end of the last response's body, on one thread, to where the drain was waited for, on another; `of-nothing`: of a drain without a call under way; `neighbour-…`: of a call to another plugin, in quiet and while one drains 1 000 streams and its progress is followed.",
    variants,
    prepare: None,
    summary: None,
};

const QUIET: &str = "neighbour-in-quiet";

const STREAMS: usize = 1000;

fn variants() -> Vec<Variant> {
    vec![
        Variant::new("last-byte-to-noticed", "", Calls::Few(20), noticed).without_floor(),
        Variant::new("of-nothing", "", Calls::Few(200), of_nothing).without_floor(),
        Variant::new(QUIET, QUIET, Calls::Few(5000), || neighbour(0)),
        Variant::new(
            "neighbour-of-a-drain-of-1000",
            QUIET,
            Calls::Few(5000),
            || neighbour(STREAMS),
        ),
    ]
}

const CONFIG: &str = "
plugins:
  streams: { transport: in-process, endpoint: stream, connection: { request_timeout: off } }
  neighbour: { transport: in-process, endpoint: answer }
";

async fn start() -> Result<Plugins> {
    let stream = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::new(Endless)))
    });
    let builder = Plugins::builder()
        .service("stream", stream)
        .service("answer", full::null());
    Ok(builder.start(Config::parse(CONFIG, Format::Yaml)?).await?)
}

/// A body of which nothing comes: it ends when it is dropped.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

async fn stream(plugins: &Plugins) -> Result<Body> {
    let mut plugin = plugins.plugin("streams");
    Ok(plugin.call(full::request()).await?.into_body())
}

fn noticed() -> Result<Run> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let plugins = runtime.block_on(start())?;
    Ok(Box::new(move |calls| {
        let mut time = Duration::ZERO;
        for _ in 0..calls {
            let body = runtime.block_on(stream(&plugins))?;
            let drain = plugins.drain("streams");
            let (waits, begun) = oneshot::channel::<()>();
            let noticed = runtime.spawn(async move {
                let mut drain = drain.into_future();
                let mut waits = Some(waits);
                let drained = std::future::poll_fn(|cx| {
                    let polled = drain.as_mut().poll(cx);
                    drop(waits.take());
                    polled
                });
                drained.await.map(|_| Instant::now())
            });
            // Dropped once it is waited for.
            let _ = runtime.block_on(begun);
            let ended = Instant::now();
            drop(body);
            time += runtime.block_on(noticed)?? - ended;
            runtime.block_on(plugins.enable("streams").into_future())?;
        }
        Ok(Some(time.into()))
    }))
}

fn of_nothing() -> Result<Run> {
    let runtime = runtime()?;
    let plugins = runtime.block_on(start())?;
    Ok(Box::new(move |calls| {
        let mut time = Duration::ZERO;
        for _ in 0..calls {
            let begun = Instant::now();
            runtime.block_on(plugins.drain("streams").into_future())?;
            time += begun.elapsed();
            runtime.block_on(plugins.enable("streams").into_future())?;
        }
        Ok(Some(time.into()))
    }))
}

/// Calls while another plugin drains so many streams; none is no drain.
fn neighbour(streams: usize) -> Result<Run> {
    let runtime = runtime()?;
    let plugins = runtime.block_on(start())?;
    let mut tasks = JoinSet::new();
    runtime.block_on(async {
        for _ in 0..streams {
            let body = stream(&plugins).await?;
            tasks.spawn(async move { drop(body.collect().await) });
        }
        if streams > 0 {
            let drain = plugins.drain("streams").timeout(Duration::from_secs(3600));
            if let Some(mut progress) = drain.progress() {
                tasks.spawn(async move { while progress.next().await.is_some() {} });
            }
            tasks.spawn(async move { drop(drain.await) });
        }
        // All of them wait.
        tokio::task::yield_now().await;
        Ok::<_, crate::BoxError>(())
    })?;
    let mut neighbour = plugins.plugin("neighbour");
    Ok(Box::new(move |calls| {
        if plugins.active_requests("streams") != streams || tasks.len() < streams {
            return Err("the streams are not under way".into());
        }
        let begun = Instant::now();
        runtime.block_on(async {
            for _ in 0..calls {
                full::drain(neighbour.call(full::request()).await?).await?;
            }
            Ok::<_, crate::BoxError>(())
        })?;
        Ok(Some(Sample::from(begun.elapsed())))
    }))
}
