//! From a changed config to the calls that see it.

use std::fmt::Write;
use std::future::IntoFuture;
use std::path::Path;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::Builder;
use tokio::time::Instant;
use tower::service_fn;
use tower_plugins::config::{Config, Format};
use tower_plugins::reload::{ReloadTimes, Timing};
use tower_plugins::{Body, Plan, Plugin, Plugins};
use tower_service::Service;

use super::Group;
use crate::Result;
use crate::harness::{Calls, Run, Sample, Variant, runtime, thread_cpu};

pub(super) const GROUP: Group = Group {
    name: "reload",
    about: "`rename-to-first-call-N`: wall time from the rename of a changed file of N plugins to the first call that the new graph answers; `-debounce` is the quiet that the watch waits for by design, `-beyond-debounce` the rest. `swap-C-of-N`: CPU time of a reload in code in which C of N plugins changed, and the wall time of its steps; `read-N-FORMAT`: of parsing and validating a text and planning the change of one plugin.",
    variants,
    prepare: None,
    summary: None,
};

fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    for plugins in [10, 100, 1000] {
        let name = format!("rename-to-first-call-{plugins}");
        variants.push(Variant::new(name, "", Calls::Few(1), move || {
            rename(plugins)
        }));
    }
    for plugins in [10, 1000] {
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            let name = format!("read-{plugins}-{format}").to_lowercase();
            variants.push(Variant::new(name, "", Calls::Counted(4), move || {
                read(plugins, format)
            }));
        }
    }
    for (changed, plugins) in [
        (1, 10),
        (1, 100),
        (1, 1000),
        (1, 10_000),
        (10, 1000),
        (100, 10_000),
    ] {
        let name = format!("swap-{changed}-of-{plugins}");
        variants.push(Variant::new(name, "", Calls::Counted(8), move || {
            swap(changed, plugins)
        }));
    }
    variants.into_iter().map(Variant::without_floor).collect()
}

/// The plugin that is changed and called, among plugins as they are found in the field.
fn config(plugins: usize, probe: &str) -> Result<String> {
    let mut text = format!(
        "
default_connection: {{ request_timeout: 2s }}
plugins:
  - name: probe
    transport: in-process
    endpoint: {probe}
"
    );
    for i in 1..plugins {
        let (a, b) = (i / 250, i % 250);
        match i % 4 {
            0 => writeln!(
                text,
                "  - name: search-{i}
    transport: http
    endpoints: [http://10.0.{a}.{b}:8080, http://10.1.{a}.{b}:8080]
    auth: {{ method: bearer, token: token-{i}, allow_plaintext: true }}
    retry: {{ max_retries: 2, idempotent: [/check] }}"
            )?,
            1 => writeln!(
                text,
                "  - name: audit-{i}
    transport: unix
    endpoint: /run/audit-{i}.sock
    rate_limit: {{ requests_per_second: 100, burst_size: 20 }}"
            )?,
            2 => writeln!(
                text,
                "  - name: orders-{i}
    transport: http
    endpoint: http://orders-{i}.internal:8080/v1
    circuit_breaker: {{ failure_threshold: 10, recovery_timeout: 15s }}
    concurrency: {{ max_concurrent: 64 }}"
            )?,
            _ => writeln!(
                text,
                "  - name: local-{i}
    transport: in-process
    endpoint: even
    load_balancing: {{ strategy: round-robin }}"
            )?,
        }
    }
    Ok(text)
}

/// The services between which the probe moves.
const SERVICES: [&str; 2] = ["even", "odd"];

fn builder() -> tower_plugins::Builder {
    let mut builder = Plugins::builder();
    for name in SERVICES {
        let answer = move |_: Request<Body>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(name)))
        };
        builder = builder.service(name, service_fn(answer));
    }
    builder
}

/// How often the probe is called while the file is being taken up.
const PACE: Duration = Duration::from_micros(50);

fn rename(count: usize) -> Result<Run> {
    // The caller's thread is not one of the runtime's, so that its calls do not hold up the reload.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("plugins.yaml");
    std::fs::write(&file, config(count, SERVICES[0])?)?;
    let plugins = runtime.block_on(builder().watch(&file))?;
    let texts = [config(count, SERVICES[0])?, config(count, SERVICES[1])?];
    let mut serves = 0;
    Ok(Box::new(move |calls| {
        let _alive = &directory;
        let mut time = Duration::ZERO;
        for _ in 0..calls {
            serves = 1 - serves;
            let taken = until_answered(&plugins, &file, &texts[serves], SERVICES[serves]);
            time += runtime.block_on(taken)?;
        }
        let debounce = Timing::default().debounce * u32::try_from(calls)?;
        Ok(Some(Sample {
            time,
            parts: vec![
                ("debounce", debounce),
                ("beyond-debounce", time.saturating_sub(debounce)),
            ],
        }))
    }))
}

/// Renames `text` to `file`, and calls until the answer is `expected`.
async fn until_answered(
    plugins: &Plugins,
    file: &Path,
    text: &str,
    expected: &str,
) -> Result<Duration> {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text)?;
    let mut probe = plugins.plugin("probe");
    let renamed = Instant::now();
    std::fs::rename(beside, file)?;
    while ask(&mut probe).await? != expected {
        if renamed.elapsed() > Duration::from_secs(30) {
            return Err(format!("the renamed config is not taken: {:?}", plugins.status()).into());
        }
        std::thread::sleep(PACE);
    }
    let taken = renamed.elapsed();
    let mut status = plugins.subscribe();
    status.wait_for(|status| status.retiring == 0).await?;
    // So that the next change is one that comes alone.
    tokio::time::sleep(Timing::default().min_gap).await;
    Ok(taken)
}

async fn ask(probe: &mut Plugin) -> Result<bytes::Bytes> {
    let response = probe.call(Request::new(Body::empty())).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Parses and validates, and plans what a change of one plugin takes.
fn read(count: usize, format: Format) -> Result<Run> {
    let text = |service| -> Result<String> {
        let yaml = config(count, service)?;
        let source = tower_plugins::config::Source::text(&yaml, Format::Yaml)?;
        let value: serde_json::Value = figment::Figment::from(source).extract()?;
        Ok(match format {
            Format::Json => serde_json::to_string_pretty(&value)?,
            Format::Toml => toml::to_string(&value)?,
            _ => yaml,
        })
    };
    let old = Config::parse(&text(SERVICES[0])?, format)?;
    let text = text(SERVICES[1])?;
    Ok(Box::new(move |calls| {
        let mut sample = Sample {
            time: Duration::ZERO,
            parts: vec![("planning", Duration::ZERO)],
        };
        for _ in 0..calls {
            let begun = thread_cpu();
            let new = Config::parse(&text, format)?;
            let read = thread_cpu();
            std::hint::black_box(Plan::between(&old, &new));
            let planned = thread_cpu();
            sample.time += planned - begun;
            for (_, part) in &mut sample.parts {
                *part += planned - read;
            }
        }
        Ok(Some(sample))
    }))
}

/// As a program changes a config that it has: what it leaves alone is not made anew.
fn swap(changed: usize, count: usize) -> Result<Run> {
    let runtime = runtime()?;
    let config = Config::parse(&config(count, SERVICES[0])?, Format::Yaml)?;
    let mut other = config.clone();
    for spec in other.plugins.values_mut().rev().take(changed) {
        spec.policy.drain_timeout += Duration::from_secs(1);
    }
    let configs = [config, other];
    let plugins = runtime.block_on(builder().start(configs[0].clone()))?;
    let mut serves = 0;
    Ok(Box::new(move |calls| {
        let mut sample = Sample {
            time: Duration::ZERO,
            parts: ["planning", "building", "publishing"]
                .map(|part| (part, Duration::ZERO))
                .to_vec(),
        };
        for _ in 0..calls {
            serves = 1 - serves;
            let config = configs[serves].clone();
            let begun = thread_cpu();
            let report = runtime.block_on(plugins.reload(config).into_future())?;
            sample.time += thread_cpu() - begun;
            let ReloadTimes {
                planning,
                building,
                publishing,
                ..
            } = report.times;
            for ((_, part), took) in sample
                .parts
                .iter_mut()
                .zip([planning, building, publishing])
            {
                *part += took;
            }
            runtime.block_on(report.retirement.wait());
        }
        Ok(Some(sample))
    }))
}
