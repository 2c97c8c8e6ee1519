//! A file system that does not answer.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tower_plugins::Plugins;

use super::folder::{Folder, until};
use crate::support::{causes, get, skipped, text};

/// Takes a lease on the file that it is given: whoever opens that waits for the end of the lease, which is that of its
/// standard input.
const LEASE: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('leased', flush=True)
sys.stdin.read()
";

struct Lease(Child);

impl Lease {
    /// `None` if there is no Python here, or no lease to be had on this file system.
    fn of(path: &Path) -> Option<Self> {
        let mut python = Command::new("python3");
        python.args(["-c", LEASE]).arg(path);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match python.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("{error}"),
        };
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        (said == "leased\n").then_some(Self(child))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main(name: &str) -> String {
    format!(
        "{{ include: [part.yaml], reload: {{ validation_timeout: 2s }},
            plugins: {{ {name}: {{ transport: in-process, endpoint: shelf }} }} }}"
    )
}

#[tokio::test]
async fn files_that_cannot_be_read_in_time_are_refused_and_what_runs_goes_on() {
    let folder = Folder::with(&main("one"));
    folder.write("part.yaml", "plugins: {}");
    let plugins = folder.start(Plugins::builder()).await.unwrap();
    folder.write("part.yaml", "plugins: {} # changed");
    let Some(lease) = Lease::of(&folder.path("part.yaml")) else {
        return skipped("python3 with leases");
    };
    folder.write("plugins.yaml", &main("two"));
    let status = until(&plugins, |status| status.rejected == 1).await;
    let said = causes(&*status.last_error.unwrap());
    assert!(said.contains("part.yaml"), "{said}");
    assert!(said.contains("2s (reload.validation_timeout)"), "{said}");
    let one = plugins.plugin("one");
    assert_eq!(text(&one, get("/")).await.unwrap(), "hello");

    // However often the file is saved meanwhile, it is one thread that waits, and one refusal.
    for name in ["three", "four", "five"] {
        folder.write("plugins.yaml", &main(name));
    }
    drop(lease);
    until(&plugins, |_| plugins.names() == ["five"]).await;
    assert_eq!(plugins.status().rejected, 1);
    assert!(plugins.status().last_error.is_none());
}
