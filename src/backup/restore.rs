//! `blind-relay restore`.
//!
//! Everything is done to a draft beside the database: only what is finished, with all one-time keys invalid, takes its place,
//! in one step. A restore that is killed leaves the database as it was.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::age;
use crate::auth::ServerSecrets;
use crate::config::{Config, Database};
use crate::domain::{Age, Aged, Clock as _, SystemClock};
use crate::secret_file::{self, directory_of};
use crate::server::{self, say, signals};
use crate::storage::migrate::{self, Location, Schema};
use crate::storage::sqlite::copy;
use crate::storage::{OpenError, Storage, postgres};

use super::{Draft, check_pepper, check_room, mebibytes, remove_if_there, rename_new, secrets, sync_directory_of};

/// Puts a backup in the database's place; without a file, treats the database as put back by other means.
pub async fn restore(config: &Config, file: Option<&Path>) -> anyhow::Result<()> {
    let secrets = secrets(config)?;
    match (file, &config.database) {
        (Some(file), Database::Sqlite(database)) => from_file(config, &secrets, file, database).await,
        (Some(_), Database::Postgres(_)) => bail!(
            "the database is PostgreSQL: read the backup in with pg_restore or psql while all nodes are stopped, then run: \
             blind-relay restore --in-place"
        ),
        (None, _) => in_place(config, &secrets).await,
    }
}

async fn from_file(config: &Config, secrets: &ServerSecrets, file: &Path, database: &Path) -> anyhow::Result<()> {
    secret_file::create_private_dir(directory_of(database))
        .with_context(|| format!("cannot make {}", directory_of(database).display()))?;
    let there = database.exists();
    let held = copy::hold(database).map_err(stop_first)?;
    let (interrupted, _) = signals().context("cannot listen for signals")?;
    let prepared = tokio::select! {
        prepared = prepare(config, secrets, file, database) => prepared,
        // The draft is removed as the future is dropped.
        () = interrupted.cancelled() => Err(anyhow!("interrupted: the database is as it was")),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            if !there {
                // Only the lock made it.
                let _ = fs::remove_file(database);
            }
            return Err(error);
        }
    };
    let aside = set_aside(database).await?;
    fs::rename(&prepared.path, database).with_context(|| format!("cannot put {} in its place", database.display()))?;
    sync_directory_of(database)?;
    remember(&prepared.mark, &prepared.aged.age);
    drop(held);
    say(&told(file, aside.as_deref(), &prepared.aged));
    Ok(())
}

/// A database that is ready to take its place.
struct Prepared {
    path: PathBuf,
    aged: Aged,
    /// The file of the data directory that remembers its age.
    mark: PathBuf,
    _draft: Draft,
}

async fn prepare(config: &Config, secrets: &ServerSecrets, file: &Path, database: &Path) -> anyhow::Result<Prepared> {
    if same_file(file, database) {
        bail!(
            "{} is the database itself; if it was put there by hand, run: blind-relay restore --in-place",
            file.display()
        );
    }
    let looked = copy::look(file).await?;
    check_pepper(secrets, looked.pepper_check.as_deref(), file)?;
    let bytes = copy::size(file).await?;
    check_room(directory_of(database), bytes, "the database")?;
    // Before anything is done: a mark that cannot be read is the operator's to judge, but not here, where all is made invalid.
    let mark = age::file(&config.data_dir);
    let seen = newest(age::read(&mark).ok().flatten(), copy::age(database).await);

    let draft = Draft::beside(database)?;
    let path = draft.file()?;
    copy::copy(file, &path).await?;
    let location = Location::Sqlite(path.clone());
    if migrate::check(&location).await? == Schema::Outdated {
        migrate::up(&location, &secrets.upgrade()).await?;
    }
    let storage = crate::storage::sqlite::open(&path, server::queue_limits(config)).await?;
    let aged = invalidate(&storage, secrets, seen.as_ref()).await?;
    storage.accounts.close().await;
    drop(storage);
    if copy::beside(&path, "-wal").exists() {
        bail!("the copy in {} could not be finished", path.display());
    }
    fs::File::open(&path)
        .and_then(|opened| opened.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Prepared {
        path,
        aged,
        mark,
        _draft: draft,
    })
}

/// Gives the database that is replaced another name, with its log if that cannot be moved into it. `None` if there was none.
async fn set_aside(database: &Path) -> anyhow::Result<Option<PathBuf>> {
    let empty = fs::metadata(database).map_or(true, |meta| meta.len() == 0);
    let log = copy::beside(database, "-wal");
    if empty && !log.exists() {
        return Ok(None);
    }
    let folded = copy::fold(database).await.is_ok();
    let aside = (1..=MAX_ASIDE)
        .map(|number| copy::beside(database, &format!(".before-restore-{number}")))
        .find(|path| fs::symlink_metadata(path).is_err())
        .ok_or_else(|| {
            anyhow!("{MAX_ASIDE} databases were set aside here already; remove those that you do not need")
        })?;
    // Damaged. The log first: whatever comes into the database's place must not meet it. If it is gone by then, SQLite was
    // quicker.
    if !folded
        && log.exists()
        && let Err(error) = rename_new(&log, &copy::beside(&aside, "-wal"))
        && log.exists()
    {
        return Err(error);
    }
    // It stays in its place as well, until the other one takes that.
    if fs::hard_link(database, &aside).is_err() {
        rename_new(database, &aside)?;
    }
    remove_if_there(&copy::beside(database, "-shm"))?;
    for path in [aside.clone(), copy::beside(&aside, "-wal")] {
        if path.exists() {
            make_private(&path)?;
        }
    }
    sync_directory_of(database)?;
    Ok(Some(aside))
}

async fn in_place(config: &Config, secrets: &ServerSecrets) -> anyhow::Result<()> {
    let location = server::location(config);
    match &location {
        Location::Sqlite(path) => {
            if !path.exists() {
                bail!("{} does not exist: there is nothing that was put back", path.display());
            }
            drop(copy::hold(path).map_err(stop_first)?);
            let looked = copy::look(path).await?;
            check_pepper(secrets, looked.pepper_check.as_deref(), path)?;
        }
        Location::Postgres(url) => {
            if migrate::status(&location).await?.iter().all(|step| !step.applied) {
                bail!("the database has no tables of a server: read the backup in first");
            }
            let connections = postgres::connections(url).await?;
            if connections > 0 {
                bail!(
                    "nodes are connected to the database ({connections} connections); stop all of them, and try again: what \
                     they have in memory is of another time"
                );
            }
        }
    }
    let mark = age::file(&config.data_dir);
    let seen = age::read(&mark).ok().flatten();
    let storage = server::open_storage(config, secrets).await?;
    let aged = invalidate(&storage, secrets, seen.as_ref()).await;
    storage.accounts.close().await;
    let aged = aged?;
    secret_file::create_private_dir(&config.data_dir)
        .with_context(|| format!("cannot make {}", config.data_dir.display()))?;
    remember(&mark, &aged.age);
    say(&told_of_keys(&aged));
    Ok(())
}

/// Makes everything invalid in a database of this server.
async fn invalidate(storage: &Storage, secrets: &ServerSecrets, seen: Option<&Age>) -> anyhow::Result<Aged> {
    if !storage.accounts.pin_pepper(secrets.check_value()).await? {
        return Err(OpenError::OtherPepper.into());
    }
    Ok(storage.ages.advance(seen, true, SystemClock.now().day()).await?)
}

fn newest(one: Option<Age>, other: Option<Age>) -> Option<Age> {
    match (one, other) {
        (Some(one), Some(other)) if one.is_behind(&other) => Some(other),
        (one, other) => one.or(other),
    }
}

fn remember(mark: &Path, age: &Age) {
    if age::write(mark, age).is_err() {
        eprintln!(
            "blind-relay: {} cannot be written: an older database would not be noticed at the next start",
            mark.display()
        );
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    real(one).is_some_and(|one| Some(one) == real(other))
}

fn make_private(path: &Path) -> anyhow::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(path, mode).with_context(|| format!("cannot change the mode of {}", path.display()))
}

fn stop_first(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::InUse { path } => anyhow!(
            "a server uses {}; stop it first: what it has in memory is of another time",
            path.display()
        ),
        other => other.into(),
    }
}

fn told(file: &Path, aside: Option<&Path>, aged: &Aged) -> String {
    let before = match aside {
        Some(aside) => format!(
            "the database that was there is {} ({}); remove it when all is well\n",
            aside.display(),
            mebibytes(fs::metadata(aside).map_or(0, |meta| meta.len()))
        ),
        None => String::new(),
    };
    format!(
        "{} is in the place of the database\n{before}{}",
        file.display(),
        told_of_keys(aged)
    )
}

fn told_of_keys(aged: &Aged) -> String {
    let gone = &aged.invalidated;
    format!(
        "restore epoch: {}\n\
         invalid from now on: {} one-time keys (devices are asked for new ones), {} sessions of refresh tokens (devices open \
         new ones), {} verification sessions, {} offers to link a device, {} invites\n\
         kept: accounts, devices, profiles, names, account data, and {WAITING}\n\
         lost: what came after the backup was made; docs/backup.md says what that means for whom\n\
         next: start the server\n",
        aged.age.epoch, gone.keys, gone.tokens, gone.sessions, gone.offers, gone.invites
    )
}

const WAITING: &str = "messages that waited then: devices may get some again, and drop those that they know";
const MAX_ASIDE: u32 = 99;
