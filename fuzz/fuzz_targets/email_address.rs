//! An e-mail address as a client gives it. Whatever is taken means nothing in a header or a command of SMTP.

#![no_main]

use blind_relay::auth::EmailAddress;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(address) = EmailAddress::parse(text) {
        let taken = address.as_str();
        assert!(taken.len() <= 254 && taken.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!taken.contains(['<', '>', ',', ';', ':', '"', '(', ')', '[', ']', '\\']));
        assert!(
            EmailAddress::parse(taken) == Ok(address.clone()),
            "it is taken as it stands"
        );
    }
});
