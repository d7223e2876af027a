//! How accounts begin, change and end: verification of a number, registration, attributes, linked devices.

mod attributes;
mod codes;
mod created_at;
mod invites;
mod link;
mod lock;
mod register;
mod verification;
mod work;

pub use attributes::Attributes;
pub use codes::{CodeRefused, CodeSender, SentCode, Transport};
pub use created_at::created_at;
pub use invites::{InviteCode, InviteForm, InviteRefused, InviteWish, Invites, MAX_DAYS, MAX_USES};
pub use link::{LinkRefused, LinkRequest, LinkToken, LinkedDevice, Linker};
pub use lock::RegistrationLock;
pub use register::{Proof, RegisteredAccount, Registrar, RegistrationRefused, RegistrationRequest};
pub use verification::{Asked, Outgoing, Policy, Sent, SessionId, Standing, Verifier, Worked, whole_seconds};
pub use work::{MAX_NONCE_BYTES, WorkBits};
