//! Settings of registration and of codes.

use super::*;
use crate::config::{Config, ConfigError, parse_toml};

fn refused(text: &str) -> String {
    match parse_toml(text) {
        Ok(_) => panic!("{text} is taken"),
        Err(error) => error.to_string(),
    }
}

fn taken(text: &str) -> Config {
    let parsed: Result<Config, ConfigError> = parse_toml(text);
    parsed.unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn nobody_comes_in_from_elsewhere_unless_somebody_says_so() {
    for (text, expected) in [
        ("", Registration::Open),
        ("listen = ['[::1]:1']", Registration::Open),
        ("listen = ['0.0.0.0:8080']", Registration::Closed { chosen: false }),
        (
            "listen = ['127.0.0.1:1', '192.0.2.1:1']",
            Registration::Closed { chosen: false },
        ),
        ("registration = 'closed'", Registration::Closed { chosen: true }),
        ("listen = ['0.0.0.0:1']\nregistration = 'open'", Registration::Open),
        ("listen = ['0.0.0.0:1']\nregistration = 'invite'", Registration::Invite),
        ("registration = 'otp'\n[codes]\nsms = 'log'", Registration::Otp),
    ] {
        assert_eq!(taken(text).registration, expected, "{text}");
    }
    assert!(refused("registration = 'all'").contains("choose open, invite, otp or closed"));
}

#[test]
fn codes_need_somebody_who_carries_them() {
    for (text, remedy) in [
        ("registration = 'otp'", "say who in codes.sms or codes.email"),
        ("[codes]\nsms = 'pigeon'", "choose log, twilio or webhook"),
        ("[codes]\nemail = 'twilio'", "choose log, smtp or webhook"),
        ("[codes]\nsms = 'twilio'", "codes.twilio_account_sid"),
        ("[codes]\nemail = 'smtp'", "give codes.smtp_host and codes.smtp_from"),
        (
            "[codes]\nsms = 'webhook'",
            "give codes.webhook_url and codes.webhook_secret",
        ),
        (
            "listen = ['0.0.0.0:1']\n[codes]\nsms = 'log'",
            "use log for trials on loopback",
        ),
        (
            "listen = ['0.0.0.0:1']\n[codes]\nemail = 'log'",
            "use log for trials on loopback",
        ),
        ("[codes]\ntext = 'no code'", "{code}"),
        ("[codes]\ntext = '{code} {code}'", "{code}"),
        ("[codes]\ntext = \"{code}\\n\"", "{code}"),
        ("[codes]\ntimeout_secs = 13", "choose a number from 1 to 12"),
        ("registration_work_bits = 7", "choose a number from 8 to 32"),
        ("registration_work_bits = 33", "choose a number from 0 to 32"),
    ] {
        let message = refused(text);
        assert!(message.contains(remedy), "{text}: {message}");
    }
    assert_eq!(taken("registration_work_bits = 20").registration_work_bits, Some(20));
    assert_eq!(taken("").registration_work_bits, None);
}

#[test]
fn codes_pass_by_tls_or_stay_on_the_machine() {
    let webhook =
        |url: &str| format!("[codes]\nsms = 'webhook'\nwebhook_url = '{url}'\nwebhook_secret = '0123456789abcdef'");
    for good in [
        "https://hooks.example.org/codes?x=1",
        "https://192.0.2.1:8443/",
        "http://127.0.0.1:8081/codes",
        "http://[::1]:8081/",
        "http://localhost/",
    ] {
        assert!(matches!(taken(&webhook(good)).codes.sms, Some(SmsCarrier::Webhook(_))));
    }
    for bad in [
        "http://hooks.example.org/",
        "http://127.0.0.1.example.org/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1@example.org/",
        "https://",
        "https:///codes",
        "ftp://127.0.0.1/",
        "hooks.example.org",
        "https://hooks.example.org/a b",
    ] {
        assert!(refused(&webhook(bad)).contains("codes.webhook_url"), "{bad}");
    }
    assert!(refused("[codes]\nwebhook_url = 'https://x.example'\nwebhook_secret = 'short'").contains("openssl rand"));
    let smtp = |rest: &str| format!("[codes]\nemail = 'smtp'\nsmtp_from = 'relay@example.org'\n{rest}");
    for (good, tls) in [
        ("smtp_host = 'mail.example.org'", SmtpTls::StartTls),
        ("smtp_host = 'mail.example.org'\nsmtp_tls = 'tls'", SmtpTls::Tls),
        ("smtp_host = 'localhost'\nsmtp_tls = 'none'", SmtpTls::None),
    ] {
        let Some(EmailCarrier::Smtp(server)) = taken(&smtp(good)).codes.email else {
            panic!("{good}");
        };
        assert_eq!((server.tls, server.port), (tls, 587));
    }
    for (bad, key) in [
        ("smtp_host = 'mail.example.org'\nsmtp_tls = 'none'", "codes.smtp_tls"),
        ("smtp_host = 'mail example'", "codes.smtp_host"),
        ("smtp_host = 'mail.example.org'\nsmtp_user = 'relay'", "codes.smtp_user"),
        (
            "smtp_host = 'mail.example.org'\nsmtp_subject = \"a\\r\\nBcc: b\"",
            "codes.smtp_subject",
        ),
        ("smtp_host = 'mail.example.org'\nsmtp_port = 0", "codes.smtp_port"),
    ] {
        assert!(refused(&smtp(bad)).contains(key), "{bad}");
    }
    assert!(refused("[codes]\nsmtp_host = 'mail.example.org'\nsmtp_from = 'relay'").contains("codes.smtp_from"));
}

#[test]
fn a_carrier_is_described_whole() {
    let text =
        "[codes]\nsms = 'twilio'\ntwilio_account_sid = 'AC01'\ntwilio_auth_token = 'token'\ntwilio_from = '+15550100'";
    let Some(SmsCarrier::Twilio { url, from, .. }) = taken(text).codes.sms else {
        panic!("it is described");
    };
    assert_eq!((url.as_str(), from.as_str()), ("https://api.twilio.com", "+15550100"));
    for (without, key) in [
        ("twilio_auth_token", "codes.twilio_auth_token"),
        ("twilio_from", "codes.twilio_from"),
        ("twilio_account_sid", "codes.twilio_account_sid"),
    ] {
        let rest: Vec<&str> = text.lines().filter(|line| !line.starts_with(without)).collect();
        assert!(refused(&rest.join("\n")).contains(key), "{without}");
    }
}
