//! Tests that measure the process they run in.

use std::alloc::System;
use std::process::Command;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Handle;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs the body of the test `name` in a process of its own, where no other test counts.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "TOWER_PLUGINS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(said.contains("1 passed"), "no test of the name {name} ran");
}

/// What this process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Tasks of the runtime that is asked.
    pub(crate) tasks: usize,
    /// Open descriptors; zero where they cannot be counted.
    pub(crate) descriptors: usize,
    allocations: usize,
    bytes: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let tasks = Handle::current().metrics().num_alive_tasks();
        let stats = ALLOCATOR.stats();
        Self {
            tasks,
            descriptors,
            allocations: stats.allocations - stats.deallocations,
            bytes: stats.bytes_allocated - stats.bytes_deallocated,
        }
    }

    /// No more tasks and descriptors than `before`, and no more memory but for `percent` of it, or
    /// for what the threads of runtime and test harness take when they first come to it: far less
    /// than a byte for each of the calls that these tests make.
    pub(crate) fn assert_like(&self, before: &Self, percent: f64) {
        let more = |now: usize, before: usize| (now as f64 / before as f64 - 1.0) * 100.0;
        assert_eq!(self.tasks, before.tasks);
        assert_eq!(self.descriptors, before.descriptors);
        let allocations = more(self.allocations, before.allocations);
        let bytes = more(self.bytes, before.bytes);
        println!(
            "{before:?} before, {self:?} after: {allocations:+.2} % allocations, {bytes:+.2} % bytes"
        );
        let (more_allocations, more_bytes) = (
            self.allocations.saturating_sub(before.allocations),
            self.bytes.saturating_sub(before.bytes),
        );
        assert!(
            allocations < percent || more_allocations <= 16,
            "{allocations} % more allocations live"
        );
        assert!(
            bytes < percent || more_bytes <= 8 << 10,
            "{bytes} % more bytes live"
        );
    }
}
