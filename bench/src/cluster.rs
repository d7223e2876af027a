//! A PostgreSQL of our own, as `initdb` makes it, that is gone when the run is over.
//!
//! PostgreSQL does not run as root, so root starts it as somebody without rights. Its files are where the working directory
//! is, if that user may get there; otherwise where files for a while are, and not in memory if that can be helped.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::cores::{self, Side};

/// A running PostgreSQL. Killed when dropped.
pub(crate) struct Cluster {
    /// Of its first database.
    pub(crate) url: String,
    postmaster: Child,
    /// Held until the end.
    _dir: TempDir,
}

impl Cluster {
    /// Makes and starts one.
    pub(crate) async fn start(programs: &Path) -> anyhow::Result<Self> {
        let user = User::unprivileged()?;
        let dir = user.directory()?;
        let (data, secret) = (dir.path().join("data"), dir.path().join("password"));
        let password = random_password()?;
        fs::write(&secret, &password)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        user.give(&secret)?;
        let mut initdb = user.command(&programs.join("initdb"), dir.path());
        initdb
            .arg("-D")
            .arg(&data)
            .arg(format!("--pwfile={}", secret.display()));
        initdb.args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let made = initdb.stdout(Stdio::null()).stderr(Stdio::piped()).output().await?;
        ensure!(
            made.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        for _ in 0..TRIES {
            // Somebody may take the port before PostgreSQL does.
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut command = user.command(&programs.join("postgres"), dir.path());
            command.arg("-D").arg(&data).arg("-k").arg(dir.path());
            command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let mut postmaster = cores::spawn(&mut command, Side::Server)?;
            let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
            if answers(&mut postmaster, &url).await? {
                return Ok(Self {
                    url,
                    postmaster,
                    _dir: dir,
                });
            }
        }
        bail!("PostgreSQL does not start");
    }

    /// Ends it and waits until it has, so that its files can go.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.postmaster.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // A fast shutdown: connections are closed.
            kill_process(pid, Signal::INT)?;
        }
        let ended = tokio::time::timeout(LONGEST, self.postmaster.wait()).await;
        ended.context("PostgreSQL does not stop")??;
        Ok(())
    }
}

/// The directory with PostgreSQL's programs, of the newest version that is installed.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path()).collect();
    versions.sort_by_key(|version| {
        let name = version.file_name().and_then(|name| name.to_str());
        std::cmp::Reverse(name.and_then(|name| name.parse::<u32>().ok()).unwrap_or(0))
    });
    let packaged = versions.into_iter().map(|version| version.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = packaged.chain(std::env::split_paths(&path));
    places.find(|place| place.join("initdb").is_file() && place.join("postgres").is_file())
}

/// Whether it takes connections; `false` when it has ended instead.
async fn answers(postmaster: &mut Child, url: &str) -> anyhow::Result<bool> {
    let began = Instant::now();
    while began.elapsed() < LONGEST {
        if let Ok(connection) = PgConnection::connect(url).await {
            connection.close().await?;
            return Ok(true);
        }
        if postmaster.try_wait()?.is_some() {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

/// Whoever PostgreSQL runs as.
enum User {
    /// We ourselves.
    Ourselves,
    /// Somebody else, because we are root.
    Other { user: u32, group: u32 },
}

impl User {
    fn unprivileged() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let passwd = fs::read_to_string("/etc/passwd")?;
        let (user, group) = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| ids(&passwd, name))
            .context("there is neither a user postgres nor a user nobody")?;
        Ok(Self::Other { user, group })
    }

    fn give(&self, path: &Path) -> anyhow::Result<()> {
        if let Self::Other { user, group } = self {
            chown(path, Some(*user), Some(*group))?;
        }
        Ok(())
    }

    /// A directory of its own in the first place that it can reach.
    fn directory(&self) -> anyhow::Result<TempDir> {
        let here = std::env::current_dir()?;
        for place in [here, PathBuf::from("/var/tmp"), std::env::temp_dir()] {
            if !self.can_reach(&place) {
                continue;
            }
            if let Ok(dir) = tempfile::tempdir_in(&place) {
                self.give(dir.path())?;
                return Ok(dir);
            }
        }
        bail!("there is no place for PostgreSQL's files");
    }

    /// Root may go anywhere; others need the right to pass through every directory on the way.
    fn can_reach(&self, place: &Path) -> bool {
        let passes = |dir: &Path| fs::metadata(dir).is_ok_and(|about| about.permissions().mode() & 0o001 != 0);
        matches!(self, Self::Ourselves) || place.ancestors().all(passes)
    }

    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        // Nothing of who starts it: a locale or an option for PostgreSQL would change what is measured.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.current_dir(dir).stdin(Stdio::null());
        if let Self::Other { user, group } = self {
            command.uid(*user).gid(*group);
        }
        command
    }
}

/// User and group of a name.
fn ids(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Others on this machine could reach its port.
fn random_password() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

const TRIES: usize = 5;
const LONGEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody2:x:7:8::/:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(ids(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(ids(passwd, "postgres"), None);
    }

    #[test]
    fn passwords_differ() {
        assert_ne!(random_password().unwrap(), random_password().unwrap());
    }
}
