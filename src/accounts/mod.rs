//! How accounts begin, change and end: verification of a number, registration, attributes, linked devices.

mod attributes;
mod codes;
mod created_at;
mod link;
mod lock;
mod register;
mod verification;

pub use attributes::Attributes;
pub use codes::{CodeProvider, CodeRefused, DevelopmentCodes, Transport};
pub use created_at::created_at;
pub use link::{LinkRefused, LinkRequest, LinkToken, LinkedDevice, Linker};
pub use lock::RegistrationLock;
pub use register::{Proof, RegisteredAccount, Registrar, RegistrationRefused, RegistrationRequest};
pub use verification::{SessionId, Verifier};
