//! How accounts begin, change and end: verification of a number, registration, attributes.

mod attributes;
mod codes;
mod register;
mod verification;

pub use attributes::Attributes;
pub use codes::{CodeProvider, CodeRefused, DevelopmentCodes, Transport};
pub use register::{Proof, RegisteredAccount, Registrar, RegistrationRefused, RegistrationRequest};
pub use verification::{SessionId, Verifier};
