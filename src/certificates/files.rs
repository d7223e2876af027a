//! The files of the trust root and of the server key.
//!
//! The trust root's is 64 hex digits, the private key. The server key's holds three lines, so that key and certificate
//! are replaced in one step and a node needs nothing of the trust root but its public half:
//!
//! ```text
//! trust_root 05…   public, 66 hex digits
//! certificate 0a…  serialised, signed by the trust root
//! key 0123…        private, 64 hex digits
//! ```

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use keys_schema::certificate::{ServerCertificate, Signer};
use keys_schema::{EcPublicKey, PrivateKey};
use zeroize::Zeroizing;

use crate::encoding;
use crate::sealing::random;
use crate::secret_file::{self, SecretFileError};

/// Where the two keys are.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    trust_root: PathBuf,
    server_key: PathBuf,
}

/// A server key with its certificate, which the trust root signed.
pub struct ServerKey {
    trust_root: EcPublicKey,
    signer: Signer,
}

/// Why there is no server key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The server key was certified by another trust root than the one whose private half is here.
    #[error(
        "{} is not certified by the trust root in {}",
        server_key.display(),
        trust_root.display()
    )]
    OtherRoot {
        /// The server key's file.
        server_key: PathBuf,
        /// The trust root's file.
        trust_root: PathBuf,
    },
    /// There is a server key already.
    #[error("{} exists", .0.display())]
    Exists(PathBuf),
    /// The private half of the trust root is not where it is looked for.
    #[error("there is no trust root in {}", .0.display())]
    NoRoot(PathBuf),
    /// There is no server key yet.
    #[error("there is no server key in {}", .0.display())]
    NoServerKey(PathBuf),
}

impl KeyFileError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::File(error) => error.remedy(),
            Self::OtherRoot { .. } => {
                "restore both from one backup; if the server key alone is lost or foreign, remove \
                                       its file, and the next start makes one under the trust root"
                    .to_owned()
            }
            Self::Exists(_) => "see it with `blind-relay keys show`, or replace it with `blind-relay keys \
                                rotate-server-key`"
                .to_owned(),
            Self::NoRoot(_) => {
                "bring the trust root's file there, or name where it is with --trust-root-file".to_owned()
            }
            Self::NoServerKey(_) => "run `blind-relay keys init`, or start the server once".to_owned(),
        }
    }
}

impl KeyFiles {
    /// At these paths.
    pub fn new(trust_root: PathBuf, server_key: PathBuf) -> Self {
        Self { trust_root, server_key }
    }

    /// The file of the trust root's private half.
    pub fn trust_root_path(&self) -> &Path {
        &self.trust_root
    }

    /// The file of the server key.
    pub fn server_key_path(&self) -> &Path {
        &self.server_key
    }

    /// The server key, if there is one. The trust root's private half need not be there; if it is, the two must fit.
    pub fn read(&self) -> Result<Option<ServerKey>, KeyFileError> {
        let Some(key) = existing(ServerKey::read(&self.server_key))? else {
            return Ok(None);
        };
        match self.trust_root()? {
            Some(root) if root.public_key() != key.trust_root => Err(KeyFileError::OtherRoot {
                server_key: self.server_key.clone(),
                trust_root: self.trust_root.clone(),
            }),
            Some(_) | None => Ok(Some(key)),
        }
    }

    /// The server key; what is missing is made. Of two processes that start at once with the same files, both get the
    /// same key.
    pub fn read_or_create(&self) -> Result<ServerKey, KeyFileError> {
        loop {
            if let Some(key) = self.read()? {
                return Ok(key);
            }
            let root = PrivateKey::from_bytes(&*secret_file::read_or_create(&self.trust_root)?);
            let key = ServerKey::certify(&root, FIRST_ID);
            match secret_file::create(&self.server_key, key.file.as_bytes()) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error(&self.server_key, error)),
                Ok(()) => return Ok(key.server_key),
            }
        }
    }

    /// Makes a server key, and the trust root unless it is there.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] if there is a server key.
    pub fn init(&self) -> Result<ServerKey, KeyFileError> {
        if self.server_key.exists() {
            return Err(KeyFileError::Exists(self.server_key.clone()));
        }
        self.read_or_create()
    }

    /// Replaces the server key. What it signed stays valid. Nodes take the new one at their next start.
    ///
    /// # Errors
    /// [`KeyFileError::NoRoot`] without the trust root's private half, and [`KeyFileError::NoServerKey`] if there is
    /// nothing to replace.
    pub fn rotate(&self) -> Result<ServerKey, KeyFileError> {
        let old = self.read()?;
        let old = old.ok_or_else(|| KeyFileError::NoServerKey(self.server_key.clone()))?;
        let root = self.trust_root()?;
        let root = root.ok_or_else(|| KeyFileError::NoRoot(self.trust_root.clone()))?;
        let new = ServerKey::certify(&root, next_id(old.id()));
        secret_file::replace(&self.server_key, new.file.as_bytes())
            .map_err(|error| io_error(&self.server_key, error))?;
        Ok(new.server_key)
    }

    /// The public half of the trust root, if either file tells it.
    pub fn public_trust_root(&self) -> Result<Option<EcPublicKey>, KeyFileError> {
        match self.read()? {
            Some(key) => Ok(Some(key.trust_root)),
            None => Ok(self.trust_root()?.map(|root| root.public_key())),
        }
    }

    /// Whether the trust root's private half is there.
    pub fn has_trust_root(&self) -> bool {
        self.trust_root.exists()
    }

    fn trust_root(&self) -> Result<Option<PrivateKey>, KeyFileError> {
        let Some(text) = existing(secret_file::read(&self.trust_root).map_err(KeyFileError::from))? else {
            return Ok(None);
        };
        let bytes = secret_file::decode_hex(text.trim()).ok_or_else(|| {
            KeyFileError::File(SecretFileError::Malformed {
                path: self.trust_root.clone(),
                wanted: "64 hex digits",
            })
        })?;
        Ok(Some(PrivateKey::from_bytes(&bytes)))
    }
}

impl ServerKey {
    /// The public half of the trust root, which clients pin.
    pub fn trust_root(&self) -> &EcPublicKey {
        &self.trust_root
    }

    /// The number of the key among those of its trust root. Two nodes may have one number for two keys.
    pub fn id(&self) -> u32 {
        self.signer.certificate().id()
    }

    pub(super) fn into_signer(self) -> Signer {
        self.signer
    }

    fn read(path: &Path) -> Result<Self, KeyFileError> {
        let text = secret_file::read(path)?;
        Self::parse(&text).ok_or_else(|| {
            KeyFileError::File(SecretFileError::Malformed {
                path: path.to_owned(),
                wanted: "a server key that its trust root certified",
            })
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            Some(line.trim())
        };
        let trust_root = EcPublicKey::parse(&decode_hex(field("trust_root")?)?).ok()?;
        let certificate = ServerCertificate::parse(Bytes::from(decode_hex(field("certificate")?)?)).ok()?;
        let key = PrivateKey::from_bytes(&*secret_file::decode_hex(field("key")?)?);
        if !certificate.is_signed_by(&trust_root) {
            return None;
        }
        Some(Self {
            trust_root,
            signer: Signer::new(certificate, key)?,
        })
    }

    fn certify(root: &PrivateKey, id: u32) -> Certified {
        let bytes = Zeroizing::new(random::<32>());
        let key = PrivateKey::from_bytes(&bytes);
        let certificate = ServerCertificate::issue(id, key.public_key(), root, &random())
            .expect("ids are counted up from one and leave out the revoked one");
        let trust_root = root.public_key();
        // Every part before the secret is put together by reference, so that no unwiped buffer ever holds the secret.
        let public = format!(
            "trust_root {}\ncertificate {}\nkey ",
            encoding::hex(trust_root.serialized()),
            encoding::hex(&certificate.serialized())
        );
        let secret = secret_file::encode_hex(key.as_bytes());
        let mut file = Zeroizing::new(String::with_capacity(public.len() + secret.len() + 1));
        for part in [public.as_str(), &secret, "\n"] {
            file.push_str(part);
        }
        let signer = Signer::new(certificate, key).expect("the certificate is for this key");
        Certified {
            server_key: Self { trust_root, signer },
            file,
        }
    }
}

/// A new server key, and the text of its file.
struct Certified {
    server_key: ServerKey,
    file: Zeroizing<String>,
}

fn next_id(id: u32) -> u32 {
    match id.wrapping_add(1) {
        ServerCertificate::REVOKED_ID => ServerCertificate::REVOKED_ID + 1,
        next => next,
    }
}

/// `None` for a file that is not there.
fn existing<T>(read: Result<T, KeyFileError>) -> Result<Option<T>, KeyFileError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(KeyFileError::File(SecretFileError::Io { error, .. })) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn io_error(path: &Path, error: io::Error) -> KeyFileError {
    KeyFileError::File(SecretFileError::Io {
        path: path.to_owned(),
        error,
    })
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    encoding::read_hex(text, &mut bytes)?;
    Some(bytes)
}

const FIRST_ID: u32 = 1;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn files(dir: &Path) -> KeyFiles {
        KeyFiles::new(dir.join("trust-root"), dir.join("server-key"))
    }

    #[test]
    fn both_keys_are_made_once_and_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        assert!(files.read().unwrap().is_none());
        let made = files.read_or_create().unwrap();
        let again = files.read_or_create().unwrap();
        assert!(made.trust_root() == again.trust_root());
        assert!(made.signer.certificate() == again.signer.certificate());
        assert_eq!(made.id(), 1);
        for path in [files.trust_root_path(), files.server_key_path()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no draft is left");
        assert!(matches!(files.init().err().unwrap(), KeyFileError::Exists(_)));
    }

    #[test]
    fn racing_starts_agree_on_one_server_key() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let made: Vec<ServerKey> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| files.read_or_create().unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first = made[0].signer.certificate();
        assert!(made.iter().all(|key| key.signer.certificate() == first));
    }

    #[test]
    fn the_trust_root_may_be_elsewhere_once_the_server_key_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let made = files.init().unwrap();
        fs::rename(files.trust_root_path(), dir.path().join("offline")).unwrap();
        let read = files.read().unwrap().unwrap();
        assert!(read.trust_root() == made.trust_root());
        assert!(!files.has_trust_root());
        assert!(matches!(files.rotate().err().unwrap(), KeyFileError::NoRoot(_)));
        assert!(files.read().unwrap().is_some(), "nothing was changed");
    }

    #[test]
    fn rotation_replaces_the_server_key_and_keeps_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        assert!(matches!(files.rotate().err().unwrap(), KeyFileError::NoServerKey(_)));
        let old = files.init().unwrap();
        let new = files.rotate().unwrap();
        assert!(new.trust_root() == old.trust_root());
        assert!(new.signer.certificate().key() != old.signer.certificate().key());
        assert_eq!(new.id(), 2);
        assert!(files.read().unwrap().unwrap().signer.certificate() == new.signer.certificate());
        assert_eq!(next_id(0xdead_c356), 0xdead_c358);
    }

    #[test]
    fn a_server_key_of_another_root_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        files(one.path()).init().unwrap();
        files(other.path()).init().unwrap();
        fs::copy(
            files(other.path()).trust_root_path(),
            files(one.path()).trust_root_path(),
        )
        .unwrap();
        let error = files(one.path()).read().err().unwrap();
        assert!(matches!(error, KeyFileError::OtherRoot { .. }), "{error}");
    }

    #[test]
    fn files_that_others_read_or_that_hold_something_else_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        files.init().unwrap();
        for path in [files.trust_root_path(), files.server_key_path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            let error = files.read_or_create().err().unwrap();
            assert_eq!(error.remedy(), format!("run: chmod 600 {}", path.display()));
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let whole = fs::read_to_string(files.server_key_path()).unwrap();
        let swapped = |name: &str, value: &str| {
            let line = whole.lines().find(|line| line.starts_with(name)).unwrap();
            whole.replace(line, &format!("{name} {value}"))
        };
        for text in [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            swapped("key", &"11".repeat(32)),
            swapped("key", "x"),
            swapped("trust_root", &format!("05{}", "09".repeat(32))),
            swapped("certificate", "0a"),
        ] {
            secret_file::replace(files.server_key_path(), text.as_bytes()).unwrap();
            let error = files.read_or_create().err().unwrap();
            assert!(
                matches!(error, KeyFileError::File(SecretFileError::Malformed { .. })),
                "{error}"
            );
            assert_eq!(fs::read_to_string(files.server_key_path()).unwrap(), text);
        }
    }
}
