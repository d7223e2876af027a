use keys_schema::sealed_queue::{Opener, QueueKey};

use super::*;
use crate::domain::{PageLimit, Seq};
use crate::storage::conformance::fixtures::register;
use crate::storage::migrate::{SEALED_QUEUE, down, status, up};
use crate::storage::testing::{ROOMY, TestDatabase, interim_keys, postgres, sqlite, upgrade};

const MAILBOXES: [MailboxId; 2] = [MailboxId(70), MailboxId(-7)];

/// A database as the release before left it: two devices, some envelopes each, nothing sealed.
async fn before() -> Vec<TestDatabase> {
    let mut databases: Vec<TestDatabase> = sqlite(ROOMY).await.into_iter().collect();
    databases.extend(postgres(ROOMY).await);
    for database in &mut databases {
        register(database, 1, MAILBOXES[0].0).await;
        register(database, 2, MAILBOXES[1].0).await;
        database.close().await;
        back_to(database, SEALED_QUEUE).await;
        down(database.location()).await.unwrap();
        database.execute_either(FILL_SQLITE, FILL_POSTGRES).await;
        database
            .execute("UPDATE mailboxes SET last_seq = 1201, envelopes = 1200, bytes = 5")
            .await;
    }
    databases
}

/// Takes every step back that came after this one.
async fn back_to(database: &TestDatabase, version: i64) {
    while let Some(last) = status(database.location())
        .await
        .unwrap()
        .iter()
        .rfind(|step| step.applied)
        && last.version > version
    {
        down(database.location()).await.unwrap();
    }
}

// Envelope `n` is so many bytes of 7: what of `n` is left by 2,000.
const FILL_SQLITE: &str = "WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1201) \
    INSERT INTO envelopes (mailbox, seq, content, expires) \
    SELECT id, n, unhex(replace(hex(zeroblob(n % 2000)), '00', '07')), 20000 FROM numbers CROSS JOIN mailboxes";
const FILL_POSTGRES: &str = "INSERT INTO envelopes (mailbox, seq, content, expires) \
    SELECT id, n, decode(repeat('07', n % 2000), 'hex'), 20000 FROM generate_series(2, 1201) AS n CROSS JOIN mailboxes";
// A row of zeros in the place of the first.
const SEALED_SQLITE: &str = "INSERT INTO envelopes (mailbox, seq, bucket, sealed, expires) \
    VALUES (70, 2, 1, zeroblob(1276), 20000)";
const SEALED_POSTGRES: &str = "INSERT INTO envelopes (mailbox, seq, bucket, sealed, expires) \
    VALUES (70, 2, 1, decode(repeat('00', 1276), 'hex'), 20000)";

#[tokio::test]
async fn what_was_stored_is_sealed_and_nothing_is_lost() {
    for mut database in before().await {
        up(database.location(), &upgrade()).await.unwrap();
        database.reopen().await;
        let queue = database.storage().queue;
        for id in MAILBOXES {
            let mailbox = queue.mailbox(id).await.unwrap().unwrap();
            assert_eq!(mailbox.last, Seq(1201));
            let interim: QueueKey = interim_keys().open(id, &mailbox.interim.unwrap()).unwrap();
            assert_eq!(interim.public_key(), mailbox.key);
            let mut opener = Opener::new(&interim);
            let stored = queue.pending(id, Seq::START, EVERYTHING).await.unwrap();
            assert_eq!(stored.len(), 1200);
            for (stored, n) in stored.iter().zip(2..) {
                assert_eq!(stored.seq, Seq(n));
                let envelope = opener
                    .open(id.0, stored.sealed.bucket, stored.sealed.row.clone())
                    .unwrap();
                assert_eq!(envelope, vec![7; usize::try_from(n % 2000).unwrap()]);
            }
        }
        // Up to 1212 bytes fit into the first bucket.
        assert_eq!(
            database
                .number("SELECT CAST(sum(bytes) AS BIGINT) FROM mailboxes")
                .await,
            2400 * 1024
        );
        assert_eq!(
            database
                .number("SELECT CAST(sum(envelopes) AS BIGINT) FROM mailboxes")
                .await,
            2400
        );
    }
}

#[tokio::test]
async fn another_pepper_is_refused_before_anything_is_lost() {
    for mut database in before().await {
        database.execute_either(PIN_SQLITE, PIN_POSTGRES).await;
        let other = Upgrade {
            pepper_check: [8; 32],
            ..upgrade()
        };
        assert!(matches!(
            up(database.location(), &other).await,
            Err(OpenError::OtherPepper)
        ));
        assert_eq!(database.number("SELECT count(*) FROM envelopes_unsealed").await, 2400);
        up(database.location(), &upgrade()).await.unwrap();
        database.reopen().await;
        assert_eq!(database.number("SELECT count(*) FROM envelopes").await, 2400);
    }
}

#[tokio::test]
async fn t64_an_upgrade_that_ended_in_the_middle_goes_on() {
    for mut database in before().await {
        // Takes the first of the two steps, gives keys, seals one page, and is gone.
        let mut link = Link::open(database.location(), super::super::Access::Change)
            .await
            .unwrap();
        let step = &link.steps[6];
        let migration = super::super::migration(step, sqlx::migrate::MigrationType::ReversibleUp);
        let applied = link.connection.migrate().apply(super::super::TABLE, &migration).await;
        applied.unwrap();
        let ids = keyless(&mut link.connection).await.unwrap();
        assert_eq!(ids.len(), 2);
        give_keys(&mut link.connection, ids, &upgrade().interim).await.unwrap();
        link.finish().await.unwrap();
        database.execute_either(SEALED_SQLITE, SEALED_POSTGRES).await;
        up(database.location(), &upgrade()).await.unwrap();
        database.reopen().await;
        assert_eq!(database.number("SELECT count(*) FROM envelopes").await, 2400);
        let first = database
            .storage()
            .queue
            .pending(MAILBOXES[0], Seq::START, EVERYTHING)
            .await
            .unwrap();
        assert!(
            first[0].sealed.row.iter().all(|byte| *byte == 0),
            "what was sealed is not sealed again"
        );
    }
}

#[tokio::test]
async fn t64_there_is_no_way_back_while_envelopes_are_sealed() {
    for mut database in before().await {
        up(database.location(), &upgrade()).await.unwrap();
        back_to(&database, SEALED_QUEUE).await;
        assert!(matches!(down(database.location()).await, Err(OpenError::Sealed)));
        up(database.location(), &upgrade()).await.unwrap();
        database.reopen().await;
        assert_eq!(database.number("SELECT count(*) FROM envelopes").await, 2400);
        database.execute("DELETE FROM envelopes").await;
        database.close().await;
        back_to(&database, SEALED_QUEUE).await;
        assert_eq!(
            down(database.location()).await.unwrap().map(|step| step.version),
            Some(7)
        );
    }
}

const PIN_SQLITE: &str = "INSERT INTO settings (name, value) \
    VALUES ('pepper_check', unhex(replace(hex(zeroblob(32)), '00', '07')))";
const PIN_POSTGRES: &str = "INSERT INTO settings (name, value) \
    VALUES ('pepper_check', decode(repeat('07', 32), 'hex'))";
const EVERYTHING: PageLimit = PageLimit {
    envelopes: u32::MAX,
    bytes: usize::MAX,
};
