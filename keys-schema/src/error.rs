//! Why bytes or a string were refused.

use thiserror::Error;

/// Why bytes or a string did not become a type of this crate.
///
/// No variant holds any part of the refused input: the error may be logged or shown, the input may not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The input has another length than its format.
    #[error("{what} must be {expected} bytes long")]
    Length {
        /// What was being read, in words.
        what: &'static str,
        /// The length the format prescribes, in bytes.
        expected: usize,
    },
    /// The first byte of a serialised key does not name a key type we store.
    #[error("{what} has an unsupported type byte")]
    TypeByte {
        /// What was being read, in words.
        what: &'static str,
    },
    /// A string is not a service id in its one accepted spelling, or bytes are not one in the form asked for.
    #[error("malformed service id")]
    ServiceIdForm,
    /// A key id is above [`KeyId::MAX`](crate::KeyId::MAX).
    #[error("key id out of range")]
    KeyIdRange,
    /// Bytes of several parts do not have the structure of what they were taken for.
    #[error("malformed {what}")]
    Malformed {
        /// What was being read, in words.
        what: &'static str,
    },
}
