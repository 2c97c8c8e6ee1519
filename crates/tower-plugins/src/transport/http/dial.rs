//! Opening a TCP connection to a name that has several addresses.
//!
//! Attempts are staggered, and the first that succeeds is taken, as "Happy Eyeballs Version 2" (RFC 8305)
//! has it: a family of addresses that leads nowhere costs a quarter of a second.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;

/// The "Connection Attempt Delay" that RFC 8305, section 8, recommends.
const DELAY: Duration = Duration::from_millis(250);

/// A connection to `host`, a name or an address, at `port`.
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let stream = race(in_turns(addresses.collect())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The system's order, in which the families take turns (RFC 8305, section 4).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut ordered = Vec::with_capacity(one.len() + other.len());
    while one.len() + other.len() > 0 {
        ordered.extend(one.next());
        ordered.extend(other.next());
    }
    ordered
}

/// The first connection to any of `addresses`. Each has `DELAY` to itself, or less if it fails before.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match left.next() {
            Some(address) => attempts.push(TcpStream::connect(address)),
            None if attempts.is_empty() => {
                return Err(failure.unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, "its name has no address")
                }));
            }
            None => {}
        }
        tokio::select! {
            biased;
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                // The first address is the one that was meant: its error says most.
                Err(error) => _ = failure.get_or_insert(error),
            },
            () = tokio::time::sleep(DELAY), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DELAY, Duration, SocketAddr, TcpStream, in_turns, io, race};

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_in_the_order_of_the_system() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let turns = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(in_turns(addresses(&given)), addresses(&turns));
        let given = ["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"];
        let turns = ["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"];
        assert_eq!(in_turns(addresses(&given)), addresses(&turns));
    }

    #[tokio::test]
    async fn an_address_that_is_refused_passes_its_turn_on_and_the_first_error_is_told() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = gone.local_addr().unwrap();
        drop(gone);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let stream = race(vec![refused, open]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        let error = race(vec![refused, refused]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(Vec::new()).await.is_err());
    }

    /// The kernel takes the connections of a few callers, and lets the others wait.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_never_answers_costs_a_quarter_of_a_second() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let hole = full.local_addr().unwrap();
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.push(TcpStream::connect(hole).await.unwrap());
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let begun = tokio::time::Instant::now();
        let raced = tokio::time::timeout(Duration::from_secs(30), race(vec![hole, open]));
        let stream = raced.await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        assert!(begun.elapsed() >= DELAY);
    }
}
