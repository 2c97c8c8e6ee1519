//! Reaching an endpoint through an HTTP proxy: a tunnel, asked for by CONNECT (RFC 9110, section 9.3.6).

use std::fmt;
use std::io;
use std::net::IpAddr;

use ::http::uri::{Authority, Scheme};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connect::bare_host;
use super::dial::dial;
use crate::config::{ConnectionSpec, ProxySpec, Secret, is_loopback};

/// The largest answer's head, which nobody but us reads.
const MAX_HEAD: usize = 16 << 10;

/// The way through a proxy. Its credentials are not printed.
pub(super) struct Proxy {
    host: String,
    port: u16,
    authorization: Option<Secret>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy at {}:{}", self.host, self.port)
    }
}

impl Proxy {
    /// The proxy on the way to `authority`, if there is one. `variable` looks into the environment.
    pub(super) fn on_the_way(
        spec: &ConnectionSpec,
        scheme: &Scheme,
        authority: &Authority,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        match &spec.proxy {
            ProxySpec::Off => Ok(None),
            ProxySpec::At(proxy) => Ok(Some(Self::new(proxy, spec.proxy_auth.as_ref()))),
            ProxySpec::Environment => from_environment(scheme, authority, variable),
        }
    }

    /// `credentials` are a user and a password, with a colon between them.
    fn new(proxy: &Authority, credentials: Option<&Secret>) -> Self {
        let basic = |credentials: &Secret| {
            Secret::new(format!(
                "Basic {}",
                BASE64_STANDARD.encode(credentials.expose())
            ))
        };
        Self {
            host: bare_host(proxy).to_owned(),
            port: proxy.port_u16().unwrap_or(80),
            authorization: credentials.map(basic),
        }
    }

    /// A tunnel to `host`, a name or an address, at `port`.
    pub(super) async fn tunnel(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{self}: {error}"));
        let mut stream = dial(&self.host, self.port).await.map_err(failed)?;
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("proxy-authorization: ");
            request.push_str(authorization.expose());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let head = read_head(&mut stream).await.map_err(failed)?;
        match status(&head) {
            Some(200..=299) => Ok(stream),
            Some(407) => Err(io::Error::other(format!(
                "{self} asks for credentials, or does not accept those that it was given: set connection.proxy_auth"
            ))),
            Some(status) => Err(io::Error::other(format!(
                "{self} opened no tunnel: it answered with status {status}"
            ))),
            None => Err(io::Error::other(format!("{self} does not speak HTTP/1.1"))),
        }
    }
}

/// The head of an answer, and not a byte of what comes after it: that is the endpoint's.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let peeked = stream.peek(&mut chunk).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend_from_slice(&chunk[..peeked]);
        let from = before.saturating_sub(END.len() - 1);
        let end = head[from..]
            .windows(END.len())
            .position(|window| window == END);
        if let Some(end) = end {
            head.truncate(from + end + END.len());
        }
        stream.read_exact(&mut chunk[..head.len() - before]).await?;
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(io::Error::other("its answer is too long"));
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?.get(1..5)?;
    std::str::from_utf8(line.strip_prefix(b" ")?)
        .ok()?
        .parse()
        .ok()
}

/// The proxy that `HTTPS_PROXY` or `HTTP_PROXY` names, unless `NO_PROXY` or the loopback interface is where
/// `authority` is. In lower case, too, and first.
fn from_environment(
    scheme: &Scheme,
    authority: &Authority,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    let either = |lower: &str, upper: &str| {
        let lower = variable(lower).filter(|value| !value.is_empty());
        lower.or_else(|| variable(upper).filter(|value| !value.is_empty()))
    };
    let is_https = *scheme == Scheme::HTTPS;
    let (name, value) = if is_https {
        ("HTTPS_PROXY", either("https_proxy", "HTTPS_PROXY"))
    } else if variable("REQUEST_METHOD").is_some() {
        // Of a CGI program its caller sets it, by the header `proxy`.
        ("http_proxy", variable("http_proxy"))
    } else {
        ("HTTP_PROXY", either("http_proxy", "HTTP_PROXY"))
    };
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let host = bare_host(authority).trim_end_matches('.');
    let port = authority
        .port_u16()
        .unwrap_or(if is_https { 443 } else { 80 });
    let exempt = either("no_proxy", "NO_PROXY").unwrap_or_default();
    if is_loopback(host)
        || exempt
            .split(',')
            .any(|entry| covers(entry.trim(), host, port))
    {
        return Ok(None);
    }
    // The value may hold a password, and is not repeated.
    let problem = || format!("the variable {name} names no proxy such as http://proxy:3128");
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", &value));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(format!(
            "{}: https and socks are not spoken to one",
            problem()
        ));
    }
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, proxy) = match rest.rsplit_once('@') {
        Some((credentials, proxy)) => (Some(credentials), proxy),
        None => (None, rest),
    };
    let proxy: Authority = proxy.parse().map_err(|_| problem())?;
    let credentials = credentials.map(|credentials| Secret::new(decoded(credentials)));
    Ok(Some(Proxy::new(&proxy, credentials.as_ref())))
}

/// Whether `entry` of `NO_PROXY` is about `host` at `port`: `*`, a name and all names within it, an
/// address or a block of them, with a port or without.
fn covers(entry: &str, host: &str, port: u16) -> bool {
    if entry.is_empty() || entry == "*" {
        return entry == "*";
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        if let Some((block, bits)) = entry.split_once('/') {
            return is_within(address, block, bits);
        }
        let plain = entry.trim_start_matches('[').trim_end_matches(']');
        if let Ok(exempt) = plain.parse::<IpAddr>() {
            return exempt == address;
        }
    }
    let (name, at) = match entry.rsplit_once(':') {
        Some((name, at)) => (name, at.parse::<u16>().ok()),
        None => (entry, None),
    };
    if at.is_some_and(|at| at != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    let within = host.strip_suffix(&name);
    within.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn is_within(address: IpAddr, block: &str, bits: &str) -> bool {
    let (Ok(block), Ok(bits)) = (block.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    let differ = match (address, block) {
        (IpAddr::V4(one), IpAddr::V4(other)) if bits <= 32 => {
            u128::from(one.to_bits() ^ other.to_bits()) << 96
        }
        (IpAddr::V6(one), IpAddr::V6(other)) if bits <= 128 => one.to_bits() ^ other.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= bits
}

/// `text` without its percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Authority, ConnectionSpec, Proxy, ProxySpec, Scheme, covers};

    /// Which proxy the environment says is on the way to `url`, and what is sent to it.
    fn way(url: &str, variables: &[(&str, &str)]) -> Result<Option<(String, String)>, String> {
        let spec = ConnectionSpec {
            proxy: ProxySpec::Environment,
            ..ConnectionSpec::default()
        };
        let uri: http::Uri = url.parse().unwrap();
        let (scheme, authority): (&Scheme, &Authority) =
            (uri.scheme().unwrap(), uri.authority().unwrap());
        let found = Proxy::on_the_way(&spec, scheme, authority, |name| {
            let found = variables.iter().find(|(given, _)| *given == name)?;
            Some(found.1.to_owned())
        })?;
        Ok(found.map(|proxy| {
            assert!(!format!("{proxy:?} {proxy}").contains("pass"));
            let sent = proxy
                .authorization
                .as_ref()
                .map_or("", |sent| sent.expose());
            (proxy.to_string(), sent.to_owned())
        }))
    }

    fn through(place: &str) -> Result<Option<(String, String)>, String> {
        Ok(Some((format!("the proxy at {place}"), String::new())))
    }

    #[test]
    fn the_variable_is_that_of_the_scheme_and_lower_case_comes_first() {
        let both = [("HTTP_PROXY", "http://one:1"), ("HTTPS_PROXY", "two:2")];
        assert_eq!(way("http://search.internal", &both), through("one:1"));
        assert_eq!(way("https://search.internal", &both), through("two:2"));
        let cases = [("HTTP_PROXY", "http://one:1"), ("http_proxy", "http://two")];
        assert_eq!(way("http://search.internal", &cases), through("two:80"));
        assert_eq!(
            way("http://search.internal", &[("HTTP_PROXY", "")]),
            Ok(None)
        );
        assert_eq!(way("http://search.internal", &[]), Ok(None));
        let cgi = [("HTTP_PROXY", "http://one:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(way("http://search.internal", &cgi), Ok(None));
    }

    #[test]
    fn credentials_of_a_variable_are_decoded_and_what_cannot_be_used_is_told_without_them() {
        let with = [("HTTP_PROXY", "http://user:p%40ss@one:1/")];
        let sent = way("http://search.internal", &with).unwrap().unwrap().1;
        assert_eq!(sent, "Basic dXNlcjpwQHNz");
        for unfit in [
            "socks5://user:pass@one:1",
            "https://user:pass@one:1",
            "http://user:pass@a b",
        ] {
            let error = way("http://search.internal", &[("HTTP_PROXY", unfit)]).unwrap_err();
            assert!(
                error.contains("HTTP_PROXY") && !error.contains("pass@"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_loopback_interface_and_what_no_proxy_covers_are_reached_without_one() {
        let all = [
            ("HTTP_PROXY", "http://one:1"),
            ("no_proxy", "a.b, 10.0.0.0/8,[::5]"),
        ];
        for url in [
            "http://localhost:1",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://x.a.b",
            "http://10.9.8.7",
            "http://[::5]:80",
        ] {
            assert_eq!(way(url, &all), Ok(None), "{url}");
        }
        assert_eq!(way("http://11.9.8.7", &all), through("one:1"));
        for (entry, host, port, is) in [
            ("*", "a.b", 1, true),
            ("", "a.b", 1, false),
            ("a.b", "A.B", 1, true),
            (".a.b", "x.a.b", 1, true),
            ("*.a.b", "x.a.b", 1, true),
            ("a.b", "xa.b", 1, false),
            ("a.b:1", "a.b", 1, true),
            ("a.b:1", "a.b", 2, false),
            ("10.1.2.3", "10.1.2.3", 1, true),
            ("10.1.2.3:1", "10.1.2.3", 2, false),
            ("10.1.2.3:1", "10.1.2.3", 1, true),
            ("10.0.0.0/33", "10.1.2.3", 1, false),
            ("fd00::/8", "fd12::1", 1, true),
            ("0.0.0.0/0", "10.1.2.3", 1, true),
        ] {
            assert_eq!(covers(entry, host, port), is, "{entry} {host}:{port}");
        }
    }
}
