//! Phone numbers in E.164 form. Only ever in memory, and only while a request needs them.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// `+` and 5 to 15 digits, the first not zero (ITU-T E.164).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Number(String);

impl Number {
    /// Parses the wire form.
    pub fn parse(text: &str) -> Result<Self, InvalidNumber> {
        let digits = text.strip_prefix('+').ok_or(InvalidNumber)?;
        let valid = (5..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidNumber)
        }
    }

    /// The number that stands for an e-mail address: 999 is no country's code.
    pub(super) fn of_email(digits: u64) -> Self {
        Self(format!("{EMAIL_PREFIX}{digits:012}"))
    }

    /// Whether it could only be one that stands for an e-mail address.
    pub fn is_of_email(&self) -> bool {
        self.0.starts_with(EMAIL_PREFIX)
    }

    /// The wire form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Number")
    }
}

const EMAIL_PREFIX: &str = "+999";

/// Not a number in E.164 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number is + and 5 to 15 digits")]
pub struct InvalidNumber;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_plus_and_5_to_15_digits() {
        for good in ["+15550100001", "+12345", "+123456789012345"] {
            assert_eq!(Number::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "+",
            "15550100001",
            "+1234",
            "+1234567890123456",
            "+05550100",
            "+1555 010",
            "+1555０10",
        ] {
            assert_eq!(Number::parse(bad), Err(InvalidNumber), "{bad:?}");
        }
    }

    #[test]
    fn a_number_never_prints_itself() {
        assert_eq!(format!("{:?}", Number::parse("+15550100001").unwrap()), "Number");
    }
}
