//! `process.limits` and `process.rlimits`.

#![cfg(target_os = "linux")]

use serde_json::{Value, json};
use tower_plugins::transport::subprocess::Exited;

use crate::subprocess::limits::{cgroup_of, has};
use crate::subprocess::{ask, start};
use crate::support::causes;

/// What the Python expression `what` is in a plugin with these limits.
async fn found(what: &str, limits: &str) -> Value {
    let code = format!("serve(lambda _: {what})");
    let plugins = start(&code, &format!("process: {{ {limits} }}")).await;
    ask(&plugins, "1").await.unwrap()
}

const IN_GROUPS: &str = "open('/proc/self/cgroup').read()";

#[tokio::test]
async fn limits_are_of_a_cgroup_of_the_processes_own() {
    if has(None) {
        let is_own = async |keys: &str| {
            let groups = found(IN_GROUPS, keys).await;
            groups.as_str().unwrap().contains("/tower-plugins-")
        };
        assert!(is_own("limits: {}").await);
        assert!(!is_own("").await);
    }
}

#[tokio::test]
async fn memory_is_what_it_may_use_before_it_is_killed() {
    if !has(Some("memory")) {
        return;
    }
    let code = "serve(lambda n: len(b'x' * n))";
    let plugins = start(code, "process: { limits: { memory: 64MiB } }").await;
    assert_eq!(ask(&plugins, "1000000").await.unwrap(), 1_000_000);
    let error = ask(&plugins, "200000000").await.unwrap_err();
    let exited = Exited::find(&error).unwrap_or_else(|| panic!("{}", causes(&error)));
    assert!(exited.is_out_of_memory(), "{exited}");
    let said = causes(&error);
    assert!(said.contains("needed more memory"), "{said}");
}

#[tokio::test]
async fn cpu_is_the_share_of_processors_that_it_gets() {
    if !has(Some("cpu")) {
        return;
    }
    // Two tenths of a second of work in a tenth of a processor, of which the first piece is free.
    let code = "
def work(_):
    begun, until = time.monotonic(), time.process_time() + 0.05
    while time.process_time() < until:
        pass
    return time.monotonic() - begun
serve(work)
";
    let plugins = start(code, "process: { limits: { cpu: 0.1 } }").await;
    let mut took = 0.0;
    for _ in 0..4 {
        took += ask(&plugins, "1").await.unwrap().as_f64().unwrap();
    }
    assert!(took > 1.0, "{took}");
}

#[tokio::test]
async fn pids_is_how_many_processes_there_may_be() {
    if !has(Some("pids")) {
        return;
    }
    let code = "
def begin(n):
    begun = 0
    for _ in range(n):
        try:
            if os.fork() == 0:
                time.sleep(60)
        except OSError as error:
            return [begun, error.errno]
        begun += 1
    return [begun, 0]
serve(begin)
";
    let plugins = start(code, "process: { limits: { pids: 5 } }").await;
    let again = 11;
    assert_eq!(ask(&plugins, "20").await.unwrap(), json!([4, again]));
}

#[tokio::test]
async fn cgroup_is_the_one_in_which_theirs_is_made() {
    if !has(None) {
        return;
    }
    let own = cgroup_of("0::");
    let made = |keys: &'static str| async move {
        let groups = found(IN_GROUPS, &format!("limits: {{ {keys} }}")).await;
        let groups = groups.as_str().unwrap().to_owned();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        group.unwrap().rsplit_once('/').unwrap().0.to_owned()
    };
    assert_eq!(made("").await, own.trim_end_matches('/'));
    assert_eq!(made("cgroup: /").await, "");
    assert_eq!(made("cgroup: ../../../..").await, "");
}

/// What the soft and the hard limit `name` of a plugin is.
async fn limit(name: &str, keys: &str) -> Value {
    let what =
        format!("list(__import__('resource').getrlimit(__import__('resource').RLIMIT_{name}))");
    found(&what, &format!("rlimits: {{ {keys} }}")).await
}

#[tokio::test]
async fn rlimits_are_of_the_plugin_alone() {
    let before = limit("NOFILE", "").await;
    assert_eq!(limit("NOFILE", "nofile: 40").await, json!([40, 40]));
    assert_eq!(limit("NOFILE", "").await, before);
}

#[tokio::test]
async fn nofile_is_how_many_descriptors_it_has() {
    let code = "
files = []
def opened(_):
    try:
        while True:
            files.append(open('/dev/null'))
    except OSError as error:
        return [len(files) < 32, error.errno]
serve(opened)
";
    let plugins = start(code, "process: { rlimits: { nofile: 32 } }").await;
    let too_many = 24;
    assert_eq!(ask(&plugins, "1").await.unwrap(), json!([true, too_many]));
}

#[tokio::test]
async fn address_space_is_how_much_it_can_map() {
    let code = "
def map(n):
    try:
        return len(bytearray(n))
    except MemoryError:
        return 'no memory'
serve(map)
";
    let plugins = start(code, "process: { rlimits: { address_space: 512MiB } }").await;
    assert_eq!(ask(&plugins, "1000").await.unwrap(), 1000);
    assert_eq!(ask(&plugins, "1000000000").await.unwrap(), "no memory");
}

#[tokio::test]
async fn core_is_how_long_a_core_file_may_be() {
    assert_eq!(limit("CORE", "core: 0").await, json!([0, 0]));
}

#[tokio::test]
async fn fsize_is_how_long_a_file_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let code = format!(
        "
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def wrote(n):
    try:
        with open({:?}, 'wb', buffering=0) as file:
            return file.write(b'x' * n) + file.write(b'x')
    except OSError as error:
        return error.errno
serve(wrote)
",
        folder.path().join("file")
    );
    let plugins = start(&code, "process: { rlimits: { fsize: 1KiB } }").await;
    assert_eq!(ask(&plugins, "1000").await.unwrap(), 1001);
    let too_long = 27;
    assert_eq!(ask(&plugins, "1024").await.unwrap(), too_long);
}

#[tokio::test]
async fn cpu_of_rlimits_is_the_time_in_its_life() {
    let code = "
def work(forever):
    while forever:
        pass
    return 'rest'
serve(work)
";
    let plugins = start(code, "process: { rlimits: { cpu: 1 } }").await;
    assert_eq!(ask(&plugins, "false").await.unwrap(), "rest");
    let error = ask(&plugins, "true").await.unwrap_err();
    let exited = Exited::find(&error).unwrap_or_else(|| panic!("{}", causes(&error)));
    assert!(matches!(exited.signal(), Some(9 | 24)), "{exited}");
    assert!(!exited.is_out_of_memory());
}

#[tokio::test]
async fn nproc_is_how_many_processes_its_user_may_have() {
    assert_eq!(limit("NPROC", "nproc: 300").await, json!([300, 300]));
}
