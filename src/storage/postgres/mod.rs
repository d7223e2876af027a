//! PostgreSQL: one database, any number of nodes.
//!
//! Batches of envelopes and claims have connections of their own, so that a crowd of readers never keeps one from its commit.
//! Every connection commits synchronously whatever the server's default is, and gives up after a time limit. A
//! transaction that loses against another one is tried again here, a bounded number of times; callers never see that.

mod account_data;
mod accounts;
mod admin;
mod age;
mod attachments;
mod devices;
mod export;
mod invites;
mod keys;
mod profiles;
mod queue;
mod tokens;
mod usernames;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgPool, Postgres, Transaction};

use super::migrate::{self, Location};
use super::open::Place;
use super::{OpenError, Storage, StorageError, TokenStore};
use crate::domain::{Actor, QueueLimits};

pub(crate) use age::place;

/// Opens the database at `url` with at most `pool_size` connections, of which those that write batches get up to six. At
/// least two are used. The schema must be current.
pub async fn open(url: &str, limits: QueueLimits, pool_size: u32) -> Result<Storage, OpenError> {
    migrate::require_current(&Location::Postgres(url.to_owned())).await?;
    let (options, place) = options(url)?;
    let pool = |size: u32, options: PgConnectOptions| {
        PoolOptions::<Postgres>::new()
            .max_connections(size)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move { sqlx::query(COMMIT_DURABLY).execute(connection).await.map(|_| ()) })
            })
            .connect_with(options)
    };
    let writers = (pool_size / 2).clamp(1, MAX_WRITERS);
    let others = pool_size.saturating_sub(writers).max(1);
    let options = options.options(SERVER_SETTINGS);
    let database = Database {
        pool: pool(others, options.clone())
            .await
            .map_err(|error| place.refused(&error))?,
    };
    let writers = Database {
        pool: pool(writers, options).await.map_err(|error| place.refused(&error))?,
    };
    Ok(Storage {
        attachments: Arc::new(attachments::PgAttachments::new(database.clone())),
        accounts: Arc::new(accounts::PgAccounts::new(database.clone())),
        admin: Arc::new(admin::PgAdmin::new(database.clone())),
        ages: Arc::new(age::PgAges::new(database.clone())),
        devices: Arc::new(devices::PgDevices::new(database.clone())),
        keys: Arc::new(keys::PgKeys::new(database.clone(), writers.clone())),
        profiles: Arc::new(profiles::PgProfiles::new(database.clone())),
        tokens: Arc::new(tokens::PgTokens::new(database.clone())),
        usernames: Arc::new(usernames::PgUsernames::new(database.clone())),
        invites: Arc::new(invites::PgInvites::new(database.clone())),
        export: Arc::new(export::PgExports::new(database.clone())),
        account_data: Arc::new(account_data::PgAccountData::new(database.clone())),
        queue: Arc::new(queue::PgQueue::new(database, writers, limits)),
    })
}

/// How many connections nodes have to the database at `url`.
pub async fn connections(url: &str) -> Result<i64, OpenError> {
    let (options, place) = options(url)?;
    let mut connection = options.connect().await.map_err(|error| place.refused(&error))?;
    let others = sqlx::query_scalar(OTHERS).fetch_one(&mut connection).await;
    others.map_err(|error| place.refused(&error))
}

/// The sessions and token keys of a database that servers may have open.
pub async fn tokens_beside(url: &str) -> Result<Arc<dyn TokenStore>, OpenError> {
    migrate::require_current(&Location::Postgres(url.to_owned())).await?;
    let (options, place) = options(url)?;
    let pool = PoolOptions::<Postgres>::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options.options(SERVER_SETTINGS));
    let pool = pool.await.map_err(|error| place.refused(&error))?;
    Ok(Arc::new(tokens::PgTokens::new(Database { pool })))
}

/// The options of a connection, and how to call the database in messages.
pub(super) fn options(url: &str) -> Result<(PgConnectOptions, Place), OpenError> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(OpenError::Url);
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    let place = Place::Postgres(format!("{}:{}/{database}", options.get_host(), options.get_port()));
    Ok((
        options.application_name("blind-relay").disable_statement_logging(),
        place,
    ))
}

/// Connections to one database.
#[derive(Clone)]
struct Database {
    pool: PgPool,
}

impl Database {
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, StorageError> {
        Ok(self.pool.begin().await?)
    }

    /// Begins to write on behalf of a device; `None` if it is gone. Until this ends its account neither starts over nor
    /// goes, and whoever else writes on behalf of the account waits.
    async fn begin_as(&self, by: &Actor) -> Result<Option<Transaction<'static, Postgres>>, StorageError> {
        let mut tx = self.begin().await?;
        sqlx::query(HOLD_ACCOUNT)
            .bind(by.address.aci.as_uuid())
            .execute(&mut *tx)
            .await?;
        // A statement of its own: it sees what was committed while the account was waited for.
        let there: bool = sqlx::query_scalar(ACTOR_EXISTS)
            .bind(by.address.aci.as_uuid())
            .bind(i16::from(by.address.device_id.get()))
            .bind(by.mailbox.0)
            .fetch_one(&mut *tx)
            .await?;
        Ok(there.then_some(tx))
    }
}

/// Evaluates the attempt again for as long as other transactions are in its way, a bounded number of times.
macro_rules! retrying {
    ($attempt:expr) => {{
        let mut pauses = $crate::storage::postgres::PAUSES.iter();
        loop {
            match $attempt {
                Err(error) if $crate::storage::StorageError::is_contention(&error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => break Err(error),
                },
                done => break done,
            }
        }
    }};
}
use retrying;

// Weak enough to let rows that are being written elsewhere refer to the account meanwhile.
const HOLD_ACCOUNT: &str = "SELECT 1 FROM accounts WHERE aci = $1 FOR NO KEY UPDATE";
const ACTOR_EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM devices WHERE aci = $1 AND device_id = $2 AND mailbox = $3)";

/// Between attempts. Whoever won has usually committed after the first.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
];
const MAX_WRITERS: u32 = 6;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The rules of this module are written for READ COMMITTED, whatever the server's default is.
///
/// Every statement that is run for a request finds rows by an index. The planner, which keeps no samples of ids, takes a table for
/// the cheaper way while it is small or a list is long: that plan would stay in the connection's cache while the table grows.
/// What wants all rows reads all of them nevertheless.
pub(super) const SERVER_SETTINGS: [(&str, &str); 8] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("default_transaction_isolation", "read committed"),
    ("jit", "off"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];
const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'blind-relay' AND pid <> pg_backend_pid()";
// Leaves `remote_apply` and the like as the operator set them; `off` would answer before the data is safe.
const COMMIT_DURABLY: &str = "SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') = 'off'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::ROOMY;

    #[tokio::test]
    async fn an_error_never_repeats_the_password() {
        for url in [
            "postgres://relay:hunter2@127.0.0.1:1/relay",
            "postgres://relay:hunter2@127.0.0.1:port/relay",
            "postgres://relay:hunter2@127.0.0.1:1/relay?sslmode=hunter2",
            "relay:hunter2@127.0.0.1",
        ] {
            let Err(error) = open(url, ROOMY, 4).await else {
                panic!("nobody answers there")
            };
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    /// What the planner has sampled outlives the row it was taken from.
    #[tokio::test]
    async fn b10_the_planner_keeps_no_sample_of_a_value() {
        use crate::storage::conformance::fixtures::register;
        use crate::storage::testing::postgres;
        let Some(database) = postgres(ROOMY).await else { return };
        for n in 1..=40 {
            register(&database, n, i64::from(n) * 1000).await;
        }
        database.execute("ANALYZE").await;
        let of = |types: &'static str| database.number(types);
        let values = "SELECT count(*) FROM pg_stats AS s JOIN information_schema.columns AS c \
            ON c.table_schema = s.schemaname AND c.table_name = s.tablename AND c.column_name = s.attname \
            WHERE s.schemaname = current_schema() AND s.tablename <> '_sqlx_migrations' \
                AND c.data_type NOT IN ('smallint', 'integer', 'boolean')";
        assert_eq!(of(values).await, 0);
        let others = "SELECT count(*) FROM pg_stats WHERE schemaname = current_schema() AND tablename = 'devices'";
        assert!(of(others).await > 0, "the sampling has taken place");
    }
}
