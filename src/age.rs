//! Whether the database is the one that this node has seen, or an older copy of it.
//!
//! The database counts looks at it; a file in the data directory holds the highest count that the node has seen. A database
//! that is behind the file was put back, by whatever means, and may hand out keys that were handed out before: everything of
//! that kind is made invalid before a port is open. A node that notices it while it runs stops, since what it has in memory is
//! of another time.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio_util::sync::CancellationToken;

use crate::domain::{Age, Aged, Clock, Restored};
use crate::storage::AgeStore;
use crate::telemetry::metrics;
use crate::{encoding, secret_file};

/// Keeps the file up to date.
pub struct Keeper {
    file: PathBuf,
    ages: Arc<dyn AgeStore>,
    clock: Arc<dyn Clock>,
    known: Age,
}

/// The file, in a data directory.
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("generation")
}

/// What the file holds; `None` if there is none.
pub fn read(file: &Path) -> anyhow::Result<Option<Age>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let Some(age) = parse(text.trim_end()) else {
        bail!(
            "{} does not hold what a server writes there; run `blind-relay restore --in-place` if the database may be older \
             than it was, else remove the file",
            file.display()
        );
    };
    Ok(Some(age))
}

/// Writes the file.
pub fn write(file: &Path, age: &Age) -> std::io::Result<()> {
    secret_file::replace(file, text(age).as_bytes())
}

impl Keeper {
    /// Looks at the database, and makes invalid what must be if it was put back. To be called before a port is open.
    pub async fn start(data_dir: &Path, ages: Arc<dyn AgeStore>, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let file = file(data_dir);
        let seen = read(&file)?;
        let aged = ages
            .advance(seen.as_ref(), false, clock.now().day())
            .await
            .map_err(|error| anyhow!("{}", error.log_safe_cause()))
            .context("the database does not say how old it is")?;
        tell(&aged);
        let keeper = Self {
            file,
            ages,
            clock,
            known: aged.age,
        };
        keeper.remember().await;
        Ok(keeper)
    }

    /// Looks again and again, until the token is cancelled. If the database was put back meanwhile, `give_up` is cancelled.
    pub async fn run(self, stop: CancellationToken, give_up: CancellationToken) {
        self.run_every(PERIOD, stop, give_up).await;
    }

    async fn run_every(mut self, period: Duration, stop: CancellationToken, give_up: CancellationToken) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let aged = self
                .ages
                .advance(Some(&self.known), false, self.clock.now().day())
                .await;
            match aged {
                Ok(aged) => {
                    let same = aged.restored.is_none() && aged.age.epoch == self.known.epoch;
                    self.known = aged.age;
                    self.remember().await;
                    if !same {
                        tell(&aged);
                        tracing::error!(
                            "the database was put back while this node ran: it stops, and can be started again"
                        );
                        give_up.cancel();
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        cause = error.log_safe_cause(),
                        "the age of the database could not be counted on"
                    );
                }
            }
        }
    }

    async fn remember(&self) {
        metrics::restore_epoch(self.known.epoch);
        let (file, age) = (self.file.clone(), self.known);
        let written = tokio::task::spawn_blocking(move || write(&file, &age)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::error!(
                "the file generation cannot be written in the data directory: an older database would not be noticed"
            );
        }
    }
}

fn tell(aged: &Aged) {
    let Some(restored) = aged.restored else { return };
    match restored {
        Restored::Told => {}
        Restored::Copy => tracing::error!("the database is a backup that was put back without `blind-relay restore`"),
        Restored::Behind => tracing::error!("the database is older than this node has seen it: it was put back"),
        Restored::Elsewhere => tracing::error!("the database was read in from a dump"),
    }
    tracing::warn!(
        "one-time keys, verification sessions, offers to link a device, sessions of tokens and invites of that time are \
         invalid now: devices are asked for new keys"
    );
}

/// `ID EPOCH GENERATION`.
fn text(age: &Age) -> String {
    format!("{} {} {}\n", encoding::hex(&age.database), age.epoch, age.generation)
}

fn parse(text: &str) -> Option<Age> {
    let mut words = text.split(' ');
    let (id, epoch, generation) = (words.next()?, words.next()?, words.next()?);
    let mut database = [0; 16];
    encoding::read_hex(id, &mut database)?;
    words.next().is_none().then_some(Age {
        database,
        epoch: epoch.parse().ok()?,
        generation: generation.parse().ok()?,
    })
}

/// What was put back to a state that is younger than this may not be noticed.
pub const PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::SystemClock;
    use crate::storage::testing::{ROOMY, TestDatabase, sqlite};

    async fn start(dir: &Path, database: &TestDatabase) -> anyhow::Result<Keeper> {
        Keeper::start(dir, database.storage().ages, Arc::new(SystemClock)).await
    }

    #[test]
    fn the_file_says_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert_eq!(read(&file).unwrap(), None);
        let age = Age {
            database: [0xab; 16],
            epoch: 3,
            generation: u64::MAX,
        };
        write(&file, &age).unwrap();
        assert_eq!(read(&file).unwrap(), Some(age));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for text in [
            "",
            "ab 1 2",
            "abababababababababababababababab 1",
            "abababababababababababababababab 1 2 3",
            "abababababababababababababababab -1 2",
        ] {
            std::fs::write(&file, text).unwrap();
            let refused = read(&file).unwrap_err().to_string();
            assert!(refused.contains("generation") && !refused.contains("abab"), "{refused}");
        }
    }

    #[tokio::test]
    async fn each_start_counts_and_an_older_database_is_another_epoch() {
        let (dir, database) = (tempfile::tempdir().unwrap(), sqlite(ROOMY).await.unwrap());
        let first = start(dir.path(), &database).await.unwrap().known;
        let second = start(dir.path(), &database).await.unwrap().known;
        assert_eq!((first.epoch, first.generation), (0, 1));
        assert_eq!((second.epoch, second.generation), (0, 2));
        let ahead = Age {
            generation: 9,
            ..second
        };
        write(&file(dir.path()), &ahead).unwrap();
        let third = start(dir.path(), &database).await.unwrap().known;
        assert_eq!((third.epoch, third.generation), (1, 10));
        assert_eq!(read(&file(dir.path())).unwrap(), Some(third));
    }

    #[tokio::test]
    async fn a_node_whose_database_was_put_back_gives_up() {
        let (dir, database) = (tempfile::tempdir().unwrap(), sqlite(ROOMY).await.unwrap());
        let keeper = start(dir.path(), &database).await.unwrap();
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let often = Duration::from_millis(5);
        let running = tokio::spawn(keeper.run_every(often, stop.clone(), give_up.clone()));
        while read(&file(dir.path())).unwrap().unwrap().generation < 3 {
            tokio::task::yield_now().await;
        }
        assert!(!give_up.is_cancelled());
        database
            .execute("UPDATE settings SET value = x'0000000000000001' WHERE name = 'generation'")
            .await;
        running.await.unwrap();
        assert!(give_up.is_cancelled());
        assert_eq!(read(&file(dir.path())).unwrap().unwrap().epoch, 1);
    }
}
