use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::*;
use crate::storage::testing::{ROOMY, TestDatabase, postgres, sqlite};

/// A bucket of a service that speaks S3, if tests were given one; made if it is not there.
pub(super) async fn bucket() -> Option<S3> {
    let Some(endpoint) = std::env::var("BLIND_RELAY_TEST_S3_URL")
        .ok()
        .filter(|url| !url.is_empty())
    else {
        eprintln!("skipped: BLIND_RELAY_TEST_S3_URL is not set");
        return None;
    };
    // One bucket for each test. Services for tests take any credentials, and make a bucket for a PUT of its path.
    let bucket = format!(
        "test-{}",
        AttachmentKey::random().to_string().to_lowercase().replace('_', "-")
    );
    let made = reqwest::Client::new()
        .put(format!("{endpoint}/{}", bucket.trim_end_matches('-')))
        .send()
        .await;
    assert!(made.unwrap().status().is_success());
    Some(S3 {
        bucket: bucket.trim_end_matches('-').to_owned(),
        endpoint: Some(endpoint),
        region: "us-east-1".to_owned(),
        access_key_id: "test".to_owned(),
        secret_access_key: "test".to_owned(),
        prefix: "attachments".to_owned(),
    })
}

#[derive(Clone, Default)]
struct Hands(Arc<AtomicI64>);

impl Hands {
    fn turn(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + self.0.load(Ordering::Relaxed))
    }
}

/// Attachments on a database of their own.
struct Setup {
    attachments: Attachments,
    clock: Hands,
    database: TestDatabase,
}

const LIMITS: AttachmentLimits = AttachmentLimits {
    max_bytes: 20 * 1024 * 1024,
    daily_bytes: 40 * 1024 * 1024,
    retention_days: 45,
    incomplete: Duration::from_secs(600),
    max_uploads: 4,
    max_downloads: 2,
};
const DAY: i64 = MILLIS_PER_DAY;
const ALICE: Aci = Aci::new(Uuid::from_bytes([1; 16]));
const BOB: Aci = Aci::new(Uuid::from_bytes([2; 16]));

fn setup_over(database: TestDatabase, blobs: Blobs) -> Setup {
    let clock = Hands::default();
    let attachments = Attachments::new(
        database.storage().attachments,
        blobs,
        CapabilityKey::derive(&[7; 32]),
        Arc::new(clock.clone()),
        LIMITS,
    );
    Setup {
        attachments,
        clock,
        database,
    }
}

/// On each database that is there, with objects in memory; and once with objects in a bucket, if there is one.
async fn setups() -> Vec<Setup> {
    let mut setups = vec![setup_over(sqlite(ROOMY).await.unwrap(), Blobs::in_memory())];
    setups.extend(
        postgres(ROOMY)
            .await
            .map(|database| setup_over(database, Blobs::in_memory())),
    );
    if let Some(settings) = bucket().await {
        let blobs = Blobs::s3(&settings, "0011").unwrap();
        setups.push(setup_over(sqlite(ROOMY).await.unwrap(), blobs));
    }
    setups
}

/// Bytes in which no two places look alike.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = [0; 32];
    while bytes.len() < length {
        block = Sha256::digest(block).into();
        bytes.extend_from_slice(&block);
    }
    bytes.truncate(length);
    bytes
}

fn body(bytes: &[u8], end: Option<BodyEnd>) -> BoxStream<'static, Result<Bytes, BodyEnd>> {
    let chunks: Vec<_> = bytes
        .chunks(64 * 1024)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    stream::iter(chunks).chain(stream::iter(end.map(Err))).boxed()
}

fn part(at: usize, length: Option<usize>, bytes: &[u8]) -> Incoming {
    Incoming {
        at: at as u64,
        length: length.map(|length| length as u64),
        announced: None,
        checksum: None,
        body: body(bytes, None),
    }
}

impl Setup {
    async fn capability(&self, owner: Aci, length: Option<u64>) -> Capability {
        let form = self.attachments.form(owner, Class::Attachment, length).await.unwrap();
        self.attachments.capability(&form.capability).unwrap()
    }

    async fn read(&self, capability: &Capability, range: Option<std::ops::Range<u64>>) -> Option<Vec<u8>> {
        let found = self.attachments.find(&capability.key.name()).await.unwrap()?;
        let range = range.unwrap_or(0..found.length());
        let chunks: Vec<Bytes> = self
            .attachments
            .read(&found, range)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        Some(chunks.concat())
    }

    async fn upload(&self, owner: Aci, bytes: &[u8]) -> Capability {
        let capability = self.capability(owner, None).await;
        self.attachments.open(&capability, None).await.unwrap();
        let part = part(0, Some(bytes.len()), bytes);
        assert!(self.attachments.write(&capability, part).await.unwrap().complete);
        capability
    }

    async fn names_in_store(&self) -> usize {
        let mut names: Vec<_> = self
            .attachments
            .blobs
            .names()
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        names.sort();
        names.dedup();
        names.len()
    }
}

#[tokio::test]
async fn what_was_uploaded_comes_back_whole_and_in_every_range() {
    for setup in setups().await {
        let bytes = content(2 * SEGMENT_BYTES + 12_345);
        let capability = setup.upload(ALICE, &bytes).await;
        assert!(setup.read(&capability, None).await.unwrap() == bytes);
        let edge = SEGMENT_BYTES as u64;
        for range in [
            0..1,
            edge - 1..edge + 1,
            edge..edge + 1,
            edge - 5..2 * edge + 5,
            2 * edge + 12_344..2 * edge + 12_345,
        ] {
            let (from, to) = (
                usize::try_from(range.start).unwrap(),
                usize::try_from(range.end).unwrap(),
            );
            assert!(setup.read(&capability, Some(range)).await.unwrap() == bytes[from..to]);
        }
    }
}

#[tokio::test]
async fn an_interrupted_part_is_kept_and_the_next_goes_on_behind_it() {
    for setup in setups().await {
        let bytes = content(SEGMENT_BYTES + 100_000);
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, None).await.unwrap();
        for (from, to, end) in [
            (0, 70_001, BodyEnd::Cut),
            (70_001, 70_001, BodyEnd::Stalled),
            (70_001, SEGMENT_BYTES + 5, BodyEnd::Stopping),
        ] {
            let mut part = part(from, Some(bytes.len()), &[]);
            part.body = body(&bytes[from..to], Some(end));
            assert!(
                matches!(setup.attachments.write(&capability, part).await, Err(Refused::Body(found)) if found == end)
            );
            let progress = setup.attachments.progress(&capability).await.unwrap();
            assert_eq!((progress.upload.stored, progress.complete), (to as u64, false));
            assert!(
                setup.read(&capability, None).await.is_none(),
                "not before it is complete"
            );
        }
        let rest = part(SEGMENT_BYTES + 5, None, &bytes[SEGMENT_BYTES + 5..]);
        assert!(setup.attachments.write(&capability, rest).await.unwrap().complete);
        assert!(setup.read(&capability, None).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn nothing_is_complete_that_has_more_bytes_than_were_said() {
    for setup in setups().await {
        let bytes = content(SEGMENT_BYTES + 1);
        let capability = setup.capability(ALICE, None).await;
        setup
            .attachments
            .open(&capability, Some(SEGMENT_BYTES as u64))
            .await
            .unwrap();
        assert!(matches!(
            setup.attachments.write(&capability, part(0, None, &bytes)).await,
            Err(Refused::Longer)
        ));
        let mut announced = part(0, None, &bytes);
        announced.announced = Some(bytes.len() as u64);
        assert!(matches!(
            setup.attachments.write(&capability, announced).await,
            Err(Refused::Longer)
        ));
        let other = part(0, Some(5), &bytes);
        assert!(matches!(
            setup.attachments.write(&capability, other).await,
            Err(Refused::OtherLength)
        ));
        assert!(setup.read(&capability, None).await.is_none());
        assert_eq!(setup.attachments.progress(&capability).await.unwrap().upload.stored, 0);
        let whole = part(0, None, &bytes[..SEGMENT_BYTES]);
        assert!(setup.attachments.write(&capability, whole).await.unwrap().complete);
        let more = part(SEGMENT_BYTES, None, b"more");
        assert!(matches!(
            setup.attachments.write(&capability, more).await,
            Err(Refused::Longer)
        ));

        let unbounded = setup.capability(ALICE, None).await;
        setup.attachments.open(&unbounded, None).await.unwrap();
        let huge = part(0, Some(21 * 1024 * 1024), &[]);
        assert!(matches!(
            setup.attachments.write(&unbounded, huge).await,
            Err(Refused::TooLarge)
        ));
        assert!(matches!(
            setup.attachments.open(&unbounded, Some(21 << 20)).await,
            Err(Refused::TooLarge)
        ));
        let endless = part(0, None, &content(21 * 1024 * 1024));
        assert!(matches!(
            setup.attachments.write(&unbounded, endless).await,
            Err(Refused::TooLarge)
        ));
        assert!(matches!(
            setup.attachments.form(ALICE, Class::Attachment, Some(21 << 20)).await,
            Err(Refused::TooLarge)
        ));
    }
}

#[tokio::test]
async fn a_wrong_checksum_keeps_nothing_and_a_right_one_all() {
    for setup in setups().await {
        let bytes = content(SEGMENT_BYTES + 7);
        let capability = setup.capability(ALICE, None).await;
        setup
            .attachments
            .open(&capability, Some(bytes.len() as u64))
            .await
            .unwrap();
        let with_sum = |sum: [u8; 32], body| Incoming {
            checksum: Some(Checksum::Sha256(sum)),
            body,
            ..part(0, None, &[])
        };
        let sum: [u8; 32] = Sha256::digest(&bytes).into();
        let wrong = with_sum([0; 32], body(&bytes, None));
        assert!(matches!(
            setup.attachments.write(&capability, wrong).await,
            Err(Refused::Checksum)
        ));
        let cut = with_sum(sum, body(&bytes[..SEGMENT_BYTES + 1], Some(BodyEnd::Cut)));
        assert!(matches!(
            setup.attachments.write(&capability, cut).await,
            Err(Refused::Body(BodyEnd::Cut))
        ));
        assert_eq!(setup.attachments.progress(&capability).await.unwrap().upload.stored, 0);
        assert_eq!(setup.names_in_store().await, 0);
        let right = with_sum(sum, body(&bytes, None));
        assert!(setup.attachments.write(&capability, right).await.unwrap().complete);
        assert!(setup.read(&capability, None).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn the_request_that_came_last_writes_and_the_other_one_no_more() {
    for setup in setups().await {
        let bytes = content(100);
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, Some(100)).await.unwrap();
        let (sender, waiting) = tokio::sync::mpsc::channel::<Result<Bytes, BodyEnd>>(1);
        let mut slow = part(0, None, &[]);
        slow.body = stream::unfold(waiting, async |mut waiting| Some((waiting.recv().await?, waiting))).boxed();
        let both = async {
            sender.send(Ok(Bytes::copy_from_slice(&bytes[..50]))).await.unwrap();
            // There is room for more once the slow one, whose turn it is, has taken the first.
            drop(sender.reserve().await.unwrap());
            let quick = part(0, None, &bytes);
            assert!(setup.attachments.write(&capability, quick).await.unwrap().complete);
            drop(sender);
        };
        let (slow, ()) = tokio::join!(setup.attachments.write(&capability, slow), both);
        assert!(matches!(slow, Err(Refused::Overtaken)));
        assert!(setup.read(&capability, None).await.unwrap() == bytes);
        // What the slow one wrote is part of nothing.
        let name = capability.key.name();
        let found = setup.attachments.find(&name).await.unwrap().unwrap();
        assert_eq!(found.length(), 100);
    }
}

#[tokio::test]
async fn an_upload_of_nothing_is_complete_at_once() {
    for setup in setups().await {
        let capability = setup.capability(ALICE, None).await;
        assert!(setup.attachments.open(&capability, Some(0)).await.unwrap().complete);
        assert!(
            setup.attachments.open(&capability, None).await.unwrap().complete,
            "asked again"
        );
        assert_eq!(setup.read(&capability, None).await.unwrap(), b"");
        let later = setup.capability(ALICE, None).await;
        setup.attachments.open(&later, None).await.unwrap();
        assert!(
            setup
                .attachments
                .write(&later, part(0, Some(0), &[]))
                .await
                .unwrap()
                .complete
        );
    }
}

#[tokio::test]
async fn the_budget_of_a_day_is_never_overdrawn_and_returns_the_next_day() {
    for setup in setups().await {
        let forms = (0..8).map(|_| setup.attachments.form(ALICE, Class::Attachment, Some(10 * 1024 * 1024)));
        let made = futures_util::future::join_all(forms).await;
        assert_eq!(made.iter().filter(|form| form.is_ok()).count(), 4);
        let refused = made.into_iter().find_map(Result::err).unwrap();
        assert!(matches!(refused, Refused::OverBudget(1..=86_400)));
        let unpaid = setup.capability(ALICE, None).await;
        assert!(matches!(
            setup.attachments.open(&unpaid, None).await,
            Err(Refused::OverBudget(_))
        ));
        assert!(
            setup
                .attachments
                .form(BOB, Class::Attachment, Some(10 * 1024 * 1024))
                .await
                .is_ok()
        );
        setup.clock.turn(DAY);
        assert!(
            setup
                .attachments
                .form(ALICE, Class::Attachment, Some(10 * 1024 * 1024))
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn bytes_without_a_known_length_are_taken_from_the_budget_as_they_come() {
    for setup in setups().await {
        setup.upload(ALICE, &content(18 * 1024 * 1024)).await;
        let second = setup.capability(ALICE, None).await;
        setup.attachments.open(&second, None).await.unwrap();
        let mut bytes = part(0, None, &[]);
        bytes.body = body(&content(18 * 1024 * 1024), Some(BodyEnd::Cut));
        assert!(matches!(
            setup.attachments.write(&second, bytes).await,
            Err(Refused::Body(BodyEnd::Cut))
        ));
        let third = setup.capability(ALICE, None).await;
        setup.attachments.open(&third, None).await.unwrap();
        let bytes = part(0, None, &content(9 * 1024 * 1024));
        assert!(matches!(
            setup.attachments.write(&third, bytes).await,
            Err(Refused::OverBudget(_))
        ));
        // A length that becomes known is refused before its bytes.
        let declared = part(0, Some(9 * 1024 * 1024), &[]);
        assert!(matches!(
            setup.attachments.write(&third, declared).await,
            Err(Refused::Elsewhere { .. } | Refused::OverBudget(_))
        ));
    }
}

#[tokio::test]
async fn what_is_not_finished_is_dropped_and_its_name_never_used_again() {
    for setup in setups().await {
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, Some(10)).await.unwrap();
        let mut cut = part(0, None, &[]);
        cut.body = body(&content(9), Some(BodyEnd::Cut));
        assert!(setup.attachments.write(&capability, cut).await.is_err());
        setup.clock.turn(599_999);
        assert_eq!(setup.attachments.sweep().await.unwrap(), Swept::default());
        setup.clock.turn(1);
        assert!(
            matches!(setup.attachments.progress(&capability).await, Err(Refused::Gone)),
            "before the sweep"
        );
        assert_eq!(setup.names_in_store().await, 1);
        let swept = setup.attachments.sweep().await.unwrap();
        assert_eq!((swept.expired, swept.cleared), (1, 1));
        assert_eq!(setup.names_in_store().await, 0);
        assert!(matches!(
            setup.attachments.open(&capability, Some(10)).await,
            Err(Refused::Gone)
        ));
        assert!(matches!(
            setup.attachments.write(&capability, part(0, None, b"x")).await,
            Err(Refused::Gone)
        ));
        setup.clock.turn(3 * DAY);
        assert!(
            setup.attachments.sweep().await.unwrap().forgotten >= 2,
            "the row and the budget"
        );
        assert_eq!(setup.database.number("SELECT count(*) FROM attachments").await, 0);
        assert_eq!(
            setup.database.number("SELECT count(*) FROM attachment_budgets").await,
            0
        );
    }
}

#[tokio::test]
async fn attachments_and_avatars_go_on_their_days() {
    for setup in setups().await {
        let capability = setup.upload(ALICE, b"attachment").await;
        let form = setup.attachments.form(ALICE, Class::Avatar, Some(6)).await.unwrap();
        let avatar = setup.attachments.capability(&form.capability).unwrap();
        setup.attachments.open(&avatar, None).await.unwrap();
        assert!(
            setup
                .attachments
                .write(&avatar, part(0, Some(6), b"avatar"))
                .await
                .unwrap()
                .complete
        );
        setup.clock.turn(44 * DAY);
        setup.attachments.sweep().await.unwrap();
        assert!(setup.read(&capability, None).await.is_some());
        setup.clock.turn(DAY);
        assert!(setup.read(&capability, None).await.is_none(), "before the sweep");
        assert_eq!(setup.attachments.sweep().await.unwrap().expired, 1);
        assert!(setup.read(&avatar, None).await.is_some());
        assert_eq!(setup.names_in_store().await, 1);
        setup.clock.turn(355 * DAY);
        assert!(setup.read(&avatar, None).await.is_none());
    }
}

#[tokio::test]
async fn a_removed_attachment_is_gone_with_its_objects() {
    for setup in setups().await {
        let capability = setup.upload(ALICE, b"attachment").await;
        setup.attachments.remove(&capability).await.unwrap();
        assert!(setup.read(&capability, None).await.is_none());
        assert_eq!(setup.names_in_store().await, 0);
        assert!(matches!(
            setup.attachments.remove(&capability).await,
            Err(Refused::Gone)
        ));
        assert!(matches!(
            setup.attachments.open(&capability, None).await,
            Err(Refused::Gone)
        ));
    }
}

#[tokio::test]
async fn objects_without_a_row_are_swept_and_others_stay() {
    for setup in setups().await {
        let capability = setup.upload(ALICE, b"attachment").await;
        let orphan = AttachmentKey::random().name();
        let segment = crate::domain::Segment {
            start: 0,
            length: 1,
            tag: 1,
        };
        setup
            .attachments
            .blobs
            .put(&orphan, &segment, Bytes::from_static(b"x"))
            .await
            .unwrap();
        assert_eq!(setup.attachments.sweep_orphans().await.unwrap(), 1);
        assert_eq!(setup.attachments.sweep_orphans().await.unwrap(), 0);
        assert_eq!(setup.read(&capability, None).await.unwrap(), b"attachment");
    }
}

#[tokio::test]
async fn single_bytes_are_as_dear_as_the_rows_and_objects_that_they_make() {
    let setup = setup_over(sqlite(ROOMY).await.unwrap(), Blobs::in_memory());
    let mut paid = 0;
    // Also when it was paid with the form, and in whatever number of uploads.
    for length in [None, Some(20 * 1024 * 1024)] {
        let capability = setup.capability(ALICE, length).await;
        setup.attachments.open(&capability, length).await.unwrap();
        for at in 0.. {
            match setup.attachments.write(&capability, part(at, None, b"x")).await {
                Ok(_) => paid += 1,
                Err(refused) => {
                    assert!(matches!(refused, Refused::OverBudget(_)), "{refused:?}");
                    break;
                }
            }
            if length.is_none() && at == 299 {
                break;
            }
        }
    }
    assert_eq!(paid, LIMITS.daily_bytes / LEAST_COST);
    assert_eq!(
        setup.database.number("SELECT count(*) FROM attachment_segments").await,
        640
    );
}

#[tokio::test]
async fn a_part_that_does_not_fit_takes_no_turn_and_completes_nothing() {
    for setup in setups().await {
        // Open, with all of its bytes, and a length that is still to come.
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, None).await.unwrap();
        setup
            .attachments
            .write(&capability, part(0, None, b"12345"))
            .await
            .unwrap();
        let turns = async || setup.database.number("SELECT max(turn) FROM attachments").await;
        let before = turns().await;
        let with_body = part(5, Some(5), b"x");
        let announced = Incoming {
            announced: Some(6),
            ..part(5, Some(10), b"678901")
        };
        for refused in [with_body, announced] {
            let refused = setup.attachments.write(&capability, refused).await;
            assert!(matches!(refused, Err(Refused::Longer)), "{refused:?}");
            assert!(!setup.attachments.progress(&capability).await.unwrap().complete);
        }
        let unknown = Incoming {
            checksum: Some(Checksum::Sha1([0; 20])),
            ..part(5, None, b"x")
        };
        assert!(matches!(
            setup.attachments.write(&capability, unknown).await,
            Err(Refused::ChecksumWithoutLength)
        ));
        assert_eq!(turns().await, before);
        for (mut first, fits) in [
            (part(0, Some(0), b"x"), false),
            (
                Incoming {
                    announced: Some(2),
                    ..part(0, Some(1), b"xy")
                },
                false,
            ),
            (part(0, Some(0), b""), true),
            (part(0, None, b"x"), true),
        ] {
            assert_eq!(first.may_open().await.is_ok(), fits);
        }
        assert!(
            setup
                .attachments
                .write(&capability, part(5, Some(5), b""))
                .await
                .unwrap()
                .complete
        );
    }
}

#[tokio::test]
async fn a_part_ends_where_it_was_announced_to_end() {
    for setup in setups().await {
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, Some(10)).await.unwrap();
        let announcing = |announced, bytes| Incoming {
            announced: Some(announced),
            ..part(0, None, bytes)
        };
        let more = setup.attachments.write(&capability, announcing(3, b"1234")).await;
        assert!(matches!(more, Err(Refused::Longer)));
        assert_eq!(setup.attachments.progress(&capability).await.unwrap().upload.stored, 0);
        let less = setup.attachments.write(&capability, announcing(5, b"1234")).await;
        assert!(matches!(less, Err(Refused::Body(BodyEnd::Cut))));
        assert_eq!(setup.attachments.progress(&capability).await.unwrap().upload.stored, 4);
    }
}

#[tokio::test]
async fn a_length_that_was_to_come_later_may_come_with_another_opening() {
    for setup in setups().await {
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, None).await.unwrap();
        setup
            .attachments
            .write(&capability, part(0, None, b"12345"))
            .await
            .unwrap();
        let open = async |length| setup.attachments.open(&capability, Some(length)).await;
        assert!(matches!(open(4).await, Err(Refused::OtherLength)));
        let opened = open(6).await.unwrap();
        assert_eq!(
            (opened.upload.length, opened.upload.stored, opened.complete),
            (Some(6), 5, false)
        );
        assert!(open(6).await.is_ok());
        assert!(matches!(open(7).await, Err(Refused::OtherLength)));
        assert!(
            setup
                .attachments
                .write(&capability, part(5, None, b"6"))
                .await
                .unwrap()
                .complete
        );
    }
}

#[tokio::test]
async fn a_slow_part_with_a_checksum_keeps_its_upload_open() {
    let setup = setup_over(sqlite(ROOMY).await.unwrap(), Blobs::in_memory());
    let bytes = content(4);
    let capability = setup.capability(ALICE, None).await;
    setup.attachments.open(&capability, Some(4)).await.unwrap();
    let clock = setup.clock.clone();
    let slow = stream::iter(bytes.clone()).then(move |byte| {
        let clock = clock.clone();
        async move {
            // The database has threads of its own: it does not wait while time stands still.
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(301)).await;
            tokio::time::resume();
            clock.turn(301_000);
            Ok(Bytes::from(vec![byte]))
        }
    });
    let slow = Incoming {
        checksum: Some(Checksum::Sha256(Sha256::digest(&bytes).into())),
        body: slow.boxed(),
        ..part(0, None, &[])
    };
    assert!(setup.attachments.write(&capability, slow).await.unwrap().complete);
}

#[tokio::test]
async fn a_newcomer_gets_a_place_of_whoever_trickles_in_many_and_what_came_of_that_is_kept() {
    let setup = setup_over(sqlite(ROOMY).await.unwrap(), Blobs::in_memory());
    let mut trickling = Vec::new();
    for _ in 0..LIMITS.max_uploads {
        let capability = setup.capability(ALICE, None).await;
        setup.attachments.open(&capability, Some(10)).await.unwrap();
        trickling.push(capability);
    }
    let (begun, mut beginnings) = tokio::sync::mpsc::channel(LIMITS.max_uploads);
    let writing = trickling.iter().map(|capability| {
        let begun = begun.clone();
        let body = stream::iter([Ok(Bytes::from_static(b"12345"))]).chain(stream::once(async move {
            begun.send(()).await.unwrap();
            std::future::pending().await
        }));
        let part = Incoming {
            body: body.boxed(),
            ..part(0, None, &[])
        };
        setup.attachments.write(capability, part)
    });
    let bob = async {
        for _ in 0..LIMITS.max_uploads {
            beginnings.recv().await.unwrap();
        }
        setup.upload(BOB, b"quick").await
    };
    let alices = futures_util::future::select_all(writing.map(Box::pin));
    let ((first, at, _others), bobs) = tokio::join!(alices, bob);
    assert!(matches!(first, Err(Refused::Body(BodyEnd::Displaced))));
    assert_eq!(setup.read(&bobs, None).await.unwrap(), b"quick");
    assert_eq!(
        setup.attachments.progress(&trickling[at]).await.unwrap().upload.stored,
        5
    );
}

#[tokio::test]
async fn so_many_download_at_once_and_no_more() {
    let setup = setup_over(sqlite(ROOMY).await.unwrap(), Blobs::in_memory());
    let capability = setup.upload(ALICE, b"attachment").await;
    let found = setup.attachments.find(&capability.key.name()).await.unwrap().unwrap();
    let read = async || setup.attachments.read(&found, 0..10).await;
    let (one, _other) = (read().await.unwrap(), read().await.unwrap());
    assert!(matches!(read().await.err(), Some(Refused::DownloadsTaken)));
    drop(one);
    assert!(read().await.is_ok());
}

#[tokio::test]
async fn an_attachment_whose_objects_are_missing_is_not_there() {
    for setup in setups().await {
        let capability = setup.upload(ALICE, b"attachment").await;
        let name = capability.key.name();
        let found = setup.attachments.find(&name).await.unwrap().unwrap();
        setup.attachments.blobs.clear(&name).await.unwrap();
        for told in [true, false] {
            assert!(matches!(
                setup.attachments.read(&found, 0..10).await.err(),
                Some(Refused::Gone)
            ));
            assert!(!setup.attachments.tells_of_missing(), "{told}");
        }
        setup.clock.turn(60_000);
        assert!(setup.attachments.tells_of_missing());
    }
}

#[tokio::test]
async fn what_cannot_be_deleted_keeps_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let setup = setup_over(
        sqlite(ROOMY).await.unwrap(),
        Blobs::local(directory.path(), "0011").unwrap(),
    );
    let mut uploads = Vec::new();
    for _ in 0..3 {
        uploads.push(setup.upload(ALICE, b"attachment").await);
    }
    // A file in the place of a directory cannot be removed as one.
    uploads.sort_by_key(|capability| capability.key.name());
    let poison: String = uploads[0]
        .key
        .name()
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let poison = directory.path().join("0011").join(poison);
    std::fs::remove_dir_all(&poison).unwrap();
    std::fs::write(&poison, "").unwrap();
    setup
        .attachments
        .retire([uploads[0].key.to_string().as_str(), "unknown"])
        .await
        .unwrap();
    setup.clock.turn(45 * DAY);
    assert!(matches!(setup.attachments.sweep().await, Err(Refused::Blobs(_))));
    assert_eq!(
        setup
            .database
            .number("SELECT count(*) FROM attachments WHERE state = 3")
            .await,
        2
    );
    assert_eq!(
        setup
            .database
            .number("SELECT count(*) FROM attachments WHERE state = 2")
            .await,
        1
    );
    assert_eq!(
        setup.database.number("SELECT count(*) FROM attachment_budgets").await,
        0,
        "forgotten all the same"
    );
    std::fs::remove_file(&poison).unwrap();
    assert_eq!(setup.attachments.sweep().await.unwrap().cleared, 1);
}

#[test]
fn realms_belong_to_a_secret_and_a_database() {
    let realms = [([1; 32], [1; 16]), ([1; 32], [2; 16]), ([2; 32], [1; 16])]
        .map(|(secret, database)| Attachments::realm(&secret, database));
    assert!(realms[0] != realms[1] && realms[0] != realms[2] && realms[1] != realms[2]);
}

#[tokio::test]
async fn a_form_works_for_a_day() {
    let setup = setup_over(sqlite(ROOMY).await.unwrap(), Blobs::in_memory());
    let form = setup.attachments.form(ALICE, Class::Attachment, None).await.unwrap();
    setup.clock.turn(DAY - 1);
    assert!(setup.attachments.capability(&form.capability).is_some());
    setup.clock.turn(1);
    assert!(setup.attachments.capability(&form.capability).is_none());
}

#[test]
fn tomorrow_is_at_most_a_day_away() {
    assert_eq!(seconds_until_tomorrow(Timestamp(0)), 86_400);
    assert_eq!(seconds_until_tomorrow(Timestamp(DAY - 1)), 1);
}
