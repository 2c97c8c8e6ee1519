use super::*;
use crate::config::Number;

fn written(controller: &str, is_v2: bool) -> Vec<String> {
    let limits = ProcessLimits {
        memory: Some(1 << 28),
        cpu: Number::new(1.5),
        pids: Some(7),
        cgroup: None,
    };
    let settings = settings(controller, &limits, is_v2).into_iter();
    let shown = settings.map(|one| format!("{}={}", one.file, one.value));
    shown.collect()
}

/// Version 2 with these controllers is not on every machine that runs the tests.
#[test]
fn a_limit_is_what_the_kernel_calls_it_in_either_version() {
    let memory = [
        "memory.max=268435456",
        "memory.swap.max=0",
        "memory.oom.group=1",
    ];
    assert_eq!(written("memory", true), memory);
    let memory = [
        "memory.limit_in_bytes=268435456",
        "memory.memsw.limit_in_bytes=268435456",
    ];
    assert_eq!(written("memory", false), memory);
    assert_eq!(written("cpu", true), ["cpu.max=150000 100000"]);
    let cpu = ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"];
    assert_eq!(written("cpu", false), cpu);
    assert_eq!(written("pids", true), ["pids.max=7"]);
}
