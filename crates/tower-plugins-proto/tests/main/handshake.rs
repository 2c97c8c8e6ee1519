//! The line by which a plugin tells its host where it can be reached.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tower_plugins_proto::go_plugin::{
    Address, Certificate, HandshakeError, HandshakeLine, MAX_LINE,
};

#[path = "../../../../fuzz/src/handshake.rs"]
#[allow(unreachable_pub, reason = "it is a module of another crate, too")]
mod checks;

/// A certificate whose base64 has padding, where that is written.
fn certificate() -> Certificate {
    Certificate::from_der([&[0x30, 62][..], &[7; 62]].concat()).unwrap()
}

fn unix() -> HandshakeLine {
    HandshakeLine::new(5, Address::Unix("/tmp/plugin42".into())).unwrap()
}

fn refused(line: &str) -> HandshakeError {
    HandshakeLine::parse(line).unwrap_err()
}

#[test]
fn a_line_of_five_six_or_seven_fields_is_read() {
    let certified = || unix().with_certificate(certificate());
    let base64 = certificate().to_base64();
    assert!(!base64.len().is_multiple_of(4));
    for (line, expected) in [
        ("1|5|unix|/tmp/plugin42|grpc", unix()),
        ("1|5|unix|/tmp/plugin42|grpc|", unix()),
        (
            "1|5|unix|/tmp/plugin42|grpc||true",
            unix().with_multiplexing(true),
        ),
        (
            "1|5|unix|/tmp/plugin42|grpc||0",
            unix().with_multiplexing(false),
        ),
        // What was there before certificates is not looked at, nor is what may come.
        ("1|5|unix|/tmp/plugin42|grpc|extra", unix()),
        (
            "1|5|unix|/tmp/plugin42|grpc||T|later|",
            unix().with_multiplexing(true),
        ),
        (
            &format!("1|5|unix|/tmp/plugin42|grpc|{base64}"),
            certified(),
        ),
        (
            &format!("1|5|unix|/tmp/plugin42|grpc|{base64}=="),
            certified(),
        ),
        (
            &format!("1|5|unix|/tmp/plugin42|grpc|{base64}|False"),
            certified().with_multiplexing(false),
        ),
    ] {
        for line in [
            line.to_owned(),
            format!("{line}\n"),
            format!("{line}\r\n"),
            format!(" \t{line}  \n"),
        ] {
            assert_eq!(
                HandshakeLine::parse(&line).as_ref(),
                Ok(&expected),
                "{line:?}"
            );
        }
    }
}

#[test]
fn a_plugin_may_listen_on_tcp() {
    let line = HandshakeLine::parse("1|0|tcp|127.0.0.1:1234|grpc|").unwrap();
    assert_eq!(line.address(), &Address::Tcp(([127, 0, 0, 1], 1234).into()));
    assert_eq!(
        (line.version(), line.certificate(), line.multiplexing()),
        (0, None, None)
    );
}

/// As they stand here a host shows them.
#[test]
fn what_is_no_handshake_is_said_with_what_to_do() {
    for (line, message) in [
        (
            "",
            "the first line on the plugin's stdout is blank, and must be the handshake \
             \"1|version|network|address|grpc|certificate\"; the plugin must write nothing else to its stdout before it",
        ),
        (
            "starting up\n",
            "the first line on the plugin's stdout is \"starting up\", and must be the handshake \
             \"1|version|network|address|grpc|certificate\"; is it a go-plugin plugin for this system, and does nothing else write to \
             its stdout first? Logs belong on stderr",
        ),
        (
            "2|1|unix|/s|grpc",
            "the handshake's first field, the core protocol, is \"2\"; it must be 1: build the plugin with a go-plugin that speaks it, \
             and have it write nothing else to its stdout first",
        ),
        (
            "1|v5|unix|/s|grpc",
            "the handshake's second field, the version of the program's own protocol, is \"v5\"; it must be a whole number of 0 or \
             more, one of those in PLUGIN_PROTOCOL_VERSIONS",
        ),
        (
            "1|1|pipe|/s|grpc",
            "the handshake's third and fourth field say where the plugin listens: the network is \"pipe\"; it must be \"unix\" or \"tcp\"",
        ),
        (
            "1|1|unix||grpc",
            "the handshake's third and fourth field say where the plugin listens: the address is \"\"; with the network \"unix\" it \
             must be the path of a socket, without control characters",
        ),
        (
            "1|1|tcp|a.example:1|grpc",
            "the handshake's third and fourth field say where the plugin listens: the address is \"a.example:1\"; with the network \
             \"tcp\" it must be ip:port, such as 127.0.0.1:1234",
        ),
        (
            "1|1|unix|/s",
            "the plugin speaks net/rpc, which is Go's alone (the handshake has no fifth field, which means that); it must speak gRPC: \
             have it implement GRPCPlugin, and set GRPCServer in its ServeConfig",
        ),
        (
            "1|1|unix|/s|netrpc|",
            "the plugin speaks net/rpc, which is Go's alone (the handshake's fifth field is \"netrpc\"); it must speak gRPC: have it \
             implement GRPCPlugin, and set GRPCServer in its ServeConfig",
        ),
        (
            "1|1|unix|/s|GRPC|",
            "the handshake's fifth field, the protocol, is \"GRPC\"; it must be \"grpc\"",
        ),
        (
            "1|1|unix|/s|grpc||yes",
            "the handshake's seventh field says whether all connections go over one socket, and is \"yes\"; it must be \"true\" or \
             \"false\", or left out",
        ),
    ] {
        assert_eq!(refused(line).to_string(), message);
    }
}

#[test]
fn a_certificate_that_is_none_is_refused() {
    let line = |field: &str| refused(&format!("1|1|unix|/s|grpc|{field}"));
    for field in [
        "*".repeat(51),
        "A".repeat(51),
        "_".repeat(52),
        "A".repeat(52),
    ] {
        let error = line(&field);
        assert!(matches!(error, HandshakeError::Certificate(_)), "{error:?}");
    }
    let text = line(&"A".repeat(52)).to_string();
    assert_eq!(
        text,
        "the handshake's sixth field must be the plugin's certificate, as base64 of its DER without padding, or empty: its 39 bytes are \
         not one certificate in DER; PEM, and chains, are not taken here"
    );
}

#[test]
fn a_long_line_is_cut_in_the_message_and_one_longer_than_hosts_read_is_refused() {
    let long = "x\u{1b}".repeat(MAX_LINE / 2);
    let shown = refused(&long).to_string();
    assert!(shown.len() < 1_000, "{} bytes", shown.len());
    assert!(!shown.contains('\u{1b}'));
    assert_eq!(
        refused(&(long + "y")),
        HandshakeError::TooLong(MAX_LINE + 1)
    );
}

#[test]
fn an_address_that_a_line_cannot_carry_is_refused() {
    assert!(HandshakeLine::new(1, Address::Unix("/tmp/a|b".into())).is_err());
    assert!(HandshakeLine::new(1, Address::Tcp(([127, 0, 0, 1], 0).into())).is_err());
}

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/handshake");
    let mut checked = 0;
    for entry in fs::read_dir(folder).unwrap() {
        if let Ok(text) = String::from_utf8(fs::read(entry.unwrap().path()).unwrap()) {
            checks::line(&text);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        "/[^|\\p{Cc}]{0,60}".prop_map(|path| Address::Unix(PathBuf::from(path))),
        (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|(ip, port)| Address::Tcp((ip, port).into())),
        (any::<[u16; 8]>(), 1..=u16::MAX).prop_map(|(ip, port)| Address::Tcp((ip, port).into())),
    ]
}

fn some_certificate() -> impl Strategy<Value = Certificate> {
    proptest::collection::vec(any::<u8>(), 0x80..0x100).prop_map(|content| {
        let length = u8::try_from(content.len()).unwrap();
        Certificate::from_der([&[0x30, 0x81, length], &*content].concat()).unwrap()
    })
}

/// Texts that come near a handshake.
fn near() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        4 => prop::sample::select(vec!["1", "0", "5", "unix", "tcp", "grpc", "netrpc", "", "true", "F", "/s", "127.0.0.1:1", ":1"])
            .prop_map(str::to_owned),
        1 => any::<String>(),
        1 => some_certificate().prop_map(|certificate| certificate.to_base64()),
    ];
    proptest::collection::vec(field, 0..9).prop_map(|fields| fields.join("|"))
}

proptest! {
    #[test]
    fn a_line_is_read_as_it_was_written(
        version: u32,
        address in address(),
        certificate in proptest::option::of(some_certificate()),
        multiplexing: Option<bool>,
    ) {
        let mut line = HandshakeLine::new(version, address).unwrap();
        if let Some(certificate) = certificate {
            line = line.with_certificate(certificate);
        }
        if let Some(multiplexing) = multiplexing {
            line = line.with_multiplexing(multiplexing);
        }
        for written in [line.to_string(), format!("{line}\r\n")] {
            prop_assert_eq!(HandshakeLine::parse(&written), Ok(line.clone()));
        }
    }

    #[test]
    fn no_text_breaks_the_rules(text in prop_oneof![near(), any::<String>()]) {
        checks::line(&text);
    }
}
