//! TLS for the listeners: TLS 1.3 and 1.2, nothing older.
//!
//! A certificate that no client would accept, or a private key that others may read, stops the start. Files that change
//! while the server runs are taken over for new handshakes; if the new ones are broken, the old ones stay and the log
//! says so, because a running server with an old certificate serves better than none.

pub mod self_signed;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::domain::{Clock, Timestamp};
use crate::secret_file::{self, SecretFileError};

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chain, the server's own certificate first; PEM.
    pub cert: PathBuf,
    /// Private key; PEM.
    pub key: PathBuf,
}

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}: {kind}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// The private key's file could not be used.
    #[error("private key: {0}")]
    Key(#[from] SecretFileError),
    /// A file holds something else.
    #[error("{} holds no {wanted} in PEM", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Certificate and key do not belong together.
    #[error("the key {} does not belong to the certificate {}", key.display(), cert.display())]
    Mismatch {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("the certificate {} expired {days} days ago", path.display())]
    Expired {
        /// Which file.
        path: PathBuf,
        /// Whole days since.
        days: i64,
    },
    /// The certificate's time has not come.
    #[error("the certificate {} is valid in {days} days at the earliest", path.display())]
    NotYetValid {
        /// Which file.
        path: PathBuf,
        /// Whole days until then.
        days: i64,
    },
}

impl TlsError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unreadable { path, .. } => format!("let the server's user read {}", path.display()),
            Self::Key(error) => error.remedy(),
            Self::Malformed { wanted, .. } => format!("name a PEM file with a {wanted}"),
            Self::Mismatch { .. } => "name the key from which the certificate was requested".to_owned(),
            Self::Expired { .. } => "renew the certificate".to_owned(),
            Self::NotYetValid { .. } => "set the machine's clock, or use the previous certificate".to_owned(),
        }
    }
}

/// A loaded certificate and key, replaced while the server runs.
pub struct ServerTls {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
    /// What the files looked like when they were last tried, whatever came of it.
    seen: Mutex<Fingerprint>,
}

/// What became of a look at the files.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were.
    Unchanged,
    /// New handshakes use the new ones.
    Replaced,
    /// The new ones cannot be used; the old ones stay.
    Kept(TlsError),
}

impl ServerTls {
    /// Loads the files and checks them as of `now`.
    pub fn load(files: TlsFiles, now: Timestamp) -> Result<Arc<Self>, TlsError> {
        let seen = Fingerprint::of(&files);
        let current = load_pair(&files, now)?;
        Ok(Arc::new(Self {
            files,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(seen),
        }))
    }

    /// What a listener makes handshakes with. It follows every later change of the files.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Loads the files again if they changed since they were last tried.
    pub fn reload_if_changed(&self, now: Timestamp) -> Reload {
        let found = Fingerprint::of(&self.files);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == found {
                return Reload::Unchanged;
            }
            // Noted before loading: files that change meanwhile differ from this and are tried again.
            *seen = found;
        }
        match load_pair(&self.files, now) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                Reload::Replaced
            }
            Err(error) => Reload::Kept(error),
        }
    }

    /// Looks at the files every few seconds, and at once on SIGHUP, until the server stops.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
                Some(()) = async { hangup.as_mut()?.recv().await } => {}
            }
            let this = Arc::clone(&self);
            let now = clock.now();
            let Ok(reload) = tokio::task::spawn_blocking(move || this.reload_if_changed(now)).await else {
                return;
            };
            match reload {
                Reload::Unchanged => {}
                Reload::Replaced => tracing::info!("certificate replaced; new connections use it"),
                Reload::Kept(error) => {
                    let remedy = error.remedy();
                    tracing::error!(%error, remedy, "new certificate not usable, the old one stays");
                }
            }
        }
    }
}

impl ResolvesServerCert for ServerTls {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// Whole days until the first certificate of the chain expires, after checking that the pair can be used.
pub fn days_left(files: &TlsFiles, now: Timestamp) -> Result<i64, TlsError> {
    let pair = load_pair(files, now)?;
    let validity = Validity::of(files, &pair.cert[0])?;
    Ok((validity.until - seconds(now)) / SECONDS_PER_DAY)
}

fn load_pair(files: &TlsFiles, now: Timestamp) -> Result<CertifiedKey, TlsError> {
    let pem = fs::read(&files.cert).map_err(|error| TlsError::Unreadable {
        path: files.cert.clone(),
        kind: error.kind(),
    })?;
    let malformed = |path: &Path, wanted| TlsError::Malformed {
        path: path.to_owned(),
        wanted,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| malformed(&files.cert, "certificate"))?;
    let leaf = chain.first().ok_or_else(|| malformed(&files.cert, "certificate"))?;
    Validity::of(files, leaf)?.check(files, now)?;

    let pem = secret_file::read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed(&files.key, "private key"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            cert: files.cert.clone(),
            key: files.key.clone(),
        },
        rustls::Error::InvalidCertificate(_) => malformed(&files.cert, "certificate"),
        _ => malformed(&files.key, "private key"),
    })
}

/// When a certificate counts, in seconds since the Unix epoch.
struct Validity {
    from: i64,
    until: i64,
}

impl Validity {
    fn of(files: &TlsFiles, certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::Malformed {
            path: files.cert.clone(),
            wanted: "certificate",
        })?;
        let validity = parsed.validity();
        Ok(Self {
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
        })
    }

    fn check(&self, files: &TlsFiles, now: Timestamp) -> Result<(), TlsError> {
        let (now, path) = (seconds(now), files.cert.clone());
        if now > self.until {
            return Err(TlsError::Expired {
                path,
                days: (now - self.until) / SECONDS_PER_DAY,
            });
        }
        if now < self.from {
            return Err(TlsError::NotYetValid {
                path,
                days: (self.from - now) / SECONDS_PER_DAY,
            });
        }
        Ok(())
    }
}

/// Enough to see that a file is another one. The inode tells of a rename that kept length and second.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint([Option<(u64, u64, Option<SystemTime>)>; 2]);

impl Fingerprint {
    fn of(files: &TlsFiles) -> Self {
        Self([&files.cert, &files.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.len(), meta.modified().ok()))
        }))
    }
}

fn seconds(now: Timestamp) -> i64 {
    now.0.div_euclid(1_000)
}

const LOOK_EVERY: Duration = Duration::from_secs(3);
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

#[cfg(test)]
mod tests;
