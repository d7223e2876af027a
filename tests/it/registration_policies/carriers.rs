//! Carriers of codes, each against a real server of its protocol.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::support::carrier::Carrier;
use crate::support::smtp_server::{Protection, SmtpServer};
use crate::support::{Backend, Person, Server, hex, until};

use super::{ask_for_code, open, register, session, try_code};

#[tokio::test]
async fn a_webhook_is_posted_signed_json() {
    let carrier = Carrier::start().await;
    let (url, secret) = (format!("{}/codes", carrier.url()), "a secret of two programs");
    let settings = [
        ("REGISTRATION", "otp"),
        ("CODES__SMS", "webhook"),
        ("CODES__WEBHOOK_URL", url.as_str()),
        ("CODES__WEBHOOK_SECRET", secret),
        ("CODES__TEXT", "Grüße vom Relay: {code}"),
    ];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let number = Person::new().number;
    let session = session(&server, &number).await;
    ask_for_code(&server, &session, "sms").await.expect(200);
    let posted = carrier.posted().pop().unwrap();
    assert_eq!((posted.method.as_str(), posted.path.as_str()), ("POST", "/codes"));
    assert_eq!(posted.header("content-type"), "application/json");
    let code = carrier.last_code().await;
    assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(
        posted.json(),
        json!({ "to": number, "code": code, "text": format!("Grüße vom Relay: {code}"), "transport": "sms" })
    );
    let time = posted.header("x-relay-timestamp");
    assert!(time.parse::<i64>().unwrap() > 1_700_000_000);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time}.{}", posted.body).as_bytes());
    assert_eq!(posted.header("x-relay-signature"), hex(&mac.finalize().into_bytes()));
    // It sends nothing to addresses.
    let opened = open(&server, &json!({ "email": "alice@example.org" })).await;
    ask_for_code(&server, opened["id"].as_str().unwrap(), "sms")
        .await
        .expect(418);
}

#[tokio::test]
async fn twilio_is_posted_a_form_with_the_accounts_credentials() {
    let carrier = Carrier::start().await;
    for (from, field) in [("+15550199", "From"), ("MG0123456789", "MessagingServiceSid")] {
        let url = carrier.url();
        let settings = [
            ("REGISTRATION", "otp"),
            ("CODES__SMS", "twilio"),
            ("CODES__TWILIO_URL", url.as_str()),
            ("CODES__TWILIO_ACCOUNT_SID", "AC0123"),
            ("CODES__TWILIO_AUTH_TOKEN", "t0ken"),
            ("CODES__TWILIO_FROM", from),
            ("CODES__TEXT", "{code} & nothing else"),
        ];
        let server = Server::spawn_with(Backend::Sqlite, &settings).await;
        let person = Person::new();
        let session = session(&server, &person.number).await;
        let shown = ask_for_code(&server, &session, "voice").await.expect(418).json();
        assert_eq!((&shown["nextSms"], &shown["nextCall"]), (&json!(0), &json!(null)));
        carrier.answer_with(201);
        ask_for_code(&server, &session, "sms").await.expect(200);
        let posted = carrier.posted().pop().unwrap();
        assert_eq!(posted.method, "POST");
        assert_eq!(posted.path, "/2010-04-01/Accounts/AC0123/Messages.json");
        assert_eq!(posted.header("content-type"), "application/x-www-form-urlencoded");
        // AC0123:t0ken
        assert_eq!(posted.header("authorization"), "Basic QUMwMTIzOnQwa2Vu");
        let fields = form(&posted.body);
        let (_, text) = fields.iter().find(|(name, _)| name == "Body").unwrap();
        let (code, rest) = text.split_at(6);
        assert_eq!(rest, " & nothing else");
        let sent = |name: &str| {
            fields
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        assert_eq!(
            (sent("To"), sent(field)),
            (Some(person.number.clone()), Some(from.to_owned()))
        );
        assert_eq!(fields.len(), 3);
        try_code(&server, &session, code).await.expect(200);
        register(&server, &person, &session).await.expect(200);
    }
}

/// The fields of a form.
fn form(body: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let fields = body.split('&').map(|field| field.split_once('=').unwrap());
    fields.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

#[tokio::test]
async fn mail_is_submitted_as_its_server_wants_it() {
    for (protection, tls) in [
        (Protection::None, "none"),
        (Protection::StartTls, "starttls"),
        (Protection::Tls, "tls"),
    ] {
        let mailer = SmtpServer::start(protection).await;
        let dir = tempfile::tempdir().unwrap();
        let trusted = dir.path().join("mail.pem");
        std::fs::write(&trusted, mailer.certificate()).unwrap();
        let port = mailer.port();
        let settings = [
            ("REGISTRATION", "otp"),
            ("CODES__EMAIL", "smtp"),
            ("CODES__SMTP_HOST", "localhost"),
            ("CODES__SMTP_PORT", port.as_str()),
            ("CODES__SMTP_TLS", tls),
            ("CODES__SMTP_CA_FILE", trusted.to_str().unwrap()),
            ("CODES__SMTP_FROM", "relay@example.org"),
            ("CODES__SMTP_SUBJECT", "Your code"),
            ("CODES__SMTP_USER", "relay"),
            ("CODES__SMTP_PASSWORD", "secret"),
            ("CODES__TEXT", "Grüße: {code}"),
        ];
        let server = Server::spawn_with(Backend::Sqlite, &settings).await;
        let mut person = Person::new();
        let opened = open(&server, &json!({ "email": "alice@example.com" })).await;
        let id = opened["id"].as_str().unwrap();
        ask_for_code(&server, id, "sms").await.expect(200);
        let mail = mailer.taken().pop().unwrap();
        assert_eq!(mail.login, Some(("relay".to_owned(), "secret".to_owned())));
        assert_eq!(mail.protected, protection != Protection::None);
        assert_eq!(
            (mail.from.as_str(), &mail.to[..]),
            ("relay@example.org", &["alice@example.com".to_owned()][..])
        );
        assert!(
            mail.data
                .starts_with("From: <relay@example.org>\r\nTo: <alice@example.com>\r\nSubject: Your code\r\n")
        );
        let text = mail.text();
        let code = text.trim_end().strip_prefix("Grüße: ").unwrap();
        try_code(&server, id, code).await.expect(200);
        opened["number"].as_str().unwrap().clone_into(&mut person.number);
        register(&server, &person, id).await.expect(200);

        let opened = open(&server, &json!({ "email": "nobody@example.com" })).await;
        let refused = ask_for_code(&server, opened["id"].as_str().unwrap(), "sms").await;
        assert_eq!(
            refused.expect(440).json(),
            json!({ "reason": "providerRejected", "permanentFailure": true })
        );
        // It sends nothing to numbers.
        let session = session(&server, &Person::new().number).await;
        ask_for_code(&server, &session, "sms").await.expect(418);
    }
}

#[tokio::test]
async fn mail_goes_to_no_server_that_is_not_trusted_or_knows_no_tls_or_no_login() {
    for (protection, tls, password, trusts, cause) in [
        (Protection::Tls, "tls", "secret", false, "is not trusted"),
        (Protection::StartTls, "starttls", "secret", false, "is not trusted"),
        (
            Protection::None,
            "starttls",
            "secret",
            true,
            "does not offer what the settings ask for",
        ),
        (
            Protection::None,
            "none",
            "wrong",
            true,
            "it does not take this server's login",
        ),
    ] {
        let mailer = SmtpServer::start(protection).await;
        let dir = tempfile::tempdir().unwrap();
        let trusted = dir.path().join("mail.pem");
        std::fs::write(&trusted, mailer.certificate()).unwrap();
        let (port, ca) = (mailer.port(), if trusts { trusted.to_str().unwrap() } else { "" });
        let settings = [
            ("REGISTRATION", "otp"),
            ("CODES__EMAIL", "smtp"),
            ("CODES__SMTP_HOST", "localhost"),
            ("CODES__SMTP_PORT", port.as_str()),
            ("CODES__SMTP_TLS", tls),
            ("CODES__SMTP_CA_FILE", ca),
            ("CODES__SMTP_FROM", "relay@example.org"),
            ("CODES__SMTP_USER", "relay"),
            ("CODES__SMTP_PASSWORD", password),
        ];
        let server = Server::spawn_with(Backend::Sqlite, &settings).await;
        let opened = open(&server, &json!({ "email": "alice@example.com" })).await;
        let refused = ask_for_code(&server, opened["id"].as_str().unwrap(), "sms").await;
        assert_eq!(
            refused.expect(440).json(),
            json!({ "reason": "providerUnavailable", "permanentFailure": false })
        );
        assert_eq!(mailer.taken(), []);
        let log = server.log();
        assert!(log.contains("a code was not delivered") && log.contains(cause), "{log}");
        assert!(!log.contains("alice") && !log.contains(password));
    }
}

#[tokio::test]
async fn a_developer_reads_codes_on_standard_output_and_nobody_in_the_log() {
    let settings = [("REGISTRATION", "otp"), ("CODES__SMS", "log"), ("LOG_LEVEL", "debug")];
    let server = Server::spawn_with(Backend::Sqlite, &settings).await;
    let person = Person::new();
    let session = session(&server, &person.number).await;
    ask_for_code(&server, &session, "sms").await.expect(200);
    let code = || {
        let said = server.said();
        let (_, rest) = said.split_once("verification code: ")?;
        rest.get(..6).map(str::to_owned)
    };
    until("a code on standard output", async || code().is_some()).await;
    let code = code().unwrap();
    assert!(!server.said().contains(&person.number[1..]));
    assert!(!server.log().contains(&format!("code: {code}")) && !server.log().contains(&person.number[1..]));
    assert!(server.log().contains("codes go to standard output"));
    try_code(&server, &session, &code).await.expect(200);
    register(&server, &person, &session).await.expect(200);
}
