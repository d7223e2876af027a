//! What the machine gives: files, room, descriptors.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::config::{Config, Pepper};
use crate::secret_file;
use crate::server::key_files;

/// The data directory: there, ours, private, with room.
pub fn data_dir(path: &Path) -> Check {
    const NAME: &str = "data directory";
    let shown = path.display();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = path
                .ancestors()
                .skip(1)
                .find(|parent| parent.exists())
                .unwrap_or(Path::new("."));
            if access(parent, Access::WRITE_OK | Access::EXEC_OK).is_err() {
                let remedy = format!("run: mkdir -p -m 700 {shown}, and chown it to the server's user");
                return Check::fail(NAME, format!("{shown} does not exist and cannot be made here"), remedy);
            }
            return Check::ok(NAME, format!("{shown} does not exist yet, the first start makes it"));
        }
        Err(error) => {
            return Check::fail(
                NAME,
                format!("{shown}: {}", error.kind()),
                "let the server's user enter the directory",
            );
        }
    };
    if !meta.is_dir() {
        return Check::fail(
            NAME,
            format!("{shown} is not a directory"),
            "name another with --data-dir",
        );
    }
    if access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let remedy = format!("chown {shown} to the server's user, then run: chmod 700 {shown}");
        return Check::fail(NAME, format!("{shown} is not writable"), remedy);
    }
    if meta.mode() & 0o007 != 0 {
        let what = format!("{shown} has mode {:04o}: others may look into it", meta.mode() & 0o7777);
        return Check::warn(NAME, what, format!("run: chmod 700 {shown}"));
    }
    match statvfs(path) {
        Ok(room) => judge_room(&shown.to_string(), room.f_bavail.saturating_mul(room.f_frsize)),
        Err(_) => Check::warn(
            NAME,
            format!("{shown} is usable, its free room is unknown"),
            "look with df",
        ),
    }
}

fn judge_room(shown: &str, bytes: u64) -> Check {
    const NAME: &str = "data directory";
    const MIB: u64 = 1024 * 1024;
    let what = format!("{shown} is usable, {} MiB free", bytes / MIB);
    match bytes / MIB {
        0..64 => Check::fail(NAME, what, "free some room: a full disk stops every write"),
        64..1024 => Check::warn(NAME, what, "free some room before it runs out"),
        _ => Check::ok(NAME, what),
    }
}

/// The pepper's source.
pub fn pepper(config: &Config) -> Check {
    const NAME: &str = "pepper";
    let path = match &config.pepper {
        Pepper::Given(_) => return Check::ok(NAME, "given in the settings"),
        Pepper::File(path) => path,
    };
    if !path.exists() {
        return Check::ok(
            NAME,
            format!("{} does not exist yet, the first start makes it", path.display()),
        );
    }
    match secret_file::read(path) {
        Ok(text) if secret_file::decode_hex(text.trim()).is_some() => {
            Check::ok(NAME, format!("{} is private and well-formed", path.display()))
        }
        Ok(_) => Check::fail(
            NAME,
            format!("{} does not hold 64 hex digits", path.display()),
            "restore it from a backup: with another pepper no stored number is recognised",
        ),
        Err(error) => Check::fail(NAME, error.to_string(), error.remedy()),
    }
}

/// The keys for sealed sender: private, well-formed, and under one trust root. That of the database is compared beside
/// the database.
pub fn keys(config: &Config) -> Check {
    const NAME: &str = "keys";
    let files = key_files(config);
    let shown = files.server_key_path().display();
    match files.read() {
        Ok(Some(_)) if files.has_trust_root() => {
            let what = format!("{shown} is certified by the trust root, whose private half is here as well");
            Check::ok(NAME, what)
        }
        Ok(Some(_)) => Check::ok(
            NAME,
            format!("{shown} is certified by the trust root, whose private half is elsewhere"),
        ),
        Ok(None) => Check::ok(NAME, format!("{shown} does not exist yet, the first start makes it")),
        Err(error) => Check::fail(NAME, error.to_string(), error.remedy()),
    }
}

/// Descriptors against the connections, uploads and downloads that the settings allow.
pub fn descriptors(config: &Config) -> Check {
    let attachments = &config.attachments;
    let objects = attachments.max_uploads.saturating_add(attachments.max_downloads);
    // The server raises the soft limit to the hard one.
    judge_descriptors(
        getrlimit(Resource::Nofile).maximum,
        config.limits.max_connections,
        objects,
    )
}

fn judge_descriptors(limit: Option<u64>, max_connections: usize, objects: usize) -> Check {
    const NAME: &str = "open files";
    let wanted = u64::try_from(max_connections.saturating_add(objects))
        .unwrap_or(u64::MAX)
        .saturating_add(SPARE_DESCRIPTORS);
    match limit {
        Some(limit) if limit < wanted => {
            let what = format!(
                "at most {limit}, but {max_connections} connections, with {objects} uploads and downloads, need {wanted}"
            );
            let remedy =
                format!("set LimitNOFILE={wanted} in the service unit (or ulimit -Hn), or lower max_connections");
            if limit < FEWEST_DESCRIPTORS {
                return Check::fail(NAME, what, remedy);
            }
            // Connections above the limit wait as those above the cap do, so the server works.
            Check::warn(NAME, what, remedy)
        }
        Some(limit) => Check::ok(NAME, format!("{limit} allowed, {wanted} wanted")),
        None => Check::ok(NAME, "unlimited"),
    }
}

const FEWEST_DESCRIPTORS: u64 = 1_024;
/// Database, Redis, listeners, log, files.
const SPARE_DESCRIPTORS: u64 = 256;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn descriptors_must_do_for_all_connections() {
        assert!(matches!(
            judge_descriptors(Some(1_000), 20_000, 320).verdict,
            Verdict::Fail(_)
        ));
        assert!(
            matches!(judge_descriptors(Some(1_024), 20_000, 320).verdict, Verdict::Warn(remedy)
            if remedy.contains("LimitNOFILE=20576"))
        );
        assert_eq!(judge_descriptors(Some(20_576), 20_000, 320).verdict, Verdict::Ok);
        assert_eq!(judge_descriptors(None, 20_000, 320).verdict, Verdict::Ok);
    }

    #[test]
    fn little_room_is_told_and_less_fails() {
        assert!(matches!(judge_room("d", 63 << 20).verdict, Verdict::Fail(_)));
        assert!(matches!(judge_room("d", 1023 << 20).verdict, Verdict::Warn(_)));
        assert_eq!(judge_room("d", 1 << 30).verdict, Verdict::Ok);
    }

    #[test]
    fn directories_that_others_enter_are_told_of_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let check = data_dir(dir.path());
        assert!(matches!(check.verdict, Verdict::Warn(remedy) if remedy.starts_with("run: chmod 700 ")));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!matches!(data_dir(dir.path()).verdict, Verdict::Warn(remedy) if remedy.contains("chmod")));
        assert_eq!(data_dir(&dir.path().join("new")).verdict, Verdict::Ok);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(data_dir(&dir.path().join("file")).verdict, Verdict::Fail(_)));
    }
}
