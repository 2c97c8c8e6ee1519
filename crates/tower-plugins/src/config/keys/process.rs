use super::{Block, Kind, key};

pub(in super::super) static PROCESS: Block = Block {
    name: "process",
    about: "For a plugin that is an executable: how its process is started, and what is done when it ends. \
            `executable`, `args`, `env` and `work_dir` stand beside it. See [subprocess.md](subprocess.md).",
    keys: &[
        key(
            "instances",
            Kind::Integer(1, 256),
            "1",
            "4",
            "how many processes run, each an endpoint of its own to `load_balancing`, `circuit_breaker` and `health_check`. With `exec-json` one is sent one call at a time",
        ),
        key(
            "inherit_env",
            Kind::Bool,
            "false",
            "true",
            "`true`: the process has this program's whole environment, less what begins with `PLUGIN_`; `false`: `PATH`, `HOME`, `USER`, `LANG`, `LC_*`, `TZ`, `TMPDIR`, `SSL_CERT_FILE` and `SSL_CERT_DIR` of it, as secrets are often among the rest. `env` is added to either",
        ),
        key(
            "checksum",
            Kind::Text,
            "none",
            r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855""#,
            "the SHA-256 of the executable, as `sha256sum` prints it, after `sha256:`. A file with another one is not run, and what is run are the bytes that were read for it. On Linux only; elsewhere such a plugin is not started",
        ),
        key(
            "watch",
            Kind::Bool,
            "false",
            "true",
            "whether a change of the executable is a change of the config, as one of any other file that it names: the plugin is then replaced by one that runs the new file, and the old one drains. It takes `start: ready`, so that a new file whose process does not run is refused. With `checksum` a file that does not match is",
        ),
        key(
            "stdin",
            Kind::Word(&["none", "inherit", "terminal"]),
            "none",
            r#""inherit""#,
            "with `subprocess`: what the process reads on its standard input: `none`, it is at its end; `inherit`, this program's, as every other plugin and this program do that read it; `terminal`, a pseudo-terminal of its own, which is its controlling terminal (`/dev/tty`) at the head of a session, and which the program takes with `Builder::terminal`. Refused with `exec-json`, where it is how the plugin is asked",
        ),
        key(
            "umask",
            Kind::Text,
            "this program's",
            r#""077""#,
            "the permissions that files made by the process do not get, as three or four octal digits",
        ),
        key(
            "no_new_privileges",
            Kind::Bool,
            "true",
            "false",
            "whether the process, and all it starts, can gain no privileges by running a set-user-ID program or one with capabilities, such as `sudo` and `ping`. On Linux; elsewhere it says nothing",
        ),
        key(
            "start_timeout",
            Kind::Timeout,
            "1m",
            r#""10s""#,
            "with `subprocess`: how long the process may take from its start until it has said where it listens, and can be connected to; then it is killed, and has ended in vain. Refused with `exec-json`",
        ),
        key(
            "pid_namespace",
            Kind::Bool,
            "false",
            "true",
            "whether the process is the first of a PID namespace of its own, on Linux: all it starts ends with it, and when this program is killed. It takes root, or CAP_SYS_ADMIN; else the plugin is not started. See [subprocess.md](subprocess.md#what-it-leaves-behind) for what it is to be the first",
        ),
        key(
            "limits",
            Kind::Block(&LIMITS),
            "none",
            r#"{ "memory": "256MiB", "pids": 64 }"#,
            "what the process and all it starts may use together, by a cgroup of their own",
        ),
        key(
            "rlimits",
            Kind::Block(&RLIMITS),
            "none",
            r#"{ "nofile": 1024, "core": 0 }"#,
            "what the process may use, and by itself each that it starts",
        ),
        key(
            "stop_timeout",
            Kind::Duration,
            "5s",
            r#""1s""#,
            "how long the process may take to end when it is asked to, by the end of its standard input and a SIGTERM for its group; then the group is killed. With `subprocess` the half of it is for what the plugin does when it is told to shut down, before the SIGTERM",
        ),
        key(
            "idle_timeout",
            Kind::Timeout,
            "none",
            r#""10m""#,
            "how long the process may be without a call until it is stopped; the next call starts another. That is no restart",
        ),
        key(
            "restart",
            Kind::Word(&["always", "on-failure", "never"]),
            "always",
            r#""on-failure""#,
            "when a process that ended is started again: `on-failure`, unless it exited with the code 0. A process that was killed because it did not answer in time always is",
        ),
        key(
            "max_restarts",
            Kind::Integer(1, 1_000_000),
            "5",
            "10",
            "how often it is started again within `restart_window`. If it ends once more, it is not before that time is over, and calls fail at once",
        ),
        key(
            "restart_window",
            Kind::Timeout,
            "1m",
            r#""5m""#,
            "the time in which restarts are counted",
        ),
    ],
    gone: &[
        (
            "executable",
            "stands beside `process`, in the plugin: move it there",
        ),
        (
            "args",
            "stands beside `process`, in the plugin: move it there",
        ),
        (
            "env",
            "stands beside `process`, in the plugin: move it there",
        ),
        (
            "work_dir",
            "stands beside `process`, in the plugin: move it there",
        ),
    ],
};

const MOST: u64 = 1 << 50;

pub(in super::super) static LIMITS: Block = Block {
    name: "limits",
    about: "In `process`: a cgroup for the process and all it starts, on Linux. An empty table is one without a limit, so that \
            all it starts ends with it. Where a limit cannot be had, the plugin is not started. See \
            [subprocess.md](subprocess.md#limits).",
    keys: &[
        key(
            "memory",
            Kind::Size(1 << 20, MOST),
            "none",
            r#""256MiB""#,
            "the memory they may use, with what they have written to files in memory, and without swap. What needs more is killed, and calls fail with an `Exited` that says so",
        ),
        key(
            "cpu",
            Kind::Number(0.01, 1024.0),
            "none",
            "1.5",
            "the processors' time that they may use for each second that passes; they are held up in each tenth of a second for what is beyond",
        ),
        key(
            "pids",
            Kind::Integer(1, 4_194_304),
            "none",
            "64",
            "how many processes and threads there may be; one more cannot be started",
        ),
        key(
            "cgroup",
            Kind::Text,
            "this program's own",
            r#""/plugins.slice""#,
            "the cgroup in which theirs is made: as `/proc/self/cgroup` writes it, or relative to this program's own, as `..` is",
        ),
    ],
    gone: &[],
};

pub(in super::super) static RLIMITS: Block = Block {
    name: "rlimits",
    about: "In `process`: limits that the kernel holds each process to by itself, set before the program begins, the soft and \
            the hard one. None may be above this program's own hard limit. See [subprocess.md](subprocess.md#limits).",
    keys: &[
        key(
            "nofile",
            Kind::Integer(8, 1_048_576),
            "this program's",
            "1024",
            "one more than the highest descriptor it may open (`RLIMIT_NOFILE`)",
        ),
        key(
            "address_space",
            Kind::Size(1 << 20, MOST),
            "this program's",
            r#""4GiB""#,
            "how long its mappings may be in all, used or not (`RLIMIT_AS`); `limits.memory` is what bounds memory",
        ),
        key(
            "core",
            Kind::Size(0, MOST),
            "this program's",
            "0",
            "how long a core file of it may become (`RLIMIT_CORE`)",
        ),
        key(
            "fsize",
            Kind::Size(0, MOST),
            "this program's",
            r#""1GiB""#,
            "how long a file may become that it writes to (`RLIMIT_FSIZE`); it gets a SIGXFSZ",
        ),
        key(
            "cpu",
            Kind::Integer(1, 31_536_000),
            "this program's",
            "3600",
            "how many seconds of processor time it may use in its life (`RLIMIT_CPU`), when it is killed",
        ),
        key(
            "nproc",
            Kind::Integer(1, 4_194_304),
            "this program's",
            "512",
            "how many processes and threads its user may have when it starts one (`RLIMIT_NPROC`); root is not held to it. `limits.pids` counts the plugin's own",
        ),
    ],
    gone: &[],
};
