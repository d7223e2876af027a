//! Things to store.

use keys_schema::{
    Aci, EcPreKey, EcPublicKey, IdentityKey, KeyId, KyberPreKey, KyberPublicKey, Pni, Signature, SignedEcPreKey,
};
use uuid::Uuid;

use crate::domain::{
    Account, Capabilities, Day, Device, DeviceId, DeviceName, MailboxId, NumberHash, ProtocolAddress, Registration,
    RegistrationId, Sealed, SecretVerifier, SignedKeys, UnidentifiedAccess,
};
use crate::storage::testing::TestDatabase;

/// The registration of account `n` with number `n`. Each call of one `n` differs in nothing; `mailbox` names its queue.
pub(crate) fn registration(n: u8, mailbox: i64) -> Registration {
    Registration {
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
        devices: vec![registration.device],
    }
}

pub(crate) fn device(n: u8, mailbox: i64) -> Device {
    Device {
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
    }
}

/// Registers account `n` with that mailbox.
pub(crate) async fn register(database: &TestDatabase, n: u8, mailbox: i64) -> ProtocolAddress {
    database
        .storage()
        .accounts
        .register(&registration(n, mailbox))
        .await
        .unwrap();
    primary(n)
}

/// Adds device 2 to account 1, with mailbox 1002 and without keys, as a later release would.
pub(crate) async fn add_second_device(database: &TestDatabase) -> ProtocolAddress {
    database
        .execute("INSERT INTO mailboxes (id, last_seq, envelopes, bytes) VALUES (1002, 0, 0, 0)")
        .await;
    database
        .execute(
            "INSERT INTO devices SELECT aci, 2, 1002, 77, 78, name, credential_salt, credential_hash, sealed_number, \
             fetches_messages, capabilities, last_seen FROM devices WHERE registration_id = 2",
        )
        .await;
    ProtocolAddress {
        aci: aci(1),
        device_id: DeviceId::new(2).unwrap(),
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

fn ec_bytes(content: u32) -> Vec<u8> {
    let mut bytes = vec![0x05];
    bytes.extend(content.to_be_bytes().iter().cycle().take(32));
    bytes
}
