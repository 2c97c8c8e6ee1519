//! The programs in other languages: built, or found.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::peers;

/// A release of go-plugin that the peers in Go are built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0.1: without `GRPCStdio`, reflection and test mode, and without TLS for its broker's calls.
    V1_0_1,
    /// 1.4.10: the last without a runner, multiplexing and a folder for sockets.
    V1_4_10,
    /// 1.6.3: with multiplexing.
    V1_6_3,
    /// 1.8.0, the newest.
    V1_8_0,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 4] = [Self::V1_0_1, Self::V1_4_10, Self::V1_6_3, Self::V1_8_0];

    /// Whether it has one socket for all connections.
    #[must_use]
    pub fn multiplexes(self) -> bool {
        self >= Self::V1_6_3
    }

    /// Whether it passes on what a plugin prints.
    #[must_use]
    pub fn has_stdio(self) -> bool {
        self > Self::V1_0_1
    }

    /// As in its tag.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_0_1 => "v1.0.1",
            Self::V1_4_10 => "v1.4.10",
            Self::V1_6_3 => "v1.6.3",
            Self::V1_8_0 => "v1.8.0",
        }
    }

    /// What go needs to build with it.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::V1_0_1 => &["-modfile=v1.0.1.mod", "-tags=v1.0.1"],
            Self::V1_4_10 => &["-modfile=v1.4.10.mod"],
            Self::V1_6_3 => &["-modfile=v1.6.3.mod"],
            Self::V1_8_0 => &[],
        }
    }
}

/// The program of `peers/go-plugin` with this version of go-plugin; `None`, said on stderr, where it cannot be built.
///
/// It is built by the first who asks, in this process; go itself knows what is current.
///
/// # Panics
///
/// If it cannot be built, and `TOWER_PLUGINS_REQUIRE_PEERS` is 1.
#[must_use]
pub fn go(version: Version) -> Option<PathBuf> {
    static BUILT: Mutex<[Option<Option<PathBuf>>; 4]> = Mutex::new([const { None }; 4]);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let program = built[version as usize].get_or_insert_with(|| match go_build(version) {
        Ok(program) => Some(program),
        Err(error) => {
            eprintln!("go-plugin {}: {error}", version.name());
            None
        }
    });
    program.clone().or_else(|| absent("Go, or no go-plugin,"))
}

fn go_build(version: Version) -> io::Result<PathBuf> {
    let folder = target()?.join("peers/go-plugin");
    fs::create_dir_all(&folder)?;
    // Two processes do not build at once.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let program = folder.join(version.name());
    let status = Command::new("go")
        .arg("build")
        .args(version.arguments())
        .args([Path::new("-o"), &program, Path::new(".")])
        .current_dir(peers().join("go-plugin"))
        .stdin(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(program),
        false => Err(io::Error::other(format!("go build: {status}"))),
    }
}

/// A Python that has grpcio: what `.ci/run install` has made of one, or this system's; `None`, said on stderr, where there is none.
///
/// # Panics
///
/// If there is none, and `TOWER_PLUGINS_REQUIRE_PEERS` is 1.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let imports = "import grpc, google.protobuf, grpc_health, cryptography";
    let has_grpc = |python: &PathBuf| {
        let mut command = Command::new(python);
        command.args(["-c", imports]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let program = std::env::current_exe().unwrap_or_default();
    let made = program
        .ancestors()
        .map(|folder| folder.join("peers/python/bin/python"));
    let found = made.chain([PathBuf::from("python3")]).find(has_grpc);
    found.or_else(|| absent("Python with grpcio and cryptography"))
}

/// The folder that cargo builds in: this program is in it.
fn target() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let mut folders = program.ancestors();
    let profile = folders.find(|folder| folder.join(".cargo-lock").exists());
    profile
        .and_then(Path::parent)
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::other(format!("cargo did not build {}", program.display())))
}

fn absent(what: &str) -> Option<PathBuf> {
    let required = std::env::var_os("TOWER_PLUGINS_REQUIRE_PEERS");
    assert!(required.is_none_or(|is| is != "1"), "no {what} here");
    eprintln!("skipped: no {what} here");
    None
}
