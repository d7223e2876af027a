//! Tokens of a node, and `blind-relay keys` as far as it is about the keys that sign them.
//!
//! Those keys are in the database, which a server may have open meanwhile: it reads them again every few seconds.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::auth::{OpenedKey, ServerSecrets, TokenTimes, Tokens, new_token_key};
use crate::config::{Config, Database};
use crate::domain::{Clock, SystemClock, Timestamp};
use crate::storage::migrate::{self, Schema};
use crate::storage::{AccountCache, Storage, TokenStore, postgres, sqlite};

use super::{Lifecycle, load_pepper, location};

/// Tokens, with keys that sign: the first start of a database makes one.
pub(super) async fn open(
    config: &Config,
    lifecycle: &Lifecycle,
    secrets: &ServerSecrets,
    storage: &Storage,
    accounts: &Arc<AccountCache>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<Tokens>> {
    let times = TokenTimes {
        access: config.tokens.access,
        refresh_days: config.tokens.refresh_days,
    };
    let tokens = Arc::new(Tokens::new(
        secrets.tokens().clone(),
        times,
        Arc::clone(&storage.tokens),
        Arc::clone(accounts),
        Arc::clone(clock),
        config.cache.credentials,
    ));
    tokens.keys.load().await.context("cannot read the database")??;
    let stop = || lifecycle.stop_background.clone();
    lifecycle.background.spawn(Arc::clone(&tokens.keys).run(stop()));
    lifecycle.background.spawn(Arc::clone(&tokens.sessions).run(stop()));
    Ok(tokens)
}

/// Has another key sign from now on. The others verify what they signed until that is over; or, at once, nothing any more.
pub(super) async fn rotate(config: &Config, at_once: bool) -> anyhow::Result<String> {
    let secrets = ServerSecrets::from_pepper(&*load_pepper(config)?);
    let store = store(config).await?;
    let now = SystemClock.now();
    let key = new_token_key(secrets.tokens(), now);
    let others_until = (!at_once).then(|| over(now, config.tokens.access));
    store
        .rotate_key(&key, others_until)
        .await
        .context("cannot write to the database")?;
    let mut text = described(&secrets.tokens().open_keys(&store.keys(now).await?));
    text.push_str(if at_once {
        "Every node uses the new key within seconds, and takes nothing that another one signed. Clients refresh their tokens.\n"
    } else {
        "Every node uses the new key within seconds. The others go when what they signed is over.\n"
    });
    Ok(text)
}

/// The keys there are, the one that signs first; an error if they cannot be read.
pub(super) async fn keys(config: &Config) -> anyhow::Result<Vec<Arc<OpenedKey>>> {
    if migrate::check(&location(config)).await? == Schema::Outdated {
        return Ok(vec![]);
    }
    let secrets = ServerSecrets::from_pepper(&*load_pepper(config)?);
    let stored = store(config).await?.keys(SystemClock.now()).await?;
    Ok(secrets.tokens().open_keys(&stored))
}

/// In lines for people.
pub(super) fn described(keys: &[Arc<OpenedKey>]) -> String {
    let mut text = "Keys that sign tokens\n".to_owned();
    if keys.is_empty() {
        text.push_str("  none yet: the first start of the server makes one\n");
    }
    for (place, key) in keys.iter().enumerate() {
        let state = match (place, key.until()) {
            (_, Some(_)) => "verifies for a while",
            (0, None) => "signs",
            (_, None) => "verifies",
        };
        let _ = writeln!(text, "  {}  {state}", key.kid());
    }
    text
}

async fn store(config: &Config) -> anyhow::Result<Arc<dyn TokenStore>> {
    Ok(match &config.database {
        Database::Sqlite(path) => sqlite::tokens_beside(path).await?,
        Database::Postgres(url) => postgres::tokens_beside(url.expose()).await?,
    })
}

/// When nothing is good any more that a key signed until now, or until the last node has heard that it does not sign.
fn over(now: Timestamp, lifetime: Duration) -> Timestamp {
    let lifetime = lifetime + HEARD;
    now.plus_millis(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX))
}

/// More than a node takes to hear of another key, and the leeway of a token.
const HEARD: Duration = Duration::from_secs(60);
