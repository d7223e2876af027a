//! `blind-relay backup`.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::config::{AttachmentStore, Config, Database, Pepper};
use crate::secret_file::directory_of;
use crate::server::{say, signals};
use crate::storage::sqlite::copy;

use super::{Draft, check_pepper, check_room, mebibytes, rename_new, secrets, sync_directory_of};

/// Copies the SQLite database to a file that does not exist yet, and checks the copy. A server may run meanwhile.
pub async fn make(config: &Config, file: &Path, quiet: bool) -> anyhow::Result<()> {
    let (interrupted, _) = signals().context("cannot listen for signals")?;
    let made = async {
        tokio::select! {
            made = make_copy(config, file, quiet) => made,
            // The draft is removed as the future is dropped.
            () = interrupted.cancelled() => Err(anyhow!("interrupted: no backup was made")),
        }
    };
    let looked = made.await?;
    say(&told(config, file, &looked));
    Ok(())
}

async fn make_copy(config: &Config, file: &Path, quiet: bool) -> anyhow::Result<copy::Looked> {
    let Database::Sqlite(database) = &config.database else {
        bail!(
            "the database is PostgreSQL, which has its own tools: use pg_dump, or pg_basebackup with its log; docs/backup.md \
             says how, and what to run after they were read in"
        );
    };
    let secrets = secrets(config)?;
    if fs::symlink_metadata(file).is_ok() {
        bail!("{} exists already; name another file", file.display());
    }
    if !database.exists() {
        bail!("{} does not exist: there is nothing to back up yet", database.display());
    }
    let bytes = copy::size(database).await?;
    check_room(directory_of(file), bytes, "the backup")?;
    let draft = Draft::beside(file)?;
    let path = draft.file()?;
    tokio::select! {
        copied = copy::copy(database, &path) => copied?,
        () = progress(&path, bytes, quiet) => {}
    }
    copy::mark(&path).await?;
    let looked = copy::look(&path).await.context("the copy is not what it should be")?;
    check_pepper(&secrets, looked.pepper_check.as_deref(), database)?;
    fs::File::open(&path)
        .and_then(|opened| opened.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    rename_new(&path, file)?;
    sync_directory_of(file)?;
    Ok(looked)
}

/// Tells on standard error how far the copy is, and never ends.
async fn progress(path: &Path, bytes: u64, quiet: bool) {
    if quiet || !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let there = fs::metadata(path).map_or(0, |meta| meta.len());
        // Nobody reading it is no reason to fail.
        let _ = write!(
            std::io::stderr(),
            "\rcopied {} of at most {}",
            mebibytes(there),
            mebibytes(bytes)
        );
    }
}

/// What was done, and what the operator must not forget.
fn told(config: &Config, file: &Path, looked: &copy::Looked) -> String {
    let bytes = fs::metadata(file).map_or(0, |meta| meta.len());
    let pepper = match &config.pepper {
        Pepper::Given(_) => "the pepper of the settings".to_owned(),
        Pepper::File(path) => path.display().to_string(),
    };
    format!(
        "{} written: {}, schema {}, whole and readable with this server's pepper\n\
         keep apart from it, and as safe as long as it is kept:\n  \
         {pepper} (the pepper: without it the backup is worth nothing, with it numbers can be tried out)\n  \
         {} (the trust root, wherever you keep it: clients pin it)\n  \
         {} (the server key, which the trust root can replace)\n\
         not in it: attachments ({})\n\
         to put it back: blind-relay restore {}\n",
        file.display(),
        mebibytes(bytes),
        looked.version,
        config.sealed_sender.trust_root_file.display(),
        config.sealed_sender.server_key_file.display(),
        match &config.attachments.store {
            AttachmentStore::Directory(path) => path.display().to_string(),
            AttachmentStore::S3 { bucket, .. } => format!("the bucket {bucket}"),
        },
        file.display(),
    )
}
