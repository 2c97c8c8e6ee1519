//! Where a plugin listens, and who says so.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Error;

/// The variable that says where to listen.
pub const LISTEN: &str = "TOWER_PLUGINS_LISTEN";

/// Where a plugin listens that no host started.
///
/// ```
/// use tower_plugins_sdk::Listen;
///
/// assert_eq!("http://127.0.0.1:8080".parse(), Ok(Listen::Http("127.0.0.1:8080".into())));
/// assert_eq!("unix:/run/greeter.sock".parse(), Ok(Listen::Unix("/run/greeter.sock".into())));
/// assert!("ftp://127.0.0.1".parse::<Listen>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listen {
    /// On TCP, without TLS: `http://host:port`. Port 0 is any that is free.
    Http(String),
    /// On TCP, with TLS: `https://host:port`.
    Https(String),
    /// On a Unix socket: `unix:/path`. Who may connect is what the process's umask, and the folder, leave.
    Unix(PathBuf),
}

/// What says nowhere to listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is nowhere to listen; it must be http://host:port, https://host:port or unix:/path")]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let wrong = || ListenError(text.to_owned());
        let authority = |rest: &str| {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let (host, port) = rest.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| rest.to_owned())
        };
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return (!path.is_empty())
                .then(|| Self::Unix(path.into()))
                .ok_or_else(wrong);
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return authority(rest).map(Self::Http).ok_or_else(wrong);
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return authority(rest).map(Self::Https).ok_or_else(wrong);
        }
        Err(wrong())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the program is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Serve the host that started it.
    #[cfg(feature = "subprocess")]
    Host,
    /// Serve whoever connects.
    Listen(Listen, Files),
    /// Say what it can do.
    Help,
    /// Say which version it is.
    Version,
    /// Say that it was not meant to be started so.
    Refuse,
}

/// A certificate with its chain, and its key, in PEM.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl Task {
    /// A flag decides before a host's cookie, as someone wrote it for this program; the cookie before the variable, which may be another
    /// program's, inherited. Arguments that are not known are the plugin's own, and with a cookie all others are.
    pub(crate) fn choose(
        arguments: impl IntoIterator<Item = OsString>,
        is_hosted: bool,
        variable: Option<&OsStr>,
    ) -> Result<Self, Error> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        #[cfg(feature = "subprocess")]
        if is_hosted && !arguments.iter().any(|argument| is_listen(argument)) {
            return Ok(Self::Host);
        }
        let mut listen = None;
        let mut files = Files::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(text) = argument.to_str() else {
                continue;
            };
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (text, None),
            };
            let mut value = || {
                let found = value.clone().or_else(|| arguments.next());
                found.ok_or_else(|| Error::Usage(format!("nothing comes after {name}")))
            };
            match name {
                "--" => break,
                "--help" if !is_hosted => return Ok(Self::Help),
                "--version" if !is_hosted => return Ok(Self::Version),
                "--listen" => listen = Some(parse(&value()?, "--listen")?),
                "--tls-cert" => files.certificate = Some(value()?.into()),
                "--tls-key" => files.key = Some(value()?.into()),
                _ => {}
            }
        }
        if let Some(listen) = listen {
            return Ok(Self::Listen(listen, files));
        }
        #[cfg(feature = "subprocess")]
        if is_hosted {
            return Ok(Self::Host);
        }
        match variable.filter(|variable| !variable.is_empty()) {
            Some(variable) => Ok(Self::Listen(parse(variable, LISTEN)?, files)),
            None => Ok(Self::Refuse),
        }
    }
}

#[cfg(feature = "subprocess")]
fn is_listen(argument: &OsStr) -> bool {
    let text = argument.to_str().unwrap_or_default();
    text == "--listen" || text.starts_with("--listen=")
}

fn parse(text: &OsStr, what: &str) -> Result<Listen, Error> {
    let text = text.to_string_lossy();
    text.parse()
        .map_err(|error| Error::Usage(format!("{what}: {error}")))
}

/// What `--help` says.
pub(crate) fn help(name: &str, version: &str) -> String {
    format!(
        "\
{name} {version}, a plugin

Usage: {name} --listen ADDRESS

A program that has plugins starts this one by itself, without arguments. By hand it must be told where to listen:

  --listen ADDRESS   http://127.0.0.1:8080   HTTP/1.1, HTTP/2 and gRPC; port 0 is any that is free
                     https://0.0.0.0:8443    the same with TLS
                     unix:/run/{name}.sock   the same on a Unix socket
                     Without it, the variable {LISTEN} says so.
  --tls-cert FILE    for https: the certificate and its chain, in PEM
  --tls-key FILE     for https: its key, in PEM
  --help, --version

It ends when it gets a SIGTERM or SIGINT, once the calls under way are answered.
"
    )
}

/// What it says when it is started by hand.
pub(crate) fn refusal(name: &str) -> String {
    format!(
        "{name} is a plugin: a program that has plugins starts it. It was started by hand, or that program has another cookie for it.\n\
         To try it without one, say where it shall listen: {name} --listen http://127.0.0.1:8080\n\
         What else there is: {name} --help"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(arguments: &[&str], hosted: bool, variable: Option<&str>) -> Result<Task, String> {
        let arguments = arguments.iter().map(OsString::from);
        let variable = variable.map(OsStr::new);
        Task::choose(arguments, hosted, variable).map_err(|error| error.to_string())
    }

    fn listens(text: &str) -> Result<Task, String> {
        Ok(Task::Listen(text.parse().unwrap(), Files::default()))
    }

    #[test]
    #[cfg(feature = "subprocess")]
    fn a_flag_is_before_the_cookie_and_that_before_the_variable() {
        let (flag, variable) = (["--listen", "http://a:1"], Some("http://b:2"));
        assert_eq!(chosen(&flag, true, variable), listens("http://a:1"));
        assert_eq!(chosen(&[], true, variable), Ok(Task::Host));
        assert_eq!(chosen(&[], false, variable), listens("http://b:2"));
        assert_eq!(chosen(&[], false, Some("")), Ok(Task::Refuse));
        assert_eq!(chosen(&[], false, None), Ok(Task::Refuse));
    }

    #[test]
    fn what_is_not_known_is_the_plugins_own() {
        let own = ["serve", "--verbose", "--listen=unix:/s", "file"];
        assert_eq!(chosen(&own, false, None), listens("unix:/s"));
        let after = ["--", "--help"];
        assert_eq!(chosen(&after, false, None), Ok(Task::Refuse));
        assert_eq!(chosen(&["x", "--help"], false, None), Ok(Task::Help));
        assert_eq!(chosen(&["--version"], false, None), Ok(Task::Version));
        #[cfg(feature = "subprocess")]
        for own in ["--help", "--tls-key", "--tls-cert=c.pem"] {
            assert_eq!(chosen(&[own], true, None), Ok(Task::Host));
        }
    }

    #[test]
    fn a_certificate_comes_from_files() {
        let arguments = [
            "--tls-cert=c.pem",
            "--listen",
            "https://[::]:1",
            "--tls-key",
            "k.pem",
        ];
        let files = Files {
            certificate: Some("c.pem".into()),
            key: Some("k.pem".into()),
        };
        let listen = Listen::Https("[::]:1".into());
        assert_eq!(
            chosen(&arguments, false, None),
            Ok(Task::Listen(listen, files))
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_there_is() {
        for wrong in [
            "127.0.0.1:1",
            "http://a",
            "http://:1",
            "http://a:b",
            "unix:",
            "tcp://a:1",
        ] {
            let said = chosen(&["--listen", wrong], true, None).unwrap_err();
            assert!(said.starts_with(&format!("--listen: {wrong:?}")), "{said}");
            assert!(said.contains("unix:/path"), "{said}");
            let said = chosen(&[], false, Some(wrong)).unwrap_err();
            assert!(said.starts_with(LISTEN), "{said}");
        }
        let said = chosen(&["--listen"], false, None).unwrap_err();
        assert!(said.starts_with("nothing comes after --listen"), "{said}");
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["http://127.0.0.1:0", "https://[::1]:8443", "unix:/run/a b"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        let slashes = "unix:///run/a".parse();
        assert_eq!(slashes, Ok(Listen::Unix("/run/a".into())));
        let trailing = "http://a:1/".parse();
        assert_eq!(trailing, Ok(Listen::Http("a:1".into())));
    }
}
