//! Limits without sockets: time is a number here.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::domain::{Day, SystemClock, Timestamp};

/// Begins at three in the morning, and goes on with the seconds that pass.
struct Since(Arc<AtomicU64>);

impl domain::Clock for Since {
    fn now(&self) -> Timestamp {
        let seconds = i64::try_from(self.0.load(Ordering::Relaxed)).unwrap();
        Day(20_000).midnight().plus_millis((3 * 3_600 + seconds) * 1_000)
    }
}

/// Limits, and the seconds that have passed.
fn limits(scale: Scale) -> (Limits, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let seconds = Arc::clone(&now);
    let config = LimitsConfig {
        scale,
        key: [7; 32],
        redis_url: None,
        share_without_redis: NonZeroU32::new(4).unwrap(),
        elapsed: Arc::new(move || Duration::from_secs(seconds.load(Ordering::Relaxed))),
        clock: Arc::new(Since(Arc::clone(&now))),
    };
    (Limits::new(config, &TaskTracker::new()).unwrap(), now)
}

async fn passed(limits: &Limits, limit: Limit, subject: &[u8], tries: u32) -> u32 {
    let mut passed = 0;
    for _ in 0..tries {
        passed += u32::from(limits.check(limit, &[subject]).await.is_ok());
    }
    passed
}

#[tokio::test]
async fn a_bucket_holds_its_burst_and_refills_one_by_one() {
    let (limits, now) = limits(Scale::Times(1.0));
    let limit = Limit::CodesSent;
    assert_eq!(passed(&limits, limit, b"a", 100).await, 60);
    assert_eq!(
        passed(&limits, limit, b"b", 10).await,
        10,
        "another subject has another"
    );
    let refused = limits.check(limit, &[b"a"]).await.unwrap_err();
    assert_eq!((refused.limit, refused.retry_after_secs()), (limit, 60));
    now.store(125, Ordering::Relaxed);
    assert_eq!(passed(&limits, limit, b"a", 10).await, 2);
    let refused = limits.check(limit, &[b"a"]).await.unwrap_err();
    assert_eq!(refused.retry_after_secs(), 55);
}

#[tokio::test]
async fn no_hour_has_more_than_what_the_table_says_of_it() {
    for (limit, in_an_hour) in [
        (Limit::KeyFetches, 60),
        (Limit::OneTimeKeysOfTarget, 30),
        (Limit::OneTimeKeysForAnyone, 20),
        (Limit::PasswordChanges, 10),
    ] {
        let (limits, now) = limits(Scale::Times(1.0));
        // From the first moment on, after a while of asking, and around midnight.
        for begin in [0, 10_000, 21 * 3_600 - 1_800] {
            let mut within = 0;
            for second in begin..begin + 3_600 {
                now.store(second, Ordering::Relaxed);
                within += passed(&limits, limit, b"a", 3).await;
            }
            assert!(within <= in_an_hour, "{limit:?}: {within}");
            assert!(within >= in_an_hour - 1 || begin > 0, "{limit:?}: {within}");
        }
    }
}

#[tokio::test]
async fn t43_a_ping_each_second_for_an_hour_is_a_burst_of_60_and_then_10_a_minute() {
    let (limits, now) = limits(Scale::Times(1.0));
    let mut within = 0;
    for second in 0..3_600 {
        now.store(second, Ordering::Relaxed);
        within += passed(&limits, Limit::SilentPings, b"a", 1).await;
    }
    assert!((655..=660).contains(&within), "{within}");
}

#[tokio::test]
async fn a_scale_makes_limits_wider_and_off_means_off() {
    let (twice, _) = limits(Scale::Times(2.0));
    assert_eq!(passed(&twice, Limit::CodesSent, b"a", 200).await, 120);
    assert_eq!(
        twice
            .check(Limit::CodesSent, &[b"a"])
            .await
            .unwrap_err()
            .retry_after_secs(),
        30
    );
    let (tenth, _) = limits(Scale::Times(0.1));
    assert_eq!(
        passed(&tenth, Limit::CodeOfNumber, b"a", 9).await,
        1,
        "there is always one"
    );
    let (off, _) = limits(Scale::Off);
    assert_eq!(passed(&off, Limit::CodesSent, b"a", 500).await, 500);
    assert!(off.in_force().is_empty());
    assert_eq!(twice.in_force().len(), DECLARED.len());
}

#[tokio::test]
async fn refusals_are_counted_by_limit() {
    let (limits, _) = limits(Scale::Times(1.0));
    passed(&limits, Limit::CodesOfNumber, b"a", 8).await;
    let counts = limits.refused_counts();
    assert_eq!(counts[Limit::CodesOfNumber.index()], ("codes_of_number", 3));
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 3);
}

#[tokio::test]
async fn buckets_that_are_full_again_are_dropped() {
    let (limits, now) = limits(Scale::Times(1.0));
    let row = &limits.rows[Limit::CodesSent.index()];
    for subject in 0..100_u8 {
        passed(&limits, Limit::CodesSent, &[subject], 1).await;
    }
    limits.tidy();
    assert_eq!(row.here.len(), 100);
    now.store(3_700, Ordering::Relaxed);
    limits.tidy();
    assert_eq!(row.here.len(), 0);
}

#[test]
fn a_spray_of_names_neither_fills_the_memory_nor_opens_the_limit() {
    let bucket = Bucket {
        burst: NonZeroU32::MIN,
        every: Duration::from_secs(60),
    };
    let buckets = Buckets::new(bucket, Arc::new(|| Duration::ZERO));
    let tag = |number: usize| {
        let mut tag = [0; 16];
        // Spread over all first bytes, as hashes are.
        tag[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        tag
    };
    let many = local::MAX_BUCKETS + 200_000;
    let passed = (0..many).filter(|number| buckets.take(tag(*number)).is_ok()).count();
    assert!(passed >= local::MAX_BUCKETS);
    assert!(passed <= local::MAX_BUCKETS + 65_536, "{passed}");
    assert!(buckets.len() <= local::MAX_BUCKETS + 65_536);
}

#[tokio::test]
async fn t60_without_redis_a_shared_limit_falls_back_to_a_strict_share() {
    let config = LimitsConfig {
        scale: Scale::Times(1.0),
        key: [7; 32],
        // Nobody listens there.
        redis_url: Some("redis://127.0.0.1:1".to_owned()),
        share_without_redis: NonZeroU32::new(4).unwrap(),
        elapsed: Arc::new(|| Duration::ZERO),
        clock: Arc::new(SystemClock),
    };
    let limits = Limits::new(config, &TaskTracker::new()).unwrap();
    assert_eq!(passed(&limits, Limit::CodesSent, b"a", 100).await, 15);
    assert_eq!(passed(&limits, Limit::CodeOfNumber, b"a", 5).await, 1);
    assert_eq!(passed(&limits, Limit::Requests, b"a", 700).await, 600, "not shared");
}
