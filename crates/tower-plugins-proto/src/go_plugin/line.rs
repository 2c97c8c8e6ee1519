//! The line by which a plugin tells its host where it can be reached.

use std::fmt;

use super::shown::Shown;
use super::{Address, AddressError, Certificate, CertificateError};

/// The one version of the protocol itself, the line's first field.
pub const CORE_PROTOCOL: u32 = 1;

/// The longest line, in bytes, its end included: 64 KiB. A host reads no further.
pub const MAX_LINE: usize = 64 << 10;

/// A sixth field of as many characters or fewer is not looked at: it is none, or of a time before there were certificates.
const NO_CERTIFICATE: usize = 50;

/// The first line on a plugin's stdout: `core|version|network|address|protocol|certificate|multiplexing`.
///
/// [`parse`](Self::parse) is the host's side; a plugin writes it with [`Display`](fmt::Display), and a newline.
/// The protocol is gRPC: a plugin of net/rpc is refused. Fields beyond the seventh are not looked at.
///
/// ```
/// use tower_plugins_proto::go_plugin::{Address, HandshakeError, HandshakeLine};
///
/// let line = HandshakeLine::new(5, Address::Unix("/tmp/plugin42".into()))?;
/// assert_eq!(line.to_string(), "1|5|unix|/tmp/plugin42|grpc|");
/// assert_eq!(HandshakeLine::parse("1|5|unix|/tmp/plugin42|grpc|\r\n")?, line);
///
/// let error = HandshakeLine::parse("starting up ...").unwrap_err();
/// assert!(matches!(error, HandshakeError::Unrecognized { .. }));
/// assert!(HandshakeLine::parse("1|5|tcp|127.0.0.1:1234|netrpc").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeLine {
    version: u32,
    address: Address,
    certificate: Option<Certificate>,
    multiplexing: Option<bool>,
}

/// Why a line is no [`HandshakeLine`]. Each message says what was found, what it must be, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It is longer than [`MAX_LINE`].
    #[error(
        "the first line on the plugin's stdout is {0} bytes long, and a handshake has at most {MAX_LINE}; is it a go-plugin \
         plugin, and does nothing else write to its stdout first?"
    )]
    TooLong(usize),
    /// It is empty, or blank.
    #[error(
        "the first line on the plugin's stdout is blank, and must be the handshake \"{SHAPE}\"; the plugin must write \
         nothing else to its stdout before it"
    )]
    Blank,
    /// It has fewer than four fields.
    #[error(
        "the first line on the plugin's stdout is {}, and must be the handshake \"{SHAPE}\"; is it a go-plugin plugin for this \
         system, and does nothing else write to its stdout first? Logs belong on stderr",
        Shown(found)
    )]
    Unrecognized {
        /// The line.
        found: String,
    },
    /// The first field is not [`CORE_PROTOCOL`].
    #[error(
        "the handshake's first field, the core protocol, is {}; it must be {CORE_PROTOCOL}: build the plugin with a go-plugin \
         that speaks it, and have it write nothing else to its stdout first",
        Shown(found)
    )]
    CoreProtocol {
        /// The field.
        found: String,
    },
    /// The second field is no number.
    #[error(
        "the handshake's second field, the version of the program's own protocol, is {}; it must be a whole number of 0 or \
         more, one of those in PLUGIN_PROTOCOL_VERSIONS",
        Shown(found)
    )]
    Version {
        /// The field.
        found: String,
    },
    /// The third and fourth field are no address.
    #[error("the handshake's third and fourth field say where the plugin listens: {0}")]
    Address(#[from] AddressError),
    /// The plugin speaks net/rpc.
    #[error(
        "the plugin speaks net/rpc, which is Go's alone ({}); it must speak gRPC: have it implement GRPCPlugin, and set \
         GRPCServer in its ServeConfig",
        if *.said { "the handshake's fifth field is \"netrpc\"" } else { "the handshake has no fifth field, which means that" }
    )]
    NetRpc {
        /// Whether it says so; else it says nothing, which means the same.
        said: bool,
    },
    /// The fifth field is another protocol.
    #[error(
        "the handshake's fifth field, the protocol, is {}; it must be \"grpc\"",
        Shown(found)
    )]
    Protocol {
        /// The field.
        found: String,
    },
    /// The sixth field is no certificate.
    #[error(
        "the handshake's sixth field must be the plugin's certificate, as base64 of its DER without padding, or empty: {0}"
    )]
    Certificate(#[from] CertificateError),
    /// The seventh field is not one of Go's words for true and false.
    #[error(
        "the handshake's seventh field says whether all connections go over one socket, and is {}; it must be \"true\" or \
         \"false\", or left out",
        Shown(found)
    )]
    Multiplexing {
        /// The field.
        found: String,
    },
}

const SHAPE: &str = "1|version|network|address|grpc|certificate";

impl HandshakeLine {
    /// A plugin that serves `version` of the program's own protocol at `address`, without TLS.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if the line could not carry the address.
    pub fn new(version: u32, address: Address) -> Result<Self, AddressError> {
        address.check()?;
        Ok(Self {
            version,
            address,
            certificate: None,
            multiplexing: None,
        })
    }

    /// With the certificate that the plugin will prove itself with. Only for a host that gave its own in
    /// [`env::CLIENT_CERT`](super::env::CLIENT_CERT): another cannot take it.
    #[must_use]
    pub fn with_certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// With whether all connections go over one socket. Only for a host that set
    /// [`env::MULTIPLEX_GRPC`](super::env::MULTIPLEX_GRPC): another cannot take it.
    #[must_use]
    pub fn with_multiplexing(mut self, multiplexing: bool) -> Self {
        self.multiplexing = Some(multiplexing);
        self
    }

    /// Reads a plugin's first line, with the newline or without; blanks around it, and a carriage return, are taken too.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] says what was found, what it must be, and what to do.
    pub fn parse(line: &str) -> Result<Self, HandshakeError> {
        if line.len() > MAX_LINE {
            return Err(HandshakeError::TooLong(line.len()));
        }
        let line = line.trim();
        if line.is_empty() {
            return Err(HandshakeError::Blank);
        }
        let mut fields = line.split('|');
        let (Some(core), Some(version), Some(network), Some(address)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            let found = line.to_owned();
            return Err(HandshakeError::Unrecognized { found });
        };
        if number(core) != Some(CORE_PROTOCOL) {
            let found = core.to_owned();
            return Err(HandshakeError::CoreProtocol { found });
        }
        let version = number(version).ok_or_else(|| HandshakeError::Version {
            found: version.to_owned(),
        })?;
        let address = Address::parse(network, address)?;
        check_protocol(fields.next())?;
        let certificate = fields
            .next()
            .filter(|field| field.len() > NO_CERTIFICATE)
            .map(Certificate::from_base64)
            .transpose()?;
        let multiplexing = fields.next().map(boolean).transpose()?;
        Ok(Self {
            version,
            address,
            certificate,
            multiplexing,
        })
    }

    /// The version of the program's own protocol that the plugin chose. Whether the host offered it, is the host's to check.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Where the plugin listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The certificate that the plugin will prove itself with. If a host gave its own and there is none here, it must not go on.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// Whether all connections go over one socket; `None` if the plugin did not say, as it need not know of such a thing.
    #[must_use]
    pub fn multiplexing(&self) -> Option<bool> {
        self.multiplexing
    }
}

/// Without the newline.
impl fmt::Display for HandshakeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version, address, ..
        } = self;
        let network = address.network();
        write!(f, "{CORE_PROTOCOL}|{version}|{network}|{address}|grpc|")?;
        if let Some(certificate) = &self.certificate {
            f.write_str(&certificate.to_base64())?;
        }
        match self.multiplexing {
            Some(multiplexing) => write!(f, "|{multiplexing}"),
            None => Ok(()),
        }
    }
}

/// Go's decimal integer, less those below 0.
fn number(field: &str) -> Option<u32> {
    field.parse().ok()
}

fn check_protocol(field: Option<&str>) -> Result<(), HandshakeError> {
    match field {
        Some("grpc") => Ok(()),
        Some("netrpc") => Err(HandshakeError::NetRpc { said: true }),
        None => Err(HandshakeError::NetRpc { said: false }),
        Some(other) => Err(HandshakeError::Protocol {
            found: other.to_owned(),
        }),
    }
}

/// The words that Go takes.
fn boolean(field: &str) -> Result<bool, HandshakeError> {
    match field {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(HandshakeError::Multiplexing {
            found: other.to_owned(),
        }),
    }
}
