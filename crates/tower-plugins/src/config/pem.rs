//! What the PEM files of `tls` hold, and whether it can be used.
//!
//! No message here repeats anything of what a file holds: a key may be in any of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::time::{Time, Validity};

use super::{FileContents, Identity, Pin};

/// The cryptography of all our TLS. What the program has made the process's default has no say in it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates that `file` holds, at least one.
pub(crate) fn certificates(file: &FileContents) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.expose()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!(
            "{:?} holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----",
            file.path()
        )),
        Err(_) => Err(broken(file)),
    }
}

/// The certificate and the key that `identity` names, which belong together.
pub(crate) fn certified_key(identity: &Identity) -> Result<CertifiedKey, String> {
    let (cert, key) = (&identity.cert, &identity.key);
    let chain = certificates(cert)?;
    CertifiedKey::from_der(chain, private_key(key)?, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "the key in {:?} does not belong to the certificate in {:?}: name the key that its \
             certificate was requested with, and put the certificate itself before those of its issuers",
            key.path(),
            cert.path()
        ),
        Error::InvalidCertificate(_) => unreadable(cert),
        _ => format!(
            "the private key in {:?} cannot be used: it must be RSA of 2048 bits or more, ECDSA \
             over P-256, P-384 or P-521, or Ed25519",
            key.path()
        ),
    })
}

fn private_key(file: &FileContents) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(file.expose()).map_err(|error| match error {
        PemError::NoItemsFound if is_encrypted(file.expose()) => format!(
            "the private key in {:?} is encrypted, and no password is asked for: write it \
             unencrypted, as `openssl pkey` does, to a file that only this program may read",
            file.path()
        ),
        PemError::NoItemsFound => format!(
            "{:?} holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----, \
             -----BEGIN RSA PRIVATE KEY----- or -----BEGIN EC PRIVATE KEY-----",
            file.path()
        ),
        _ => broken(file),
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    let begin = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    pem.windows(begin.len()).any(|window| window == begin)
}

fn broken(file: &FileContents) -> String {
    format!(
        "{:?} is not whole PEM: a block of it has no end, or is not base64",
        file.path()
    )
}

fn unreadable(file: &FileContents) -> String {
    format!(
        "{:?} holds a certificate that cannot be read: write it anew as X.509 in PEM",
        file.path()
    )
}

/// Whether `file` can vouch for anyone.
pub(super) fn check_ca(file: &FileContents) -> Result<(), String> {
    check_ca_at(file, SystemTime::now())
}

fn check_ca_at(file: &FileContents, now: SystemTime) -> Result<(), String> {
    let certificates = certificates(file)?;
    // Bundles may have a certificate of long ago that nobody can read: the others count.
    let ends = certificates.iter().filter_map(|certificate| {
        let end = validity(certificate)?.not_after;
        Some((end.to_unix_duration(), end))
    });
    let Some((last, end)) = ends.max_by_key(|(end, _)| *end) else {
        return Err(unreadable(file));
    };
    if last >= since_epoch(now) {
        return Ok(());
    }
    let what = match certificates.len() {
        1 => "the certificate".to_owned(),
        count => format!("the last of the {count} certificates"),
    };
    Err(format!(
        "{what} in {:?} expired on {end}: name the issuer's current one",
        file.path()
    ))
}

/// Whether the certificate in `file`, the first one, is valid at `now`.
pub(super) fn check_cert(file: &FileContents, now: SystemTime) -> Result<(), String> {
    let certificates = certificates(file)?;
    let validity = certificates.first().and_then(validity);
    let Validity {
        not_before,
        not_after,
        ..
    } = validity.ok_or_else(|| unreadable(file))?;
    let told = |what: &str, time: Time, advice: &str| {
        Err(format!(
            "the certificate in {:?} {what} {time}: {advice}",
            file.path()
        ))
    };
    if not_after.to_unix_duration() < since_epoch(now) {
        return told("expired on", not_after, "renew it");
    }
    if not_before.to_unix_duration() > since_epoch(now) {
        let advice = "wait until then, or set this machine's clock";
        return told("is not valid before", not_before, advice);
    }
    Ok(())
}

/// Whether the certificate in `cert` and the key in `key` belong together.
pub(super) fn check_identity(cert: &FileContents, key: &FileContents) -> Result<(), String> {
    let identity = Identity {
        cert: cert.clone(),
        key: key.clone(),
    };
    certified_key(&identity).map(drop)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The pin of the public key in `certificate`.
pub(crate) fn pin(certificate: &[u8]) -> Option<Pin> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let key = certificate.tbs_certificate().subject_public_key_info();
    Some(Pin::of(&key.to_der().ok()?))
}

/// When `certificate`, in DER, expires.
pub(crate) fn not_after(certificate: &[u8]) -> Option<DateTime> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some(validity.not_after.to_date_time())
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(*certificate.tbs_certificate().validity())
}

#[cfg(test)]
mod tests;
