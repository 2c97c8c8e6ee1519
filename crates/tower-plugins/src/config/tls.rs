//! `tls`, and the files of `auth` with `method: mtls`.

use std::time::SystemTime;

use super::fault::Fault;
#[cfg(feature = "tls")]
use super::pem;
use super::table::Table;
use super::tree::Value;
use super::{FileContents, Identity, Pin, TlsSpec, TlsVersion};

pub(super) const VERSIONS: [(&str, TlsVersion); 2] =
    [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

/// The block `tls` over `base`.
pub(super) fn read(table: &mut Table<'_>, base: &TlsSpec) -> TlsSpec {
    let server_name = table.read("server_name", |given, _| {
        let name = given.text()?;
        check_name(name)?;
        Ok(name.to_owned())
    });
    let min_version = table.word("min_version", &VERSIONS);
    let pins = table.texts("pins", |text| {
        let pin = text.parse::<Pin>();
        pin.map_err(|invalid| Fault::of_value(invalid.to_string()))
    });
    let expiry_warning = table.timeout_or_off("expiry_warning");
    for (one, other) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if table.has(one) && !table.has(other) && base.identity.is_none() {
            table.conflict(one, format!("takes {other} as well"));
        }
    }
    TlsSpec {
        server_name: server_name.or_else(|| base.server_name.clone()),
        min_version: min_version.unwrap_or(base.min_version),
        pins: pins.unwrap_or_else(|| base.pins.clone()),
        expiry_warning: expiry_warning.unwrap_or(base.expiry_warning),
        ..read_files(table, base)
    }
}

/// `ca_file`, `cert_file` and `key_file`.
pub(super) fn read_files(table: &mut Table<'_>, base: &TlsSpec) -> TlsSpec {
    let ca = read_ca(table);
    let written = table.has("cert_file") || table.has("key_file");
    let cert = table.file("cert_file", false);
    let key = table.file("key_file", true);
    if let Some(cert) = &cert {
        check(
            table,
            "cert_file",
            pem::check_cert(cert, SystemTime::now()),
            &[cert],
        );
    }
    let base_identity = base.identity.as_ref();
    let cert = cert.or_else(|| base_identity.map(|identity| identity.cert.clone()));
    let key = key.or_else(|| base_identity.map(|identity| identity.key.clone()));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => {
            if written && table.is_sound() {
                check(
                    table,
                    "key_file",
                    pem::check_identity(&cert, &key),
                    &[&cert, &key],
                );
            }
            Some(Identity { cert, key })
        }
        _ => None,
    };
    TlsSpec {
        ca: ca.or_else(|| base.ca.clone()),
        identity,
        ..base.clone()
    }
}

/// `ca_file`.
pub(super) fn read_ca(table: &mut Table<'_>) -> Option<FileContents> {
    let ca = table.file("ca_file", false);
    if let Some(ca) = &ca {
        check(table, "ca_file", pem::check_ca(ca), &[ca]);
    }
    ca
}

/// Reports what is wrong with the files, which are called what the config calls them.
fn check(table: &Table<'_>, key: &str, checked: Result<(), String>, files: &[&FileContents]) {
    let Err(mut message) = checked else { return };
    let keys = ["ca_file", "cert_file", "key_file"];
    let written = keys.into_iter().filter_map(|key| table.get(key));
    let from_environment = written.into_iter().any(|node| match &node.value {
        Value::Text(text) => text.contains("${") || node.at.variable().is_some(),
        _ => false,
    });
    if from_environment {
        for file in files {
            message = message.replace(&format!("{:?}", file.path()), "the file that it names");
        }
    }
    table.problem(key, Fault::new(super::ProblemKind::File, message));
}

/// Whether `name` is that of a host, or an IP address.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let mut labels = name.strip_suffix('.').unwrap_or(name).split('.');
    // One that ends in a number would be an address, if it were one.
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    let is_host = name.len() <= 253
        && labels.clone().all(is_label)
        && !labels.next_back().is_some_and(is_number);
    if is_host || name.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Fault::of_value(
        "is not the name of a host: write one such as \"search.internal\", in ASCII (xn--… for others)",
    ))
}

/// Without TLS nothing is made of the files, and the plugin is refused when it is to be made.
#[cfg(not(feature = "tls"))]
mod pem {
    use std::time::SystemTime;

    use super::super::FileContents;

    pub(super) const fn check_ca(_: &FileContents) -> Result<(), String> {
        Ok(())
    }

    pub(super) const fn check_cert(_: &FileContents, _: SystemTime) -> Result<(), String> {
        Ok(())
    }

    pub(super) const fn check_identity(_: &FileContents, _: &FileContents) -> Result<(), String> {
        Ok(())
    }
}
