//! Delivers verification codes: hands each to whoever carries SMS or mail, and forgets it.
//!
//! A carrier is told where a code goes and the text with the code in it, and nothing else of the server. What it answers is
//! reduced to three outcomes; neither its words nor where the code went are logged or kept. There is a bound to how long a
//! delivery takes, how often it is tried, and how many are on their way.

mod http;
mod log;
mod smtp;
mod twilio;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::accounts::{CodeRefused, CodeSender, SentCode, Transport};
use crate::auth::Contact;
use crate::telemetry::metrics;

pub use http::HttpClient;
pub use log::Log;
pub use smtp::{Mail, MailTls, Smtp, SmtpError};
pub use twilio::{Twilio, TwilioAccount};
pub use webhook::Webhook;

/// One code, as a carrier is told of it.
pub struct Message<'a> {
    /// A number or an e-mail address.
    to: &'a str,
    /// `sms`, `voice` or `email`.
    transport: &'static str,
    /// What its receiver reads.
    text: &'a str,
    /// The code in that text.
    code: &'a str,
}

/// Whoever carries codes on.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// What it is called in logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether it reads codes out.
    fn speaks(&self) -> bool {
        false
    }

    /// Hands one over.
    async fn carry(&self, message: &Message<'_>) -> Result<(), Failed>;
}

/// A carrier did not take a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It will not carry one there.
    Rejected(&'static str),
    /// It will not now. Nothing personal is in the words.
    Unavailable(&'static str),
    /// It surely has not got it, or lost it: another try may help.
    Again(&'static str),
}

/// The carriers of this server.
pub struct Codes {
    sms: Option<Arc<dyn Carrier>>,
    email: Option<Arc<dyn Carrier>>,
    text: String,
    timeout: Duration,
    in_flight: Semaphore,
}

impl Codes {
    /// With a carrier for numbers, one for e-mail addresses, or both. `{code}` in the text becomes the code.
    pub fn new(
        sms: Option<Arc<dyn Carrier>>,
        email: Option<Arc<dyn Carrier>>,
        text: String,
        timeout: Duration,
        max_in_flight: usize,
    ) -> Self {
        Self {
            sms,
            email,
            text,
            timeout,
            in_flight: Semaphore::new(max_in_flight),
        }
    }

    fn carrier(&self, to: &Contact) -> Option<&Arc<dyn Carrier>> {
        match to {
            Contact::Number(_) => self.sms.as_ref(),
            Contact::Email(_) => self.email.as_ref(),
        }
    }
}

#[async_trait]
impl CodeSender for Codes {
    fn sends(&self, to: &Contact, transport: Transport) -> bool {
        self.carrier(to).is_some_and(|carrier| match (to, transport) {
            (_, Transport::Sms) => true,
            (Contact::Number(_), Transport::Voice) => carrier.speaks(),
            (Contact::Email(_), Transport::Voice) => false,
        })
    }

    async fn send(&self, to: &Contact, transport: Transport, code: &SentCode) -> Result<(), CodeRefused> {
        let Some(carrier) = self.carrier(to) else {
            return Err(CodeRefused::Unavailable);
        };
        let Ok(_place) = self.in_flight.try_acquire() else {
            metrics::code_sent(carrier.name(), "busy");
            return Err(CodeRefused::Busy);
        };
        let text = zeroize::Zeroizing::new(self.text.replace("{code}", code.as_str()));
        let message = Message {
            to: to.as_str(),
            transport: match (to, transport) {
                (Contact::Email(_), _) => "email",
                (Contact::Number(_), Transport::Sms) => "sms",
                (Contact::Number(_), Transport::Voice) => "voice",
            },
            text: &text,
            code: code.as_str(),
        };
        let (outcome, refused, cause) = match carry(carrier.as_ref(), &message, self.timeout).await {
            Ok(()) => {
                metrics::code_sent(carrier.name(), "sent");
                return Ok(());
            }
            Err(Failed::Rejected(cause)) => ("rejected", CodeRefused::Rejected, cause),
            Err(Failed::Unavailable(cause) | Failed::Again(cause)) => ("unavailable", CodeRefused::Unavailable, cause),
        };
        metrics::code_sent(carrier.name(), outcome);
        tracing::warn!(carrier = carrier.name(), cause, "a code was not delivered");
        Err(refused)
    }
}

/// Hands a message over, a second time if the first has surely come to nothing.
async fn carry(carrier: &dyn Carrier, message: &Message<'_>, patience: Duration) -> Result<(), Failed> {
    let once = async || {
        timeout(patience, carrier.carry(message))
            .await
            .unwrap_or(Err(Failed::Unavailable("it did not answer in time")))
    };
    match once().await {
        Err(Failed::Again(_)) => once().await,
        done => done,
    }
}

#[cfg(test)]
mod tests;
