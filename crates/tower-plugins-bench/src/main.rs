//! What a call and a reload cost.
//!
//! `cargo run --release -p tower-plugins-bench -- GROUP [--json FILE]`
//!
//! `GROUP` is `inproc`, `layers`, `contention`, `loopback`, `grpc`, `subprocess`, `reload`, `drain`, `rollback` or `all`. A Markdown table
//! goes to the standard output, and with `--json` one JSON object per variant to `FILE`. `--quick` measures
//! next to nothing, to see that all works; `--profile DIR` keeps callgrind's output for
//! `callgrind_annotate`.
//!
//! The variants of a group take turns, round by round, in one run. A time is thread CPU time unless
//! the variant says otherwise; instructions are user-space instructions of the calling thread.

mod callgrind;
mod groups;
mod harness;
#[cfg(all(feature = "subprocess", unix))]
mod plugin;
mod report;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::groups::GROUPS;
use crate::harness::Effort;

type BoxError = tower_plugins_layers::BoxError;
type Result<T = (), E = BoxError> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: tower-plugins-bench inproc|layers|contention|loopback|grpc|subprocess|reload|drain|rollback|all [--json FILE] [--quick] [--profile DIR]";

#[derive(Default)]
struct Options {
    words: Vec<String>,
    json: Option<PathBuf>,
    profile: Option<PathBuf>,
    quick: bool,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tower-plugins-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut path = || args.next().map(PathBuf::from).ok_or(USAGE);
        match arg.as_str() {
            "--json" => options.json = Some(path()?),
            "--profile" => options.profile = Some(path()?),
            "--quick" => options.quick = true,
            flag if flag.starts_with('-') => return Err(USAGE.into()),
            _ => options.words.push(arg),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result {
    let words: Vec<_> = options.words.iter().map(String::as_str).collect();
    let wanted = match words[..] {
        ["all"] => GROUPS,
        // What the bench starts of itself: the server of `loopback` and `grpc`, the plugin of
        // `subprocess`, and the loop that is counted.
        [server::COMMAND, wire] => return server::serve(wire),
        #[cfg(all(feature = "subprocess", unix))]
        [plugin::COMMAND] => return plugin::serve(),
        [callgrind::COMMAND, group, variant] => {
            return callgrind::run_counted(&find(group)?.variants(), variant, None);
        }
        // By hand, under a sampling profiler, which needs more calls.
        [callgrind::COMMAND, group, variant, calls] => {
            let calls = Some(calls.parse()?);
            return callgrind::run_counted(&find(group)?.variants(), variant, calls);
        }
        [name] => std::slice::from_ref(find(name)?),
        _ => return Err(USAGE.into()),
    };
    let effort = if options.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let mut lines = Vec::new();
    for group in wanted {
        let rows = harness::measure(group, effort, options.profile.as_deref())?;
        println!("{}", report::markdown(group, &rows));
        lines.extend(rows);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&lines)?)?;
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static groups::Group> {
    let mut groups = GROUPS.iter();
    Ok(groups.find(|group| group.name == name).ok_or(USAGE)?)
}
