//! Secrets in files. A file that others may read is no secret: it is refused, with the command that mends it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::encoding;

/// Why a secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file could not be read or made.
    #[error("{}: {}", path.display(), error.kind())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// More people than its owner, and perhaps a group, can read it or replace it.
    #[error("{} has mode {mode:04o}: others may read or change it", path.display())]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{} does not hold {wanted}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
}

impl SecretFileError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { path, .. } => format!("make {} readable for the user that runs the server", path.display()),
            Self::TooOpen { path, .. } => format!("run: chmod 600 {}", path.display()),
            Self::Malformed { path, wanted } => {
                format!("put {wanted} into {}, or restore it from a backup", path.display())
            }
        }
    }
}

/// Reads a secret, if only its owner and at most a group may.
pub fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let failed = |error| SecretFileError::Io {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    // The opened file, not the path: what was checked is what is read.
    let meta = file.metadata().map_err(failed)?;
    check_mode(path, meta.mode())?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Reads 32 bytes of hex, or makes them when the file is missing. What is made is durable when this returns; of two
/// processes that start at once, both get the same bytes.
pub fn read_or_create(path: &Path) -> Result<Zeroizing<[u8; 32]>, SecretFileError> {
    loop {
        match read(path) {
            Ok(text) => {
                return decode_hex(text.trim()).ok_or_else(|| SecretFileError::Malformed {
                    path: path.to_owned(),
                    wanted: "64 hex digits",
                });
            }
            Err(SecretFileError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {}
            Err(other) => return Err(other),
        }
        match create_random(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(SecretFileError::Io {
                    path: path.to_owned(),
                    error,
                });
            }
            Ok(()) => {}
        }
    }
}

/// Writes a file for its owner alone, in one step and durably: others see the old content or the new.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = write_draft(path, content)?;
    fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))?;
    sync_directory_of(path)
}

/// Writes a file for its owner alone, whole and durably, where none is yet.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] if there is one, which is left as it is.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = write_draft(path, content)?;
    // A link, unlike a rename, does not replace the file of a process that was quicker.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked?;
    sync_directory_of(path)
}

/// Makes a directory that only its owner can enter. One that exists is left as it is.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The directory that a file is in.
pub fn directory_of(file: &Path) -> &Path {
    file.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the names in a file's directory durable.
pub fn sync_directory_of(file: &Path) -> io::Result<()> {
    File::open(directory_of(file))?.sync_all()
}

/// Lower-case hex digits, wiped when dropped.
pub fn encode_hex(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(encoding::hex(bytes))
}

/// 32 bytes from 64 hex digits.
pub fn decode_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    encoding::read_hex(text, bytes.as_mut())?;
    Some(bytes)
}

fn create_random(path: &Path) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| io::Error::other("the system gave no randomness"))?;
    let mut text = encode_hex(&*bytes);
    text.push('\n');
    create(path, text.as_bytes())
}

fn write_draft(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("the system gave no randomness"))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}.new", u64::from_ne_bytes(random)));
    let draft = PathBuf::from(draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .inspect_err(|_| drop(fs::remove_file(&draft)))?;
    Ok(draft)
}

/// A group may read, so that a secret can be shared with a service's group; nobody else may do anything.
fn check_mode(path: &Path, mode: u32) -> Result<(), SecretFileError> {
    if mode & 0o037 != 0 {
        return Err(SecretFileError::TooOpen {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    Ok(())
}

const MAX_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn makes_the_secret_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper");
        let first = read_or_create(&path).unwrap();
        assert_eq!(*read_or_create(&path).unwrap(), *first);
        assert_ne!(*first, [0; 32]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn racing_starts_agree_on_one_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper");
        let secrets: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| *read_or_create(&path).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    }

    #[test]
    fn refuses_a_file_that_others_may_read_and_says_how_to_mend_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper");
        read_or_create(&path).unwrap();
        for mode in [0o644, 0o604, 0o660, 0o610] {
            chmod(&path, mode);
            let error = read(&path).err().unwrap();
            assert!(matches!(error, SecretFileError::TooOpen { .. }), "{mode:o}");
            assert_eq!(error.remedy(), format!("run: chmod 600 {}", path.display()));
        }
        for mode in [0o600, 0o400, 0o640] {
            chmod(&path, mode);
            assert!(read(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn never_replaces_a_file_it_does_not_understand() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pepper");
        replace(&path, b"not hex").unwrap();
        assert!(matches!(
            read_or_create(&path).err().unwrap(),
            SecretFileError::Malformed { .. }
        ));
        assert_eq!(fs::read(&path).unwrap(), b"not hex");
    }

    #[test]
    fn reads_hex_in_both_cases() {
        assert_eq!(*decode_hex(&"aF".repeat(32)).unwrap(), [0xaf; 32]);
        assert!(decode_hex(&"a".repeat(63)).is_none());
        assert!(decode_hex(&"g".repeat(64)).is_none());
        assert!(decode_hex(&"é".repeat(32)).is_none());
    }
}
