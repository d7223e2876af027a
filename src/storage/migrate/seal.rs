//! Seals the envelopes that a release before 0007 stored in the clear.
//!
//! Their devices' passwords are needed for the real keys, and only the devices have those. So every mailbox gets an
//! interim key, whose private half is kept under a key outside the database until its device connects. Nothing is taken
//! out of the old table, which the next step drops as a whole: whenever this ends early, it begins again and skips what
//! it finds done.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keys_schema::sealed_queue::{Bucket, EpochKey, QueuePublicKey};
use sqlx::Connection;

use super::{Link, LinkConnection, OpenError};
use crate::domain::MailboxId;
use crate::sealing::queue::InterimKeys;
use crate::sealing::random;

/// What the way from an older release needs that is not in the database.
pub struct Upgrade {
    /// Keeps the keys of mailboxes until their devices bring their own.
    pub interim: InterimKeys,
    /// Tells whether it belongs to this database: what `pin_pepper` would be given.
    pub pepper_check: [u8; 32],
}

/// The same statements with either driver's types.
macro_rules! with {
    ($connection:expr, |$db:ident| $body:expr) => {
        match $connection {
            LinkConnection::Sqlite($db) => $body,
            LinkConnection::Postgres($db) => $body,
        }
    };
}

/// Mailbox, number, envelope, day of expiry, queue key.
type UnsealedRow = (i64, i64, Vec<u8>, i32, Vec<u8>);

/// Gives every mailbox a key and seals what is in the old table. Refuses a pepper that is not the database's.
pub(super) async fn seal_what_was_stored(link: &mut Link, upgrade: &Upgrade) -> Result<(), OpenError> {
    let place = link.place.clone();
    let refused = |error: sqlx::Error| place.refused(&error);
    let connection = &mut link.connection;
    let keyless = keyless(connection).await.map_err(refused)?;
    let total: i64 = with!(connection, |db| sqlx::query_scalar(COUNT_UNSEALED).fetch_one(db).await).map_err(refused)?;
    if keyless.is_empty() && total == 0 {
        return Ok(());
    }
    let pinned: Option<Vec<u8>> = with!(connection, |db| sqlx::query_scalar(PINNED_PEPPER)
        .fetch_optional(db)
        .await)
    .map_err(refused)?;
    if pinned.is_some_and(|pinned| pinned != upgrade.pepper_check) {
        return Err(OpenError::OtherPepper);
    }
    give_keys(connection, keyless, &upgrade.interim)
        .await
        .map_err(refused)?;
    if total > 0 {
        tracing::info!(envelopes = total, "sealing what earlier releases stored");
        let sealed = seal_all(connection, total).await.map_err(refused)?;
        tracing::info!(envelopes = sealed, "what earlier releases stored is sealed");
    }
    Ok(())
}

async fn keyless(connection: &mut LinkConnection) -> Result<Vec<i64>, sqlx::Error> {
    with!(connection, |db| sqlx::query_scalar(KEYLESS)
        .bind([0_u8; 32].as_slice())
        .fetch_all(db)
        .await)
}

async fn give_keys(
    connection: &mut LinkConnection,
    keyless: Vec<i64>,
    interim: &InterimKeys,
) -> Result<(), sqlx::Error> {
    for mailboxes in keyless.chunks(ROWS) {
        with!(connection, |db| {
            let mut tx = db.begin().await?;
            for mailbox in mailboxes {
                let (public, private) = interim.make(MailboxId(*mailbox));
                sqlx::query(GIVE_KEY)
                    .bind(mailbox)
                    .bind(public.as_bytes().as_slice())
                    .bind(private.0)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
        });
    }
    Ok(())
}

async fn seal_all(connection: &mut LinkConnection, total: i64) -> Result<usize, sqlx::Error> {
    let (mut mailbox, mut seq, mut sealed) = (i64::MIN, i64::MIN, 0);
    let mut epochs = HashMap::new();
    let mut told = Instant::now();
    loop {
        let page: Vec<UnsealedRow> = with!(connection, |db| sqlx::query_as(PAGE)
            .bind(mailbox)
            .bind(seq)
            .bind(i32::try_from(ROWS).unwrap_or(i32::MAX))
            .fetch_all(db)
            .await)?;
        let Some(last) = page.last() else {
            return Ok(sealed);
        };
        (mailbox, seq) = (last.0, last.1);
        sealed += page.len();
        let rows: Option<Vec<_>> = page.iter().map(|row| seal(row, &mut epochs)).collect();
        // The old table stays, and with it everything.
        let rows = rows.ok_or_else(|| sqlx::Error::Protocol("an envelope cannot be sealed".into()))?;
        with!(connection, |db| {
            let mut tx = db.begin().await?;
            for (row, bucket, bytes) in rows {
                sqlx::query(INSERT)
                    .bind(row.0)
                    .bind(row.1)
                    .bind(bucket)
                    .bind(bytes)
                    .bind(row.3)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
        });
        if told.elapsed() >= TELL {
            told = Instant::now();
            tracing::info!(sealed, envelopes = total, "sealing what earlier releases stored");
        }
    }
}

/// `None` for what no release ever stored: a row larger than any bucket.
fn seal<'row>(
    row: &'row UnsealedRow,
    epochs: &mut HashMap<i64, EpochKey>,
) -> Option<(&'row UnsealedRow, i16, Vec<u8>)> {
    let (mailbox, _, envelope, _, key) = row;
    if epochs.len() >= EPOCHS {
        epochs.clear();
    }
    if !epochs.contains_key(mailbox) {
        let key = QueuePublicKey::from_bytes(key.as_slice().try_into().ok()?);
        epochs.insert(*mailbox, EpochKey::new(&key, &random()).ok()?);
    }
    // How long its content is, the row does not say; the envelope's own length will do.
    let bucket = Bucket::holding(0, envelope.len())?;
    let sealed = epochs.get(mailbox)?.seal(*mailbox, bucket, &random(), envelope)?;
    Some((row, i16::try_from(bucket.kib()).ok()?, sealed))
}

const ROWS: usize = 500;
const EPOCHS: usize = 1024;
const TELL: Duration = Duration::from_secs(2);

const KEYLESS: &str = "SELECT id FROM mailboxes WHERE queue_key = $1";
const COUNT_UNSEALED: &str = "SELECT count(*) FROM envelopes_unsealed";
const PINNED_PEPPER: &str = "SELECT value FROM settings WHERE name = 'pepper_check'";
const GIVE_KEY: &str = "UPDATE mailboxes SET queue_key = $2, interim_key = $3 WHERE id = $1";
const PAGE: &str = "SELECT mailbox, seq, content, expires, queue_key \
    FROM envelopes_unsealed JOIN mailboxes ON id = mailbox \
    WHERE (mailbox, seq) > ($1, $2) ORDER BY mailbox, seq LIMIT $3";
const INSERT: &str = "INSERT INTO envelopes (mailbox, seq, bucket, sealed, expires) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

#[cfg(test)]
mod tests;
