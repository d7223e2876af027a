//! Sessions under each policy, with a carrier that keeps what it is given and a clock that stands still.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;

use super::*;
use crate::accounts::{InviteForm, InviteWish, Invites};
use crate::auth::EmailAddress;
use crate::domain::{AdminAct, AdminRecord, MAX_ATTEMPTS};
use crate::storage::testing::{ROOMY, TestDatabase, postgres, sqlite};

struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Takes every code that goes to a number as text, or to an address.
#[derive(Default)]
struct Taken(Mutex<Vec<(String, String)>>);

#[async_trait]
impl CodeSender for Taken {
    fn sends(&self, _to: &Contact, transport: Transport) -> bool {
        transport == Transport::Sms
    }

    async fn send(&self, to: &Contact, _transport: Transport, code: &SentCode) -> Result<(), CodeRefused> {
        let sent = (to.as_str().to_owned(), code.as_str().to_owned());
        self.0.lock().unwrap().push(sent);
        Ok(())
    }
}

struct World {
    verifier: Verifier,
    invites: Invites,
    clock: Arc<Hands>,
    taken: Arc<Taken>,
}

enum Kind {
    Open,
    Invite,
    Otp,
}

fn world(database: &TestDatabase, kind: &Kind, work: Option<WorkBits>) -> World {
    let storage = database.storage();
    let secrets = Arc::new(ServerSecrets::from_pepper(&[1; 32]));
    let clock = Arc::new(Hands(AtomicI64::new(0)));
    let taken = Arc::new(Taken::default());
    let policy = match kind {
        Kind::Open => Policy::Open,
        Kind::Invite => Policy::Invite(Arc::clone(&storage.invites)),
        Kind::Otp => Policy::Otp(Arc::clone(&taken) as _),
    };
    World {
        invites: Invites::new(
            Arc::clone(&storage.invites),
            Arc::clone(&secrets),
            Arc::clone(&clock) as _,
        ),
        verifier: Verifier::new(storage.accounts, secrets, policy, work, Arc::clone(&clock) as _),
        clock,
        taken,
    }
}

/// Makes each test once per backend: `on_sqlite::NAME` and `on_postgres::NAME`.
macro_rules! on_each_backend {
    ($($name:ident)+) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::sqlite(super::ROOMY).await.unwrap()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(database) = super::postgres(super::ROOMY).await {
                    super::$name(database).await;
                }
            })+
        }
    };
}

on_each_backend! {
    t01_after_five_wrong_codes_the_right_one_is_refused_too
    t02_a_code_is_sent_once_a_minute_and_five_times_at_most
    an_address_has_a_number_and_gets_its_codes_by_mail
    an_invite_is_typed_where_a_code_is
    work_comes_before_anything_else
    nothing_of_a_code_is_stored_but_its_hash
}

fn number(text: &str) -> Contact {
    Contact::Number(Number::parse(text).unwrap())
}

impl World {
    async fn open(&self) -> (SessionId, VerificationSession) {
        self.verifier.open(&number("+15550100001")).await.unwrap()
    }

    /// Asks for a code; `true` if it was sent.
    async fn ask(&self, id: &SessionId) -> bool {
        let session = self.verifier.find(id).await.unwrap().unwrap();
        match self.verifier.ask(id, &session, Transport::Sms) {
            Asked::May(outgoing) => matches!(self.verifier.send(id, &outgoing).await.unwrap(), Sent::Done(_)),
            _ => false,
        }
    }

    async fn try_code(&self, id: &SessionId, code: &str) -> (bool, bool) {
        let session = self.verifier.find(id).await.unwrap().unwrap();
        let tried = self.verifier.try_code(id, &session, code).await.unwrap().unwrap();
        (tried.counted, tried.session.verified)
    }

    fn last_code(&self) -> String {
        self.taken.0.lock().unwrap().last().unwrap().1.clone()
    }
}

/// A code that is not this one.
fn another(code: &str) -> String {
    if code == "000000" { "000001" } else { "000000" }.to_owned()
}

async fn t01_after_five_wrong_codes_the_right_one_is_refused_too(database: TestDatabase) {
    let world = world(&database, &Kind::Otp, None);
    let (id, session) = world.open().await;
    assert!(!world.verifier.takes_codes(&session), "none was sent");
    assert!(world.ask(&id).await);
    let right = world.last_code();
    for _ in 0..MAX_ATTEMPTS {
        assert_eq!(world.try_code(&id, &another(&right)).await, (true, false));
    }
    for code in [&right, &another(&right)] {
        assert_eq!(world.try_code(&id, code).await, (false, false));
    }
    let locked = world.verifier.find(&id).await.unwrap().unwrap();
    assert!(locked.is_locked() && !locked.has_code);
    world.clock.0.store(60_000, Ordering::Relaxed);
    assert!(!world.verifier.standing(&id, &locked).open);
}

async fn t02_a_code_is_sent_once_a_minute_and_five_times_at_most(database: TestDatabase) {
    let world = world(&database, &Kind::Otp, None);
    let (id, session) = world.open().await;
    let fresh = world.verifier.standing(&id, &session);
    assert_eq!(
        (fresh.next_sms, fresh.next_call, fresh.next_attempt),
        (Some(0), None, None)
    );
    let mut codes = Vec::new();
    for minute in 0..5 {
        world.clock.0.store(minute * 60_000, Ordering::Relaxed);
        assert!(world.ask(&id).await);
        codes.push(world.last_code());
        world.clock.0.fetch_add(59_001, Ordering::Relaxed);
        assert!(!world.ask(&id).await, "it is too soon");
        let session = world.verifier.find(&id).await.unwrap().unwrap();
        let standing = world.verifier.standing(&id, &session);
        assert_eq!(standing.next_sms, (minute < 4).then_some(1));
        assert_eq!(standing.next_attempt, Some(0));
    }
    world.clock.0.store(9 * 60_000, Ordering::Relaxed);
    let session = world.verifier.find(&id).await.unwrap().unwrap();
    let Asked::TooSoon(wait) = world.verifier.ask(&id, &session, Transport::Sms) else {
        panic!("it has had five");
    };
    assert_eq!(wait, Duration::from_secs(60), "what is left of the session");
    // Only the last one is right.
    codes.dedup();
    if let [.., before, last] = codes.as_slice() {
        assert_eq!(world.try_code(&id, before).await, (true, false));
        assert_eq!(world.try_code(&id, last).await, (true, true));
    }
    assert_eq!(world.taken.0.lock().unwrap().len(), 5);
}

async fn an_address_has_a_number_and_gets_its_codes_by_mail(database: TestDatabase) {
    let world = world(&database, &Kind::Otp, None);
    let email = Contact::Email(EmailAddress::parse("alice@example.org").unwrap());
    let (id, session) = world.verifier.open(&email).await.unwrap();
    let standing = world.verifier.standing(&id, &session);
    let number = standing.number.unwrap();
    assert!(number.is_of_email());
    // It is the one under which she registers.
    let secrets = ServerSecrets::from_pepper(&[1; 32]);
    assert!(session.number == secrets.hash_number(&number));
    assert!(world.ask(&id).await);
    assert_eq!(world.taken.0.lock().unwrap()[0].0, "alice@example.org");
    assert_eq!(world.try_code(&id, &world.last_code()).await, (true, true));
    assert!(!world.verifier.may_verify(&Contact::Number(number.clone())));
    assert!(world.verifier.may_verify(&email) && world.verifier.may_verify(&self::number("+15550100001")));
}

async fn an_invite_is_typed_where_a_code_is(database: TestDatabase) {
    let world = world(&database, &Kind::Invite, None);
    let wish = InviteWish {
        uses: 1,
        days: 7,
        recovers: false,
        form: InviteForm::Letters,
    };
    let (invite, code, hash) = world.invites.draw(wish).unwrap();
    let record = AdminRecord {
        act: AdminAct::InviteCreate,
        target: None,
        uid: 0,
        minute: 0,
    };
    let admin = database.storage().admin;
    assert!(admin.create_invite(&hash, &invite, &record).await.unwrap());
    assert_eq!(world.invites.list().await.unwrap(), [invite]);
    let (id, session) = world.open().await;
    assert!(matches!(
        world.verifier.ask(&id, &session, Transport::Sms),
        Asked::Nothing
    ));
    for wrong in ["", "123456", "0000-0000-0000-0000"] {
        assert_eq!(world.try_code(&id, wrong).await, (true, false), "{wrong}");
    }
    let typed = code.to_string().to_lowercase();
    assert_eq!(world.try_code(&id, &typed).await, (true, true));
    assert!(world.verifier.find(&id).await.unwrap().unwrap().new_only);
    assert_eq!(world.invites.list().await.unwrap(), []);
    let (other, _) = world.open().await;
    assert_eq!(world.try_code(&other, &typed).await, (true, false), "it is used up");
    for (wish, wrong) in [
        (InviteWish { uses: 0, ..wish }, "numbers"),
        (
            InviteWish {
                uses: crate::accounts::MAX_USES + 1,
                ..wish
            },
            "numbers",
        ),
        (
            InviteWish {
                days: crate::accounts::MAX_DAYS + 1,
                ..wish
            },
            "days",
        ),
    ] {
        let refused = world.invites.draw(wish).map(drop).unwrap_err();
        assert!(refused.to_string().contains(wrong), "{refused}");
    }
}

async fn work_comes_before_anything_else(database: TestDatabase) {
    let bits = WorkBits::new(8).unwrap();
    let world = world(&database, &Kind::Open, Some(bits));
    let (id, session) = world.open().await;
    let standing = world.verifier.standing(&id, &session);
    assert!(!standing.open && standing.work == Some(bits));
    assert_eq!((standing.next_sms, standing.next_attempt), (None, None));
    let answers = |right: bool| {
        let mut nonces = (0..).map(|n: u32| n.to_string());
        nonces.find(|nonce| bits.accepts(&id.encode(), nonce) == right).unwrap()
    };
    let wrong = world
        .verifier
        .work(&id, session.clone(), &answers(false))
        .await
        .unwrap();
    assert!(matches!(wrong, Worked::Wrong(_)));
    let right = world.verifier.work(&id, session, &answers(true)).await.unwrap();
    let Worked::Done(session) = right else {
        panic!("it was right");
    };
    let standing = world.verifier.standing(&id, &session);
    assert!(standing.open && standing.work.is_none() && standing.next_sms == Some(0));
    let again = world.verifier.work(&id, session, "anything").await.unwrap();
    assert!(matches!(again, Worked::Done(_)), "once is enough");
    let (other, _) = world.open().await;
    let found = world.verifier.find(&other).await.unwrap().unwrap();
    assert_eq!(
        world.verifier.standing(&other, &found).work,
        Some(bits),
        "each session has its own"
    );
}

/// Who has the database, and the pepper with it, lacks the session's id and cannot try codes out.
async fn nothing_of_a_code_is_stored_but_its_hash(database: TestDatabase) {
    let world = world(&database, &Kind::Otp, None);
    let (id, _) = world.open().await;
    assert!(world.ask(&id).await);
    let code = world.last_code();
    let secrets = ServerSecrets::from_pepper(&[1; 32]);
    let stored = |hash: crate::domain::CodeHash| {
        let storage = database.storage();
        let key = session_key(&id.0);
        async move {
            let tried = storage
                .accounts
                .try_session(&key, &Attempt::Code(hash), Timestamp(1))
                .await;
            tried.unwrap().unwrap().session.verified
        }
    };
    // What a thief can compute has to do without the id, or begin with its hash.
    assert!(!stored(secrets.hash_code(b"", code.as_bytes())).await);
    assert!(!stored(secrets.hash_code(&session_key(&id.0).0, code.as_bytes())).await);
    assert!(!stored(ServerSecrets::from_pepper(&[2; 32]).hash_code(&id.0, code.as_bytes())).await);
    assert!(stored(secrets.hash_code(&id.0, code.as_bytes())).await);
}
