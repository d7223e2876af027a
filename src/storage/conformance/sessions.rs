//! What every account store promises about verification sessions, and about the registrations that use them up.

use super::accounts::{accounts, find};
use super::fixtures::{register, registration, start_over};
use crate::domain::{
    Attempt, CodeHash, Done, MAX_ATTEMPTS, MAX_CODES, MailboxId, NumberHash, QueueLimits, Registered, Registration,
    Sealed, SessionKey, Timestamp, VerificationSession,
};
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

pub(crate) const NOW: Timestamp = Timestamp(1);

pub(crate) fn session(n: u8, expires: i64) -> VerificationSession {
    VerificationSession {
        key: SessionKey([n; 32]),
        number: NumberHash([n; 32]),
        sealed_number: Sealed(vec![n; 40]),
        verified: false,
        new_only: false,
        attempts: 0,
        codes_sent: 0,
        has_code: false,
        next_code: None,
        worked: false,
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
    assert_eq!(
        (
            found.new_only,
            found.has_code,
            found.codes_sent,
            found.next_code,
            found.worked
        ),
        (false, false, 0, None, false)
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
                .try_session(&SessionKey([1; 32]), &Attempt::Judged(false), Timestamp(1))
                .await
                .unwrap();
            let tried = tried.unwrap();
            (tried.counted, tried.session.attempts)
        }));
    }
    let mut seen = Vec::new();
    for tried in tries {
        seen.push(tried.await.unwrap());
    }
    seen.sort_unstable();
    let counted: Vec<u16> = seen.iter().filter(|(counted, _)| *counted).map(|(_, at)| *at).collect();
    assert_eq!(counted, (1..=MAX_ATTEMPTS).collect::<Vec<u16>>());
    assert!(seen.iter().all(|(counted, at)| *counted || *at == MAX_ATTEMPTS));
    let late = accounts(database)
        .try_session(&SessionKey([1; 32]), &Attempt::Judged(true), Timestamp(1))
        .await
        .unwrap()
        .unwrap();
    assert!(
        !late.counted && !late.session.verified,
        "the right code, but after too many wrong ones"
    );
    assert!(
        accounts(database)
            .try_session(&SessionKey([1; 32]), &Attempt::Judged(true), Timestamp(1_000))
            .await
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn verified_once_is_verified(database: &TestDatabase) {
    let accounts = accounts(database);
    accounts.open_session(&session(1, 1_000)).await.unwrap();
    for (right, counted, verified) in [(false, true, false), (true, true, true), (false, false, true)] {
        let tried = accounts
            .try_session(&SessionKey([1; 32]), &Attempt::Judged(right), Timestamp(1))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((tried.counted, tried.session.verified), (counted, verified));
    }
    let found = accounts
        .find_session(&SessionKey([1; 32]), Timestamp(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.verified, found.attempts), (true, 2));
}

const CODE: CodeHash = CodeHash([8; 32]);
const KEY: SessionKey = SessionKey([1; 32]);

/// A session to which [`CODE`] was sent at [`NOW`], the next one from 60 on.
async fn asked(database: &TestDatabase) {
    let accounts = accounts(database);
    accounts.open_session(&session(1, 1_000)).await.unwrap();
    let sent = accounts
        .send_code(&KEY, &CODE, Timestamp(60), NOW)
        .await
        .unwrap()
        .unwrap();
    assert!(sent.counted && sent.session.has_code);
    assert_eq!(
        (sent.session.codes_sent, sent.session.next_code),
        (1, Some(Timestamp(60)))
    );
}

async fn try_code(database: &TestDatabase, code: CodeHash) -> Done {
    let tried = accounts(database).try_session(&KEY, &Attempt::Code(code), NOW).await;
    tried.unwrap().unwrap()
}

/// Codes that the database still has.
async fn codes(database: &TestDatabase) -> i64 {
    database
        .number("SELECT count(*) FROM verification_sessions WHERE code_hash IS NOT NULL")
        .await
}

pub(crate) async fn t03_the_right_code_is_right_once_under_concurrency(database: &TestDatabase) {
    asked(database).await;
    let nodes = [database.another().await, database.another().await];
    let mut tries = Vec::new();
    for at in 0..50 {
        let accounts = nodes[at % nodes.len()].accounts.clone();
        tries.push(tokio::spawn(async move {
            let tried = accounts
                .try_session(&KEY, &Attempt::Code(CODE), NOW)
                .await
                .unwrap()
                .unwrap();
            assert!(tried.session.verified);
            tried.counted
        }));
    }
    let mut counted = 0;
    for tried in tries {
        counted += i32::from(tried.await.unwrap());
    }
    assert_eq!(counted, 1);
    assert_eq!(codes(database).await, 0);
}

pub(crate) async fn t01_a_code_goes_with_the_last_try(database: &TestDatabase) {
    asked(database).await;
    for n in 1..=MAX_ATTEMPTS {
        assert_eq!(codes(database).await, 1);
        let tried = try_code(database, CodeHash([7; 32])).await;
        assert!(tried.counted && !tried.session.verified && tried.session.attempts == n);
    }
    assert_eq!(codes(database).await, 0);
    let late = try_code(database, CODE).await;
    assert!(!late.counted && late.session.is_locked() && !late.session.has_code);
    let accounts = accounts(database);
    let again = accounts
        .send_code(&KEY, &CODE, Timestamp(160), Timestamp(100))
        .await
        .unwrap()
        .unwrap();
    assert!(!again.counted && !again.session.has_code, "nothing more is sent");
}

pub(crate) async fn a_new_code_replaces_the_one_before(database: &TestDatabase) {
    asked(database).await;
    let other = CodeHash([9; 32]);
    let sent = accounts(database)
        .send_code(&KEY, &other, Timestamp(120), Timestamp(60))
        .await
        .unwrap()
        .unwrap();
    assert!(sent.counted);
    assert!(!try_code(database, CODE).await.session.verified);
    let right = try_code(database, other).await;
    assert!(right.counted && right.session.verified && !right.session.has_code && !right.session.new_only);
    let late = accounts(database)
        .send_code(&KEY, &CODE, Timestamp(180), Timestamp(120))
        .await
        .unwrap()
        .unwrap();
    assert!(!late.counted, "a verified session needs none");
}

pub(crate) async fn codes_are_sent_now_and_then_and_only_so_many(database: &TestDatabase) {
    asked(database).await;
    let accounts = accounts(database);
    let send = async |at: i64| {
        let sent = accounts
            .send_code(&KEY, &CODE, Timestamp(at + 60), Timestamp(at))
            .await
            .unwrap();
        sent.map(|done| (done.counted, done.session.codes_sent))
    };
    assert_eq!(send(59).await, Some((false, 1)), "too soon");
    for (at, sent) in [(60, 2), (120, 3), (180, 4), (240, 5)] {
        assert_eq!(send(at).await, Some((true, sent)));
    }
    assert_eq!(send(300).await, Some((false, MAX_CODES)));
    assert_eq!(send(1_000).await, None, "it has expired");
}

pub(crate) async fn work_is_done_once_and_stays_done(database: &TestDatabase) {
    let accounts = accounts(database);
    accounts.open_session(&session(1, 1_000)).await.unwrap();
    for _ in 0..2 {
        let worked = accounts.session_worked(&KEY, NOW).await.unwrap().unwrap();
        assert!(worked.worked && !worked.verified);
    }
    assert!(accounts.find_session(&KEY, NOW).await.unwrap().unwrap().worked);
    assert!(accounts.session_worked(&KEY, Timestamp(1_000)).await.unwrap().is_none());
    assert!(
        accounts
            .session_worked(&SessionKey([2; 32]), NOW)
            .await
            .unwrap()
            .is_none()
    );
}

/// A verified session for number 1, and the registration that it proves.
async fn proven(database: &TestDatabase, mailbox: i64) -> Registration {
    let opened = session(1, 1_000);
    accounts(database).open_session(&opened).await.unwrap();
    let tried = accounts(database)
        .try_session(&opened.key, &Attempt::Judged(true), NOW)
        .await
        .unwrap();
    assert!(tried.unwrap().session.verified);
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
    assert!(
        accounts
            .try_session(&key, &Attempt::Judged(true), NOW)
            .await
            .unwrap()
            .is_none()
    );
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
