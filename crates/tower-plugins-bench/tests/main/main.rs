//! The bench runs, and says what it is to say.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which fail by panicking"
)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Runs `group` without measuring for long; gives its lines by variant.
fn lines(group: &str) -> BTreeMap<String, Value> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines.json");
    let output = Command::new(env!("CARGO_BIN_EXE_tower-plugins-bench"))
        .args([group, "--quick", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let table = String::from_utf8(output.stdout).unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let variant = line["variant"].as_str().unwrap().to_owned();
        assert!(table.contains(&format!("| {variant} |")), "{table}");
        (variant, line)
    });
    lines.collect()
}

/// Asserts that `variant` has every field, and which of them have a value.
#[track_caller]
fn assert_line(lines: &BTreeMap<String, Value>, variant: &str, group: &str, floor: Option<&str>) {
    let line = lines.get(variant).unwrap_or_else(|| panic!("no {variant}"));
    assert_eq!(line["group"], group);
    assert_eq!(line["floor"], Value::from(floor));
    let fields = line.as_object().unwrap();
    for field in [
        "median_ns",
        "ratio",
        "instructions",
        "ratio_instructions",
        "allocations",
    ] {
        let value = fields
            .get(field)
            .unwrap_or_else(|| panic!("{variant}: no {field}"));
        assert!(value.is_null() || value.is_number(), "{variant}: {field}");
    }
}

#[test]
fn inproc_compares_the_full_stack_with_the_bare_service() {
    let lines = lines("inproc");
    for variant in ["bare", "full"] {
        assert_line(&lines, variant, "inproc", Some("bare"));
        assert!(lines[variant]["ratio"].is_number());
        assert!(lines[variant]["allocations"].is_number());
    }
    assert_eq!(lines["bare"]["ratio"], 1.0);
}

#[test]
fn a_layer_is_measured_beside_the_same_of_others() {
    let count = |variant: &str| {
        Command::new(env!("CARGO_BIN_EXE_tower-plugins-bench"))
            .args(["count", "layers", variant, "10"])
            .output()
            .unwrap()
    };
    // Not the whole group: to fill another's window of 100,000 calls takes long.
    for variant in [
        "nothing",
        "nothing-ref",
        "nothing-refused",
        "breaker.ours",
        "breaker.ours-ref",
        "breaker.resilience",
        "breaker-open.ours",
        "breaker-open.resilience",
        "breaker-window-1k.ours",
        "retry.tower",
        "p2c-ewma-1000.ours",
        "p2c-ewma-1000.tower",
    ] {
        let output = count(variant);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{variant}: {said}");
    }
    assert!(!count("breaker.nobody").status.success());
}

#[test]
fn contention_compares_two_threads_with_one() {
    let lines = lines("contention");
    // On a busy machine there may be no round in which both ran all the time.
    assert_line(&lines, "full-1-thread", "contention", Some("full-1-thread"));
    assert_line(
        &lines,
        "full-2-threads",
        "contention",
        Some("full-1-thread"),
    );
}

#[test]
fn loopback_compares_clients_over_each_wire() {
    let lines = lines("loopback");
    for wire in ["h1", "h2", "unix"] {
        let floor = format!("raw-{wire}");
        for client in ["raw", "legacy", "full"] {
            let variant = format!("{client}-{wire}");
            assert_line(&lines, &variant, "loopback", Some(&floor));
            assert!(lines[&variant]["ratio"].is_number());
        }
    }
}

#[test]
fn grpc_compares_a_plugin_with_a_channel() {
    let lines = lines("grpc");
    for shape in ["unary", "stream"] {
        let floor = format!("raw-{shape}");
        for client in ["raw", "bare", "full"] {
            let variant = format!("{client}-{shape}");
            assert_line(&lines, &variant, "grpc", Some(&floor));
            assert!(lines[&variant]["ratio"].is_number());
        }
    }
}

#[test]
fn reload_measures_from_the_rename_and_without_the_debounce() {
    let lines = lines("reload");
    for variant in [
        "rename-to-first-call-10",
        "rename-to-first-call-1000",
        "rename-to-first-call-1000-beyond-debounce",
        "swap-1-of-1000",
        "swap-1-of-10000",
        "swap-100-of-10000-planning",
    ] {
        assert_line(&lines, variant, "reload", None);
        assert!(lines[variant]["median_ns"].is_number());
    }
}

#[test]
fn drain_compares_calls_beside_a_drain_with_those_in_quiet() {
    let lines = lines("drain");
    for variant in ["last-byte-to-noticed", "of-nothing"] {
        assert_line(&lines, variant, "drain", None);
        assert!(lines[variant]["median_ns"].is_number());
    }
    let beside = "neighbour-of-a-drain-of-1000";
    assert_line(&lines, beside, "drain", Some("neighbour-in-quiet"));
    assert!(lines[beside]["ratio"].is_number());
}

#[test]
fn rollback_measures_from_the_first_bad_answer() {
    let lines = lines("rollback");
    assert_line(&lines, "first-failure-to-last", "rollback", None);
    assert!(lines["first-failure-to-last"]["median_ns"].is_number());
}

#[test]
fn subprocess_compares_our_host_and_plugin_with_those_of_go() {
    let lines = lines("subprocess");
    if lines.is_empty() {
        // The bench has said that there is no Go, or has failed if there must be one.
        return;
    }
    for what in [
        "spawn",
        "spawn-tls",
        "call",
        "call-tls",
        "flight",
        "flight-tls",
    ] {
        let floor = format!("{what}-go-go");
        for pair in ["go-go", "ours-go", "ours-ours"] {
            let variant = format!("{what}-{pair}");
            assert_line(&lines, &variant, "subprocess", Some(&floor));
            assert!(lines[&variant]["ratio"].is_number());
        }
    }
}
