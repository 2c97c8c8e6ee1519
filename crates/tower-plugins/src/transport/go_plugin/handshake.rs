//! The first line on a plugin's standard output.

use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt};
use tower_plugins_layers::BoxError;
use tower_plugins_proto::go_plugin::{HandshakeError, HandshakeLine, MAX_LINE};

use crate::config::{GoPluginSpec, PluginTls};
use crate::transport::subprocess::{Unfit, describe};

/// What is read at once.
const CHUNK: usize = 4 << 10;

/// Reads the line from `stdout`, and gives what came after it.
pub(super) async fn read(
    stdout: &mut (impl AsyncRead + Unpin),
    executable: &Path,
) -> Result<(HandshakeLine, Vec<u8>), BoxError> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            break Some(end);
        }
        if bytes.len() > MAX_LINE {
            break None;
        }
        bytes.reserve(CHUNK);
        if stdout.read_buf(&mut bytes).await? == 0 {
            break None;
        }
    };
    if bytes.is_empty() {
        return Err(format!(
            "it closed its standard output without the line that says where it listens; is it a plugin of go-plugin, and are \
             go_plugin.cookie_key and cookie_value what it expects? {}",
            describe(executable)
        )
        .into());
    }
    let rest = end.map_or_else(Vec::new, |end| bytes.split_off(end + 1));
    let line = String::from_utf8_lossy(&bytes);
    match HandshakeLine::parse(&line) {
        Ok(line) => Ok((line, rest)),
        Err(error @ (HandshakeError::Unrecognized { .. } | HandshakeError::Blank)) => {
            Err(format!("{error}. {}", describe(executable)).into())
        }
        Err(
            error @ (HandshakeError::CoreProtocol { .. }
            | HandshakeError::NetRpc { .. }
            | HandshakeError::Protocol { .. }),
        ) => Err(Unfit(error.into()).into()),
        Err(error) => Err(error.into()),
    }
}

/// Whether what `line` says is what `spec` asked for.
pub(super) fn check(line: &HandshakeLine, spec: &GoPluginSpec) -> Result<(), String> {
    let version = line.version();
    if !spec.protocol_versions.contains(&version) {
        let ours = spec.protocol_versions.iter().map(u32::to_string);
        let ours = ours.collect::<Vec<_>>().join(", ");
        return Err(format!(
            "it speaks version {version} of the program's own protocol, and this host {ours}: take a plugin for one of them, or \
             add it to go_plugin.protocol_versions if this program can speak it"
        ));
    }
    match (spec.tls, line.certificate()) {
        (PluginTls::Auto, None) => {
            return Err(
                "it has no certificate, and go_plugin.auto_mtls asks for one: it knows no AutoMTLS, or has TLS of its own. Write the \
                 latter's `tls`, or auto_mtls: false to speak to it in plaintext"
                    .to_owned(),
            );
        }
        (PluginTls::Off, Some(_)) => {
            return Err(
                "it shows a certificate that it was not asked for, and speaks TLS: write go_plugin.auto_mtls: true"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if spec.multiplex && line.multiplexing() != Some(true) {
        return Err(
            "it does not have all connections go over one socket, which go_plugin.multiplex asks for: build it with go-plugin 1.6 or \
             later, or remove multiplex"
                .to_owned(),
        );
    }
    Ok(())
}
