//! Does a sender know the recipient's devices as they are?

use bytes::Bytes;

use crate::domain::{Account, DeviceId, IdentityKind, MailboxId};

/// A device as a sender addressed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedDevice {
    /// The device the sender means.
    pub device_id: DeviceId,
    /// The registration id the sender knows.
    pub registration_id: u32,
}

/// One copy of a send, as its sender addressed it.
#[derive(Clone)]
pub struct OutgoingCopy {
    /// For which device.
    pub device: NamedDevice,
    /// Size of the ciphertext alone, in bytes.
    pub content_bytes: usize,
    /// The envelope as it will be delivered.
    pub envelope: Bytes,
}

/// How the devices a sender named differ from those that there are. At least one of the lists is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceMismatch {
    /// There are these, too.
    pub missing: Vec<DeviceId>,
    /// These do not exist.
    pub extra: Vec<DeviceId>,
    /// Sessions with these are with an earlier registration of theirs.
    pub stale: Vec<DeviceId>,
}

impl DeviceMismatch {
    /// Whether the set of devices is another, whatever their registrations.
    pub fn is_other_set(&self) -> bool {
        !self.missing.is_empty() || !self.extra.is_empty()
    }
}

/// The mailbox of each copy, in the order in which the devices are named, if they are exactly those that there are.
/// `sender` is the sending device when it is one of the account's own: it needs no copy.
pub(super) fn check_devices(
    account: &Account,
    kind: IdentityKind,
    named: &[NamedDevice],
    sender: Option<DeviceId>,
) -> Result<Vec<MailboxId>, DeviceMismatch> {
    let mut mailboxes = Vec::with_capacity(named.len());
    let mut mismatch = DeviceMismatch::default();
    for name in named {
        match account.device(name.device_id) {
            None => mismatch.extra.push(name.device_id),
            Some(device) if u32::from(device.registration_id(kind).get()) != name.registration_id => {
                mismatch.stale.push(device.id);
            }
            Some(device) => mailboxes.push(device.mailbox),
        }
    }
    let is_named = |id: DeviceId| named.iter().any(|name| name.device_id == id);
    let others = account.devices.iter().map(|device| device.id);
    mismatch.missing = others.filter(|id| Some(*id) != sender && !is_named(*id)).collect();
    if mismatch == DeviceMismatch::default() {
        Ok(mailboxes)
    } else {
        Err(mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Device, RegistrationId};
    use crate::storage::conformance::fixtures::{account, device};

    const NOBODY: Option<DeviceId> = None;

    fn id(id: u64) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    /// Devices 1, 2 and 3, with mailboxes 10, 20 and 30 and registration ids 101, 102 and 103.
    fn three_devices() -> Account {
        let devices = [1, 2, 3].map(|n| Device {
            id: id(n),
            registration_id: RegistrationId::new(100 + n).unwrap(),
            pni_registration_id: RegistrationId::new(200 + n).unwrap(),
            ..device(1, i64::try_from(n).unwrap() * 10)
        });
        Account {
            devices: devices.to_vec(),
            ..account(1, 10)
        }
    }

    fn names(named: &[(u64, u32)]) -> Vec<NamedDevice> {
        let name = |(device, registration_id): &(u64, u32)| NamedDevice {
            device_id: id(*device),
            registration_id: *registration_id,
        };
        named.iter().map(name).collect()
    }

    fn stale(devices: &[u64]) -> DeviceMismatch {
        DeviceMismatch {
            stale: devices.iter().map(|n| id(*n)).collect(),
            ..DeviceMismatch::default()
        }
    }

    fn check(
        kind: IdentityKind,
        named: &[(u64, u32)],
        sender: Option<DeviceId>,
    ) -> Result<Vec<MailboxId>, DeviceMismatch> {
        check_devices(&three_devices(), kind, &names(named), sender)
    }

    #[test]
    fn exactly_the_devices_that_there_are_get_a_copy_in_the_order_they_were_named() {
        let mailboxes = check(IdentityKind::Aci, &[(3, 103), (1, 101), (2, 102)], NOBODY);
        assert_eq!(mailboxes, Ok(vec![MailboxId(30), MailboxId(10), MailboxId(20)]));
    }

    #[test]
    fn each_namespace_has_its_own_registration_ids() {
        assert!(check(IdentityKind::Pni, &[(1, 201), (2, 202), (3, 203)], NOBODY).is_ok());
        let old = check(IdentityKind::Pni, &[(1, 101), (2, 202), (3, 203)], NOBODY);
        assert_eq!(old, Err(stale(&[1])));
    }

    #[test]
    fn missing_and_extra_devices_are_named_together() {
        let other = check(IdentityKind::Aci, &[(1, 101), (9, 1)], NOBODY);
        assert_eq!(
            other,
            Err(DeviceMismatch {
                missing: vec![id(2), id(3)],
                extra: vec![id(9)],
                stale: vec![],
            })
        );
    }

    #[test]
    fn stale_devices_are_named_beside_a_wrong_set() {
        let mismatch = check(IdentityKind::Aci, &[(1, 999), (2, 102), (9, 1)], NOBODY).unwrap_err();
        assert_eq!(mismatch.stale, [id(1)]);
        assert_eq!(
            (mismatch.missing.as_slice(), mismatch.extra.as_slice()),
            ([id(3)].as_slice(), [id(9)].as_slice())
        );
        assert!(mismatch.is_other_set());
        assert!(!stale(&[1]).is_other_set());
    }

    #[test]
    fn the_sending_device_needs_no_copy_of_its_own_message() {
        assert!(check(IdentityKind::Aci, &[(2, 102), (3, 103)], Some(id(1))).is_ok());
        assert!(check(IdentityKind::Aci, &[(3, 103)], Some(id(1))).is_err());
    }
}
