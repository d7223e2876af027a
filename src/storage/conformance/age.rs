//! What every store promises of a database's age.

use super::fixtures::{actor, claim, ec_key, kyber_key, offer, register, sealed_copy, take_alone};
use crate::domain::{
    Age, Batch, DataKey, DataLimits, DataWrite, Day, Delivery, Enqueued, IdentityKind, Invalidated, KeyUpload,
    MailboxId, NewTokenSession, NumberHash, PageLimit, Published, QueueLimits, RefreshHash, Restored, Revision, Sealed,
    Seq, SessionKey, Timestamp, TokenSessionId, VerificationSession, Written,
};
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

const TODAY: Day = Day(20_000);
const ACI: IdentityKind = IdentityKind::Aci;

fn keys() -> KeyUpload {
    KeyUpload {
        one_time: (1..=5).map(ec_key).collect(),
        one_time_kyber: (1..=3).map(|id| kyber_key(id, id)).collect(),
        ..KeyUpload::default()
    }
}

/// An account with something of everything that becomes invalid.
async fn fill(database: &TestDatabase) {
    let storage = database.storage();
    register(database, 1, 1001).await;
    let by = actor(1, 1001);
    assert_eq!(
        storage.keys.publish(&by, ACI, &keys()).await.unwrap(),
        Published::Done(0)
    );
    assert!(storage.devices.offer(&offer(1, 1_000), &by).await.unwrap());
    let session = NewTokenSession {
        id: TokenSessionId([1; 16]),
        refresh: RefreshHash([1; 32]),
        salt: [1; 16],
        created: TODAY,
        expires: TODAY.plus(8),
    };
    storage.tokens.open(&session, &by).await.unwrap().unwrap();
    let session = VerificationSession {
        key: SessionKey([1; 32]),
        number: NumberHash([1; 32]),
        sealed_number: Sealed(vec![1; 40]),
        verified: true,
        new_only: false,
        attempts: 0,
        codes_sent: 0,
        has_code: false,
        next_code: None,
        worked: false,
        expires: Timestamp(1_000),
    };
    storage.accounts.open_session(&session).await.unwrap();
}

pub(crate) async fn a_database_counts_looks_at_it(database: &TestDatabase) {
    let ages = database.storage().ages;
    let first = ages.advance(None, false, TODAY).await.unwrap();
    assert_eq!((first.restored, first.age.epoch, first.age.generation), (None, 0, 1));
    for look in 2..5 {
        let aged = database.another().await.ages;
        let aged = aged.advance(Some(&first.age), false, TODAY).await.unwrap();
        assert_eq!((aged.restored, aged.age.epoch, aged.age.generation), (None, 0, look));
        assert_eq!(aged.age.database, first.age.database);
        assert_eq!(aged.invalidated, Invalidated::default());
    }
}

pub(crate) async fn t19_all_that_is_used_once_is_invalid_in_a_database_that_was_put_back(database: &TestDatabase) {
    fill(database).await;
    let storage = database.storage();
    let age = storage.ages.advance(None, false, TODAY).await.unwrap().age;
    assert_eq!(storage.keys.count(actor(1, 1001).address, ACI).await.unwrap().ec, 5);
    let ahead = Age { generation: 77, ..age };
    let aged = storage.ages.advance(Some(&ahead), false, TODAY).await.unwrap();
    assert_eq!(aged.restored, Some(Restored::Behind));
    assert_eq!((aged.age.epoch, aged.age.generation), (1, 78));
    let all = Invalidated {
        keys: 8,
        tokens: 1,
        sessions: 1,
        offers: 1,
        invites: 0,
    };
    assert_eq!(aged.invalidated, all);
    let left = storage.keys.count(actor(1, 1001).address, ACI).await.unwrap();
    assert_eq!((left.ec, left.kyber), (0, 0));
    // Senders go on, with the key that is handed out again and again.
    let taken = take_alone(&storage.keys, claim(1), TODAY).await.unwrap();
    assert!(taken.devices[0].one_time.is_none());
    // Once: what comes afterwards is good.
    let fresh = KeyUpload {
        one_time: vec![ec_key(100)],
        ..KeyUpload::default()
    };
    storage.keys.publish(&actor(1, 1001), ACI, &fresh).await.unwrap();
    let again = storage.ages.advance(Some(&ahead), false, TODAY).await.unwrap();
    assert_eq!((again.restored, again.age.epoch, again.age.generation), (None, 1, 79));
    assert_eq!(storage.keys.count(actor(1, 1001).address, ACI).await.unwrap().ec, 1);
    // The operator's word is enough.
    let told = storage.ages.advance(None, true, TODAY).await.unwrap();
    assert_eq!((told.restored, told.age.epoch), (Some(Restored::Told), 2));
    assert_eq!(told.invalidated.keys, 1);
}

pub(crate) async fn numbers_given_out_since_are_given_to_nothing_else(database: &TestDatabase) {
    fill(database).await;
    let storage = database.storage();
    let commit = async || {
        let delivery = Delivery {
            copies: vec![sealed_copy(MailboxId(1001), 1, b"x")],
            expires: Day(30_000),
            ..Delivery::default()
        };
        let batch = Batch {
            deliveries: vec![delivery],
            acknowledgements: vec![],
        };
        assert!(matches!(
            storage.queue.commit(&batch).await.unwrap()[0],
            Enqueued::At(_)
        ));
        storage.queue.heads(&[MailboxId(1001)]).await.unwrap()[0].last
    };
    let key = DataKey([1; 32]);
    let write = async |expected| {
        let write = DataWrite {
            key,
            expected: Revision(expected),
            value: Some(bytes::Bytes::from_static(b"kept")),
        };
        let room = DataLimits {
            keys: 10,
            total_bytes: 1_000,
        };
        storage
            .account_data
            .write(&actor(1, 1001), &[write], room)
            .await
            .unwrap()
    };
    assert_eq!(commit().await, Seq(1));
    assert_eq!(write(0).await, Written::At(vec![Revision(1)]));
    storage.ages.advance(None, true, TODAY).await.unwrap();
    // What waits is still there.
    let page = PageLimit {
        envelopes: 10,
        bytes: 100_000,
    };
    let waiting = storage.queue.pending(MailboxId(1001), Seq(0), page).await.unwrap();
    assert_eq!(waiting.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [Seq(1)]);
    assert_eq!(commit().await, Seq((1 << 32) + 2));
    assert_eq!(write(1).await, Written::At(vec![Revision((1 << 32) + 2)]));
    let whole = "SELECT count(*) FROM account_data_counters WHERE horizon = revision - 1";
    assert_eq!(database.number(whole).await, 1);
}

pub(crate) async fn t19_keys_of_a_database_that_was_put_back_cannot_be_uploaded_again(database: &TestDatabase) {
    fill(database).await;
    let storage = database.storage();
    storage.ages.advance(None, true, TODAY).await.unwrap();
    let by = actor(1, 1001);
    assert_eq!(
        storage.keys.publish(&by, ACI, &keys()).await.unwrap(),
        Published::Done(8)
    );
    let left = storage.keys.count(by.address, ACI).await.unwrap();
    assert_eq!((left.ec, left.kyber), (0, 0));
    let mut other = ec_key(50);
    other.id = ec_key(5).id;
    let other = KeyUpload {
        one_time: vec![other],
        ..KeyUpload::default()
    };
    assert_eq!(
        storage.keys.publish(&by, ACI, &other).await.unwrap(),
        Published::SpentId
    );
}

pub(crate) async fn t19_of_many_nodes_that_notice_it_one_makes_it_invalid(database: &TestDatabase) {
    fill(database).await;
    let first = database.storage().ages.advance(None, false, TODAY).await.unwrap().age;
    let mut looks = Vec::new();
    for node in 0..6_u64 {
        let ages = database.another().await.ages;
        looks.push(tokio::spawn(async move {
            // Each has seen it at another time.
            let seen = Age {
                generation: 50 + node * 10,
                ..first
            };
            ages.advance(Some(&seen), false, TODAY).await.unwrap()
        }));
    }
    let (mut noticed, mut invalidated) = (0, 0);
    for look in looks {
        let aged = look.await.unwrap();
        noticed += u32::from(aged.restored.is_some());
        invalidated += aged.invalidated.keys;
        assert_eq!(aged.age.epoch, 1);
    }
    assert_eq!((noticed, invalidated), (1, 8));
}

pub(crate) async fn a_database_from_before_there_were_marks_is_noticed_by_whoever_saw_one(database: &TestDatabase) {
    fill(database).await;
    let ages = database.storage().ages;
    let seen = Age {
        database: [9; 16],
        epoch: 4,
        generation: 2,
    };
    let aged = ages.advance(Some(&seen), false, TODAY).await.unwrap();
    assert_eq!(aged.restored, Some(Restored::Behind));
    let expected = Age {
        database: [9; 16],
        epoch: 5,
        generation: 3,
    };
    assert_eq!(aged.age, expected);
    // What was seen of another database says nothing.
    let other = Age {
        database: [8; 16],
        epoch: 99,
        generation: 99,
    };
    let aged = ages.advance(Some(&other), false, TODAY).await.unwrap();
    assert_eq!((aged.restored, aged.age.epoch), (None, 5));
}
