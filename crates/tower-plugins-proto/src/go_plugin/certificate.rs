//! A certificate, as the line carries it.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The standard alphabet; written without padding, as Go's hosts take no other, and read with it or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An X.509 certificate in DER: the one that a plugin, or its host, proves itself with.
///
/// It is one that is trusted by its bytes alone, so that nothing in it is looked at here.
/// With the feature `tls` it can be made and checked, and written as PEM, which is how a host hands over its own.
///
/// ```
/// use tower_plugins_proto::go_plugin::Certificate;
///
/// // In truth it is some hundred bytes long.
/// let certificate = Certificate::from_der([0x30, 2, 5, 0])?;
/// assert_eq!(certificate.to_base64(), "MAIFAA");
/// assert_eq!(Certificate::from_base64("MAIFAA")?, certificate);
/// // Padding is taken, too.
/// assert_eq!(Certificate::from_base64("MAIFAA==")?, certificate);
/// # Ok::<(), tower_plugins_proto::go_plugin::CertificateError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Certificate(Vec<u8>);

/// What is no [`Certificate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It is not base64 of the standard alphabet.
    #[error("it is not base64 of the standard alphabet: {0}")]
    Base64(String),
    /// It is not one sequence of DER.
    #[error("its {0} bytes are not one certificate in DER; PEM, and chains, are not taken here")]
    Der(usize),
    /// It is not one certificate in PEM.
    #[error("it is not one certificate in PEM, which begins with -----BEGIN CERTIFICATE-----: {0}")]
    Pem(String),
}

impl Certificate {
    /// Takes a certificate in DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Der`] if `der` is not one sequence, whole and with nothing after it. More is not looked at.
    pub fn from_der(der: impl Into<Vec<u8>>) -> Result<Self, CertificateError> {
        let der = der.into();
        if is_sequence(&der) {
            Ok(Self(der))
        } else {
            Err(CertificateError::Der(der.len()))
        }
    }

    /// Reads a certificate as it stands in the handshake line; padding may be there or not.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Base64`] or [`CertificateError::Der`].
    pub fn from_base64(text: &str) -> Result<Self, CertificateError> {
        let der = BASE64
            .decode(text)
            .map_err(|error| CertificateError::Base64(error.to_string()))?;
        Self::from_der(der)
    }

    /// As it stands in the handshake line: base64, the standard alphabet, no padding.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// Reads a certificate in PEM, as a host hands over its own in [`env::CLIENT_CERT`](super::env::CLIENT_CERT).
    ///
    /// ```
    /// use tower_plugins_proto::go_plugin::{Certificate, tls::Identity};
    ///
    /// let certificate = Identity::generate()?.certificate().clone();
    /// assert_eq!(Certificate::from_pem(&certificate.to_pem())?, certificate);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CertificateError::Pem`] if there is none, or more than one, and [`CertificateError::Der`].
    #[cfg(feature = "tls")]
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};

        let mut found = CertificateDer::pem_slice_iter(text.as_bytes());
        let wrong = |what: &str| CertificateError::Pem(what.to_owned());
        let first = found
            .next()
            .ok_or_else(|| wrong("there is none"))?
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        if found.next().is_some() {
            return Err(wrong("there is more than one"));
        }
        Self::from_der(first.as_ref())
    }

    /// As PEM, with a newline at its end: what a host puts into [`env::CLIENT_CERT`](super::env::CLIENT_CERT).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn to_pem(&self) -> String {
        use base64::engine::general_purpose::STANDARD;

        /// The characters of a line, by RFC 7468.
        const WIDTH: usize = 64;

        let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
        let text = STANDARD.encode(&self.0);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(WIDTH.min(rest.len()));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem + "-----END CERTIFICATE-----\n"
    }

    /// The bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

/// How long it is: hundreds of bytes are no help to a reader.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} bytes)", self.0.len())
    }
}

/// Whether `der` is one sequence, whole and with nothing after it.
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = der else {
        return false;
    };
    let short = usize::from(*first);
    if short < 0x80 {
        return rest.len() == short;
    }
    let Some((length, content)) = rest.split_at_checked(short & 0x7f) else {
        return false;
    };
    // Four bytes are 4 GiB, and DER writes no length longer than it need be.
    if length.is_empty() || length.len() > 4 || length[0] == 0 {
        return false;
    }
    let length = length
        .iter()
        .fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    length >= 0x80 && content.len() == length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(length: &[u8], content: usize) -> Vec<u8> {
        [&[0x30], length, &vec![7; content]].concat()
    }

    #[test]
    fn one_whole_sequence_is_taken_and_nothing_else() {
        for der in [
            sequence(&[0], 0),
            sequence(&[0x7f], 0x7f),
            sequence(&[0x81, 0x80], 0x80),
            sequence(&[0x82, 1, 0], 0x100),
        ] {
            assert_eq!(Certificate::from_der(der.clone()).unwrap().der(), der);
        }
        for der in [
            vec![],
            vec![0x30],
            vec![0x31, 0],
            sequence(&[1], 2),
            sequence(&[2], 1),
            sequence(&[0x80], 0),
            sequence(&[0x81], 0),
            sequence(&[0x81, 0x7f], 0x7f),
            sequence(&[0x82, 0, 0x80], 0x80),
            sequence(&[0x85, 1, 0, 0, 0, 0], 0),
            sequence(&[0xff], 3),
            b"-----BEGIN CERTIFICATE-----".to_vec(),
        ] {
            let length = der.len();
            let error = Certificate::from_der(der.clone());
            assert_eq!(error, Err(CertificateError::Der(length)), "{der:?}");
        }
    }

    #[test]
    fn base64_of_another_alphabet_is_refused() {
        for text in [
            "MAIFAA===",
            "MAIF-A",
            "MAIF_A",
            "MAIFA",
            "MA IFAA",
            "MAIFAB",
        ] {
            let read = Certificate::from_base64(text);
            assert!(
                matches!(read, Err(CertificateError::Base64(_))),
                "{text} {read:?}"
            );
        }
    }

    #[test]
    fn its_bytes_are_not_shown() {
        let certificate = Certificate::from_der([0x30, 2, 5, 0]).unwrap();
        assert_eq!(format!("{certificate:?}"), "Certificate(4 bytes)");
    }
}
