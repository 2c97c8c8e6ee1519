#![cfg(unix)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tower_plugins::Plugins;

use crate::subprocess::{PID, ask, pid, python, start, until_gone};
use crate::support::{causes, config, within};

/// What the Python expression `what` is in a plugin with `keys`.
async fn found(what: &str, keys: &str) -> Value {
    let plugins = start(&format!("serve(lambda _: {what})"), keys).await;
    ask(&plugins, "1").await.unwrap()
}

#[tokio::test]
async fn executable_is_the_program_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugins.yaml");
    let link = folder.path().join("interpreter");
    std::os::unix::fs::symlink(crate::subprocess::interpreter(), &link).unwrap();
    for executable in ["./interpreter", link.to_str().unwrap()] {
        let args = serde_json::to_string(&crate::subprocess::args(PID)).unwrap();
        let yaml = format!(
            "plugins: {{ p: {{ transport: exec-json, executable: '{executable}', args: {args} }} }}"
        );
        std::fs::write(&file, yaml).unwrap();
        let plugins = Plugins::builder()
            .start(tower_plugins::config::Config::from_file(&file).unwrap())
            .await
            .unwrap();
        pid(&plugins).await;
    }
}

#[tokio::test]
async fn args_are_what_the_program_is_given() {
    let args = crate::subprocess::args("serve(lambda _: sys.argv[1:])");
    let more = ["a b", "*", ";", ""].map(str::to_owned);
    let args = serde_json::to_string(&[&args[..], &more].concat()).unwrap();
    let python = crate::subprocess::interpreter();
    let keys = format!("transport: exec-json, executable: '{python}', args: {args}");
    let plugins = config(&format!("plugins: {{ p: {{ {keys} }} }}"));
    let plugins = Plugins::builder().start(plugins).await.unwrap();
    assert_eq!(
        ask(&plugins, "1").await.unwrap(),
        json!(["a b", "*", ";", ""])
    );
}

#[tokio::test]
async fn env_is_added_to_what_the_program_finds() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from a file\n").unwrap();
    let env = format!("env: {{ A: one, B: 'file:{}' }}", file.path().display());
    let both = found("[os.environ['A'], os.environ['B']]", &env).await;
    assert_eq!(both, json!(["one", "from a file"]));
    let listed = found("os.environ['A']", "env: ['A=b=c']").await;
    assert_eq!(listed, "b=c");
    let yaml = format!("plugins: {{ p: {{ {}, env: [A=hunter2] }} }}", python(PID));
    assert!(!format!("{:?}", config(&yaml)).contains("hunter2"));
}

#[tokio::test]
async fn work_dir_is_where_the_program_begins() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let here = found("os.getcwd()", &format!("work_dir: '{}'", folder.display())).await;
    assert_eq!(here, folder.to_str().unwrap());
    let usual = std::env::current_dir().unwrap();
    assert_eq!(found("os.getcwd()", "").await, usual.to_str().unwrap());
}

#[tokio::test]
async fn process_is_this_plugins_alone() {
    let code =
        python("serve(lambda _: 'HOME' in os.environ and 'CARGO_MANIFEST_DIR' in os.environ)");
    let yaml = format!(
        "plugins: {{ p: {{ {code}, process: {{ inherit_env: true }} }}, q: {{ {code} }} }}"
    );
    let plugins = Plugins::builder().start(config(&yaml)).await.unwrap();
    for (name, answer) in [("p", "true"), ("q", "false")] {
        let plugin = plugins.plugin(name);
        let text = crate::support::text(&plugin, crate::support::post("/", "1")).await;
        assert_eq!(text.unwrap(), answer);
    }
}

#[tokio::test]
async fn instances_is_how_many_processes_run() {
    let code = "
def answer(_):
    time.sleep(0.2)
    return os.getpid()
serve(answer)
";
    let plugins = start(
        code,
        "process: { instances: 3 }, load_balancing: { strategy: round-robin }",
    );
    let plugins = plugins.await;
    let asks = (0..3).map(|_| ask(&plugins, "1"));
    let pids = futures_util::future::join_all(asks).await;
    let pids: BTreeSet<_> = pids.into_iter().map(|pid| pid.unwrap().as_u64()).collect();
    assert_eq!(pids.len(), 3);
}

#[tokio::test]
async fn inherit_env_passes_on_all_but_what_is_the_protocols() {
    let names = "sorted(os.environ)";
    let all = found(names, "process: { inherit_env: true }").await;
    let few = found(names, "").await;
    let (all, few) = (all.as_array().unwrap(), few.as_array().unwrap());
    assert!(all.contains(&json!("CARGO_MANIFEST_DIR")) && all.contains(&json!("PATH")));
    assert!(few.contains(&json!("PATH")) && !few.contains(&json!("CARGO_MANIFEST_DIR")));
    // Python adds one when there is no locale.
    let known = [
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ];
    for name in few {
        let name = name.as_str().unwrap();
        assert!(known.contains(&name) || name.starts_with("LC_"), "{name}");
    }
}

#[tokio::test]
async fn checksum_is_what_the_programs_bytes_must_be() {
    let wrong = format!("sha256:{}", "0".repeat(64));
    let plugins = start(PID, &format!("process: {{ checksum: '{wrong}' }}")).await;
    let error = causes(&ask(&plugins, "1").await.unwrap_err());
    assert!(error.contains("checksum"), "{error}");
    if cfg!(target_os = "linux") {
        let right = error.split("it is ").nth(1).unwrap();
        let right = right.split('.').next().unwrap();
        let plugins = start(PID, &format!("process: {{ checksum: '{right}' }}")).await;
        pid(&plugins).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_is_whether_a_new_executable_takes_the_place_of_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugins.yaml");
    let put = |code: &str| {
        let beside = folder.path().join("new");
        std::fs::write(&beside, crate::subprocess::script_of(code)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&beside, mode).unwrap();
        std::fs::rename(beside, folder.path().join("plugin")).unwrap();
    };
    let yaml = |watch: bool| {
        let keys = "transport: exec-json, executable: ./plugin, start: ready, start_timeout: 1s, retry: off";
        format!("plugins: {{ p: {{ {keys}, process: {{ watch: {watch} }} }} }}")
    };
    put("serve(lambda _: 'one')");
    std::fs::write(&file, yaml(true)).unwrap();
    let plugins = Plugins::builder().watch(&file).await.unwrap();
    let answers = async |wanted: &str| {
        within(async {
            loop {
                // None fails meanwhile.
                let answer = ask(&plugins, "1").await.unwrap();
                if answer == wanted {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    answers("one").await;
    put("serve(lambda _: 'two')");
    answers("two").await;

    // One that does not run is refused.
    std::fs::write(folder.path().join("bad"), "#!/nowhere/at-all\n").unwrap();
    std::fs::rename(folder.path().join("bad"), folder.path().join("plugin")).unwrap();
    let mut status = plugins.subscribe();
    within(status.wait_for(|status| status.last_error.is_some()))
        .await
        .unwrap();
    assert_eq!(ask(&plugins, "1").await.unwrap(), "two");

    put("serve(lambda _: 'three')");
    answers("three").await;
    let generation = plugins.status().generation;
    std::fs::write(&file, yaml(false)).unwrap();
    within(status.wait_for(|status| status.generation > generation))
        .await
        .unwrap();
    answers("three").await;
    put("serve(lambda _: 'four')");
    let report = plugins.reload(tower_plugins::config::Config::from_file(&file).unwrap());
    report.await.unwrap();
    assert_eq!(ask(&plugins, "1").await.unwrap(), "three");
}

#[tokio::test]
#[ignore = "with a standard input of its own"]
async fn that_reads() {
    for stdin in ["none", "inherit", "terminal"] {
        let fake = crate::subprocess::fake::Fake::new();
        let keys = fake.keys("read line; echo \"$line\" >\"$0.read\"; say; stay");
        let keys =
            format!("{keys}, go_plugin: {{ auto_mtls: false }}, process: {{ stdin: {stdin} }}");
        let take = |mut terminal: tower_plugins::transport::subprocess::Terminal| {
            tokio::spawn(async move {
                let typed = tokio::io::AsyncWriteExt::write_all(&mut terminal, b"typed\n");
                typed.await.unwrap();
            });
        };
        let plugins = crate::subprocess::terminal::start(&keys, take).await;
        let called = crate::subprocess::fake::called(&plugins);
        assert_eq!(within(called).await.unwrap(), "/hello");
        let read = std::fs::read_to_string(fake.folder().join("environment.read"));
        println!("{stdin} read: {:?}", read.unwrap());
    }
}

#[test]
fn stdin_is_what_a_program_reads_that_is_not_asked_there() {
    use std::io::Write;
    use std::process::{Command, Stdio};

    let mut host = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "effect::process::that_reads",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    host.stdin.take().unwrap().write_all(b"a word\n").unwrap();
    let said = host.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains(r#"none read: "\n""#), "{said}");
    assert!(said.contains(r#"inherit read: "a word\n""#), "{said}");
    assert!(said.contains(r#"terminal read: "typed\n""#), "{said}");
}

#[tokio::test]
async fn umask_is_what_files_of_the_program_do_not_get() {
    let mask = "os.umask(0)";
    assert_eq!(found(mask, "process: { umask: '0137' }").await, 0o137);
    assert_ne!(found(mask, "").await, 0o137);
}

#[tokio::test]
async fn no_new_privileges_is_whether_a_program_can_become_another_user() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let bit = "[line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')][0].split()[1]";
    assert_eq!(found(bit, "").await, "1");
    // What this process may not do, it cannot let others do.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("NoNewPrivs:"));
    let off = found(bit, "process: { no_new_privileges: false }").await;
    assert_eq!(off, own.unwrap().trim());
}

#[tokio::test]
async fn pid_namespace_is_whether_a_program_is_the_first_of_its_processes() {
    if crate::subprocess::namespaces() {
        assert_eq!(
            found("os.getpid()", "process: { pid_namespace: true }").await,
            1
        );
        assert_ne!(found("os.getpid()", "").await, 1);
    }
}

#[tokio::test]
async fn stop_timeout_is_how_long_a_program_may_take_to_end() {
    let code = "
signal.signal(signal.SIGTERM, signal.SIG_IGN)
serve(lambda _: os.getpid())
time.sleep(60)
";
    for (keys, least) in [("0s", 0), ("700ms", 700)] {
        let plugins = start(code, &format!("process: {{ stop_timeout: {keys} }}")).await;
        let first = pid(&plugins).await;
        let begun = Instant::now();
        drop(plugins);
        until_gone(first).await;
        assert!(begun.elapsed() >= Duration::from_millis(least));
    }
}

#[tokio::test]
async fn idle_timeout_is_how_long_a_program_runs_without_a_call() {
    let plugins = start(PID, "process: { idle_timeout: 300ms }").await;
    let first = pid(&plugins).await;
    let begun = Instant::now();
    until_gone(first).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_ne!(pid(&plugins).await, first);
    let plugins = start(PID, "").await;
    let first = pid(&plugins).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pid(&plugins).await, first);
}

#[tokio::test]
async fn restart_is_when_a_program_that_ended_is_started_again() {
    let code = "
asked = json.loads(sys.stdin.readline())
print(json.dumps({'id': asked['id'], 'result': 1}), flush=True)
sys.exit(asked['payload'])
";
    for (restart, code_of_exit, again) in [
        ("always", "0", true),
        ("on-failure", "0", false),
        ("on-failure", "3", true),
        ("never", "3", false),
    ] {
        let plugins = start(code, &format!("process: {{ restart: {restart} }}")).await;
        ask(&plugins, code_of_exit).await.unwrap();
        let next = async {
            loop {
                match ask(&plugins, code_of_exit).await {
                    Ok(_) => return true,
                    Err(error) if causes(&error).contains("`process.restart` says") => {
                        return false;
                    }
                    // It is about to end.
                    Err(_) => {}
                }
            }
        };
        assert_eq!(within(next).await, again, "{restart} after {code_of_exit}");
    }
}

/// What a call fails with in the end, of a program that ends at once, and how long that took.
async fn in_the_end(keys: &str) -> (String, Duration) {
    let plugins = start("sys.exit(1)", &format!("process: {{ {keys} }}")).await;
    loop {
        let error = ask(&plugins, "1").await.unwrap_err();
        if causes(&error).contains("ended more than") {
            return (causes(&error), error.retry_after().unwrap());
        }
    }
}

#[tokio::test]
async fn max_restarts_is_how_often_a_program_is_started_again() {
    for limit in [1, 3] {
        let (error, _) = within(in_the_end(&format!("max_restarts: {limit}"))).await;
        assert!(
            error.contains(&format!("more than {limit} times in 60s")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn restart_window_is_the_time_in_which_restarts_are_counted() {
    let (error, wait) = within(in_the_end("max_restarts: 1, restart_window: 2h")).await;
    assert!(error.contains("in 7200s"), "{error}");
    assert!(wait > Duration::from_secs(7_000), "{wait:?}");
}

#[tokio::test]
async fn start_timeout_is_how_long_a_plugin_may_take_to_say_where_it_is() {
    let fake = crate::subprocess::fake::Fake::new();
    let keys = "go_plugin: { auto_mtls: false }, process: { start_timeout: 70ms, max_restarts: 1 }";
    let keys = format!("{}, {keys}", fake.keys("stay"));
    let plugins = crate::subprocess::fake::start(&keys).await;
    let error = within(crate::subprocess::fake::called(&plugins)).await;
    let text = causes(&error.unwrap_err());
    assert!(text.contains("start_timeout, 70ms"), "{text}");
}
