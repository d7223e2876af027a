//! Who an envelope is for: a device of an account.

use std::fmt;
use std::num::NonZeroU8;

use keys_schema::{Aci, ServiceId};

/// A device number, 1..=127. Device 1 is the primary, the others are linked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(NonZeroU8);

impl DeviceId {
    /// The device that registered the account.
    pub const PRIMARY: Self = Self(NonZeroU8::MIN);
    /// The highest device number that the wire can carry.
    pub const MAX: u8 = 127;

    /// Accepts 1..=127.
    pub fn new(id: u64) -> Result<Self, InvalidAddress> {
        u8::try_from(id)
            .ok()
            .filter(|id| *id <= Self::MAX)
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or(InvalidAddress::DeviceId)
    }

    /// Parses the decimal form used in paths and user names. No sign, no leading zero.
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        if text.len() > 3 || text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidAddress::DeviceId);
        }
        Self::new(text.parse().map_err(|_| InvalidAddress::DeviceId)?)
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceId")
    }
}

/// A number, 1..=16383, that a client draws when it registers a device. A sender whose idea of it is old is told that
/// its session is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationId(u16);

impl RegistrationId {
    /// The highest value: 14 bits.
    pub const MAX: u16 = 0x3fff;

    /// Accepts 1..=16383.
    pub fn new(id: u64) -> Result<Self, InvalidAddress> {
        u16::try_from(id)
            .ok()
            .filter(|id| (1..=Self::MAX).contains(id))
            .map(Self)
            .ok_or(InvalidAddress::RegistrationId)
    }

    /// The number itself.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// One device of one account. The account is always named by its ACI; a PNI is only another way to find it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProtocolAddress {
    /// The account.
    pub aci: Aci,
    /// The device.
    pub device_id: DeviceId,
}

impl fmt::Debug for ProtocolAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProtocolAddress")
    }
}

/// The two namespaces of keys that an account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityKind {
    /// Keys under the account identity.
    Aci,
    /// Keys under the phone-number identity.
    Pni,
}

impl From<&ServiceId> for IdentityKind {
    fn from(id: &ServiceId) -> Self {
        match id {
            ServiceId::Aci(_) => Self::Aci,
            ServiceId::Pni(_) => Self::Pni,
        }
    }
}

/// A number that names no device or no registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Not in 1..=127.
    #[error("device ids run from 1 to 127")]
    DeviceId,
    /// Not in 1..=16383.
    #[error("registration ids run from 1 to 16383")]
    RegistrationId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_run_from_1_to_127() {
        for bad in [0, 128, 255, 256, u64::MAX] {
            assert_eq!(DeviceId::new(bad), Err(InvalidAddress::DeviceId));
        }
        assert_eq!(DeviceId::new(127).unwrap().get(), 127);
    }

    #[test]
    fn device_ids_parse_in_one_form_only() {
        assert_eq!(DeviceId::parse("1"), Ok(DeviceId::PRIMARY));
        for bad in ["", "0", "01", "+1", "-1", " 1", "1 ", "128", "1000", "x", "١"] {
            assert_eq!(DeviceId::parse(bad), Err(InvalidAddress::DeviceId), "{bad:?}");
        }
    }

    #[test]
    fn registration_ids_have_14_bits() {
        for bad in [0, 16_384, u64::MAX] {
            assert_eq!(RegistrationId::new(bad), Err(InvalidAddress::RegistrationId));
        }
        assert_eq!(RegistrationId::new(16_383).unwrap().get(), 16_383);
    }
}
