//! What every store promises of the operator's acts, and of the log of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fixtures::{
    account, aci, actor, add_second_device, ec_key, kyber_key, register, registration, sealed_copy, start_over,
};
use crate::domain::{
    AdminAct, AdminOutcome, AdminRecord, Batch, ChainFault, ChainWalk, Day, Delivery, Enqueued, Erased, IdentityKind,
    Invite, InviteHash, InviteId, KeyUpload, MailboxId, Pseudonym, QueueLimits, Registered, ServiceId, Timestamp,
};
use crate::storage::AdminStore;
use crate::storage::testing::{ROOMY, TestDatabase};

pub(crate) const LIMITS: QueueLimits = ROOMY;

type Admin = Arc<dyn AdminStore>;

pub(super) fn record(act: AdminAct, minute: i64) -> AdminRecord {
    AdminRecord {
        act,
        target: Some(Pseudonym([5; 32])),
        uid: 1000,
        minute,
    }
}

/// Act and outcome of every entry, in order, and what is wrong with the chain.
async fn log(admin: &Admin) -> (Vec<(i64, i64)>, Vec<ChainFault>) {
    let mut acts = Vec::new();
    let mut page = admin.log(0, 7, None).await.unwrap();
    let mut walk = ChainWalk::from(page.ends.anchor);
    loop {
        for entry in &page.entries {
            walk.step(entry);
            acts.push((entry.act, entry.outcome));
        }
        page = admin.log(walk.at().seq, 7, None).await.unwrap();
        if page.entries.is_empty() {
            return (acts, walk.finish(page.ends.head));
        }
    }
}

fn numbers(act: AdminAct, outcome: AdminOutcome) -> (i64, i64) {
    let act = AdminAct::ALL.iter().position(|(known, _)| *known == act).unwrap();
    let outcome = AdminOutcome::ALL
        .iter()
        .position(|(known, _)| *known == outcome)
        .unwrap();
    (i64::try_from(act).unwrap(), i64::try_from(outcome).unwrap())
}

pub(crate) async fn a_suspended_account_is_found_as_that_until_it_is_resumed(database: &TestDatabase) {
    register(database, 1, 1001).await;
    register(database, 2, 2001).await;
    add_second_device(database).await;
    let storage = database.storage();
    for (suspended, act) in [
        (true, AdminAct::AccountSuspend),
        (true, AdminAct::AccountSuspend),
        (false, AdminAct::AccountResume),
    ] {
        let told = storage
            .admin
            .set_suspended(aci(1), suspended, &record(act, 1))
            .await
            .unwrap();
        assert_eq!(told, Some(vec![MailboxId(1001), MailboxId(1002)]));
        for (n, expected) in [(1, suspended), (2, false)] {
            let found = storage.accounts.find(&ServiceId::Aci(aci(n))).await.unwrap().unwrap();
            assert_eq!(found.suspended, expected, "account {n}");
        }
        let asked = [MailboxId(1001), MailboxId(2001), MailboxId(1002), MailboxId(9)];
        let told: BTreeSet<_> = storage.devices.suspended(&asked).await.unwrap().into_iter().collect();
        let expected = if suspended {
            BTreeSet::from([MailboxId(1001), MailboxId(1002)])
        } else {
            BTreeSet::new()
        };
        assert_eq!(told, expected);
        assert!(storage.devices.suspended(&[]).await.unwrap().is_empty());
    }
    let (acts, faults) = log(&storage.admin).await;
    assert_eq!(
        acts,
        [
            numbers(AdminAct::AccountSuspend, AdminOutcome::Done),
            numbers(AdminAct::AccountSuspend, AdminOutcome::Done),
            numbers(AdminAct::AccountResume, AdminOutcome::Done),
        ]
    );
    assert_eq!(faults, []);
}

pub(crate) async fn t24_acts_on_nobody_are_written_down_as_well(database: &TestDatabase) {
    let admin = database.storage().admin;
    let nobody = aci(9);
    let suspend = record(AdminAct::AccountSuspend, 1);
    assert_eq!(admin.set_suspended(nobody, true, &suspend).await.unwrap(), None);
    assert_eq!(
        admin.glance(nobody, &record(AdminAct::AccountShow, 1)).await.unwrap(),
        None
    );
    let erased = admin.erase(nobody, &record(AdminAct::AccountDelete, 1)).await.unwrap();
    assert_eq!(erased, Erased::default());
    let id = InviteId(uuid::Uuid::from_bytes([9; 16]));
    assert!(
        !admin
            .revoke_invite(&id, &record(AdminAct::InviteRevoke, 1))
            .await
            .unwrap()
    );
    admin
        .record(&record(AdminAct::UnknownPath, 1), AdminOutcome::Refused)
        .await
        .unwrap();
    let expected = [
        AdminAct::AccountSuspend,
        AdminAct::AccountShow,
        AdminAct::AccountDelete,
        AdminAct::InviteRevoke,
    ];
    let mut expected: Vec<_> = expected.map(|act| numbers(act, AdminOutcome::NotFound)).into();
    expected.push(numbers(AdminAct::UnknownPath, AdminOutcome::Refused));
    assert_eq!(log(&admin).await, (expected, vec![]));
}

pub(crate) async fn a_suspended_number_is_not_registered_over(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let storage = database.storage();
    let mut again = registration(1, 1003);
    again.replaces = account(1, 1001).checked();
    let suspend = record(AdminAct::AccountSuspend, 1);
    storage.admin.set_suspended(aci(1), true, &suspend).await.unwrap();
    // Whatever had been checked before the operator was quicker.
    let refused = storage.accounts.register(&again, Timestamp(0)).await.unwrap();
    assert_eq!(refused, Registered::Changed);
    storage.admin.set_suspended(aci(1), false, &suspend).await.unwrap();
    let registered = storage.accounts.register(&again, Timestamp(0)).await.unwrap();
    assert!(matches!(registered, Registered::Again { .. }));
}

pub(crate) async fn a_glance_tells_state_devices_and_day(database: &TestDatabase) {
    register(database, 1, 1001).await;
    let storage = database.storage();
    let show = record(AdminAct::AccountShow, 1);
    let glance = storage.admin.glance(aci(1), &show).await.unwrap().unwrap();
    assert_eq!(
        (glance.suspended, glance.devices, glance.last_seen),
        (false, 1, Day(20_000))
    );
    add_second_device(database).await;
    storage.devices.seen(&[MailboxId(1002)], Day(20_007)).await.unwrap();
    let suspend = record(AdminAct::AccountSuspend, 1);
    storage.admin.set_suspended(aci(1), true, &suspend).await.unwrap();
    let glance = storage.admin.glance(aci(1), &show).await.unwrap().unwrap();
    assert_eq!(
        (glance.suspended, glance.devices, glance.last_seen),
        (true, 2, Day(20_007))
    );
}

pub(crate) async fn erasing_does_what_the_owners_own_deletion_does(database: &TestDatabase) {
    register(database, 1, 1001).await;
    add_second_device(database).await;
    register(database, 2, 2001).await;
    let storage = database.storage();
    send(database, 1001, 3).await;
    let delete = record(AdminAct::AccountDelete, 1);
    let erased = storage.admin.erase(aci(1), &delete).await.unwrap();
    assert_eq!(erased.mailboxes.len(), 2);
    assert!(storage.accounts.find(&ServiceId::Aci(aci(1))).await.unwrap().is_none());
    assert!(storage.accounts.find(&ServiceId::Aci(aci(2))).await.unwrap().is_some());
    for left in [
        "SELECT count(*) FROM envelopes",
        "SELECT count(*) FROM devices WHERE mailbox < 2000",
    ] {
        assert_eq!(database.number(left).await, 0, "{left}");
    }
    assert_eq!(storage.admin.erase(aci(1), &delete).await.unwrap(), Erased::default());
    // The number is free.
    assert_eq!(
        start_over(&*storage.accounts, registration(1, 1005)).await,
        Registered::New
    );
    let (acts, faults) = log(&storage.admin).await;
    assert_eq!(
        acts,
        [
            numbers(AdminAct::AccountDelete, AdminOutcome::Done),
            numbers(AdminAct::AccountDelete, AdminOutcome::NotFound)
        ]
    );
    assert_eq!(faults, []);
}

pub(crate) async fn an_invite_and_its_entry_come_together(database: &TestDatabase) {
    let storage = database.storage();
    let invite = Invite {
        id: InviteId(uuid::Uuid::from_bytes([1; 16])),
        uses_left: 2,
        recovers: false,
        expires: Day(20_007),
        created: Day(20_000),
    };
    let (create, revoke) = (record(AdminAct::InviteCreate, 1), record(AdminAct::InviteRevoke, 2));
    assert!(
        storage
            .admin
            .create_invite(&InviteHash([1; 32]), &invite, &create)
            .await
            .unwrap()
    );
    assert_eq!(
        storage.invites.list(Day(20_000)).await.unwrap(),
        std::slice::from_ref(&invite)
    );
    // What cannot be kept is not written down as kept.
    assert!(
        storage
            .admin
            .create_invite(&InviteHash([1; 32]), &invite, &create)
            .await
            .is_err()
    );
    assert!(storage.admin.revoke_invite(&invite.id, &revoke).await.unwrap());
    assert!(!storage.admin.revoke_invite(&invite.id, &revoke).await.unwrap());
    assert_eq!(storage.invites.list(Day(20_000)).await.unwrap(), []);
    let expected = vec![
        numbers(AdminAct::InviteCreate, AdminOutcome::Done),
        numbers(AdminAct::InviteRevoke, AdminOutcome::Done),
        numbers(AdminAct::InviteRevoke, AdminOutcome::NotFound),
    ];
    assert_eq!(log(&storage.admin).await, (expected, vec![]));
}

pub(crate) async fn sums_are_of_everybody(database: &TestDatabase) {
    let storage = database.storage();
    let empty = storage.admin.sums().await.unwrap();
    assert_eq!((empty.accounts, empty.devices, empty.queued.len()), (0, 0, 0));
    assert!(empty.database_bytes > 4096);
    for n in 1..=3 {
        register(database, n, i64::from(n) * 1000 + 1).await;
    }
    add_second_device(database).await;
    let suspend = record(AdminAct::AccountSuspend, 1);
    storage.admin.set_suspended(aci(2), true, &suspend).await.unwrap();
    send(database, 1001, 3).await;
    send(database, 2001, 2).await;
    let upload = KeyUpload {
        one_time: vec![ec_key(1), ec_key(2)],
        one_time_kyber: vec![kyber_key(1, 3)],
        ..KeyUpload::default()
    };
    storage
        .keys
        .publish(&actor(1, 1001), IdentityKind::Aci, &upload)
        .await
        .unwrap();
    let sums = storage.admin.sums().await.unwrap();
    assert_eq!((sums.accounts, sums.suspended, sums.devices), (3, 1, 4));
    assert_eq!(sums.queued, [(1, 5)]);
    assert_eq!((sums.ec_keys, sums.kyber_keys), (2, 1));
}

pub(crate) async fn t24_acts_at_once_make_one_chain(database: &TestDatabase) {
    for n in 1..=5 {
        register(database, n, i64::from(n) * 1000 + 1).await;
    }
    let (here, there) = (database.storage().admin, database.another().await.admin);
    let acts = (0..50_u8).map(|n| {
        let admin = Arc::clone(if n % 2 == 0 { &here } else { &there });
        tokio::spawn(async move {
            let target = aci(n % 5 + 1);
            match n % 3 {
                0 => drop(
                    admin
                        .set_suspended(target, n % 2 == 0, &record(AdminAct::AccountSuspend, 1))
                        .await
                        .unwrap(),
                ),
                1 => drop(admin.glance(target, &record(AdminAct::AccountShow, 1)).await.unwrap()),
                _ => {
                    let unknown = record(AdminAct::UnknownPath, 1);
                    admin.record(&unknown, AdminOutcome::Refused).await.unwrap();
                }
            }
        })
    });
    for act in acts.collect::<Vec<_>>() {
        act.await.unwrap();
    }
    let (acts, faults) = log(&here).await;
    assert_eq!((acts.len(), faults), (50, vec![]));
    let page = here.log(0, 1000, None).await.unwrap();
    assert!(page.entries.iter().map(|entry| entry.seq).eq(1..=50));
}

pub(crate) async fn t24_what_is_changed_past_the_server_is_found(database: &TestDatabase) {
    let admin = database.storage().admin;
    for minute in 1..=9 {
        let record = record(AdminAct::AccountShow, minute);
        admin.record(&record, AdminOutcome::Done).await.unwrap();
    }
    let whole = admin.log(0, 100, None).await.unwrap();
    assert_eq!(log(&admin).await.1, []);
    for (plant, undo, found) in [
        (
            "UPDATE admin_log SET uid = 0 WHERE seq = 5",
            "UPDATE admin_log SET uid = 1000 WHERE seq = 5",
            ChainFault::Changed(5),
        ),
        (
            "UPDATE admin_log SET target = NULL WHERE seq = 9",
            "UPDATE admin_log SET target = (SELECT target FROM admin_log WHERE seq = 1) WHERE seq = 9",
            ChainFault::Changed(9),
        ),
        (
            "UPDATE admin_log SET seq = 100 - seq WHERE seq = 3",
            "UPDATE admin_log SET seq = 3 WHERE seq = 97",
            ChainFault::Missing(3, 3),
        ),
        (
            "INSERT INTO admin_log SELECT 10, minute, act, outcome, target, uid, hash FROM admin_log WHERE seq = 9",
            "DELETE FROM admin_log WHERE seq = 10",
            ChainFault::Changed(10),
        ),
        (
            "UPDATE admin_log SET seq = -seq WHERE seq > 7",
            "UPDATE admin_log SET seq = -seq WHERE seq < 0",
            ChainFault::Missing(8, 9),
        ),
    ] {
        database.execute(plant).await;
        assert_eq!(log(&admin).await.1[0], found, "{plant}");
        database.execute(undo).await;
        assert_eq!(log(&admin).await.1, [], "{undo}");
    }
    assert_eq!(admin.log(0, 100, None).await.unwrap(), whole);
    // Nor does the next act hide it.
    database.execute("DELETE FROM admin_log WHERE seq = 9").await;
    admin
        .record(&record(AdminAct::AccountShow, 10), AdminOutcome::Done)
        .await
        .unwrap();
    assert_eq!(log(&admin).await.1, [ChainFault::Missing(9, 9)]);
}

pub(crate) async fn the_oldest_entries_go_and_the_chain_goes_on(database: &TestDatabase) {
    let admin = database.storage().admin;
    assert_eq!(admin.expire_log(1_000, 4).await.unwrap(), 0);
    for minute in 1..=9 {
        let record = record(AdminAct::AccountShow, minute);
        admin.record(&record, AdminOutcome::Done).await.unwrap();
    }
    let before = admin.log(0, 100, None).await.unwrap();
    assert_eq!(admin.expire_log(1, 4).await.unwrap(), 0);
    assert_eq!(admin.expire_log(7, 4).await.unwrap(), 4);
    assert_eq!(admin.expire_log(7, 4).await.unwrap(), 2);
    assert_eq!(admin.expire_log(7, 4).await.unwrap(), 0);
    let after = admin.log(0, 100, None).await.unwrap();
    assert_eq!(after.entries, before.entries[6..]);
    assert_eq!((after.ends.anchor.seq, after.ends.head), (6, before.ends.head));
    assert_eq!(log(&admin).await.1, []);
    assert_eq!(admin.expire_log(1_000, 100).await.unwrap(), 3);
    let emptied = admin.log(0, 100, None).await.unwrap();
    assert_eq!(emptied.ends.anchor, before.ends.head);
    assert_eq!(log(&admin).await, (vec![], vec![]));
    admin
        .record(&record(AdminAct::AccountShow, 1_001), AdminOutcome::Done)
        .await
        .unwrap();
    let (acts, faults) = log(&admin).await;
    assert_eq!((acts.len(), faults), (1, vec![]));
    assert_eq!(admin.log(0, 1, None).await.unwrap().entries[0].seq, 10);
}

pub(crate) async fn what_was_about_one_thing_is_found_among_the_rest(database: &TestDatabase) {
    let admin = database.storage().admin;
    let (one, other) = (Pseudonym([5; 32]), Pseudonym([6; 32]));
    for (minute, target) in [
        (1, Some(one)),
        (2, Some(other)),
        (3, None),
        (4, Some(one)),
        (5, Some(one)),
    ] {
        let record = AdminRecord {
            target,
            ..record(AdminAct::AccountShow, minute)
        };
        admin.record(&record, AdminOutcome::Done).await.unwrap();
    }
    let places = async |after, limit, about| {
        let page = admin.log(after, limit, about).await.unwrap();
        assert_eq!(page.ends.head.seq, 5, "the ends are those of all");
        page.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    assert_eq!(places(0, 100, None).await, [1, 2, 3, 4, 5]);
    assert_eq!(places(0, 100, Some(&one)).await, [1, 4, 5]);
    assert_eq!(places(0, 2, Some(&one)).await, [1, 4]);
    assert_eq!(places(1, 100, Some(&one)).await, [4, 5]);
    assert_eq!(places(2, 100, Some(&other)).await, [0_i64; 0]);
    assert_eq!(places(0, 100, Some(&Pseudonym([7; 32]))).await, [0_i64; 0]);
}

/// Puts so many envelopes of 1 KiB into a queue.
async fn send(database: &TestDatabase, mailbox: i64, count: usize) {
    let deliveries = (0..count).map(|_| Delivery {
        copies: vec![sealed_copy(MailboxId(mailbox), 1, b"")],
        expires: Day(30_000),
        ..Delivery::default()
    });
    let batch = Batch {
        deliveries: deliveries.collect(),
        acknowledgements: vec![],
    };
    let outcomes = database.storage().queue.commit(&batch).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Enqueued::At(_))));
}
