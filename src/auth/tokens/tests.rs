use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::auth::{Authenticator, Password, ServerSecrets};
use crate::domain::{Registration, Timestamp};
use crate::encoding::BASE64_URL;
use crate::storage::conformance::fixtures::{primary, registration, start_over};
use crate::storage::testing::{ROOMY, TestDatabase, sqlite};

use base64::Engine;

/// A clock that stands still until it is told.
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

impl Hands {
    fn wait(&self, secs: i64) {
        self.0.fetch_add(secs * 1000, Ordering::Relaxed);
    }
}

/// Tokens of a node over this database, whose clock stands at the beginning of day 20 000.
pub(in crate::auth) fn tokens(database: &TestDatabase, accounts: &Arc<AccountCache>) -> Tokens {
    timed(database, accounts, Arc::new(Hands(AtomicI64::new(START))), 1)
}

fn timed(database: &TestDatabase, accounts: &Arc<AccountCache>, clock: Arc<dyn Clock>, pepper: u8) -> Tokens {
    let times = TokenTimes {
        access: Duration::from_secs(15 * 60),
        refresh_days: 7,
    };
    let secrets = ServerSecrets::from_pepper(&[pepper; 32]).tokens().clone();
    let store = database.storage().tokens;
    Tokens::new(secrets, times, store, Arc::clone(accounts), clock, 100)
}

const START: i64 = 20_000 * 24 * 60 * 60 * 1000;
const PASSWORD: &[u8] = b"correct horse";

struct World {
    database: TestDatabase,
    accounts: Arc<AccountCache>,
    clock: Arc<Hands>,
    tokens: Arc<Tokens>,
    authenticator: Authenticator,
}

impl World {
    async fn new() -> Self {
        let database = sqlite(ROOMY).await.unwrap();
        let accounts = Arc::new(AccountCache::new(database.storage().accounts, 100));
        let clock = Arc::new(Hands(AtomicI64::new(START)));
        let tokens = Arc::new(timed(&database, &accounts, Arc::clone(&clock) as Arc<dyn Clock>, 1));
        tokens.keys.load().await.unwrap().unwrap();
        let authenticator = Authenticator::new(Arc::clone(&accounts), Arc::clone(&tokens), 100);
        let world = Self {
            database,
            accounts,
            clock,
            tokens,
            authenticator,
        };
        world.register(10).await;
        world
    }

    async fn register(&self, mailbox: i64) {
        let mut registration: Registration = registration(1, mailbox);
        registration.device.credential = password().verifier();
        start_over(&*self.database.storage().accounts, registration).await;
        self.accounts.forget(primary(1).aci);
    }

    async fn device(&self) -> Authenticated {
        let proven = self.authenticator.authenticate(primary(1), &password()).await;
        proven.unwrap().unwrap()
    }

    async fn open(&self) -> Issued {
        let device = self.device().await;
        let opened = self.tokens.open(&device, &device.queue_key(&password())).await;
        opened.unwrap().unwrap().issued
    }

    async fn refresh(&self, shown: &str, again: Option<&[u8]>) -> Option<Issued> {
        match self.tokens.refresh(shown, again).await.unwrap() {
            Refreshed::Done(issued) => Some(issued),
            Refreshed::Reused { .. } | Refreshed::Refused => None,
        }
    }

    async fn proves(&self, access: &str) -> bool {
        let Ok(token) = BearerToken::parse(format!("Bearer {access}").as_bytes()) else {
            return false;
        };
        self.tokens.prove(&token).await.unwrap().is_some()
    }
}

fn password() -> Password {
    Password::new(PASSWORD).unwrap()
}

#[tokio::test]
async fn a_token_proves_its_device_and_opens_what_its_password_opens() {
    let world = World::new().await;
    let (device, issued) = (world.device().await, world.open().await);
    let token = BearerToken::parse(format!("bearer {}", issued.access).as_bytes()).unwrap();
    let bearer = world.tokens.prove(&token).await.unwrap().unwrap();
    assert_eq!(bearer.device.actor().mailbox, device.mailbox);
    assert_eq!(bearer.device.session, Some(issued.session));
    assert_eq!(bearer.queue_key.as_bytes(), device.queue_key(&password()).as_bytes());
    assert_eq!(bearer.device.secret.as_bytes(), device.secret.as_bytes());
    assert_eq!((issued.access_secs, issued.refresh_secs), (900, 8 * 24 * 60 * 60));
    assert!(world.authenticator.still_valid(&bearer.device).await.unwrap());
    assert!(world.authenticator.confirm(&bearer.device).await.unwrap());
    // What the database has of it opens nothing.
    world.database.storage().tokens.end(issued.session).await.unwrap();
    world.tokens.sessions.over(issued.session);
    assert!(!world.authenticator.still_valid(&bearer.device).await.unwrap());
    assert!(!world.authenticator.confirm(&bearer.device).await.unwrap());
    assert!(!world.proves(&issued.access).await);
}

#[tokio::test]
async fn t06_a_token_is_good_from_its_second_to_its_last_and_half_a_minute_around() {
    let world = World::new().await;
    let issued = world.open().await;
    for (wait, good) in [(0, true), (-30, true), (-1, false), (31 + 929, true), (1, false)] {
        world.clock.wait(wait);
        assert_eq!(world.proves(&issued.access).await, good, "{wait}");
    }
}

#[tokio::test]
async fn t06_nothing_but_the_token_as_it_was_made_is_taken() {
    let world = World::new().await;
    let issued = world.open().await;
    let parts: Vec<&str> = issued.access.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("three parts")
    };
    let encode = |json: &serde_json::Value| BASE64_URL.encode(json.to_string());
    let read = |part: &str| -> serde_json::Value { serde_json::from_slice(&BASE64_URL.decode(part).unwrap()).unwrap() };
    let with = |name: &str, value: &str| {
        let mut header = read(header);
        header[name] = value.into();
        encode(&header)
    };
    let mut later = read(claims);
    later["exp"] = (later["exp"].as_i64().unwrap() + 1).into();
    for forged in [
        format!("{}.{claims}.", with("alg", "none")),
        format!("{}.{claims}.{signature}", with("alg", "none")),
        format!("{}.{claims}.{signature}", with("alg", "HS256")),
        format!("{}.{claims}.{signature}", with("kid", "another")),
        format!("{header}.{}.{signature}", encode(&later)),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{claims}.{}", &signature[..80]),
        issued.access[..100].to_owned(),
        "a".repeat(10_240),
        String::new(),
        "..".to_owned(),
        issued.refresh.clone(),
    ] {
        assert!(!world.proves(&forged).await, "{forged}");
    }
    for at in 0..issued.access.len() {
        let mut changed = issued.access.clone().into_bytes();
        // The last sign of a part has bits to spare; two signs never differ in those alone here.
        changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(!world.proves(&changed).await, "sign {at}");
    }
    assert!(world.proves(&issued.access).await);
}

#[tokio::test]
async fn t08_another_registration_or_password_ends_every_token() {
    let world = World::new().await;
    let issued = world.open().await;
    world.register(11).await;
    assert!(!world.proves(&issued.access).await);
    assert!(world.refresh(&issued.refresh, None).await.is_none());

    let issued = world.open().await;
    let other = "UPDATE devices SET credential_salt = zeroblob(16)";
    world.database.execute(other).await;
    world.accounts.forget(primary(1).aci);
    assert!(!world.proves(&issued.access).await);
    assert!(world.refresh(&issued.refresh, None).await.is_none());
}

#[tokio::test]
async fn t04_t05_a_refresh_token_is_good_once_unless_the_same_is_asked_again() {
    let world = World::new().await;
    let first = world.open().await;
    let second = world.refresh(&first.refresh, Some(b"one")).await.unwrap();
    world.clock.wait(3 * 24 * 60 * 60);
    let again = world.refresh(&first.refresh, Some(b"one")).await.unwrap();
    assert!(second.refresh == again.refresh && first.refresh != second.refresh);
    assert_eq!(again.refresh_secs, 5 * 24 * 60 * 60, "asking again makes it no longer");
    assert!(world.proves(&again.access).await);
    let third = world.refresh(&second.refresh, None).await.unwrap();
    assert!(third.refresh_secs > again.refresh_secs && third.session == first.session);
    assert!(matches!(
        world.tokens.refresh(&second.refresh, Some(b"one")).await.unwrap(),
        Refreshed::Reused { .. }
    ));
    for dead in [&first, &second, &third] {
        assert!(world.refresh(&dead.refresh, None).await.is_none());
    }
}

#[tokio::test]
async fn t04_what_is_made_up_ends_nobodys_session() {
    let world = World::new().await;
    let issued = world.open().await;
    let other = timed(
        &world.database,
        &world.accounts,
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        2,
    );
    for at in [0, 50, 214] {
        let mut changed = issued.refresh.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(world.refresh(&changed, None).await.is_none());
        assert!(world.tokens.end(&changed).await.unwrap().is_none());
    }
    for forged in [
        "",
        "A",
        &issued.access,
        &"A".repeat(215),
        &format!("{}=", issued.refresh),
    ] {
        assert!(world.refresh(forged, None).await.is_none());
        assert!(world.tokens.end(forged).await.unwrap().is_none());
    }
    assert!(matches!(
        other.refresh(&issued.refresh, None).await.unwrap(),
        Refreshed::Refused
    ));
    assert!(world.proves(&issued.access).await);
    assert!(world.tokens.end(&issued.refresh).await.unwrap() == Some(issued.session));
    assert!(world.refresh(&issued.refresh, None).await.is_none());
}

#[tokio::test]
async fn a_session_that_nobody_refreshes_is_over_on_its_day() {
    let world = World::new().await;
    let issued = world.open().await;
    world.clock.wait(i64::try_from(issued.refresh_secs).unwrap() - 1);
    let next = world.refresh(&issued.refresh, None).await.unwrap();
    assert_eq!(next.refresh_secs, 7 * 24 * 60 * 60 + 1);
    world.clock.wait(i64::try_from(next.refresh_secs).unwrap());
    assert!(world.refresh(&next.refresh, None).await.is_none());
}

#[tokio::test]
async fn t74_a_new_key_signs_once_all_know_it_and_the_old_one_verifies_until_its_tokens_are_over() {
    let world = World::new().await;
    let secrets = ServerSecrets::from_pepper(&[1; 32]);
    let store = world.database.storage().tokens;
    let kid = |issued: &Issued| {
        let token = BearerToken::parse(format!("Bearer {}", issued.access).as_bytes()).unwrap();
        token.kid().to_owned()
    };
    world.clock.wait(60);
    let before = world.open().await;
    let until = world.clock.now().plus_millis(1_000_000);
    store
        .rotate_key(&new_token_key(secrets.tokens(), world.clock.now()), Some(until))
        .await
        .unwrap();
    world.tokens.keys.load().await.unwrap().unwrap();
    let published = world.tokens.keys.published();
    assert_eq!(published.len(), 2);
    assert_eq!(
        kid(&world.open().await),
        kid(&before),
        "others may not know the new one yet"
    );
    world.clock.wait(5);
    let after = world.open().await;
    assert!(kid(&after) != kid(&before) && kid(&after) == published[0].kid);
    assert!(world.proves(&before.access).await && world.proves(&after.access).await);

    // A node that has not looked yet does so when it meets the key.
    let other = timed(
        &world.database,
        &world.accounts,
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        1,
    );
    let token = BearerToken::parse(format!("Bearer {}", after.access).as_bytes()).unwrap();
    assert!(other.prove(&token).await.unwrap().is_some());

    // At once: whatever the others signed is worth nothing, and sessions stand.
    store
        .rotate_key(&new_token_key(secrets.tokens(), world.clock.now()), None)
        .await
        .unwrap();
    world.tokens.keys.load().await.unwrap().unwrap();
    for dead in [&before, &after] {
        assert!(!world.proves(&dead.access).await);
    }
    let fresh = world.refresh(&after.refresh, None).await.unwrap();
    assert!(world.proves(&fresh.access).await);
    assert_eq!(world.tokens.keys.published().len(), 1);
}

#[tokio::test]
async fn keys_of_another_pepper_do_not_open() {
    let world = World::new().await;
    let other = timed(
        &world.database,
        &world.accounts,
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        2,
    );
    assert!(other.keys.load().await.unwrap().is_err());
}
