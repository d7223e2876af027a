//! `blind-relay backup` and `blind-relay restore`: a copy of the SQLite database while a server runs, and the way back.
//!
//! A backup holds what the database holds and no secret: the pepper, the trust root and the server key are kept apart from it.
//! A database that is put back would hand out keys again that it handed out before; `restore` sees to it that it does not, and
//! is also told of databases that were put back by other means.

mod make;
mod restore;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use rustix::fs::statvfs;

use crate::auth::ServerSecrets;
use crate::config::{Config, Pepper};
use crate::secret_file::{self, directory_of};
use crate::server;

pub use make::make;
pub use restore::restore;

/// The keys of this server, from its pepper. None is made: a database that is there belongs to a pepper that was there.
fn secrets(config: &Config) -> anyhow::Result<ServerSecrets> {
    if let Pepper::File(path) = &config.pepper
        && !path.exists()
    {
        bail!(
            "{} is missing: without the pepper a database is worth nothing; copy it there, or name it with --pepper-file",
            path.display()
        );
    }
    Ok(ServerSecrets::from_pepper(&*server::load_pepper(config)?))
}

/// Refuses a database that was made with another pepper.
fn check_pepper(secrets: &ServerSecrets, found: Option<&[u8]>, path: &Path) -> anyhow::Result<()> {
    if found.is_none_or(|found| found == secrets.check_value()) {
        return Ok(());
    }
    bail!(
        "{} was made with another pepper than this server has, so no number in it would be found again; give the pepper that \
         belongs to it (--pepper-file)",
        path.display()
    )
}

/// Refuses to begin what would fill the disk. `what` is where, in words.
fn check_room(directory: &Path, bytes: u64, what: &str) -> anyhow::Result<()> {
    let room = statvfs(directory).with_context(|| format!("cannot look at {}", directory.display()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if has_room(free, bytes) {
        return Ok(());
    }
    bail!(
        "{what} needs {} in {}, where {} are free; make room, or name another place",
        mebibytes(bytes.saturating_add(SPARE)),
        directory.display(),
        mebibytes(free)
    )
}

fn has_room(free: u64, bytes: u64) -> bool {
    free >= bytes.saturating_add(SPARE)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

/// Makes the names in a file's directory durable.
fn sync_directory_of(file: &Path) -> anyhow::Result<()> {
    secret_file::sync_directory_of(file).with_context(|| format!("cannot write to {}", directory_of(file).display()))
}

/// Removes a file, unless somebody else just did: SQLite removes its log by itself when the last connection closes, which a
/// connection that failed does a moment later.
fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Gives a file another name, unless there is one of that name.
fn rename_new(from: &Path, to: &Path) -> anyhow::Result<()> {
    // A link, unlike a rename, does not replace what somebody else just put there.
    match fs::hard_link(from, to) {
        Ok(()) => remove_if_there(from),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(anyhow!("{} exists already; name another file", to.display()))
        }
        // Not every file system has links.
        Err(_) if !to.exists() => fs::rename(from, to).with_context(|| format!("cannot name it {}", to.display())),
        Err(error) => Err(error).with_context(|| format!("cannot name it {}", to.display())),
    }
}

/// A private directory for what is not finished, gone with this.
struct Draft {
    directory: PathBuf,
}

impl Draft {
    /// Makes one beside a file.
    fn beside(file: &Path) -> anyhow::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| anyhow!("the system gave no randomness"))?;
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}.draft", u64::from_ne_bytes(random)));
        let directory = directory_of(file).join(name);
        secret_file::create_private_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// The file in it, for its owner alone.
    fn file(&self) -> anyhow::Result<PathBuf> {
        let path = self.directory.join("relay.db");
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What must stay free.
const SPARE: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_before_it_is_full() {
        assert!(has_room(SPARE + 10, 10));
        assert!(!has_room(SPARE + 9, 10));
        assert!(!has_room(u64::MAX - 1, u64::MAX));
        let refused = check_room(Path::new("/"), u64::MAX - SPARE, "a backup")
            .unwrap_err()
            .to_string();
        assert!(refused.contains("MiB") && refused.contains("make room"), "{refused}");
    }

    #[test]
    fn a_draft_is_private_and_leaves_nothing() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let draft = Draft::beside(&dir.path().join("copy.db")).unwrap();
        let file = draft.file().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        rename_new(&file, &dir.path().join("copy.db")).unwrap();
        fs::write(draft.directory.join("relay.db"), "x").unwrap();
        let taken = rename_new(&draft.directory.join("relay.db"), &dir.path().join("copy.db"));
        assert!(taken.unwrap_err().to_string().contains("exists already"));
        drop(draft);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
