//! What every token store promises.

use std::sync::Arc;

use super::fixtures::{aci, actor, add_second_device, linked_actor, queue_key, register};
use crate::domain::{
    Actor, Day, MailboxId, NewCredential, NewTokenSession, QueueLimits, RefreshHash, Rekey, Rotated, Rotation, Sealed,
    SecretVerifier, Timestamp, TokenKey, TokenSessionId,
};
use crate::storage::testing::{ROOMY, TestDatabase};
use crate::storage::tokens::{SESSIONS_PER_DEVICE, TokenStore};

pub(crate) const LIMITS: QueueLimits = ROOMY;

const TODAY: Day = Day(20_000);

fn tokens(database: &TestDatabase) -> Arc<dyn TokenStore> {
    database.storage().tokens
}

/// Session `n` of a device of account 1, until day 20 008.
fn session(n: u8) -> NewTokenSession {
    NewTokenSession {
        id: TokenSessionId([n; 16]),
        refresh: RefreshHash([n; 32]),
        salt: [1; 16],
        created: TODAY,
        expires: TODAY.plus(8),
    }
}

/// From refresh token `shown` to `next` of session 1.
fn rotation(shown: u8, next: u8) -> Rotation {
    Rotation {
        id: TokenSessionId([1; 16]),
        mailbox: MailboxId(1001),
        shown: RefreshHash([shown; 32]),
        next: RefreshHash([next; 32]),
        today: TODAY,
        expires: TODAY.plus(9),
    }
}

async fn open(database: &TestDatabase, n: u8, by: &Actor) -> Option<Vec<TokenSessionId>> {
    tokens(database).open(&session(n), by).await.unwrap()
}

/// Account 1 with its primary, and session 1.
async fn opened(database: &TestDatabase) -> Actor {
    register(database, 1, 1001).await;
    let by = actor(1, 1001);
    assert_eq!(open(database, 1, &by).await, Some(vec![]));
    by
}

async fn count(database: &TestDatabase) -> i64 {
    database.number("SELECT count(*) FROM token_sessions").await
}

pub(crate) async fn a_session_is_found_until_its_day(database: &TestDatabase) {
    opened(database).await;
    let (tokens, id) = (tokens(database), TokenSessionId([1; 16]));
    assert_eq!(tokens.find(id, Day(20_007)).await.unwrap(), Some(MailboxId(1001)));
    assert_eq!(tokens.find(id, Day(20_008)).await.unwrap(), None);
    assert_eq!(tokens.find(TokenSessionId([2; 16]), TODAY).await.unwrap(), None);
    let asked = [TokenSessionId([2; 16]), id, TokenSessionId([3; 16])];
    assert_eq!(tokens.alive(&asked, TODAY).await.unwrap(), [id]);
    assert_eq!(tokens.alive(&asked, Day(20_008)).await.unwrap(), []);
    assert_eq!(tokens.alive(&[], TODAY).await.unwrap(), []);
}

pub(crate) async fn only_the_device_that_is_there_with_its_password_opens_a_session(database: &TestDatabase) {
    register(database, 1, 1001).await;
    for nobody in [actor(1, 1009), actor(9, 1001)] {
        assert_eq!(open(database, 1, &nobody).await, None);
    }
    let other_password = NewTokenSession {
        salt: [9; 16],
        ..session(1)
    };
    let opened = tokens(database).open(&other_password, &actor(1, 1001)).await.unwrap();
    assert_eq!((opened, count(database).await), (None, 0));
}

pub(crate) async fn a_device_has_few_sessions_and_those_that_last_longest_stay(database: &TestDatabase) {
    let by = opened(database).await;
    let most = u8::try_from(SESSIONS_PER_DEVICE).unwrap();
    for n in 2..=most {
        let longer = NewTokenSession {
            expires: TODAY.plus(8 + i32::from(n)),
            ..session(n)
        };
        assert_eq!(tokens(database).open(&longer, &by).await.unwrap(), Some(vec![]));
    }
    // The new one stays, however short it is.
    for n in [100, 101] {
        let oldest = if n == 100 { 1 } else { 100 };
        assert_eq!(open(database, n, &by).await, Some(vec![TokenSessionId([oldest; 16])]));
        assert_eq!(count(database).await, i64::from(SESSIONS_PER_DEVICE));
    }
    // Other devices have room of their own.
    add_second_device(database).await;
    let second = NewTokenSession {
        salt: second_salt(database).await,
        ..session(110)
    };
    let opened = tokens(database).open(&second, &linked_actor(1, 2, 1002)).await;
    assert_eq!(opened.unwrap(), Some(vec![]));
}

/// Of device 2 of account 1.
async fn second_salt(database: &TestDatabase) -> [u8; 16] {
    let account = database.storage().accounts.find(&aci(1).into()).await.unwrap().unwrap();
    account.devices[1].credential.salt
}

pub(crate) async fn t04_a_refresh_token_is_taken_once_and_its_second_use_ends_the_session(database: &TestDatabase) {
    opened(database).await;
    let tokens = tokens(database);
    assert_eq!(tokens.rotate(&rotation(1, 2)).await.unwrap(), Rotated::Done);
    assert_eq!(
        tokens.find(TokenSessionId([1; 16]), Day(20_008)).await.unwrap(),
        Some(MailboxId(1001)),
        "it lasts longer"
    );
    assert_eq!(tokens.rotate(&rotation(2, 3)).await.unwrap(), Rotated::Done);
    assert_eq!(tokens.rotate(&rotation(1, 4)).await.unwrap(), Rotated::Reused);
    assert_eq!(tokens.rotate(&rotation(3, 5)).await.unwrap(), Rotated::Gone);
    assert_eq!(count(database).await, 0);
}

pub(crate) async fn who_asks_again_in_the_same_words_is_no_thief(database: &TestDatabase) {
    opened(database).await;
    let tokens = tokens(database);
    assert_eq!(tokens.rotate(&rotation(1, 2)).await.unwrap(), Rotated::Done);
    let later = Rotation {
        expires: TODAY.plus(10),
        ..rotation(1, 2)
    };
    for _ in 0..2 {
        assert_eq!(tokens.rotate(&later).await.unwrap(), Rotated::Again(TODAY.plus(9)));
    }
    assert_eq!(tokens.rotate(&rotation(2, 3)).await.unwrap(), Rotated::Done);
    assert_eq!(
        tokens.rotate(&rotation(1, 2)).await.unwrap(),
        Rotated::Reused,
        "that was two tokens ago"
    );
}

pub(crate) async fn what_is_over_or_anothers_is_not_rotated(database: &TestDatabase) {
    opened(database).await;
    let tokens = tokens(database);
    for nothing in [
        Rotation {
            id: TokenSessionId([2; 16]),
            ..rotation(1, 2)
        },
        Rotation {
            mailbox: MailboxId(1002),
            ..rotation(1, 2)
        },
        Rotation {
            today: Day(20_008),
            ..rotation(1, 2)
        },
    ] {
        assert_eq!(tokens.rotate(&nothing).await.unwrap(), Rotated::Gone);
    }
    assert_eq!(tokens.rotate(&rotation(1, 2)).await.unwrap(), Rotated::Done);
}

pub(crate) async fn t05_of_many_at_once_one_rotates_and_the_rest_end_the_session(database: &TestDatabase) {
    for same_words in [false, true] {
        register(database, 1, 1001).await;
        let _ = tokens(database).end(TokenSessionId([1; 16])).await.unwrap();
        assert_eq!(open(database, 1, &actor(1, 1001)).await, Some(vec![]));
        let mut asking = Vec::new();
        for n in 0..20 {
            let tokens = database.another().await.tokens;
            let rotation = rotation(1, if same_words { 100 } else { 100 + n });
            asking.push(tokio::spawn(async move { tokens.rotate(&rotation).await.unwrap() }));
        }
        let mut outcomes = Vec::new();
        for asked in asking {
            outcomes.push(asked.await.unwrap());
        }
        let of = |wanted: Rotated| outcomes.iter().filter(|outcome| **outcome == wanted).count();
        assert_eq!(of(Rotated::Done), 1, "{outcomes:?}");
        if same_words {
            assert_eq!(of(Rotated::Again(TODAY.plus(9))), 19, "{outcomes:?}");
            assert_eq!(count(database).await, 1);
        } else {
            assert_eq!((of(Rotated::Reused), of(Rotated::Gone)), (1, 18), "{outcomes:?}");
            assert_eq!(count(database).await, 0);
        }
    }
}

pub(crate) async fn a_primary_sees_and_ends_the_sessions_of_its_account_and_others_their_own(database: &TestDatabase) {
    let primary = opened(database).await;
    add_second_device(database).await;
    register(database, 2, 2001).await;
    let second = linked_actor(1, 2, 1002);
    let own = NewTokenSession {
        salt: second_salt(database).await,
        ..session(2)
    };
    let tokens = tokens(database);
    tokens.open(&own, &second).await.unwrap().unwrap();
    let strangers = NewTokenSession {
        salt: [2; 16],
        ..session(3)
    };
    let stranger = actor(2, 2001);
    tokens.open(&strangers, &stranger).await.unwrap().unwrap();
    let list = async |by: &Actor, today| {
        let sessions = tokens.sessions(by, today).await.unwrap();
        let seen = |session: &crate::domain::TokenSession| (session.device.get(), session.id.0[0]);
        sessions.iter().map(seen).collect::<Vec<_>>()
    };
    assert_eq!(list(&primary, TODAY).await, [(1, 1), (2, 2)]);
    assert_eq!(list(&second, TODAY).await, [(2, 2)]);
    assert_eq!(list(&stranger, TODAY).await, [(1, 3)]);
    assert_eq!(list(&actor(1, 1009), TODAY).await, []);
    assert_eq!(list(&primary, Day(20_008)).await, []);

    let id = |n| TokenSessionId([n; 16]);
    assert_eq!(tokens.revoke(&second, Some(id(1))).await.unwrap(), []);
    assert_eq!(tokens.revoke(&stranger, Some(id(1))).await.unwrap(), []);
    assert_eq!(tokens.revoke(&actor(1, 1009), None).await.unwrap(), []);
    assert_eq!(tokens.revoke(&primary, Some(id(2))).await.unwrap(), [id(2)]);
    assert_eq!(tokens.revoke(&primary, Some(id(2))).await.unwrap(), []);
    assert_eq!(tokens.revoke(&primary, None).await.unwrap(), [id(1)]);
    assert_eq!(list(&stranger, TODAY).await, [(1, 3)]);
    assert!(tokens.end(id(3)).await.unwrap() && !tokens.end(id(3)).await.unwrap());
}

pub(crate) async fn t08_sessions_go_with_their_device_its_account_and_its_password(database: &TestDatabase) {
    let by = opened(database).await;
    add_second_device(database).await;
    let own = NewTokenSession {
        salt: second_salt(database).await,
        ..session(2)
    };
    tokens(database)
        .open(&own, &linked_actor(1, 2, 1002))
        .await
        .unwrap()
        .unwrap();
    let storage = database.storage();
    let device = crate::domain::DeviceId::new(2).unwrap();
    storage.devices.remove(device, &by).await.unwrap();
    assert_eq!(count(database).await, 1);

    let rekey = |from, to, credential| Rekey {
        from: queue_key(MailboxId(from)),
        to: queue_key(MailboxId(to)),
        reseal: &|_| None,
        credential,
    };
    assert!(storage.queue.rekey(&by, &rekey(1001, 7, None)).await.unwrap());
    assert_eq!(count(database).await, 1, "the password is the same");
    let password = NewCredential {
        verifier: SecretVerifier {
            salt: [9; 16],
            hash: [9; 32],
        },
        sealed_number: Sealed(vec![9; 50]),
    };
    assert!(storage.queue.rekey(&by, &rekey(7, 8, Some(password))).await.unwrap());
    assert_eq!(count(database).await, 0);

    for again in [false, true] {
        let opening = NewTokenSession {
            salt: if again { [1; 16] } else { [9; 16] },
            ..session(3)
        };
        let by = actor(1, if again { 1005 } else { 1001 });
        tokens(database).open(&opening, &by).await.unwrap().unwrap();
        if again {
            assert_eq!(storage.accounts.delete(&by).await.unwrap().mailboxes.len(), 1);
        } else {
            register(database, 1, 1005).await;
        }
        assert_eq!(count(database).await, 0);
    }
}

pub(crate) async fn sessions_whose_day_has_come_are_dropped_and_counted(database: &TestDatabase) {
    let by = opened(database).await;
    let longer = NewTokenSession {
        expires: TODAY.plus(9),
        ..session(2)
    };
    tokens(database).open(&longer, &by).await.unwrap().unwrap();
    let tokens = tokens(database);
    assert_eq!(tokens.expire(Day(20_007)).await.unwrap(), 0);
    assert_eq!(tokens.expire(Day(20_008)).await.unwrap(), 1);
    assert_eq!(tokens.expire(Day(20_009)).await.unwrap(), 1);
}

fn key(n: u8, created: i64) -> TokenKey {
    TokenKey {
        public: [n; 32],
        sealed: Sealed(vec![n; 72]),
        created: Timestamp(created),
        until: None,
    }
}

async fn stored_keys(database: &TestDatabase, now: i64) -> Vec<(u8, Option<i64>)> {
    let keys = tokens(database).keys(Timestamp(now)).await.unwrap();
    let seen = |key: &TokenKey| (key.public[0], key.until.map(|until| until.0));
    keys.iter().map(seen).collect()
}

pub(crate) async fn there_is_one_first_key_however_many_make_one(database: &TestDatabase) {
    let mut making = Vec::new();
    for n in 1..=8 {
        let tokens = database.another().await.tokens;
        making.push(tokio::spawn(async move { tokens.first_key(&key(n, 1)).await.unwrap() }));
    }
    for made in making {
        made.await.unwrap();
    }
    let stored = tokens(database).keys(Timestamp(0)).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].sealed, Sealed(vec![stored[0].public[0]; 72]));
    assert_eq!(stored[0].created, Timestamp(1));
}

pub(crate) async fn t74_another_key_signs_and_the_others_stay_for_a_while_or_not_at_all(database: &TestDatabase) {
    let tokens = tokens(database);
    tokens.first_key(&key(1, 10)).await.unwrap();
    tokens.rotate_key(&key(2, 20), Some(Timestamp(100))).await.unwrap();
    assert_eq!(stored_keys(database, 99).await, [(2, None), (1, Some(100))]);
    assert_eq!(stored_keys(database, 100).await, [(2, None)]);
    tokens.rotate_key(&key(3, 30), Some(Timestamp(200))).await.unwrap();
    assert_eq!(
        stored_keys(database, 50).await,
        [(3, None), (2, Some(200)), (1, Some(100))],
        "a key that goes already goes no later"
    );
    tokens.first_key(&key(9, 35)).await.unwrap();
    assert_eq!(tokens.expire_keys(Timestamp(100)).await.unwrap(), 1);
    assert_eq!(stored_keys(database, 50).await, [(3, None), (2, Some(200))]);
    tokens.rotate_key(&key(4, 40), None).await.unwrap();
    assert_eq!(stored_keys(database, 50).await, [(4, None)]);
}
