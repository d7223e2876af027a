//! Verification sessions: a client proves that it may use a number, as far as the policy asks for it.
//!
//! The session's id is known to the client alone. The server keeps its hash, and where codes go sealed to a key derived from
//! the id, so that it can be read only while the client is asking. The hash of a code that was sent is keyed by the id too.
//! Nothing here looks for an account: known and unknown numbers are the same until they are registered.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;

use crate::auth::{Contact, Number, ServerSecrets, open_session_contact, seal_session_contact, session_key};
use crate::domain::{Attempt, Clock, Done, MAX_CODES, Timestamp, VerificationSession};
use crate::encoding::BASE64_URL;
use crate::sealing::random;
use crate::storage::{AccountStore, InviteStore, StorageError};

use super::codes::{CodeRefused, CodeSender, SentCode, Transport};
use super::invites::InviteCode;
use super::work::WorkBits;

/// The name of a session, as the client has it.
#[derive(Clone)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// Parses the URL-safe base64 form.
    pub fn parse(text: &str) -> Option<Self> {
        BASE64_URL.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The form for paths.
    pub fn encode(&self) -> String {
        BASE64_URL.encode(self.0)
    }
}

/// Who may register.
#[derive(Clone)]
pub enum Policy {
    /// Anyone: any code of a plausible form is right, and none is sent. Whoever can reach the server can register any number.
    Open,
    /// Whoever has the code of an invite.
    Invite(Arc<dyn InviteStore>),
    /// Whoever gets the code that is sent.
    Otp(Arc<dyn CodeSender>),
    /// Nobody.
    Closed,
}

/// A session as its client may know it: what can be done, and when. In whole seconds; `None` for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether a code may be asked for and tried.
    pub open: bool,
    /// Until a code can be had as text.
    pub next_sms: Option<u32>,
    /// Until one is read out.
    pub next_call: Option<u32>,
    /// Until one may be tried.
    pub next_attempt: Option<u32>,
    /// The work that is to be done first.
    pub work: Option<WorkBits>,
    /// The number that stands for the session's e-mail address.
    pub number: Option<Number>,
}

/// A code that a client asks for.
#[derive(Debug)]
pub enum Asked {
    /// Nothing is sent under this policy, and nothing needs to be.
    Nothing,
    /// It may be sent.
    May(Outgoing),
    /// Not that way.
    Transport,
    /// Not for so long.
    TooSoon(Duration),
}

/// A code that may be sent.
#[derive(Debug)]
pub struct Outgoing {
    to: Contact,
    transport: Transport,
}

/// What became of an answer to a challenge.
#[derive(Debug)]
pub enum Worked {
    /// It was right, now or before.
    Done(VerificationSession),
    /// It is wrong.
    Wrong(VerificationSession),
    /// The session is gone.
    Gone,
}

/// What became of a code that was to be sent.
#[derive(Debug)]
pub enum Sent {
    /// It is on its way.
    Done(VerificationSession),
    /// Another request was quicker, or the session is over.
    TooLate(VerificationSession),
    /// It could not be delivered.
    Refused(CodeRefused, VerificationSession),
    /// The session is gone.
    Gone,
}

/// Opens sessions and checks codes.
pub struct Verifier {
    store: Arc<dyn AccountStore>,
    secrets: Arc<ServerSecrets>,
    policy: Policy,
    work: Option<WorkBits>,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// A verifier that asks for what the policy says, and for some work before.
    pub fn new(
        store: Arc<dyn AccountStore>,
        secrets: Arc<ServerSecrets>,
        policy: Policy,
        work: Option<WorkBits>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            secrets,
            policy,
            work,
            clock,
        }
    }

    /// Whether anybody may register.
    pub fn is_closed(&self) -> bool {
        matches!(self.policy, Policy::Closed)
    }

    /// Whether a session may be opened for it. Where codes are sent, the number of an e-mail address is none to send to.
    pub fn may_verify(&self, contact: &Contact) -> bool {
        match (&self.policy, contact) {
            (Policy::Otp(_), Contact::Number(number)) => !number.is_of_email(),
            _ => true,
        }
    }

    /// Opens a session for a number, or for the number that stands for an e-mail address. It lives for 10 minutes.
    pub async fn open(&self, contact: &Contact) -> Result<(SessionId, VerificationSession), StorageError> {
        let id = SessionId(random());
        let number = self.number_of(contact);
        let session = VerificationSession {
            key: session_key(&id.0),
            number: self.secrets.hash_number(&number),
            sealed_number: seal_session_contact(&id.0, contact),
            verified: false,
            new_only: false,
            attempts: 0,
            codes_sent: 0,
            has_code: false,
            next_code: None,
            worked: false,
            expires: self.clock.now().plus_millis(LIFETIME_MILLIS),
        };
        self.store.open_session(&session).await?;
        Ok((id, session))
    }

    /// The session, if it exists and has not expired.
    pub async fn find(&self, id: &SessionId) -> Result<Option<VerificationSession>, StorageError> {
        self.store.find_session(&session_key(&id.0), self.clock.now()).await
    }

    /// What the session's client may do.
    pub fn standing(&self, id: &SessionId, session: &VerificationSession) -> Standing {
        let contact = open_session_contact(&id.0, &session.sealed_number);
        let work = self.outstanding(session);
        let open = !session.verified && !session.is_locked() && work.is_none();
        let (sms, call, attempt) = match (&self.policy, &contact) {
            (Policy::Otp(sender), Some(contact)) => {
                let next = (session.codes_sent < MAX_CODES).then(|| whole_seconds(self.wait(session)));
                let by = |transport| next.filter(|_| sender.sends(contact, transport));
                (by(Transport::Sms), by(Transport::Voice), session.has_code.then_some(0))
            }
            (Policy::Open | Policy::Invite(_), _) => (Some(0), Some(0), Some(0)),
            (Policy::Otp(_), None) | (Policy::Closed, _) => (None, None, None),
        };
        Standing {
            open,
            next_sms: sms.filter(|_| open),
            next_call: call.filter(|_| open),
            next_attempt: attempt.filter(|_| open),
            work: work.filter(|_| !session.verified && !session.is_locked()),
            number: match &contact {
                Some(contact @ Contact::Email(_)) => Some(self.number_of(contact)),
                _ => None,
            },
        }
    }

    /// Takes the answer to the session's challenge. Where none is asked for any more, any is right.
    pub async fn work(
        &self,
        id: &SessionId,
        session: VerificationSession,
        nonce: &str,
    ) -> Result<Worked, StorageError> {
        match self.outstanding(&session) {
            None => Ok(Worked::Done(session)),
            Some(bits) if bits.accepts(&id.encode(), nonce) => {
                let worked = self.store.session_worked(&session.key, self.clock.now()).await?;
                Ok(worked.map_or(Worked::Gone, Worked::Done))
            }
            Some(_) => Ok(Worked::Wrong(session)),
        }
    }

    /// Whether a code may be sent for the session now.
    pub fn ask(&self, id: &SessionId, session: &VerificationSession, transport: Transport) -> Asked {
        let Policy::Otp(sender) = &self.policy else {
            return Asked::Nothing;
        };
        match open_session_contact(&id.0, &session.sealed_number) {
            Some(to) if sender.sends(&to, transport) => {
                if session.codes_sent >= MAX_CODES {
                    return Asked::TooSoon(self.left(session));
                }
                match self.wait(session) {
                    Duration::ZERO => Asked::May(Outgoing { to, transport }),
                    wait => Asked::TooSoon(wait),
                }
            }
            _ => Asked::Transport,
        }
    }

    /// Draws a code, keeps its hash, and has it delivered. Of several at once one is.
    pub async fn send(&self, id: &SessionId, outgoing: &Outgoing) -> Result<Sent, StorageError> {
        let Policy::Otp(sender) = &self.policy else {
            return Ok(Sent::Gone);
        };
        let code = SentCode::draw();
        let hash = self.secrets.hash_code(&id.0, code.as_str().as_bytes());
        let now = self.clock.now();
        let next = now.plus_millis(COOL_DOWN_MILLIS);
        let session = match self.store.send_code(&session_key(&id.0), &hash, next, now).await? {
            None => return Ok(Sent::Gone),
            Some(Done {
                counted: false,
                session,
            }) => return Ok(Sent::TooLate(session)),
            Some(Done { counted: true, session }) => session,
        };
        Ok(match sender.send(&outgoing.to, outgoing.transport, &code).await {
            Ok(()) => Sent::Done(session),
            // The hash stays: a carrier that did not answer may have taken it all the same.
            Err(refused) => Sent::Refused(refused, session),
        })
    }

    /// Whether there is something to try. Where codes are sent, one must have been.
    pub fn takes_codes(&self, session: &VerificationSession) -> bool {
        !matches!(self.policy, Policy::Otp(_)) || session.has_code
    }

    /// Tries a code. Says whether the try counted and what the session is afterwards; `None` if it is gone.
    pub async fn try_code(
        &self,
        id: &SessionId,
        session: &VerificationSession,
        code: &str,
    ) -> Result<Option<Done>, StorageError> {
        let now = self.clock.now();
        let attempt = match &self.policy {
            Policy::Open => Attempt::Judged((1..=MAX_CODE_BYTES).contains(&code.len())),
            Policy::Invite(invites) => match InviteCode::parse(code) {
                Some(code) => {
                    let hash = self.secrets.hash_invite(code.as_bytes());
                    return invites.verify(&session.key, &hash, now).await;
                }
                None => Attempt::Judged(false),
            },
            Policy::Otp(_) => match SentCode::parse(code) {
                Some(code) => Attempt::Code(self.secrets.hash_code(&id.0, code.as_str().as_bytes())),
                None => Attempt::Judged(false),
            },
            Policy::Closed => Attempt::Judged(false),
        };
        self.store.try_session(&session.key, &attempt, now).await
    }

    /// How long the session lives.
    pub fn left(&self, session: &VerificationSession) -> Duration {
        until(session.expires, self.clock.now())
    }

    /// How long until another code may be sent.
    fn wait(&self, session: &VerificationSession) -> Duration {
        session
            .next_code
            .map_or(Duration::ZERO, |next| until(next, self.clock.now()))
    }

    fn outstanding(&self, session: &VerificationSession) -> Option<WorkBits> {
        self.work.filter(|_| !session.worked)
    }

    fn number_of(&self, contact: &Contact) -> Number {
        match contact {
            Contact::Number(number) => number.clone(),
            Contact::Email(email) => self.secrets.number_of_email(email),
        }
    }
}

fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0))
}

/// The seconds after which so much time has passed.
pub fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

const LIFETIME_MILLIS: i64 = 10 * 60 * 1000;
const COOL_DOWN_MILLIS: i64 = 60 * 1000;
const MAX_CODE_BYTES: usize = 64;

#[cfg(test)]
mod tests;
