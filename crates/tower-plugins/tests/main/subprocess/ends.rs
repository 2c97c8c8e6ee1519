use std::time::Duration;

use tokio::time::Instant;
use tower_plugins::Reason;
use tower_plugins::transport::subprocess::Exited;

use super::{PID, ask, is_there, pid, signal, start, until_gone};
use crate::support::{causes, within};

#[tokio::test]
async fn a_process_that_exits_says_its_code_and_its_last_lines() {
    let code = "
sys.stderr.write('reading the licence\\nno licence\\n')
sys.stderr.flush()
sys.stdin.readline()
sys.exit(3)
";
    let plugins = start(code, "").await;
    let error = ask(&plugins, "1").await.unwrap_err();
    assert_eq!(
        error.reason(),
        Some(Reason::ConnectionLost),
        "{}",
        causes(&error)
    );
    let exited = Exited::find(&error).unwrap();
    assert_eq!((exited.code(), exited.signal()), (Some(3), None));
    assert_eq!(exited.stderr(), ["reading the licence", "no licence"]);
    let said = causes(&error);
    assert!(said.contains("exited with code 3"), "{said}");
    assert!(said.contains("no licence"), "{said}");
}

#[tokio::test]
async fn a_process_that_exits_before_its_first_answer_fails_the_call_with_what_it_said() {
    let code = "
sys.stderr.write('wrong version\\n')
sys.exit(7)
";
    let plugins = start(code, "").await;
    let error = ask(&plugins, "1").await.unwrap_err();
    let exited = Exited::find(&error).unwrap();
    assert_eq!(exited.code(), Some(7), "{}", causes(&error));
    assert_eq!(exited.stderr(), ["wrong version"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_refused_by_its_path() {
    let yaml = "plugins: { p: { transport: exec-json, executable: /nowhere/at-all, retry: off } }";
    let plugins = tower_plugins::Plugins::builder()
        .start(crate::support::config(yaml))
        .await
        .unwrap();
    let error = ask(&plugins, "1").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ConnectFailed));
    let said = causes(&error);
    assert!(said.contains("/nowhere/at-all cannot be run"), "{said}");
}

#[tokio::test]
async fn a_call_under_way_is_told_by_which_signal_its_process_ended() {
    let code = "
def answer(asked):
    if asked:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()
serve(answer)
";
    let plugins = start(code, "").await;
    let first = pid(&plugins).await;
    let error = ask(&plugins, "true").await.unwrap_err();
    let exited = Exited::find(&error).unwrap();
    assert_eq!((exited.code(), exited.signal()), (None, Some(9)));
    assert!(
        !is_there(first),
        "nothing is left of it when the call fails"
    );
    assert_ne!(pid(&plugins).await, first);
}

#[tokio::test]
async fn an_answer_before_the_end_is_an_answer() {
    let code = "
asked = json.loads(sys.stdin.readline())
print(json.dumps({'id': asked['id'], 'result': 'done'}), flush=True)
os._exit(0)
";
    for _ in 0..5 {
        let plugins = start(code, "").await;
        assert_eq!(ask(&plugins, "1").await.unwrap(), "done");
    }
}

#[tokio::test]
async fn the_end_of_the_plugins_ends_the_process() {
    let plugins = start(PID, "").await;
    let first = pid(&plugins).await;
    drop(plugins);
    until_gone(first).await;
}

#[tokio::test]
async fn a_process_that_ignores_to_be_asked_is_killed_when_its_time_is_over() {
    let code = "
signal.signal(signal.SIGTERM, signal.SIG_IGN)
serve(lambda _: os.getpid())
while True:
    time.sleep(60)
";
    let plugins = start(code, "process: { stop_timeout: 300ms }").await;
    let first = pid(&plugins).await;
    let begun = Instant::now();
    drop(plugins);
    until_gone(first).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn what_a_process_leaves_behind_ends_with_it_and_holds_nothing_up() {
    let code = "
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)
serve(lambda _: [os.getpid(), child])
";
    let plugins = start(code, "").await;
    let both = ask(&plugins, "1").await.unwrap();
    let [first, child] = [0, 1].map(|at| u32::try_from(both[at].as_u64().unwrap()).unwrap());
    assert!(is_there(child));
    signal(first, "-KILL");
    let both = within(ask(&plugins, "1")).await;
    if let Ok(both) = &both {
        assert_ne!(both[0], first);
    }
    until_gone(first).await;
    // It is init's child now, which may take its time to look after it.
    let is_over = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        Err(_) => true,
    };
    within(async {
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_on_stderr_holds_up_nothing_and_is_not_kept() {
    let code = "
def answer(asked):
    for _ in range(160):
        sys.stderr.write('x' * 65536)
    sys.stderr.write('\\nlast words\\n')
    sys.stderr.flush()
    if asked:
        sys.exit(1)
    return 'calm'
serve(answer)
";
    let plugins = start(code, "").await;
    assert_eq!(ask(&plugins, "false").await.unwrap(), "calm");
    let error = ask(&plugins, "true").await.unwrap_err();
    let exited = Exited::find(&error).unwrap();
    assert_eq!(exited.stderr().last().unwrap(), "last words");
    let kept: usize = exited.stderr().iter().map(String::len).sum();
    assert!(kept < 20 * 520, "{kept}");
}

#[tokio::test]
async fn a_plugin_that_cannot_run_twice_has_ended_before_the_next_begins_and_a_shutdown_waits() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let code = format!(
        "
def note(what):
    with open({notes:?}, 'a') as file:
        file.write(what + ' ')
note('begun')
signal.signal(signal.SIGTERM, signal.SIG_IGN)
serve(lambda _: os.getpid())
time.sleep(0.3)
note('ended')
"
    );
    let with = |env: &str| {
        let keys = format!(
            "{}, exclusive: true, env: {{ A: {env} }}",
            super::python(&code)
        );
        crate::support::config(&format!("plugins: {{ p: {{ {keys} }} }}"))
    };
    let plugins = tower_plugins::Plugins::builder()
        .start(with("one"))
        .await
        .unwrap();
    let first = pid(&plugins).await;
    plugins.reload(with("two")).await.unwrap();
    assert_ne!(pid(&plugins).await, first);
    let said = std::fs::read_to_string(&notes).unwrap();
    assert_eq!(said, "begun ended begun ");
    plugins.shutdown(Duration::from_secs(10)).await.unwrap();
    let said = std::fs::read_to_string(&notes).unwrap();
    assert_eq!(said, "begun ended begun ended ");
}

#[tokio::test]
async fn a_process_in_a_namespace_ends_as_others_do_and_is_started_again() {
    if !super::namespaces() {
        return;
    }
    let code = "
def answer(asked):
    if asked:
        os._exit(3)
    return int(os.readlink('/proc/self'))
serve(answer)
";
    let keys = "process: { pid_namespace: true, limits: {} }";
    let plugins = start(code, keys).await;
    let first = pid(&plugins).await;
    let error = ask(&plugins, "true").await.unwrap_err();
    assert_eq!(Exited::find(&error).unwrap().code(), Some(3));
    let next = ask(&plugins, "false").await.unwrap();
    assert_ne!(next, first);
    let next = u32::try_from(next.as_u64().unwrap()).unwrap();
    signal(next, "-KILL");
    until_gone(next).await;
    let last = pid(&plugins).await;
    drop(plugins);
    until_gone(last).await;
}
