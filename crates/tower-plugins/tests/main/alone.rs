//! Tests that measure the process they run in.

use std::alloc::System;
use std::process::Command;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Handle;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Runs the body of the test `name` in a process of its own, where no other test counts.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    alone_with(name, &[], test);
}

/// As `alone`, where these variables are set.
pub(crate) fn alone_with(name: &str, variables: &[(&str, &str)], test: impl FnOnce()) {
    const ALONE: &str = "TOWER_PLUGINS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        // On the harness's own thread, which would else keep its books while the test counts.
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .envs(variables.iter().copied())
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

    /// Bytes that are allocated.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// No more tasks and descriptors than `before`, and no more memory but for `percent` of it.
    pub(crate) fn assert_like(&self, before: &Self, percent: f64) {
        let more = |now: usize, before: usize| (now as f64 / before as f64 - 1.0) * 100.0;
        assert_eq!(self.tasks, before.tasks);
        assert_eq!(self.descriptors, before.descriptors);
        let allocations = more(self.allocations, before.allocations);
        let bytes = more(self.bytes, before.bytes);
        println!(
            "{before:?} before, {self:?} after: {allocations:+.2} % allocations, {bytes:+.2} % bytes"
        );
        assert!(
            allocations < percent,
            "{allocations} % more allocations live"
        );
        assert!(bytes < percent, "{bytes} % more bytes live");
    }
}

/// What `work` gives, and the bytes that were allocated meanwhile, whether freed since or not.
pub(crate) fn allocated<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATOR.stats().bytes_allocated;
    let done = work();
    (done, ALLOCATOR.stats().bytes_allocated - before)
}
