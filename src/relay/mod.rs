//! From a send to an acknowledgement.
//!
//! [`accept`] takes a send whose sender knows the recipient's [`devices`]. Connected devices are handed it by [`direct`], which
//! keeps count of its [`offers`]; for the others, and for those who do not acknowledge it soon, [`writer`] makes it durable
//! together with whatever else arrives meanwhile. [`fan_out`] does all that for many accounts, [`presence`] finds the
//! connection and rings its [`bell`], and [`session`] decides what is handed out next, of what [`drain`] opens. What one sender
//! may have in a queue, [`shares`] says, and [`even`] hides from the sender which way its message went. [`hints`] of other nodes ring the same bells, and [`tick`] looks into storage for
//! whatever a lost hint left behind. [`notices`] are what the server itself has to say.

pub mod accept;
pub mod bell;
pub mod devices;
pub mod direct;
pub mod drain;
pub mod even;
pub mod fan_out;
pub mod hints;
pub mod notices;
pub mod offers;
pub mod presence;
pub mod seen;
pub mod session;
pub mod shares;
pub mod tick;
pub mod writer;

pub use accept::{DirectDelivery, Origin, Relay, SendOutcome};
pub use devices::{DeviceMismatch, NamedDevice, OutgoingCopy};
pub use fan_out::{Addressee, FAN_OUT_ROOM, FanOutOutcome};
pub use shares::{Sender, Shares};
