//! Invites: an operator lets in whoever has a code.
//!
//! A code is told once, to who made it; kept is its keyed hash. It is entered where a client asks for the code that was sent,
//! so that clients need to know nothing of invites. What it proves is that somebody was let in, nothing about a number: a
//! number that has an account is started over only by an invite that was made for that.

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::auth::{ServerSecrets, random_invite_id};
use crate::domain::{Clock, Day, Invite, InviteHash};
use crate::sealing::random;
use crate::storage::{InviteStore, StorageError};

/// An invite as its maker wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InviteWish {
    /// How many numbers it lets in.
    pub uses: u32,
    /// For how many days after today it is good; 0 for the rest of today.
    pub days: u16,
    /// Whether it also starts a number over that has an account.
    pub recovers: bool,
    /// The signs of its code.
    pub form: InviteForm,
}

/// The signs of an invite's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteForm {
    /// Letters and digits: 80 random bits.
    Letters,
    /// Digits alone, for clients that take no others: 53 random bits.
    Digits,
}

/// The code of an invite: 16 signs, of which those who type it may take `I` and `L` for `1` and `O` for `0`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteCode([u8; SIGNS]);

impl InviteCode {
    /// A random one.
    fn draw(form: InviteForm) -> Self {
        let signs = match form {
            InviteForm::Letters => ALPHABET.len(),
            InviteForm::Digits => 10,
        };
        let mut code = Self([0; SIGNS]);
        for sign in &mut code.0 {
            *sign = ALPHABET[below(signs)];
        }
        code
    }

    /// Reads what somebody typed; `None` if it is the code of no invite.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TYPED {
            return None;
        }
        let mut code = Self([0; SIGNS]);
        let mut typed = text.bytes().filter(|byte| !matches!(byte, b'-' | b' '));
        for sign in &mut code.0 {
            *sign = match typed.next()?.to_ascii_uppercase() {
                b'I' | b'L' => b'1',
                b'O' => b'0',
                other => other,
            };
            if !ALPHABET.contains(sign) {
                return None;
            }
        }
        typed.next().is_none().then_some(code)
    }

    /// Its signs without anything between them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// In groups of four. The one way to see it: `Debug` does not.
impl fmt::Display for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, sign) in self.0.iter().enumerate() {
            let dash = if at > 0 && at % GROUP == 0 { "-" } else { "" };
            write!(f, "{dash}{}", char::from(*sign))?;
        }
        Ok(())
    }
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteCode")
    }
}

/// Why an invite was not made.
#[derive(Debug, thiserror::Error)]
pub enum InviteRefused {
    /// For nobody, or for too many.
    #[error("an invite is for 1 to {MAX_USES} numbers")]
    Uses,
    /// For too long.
    #[error("an invite is good for at most {MAX_DAYS} days")]
    Days,
    /// There are too many.
    #[error("there are too many invites; revoke some first")]
    TooMany,
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Draws and lists invites. Kept and revoked they are by the operator's acts alone, which are written down.
pub struct Invites {
    store: Arc<dyn InviteStore>,
    secrets: Arc<ServerSecrets>,
    clock: Arc<dyn Clock>,
}

impl Invites {
    /// Over the given store.
    pub fn new(store: Arc<dyn InviteStore>, secrets: Arc<ServerSecrets>, clock: Arc<dyn Clock>) -> Self {
        Self { store, secrets, clock }
    }

    /// One that is not kept yet, with its code and the hash under which it is found.
    pub fn draw(&self, wish: InviteWish) -> Result<(Invite, InviteCode, InviteHash), InviteRefused> {
        if !(1..=MAX_USES).contains(&wish.uses) {
            return Err(InviteRefused::Uses);
        }
        if wish.days > MAX_DAYS {
            return Err(InviteRefused::Days);
        }
        let today = self.today();
        let code = InviteCode::draw(wish.form);
        let invite = Invite {
            id: random_invite_id(),
            uses_left: wish.uses,
            recovers: wish.recovers,
            expires: today.plus(i32::from(wish.days)),
            created: today,
        };
        let hash = self.secrets.hash_invite(code.as_bytes());
        Ok((invite, code, hash))
    }

    /// Those that still let somebody in, the oldest first. There are at most as many as may be open at a time.
    pub async fn list(&self) -> Result<Vec<Invite>, StorageError> {
        self.store.list(self.today()).await
    }

    fn today(&self) -> Day {
        self.clock.now().day()
    }
}

/// A random number below `end`, each as likely as any other.
pub(super) fn below(end: usize) -> usize {
    let end = u32::try_from(end).expect("ends are small");
    // The largest multiple that fits; what lies above it would make small numbers likelier.
    let fair = u32::MAX - u32::MAX % end;
    loop {
        let drawn = u32::from_be_bytes(random());
        if drawn < fair {
            return (drawn % end) as usize;
        }
    }
}

/// Crockford's: no I, L, O or U. The digits come first.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SIGNS: usize = 16;
const GROUP: usize = 4;
const MAX_TYPED: usize = 64;
/// Numbers that one invite may let in.
pub const MAX_USES: u32 = 100_000;
/// Days for which an invite may be good.
pub const MAX_DAYS: u16 = 365;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_code_is_read_as_it_was_shown_and_as_people_type_it() {
        for form in [InviteForm::Letters, InviteForm::Digits] {
            let code = InviteCode::draw(form);
            let shown = code.to_string();
            assert_eq!(shown.len(), 19);
            assert_eq!(shown.split('-').count(), 4);
            for typed in [
                shown.clone(),
                shown.to_lowercase(),
                shown.replace('-', ""),
                shown.replace('-', " "),
                format!(" {}-", shown.replace('1', "l").replace('0', "o")),
                shown.replace('1', "I").replace('0', "O"),
            ] {
                assert!(InviteCode::parse(&typed) == Some(code.clone()), "{typed}");
            }
        }
    }

    #[test]
    fn what_is_no_code_is_none() {
        for text in [
            "",
            "123456",
            "0000-0000-0000-000",
            "0000-0000-0000-00000",
            "0000-0000-0000-000U",
            "0000-0000-0000-000é",
            "0000_0000_0000_0000",
            &"-".repeat(64),
            &format!("{}0000-0000-0000-0000", " ".repeat(46)),
        ] {
            assert!(InviteCode::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn codes_of_digits_have_digits_alone_and_others_have_every_sign() {
        let signs = |form| -> BTreeSet<u8> {
            let drawn = std::iter::repeat_with(|| InviteCode::draw(form)).take(200);
            drawn.flat_map(|code| code.0).collect()
        };
        assert_eq!(signs(InviteForm::Digits), (b'0'..=b'9').collect());
        assert_eq!(signs(InviteForm::Letters), ALPHABET.iter().copied().collect());
    }

    #[test]
    fn a_code_never_prints_itself_by_accident() {
        assert_eq!(format!("{:?}", InviteCode::draw(InviteForm::Letters)), "InviteCode");
    }
}
