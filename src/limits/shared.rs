//! The buckets that all nodes share, in Redis.
//!
//! One script counts: a bucket is one number, the moment (by Redis' clock, in microseconds) at which it will be full again
//! (the generic cell rate algorithm, as of ATM's traffic management specification). It expires at that moment. Redis is
//! believed when it refuses and when it allows; a Redis that lies can refuse, or leave a node to what it counts itself.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use redis::Script;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::encoding::hex;

use super::Bucket;
use super::subject::Tag;

/// What Redis says.
pub(super) enum Answer {
    /// One was taken.
    Taken,
    /// There is none, until then.
    Full(Duration),
    /// It does not say anything.
    Away,
}

/// The Redis URL is not one.
#[derive(Debug, thiserror::Error)]
#[error("redis_url is not a Redis URL; it looks like redis://host:6379")]
pub struct SharedError;

/// The way to Redis.
pub(super) struct Shared {
    client: redis::Client,
    link: Arc<Mutex<Link>>,
    tasks: TaskTracker,
}

enum Link {
    /// It answered last time.
    Up(MultiplexedConnection),
    /// It did not. Nobody waits for it; from then on somebody may try again.
    Down(Instant),
    /// Somebody tries.
    Trying,
}

impl Shared {
    pub(super) fn new(url: &str, tasks: TaskTracker) -> Result<Self, SharedError> {
        let shared = Self {
            client: redis::Client::open(url).map_err(|_| SharedError)?,
            link: Arc::new(Mutex::new(Link::Down(Instant::now()))),
            tasks,
        };
        let _ = shared.connection();
        Ok(shared)
    }

    pub(super) async fn take(&self, tag: Tag, bucket: Bucket) -> Answer {
        let Some(mut connection) = self.connection() else {
            return Answer::Away;
        };
        let every = u64::try_from(bucket.every.as_micros()).unwrap_or(u64::MAX);
        let mut call = SCRIPT.key(format!("{PREFIX}{}", hex(&tag)));
        let call = call.arg(every).arg(bucket.burst.get());
        match timeout(PATIENCE, call.invoke_async::<u64>(&mut connection)).await {
            Ok(Ok(0)) => Answer::Taken,
            Ok(Ok(micros)) => Answer::Full(Duration::from_micros(micros).min(LONGEST)),
            Ok(Err(_)) | Err(_) => {
                *self.link() = Link::Down(Instant::now() + PAUSE);
                Answer::Away
            }
        }
    }

    /// The connection, if there is one. If there is none and it is time, one is made in the background.
    fn connection(&self) -> Option<MultiplexedConnection> {
        let mut link = self.link();
        match &*link {
            Link::Up(connection) => return Some(connection.clone()),
            Link::Down(until) if *until <= Instant::now() => *link = Link::Trying,
            Link::Down(_) | Link::Trying => return None,
        }
        drop(link);
        let (client, link) = (self.client.clone(), Arc::clone(&self.link));
        self.tasks.spawn(async move {
            let made = timeout(CONNECT, client.get_multiplexed_async_connection()).await;
            let made = match made {
                Ok(Ok(connection)) => Link::Up(connection),
                Ok(Err(_)) | Err(_) => Link::Down(Instant::now() + PAUSE),
            };
            *link.lock().unwrap_or_else(PoisonError::into_inner) = made;
        });
        None
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one out of the bucket KEYS[1], which refills every ARGV[1] microseconds and holds ARGV[2]. Returns 0, or in how many
/// microseconds there will be one.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = time[1] * 1000000 + time[2]
         local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
         local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') or 0, now)
         if full - now > every * burst then full = now + every * burst end
         local wait = full + every - every * burst - now
         if wait > 0 then return wait end
         full = full + every
         redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
         return 0",
    )
});

const PREFIX: &str = "blind-relay:limit:";
/// A Redis that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
/// No limit waits longer for the next one, as declared; a Redis that lies cannot say more.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
