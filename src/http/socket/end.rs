//! Why a socket ends, and what its client is told.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::relay::bell::Dismissal;

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client said goodbye, or is gone.
    Left,
    Dismissed(Dismissal),
    Stopping,
    /// A full window, or a full socket, for too long.
    Stalled,
    /// Nothing was heard, not even an answer to a ping.
    Silent,
    /// What the socket was opened for is done.
    Done,
    /// The time that such a socket has is over.
    TimedOut,
    BadFrame,
    TooLarge,
    BadProtocol,
}

impl End {
    /// For metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Dismissed(Dismissal::Displaced) => "displaced",
            Self::Dismissed(Dismissal::CredentialsDead) => "credentials_dead",
            Self::Stopping => "stopping",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
            Self::Done => "done",
            Self::TimedOut => "timed_out",
            Self::BadFrame => "bad_frame",
            Self::TooLarge => "too_large",
            Self::BadProtocol => "bad_protocol",
        }
    }

    /// What the client is told; `None` if nobody listens.
    pub(super) fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Left | Self::Silent => return None,
            Self::Dismissed(Dismissal::Displaced) => (4409, "Connected elsewhere"),
            Self::Dismissed(Dismissal::CredentialsDead) => (4401, "Reauthentication required"),
            Self::Done => (1000, "Done"),
            Self::TimedOut => (1000, "Timeout"),
            Self::Stopping => (1012, "Service restart"),
            Self::Stalled => (1008, "Too slow"),
            Self::BadFrame => (1007, "Not a message of the wire"),
            Self::TooLarge => (1009, "Message too large"),
            Self::BadProtocol => (1002, "Not the WebSocket protocol"),
        };
        Some(CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        })
    }
}

impl From<&Error> for End {
    fn from(error: &Error) -> Self {
        match error {
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Tls(_)
            // Stock clients leave without a word.
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Left,
            Error::Capacity(_) => Self::TooLarge,
            Error::Utf8(_) => Self::BadFrame,
            _ => Self::BadProtocol,
        }
    }
}
