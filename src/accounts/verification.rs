//! Verification sessions: a client proves that it may use a number.
//!
//! The session's id is known to the client alone. The server keeps its hash, and the number sealed to a key derived from
//! the id, so that the number can be read only while the client is asking.

use std::sync::Arc;

use base64::Engine;

use crate::auth::{Number, ServerSecrets, open_session_number, seal_session_number, session_key};
use crate::domain::{Clock, VerificationSession};
use crate::encoding::BASE64_URL;
use crate::sealing::random;
use crate::storage::{AccountStore, StorageError};

use super::codes::{CodeProvider, CodeRefused, Transport};

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

/// Opens sessions and checks codes.
pub struct Verifier {
    store: Arc<dyn AccountStore>,
    secrets: Arc<ServerSecrets>,
    codes: Arc<dyn CodeProvider>,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// A verifier with the given source of codes.
    pub fn new(
        store: Arc<dyn AccountStore>,
        secrets: Arc<ServerSecrets>,
        codes: Arc<dyn CodeProvider>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            secrets,
            codes,
            clock,
        }
    }

    /// Opens a session for a number. It lives for 10 minutes.
    pub async fn open(&self, number: &Number) -> Result<(SessionId, VerificationSession), StorageError> {
        let id = SessionId(random());
        let session = VerificationSession {
            key: session_key(&id.0),
            number: self.secrets.hash_number(number),
            sealed_number: seal_session_number(&id.0, number),
            verified: false,
            attempts: 0,
            expires: self.clock.now().plus_millis(LIFETIME_MILLIS),
        };
        self.store.open_session(&session).await?;
        Ok((id, session))
    }

    /// The session, if it exists and has not expired.
    pub async fn find(&self, id: &SessionId) -> Result<Option<VerificationSession>, StorageError> {
        self.store.find_session(&session_key(&id.0), self.clock.now()).await
    }

    /// Has a code sent for the session.
    pub async fn send_code(
        &self,
        id: &SessionId,
        session: &VerificationSession,
        transport: Transport,
    ) -> Result<(), CodeRefused> {
        let number = open_session_number(&id.0, &session.sealed_number).ok_or(CodeRefused::Unavailable)?;
        self.codes.send(&number, transport).await
    }

    /// Tries a code and returns the session as it is afterwards; `None` if it is gone.
    pub async fn try_code(
        &self,
        id: &SessionId,
        session: &VerificationSession,
        code: &str,
    ) -> Result<Option<VerificationSession>, StorageError> {
        let right = match open_session_number(&id.0, &session.sealed_number) {
            Some(number) => self.codes.accepts(&number, code).await,
            None => false,
        };
        self.store.try_session(&session.key, right, self.clock.now()).await
    }
}

const LIFETIME_MILLIS: i64 = 10 * 60 * 1000;
