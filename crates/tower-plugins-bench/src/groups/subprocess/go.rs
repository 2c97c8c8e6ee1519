//! The host in Go, which measures itself.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::{Measures, Program, What};
use crate::Result;
use crate::harness::Sample;

/// It ends when its input does.
pub(super) struct GoHost {
    process: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl GoHost {
    pub(super) fn start(host: &Path, plugin: &Program, auto_mtls: bool) -> Result<Self> {
        let mut process = Command::new(host)
            .args(["host", "-bench"])
            .args(auto_mtls.then_some("-automtls"))
            .arg("--")
            .arg(&plugin.0)
            .arg(plugin.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let ask = process.stdin.take();
        let answers = process.stdout.take().ok_or("the host has no output")?;
        Ok(Self {
            process,
            ask,
            answers: BufReader::new(answers),
        })
    }
}

impl Measures for GoHost {
    fn measure(&mut self, what: What, count: u64) -> Result<Sample> {
        let ask = self.ask.as_mut().ok_or("the host has no input")?;
        writeln!(ask, "{} {count}", what.word())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim_end().parse()?).into())
    }
}

impl Drop for GoHost {
    fn drop(&mut self) {
        self.ask = None;
        // It ends with its plugin.
        let _ = self.process.wait();
    }
}
