//! What every account store promises about verification sessions, and about the registrations that use them up.

use super::accounts::{accounts, find};
use super::fixtures::{register, registration, start_over};
use crate::domain::{
    MailboxId, NumberHash, QueueLimits, Registered, Registration, Sealed, SessionKey, Timestamp, VerificationSession,
};
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

const NOW: Timestamp = Timestamp(1);

fn session(n: u8, expires: i64) -> VerificationSession {
    VerificationSession {
        key: SessionKey([n; 32]),
        number: NumberHash([n; 32]),
        sealed_number: Sealed(vec![n; 40]),
        verified: false,
        attempts: 0,
        expires: Timestamp(expires),
    }
}

pub(crate) async fn a_session_is_found_until_it_expires(database: &TestDatabase) {
    let accounts = accounts(database);
    let opened = session(1, 1_000);
    accounts.open_session(&opened).await.unwrap();
    let found = accounts
        .find_session(&opened.key, Timestamp(999))
        .await
        .unwrap()
        .unwrap();
    assert!(found.key == opened.key && found.number == opened.number && found.sealed_number == opened.sealed_number);
    assert_eq!(
        (found.verified, found.attempts, found.expires),
        (false, 0, Timestamp(1_000))
    );
    assert!(
        accounts
            .find_session(&opened.key, Timestamp(1_000))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        accounts
            .find_session(&SessionKey([2; 32]), Timestamp(0))
            .await
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn tries_are_counted_under_concurrency(database: &TestDatabase) {
    accounts(database).open_session(&session(1, 1_000)).await.unwrap();
    let mut tries = Vec::new();
    for _ in 0..16 {
        let accounts = database.another().await.accounts;
        tries.push(tokio::spawn(async move {
            let tried = accounts
                .try_session(&SessionKey([1; 32]), false, Timestamp(1))
                .await
                .unwrap();
            tried.unwrap().attempts
        }));
    }
    let mut seen = Vec::new();
    for tried in tries {
        seen.push(tried.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=16).collect::<Vec<u16>>());
    let late = accounts(database)
        .try_session(&SessionKey([1; 32]), true, Timestamp(1))
        .await
        .unwrap();
    assert!(!late.unwrap().verified, "the right code, but after too many wrong ones");
    assert!(
        accounts(database)
            .try_session(&SessionKey([1; 32]), true, Timestamp(1_000))
            .await
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn verified_once_is_verified(database: &TestDatabase) {
    let accounts = accounts(database);
    accounts.open_session(&session(1, 1_000)).await.unwrap();
    for (right, verified) in [(false, false), (true, true), (false, true)] {
        let tried = accounts
            .try_session(&SessionKey([1; 32]), right, Timestamp(1))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tried.verified, verified);
    }
    let found = accounts
        .find_session(&SessionKey([1; 32]), Timestamp(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.verified, found.attempts), (true, 3));
}

/// A verified session for number 1, and the registration that it proves.
async fn proven(database: &TestDatabase, mailbox: i64) -> Registration {
    let opened = session(1, 1_000);
    accounts(database).open_session(&opened).await.unwrap();
    let tried = accounts(database).try_session(&opened.key, true, NOW).await.unwrap();
    assert!(tried.unwrap().verified);
    Registration {
        session: Some(opened.key),
        ..registration(1, mailbox)
    }
}

pub(crate) async fn a_registration_uses_its_session_up(database: &TestDatabase) {
    let accounts = accounts(database);
    let registration = proven(database, 1001).await;
    assert_eq!(accounts.register(&registration, NOW).await.unwrap(), Registered::New);
    let key = SessionKey([1; 32]);
    assert!(accounts.find_session(&key, NOW).await.unwrap().is_none());
    assert!(accounts.try_session(&key, true, NOW).await.unwrap().is_none());
    let again = Registration {
        replaces: find(database, 1).await.unwrap().checked(),
        device: registration.device.clone(),
        ..registration
    };
    assert_eq!(accounts.register(&again, NOW).await.unwrap(), Registered::NotVerified);
    assert_eq!(find(database, 1).await.unwrap().devices[0].mailbox, MailboxId(1001));
}

pub(crate) async fn a_session_that_proves_nothing_registers_nobody(database: &TestDatabase) {
    let accounts = accounts(database);
    accounts.open_session(&session(2, 1_000)).await.unwrap();
    let verified = proven(database, 1001).await;
    let with = |key: u8, number: u8| Registration {
        session: Some(SessionKey([key; 32])),
        number: NumberHash([number; 32]),
        ..verified.clone()
    };
    // Unknown, not verified, for another number, expired.
    for (registration, now) in [
        (with(9, 1), NOW),
        (with(2, 2), NOW),
        (with(1, 2), NOW),
        (with(1, 1), Timestamp(1_000)),
    ] {
        assert_eq!(
            accounts.register(&registration, now).await.unwrap(),
            Registered::NotVerified
        );
    }
    assert_eq!(database.number("SELECT count(*) FROM accounts").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM verification_sessions").await, 2);
}

pub(crate) async fn a_registration_that_must_look_again_keeps_its_session(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let registration = proven(database, 1002).await;
    let accounts = accounts(database);
    assert_eq!(
        accounts.register(&registration, NOW).await.unwrap(),
        Registered::Changed
    );
    let registered = start_over(&*accounts, registration).await;
    assert!(matches!(registered, Registered::Again { .. }), "{registered:?}");
}

pub(crate) async fn one_session_registers_once_under_concurrency(database: &TestDatabase) {
    for again in [false, true] {
        let registration = proven(database, 0).await;
        let mut attempts = Vec::new();
        for n in 1..=8_i64 {
            let accounts = database.another().await.accounts;
            let mut registration = registration.clone();
            registration.device.mailbox = MailboxId(n + if again { 100 } else { 0 });
            attempts.push(tokio::spawn(async move { start_over(&*accounts, registration).await }));
        }
        let mut registered = 0;
        for attempt in attempts {
            match attempt.await.unwrap() {
                Registered::NotVerified => {}
                Registered::New => registered += i32::from(!again),
                Registered::Again { .. } => registered += i32::from(again),
                Registered::Changed => panic!("it looks again"),
            }
        }
        assert_eq!(registered, 1);
        assert_eq!(database.number("SELECT count(*) FROM mailboxes").await, 1);
    }
}

pub(crate) async fn expired_sessions_are_dropped_and_counted(database: &TestDatabase) {
    let accounts = accounts(database);
    for n in 1..=5 {
        accounts.open_session(&session(n, i64::from(n) * 10)).await.unwrap();
    }
    assert_eq!(accounts.expire_sessions(Timestamp(30)).await.unwrap(), 3);
    assert_eq!(accounts.expire_sessions(Timestamp(30)).await.unwrap(), 0);
    assert!(
        accounts
            .find_session(&SessionKey([4; 32]), Timestamp(30))
            .await
            .unwrap()
            .is_some()
    );
}
