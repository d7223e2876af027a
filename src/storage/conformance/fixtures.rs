//! Things to store.

use std::sync::Arc;

use keys_schema::sealed_queue::{Bucket, QueueKey, QueuePublicKey};
use keys_schema::{
    Aci, EcPreKey, EcPublicKey, IdentityKey, KeyId, KyberPreKey, KyberPublicKey, Pni, Signature, SignedEcPreKey,
};
use uuid::Uuid;

use crate::domain::{
    Account, Actor, Allowance, Blocks, BundleSelector, Capabilities, Copy, CreatedAt, Day, Device, DeviceId,
    DeviceLink, DeviceName, Enqueued, IdentityKind, LinkOffer, LinkTokenHash, Linked, MailboxId, NumberHash, Placed,
    ProtocolAddress, Registered, Registration, RegistrationId, Sealed, SealedEnvelope, SecretVerifier, Seq, ServiceId,
    SignedKeys, Stored, Take, TakenBundles, Timestamp, UnidentifiedAccess,
};
use crate::storage::testing::TestDatabase;
use crate::storage::{AccountStore, KeyStore, Storage};

/// The registration of account `n` with number `n`. Each call of one `n` differs in nothing; `mailbox` names its queue.
pub(crate) fn registration(n: u8, mailbox: i64) -> Registration {
    Registration {
        session: None,
        replaces: None,
        number: NumberHash([n; 32]),
        aci: aci(n),
        pni: pni(n),
        aci_identity: identity(n),
        pni_identity: identity(n.wrapping_add(100)),
        aci_keys: signed_keys(n, 1),
        pni_keys: signed_keys(n, 101),
        access: UnidentifiedAccess {
            sealed_key: Some(Sealed(vec![n; 44])),
            unrestricted: false,
        },
        discoverable: true,
        recovery: Some(SecretVerifier {
            salt: [n; 16],
            hash: [n; 32],
        }),
        lock: None,
        device: device(n, mailbox),
    }
}

/// The account that [`registration`] makes.
pub(crate) fn account(n: u8, mailbox: i64) -> Account {
    let registration = registration(n, mailbox);
    Account {
        aci: registration.aci,
        pni: registration.pni,
        aci_identity: registration.aci_identity,
        pni_identity: registration.pni_identity,
        access: registration.access,
        discoverable: registration.discoverable,
        recovery: registration.recovery,
        lock: registration.lock,
        suspended: false,
        blocks: Blocks::default(),
        devices: vec![registration.device],
    }
}

pub(crate) fn device(n: u8, mailbox: i64) -> Device {
    Device {
        queue_key: queue_key(MailboxId(mailbox)),
        id: DeviceId::PRIMARY,
        mailbox: MailboxId(mailbox),
        registration_id: RegistrationId::new(u64::from(n) + 1).unwrap(),
        pni_registration_id: RegistrationId::new(u64::from(n) + 1_001).unwrap(),
        name: DeviceName::new(vec![n; 20]),
        credential: SecretVerifier {
            salt: [n; 16],
            hash: [n; 32],
        },
        sealed_number: Sealed(vec![n; 50]),
        fetches_messages: true,
        capabilities: Capabilities::from_names([("spqr", true)]),
        last_seen: Day(20_000),
        created_at: Some(CreatedAt([n; 57])),
    }
}

/// Registers account `n` with that mailbox, or starts it over.
pub(crate) async fn register(database: &TestDatabase, n: u8, mailbox: i64) -> ProtocolAddress {
    start_over(&*database.storage().accounts, registration(n, mailbox)).await;
    primary(n)
}

/// Registers, over whatever account the number has then.
pub(crate) async fn start_over(accounts: &dyn AccountStore, mut registration: Registration) -> Registered {
    loop {
        registration.replaces = None;
        if let Some(aci) = accounts.find_by_number(&registration.number).await.unwrap()
            && let Some(account) = accounts.find(&ServiceId::Aci(aci)).await.unwrap()
        {
            registration.aci = aci;
            registration.replaces = account.checked();
        }
        match accounts.register(&registration, Timestamp(0)).await.unwrap() {
            Registered::Changed => {}
            registered => return registered,
        }
    }
}

/// Links device 2 to account 1, with mailbox 1002.
pub(crate) async fn add_second_device(database: &TestDatabase) -> ProtocolAddress {
    let Storage { accounts, devices, .. } = database.storage();
    let account = accounts.find(&ServiceId::Aci(aci(1))).await.unwrap().unwrap();
    let by = actor(1, account.devices[0].mailbox.0);
    assert!(devices.offer(&offer(1, 1_000), &by).await.unwrap());
    assert_eq!(
        devices.link(&device_link(1, 2, 1002), Timestamp(0)).await.unwrap(),
        Linked::Done
    );
    linked(1, 2)
}

/// Account `n`'s primary, which [`register`] made with that mailbox.
pub(crate) fn actor(n: u8, mailbox: i64) -> Actor {
    Actor {
        address: primary(n),
        mailbox: MailboxId(mailbox),
    }
}

/// An offer of account `n`, found by `n`.
pub(crate) fn offer(n: u8, expires: i64) -> LinkOffer {
    LinkOffer {
        key: LinkTokenHash([n; 32]),
        aci: aci(n),
        sealed_number: Sealed(vec![n; 40]),
        expires: Timestamp(expires),
    }
}

/// Takes up [`offer`] `n` with that device and mailbox.
pub(crate) fn device_link(n: u8, id: u64, mailbox: i64) -> DeviceLink {
    DeviceLink {
        offer: LinkTokenHash([n; 32]),
        aci: aci(n),
        device: Device {
            id: DeviceId::new(id).unwrap(),
            registration_id: RegistrationId::new(75 + id).unwrap(),
            pni_registration_id: RegistrationId::new(76 + id).unwrap(),
            ..device(n, mailbox)
        },
        aci_keys: signed_keys(n, 201),
        pni_keys: signed_keys(n, 301),
        max_devices: 6,
        remembered_until: Timestamp(100_000),
    }
}

/// The device that [`device_link`] links.
pub(crate) fn linked_actor(n: u8, id: u64, mailbox: i64) -> Actor {
    Actor {
        address: linked(n, id),
        mailbox: MailboxId(mailbox),
    }
}

pub(crate) fn linked(n: u8, id: u64) -> ProtocolAddress {
    ProtocolAddress {
        aci: aci(n),
        device_id: DeviceId::new(id).unwrap(),
    }
}

pub(crate) fn primary(n: u8) -> ProtocolAddress {
    ProtocolAddress {
        aci: aci(n),
        device_id: DeviceId::PRIMARY,
    }
}

pub(crate) fn aci(n: u8) -> Aci {
    Aci::new(Uuid::from_bytes([n; 16]))
}

pub(crate) fn pni(n: u8) -> Pni {
    Pni::new(Uuid::from_bytes([n.wrapping_add(100); 16]))
}

pub(crate) fn identity(n: u8) -> IdentityKey {
    IdentityKey::parse(&ec_bytes(u32::from(n))).unwrap()
}

pub(crate) fn signed_keys(n: u8, id: u32) -> SignedKeys {
    SignedKeys {
        signed: signed_key(n, id),
        last_resort: kyber_key(u32::from(n) + 200, id),
    }
}

pub(crate) fn signed_key(n: u8, id: u32) -> SignedEcPreKey {
    SignedEcPreKey {
        id: KeyId::new(u64::from(id)).unwrap(),
        key: EcPublicKey::parse(&ec_bytes(u32::from(n) + 50)).unwrap(),
        signature: Signature::parse(&[n; 64]).unwrap(),
    }
}

pub(crate) fn ec_key(id: u32) -> EcPreKey {
    EcPreKey {
        id: KeyId::new(u64::from(id)).unwrap(),
        key: EcPublicKey::parse(&ec_bytes(id)).unwrap(),
    }
}

pub(crate) fn kyber_key(content: u32, id: u32) -> KyberPreKey {
    let mut bytes = vec![0x08];
    bytes.extend(content.to_be_bytes().iter().cycle().take(1568));
    KyberPreKey {
        id: KeyId::new(u64::from(id)).unwrap(),
        key: KyberPublicKey::parse(&bytes).unwrap(),
        signature: Signature::parse(&[content.to_be_bytes()[3]; 64]).unwrap(),
    }
}

/// Who asks for all that account `n` has to give.
pub(crate) fn claim(n: u8) -> Take {
    Take {
        aci: aci(n),
        kind: IdentityKind::Aci,
        selector: BundleSelector::All,
        allowance: Allowance::EVERYTHING,
    }
}

/// What is taken by a batch of one.
pub(crate) async fn take_alone(keys: &Arc<dyn KeyStore>, claim: Take, today: Day) -> Option<TakenBundles> {
    let mut takings = keys.take_bundles(&[claim], today).await.unwrap();
    assert_eq!(takings.len(), 1);
    takings.remove(0).unwrap()
}

fn ec_bytes(content: u32) -> Vec<u8> {
    let mut bytes = vec![0x05];
    bytes.extend(content.to_be_bytes().iter().cycle().take(32));
    bytes
}

/// The key of a device with that mailbox, as it derives it from its password.
pub(crate) fn private_queue_key(mailbox: MailboxId) -> QueueKey {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&mailbox.0.to_be_bytes());
    QueueKey::from_bytes(bytes)
}

/// The key to which that mailbox is sealed.
pub(crate) fn queue_key(mailbox: MailboxId) -> QueuePublicKey {
    private_queue_key(mailbox).public_key()
}

/// A copy of so many KiB that is not really sealed: storage never looks inside. [`text`] reads it back.
pub(crate) fn sealed_copy(mailbox: MailboxId, kib: u16, text: &[u8]) -> Copy {
    let bucket = Bucket::from_kib(kib).unwrap();
    let mut row = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    row.extend_from_slice(text);
    assert!(row.len() <= bucket.sealed_len());
    row.resize(bucket.sealed_len(), 0);
    Copy {
        mailbox,
        key: queue_key(mailbox),
        sealed: SealedEnvelope {
            bucket,
            row: row.into(),
        },
    }
}

/// Stored at these numbers, by senders whose share is not looked at.
pub(crate) fn placed(seqs: Vec<Seq>) -> Enqueued {
    Enqueued::At(Placed { seqs, put: vec![] })
}

/// What [`sealed_copy`] was given.
pub(crate) fn text(stored: &Stored) -> Vec<u8> {
    let row = &stored.sealed.row;
    assert_eq!(row.len(), stored.sealed.bucket.sealed_len());
    let length = u32::from_be_bytes(row[..4].try_into().unwrap());
    row[4..][..usize::try_from(length).unwrap()].to_vec()
}
