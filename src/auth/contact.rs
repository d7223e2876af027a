//! Where a code can be sent: a number or an e-mail address. Only ever in memory, and only while a request needs it.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Number;

/// An e-mail address, in lower case: of people who differ in the case of a letter alone the mail goes to one.
///
/// What is taken is narrower than RFC 5321: letters, digits and a few signs of ASCII, a name of dots and labels behind the
/// `@`. Nothing in it means anything in a header or a command of SMTP.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// Parses what a client sent.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let (local, domain) = text.split_once('@').ok_or(InvalidEmail)?;
        if text.len() > MAX_BYTES || !is_local_part(local) || !is_domain(domain) {
            return Err(InvalidEmail);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is behind the `@`.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress")
    }
}

/// Not an e-mail address that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an e-mail address is NAME@DOMAIN in ASCII, of at most 254 bytes")]
pub struct InvalidEmail;

/// Where the codes of one session go.
#[derive(Clone, PartialEq, Eq)]
pub enum Contact {
    /// A phone.
    Number(Number),
    /// A mailbox.
    Email(EmailAddress),
}

impl Contact {
    /// As text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(number) => number.as_str(),
            Self::Email(email) => email.as_str(),
        }
    }

    /// In a form that tells by its length that it is an address, and little of which.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(self.as_str().as_bytes().to_vec());
        if let Self::Email(_) = self {
            let padded = bytes.len().next_multiple_of(PADDED);
            bytes.resize(padded, 0);
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
        if text.starts_with('+') && !text.contains('@') {
            return Number::parse(text).ok().map(Self::Number);
        }
        EmailAddress::parse(text).ok().map(Self::Email)
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contact")
    }
}

/// Words of RFC 5322's `atext`, with single dots between them.
fn is_local_part(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
    text.len() <= MAX_LOCAL_BYTES
        && text
            .split('.')
            .all(|word| !word.is_empty() && word.bytes().all(is_sign))
}

/// Two labels or more, of which the last is no number: an address of a host is not taken.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.contains('.') && text.split('.').all(is_label) && last.bytes().any(|byte| byte.is_ascii_alphabetic())
}

const MAX_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;
const MAX_LABEL_BYTES: usize = 63;
const PADDED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_lower_case() {
        for (text, taken) in [
            ("alice@example.org", "alice@example.org"),
            ("Alice.B+relay@Mail.Example.ORG", "alice.b+relay@mail.example.org"),
            ("a@b.c", "a@b.c"),
            ("o'neil_{x}~@xn--bcher-kva.example", "o'neil_{x}~@xn--bcher-kva.example"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), taken);
        }
        assert_eq!(EmailAddress::parse("a@B.c").unwrap().domain(), "b.c");
    }

    #[test]
    fn what_is_no_address_or_could_be_more_than_one_is_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long_label = format!("a@{}.org", "a".repeat(64));
        for bad in [
            "",
            "@",
            "alice",
            "alice@",
            "@example.org",
            "alice@localhost",
            "alice@example..org",
            "alice@.example.org",
            "alice@example.org.",
            "alice@-example.org",
            "alice@example-.org",
            "alice@127.0.0.1",
            "alice@[127.0.0.1]",
            "al ice@example.org",
            ".alice@example.org",
            "alice.@example.org",
            "al..ice@example.org",
            "alice@bob@example.org",
            "\"alice\"@example.org",
            "alice@example.org\r\nBcc: bob@example.org",
            "alice\r\n@example.org",
            "alice\0@example.org",
            "<alice@example.org>",
            "alice@example.org,bob@example.org",
            "alice@exämple.org",
            "älice@example.org",
            "alice@example.org ",
            &long_local,
            &long_label,
        ] {
            assert_eq!(EmailAddress::parse(bad), Err(InvalidEmail), "{bad:?}");
        }
    }

    #[test]
    fn an_address_has_254_bytes_at_most() {
        let ending = |end: &str| format!("{}@{}{end}", "a".repeat(64), "abcdefgh.".repeat(20));
        let (longest, too_long) = (ending("abcde.org"), ending("abcdef.org"));
        assert_eq!((longest.len(), too_long.len()), (254, 255));
        assert_eq!(EmailAddress::parse(&longest).unwrap().as_str(), longest);
        assert_eq!(EmailAddress::parse(&too_long), Err(InvalidEmail));
    }

    #[test]
    fn a_contact_comes_back_from_its_bytes_and_an_address_hides_its_length() {
        let number = Contact::Number(Number::parse("+15550100001").unwrap());
        let short = Contact::Email(EmailAddress::parse("a@b.cd").unwrap());
        let longer = Contact::Email(EmailAddress::parse("+alice.in.wonderland@example.org").unwrap());
        for contact in [&number, &short, &longer] {
            assert!(Contact::from_bytes(&contact.to_bytes()).as_ref() == Some(contact));
        }
        assert_eq!(short.to_bytes().len(), longer.to_bytes().len());
        for bad in [&b""[..], b"alice", b"+1", &[0xff; 20]] {
            assert!(Contact::from_bytes(bad).is_none());
        }
    }

    #[test]
    fn neither_prints_itself() {
        let email = EmailAddress::parse("alice@example.org").unwrap();
        assert_eq!(
            format!("{email:?} {:?}", Contact::Email(email.clone())),
            "EmailAddress Contact"
        );
    }
}
