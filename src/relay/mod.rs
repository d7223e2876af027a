//! From a send to an acknowledgement.
//!
//! [`accept`] checks a send against the recipient's devices, [`writer`] makes it durable together with whatever else
//! arrives meanwhile, [`presence`] rings the bell of the recipient's session, and [`session`] decides what that session
//! hands out next. [`tick`] looks into storage for whatever a lost hint left behind.

pub mod accept;
pub mod presence;
pub mod session;
pub mod tick;
pub mod writer;

pub use accept::{DeviceMismatch, OutgoingCopy, Relay, SendOutcome};
