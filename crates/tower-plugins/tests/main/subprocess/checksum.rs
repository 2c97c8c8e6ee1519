#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tower_plugins::Plugins;

use super::{ask, script_of, signal, until_gone, which};
use crate::support::{causes, config, within};

/// A program in a folder of its own.
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Program {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin");
        let program = Self {
            path,
            _folder: folder,
        };
        program.put(bytes);
        program
    }

    /// Puts another in its place.
    fn put(&self, bytes: &[u8]) {
        let _ = std::fs::remove_file(&self.path);
        std::fs::write(&self.path, bytes).unwrap();
        std::fs::set_permissions(&self.path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    pub(crate) fn checksum(&self) -> String {
        sum(&self.path)
    }

    pub(crate) async fn start(&self, checksum: &str, args: &str) -> Plugins {
        let yaml = format!(
            "plugins: {{ p: {{ transport: exec-json, executable: '{}', args: {args}, retry: off,
                circuit_breaker: off, process: {{ checksum: '{checksum}' }} }} }}",
            self.path.display()
        );
        Plugins::builder().start(config(&yaml)).await.unwrap()
    }
}

fn sum(path: &Path) -> String {
    let sum = std::process::Command::new("sha256sum").arg(path).output();
    let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
    format!("sha256:{}", sum.split(' ').next().unwrap())
}

pub(crate) fn script(answer: &str) -> Vec<u8> {
    script_of(&format!("serve(lambda _: [{answer:?}, os.getpid()])")).into_bytes()
}

#[tokio::test]
async fn a_program_with_another_checksum_is_not_run() {
    let program = Program::of(&script("old"));
    let right = program.checksum();
    let plugins = program.start(&right, "[]").await;
    assert_eq!(ask(&plugins, "1").await.unwrap()[0], "old");
    program.put(&script("new"));
    let plugins = program.start(&right, "[]").await;
    let error = causes(&ask(&plugins, "1").await.unwrap_err());
    assert!(error.contains("is not what `checksum` says"), "{error}");
    assert!(error.contains(&program.checksum()), "{error}");
}

#[tokio::test]
async fn what_was_checked_is_what_runs_whatever_is_put_in_its_place() {
    let program = Program::of(&script("old"));
    let plugins = program.start(&program.checksum(), "[]").await;
    let first = ask(&plugins, "1").await.unwrap();
    program.put(&script("new"));
    let pid = u32::try_from(first[1].as_u64().unwrap()).unwrap();
    signal(pid, "-KILL");
    until_gone(pid).await;
    let next = ask(&plugins, "1").await.unwrap();
    assert_eq!(next[0], "old");
    assert_ne!(next[1], first[1]);
}

#[tokio::test]
async fn a_binary_is_run_by_its_own_name() {
    let program = Program::of(&std::fs::read(which("sh")).unwrap());
    let code = r#"while read -r line; do
        id=${line#*\"id\":\"}; echo "{\"id\":\"${id%%\"*}\",\"result\":\"$0\"}"; done"#;
    let code = code.replace("${", "$${");
    let args = serde_json::to_string(&["-c", &code]).unwrap();
    let plugins = program.start(&program.checksum(), &args).await;
    let name = ask(&plugins, "1").await.unwrap();
    assert_eq!(name, program.path.to_str().unwrap());
}

#[tokio::test]
async fn a_new_executable_that_is_not_what_the_checksum_says_is_refused_and_the_old_goes_on() {
    let program = Program::of(&script("old"));
    let folder = program.path.parent().unwrap();
    let file = folder.join("plugins.yaml");
    let write = |checksum: &str| {
        let keys = "transport: exec-json, executable: ./plugin, start: ready, retry: off";
        let process = format!("process: {{ watch: true, checksum: '{checksum}' }}");
        let beside = folder.join("beside");
        std::fs::write(
            &beside,
            format!("plugins: {{ p: {{ {keys}, {process} }} }}"),
        )
        .unwrap();
        std::fs::rename(beside, &file).unwrap();
    };
    write(&program.checksum());
    let plugins = Plugins::builder().watch(&file).await.unwrap();
    let first = ask(&plugins, "1").await.unwrap();
    program.put(&script("new"));
    let mut status = plugins.subscribe();
    let refused = within(status.wait_for(|status| {
        let said = status.last_error.as_ref().map(|error| causes(&**error));
        said.is_some_and(|said| said.contains("process.checksum"))
    }));
    let said = causes(&**refused.await.unwrap().last_error.as_ref().unwrap());
    assert!(said.contains(&program.checksum()), "{said}");
    assert_eq!(ask(&plugins, "1").await.unwrap(), first);
    write(&program.checksum());
    within(async {
        while ask(&plugins, "1").await.unwrap()[0] != "new" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
