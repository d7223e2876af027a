//! Values that are used and never shown. [`Secret`] has no `Debug`, `Display` or `Serialize`, so that no log line, error
//! or dump of the settings can hold one by accident.

use zeroize::Zeroizing;

/// A secret setting.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What stands for a secret: all of it hidden, but of a URL only the password, since the rest helps to find a mistake.
pub fn mask(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return if text.starts_with("sqlite:") {
            text.to_owned()
        } else {
            MASK.to_owned()
        };
    };
    // The last `@`: a password that should have been percent-encoded may hold others, and slashes too.
    let rest = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((name, _)) => format!("{name}:{MASK}@{host}"),
            None => format!("{credentials}@{host}"),
        },
        None => rest.to_owned(),
    };
    format!("{scheme}://{}", mask_query(&rest))
}

/// Database URLs may carry the password as a parameter.
fn mask_query(rest: &str) -> String {
    let Some((path, query)) = rest.split_once('?') else {
        return rest.to_owned();
    };
    let parameters: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}={MASK}"),
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{path}?{}", parameters.join("&"))
}

const MASK: &str = "****";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_only_the_password_of_a_url() {
        assert_eq!(
            mask("postgres://relay:hunter2@db:5432/relay"),
            "postgres://relay:****@db:5432/relay"
        );
        assert_eq!(mask("redis://:hunter2@cache:6379/0"), "redis://:****@cache:6379/0");
        assert_eq!(mask("redis://cache:6379"), "redis://cache:6379");
        assert_eq!(mask("postgres://relay@db/relay"), "postgres://relay@db/relay");
    }

    #[test]
    fn masks_passwords_that_break_the_form_of_a_url() {
        assert_eq!(
            mask("postgres://relay:a/b@c?d@db/relay"),
            "postgres://relay:****@db/relay"
        );
        assert_eq!(
            mask("postgres://db/relay?user=u&password=p&x=1"),
            "postgres://db/relay?user=u&password=****&x=1"
        );
    }

    #[test]
    fn masks_all_of_what_is_no_url() {
        assert_eq!(mask("host=db password=hunter2"), "****");
        assert_eq!(mask("0011223344"), "****");
        assert_eq!(mask(""), "");
        assert_eq!(mask("sqlite:relay.db"), "sqlite:relay.db");
    }
}
