//! What every store of account data promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::fixtures::{aci, actor, register};
use crate::domain::{
    Actor, DataCursor, DataEntry, DataKey, DataLimits, DataPage, DataWrite, MAX_REMEMBERED_DELETIONS, QueueLimits,
    Revision, Written,
};
use crate::storage::AccountDataStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Data = Arc<dyn AccountDataStore>;

const ROOM: DataLimits = DataLimits {
    keys: 5_000,
    total_bytes: 1 << 24,
};
const BEGINNING: DataCursor = DataCursor {
    after: Revision(0),
    since: Revision(0),
};

/// The store, and accounts 1 and 2.
async fn data(database: &TestDatabase) -> Data {
    register(database, 1, 1001).await;
    register(database, 2, 1002).await;
    database.storage().account_data
}

/// The account's primary, as [`data`] registered it.
fn by(account: u8) -> Actor {
    actor(account, 1000 + i64::from(account))
}

fn key(n: u16) -> DataKey {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&n.to_be_bytes());
    DataKey(key)
}

fn put(n: u16, expected: i64, value: &[u8]) -> DataWrite {
    DataWrite {
        key: key(n),
        expected: Revision(expected),
        value: Some(Bytes::copy_from_slice(value)),
    }
}

fn delete(n: u16, expected: i64) -> DataWrite {
    DataWrite {
        key: key(n),
        expected: Revision(expected),
        value: None,
    }
}

fn at(versions: impl IntoIterator<Item = i64>) -> Written {
    Written::At(versions.into_iter().map(Revision).collect())
}

fn conflict(n: u16, version: i64) -> Written {
    Written::Conflicts(vec![(key(n), Revision(version))])
}

async fn write(data: &Data, account: u8, writes: &[DataWrite]) -> Written {
    data.write(&by(account), writes, ROOM).await.unwrap()
}

async fn value(data: &Data, account: u8, n: u16) -> Option<(i64, Vec<u8>)> {
    let found = data.find(aci(account), &key(n)).await.unwrap();
    found.map(|DataEntry { version, value }| (version.0, value.to_vec()))
}

async fn changes(data: &Data, after: i64, since: i64, limit: u32) -> DataPage {
    let from = DataCursor {
        after: Revision(after),
        since: Revision(since),
    };
    data.changes(aci(1), from, limit).await.unwrap()
}

/// Key, version and size of each change.
fn listed(page: &DataPage) -> Vec<(DataKey, i64, Option<u32>)> {
    let change = |change: &crate::domain::DataChange| (change.key, change.version.0, change.size);
    page.changes.iter().map(change).collect()
}

pub(crate) async fn a_value_is_found_as_it_was_written(database: &TestDatabase) {
    let data = data(database).await;
    let large = vec![0xa5; 256 * 1024];
    assert_eq!(write(&data, 1, &[put(1, 0, &large)]).await, at([1]));
    assert_eq!(write(&data, 1, &[put(2, 0, &[0])]).await, at([2]));
    assert_eq!(value(&data, 1, 1).await, Some((1, large)));
    assert_eq!(value(&data, 1, 2).await, Some((2, vec![0])));
    assert_eq!(value(&data, 1, 3).await, None);
}

pub(crate) async fn a_write_needs_the_version_it_replaces(database: &TestDatabase) {
    let data = data(database).await;
    assert_eq!(write(&data, 1, &[put(1, 1, b"early")]).await, conflict(1, 0));
    assert_eq!(write(&data, 1, &[put(1, 0, b"one")]).await, at([1]));
    assert_eq!(write(&data, 1, &[put(1, 0, b"again")]).await, conflict(1, 1));
    assert_eq!(write(&data, 1, &[put(1, 2, b"ahead")]).await, conflict(1, 1));
    assert_eq!(write(&data, 1, &[delete(1, 0)]).await, conflict(1, 1));
    assert_eq!(write(&data, 1, &[put(1, 1, b"two")]).await, at([2]));
    assert_eq!(write(&data, 1, &[delete(1, 1)]).await, conflict(1, 2));
    assert_eq!(value(&data, 1, 1).await, Some((2, b"two".to_vec())));
    assert_eq!(
        write(&data, 9, &[put(1, 0, b"nobody's")]).await,
        Written::UnknownAccount
    );
}

pub(crate) async fn versions_never_repeat(database: &TestDatabase) {
    let data = data(database).await;
    assert_eq!(write(&data, 1, &[put(1, 0, b"one")]).await, at([1]));
    assert_eq!(write(&data, 1, &[delete(1, 1)]).await, at([2]));
    assert_eq!(value(&data, 1, 1).await, None);
    assert_eq!(write(&data, 1, &[delete(1, 2)]).await, conflict(1, 0));
    assert_eq!(write(&data, 1, &[put(1, 2, b"back")]).await, conflict(1, 0));
    assert_eq!(write(&data, 1, &[put(1, 0, b"anew")]).await, at([3]));
    // A writer that still believes in the first one does no harm to the second.
    assert_eq!(write(&data, 1, &[put(1, 1, b"late")]).await, conflict(1, 3));
}

pub(crate) async fn a_batch_takes_place_whole_or_not_at_all(database: &TestDatabase) {
    let data = data(database).await;
    write(&data, 1, &[put(1, 0, b"a"), put(2, 0, b"b"), put(3, 0, b"c")]).await;
    let torn = [put(1, 1, b"A"), put(2, 7, b"B"), delete(3, 3), put(4, 1, b"D")];
    assert_eq!(
        write(&data, 1, &torn).await,
        Written::Conflicts(vec![(key(2), Revision(2)), (key(4), Revision(0))])
    );
    assert_eq!(value(&data, 1, 1).await, Some((1, b"a".to_vec())));
    let whole = [put(1, 1, b"A"), put(2, 2, b"BB"), delete(3, 3), put(4, 0, b"DDD")];
    assert_eq!(write(&data, 1, &whole).await, at([4, 5, 6, 7]));
    assert_eq!(value(&data, 1, 2).await, Some((5, b"BB".to_vec())));
    assert_eq!(value(&data, 1, 3).await, None);
    assert_eq!(value(&data, 1, 4).await, Some((7, b"DDD".to_vec())));
}

pub(crate) async fn one_account_never_sees_anothers_entries(database: &TestDatabase) {
    let data = data(database).await;
    write(&data, 1, &[put(1, 0, b"mine")]).await;
    assert_eq!(value(&data, 2, 1).await, None);
    assert_eq!(write(&data, 2, &[put(1, 1, b"yours")]).await, conflict(1, 0));
    assert_eq!(write(&data, 2, &[delete(1, 1)]).await, conflict(1, 0));
    assert_eq!(write(&data, 2, &[put(1, 0, b"theirs")]).await, at([1]));
    assert_eq!(value(&data, 1, 1).await, Some((1, b"mine".to_vec())));
    assert!(data.changes(aci(9), BEGINNING, 10).await.unwrap().changes.is_empty());
}

pub(crate) async fn changes_are_listed_since_a_revision(database: &TestDatabase) {
    let data = data(database).await;
    let empty = changes(&data, 0, 0, 10).await;
    assert_eq!((empty.revision, empty.reset, empty.next), (Revision(0), false, None));
    write(&data, 1, &[put(1, 0, b"a"), put(2, 0, b"bb"), put(3, 0, b"c")]).await;
    write(&data, 1, &[put(1, 1, b"aaa"), delete(3, 3)]).await;
    let all = changes(&data, 0, 0, 10).await;
    // Who has nothing need not hear of deletions.
    assert_eq!(listed(&all), [(key(2), 2, Some(2)), (key(1), 4, Some(3))]);
    assert_eq!((all.revision, all.reset), (Revision(5), false));
    let news = changes(&data, 3, 3, 10).await;
    assert_eq!(listed(&news), [(key(1), 4, Some(3)), (key(3), 5, None)]);
    assert!(listed(&changes(&data, 5, 5, 10).await).is_empty());
    // An entry that came back is there again.
    write(&data, 1, &[put(3, 0, b"back")]).await;
    assert_eq!(
        listed(&changes(&data, 3, 3, 10).await),
        [(key(1), 4, Some(3)), (key(3), 6, Some(4))]
    );
}

pub(crate) async fn a_list_comes_in_parts(database: &TestDatabase) {
    let data = data(database).await;
    let writes: Vec<_> = (0..25).map(|n| put(n, 0, b"x")).collect();
    write(&data, 1, &writes).await;
    let (mut from, mut seen, mut parts) = (Some(BEGINNING), BTreeSet::new(), 0);
    while let Some(cursor) = from {
        let page = data.changes(aci(1), cursor, 10).await.unwrap();
        assert!(page.changes.len() <= 10 && !page.reset);
        seen.extend(page.changes.iter().map(|change| change.key));
        (from, parts) = (page.next, parts + 1);
        // An entry that is written meanwhile moves to the end, and is listed again.
        if parts == 1 {
            write(&data, 1, &[put(0, 1, b"y")]).await;
        }
    }
    assert_eq!((seen.len(), parts), (25, 3));
}

pub(crate) async fn deletions_are_forgotten_in_their_order(database: &TestDatabase) {
    let data = data(database).await;
    let excess = 5_u16;
    let total = u16::try_from(MAX_REMEMBERED_DELETIONS).unwrap() + excess;
    write(&data, 1, &[put(u16::MAX, 0, b"stays")]).await;
    let puts: Vec<_> = (0..total).map(|n| put(n, 0, b"x")).collect();
    write(&data, 1, &puts).await;
    let before = i64::from(total) + 1;
    let deletes: Vec<_> = (0..total).map(|n| delete(n, i64::from(n) + 2)).collect();
    write(&data, 1, &deletes).await;
    assert_eq!(
        database.number("SELECT count(*) FROM account_data").await,
        MAX_REMEMBERED_DELETIONS + 1
    );
    // Who was there when the first of them was forgotten has missed nothing.
    let horizon = before + i64::from(excess);
    let page = changes(&data, horizon, horizon, 2_000).await;
    assert_eq!((page.reset, page.changes.len()), (false, usize::from(total - excess)));
    // Who was not is given the whole list.
    let page = changes(&data, horizon - 1, horizon - 1, 2_000).await;
    assert!(page.reset && page.changes.len() == 1, "{page:?}");
    // Who begins needs no deletions, and is not sent back when it goes on.
    let page = changes(&data, 1, before + i64::from(total), 10).await;
    assert!(!page.reset);
}

pub(crate) async fn a_whole_list_in_parts_is_not_sent_back_to_its_beginning(database: &TestDatabase) {
    let data = data(database).await;
    let total = u16::try_from(MAX_REMEMBERED_DELETIONS).unwrap() + 100;
    let puts: Vec<_> = (0..total).map(|n| put(n, 0, b"x")).collect();
    write(&data, 1, &puts).await;
    // The last stay, and the first are not only deleted but forgotten.
    let deletes: Vec<_> = (0..total - 50).map(|n| delete(n, i64::from(n) + 1)).collect();
    write(&data, 1, &deletes).await;
    let mut alive = BTreeMap::new();
    let mut from = Some(DataCursor {
        after: Revision(3),
        since: Revision(3),
    });
    let mut first = true;
    while let Some(cursor) = from {
        let page = data.changes(aci(1), cursor, 20).await.unwrap();
        assert_eq!(page.reset, first);
        first = false;
        for change in page.changes {
            match change.size {
                Some(_) => alive.insert(change.key, change.version),
                None => alive.remove(&change.key),
            };
        }
        from = page.next;
    }
    assert_eq!(alive.len(), 50);
}

pub(crate) async fn a_revision_that_never_was_starts_the_list_over(database: &TestDatabase) {
    let data = data(database).await;
    assert!(changes(&data, 7, 7, 10).await.reset);
    write(&data, 1, &[put(1, 0, b"a")]).await;
    let page = changes(&data, 7, 7, 10).await;
    assert_eq!((page.reset, listed(&page)), (true, vec![(key(1), 1, Some(1))]));
}

pub(crate) async fn keys_and_bytes_are_limited(database: &TestDatabase) {
    let data = data(database).await;
    let limits = DataLimits {
        keys: 3,
        total_bytes: 10,
    };
    let write = async |writes: &[DataWrite]| data.write(&by(1), writes, limits).await.unwrap();
    assert_eq!(write(&[put(1, 0, b"1234"), put(2, 0, b"123456")]).await, at([1, 2]));
    assert_eq!(write(&[put(3, 0, b"1")]).await, Written::QuotaExceeded);
    assert_eq!(write(&[put(1, 1, b"12345")]).await, Written::QuotaExceeded);
    // Room that the same batch makes counts, whatever the order.
    assert_eq!(write(&[put(3, 0, b"123"), put(1, 1, b"1")]).await, at([3, 4]));
    assert_eq!(write(&[delete(2, 2)]).await, at([5]));
    assert_eq!(write(&[put(4, 0, b"1"), put(5, 0, b"1")]).await, Written::QuotaExceeded);
    assert_eq!(write(&[put(4, 0, b"1")]).await, at([6]));
    // Under limits that were lowered one may still delete.
    let lower = DataLimits {
        keys: 1,
        total_bytes: 1,
    };
    assert_eq!(data.write(&by(1), &[delete(4, 6)], lower).await.unwrap(), at([7]));
    assert_eq!(
        data.write(&by(1), &[put(1, 4, b"2")], lower).await.unwrap(),
        Written::QuotaExceeded
    );
}

pub(crate) async fn of_many_writers_one_wins_each_version(database: &TestDatabase) {
    let data = data(database).await;
    write(&data, 1, &[put(1, 0, b"0")]).await;
    let mut tasks = Vec::new();
    for writer in 0..20_u8 {
        let data = database.another().await.account_data;
        tasks.push(tokio::spawn(async move {
            let mut won = Vec::new();
            for _ in 0..5 {
                let (version, _) = value(&data, 1, 1).await.unwrap();
                match write(&data, 1, &[put(1, version, &[writer])]).await {
                    Written::At(versions) => won.push((version, versions[0])),
                    Written::Conflicts(now) => assert!(now[0].1.0 > version),
                    other => panic!("{other:?}"),
                }
            }
            won
        }));
    }
    let mut wins = BTreeMap::new();
    for task in tasks {
        for (replaced, version) in task.await.unwrap() {
            assert!(
                wins.insert(replaced, version).is_none(),
                "{replaced} was replaced twice"
            );
        }
    }
    // Each replaced the one before, from the first to the last.
    let mut version = 1;
    while let Some(next) = wins.remove(&version) {
        assert_eq!(next, Revision(version + 1));
        version = next.0;
    }
    assert!(wins.is_empty());
    assert_eq!(value(&data, 1, 1).await.unwrap().0, version);
}

pub(crate) async fn many_writers_do_not_exceed_the_limits_together(database: &TestDatabase) {
    data(database).await;
    let limits = DataLimits {
        keys: 7,
        total_bytes: 1_000,
    };
    let mut tasks = Vec::new();
    for n in 0..20 {
        let data = database.another().await.account_data;
        tasks.push(tokio::spawn(async move {
            data.write(&by(1), &[put(n, 0, &[0; 200])], limits).await.unwrap()
        }));
    }
    let mut written = 0;
    for task in tasks {
        match task.await.unwrap() {
            Written::At(_) => written += 1,
            refused => assert_eq!(refused, Written::QuotaExceeded),
        }
    }
    assert_eq!(written, 5);
    assert_eq!(database.number("SELECT count(*) FROM account_data").await, 5);
    assert_eq!(
        database.number("SELECT bytes FROM account_data_counters").await,
        database.number("SELECT sum(length(value)) FROM account_data").await
    );
}

pub(crate) async fn entries_go_with_their_account(database: &TestDatabase) {
    let data = data(database).await;
    write(&data, 1, &[put(1, 0, b"a"), put(2, 0, b"b")]).await;
    write(&data, 1, &[delete(1, 1)]).await;
    let accounts = database.storage().accounts;
    // Registering again is no new account: the owner's keys open it all.
    register(database, 1, 1003).await;
    assert_eq!(value(&data, 1, 2).await, Some((2, b"b".to_vec())));
    accounts.delete(&actor(1, 1003)).await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM account_data").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM account_data_counters").await, 0);
    assert_eq!(write(&data, 1, &[put(1, 0, b"a")]).await, Written::UnknownAccount);
}

pub(crate) async fn an_account_that_goes_meanwhile_leaves_no_entries(database: &TestDatabase) {
    for round in 0..10_i64 {
        register(database, 1, 2000 + round).await;
        let by = actor(1, 2000 + round);
        let (writer, deleter) = (database.another().await.account_data, database.another().await.accounts);
        let writing = tokio::spawn(async move {
            for n in 0..20 {
                match writer.write(&by, &[put(n, 0, b"x")], ROOM).await.unwrap() {
                    Written::At(_) => {}
                    refused => return assert_eq!(refused, Written::UnknownAccount),
                }
            }
        });
        deleter.delete(&by).await.unwrap();
        writing.await.unwrap();
        assert_eq!(database.number("SELECT count(*) FROM account_data").await, 0);
    }
}

pub(crate) async fn a_replaced_device_writes_no_entry(database: &TestDatabase) {
    let data = data(database).await;
    write(&data, 1, &[put(1, 0, b"a")]).await;
    register(database, 1, 1003).await;
    for late in [put(1, 1, b"b"), delete(1, 1), put(2, 0, b"b")] {
        assert_eq!(write(&data, 1, &[late]).await, Written::UnknownAccount);
    }
    assert_eq!(value(&data, 1, 1).await, Some((1, b"a".to_vec())));
    assert_eq!(value(&data, 1, 2).await, None);
}
