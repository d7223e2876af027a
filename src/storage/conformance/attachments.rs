//! What every attachment store promises.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::domain::{
    Appended, AttachmentName, Budget, Day, MAX_SEGMENTS, NewUpload, Opened, QueueLimits, QuotaBucket, REMOVED_DAYS,
    Segment, Timestamp, Turn, TurnTaken, Upload, UploadTimes,
};
use crate::storage::AttachmentStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Store = Arc<dyn AttachmentStore>;

const TODAY: Day = Day(20_000);
const NOW: Timestamp = Timestamp(TODAY.0 as i64 * 24 * 60 * 60 * 1000);
const TIMES: UploadTimes = UploadTimes {
    now: NOW,
    drop_at: Timestamp(NOW.0 + 1_000),
    expires: Day(TODAY.0 + 45),
};
const BUDGET: Budget = Budget {
    bucket: QuotaBucket([9; 16]),
    day: TODAY,
    limit: 1_000,
    least: 0,
};

fn name(n: u8) -> AttachmentName {
    AttachmentName([n; 32])
}

fn new(n: u8, length: Option<u64>) -> NewUpload {
    NewUpload {
        name: name(n),
        length,
        paid: 0,
        budget: BUDGET,
        times: TIMES,
    }
}

fn segment(start: u64, length: u64) -> Segment {
    Segment { start, length, tag: -7 }
}

async fn turn(store: &Store, n: u8, at: u64, length: Option<u64>) -> TurnTaken {
    let turn = Turn {
        at,
        length,
        budget: BUDGET,
        times: TIMES,
    };
    store.take_turn(&name(n), &turn).await.unwrap()
}

async fn writing(store: &Store, n: u8, at: u64, length: Option<u64>) -> i64 {
    match turn(store, n, at, length).await {
        TurnTaken::Writing { turn, .. } => turn,
        other => panic!("{other:?}"),
    }
}

async fn append(store: &Store, n: u8, turn: i64, segments: &[Segment]) -> Appended {
    store.append(&name(n), turn, segments, &BUDGET, &TIMES).await.unwrap()
}

fn open_at(length: Option<u64>, stored: u64) -> Upload {
    Upload {
        length,
        stored,
        drop_at: Some(TIMES.drop_at),
    }
}

/// An attachment of ten bytes.
async fn complete(store: &Store, n: u8) {
    store.open(&new(n, Some(10))).await.unwrap();
    let turn = writing(store, n, 0, None).await;
    assert!(matches!(
        append(store, n, turn, &[segment(0, 10)]).await,
        Appended::At(_)
    ));
}

pub(crate) async fn an_upload_is_found_as_it_stands(database: &TestDatabase) {
    let store = database.storage().attachments;
    assert_eq!(store.find_upload(&name(1), NOW).await.unwrap(), None);
    assert_eq!(store.open(&new(1, None)).await.unwrap(), Opened::At(open_at(None, 0)));
    let first = writing(&store, 1, 0, None).await;
    assert_eq!(
        append(&store, 1, first, &[segment(0, 3)]).await,
        Appended::At(open_at(None, 3))
    );
    assert_eq!(writing(&store, 1, 3, Some(8)).await, first + 1);
    assert_eq!(
        store.find_upload(&name(1), NOW).await.unwrap(),
        Some(open_at(Some(8), 3))
    );
    // Asking again to open it changes nothing.
    assert_eq!(
        store.open(&new(1, None)).await.unwrap(),
        Opened::At(open_at(Some(8), 3))
    );
    assert_eq!(store.find_upload(&name(2), NOW).await.unwrap(), None);
}

pub(crate) async fn the_last_byte_completes_it(database: &TestDatabase) {
    let store = database.storage().attachments;
    store.open(&new(1, Some(10))).await.unwrap();
    let turn_of_it = writing(&store, 1, 0, Some(10)).await;
    append(&store, 1, turn_of_it, &[segment(0, 4)]).await;
    assert_eq!(
        store.find_attachment(&name(1), TODAY).await.unwrap(),
        None,
        "not before"
    );
    let whole = Upload {
        length: Some(10),
        stored: 10,
        drop_at: None,
    };
    let rest = [segment(4, 5), segment(9, 1)];
    assert_eq!(append(&store, 1, turn_of_it, &rest).await, Appended::At(whole));
    let found = store.find_attachment(&name(1), TODAY).await.unwrap().unwrap();
    assert_eq!(found.length, 10);
    assert_eq!(found.segments, [segment(0, 4), segment(4, 5), segment(9, 1)]);
    assert_eq!(turn(&store, 1, 10, None).await, TurnTaken::Complete);
    assert_eq!(
        append(&store, 1, turn_of_it, &[segment(10, 1)]).await,
        Appended::Overtaken
    );
    assert_eq!(turn(&store, 1, 0, None).await, TurnTaken::Elsewhere(whole));
}

pub(crate) async fn a_length_that_comes_last_completes_it_too(database: &TestDatabase) {
    let store = database.storage().attachments;
    store.open(&new(1, None)).await.unwrap();
    let first = writing(&store, 1, 0, None).await;
    append(&store, 1, first, &[segment(0, 4)]).await;
    assert_eq!(turn(&store, 1, 4, Some(3)).await, TurnTaken::OtherLength);
    assert_eq!(turn(&store, 1, 4, Some(4)).await, TurnTaken::Complete);
    assert_eq!(turn(&store, 1, 4, Some(5)).await, TurnTaken::OtherLength);
    assert!(store.find_attachment(&name(1), TODAY).await.unwrap().is_some());
    // Nothing at all is an attachment as well.
    assert!(matches!(store.open(&new(2, Some(0))).await.unwrap(), Opened::At(_)));
    let nothing = store.find_attachment(&name(2), TODAY).await.unwrap().unwrap();
    assert!(nothing.length == 0 && nothing.segments.is_empty());
}

pub(crate) async fn only_the_latest_turn_writes(database: &TestDatabase) {
    let store = database.storage().attachments;
    store.open(&new(1, Some(10))).await.unwrap();
    let (first, second) = (writing(&store, 1, 0, None).await, writing(&store, 1, 0, None).await);
    assert_eq!(append(&store, 1, first, &[segment(0, 10)]).await, Appended::Overtaken);
    assert_eq!(
        turn(&store, 1, 1, None).await,
        TurnTaken::Elsewhere(open_at(Some(10), 0))
    );
    for misplaced in [&[segment(1, 1)][..], &[segment(0, 11)], &[segment(0, 1), segment(2, 1)]] {
        assert_eq!(append(&store, 1, second, misplaced).await, Appended::Overtaken);
    }
    assert_eq!(
        store.find_upload(&name(1), NOW).await.unwrap(),
        Some(open_at(Some(10), 0))
    );
    assert!(matches!(
        append(&store, 1, second, &[segment(0, 10)]).await,
        Appended::At(_)
    ));
}

pub(crate) async fn of_segments_at_one_place_one_is_taken(database: &TestDatabase) {
    let store = database.storage().attachments;
    store.open(&new(1, Some(1_000))).await.unwrap();
    let turn = writing(&store, 1, 0, None).await;
    let other = database.another().await.attachments;
    let racing = (0..16).map(|number| {
        let store = if number % 2 == 0 {
            Arc::clone(&store)
        } else {
            Arc::clone(&other)
        };
        async move {
            let mut segment = segment(0, 10);
            segment.tag = number;
            append(&store, 1, turn, &[segment]).await
        }
    });
    let outcomes = join_all(racing).await;
    let taken = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Appended::At(_)))
        .count();
    assert_eq!(taken, 1, "{outcomes:?}");
    assert_eq!(
        store.find_upload(&name(1), NOW).await.unwrap(),
        Some(open_at(Some(1_000), 10))
    );
    assert_eq!(database.number("SELECT count(*) FROM attachment_segments").await, 1);
}

pub(crate) async fn a_budget_is_not_overdrawn_by_many_at_once(database: &TestDatabase) {
    let store = database.storage().attachments;
    let other = database.another().await.attachments;
    let racing = (0..32).map(|number| {
        let store = if number % 2 == 0 {
            Arc::clone(&store)
        } else {
            Arc::clone(&other)
        };
        async move { store.reserve(&BUDGET, 90).await.unwrap() }
    });
    assert_eq!(join_all(racing).await.into_iter().filter(|taken| *taken).count(), 11);
    assert_eq!(database.number("SELECT max(bytes) FROM attachment_budgets").await, 990);
    assert!(store.reserve(&BUDGET, 10).await.unwrap());
    assert!(!store.reserve(&BUDGET, 1).await.unwrap());
    assert!(store.reserve(&BUDGET, 0).await.unwrap());
    let fresh = Budget {
        bucket: QuotaBucket([8; 16]),
        ..BUDGET
    };
    assert!(!store.reserve(&fresh, 1_001).await.unwrap());
    assert!(!store.reserve(&fresh, u64::MAX).await.unwrap());
    assert!(store.reserve(&fresh, 1_000).await.unwrap());
}

pub(crate) async fn an_upload_is_taken_from_the_budget_once(database: &TestDatabase) {
    let store = database.storage().attachments;
    let taken = async || {
        database
            .number("SELECT coalesce(max(bytes), 0) FROM attachment_budgets")
            .await
    };
    let least = NewUpload {
        budget: Budget { least: 100, ..BUDGET },
        ..new(1, None)
    };
    store.open(&least).await.unwrap();
    store.open(&least).await.unwrap();
    assert_eq!(taken().await, 100);
    let first = writing(&store, 1, 0, None).await;
    append(&store, 1, first, &[segment(0, 60)]).await;
    assert_eq!(taken().await, 100, "it was paid with the opening");
    append(&store, 1, first, &[segment(60, 60)]).await;
    assert_eq!(taken().await, 120);
    let second = writing(&store, 1, 120, Some(200)).await;
    assert_eq!(taken().await, 200);
    append(&store, 1, second, &[segment(120, 80)]).await;
    assert_eq!(taken().await, 200);
    let paid = NewUpload {
        paid: 500,
        ..new(2, Some(500))
    };
    store.open(&paid).await.unwrap();
    let turn = writing(&store, 2, 0, None).await;
    append(&store, 2, turn, &[segment(0, 500)]).await;
    assert_eq!(taken().await, 200, "it was paid with the form");
}

pub(crate) async fn what_the_budget_does_not_allow_changes_nothing(database: &TestDatabase) {
    let store = database.storage().attachments;
    store.reserve(&BUDGET, 950).await.unwrap();
    let costly = NewUpload {
        budget: Budget { least: 51, ..BUDGET },
        ..new(1, None)
    };
    assert_eq!(store.open(&costly).await.unwrap(), Opened::OverBudget);
    assert_eq!(store.open(&new(1, Some(51))).await.unwrap(), Opened::OverBudget);
    assert_eq!(store.find_upload(&name(1), NOW).await.unwrap(), None);
    store.open(&new(1, None)).await.unwrap();
    assert_eq!(turn(&store, 1, 0, Some(51)).await, TurnTaken::OverBudget);
    let first = writing(&store, 1, 0, None).await;
    assert_eq!(append(&store, 1, first, &[segment(0, 51)]).await, Appended::OverBudget);
    assert_eq!(store.find_upload(&name(1), NOW).await.unwrap(), Some(open_at(None, 0)));
    assert!(matches!(
        append(&store, 1, first, &[segment(0, 50)]).await,
        Appended::At(_)
    ));
}

pub(crate) async fn however_small_its_segments_are_an_upload_pays_for_each(database: &TestDatabase) {
    let store = database.storage().attachments;
    let budget = Budget { least: 300, ..BUDGET };
    store.open(&NewUpload { budget, ..new(1, None) }).await.unwrap();
    let turn = writing(&store, 1, 0, None).await;
    let append = async |start| {
        let segments = [segment(start, 1)];
        store.append(&name(1), turn, &segments, &budget, &TIMES).await.unwrap()
    };
    for start in 0..3 {
        assert_eq!(append(start).await, Appended::At(open_at(None, start + 1)));
    }
    assert_eq!(database.number("SELECT max(bytes) FROM attachment_budgets").await, 900);
    assert_eq!(append(3).await, Appended::OverBudget);
    assert_eq!(database.number("SELECT count(*) FROM attachment_segments").await, 3);
    // None at all costs nothing, and keeps the upload open for longer.
    let later = UploadTimes {
        drop_at: Timestamp(TIMES.drop_at.0 + 500),
        ..TIMES
    };
    let renewed = store.append(&name(1), turn, &[], &budget, &later).await.unwrap();
    assert!(matches!(renewed, Appended::At(upload) if upload.drop_at == Some(later.drop_at)));
    assert_eq!(database.number("SELECT max(bytes) FROM attachment_budgets").await, 900);
}

pub(crate) async fn the_first_realm_stays(database: &TestDatabase) {
    let store = database.storage().attachments;
    assert_eq!(store.realm([1; 16]).await.unwrap(), [1; 16]);
    let other = database.another().await.attachments;
    assert_eq!(other.realm([2; 16]).await.unwrap(), [1; 16]);
}

pub(crate) async fn what_is_retired_is_gone_and_never_comes(database: &TestDatabase) {
    let store = database.storage().attachments;
    complete(&store, 1).await;
    store.open(&new(2, Some(10))).await.unwrap();
    let turn_of_it = writing(&store, 2, 0, None).await;
    append(&store, 2, turn_of_it, &[segment(0, 5)]).await;
    complete(&store, 4).await;
    for _ in 0..2 {
        store.retire(&[name(3), name(1), name(2)], NOW).await.unwrap();
    }
    store.retire(&[], NOW).await.unwrap();
    assert_eq!(store.find_attachment(&name(1), TODAY).await.unwrap(), None);
    assert_eq!(
        append(&store, 2, turn_of_it, &[segment(5, 5)]).await,
        Appended::Overtaken
    );
    assert_eq!(store.open(&new(3, Some(1))).await.unwrap(), Opened::Gone);
    assert_eq!(store.uncleared(None, 10).await.unwrap(), [name(1), name(2)]);
    assert!(store.find_attachment(&name(4), TODAY).await.unwrap().is_some());
    assert_eq!(database.number("SELECT count(*) FROM attachment_segments").await, 1);
    let day = TODAY.plus(REMOVED_DAYS);
    assert_eq!(
        store.forget(day, 10).await.unwrap(),
        2,
        "the one that never was, and the budget"
    );
}

pub(crate) async fn too_many_segments_are_an_answer(database: &TestDatabase) {
    let store = database.storage().attachments;
    store
        .open(&NewUpload {
            paid: u64::MAX,
            ..new(1, None)
        })
        .await
        .unwrap();
    let turn = writing(&store, 1, 0, None).await;
    let most = u64::try_from(MAX_SEGMENTS).unwrap();
    let all: Vec<_> = (0..most).map(|start| segment(start, 1)).collect();
    assert!(matches!(append(&store, 1, turn, &all).await, Appended::At(_)));
    assert_eq!(append(&store, 1, turn, &[segment(most, 1)]).await, Appended::TooMany);
    assert_eq!(store.find_upload(&name(1), NOW).await.unwrap().unwrap().stored, most);
}

pub(crate) async fn an_open_upload_is_gone_when_its_time_has_come(database: &TestDatabase) {
    let store = database.storage().attachments;
    store.open(&new(1, Some(10))).await.unwrap();
    let turn_of_it = writing(&store, 1, 0, None).await;
    append(&store, 1, turn_of_it, &[segment(0, 5)]).await;
    let before = Timestamp(TIMES.drop_at.0 - 1);
    assert!(store.find_upload(&name(1), before).await.unwrap().is_some());
    assert_eq!(store.expire(before, 10).await.unwrap(), 0);
    assert_eq!(
        store.find_upload(&name(1), TIMES.drop_at).await.unwrap(),
        None,
        "before it is swept"
    );
    let late = UploadTimes {
        now: TIMES.drop_at,
        ..TIMES
    };
    let appended = store
        .append(&name(1), turn_of_it, &[segment(5, 5)], &BUDGET, &late)
        .await;
    assert_eq!(appended.unwrap(), Appended::Overtaken);
    assert_eq!(store.expire(TIMES.drop_at, 10).await.unwrap(), 1);
    assert_eq!(store.expire(TIMES.drop_at, 10).await.unwrap(), 0);
    assert_eq!(
        store.open(&new(1, Some(10))).await.unwrap(),
        Opened::Gone,
        "a name is used once"
    );
    assert_eq!(turn(&store, 1, 0, None).await, TurnTaken::Gone);
    assert_eq!(database.number("SELECT count(*) FROM attachment_segments").await, 0);
}

pub(crate) async fn an_attachment_is_gone_on_its_day(database: &TestDatabase) {
    let store = database.storage().attachments;
    complete(&store, 1).await;
    let (last, gone) = (Day(TIMES.expires.0 - 1), TIMES.expires);
    let midnight = |day: Day| Timestamp(i64::from(day.0) * 24 * 60 * 60 * 1000);
    assert!(store.find_attachment(&name(1), last).await.unwrap().is_some());
    assert_eq!(store.expire(midnight(last), 10).await.unwrap(), 0);
    assert_eq!(
        store.find_attachment(&name(1), gone).await.unwrap(),
        None,
        "before it is swept"
    );
    assert_eq!(store.find_upload(&name(1), midnight(gone)).await.unwrap(), None);
    assert_eq!(store.expire(midnight(gone), 10).await.unwrap(), 1);
}

pub(crate) async fn what_was_removed_is_cleared_and_forgotten(database: &TestDatabase) {
    let store = database.storage().attachments;
    for n in 1..=3 {
        complete(&store, n).await;
    }
    assert!(store.remove(&name(1), NOW).await.unwrap());
    assert!(!store.remove(&name(1), NOW).await.unwrap());
    assert!(!store.remove(&name(9), NOW).await.unwrap());
    assert_eq!(store.find_attachment(&name(1), TODAY).await.unwrap(), None);
    assert!(store.remove(&name(2), NOW).await.unwrap());
    assert_eq!(store.uncleared(None, 1).await.unwrap(), [name(1)]);
    assert_eq!(store.uncleared(Some(name(1)), 10).await.unwrap(), [name(2)]);
    assert_eq!(store.uncleared(None, 10).await.unwrap(), [name(1), name(2)]);
    let mut known = store.known(&[name(1), name(2), name(3), name(4)]).await.unwrap();
    known.sort();
    assert_eq!(known, [name(1), name(2), name(3)]);
    // What is complete is not marked by mistake.
    store.cleared(&[name(1), name(3)]).await.unwrap();
    assert_eq!(store.uncleared(None, 10).await.unwrap(), [name(2)]);
    assert_eq!(store.known(&[name(1), name(3)]).await.unwrap(), [name(3)]);
    let day = TODAY.plus(REMOVED_DAYS);
    assert_eq!(store.forget(day.plus(-1), 10).await.unwrap(), 0);
    assert_eq!(
        store.forget(day, 10).await.unwrap(),
        2,
        "a removed name, and the budget of that day"
    );
    assert_eq!(store.forget(day, 10).await.unwrap(), 0);
    assert!(store.find_attachment(&name(3), TODAY).await.unwrap().is_some());
}

pub(crate) async fn expiry_goes_in_batches(database: &TestDatabase) {
    let store = database.storage().attachments;
    for n in 0..5 {
        store.open(&new(n, None)).await.unwrap();
    }
    let mut expired = Vec::new();
    for _ in 0..4 {
        expired.push(store.expire(TIMES.drop_at, 2).await.unwrap());
    }
    assert_eq!(expired, [2, 2, 1, 0]);
    assert_eq!(store.known(&[]).await.unwrap(), []);
    store.cleared(&[]).await.unwrap();
}

pub(crate) async fn an_upload_goes_on_at_another_node(database: &TestDatabase) {
    let (one, other) = (database.storage().attachments, database.another().await.attachments);
    one.open(&new(1, Some(10))).await.unwrap();
    let turn_of_it = writing(&one, 1, 0, None).await;
    append(&one, 1, turn_of_it, &[segment(0, 4)]).await;
    assert_eq!(
        other.find_upload(&name(1), NOW).await.unwrap(),
        Some(open_at(Some(10), 4))
    );
    let turn_of_other = writing(&other, 1, 4, None).await;
    assert_eq!(append(&one, 1, turn_of_it, &[segment(4, 6)]).await, Appended::Overtaken);
    append(&other, 1, turn_of_other, &[segment(4, 6)]).await;
    assert_eq!(one.find_attachment(&name(1), TODAY).await.unwrap().unwrap().length, 10);
}
