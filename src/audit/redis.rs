//! Whether Redis has only the keys and channels of the manifest.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::manifest::{Manifest, RedisKind};

use super::findings::{At, Findings, name};
use super::progress::Progress;

/// Looks at every key of the database that the URL names and at every channel somebody listens to, and says how many
/// there were.
pub(super) async fn check(
    url: &str,
    manifest: &Manifest,
    findings: &mut Findings,
    progress: &mut Progress,
) -> Result<String, String> {
    match timeout(CONNECT, connect(url)).await {
        Ok(Ok(mut connection)) => look(&mut connection, manifest, findings, progress).await.map_err(told),
        Ok(Err(error)) => Err(told(error)),
        Err(_) => Err("Redis does not answer".to_owned()),
    }
}

async fn connect(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(url)?.get_multiplexed_async_connection().await
}

/// The kind alone: a message may quote the URL.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: redis::RedisError) -> String {
    format!("Redis cannot be asked: {}", error.category())
}

async fn look(
    connection: &mut MultiplexedConnection,
    manifest: &Manifest,
    findings: &mut Findings,
    progress: &mut Progress,
) -> redis::RedisResult<String> {
    let total: u64 = redis::cmd("DBSIZE").query_async(connection).await?;
    let (mut cursor, mut keys) = (0_u64, 0_u64);
    loop {
        let (next, page): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("COUNT")
            .arg(PAGE)
            .query_async(connection)
            .await?;
        for key in page {
            keys += 1;
            progress.at("Redis keys", keys, total);
            judge(manifest, RedisKind::Key, &key, findings);
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let mut channels: Vec<Vec<u8>> = redis::cmd("PUBSUB").arg("CHANNELS").query_async(connection).await?;
    // Older servers have no such channels and refuse the question.
    let sharded = redis::cmd("PUBSUB")
        .arg("SHARDCHANNELS")
        .query_async::<Vec<Vec<u8>>>(connection)
        .await;
    channels.extend(sharded.unwrap_or_default());
    for channel in &channels {
        judge(manifest, RedisKind::Channel, channel, findings);
    }
    let patterns: u64 = redis::cmd("PUBSUB").arg("NUMPAT").query_async(connection).await?;
    if patterns > 0 {
        let what = "somebody listens to channels by pattern, which no node does";
        findings.notice(At::check(CHECK), what, None);
    }
    Ok(format!("{keys} keys, {} channels", channels.len()))
}

fn judge(manifest: &Manifest, kind: RedisKind, bytes: &[u8], findings: &mut Findings) {
    let text = String::from_utf8_lossy(bytes);
    if manifest.redis_name(kind, &text).is_none() {
        let kind = match kind {
            RedisKind::Key => "key",
            RedisKind::Channel => "channel",
        };
        findings.violation(
            At::check(CHECK),
            format!("a {kind} that is not declared: {}", name(&text)),
            None,
        );
    }
}

const CHECK: &str = "redis";
const PAGE: u32 = 1_000;
const CONNECT: Duration = Duration::from_secs(10);
