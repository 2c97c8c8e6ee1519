//! What holds of every text that a plugin may write as its first line. Each check panics where it does not.
//!
//! The fuzz target calls this, and so does a test of the workspace, with the corpus.

use tower_plugins_proto::go_plugin::{Address, HandshakeError, HandshakeLine};

/// The longest message, in characters: a text of another's is cut in it.
const LONGEST: usize = 2_000;

/// Checks the handshake that `text` is, if it is one.
pub fn line(text: &str) {
    match HandshakeLine::parse(text) {
        Ok(line) => {
            let written = line.to_string();
            assert!(!written.contains(char::is_control), "{written:?}");
            for again in [written.clone(), format!("  {written}\r\n")] {
                assert_eq!(HandshakeLine::parse(&again).as_ref(), Ok(&line));
            }
            assert_is_what_it_says(&line, text);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.chars().count() < LONGEST, "{message}");
            assert!(!message.contains(char::is_control), "{message:?}");
            if matches!(error, HandshakeError::Unrecognized { .. }) {
                assert!(text.matches('|').count() < 3);
            }
        }
    }
}

/// Reads the fields once more.
fn assert_is_what_it_says(line: &HandshakeLine, text: &str) {
    let fields: Vec<_> = text.trim().split('|').collect();
    assert_eq!(fields[0].parse(), Ok(1));
    assert_eq!(fields[1].parse(), Ok(line.version()));
    assert_eq!(fields[2], line.address().network());
    match line.address() {
        Address::Unix(path) => assert_eq!(path.to_str(), Some(fields[3])),
        Address::Tcp(address) => assert_ne!(address.port(), 0),
    }
    assert_eq!(fields[4], "grpc");
    let certificate = fields.get(5).copied().unwrap_or_default();
    match line.certificate() {
        None => assert!(certificate.len() <= 50),
        Some(read) => assert_eq!(read.to_base64(), certificate.trim_end_matches('=')),
    }
    assert_eq!(line.multiplexing().is_some(), fields.len() > 6);
}
