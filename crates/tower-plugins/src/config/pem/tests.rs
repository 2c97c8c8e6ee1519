use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// 2026-06-01T00:00:00Z.
const NOW: u64 = 1_780_272_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn file(path: &str, text: impl Into<String>) -> FileContents {
    FileContents::new(path, text.into().into_bytes())
}

/// A certificate for the days from `from` to `to`, with its key.
fn pair(from: (i32, u8, u8), to: (i32, u8, u8)) -> (String, String) {
    let mut params = CertificateParams::new(["plugin.test".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn valid() -> (String, String) {
    pair((2020, 1, 1), (2999, 1, 1))
}

#[test]
fn a_certificate_that_is_valid_now_with_its_key_is_taken() {
    let (cert, key) = valid();
    let (cert, key) = (file("cert.pem", cert), file("key.pem", key));
    assert_eq!(check_cert(&cert, now()), Ok(()));
    assert_eq!(check_ca(&cert), Ok(()));
    assert_eq!(check_identity(&cert, &key), Ok(()));
}

#[test]
fn a_certificate_out_of_its_time_is_refused_with_the_time() {
    let (expired, _) = pair((2020, 1, 1), (2026, 5, 31));
    assert_eq!(
        check_cert(&file("cert.pem", expired), now()).unwrap_err(),
        "the certificate in \"cert.pem\" expired on 2026-05-31T00:00:00Z: renew it"
    );
    let (early, _) = pair((2026, 11, 1), (2030, 1, 1));
    assert_eq!(
        check_cert(&file("cert.pem", early), now()).unwrap_err(),
        "the certificate in \"cert.pem\" is not valid before 2026-11-01T00:00:00Z: wait until \
         then, or set this machine's clock"
    );
}

#[test]
fn of_a_chain_the_first_certificate_is_the_one_that_counts() {
    let (expired, _) = pair((2020, 1, 1), (2026, 5, 31));
    let (cert, key) = valid();
    let chain = file("cert.pem", format!("{cert}{expired}"));
    assert_eq!(check_cert(&chain, now()), Ok(()));
    assert_eq!(
        check_identity(&chain, &file("key.pem", key.clone())),
        Ok(())
    );
    let reversed = file("cert.pem", format!("{expired}{cert}"));
    assert!(check_cert(&reversed, now()).is_err());
    let error = check_identity(&reversed, &file("key.pem", key)).unwrap_err();
    assert!(error.contains("does not belong"), "{error}");
}

#[test]
fn a_ca_file_is_of_use_while_one_of_its_certificates_is_valid() {
    let (first, _) = pair((2000, 1, 1), (2010, 1, 1));
    let (second, _) = pair((2000, 1, 1), (2011, 11, 1));
    let (cert, _) = valid();
    let both = format!("{first}{second}");
    assert_eq!(
        check_ca(&file("ca.pem", &both)).unwrap_err(),
        "the last of the 2 certificates in \"ca.pem\" expired on 2011-11-01T00:00:00Z: name the issuer's current one"
    );
    let error = check_ca_at(&file("ca.pem", first), now()).unwrap_err();
    assert!(
        error.starts_with("the certificate in \"ca.pem\" expired on 2010-01-01T"),
        "{error}"
    );
    assert_eq!(check_ca(&file("ca.pem", format!("{both}{cert}"))), Ok(()));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ((cert, _), (_, key)) = (valid(), valid());
    let error = check_identity(&file("cert.pem", cert), &file("key.pem", key)).unwrap_err();
    assert!(
        error.starts_with(
            "the key in \"key.pem\" does not belong to the certificate in \"cert.pem\""
        ),
        "{error}"
    );
}

#[test]
fn what_is_not_what_it_should_be_is_named_and_not_repeated() {
    let (cert, key) = valid();
    let secret = key.lines().nth(1).unwrap().to_owned();
    let (cert, key) = (file("cert.pem", cert), file("key.pem", key));
    let cut = file("cut.pem", format!("-----BEGIN PRIVATE KEY-----\n{secret}"));
    let text = |label: &str| format!("-----BEGIN {label}-----\n{secret}\n-----END {label}-----\n");
    let encrypted = file("encrypted.pem", text("ENCRYPTED PRIVATE KEY"));
    let (bad_key, bad_cert) = (
        file("bad.pem", text("PRIVATE KEY")),
        file("bad.pem", text("CERTIFICATE")),
    );
    let odd = file(
        "odd.pem",
        format!("-----BEGIN CERTIFICATE-----\n{secret}*\n-----END CERTIFICATE-----"),
    );
    let cases = [
        (check_ca(&key), "\"key.pem\" holds no certificate in PEM"),
        (
            check_cert(&key, now()),
            "\"key.pem\" holds no certificate in PEM",
        ),
        (
            check_ca(&file("empty.pem", "")),
            "holds no certificate in PEM",
        ),
        (
            check_identity(&key, &key),
            "\"key.pem\" holds no certificate in PEM",
        ),
        (
            check_identity(&cert, &cert),
            "\"cert.pem\" holds no private key in PEM",
        ),
        (check_identity(&cert, &cut), "\"cut.pem\" is not whole PEM"),
        (
            check_identity(&cert, &encrypted),
            "\"encrypted.pem\" is encrypted",
        ),
        (
            check_identity(&cert, &bad_key),
            "the private key in \"bad.pem\" cannot be used",
        ),
        (
            check_identity(&bad_cert, &key),
            "\"bad.pem\" holds a certificate that cannot be read",
        ),
        (
            check_cert(&bad_cert, now()),
            "\"bad.pem\" holds a certificate that cannot be read",
        ),
        (
            check_ca(&bad_cert),
            "\"bad.pem\" holds a certificate that cannot be read",
        ),
        (check_ca(&odd), "\"odd.pem\" is not whole PEM"),
    ];
    for (result, expected) in cases {
        let error = result.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(&secret[..16]), "{error}");
    }
}
