//! Where a device that is about to be linked waits.

/// The name of one waiting device: random, told to that device alone, and spent on the first message.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProvisioningAddress(pub [u8; 16]);
