//! What every store of invites promises.

use std::sync::Arc;

use uuid::Uuid;

use super::admin::record;
use super::sessions::{NOW, session};
use crate::domain::{
    AdminAct, Day, Invite, InviteHash, InviteId, MAX_ATTEMPTS, QueueLimits, Registered, Registration, SessionKey,
    Timestamp,
};
use crate::storage::InviteStore;
use crate::storage::testing::{ROOMY, TestDatabase};

use super::fixtures::registration;

pub(crate) const LIMITS: QueueLimits = ROOMY;

const TODAY: Day = Day(0);

fn invites(database: &TestDatabase) -> Arc<dyn InviteStore> {
    database.storage().invites
}

fn invite(n: u8, uses_left: u32) -> Invite {
    Invite {
        id: InviteId(Uuid::from_bytes([n; 16])),
        uses_left,
        recovers: false,
        expires: TODAY.plus(7),
        created: TODAY,
    }
}

fn code(n: u8) -> InviteHash {
    InviteHash([n; 32])
}

/// Keeps an invite, as an operator does.
async fn create(database: &TestDatabase, code: &InviteHash, invite: &Invite) -> bool {
    let admin = database.storage().admin;
    let kept = admin
        .create_invite(code, invite, &record(AdminAct::InviteCreate, 1))
        .await;
    kept.unwrap()
}

async fn open(database: &TestDatabase, n: u8) -> SessionKey {
    let opened = session(n, 1_000);
    database.storage().accounts.open_session(&opened).await.unwrap();
    opened.key
}

pub(crate) async fn an_invite_is_listed_until_it_is_revoked_or_over(database: &TestDatabase) {
    let invites = invites(database);
    let older = Invite {
        recovers: true,
        created: TODAY.plus(-1),
        expires: TODAY,
        ..invite(9, 1)
    };
    let newer = invite(1, 3);
    for (hash, invite) in [(code(1), &newer), (code(9), &older)] {
        assert!(create(database, &hash, invite).await);
    }
    assert_eq!(invites.list(TODAY).await.unwrap(), [older.clone(), newer.clone()]);
    assert_eq!(invites.list(TODAY.plus(1)).await.unwrap(), std::slice::from_ref(&newer));
    let revoke = record(AdminAct::InviteRevoke, 1);
    let revoked = database.storage().admin.revoke_invite(&newer.id, &revoke).await;
    assert!(revoked.unwrap());
    assert_eq!(invites.list(TODAY).await.unwrap(), [older]);
    assert_eq!(invites.expire(TODAY).await.unwrap(), 0, "it is good for the whole day");
    assert_eq!(invites.expire(TODAY.plus(1)).await.unwrap(), 1);
    assert_eq!(database.number("SELECT count(*) FROM invites").await, 0);
}

pub(crate) async fn the_code_of_an_invite_verifies_a_session_and_uses_it_up(database: &TestDatabase) {
    let invites = invites(database);
    assert!(create(database, &code(1), &invite(1, 2)).await);
    let recovering = Invite {
        recovers: true,
        ..invite(2, 1)
    };
    assert!(create(database, &code(2), &recovering).await);
    for (n, with, new_only) in [(1, code(1), true), (2, code(2), false), (3, code(1), true)] {
        let key = open(database, n).await;
        let wrong = invites.verify(&key, &code(7), NOW).await.unwrap().unwrap();
        assert!(wrong.counted && !wrong.session.verified);
        let right = invites.verify(&key, &with, NOW).await.unwrap().unwrap();
        assert!(right.counted && right.session.verified);
        assert_eq!((right.session.new_only, right.session.attempts), (new_only, 2));
        let again = invites.verify(&key, &with, NOW).await.unwrap().unwrap();
        assert!(!again.counted && again.session.verified, "once is enough");
    }
    assert_eq!(database.number("SELECT count(*) FROM invites").await, 0);
    let late = open(database, 4).await;
    let refused = invites.verify(&late, &code(1), NOW).await.unwrap().unwrap();
    assert!(!refused.session.verified, "it is used up");
}

pub(crate) async fn an_invite_verifies_only_what_is_open(database: &TestDatabase) {
    let invites = invites(database);
    assert!(create(database, &code(1), &invite(1, 1)).await);
    assert!(
        invites
            .verify(&SessionKey([9; 32]), &code(1), NOW)
            .await
            .unwrap()
            .is_none()
    );
    let key = open(database, 1).await;
    assert!(
        invites
            .verify(&key, &code(1), Timestamp(1_000))
            .await
            .unwrap()
            .is_none()
    );
    for _ in 0..MAX_ATTEMPTS {
        assert!(invites.verify(&key, &code(7), NOW).await.unwrap().unwrap().counted);
    }
    let locked = invites.verify(&key, &code(1), NOW).await.unwrap().unwrap();
    assert!(!locked.counted && !locked.session.verified && locked.session.attempts == MAX_ATTEMPTS);
    assert_eq!(invites.list(TODAY).await.unwrap(), [invite(1, 1)], "nobody has used it");
    let over = Invite {
        expires: TODAY.plus(-1),
        ..invite(2, 1)
    };
    assert!(create(database, &code(2), &over).await);
    let key = open(database, 2).await;
    let late = invites.verify(&key, &code(2), NOW).await.unwrap().unwrap();
    assert!(!late.session.verified, "its last day has passed");
}

pub(crate) async fn an_invite_for_so_many_verifies_so_many_under_concurrency(database: &TestDatabase) {
    const USES: usize = 5;
    assert!(create(database, &code(1), &invite(1, 5)).await);
    let nodes = [
        database.another().await,
        database.another().await,
        database.another().await,
    ];
    let mut tries = Vec::new();
    for n in 0..20_u8 {
        let key = open(database, n).await;
        // Twice each: a session uses it up once.
        for at in 0..2 {
            let invites = Arc::clone(&nodes[usize::from(n + at) % nodes.len()].invites);
            tries.push(tokio::spawn(async move {
                invites.verify(&key, &code(1), NOW).await.unwrap().unwrap()
            }));
        }
    }
    for tried in tries {
        tried.await.unwrap();
    }
    let verified = database
        .number("SELECT count(*) FROM verification_sessions WHERE verified")
        .await;
    assert_eq!(verified, i64::try_from(USES).unwrap());
    assert_eq!(database.number("SELECT count(*) FROM invites").await, 0);
}

pub(crate) async fn a_session_that_tries_one_code_many_times_at_once_uses_it_up_once(database: &TestDatabase) {
    assert!(create(database, &code(1), &invite(1, 10)).await);
    let key = open(database, 1).await;
    let nodes = [database.another().await, database.another().await];
    let mut tries = Vec::new();
    for at in 0..16 {
        let invites = Arc::clone(&nodes[at % nodes.len()].invites);
        tries.push(tokio::spawn(async move {
            invites.verify(&key, &code(1), NOW).await.unwrap().unwrap().counted
        }));
    }
    let mut counted = 0;
    for tried in tries {
        counted += i32::from(tried.await.unwrap());
    }
    assert_eq!(counted, 1);
    assert_eq!(invites(database).list(TODAY).await.unwrap(), [invite(1, 9)]);
}

pub(crate) async fn there_are_only_so_many_invites(database: &TestDatabase) {
    database
        .execute_either(
            "INSERT INTO invites (id, code_hash, uses_left, recovers, expires, created) \
            WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000) \
            SELECT CAST(substr(printf('%016d', n), 1, 16) AS BLOB), CAST(printf('%032d', n) AS BLOB), 1, 0, 7, 0 FROM n",
            "INSERT INTO invites (id, code_hash, uses_left, recovers, expires, created) \
            SELECT gen_random_uuid(), sha256(n::text::bytea), 1, FALSE, 7, 0 FROM generate_series(1, 10000) AS n",
        )
        .await;
    assert!(!create(database, &code(1), &invite(1, 1)).await);
    assert_eq!(invites(database).list(TODAY).await.unwrap().len(), 10_000);
}

pub(crate) async fn a_session_that_an_invite_verified_registers(database: &TestDatabase) {
    assert!(create(database, &code(1), &invite(1, 1)).await);
    let key = open(database, 1).await;
    invites(database).verify(&key, &code(1), NOW).await.unwrap();
    let registration = Registration {
        session: Some(key),
        ..registration(1, 1001)
    };
    let registered = database.storage().accounts.register(&registration, NOW).await.unwrap();
    assert_eq!(registered, Registered::New);
}
