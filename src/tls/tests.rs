use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::domain::SystemClock;

struct Files {
    dir: tempfile::TempDir,
    made: self_signed::SelfSigned,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let made = self_signed::ensure(dir.path(), SystemClock.now()).unwrap();
    Files { dir, made }
}

fn days(days: i64) -> Timestamp {
    SystemClock.now().plus_millis(days * SECONDS_PER_DAY * 1_000)
}

type ServerSide = tokio_rustls::server::TlsStream<DuplexStream>;

/// Both ends of a handshake with a client that trusts `ca`.
async fn handshake(tls: &Arc<ServerTls>, ca: &[u8]) -> std::io::Result<(TlsStream<DuplexStream>, ServerSide)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let (client, server) = tokio::join!(connector.connect(name, near), tls.acceptor().accept(far));
    Ok((client?, server?))
}

#[tokio::test]
async fn a_changed_pair_serves_new_handshakes_and_leaves_old_connections_alone() {
    let files = files();
    let tls = ServerTls::load(files.made.files.clone(), SystemClock.now()).unwrap();
    let old_ca = fs::read(&files.made.ca).unwrap();
    let (mut client, mut server) = handshake(&tls, &old_ca).await.unwrap();

    assert!(matches!(tls.reload_if_changed(days(0)), Reload::Unchanged));
    self_signed::ensure(files.dir.path(), days(350)).unwrap();
    assert!(matches!(tls.reload_if_changed(days(350)), Reload::Replaced));

    let new_ca = fs::read(&files.made.ca).unwrap();
    assert!(handshake(&tls, &old_ca).await.is_err());
    // The new certificate is not valid yet on this machine's clock, but its authority is the one that was asked.
    let refusal = handshake(&tls, &new_ca).await.err().unwrap().to_string();
    assert!(refusal.contains("not valid yet"), "{refusal}");

    client.write_all(b"still here").await.unwrap();
    client.flush().await.unwrap();
    let mut heard = [0; 10];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_broken_new_file_leaves_the_old_certificate_until_it_is_mended() {
    let files = files();
    let tls = ServerTls::load(files.made.files.clone(), SystemClock.now()).unwrap();
    let ca = fs::read(&files.made.ca).unwrap();
    let good = fs::read(&files.made.files.cert).unwrap();

    secret_file::replace(&files.made.files.cert, b"half a cert").unwrap();
    assert!(matches!(
        tls.reload_if_changed(days(0)),
        Reload::Kept(TlsError::Malformed { .. })
    ));
    handshake(&tls, &ca).await.unwrap();
    assert!(
        matches!(tls.reload_if_changed(days(0)), Reload::Unchanged),
        "a broken file is tried once"
    );

    secret_file::replace(&files.made.files.cert, &good).unwrap();
    assert!(matches!(tls.reload_if_changed(days(0)), Reload::Replaced));
    handshake(&tls, &ca).await.unwrap();
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let files = self_signed::ensure(dir.path(), now).unwrap().files;
    let day = |days: i64| now.plus_millis(days * SECONDS_PER_DAY * 1_000);
    let refusal = |now| ServerTls::load(files.clone(), now).err().unwrap();
    assert!(matches!(refusal(day(367)), TlsError::Expired { days: 3, .. }));
    assert!(matches!(refusal(day(-10)), TlsError::NotYetValid { days: 9, .. }));
    assert_eq!(days_left(&files, now).unwrap(), 364);
}

#[test]
fn keys_that_others_may_read_are_refused() {
    let files = files();
    let key = &files.made.files.key;
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = ServerTls::load(files.made.files.clone(), days(0)).err().unwrap();
    assert_eq!(error.remedy(), format!("run: chmod 600 {}", key.display()));
    fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(ServerTls::load(files.made.files.clone(), days(0)).is_ok());
}

#[test]
fn pairs_that_do_not_belong_together_are_refused() {
    let (one, other) = (files(), files());
    let mixed = TlsFiles {
        cert: one.made.files.cert.clone(),
        key: other.made.files.key.clone(),
    };
    assert!(matches!(
        ServerTls::load(mixed, days(0)).err().unwrap(),
        TlsError::Mismatch { .. }
    ));
    let swapped = TlsFiles {
        cert: one.made.files.key.clone(),
        key: one.made.files.cert.clone(),
    };
    assert!(matches!(
        ServerTls::load(swapped, days(0)).err().unwrap(),
        TlsError::Malformed { .. }
    ));
    let missing = TlsFiles {
        cert: one.dir.path().join("none"),
        key: one.made.files.key.clone(),
    };
    assert!(matches!(
        ServerTls::load(missing, days(0)).err().unwrap(),
        TlsError::Unreadable { .. }
    ));
}
