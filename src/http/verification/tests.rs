//! The budget of codes for a number, with seconds that are numbers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::task::TaskTracker;

use super::*;
use crate::domain::{Clock, Day, Timestamp};
use crate::limits::{LimitsConfig, Scale};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Day(20_000).midnight()
    }
}

#[tokio::test]
async fn t02_a_number_gets_a_code_a_minute_and_five_a_day_in_however_many_sessions() {
    let seconds = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&seconds);
    let limits = LimitsConfig {
        scale: Scale::Times(1.0),
        key: [7; 32],
        redis_url: None,
        share_without_redis: NonZeroU32::MIN,
        elapsed: Arc::new(move || Duration::from_secs(passed.load(Ordering::Relaxed))),
        clock: Arc::new(Noon),
    };
    let limits = Limits::new(limits, &TaskTracker::new()).unwrap();
    let number = NumberHash([1; 32]);
    for minute in 0..5 {
        seconds.store(minute * 60, Ordering::Relaxed);
        may_be_sent(&limits, &number).await.unwrap();
        seconds.store(minute * 60 + 59, Ordering::Relaxed);
        let refused = may_be_sent(&limits, &number).await.unwrap_err();
        assert_eq!((refused.limit, refused.retry_after_secs()), (Limit::CodeOfNumber, 1));
    }
    seconds.store(300, Ordering::Relaxed);
    let sixth = may_be_sent(&limits, &number).await.unwrap_err();
    assert_eq!(sixth.limit, Limit::CodesOfNumber);
    assert!(sixth.retry_after_secs() > 60 * 60);
    may_be_sent(&limits, &NumberHash([2; 32])).await.unwrap();
}
