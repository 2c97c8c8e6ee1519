//! Instruction counts: the bench runs itself under callgrind, which collects only while the measured
//! loop runs, on the thread that runs it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::harness::{Calls, Run, Variant};

/// The word with which the bench starts itself.
pub(crate) const COMMAND: &str = "count";

/// Instructions a call of `variant`; `None` without valgrind. With `profile`, callgrind's output
/// stays in that directory.
pub(crate) fn instructions(
    group: &str,
    variant: &str,
    calls: u64,
    profile: Option<&Path>,
) -> Result<Option<f64>> {
    let directory = tempfile::tempdir()?;
    let directory = match profile {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            directory
        }
        None => directory.path(),
    };
    let output = directory.join(format!("callgrind.{group}.{variant}"));
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--quiet"])
        .arg("--toggle-collect=*bench_measured_loop*")
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(std::env::current_exe()?)
        .args([COMMAND, group, variant])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
        Ok(status) if !status.success() => {
            return Err(format!("{group} {variant} under callgrind: {status}").into());
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(output)?;
    let total = text
        .lines()
        .filter_map(|line| line.strip_prefix("totals: "))
        .find_map(|total| total.trim().parse().ok());
    Ok(total.map(|total: u64| crate::harness::as_float(total) / crate::harness::as_float(calls)))
}

/// What callgrind runs.
pub(crate) fn run_counted(variants: &[Variant], name: &str, calls: Option<u64>) -> Result {
    let mut variants = variants.iter();
    let variant = variants
        .find(|variant| variant.name == name)
        .ok_or_else(|| format!("there is no variant {name}"))?;
    let calls = match variant.calls {
        Calls::Counted(usual) => calls.unwrap_or(usual),
        _ => calls.ok_or_else(|| format!("{name} is not counted"))?,
    };
    let mut run = (variant.make)()?;
    crate::harness::uncounted(|| {
        // The first calls connect, register and calibrate.
        run(calls.div_ceil(4))?;
        bench_measured_loop(&mut run, calls)
    })?
}

/// Collection is on while this runs; callgrind knows it by its name.
#[inline(never)]
fn bench_measured_loop(run: &mut Run, calls: u64) -> Result {
    std::hint::black_box(run(calls)).map(drop)
}
