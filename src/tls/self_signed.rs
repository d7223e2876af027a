//! A certificate for `localhost`, for trials.
//!
//! The authority's private key lives only as long as [`ensure`] runs: whoever trusts `ca-cert.pem` trusts this one
//! certificate and nothing that could be made later. The price is that a renewal is a new authority.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::{TlsFiles, days_left};
use crate::domain::Timestamp;
use crate::secret_file;

/// The files in `dir`, made or renewed when they are missing or have less than 30 days left. `ca` beside them is what
/// clients trust.
pub fn ensure(dir: &Path, now: Timestamp) -> io::Result<SelfSigned> {
    let made = SelfSigned {
        files: TlsFiles {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        },
        ca: dir.join("ca-cert.pem"),
    };
    if made.ca.is_file() && days_left(&made.files, now).is_ok_and(|days| days >= RENEW_DAYS) {
        return Ok(made);
    }
    secret_file::create_private_dir(dir)?;
    let pem = generate(now).map_err(|_| io::Error::other("the certificate could not be made"))?;
    // Certificate and key last: if this is interrupted they do not fit each other, and the next start makes all anew.
    secret_file::replace(&made.ca, pem.ca.as_bytes())?;
    secret_file::replace(&made.files.key, pem.key.as_bytes())?;
    secret_file::replace(&made.files.cert, pem.cert.as_bytes())?;
    fs::set_permissions(&made.ca, fs::Permissions::from_mode(0o644))?;
    tracing::info!(ca = %made.ca.display(), "self-signed certificate made; clients need the new authority file");
    Ok(made)
}

/// A self-signed setup on disk.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    /// What the server serves.
    pub files: TlsFiles,
    /// What clients trust.
    pub ca: PathBuf,
}

struct Pem {
    ca: String,
    cert: String,
    key: String,
}

fn generate(now: Timestamp) -> Result<Pem, rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "blind-relay trial authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];

    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];

    let seconds = u64::try_from(now.0 / 1_000).unwrap_or_default();
    // A day early, for clients whose clock is behind.
    let from = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.saturating_sub(DAY));
    for params in [&mut ca, &mut leaf] {
        params.not_before = from;
        params.not_after = from + Duration::from_secs(LIFETIME_DAYS * DAY);
    }

    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let cert = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok(Pem {
        ca: ca_cert.pem(),
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

const RENEW_DAYS: i64 = 30;
const LIFETIME_DAYS: u64 = 365;
const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Clock, SystemClock};

    #[test]
    fn is_reused_until_it_has_thirty_days_left() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let now = SystemClock.now();
        let in_days = |days: i64| now.plus_millis(days * 24 * 60 * 60 * 1_000);
        let made = ensure(&dir, now).unwrap();
        let first = fs::read(&made.files.cert).unwrap();
        ensure(&dir, in_days(330)).unwrap();
        assert_eq!(fs::read(&made.files.cert).unwrap(), first);
        ensure(&dir, in_days(336)).unwrap();
        assert_ne!(fs::read(&made.files.cert).unwrap(), first);
        assert_eq!(days_left(&made.files, in_days(336)).unwrap(), 364);
    }

    #[test]
    fn what_does_not_fit_together_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let made = ensure(dir.path(), now).unwrap();
        secret_file::replace(&made.files.key, generate(now).unwrap().key.as_bytes()).unwrap();
        ensure(dir.path(), now).unwrap();
        assert!(days_left(&made.files, now).is_ok());
    }

    #[test]
    fn the_key_is_the_owners_alone_and_no_authority_key_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let made = ensure(dir.path(), SystemClock.now()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&made.files.key), mode(&made.ca)), (0o600, 0o644));
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["ca-cert.pem", "cert.pem", "key.pem"]);
    }
}
