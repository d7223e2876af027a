//! Does a sender know the recipient's devices as they are?

use bytes::Bytes;

use crate::domain::{Account, DeviceId, IdentityKind, MailboxId};

/// One copy of a send, as its sender addressed it.
#[derive(Clone)]
pub struct OutgoingCopy {
    /// The device the sender means.
    pub device_id: DeviceId,
    /// The registration id the sender knows.
    pub registration_id: u32,
    /// Size of the ciphertext alone, in bytes.
    pub content_bytes: usize,
    /// The envelope as it will be delivered.
    pub envelope: Bytes,
}

/// How the devices a sender named differ from those that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceMismatch {
    /// Sessions with these devices are with an earlier registration of theirs.
    Stale(Vec<DeviceId>),
    /// The set of devices is another.
    Other {
        /// There are these, too.
        missing: Vec<DeviceId>,
        /// These do not exist.
        extra: Vec<DeviceId>,
    },
}

/// The mailbox of each copy, in the order of the copies, if they name exactly the devices that there are.
///
/// Old registrations are reported before a wrong set of devices: a sender that learns of both at once corrects the
/// sessions first.
pub(super) fn check_devices(
    account: &Account,
    kind: IdentityKind,
    copies: &[OutgoingCopy],
    sender: Option<DeviceId>,
) -> Result<Vec<MailboxId>, DeviceMismatch> {
    let mut mailboxes = Vec::with_capacity(copies.len());
    let mut stale = Vec::new();
    let mut extra = Vec::new();
    for copy in copies {
        match account.device(copy.device_id) {
            None => extra.push(copy.device_id),
            Some(device) if u32::from(device.registration_id(kind).get()) != copy.registration_id => {
                stale.push(device.id);
            }
            Some(device) => mailboxes.push(device.mailbox),
        }
    }
    if !stale.is_empty() {
        return Err(DeviceMismatch::Stale(stale));
    }
    let named = |id: DeviceId| copies.iter().any(|copy| copy.device_id == id);
    let missing: Vec<_> = account
        .devices
        .iter()
        .map(|device| device.id)
        .filter(|id| Some(*id) != sender && !named(*id))
        .collect();
    if missing.is_empty() && extra.is_empty() {
        Ok(mailboxes)
    } else {
        Err(DeviceMismatch::Other { missing, extra })
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

    fn copies(named: &[(u64, u32)]) -> Vec<OutgoingCopy> {
        let copy = |(device, registration_id): &(u64, u32)| OutgoingCopy {
            device_id: id(*device),
            registration_id: *registration_id,
            content_bytes: 1,
            envelope: Bytes::new(),
        };
        named.iter().map(copy).collect()
    }

    fn check(
        kind: IdentityKind,
        named: &[(u64, u32)],
        sender: Option<DeviceId>,
    ) -> Result<Vec<MailboxId>, DeviceMismatch> {
        check_devices(&three_devices(), kind, &copies(named), sender)
    }

    #[test]
    fn exactly_the_devices_that_there_are_get_a_copy_in_the_order_they_were_named() {
        let mailboxes = check(IdentityKind::Aci, &[(3, 103), (1, 101), (2, 102)], NOBODY);
        assert_eq!(mailboxes, Ok(vec![MailboxId(30), MailboxId(10), MailboxId(20)]));
    }

    #[test]
    fn each_namespace_has_its_own_registration_ids() {
        assert!(check(IdentityKind::Pni, &[(1, 201), (2, 202), (3, 203)], NOBODY).is_ok());
        let stale = check(IdentityKind::Pni, &[(1, 101), (2, 202), (3, 203)], NOBODY);
        assert_eq!(stale, Err(DeviceMismatch::Stale(vec![id(1)])));
    }

    #[test]
    fn missing_and_extra_devices_are_named_together() {
        let other = check(IdentityKind::Aci, &[(1, 101), (9, 1)], NOBODY);
        assert_eq!(
            other,
            Err(DeviceMismatch::Other {
                missing: vec![id(2), id(3)],
                extra: vec![id(9)]
            })
        );
    }

    #[test]
    fn stale_devices_are_reported_before_a_wrong_set() {
        let stale = check(IdentityKind::Aci, &[(1, 999), (9, 1)], NOBODY);
        assert_eq!(stale, Err(DeviceMismatch::Stale(vec![id(1)])));
    }

    #[test]
    fn the_sending_device_needs_no_copy_of_its_own_message() {
        assert!(check(IdentityKind::Aci, &[(2, 102), (3, 103)], Some(id(1))).is_ok());
        assert!(check(IdentityKind::Aci, &[(3, 103)], Some(id(1))).is_err());
    }
}
