//! Who may register, and who carries codes to them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::read::Reader;
use super::secret::Secret;

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Anyone who reaches the server.
    Open,
    /// Whoever has the code of an invite.
    Invite,
    /// Whoever gets the code that is sent.
    Otp,
    /// Nobody new.
    Closed {
        /// Whether somebody said so. Nobody did where listeners are reachable from other machines and nothing says who may
        /// register.
        chosen: bool,
    },
}

/// Who carries codes, and how.
pub struct Codes {
    /// For numbers.
    pub sms: Option<SmsCarrier>,
    /// For e-mail addresses.
    pub email: Option<EmailCarrier>,
    /// What receivers read, with `{code}` in it.
    pub text: String,
    /// For one try of a delivery.
    pub timeout: Duration,
    /// Deliveries at a time.
    pub max_in_flight: usize,
}

/// Who carries codes to numbers.
#[derive(Clone)]
pub enum SmsCarrier {
    /// Standard output.
    Log,
    /// The HTTP interface of Twilio.
    Twilio {
        /// Where it is.
        url: String,
        /// The account's name.
        account_sid: String,
        /// Its password.
        auth_token: Secret,
        /// Whom messages come from.
        from: String,
    },
    /// A program of the operator's own.
    Webhook(WebhookCarrier),
}

/// Who carries codes to e-mail addresses.
#[derive(Clone)]
pub enum EmailCarrier {
    /// Standard output.
    Log,
    /// A mail server.
    Smtp(SmtpServer),
    /// A program of the operator's own.
    Webhook(WebhookCarrier),
}

/// A program of the operator's own.
#[derive(Clone)]
pub struct WebhookCarrier {
    /// Where it is.
    pub url: String,
    /// What requests to it are signed with.
    pub secret: Secret,
}

/// A mail server.
#[derive(Clone)]
pub struct SmtpServer {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// A file of certificates that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Name and password.
    pub login: Option<(String, Secret)>,
    /// Whom mail comes from.
    pub from: String,
    /// Its subject.
    pub subject: String,
}

/// How the connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// By STARTTLS, or not used.
    StartTls,
    /// From its beginning.
    Tls,
    /// Not at all.
    None,
}

/// Reads the policy. On loopback the server is for trials; anywhere else nobody comes in unless somebody says so.
pub(super) fn read_registration(r: &mut Reader<'_>, listen: &[SocketAddr]) -> Registration {
    match r.text("registration").as_str() {
        "open" => Registration::Open,
        "invite" => Registration::Invite,
        "otp" => Registration::Otp,
        "closed" => Registration::Closed { chosen: true },
        "" if is_loopback(listen) => Registration::Open,
        "" => Registration::Closed { chosen: false },
        _ => {
            r.refuse("registration", "unknown value", "choose open, invite, otp or closed");
            Registration::Closed { chosen: true }
        }
    }
}

/// Reads the proof of work: 0 for none.
pub(super) fn read_work_bits(r: &mut Reader<'_>) -> Option<u8> {
    let bits: u8 = r.integer("registration_work_bits", 0..=32);
    if (1..8).contains(&bits) {
        r.refuse(
            "registration_work_bits",
            "less than a blink of an eye",
            "choose a number from 8 to 32, or 0 for none",
        );
    }
    (bits > 0).then_some(bits)
}

/// Reads who carries codes. Everything is checked, whatever the policy is; somebody is needed only where codes are sent.
pub(super) fn read_codes(r: &mut Reader<'_>, registration: Registration, listen: &[SocketAddr]) -> Codes {
    let (smtp, twilio, webhook) = (read_smtp(r), read_twilio(r), read_webhook(r));
    let sms = match r.text("codes.sms").as_str() {
        "" => None,
        "log" => Some(SmsCarrier::Log),
        "twilio" => needed(
            r,
            "codes.sms",
            twilio,
            "codes.twilio_account_sid, codes.twilio_auth_token and codes.twilio_from",
        ),
        "webhook" => needed(r, "codes.sms", webhook.clone(), WEBHOOK).map(SmsCarrier::Webhook),
        _ => {
            r.refuse("codes.sms", "unknown value", "choose log, twilio or webhook");
            None
        }
    };
    let email = match r.text("codes.email").as_str() {
        "" => None,
        "log" => Some(EmailCarrier::Log),
        "smtp" => needed(r, "codes.email", smtp, "codes.smtp_host and codes.smtp_from").map(EmailCarrier::Smtp),
        "webhook" => needed(r, "codes.email", webhook, WEBHOOK).map(EmailCarrier::Webhook),
        _ => {
            r.refuse("codes.email", "unknown value", "choose log, smtp or webhook");
            None
        }
    };
    for (key, is_log) in [
        ("codes.sms", matches!(sms, Some(SmsCarrier::Log))),
        ("codes.email", matches!(email, Some(EmailCarrier::Log))),
    ] {
        if is_log && !is_loopback(listen) {
            r.refuse(
                key,
                "whoever reads standard output reads every code",
                "use log for trials on loopback, and a carrier that delivers elsewhere",
            );
        }
    }
    if registration == Registration::Otp && sms.is_none() && email.is_none() {
        r.refuse(
            "registration",
            "otp, and nobody carries codes",
            "say who in codes.sms or codes.email",
        );
    }
    Codes {
        sms,
        email,
        text: read_text(r),
        timeout: r.seconds("codes.timeout_secs", 1..=12),
        max_in_flight: r.integer("codes.max_in_flight", 1..=10_000),
    }
}

fn read_text(r: &mut Reader<'_>) -> String {
    let text = r.text("codes.text");
    let fits = text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control);
    if !fits || text.matches("{code}").count() != 1 {
        r.refuse(
            "codes.text",
            "not one line with {code} in it once",
            "write what people are to read, in up to 300 bytes",
        );
    }
    text
}

fn read_smtp(r: &mut Reader<'_>) -> Option<SmtpServer> {
    // Its file has been read into `codes.smtp_password` by `load`.
    r.path("codes.smtp_password_file");
    let (host, port) = (r.text("codes.smtp_host"), r.integer("codes.smtp_port", 1..=65_535_u16));
    let tls = r.choice(
        "codes.smtp_tls",
        &[
            ("starttls", SmtpTls::StartTls),
            ("tls", SmtpTls::Tls),
            ("none", SmtpTls::None),
        ],
    );
    let tls = tls.unwrap_or(SmtpTls::StartTls);
    let ca_file = r.path("codes.smtp_ca_file");
    let (user, password) = (r.text("codes.smtp_user"), r.secret("codes.smtp_password"));
    let (from, subject) = (r.text("codes.smtp_from"), r.text("codes.smtp_subject"));
    let login = match (user.is_empty(), password) {
        (false, Some(password)) => Some((user, password)),
        (true, None) => None,
        _ => {
            let remedy = "give both, or neither";
            r.refuse("codes.smtp_user", "name and password belong together", remedy);
            None
        }
    };
    let plain = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| (32..127).contains(&byte))
    };
    if !plain(&subject, MAX_SUBJECT_BYTES) {
        r.refuse("codes.smtp_subject", "not plain text", "write up to 60 signs of ASCII");
    }
    if host.is_empty() && from.is_empty() {
        return None;
    }
    if host.is_empty() || host.len() > MAX_NAME_BYTES || !host.bytes().all(is_host_byte) {
        r.refuse(
            "codes.smtp_host",
            "not the name of a host",
            "write it as mail.example.org",
        );
    }
    if tls == SmtpTls::None && !is_loopback_host(&host) {
        r.refuse(
            "codes.smtp_tls",
            "codes and addresses would pass in the clear",
            "choose starttls or tls; none is for a mail server on this machine",
        );
    }
    if !is_address(&from) {
        r.refuse(
            "codes.smtp_from",
            "not an e-mail address",
            "write it as relay@example.org",
        );
    }
    Some(SmtpServer {
        host,
        port,
        tls,
        ca_file,
        login,
        from,
        subject,
    })
}

fn read_twilio(r: &mut Reader<'_>) -> Option<SmsCarrier> {
    r.path("codes.twilio_auth_token_file");
    let (url, sid) = (r.text("codes.twilio_url"), r.text("codes.twilio_account_sid"));
    let (token, from) = (r.secret("codes.twilio_auth_token"), r.text("codes.twilio_from"));
    check_url(r, "codes.twilio_url", &url);
    if sid.is_empty() && from.is_empty() {
        return None;
    }
    let word = |text: &str| {
        (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !word(&sid) {
        r.refuse(
            "codes.twilio_account_sid",
            "not the name of an account",
            "copy it from the carrier",
        );
    }
    if !word(from.strip_prefix('+').unwrap_or(&from)) {
        r.refuse(
            "codes.twilio_from",
            "not a number, and not the name of a service",
            "write the number as +15550100, or the name that begins with MG",
        );
    }
    let Some(auth_token) = token else {
        r.refuse(
            "codes.twilio_auth_token",
            "missing",
            "give codes.twilio_auth_token_file: a file with the account's token",
        );
        return None;
    };
    Some(SmsCarrier::Twilio {
        url,
        account_sid: sid,
        auth_token,
        from,
    })
}

fn read_webhook(r: &mut Reader<'_>) -> Option<WebhookCarrier> {
    r.path("codes.webhook_secret_file");
    let (url, secret) = (r.text("codes.webhook_url"), r.secret("codes.webhook_secret"));
    if url.is_empty() {
        return None;
    }
    check_url(r, "codes.webhook_url", &url);
    let long_enough = secret
        .as_ref()
        .is_some_and(|secret| secret.expose().len() >= MIN_SECRET_BYTES);
    if !long_enough {
        r.refuse(
            "codes.webhook_secret",
            "shorter than 16 bytes",
            "make one with `openssl rand -hex 32`, and give it to your program too",
        );
    }
    secret.map(|secret| WebhookCarrier { url, secret })
}

/// Codes and numbers pass by TLS, or stay on this machine.
fn check_url(r: &mut Reader<'_>, key: &'static str, url: &str) {
    let host = |rest: &str| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest[..end].to_owned();
        match authority.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((inside, _)) => inside.to_owned(),
            None => authority.split(':').next().unwrap_or_default().to_owned(),
        }
    };
    let plain = url.len() <= MAX_URL_BYTES && url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('@');
    let safe = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => !host(rest).is_empty(),
        (None, Some(rest)) => is_loopback_host(&host(rest)),
        (None, None) => false,
    };
    if !plain || !safe {
        r.refuse(
            key,
            "not a URL to which codes may go",
            "write https://HOST/PATH; http:// is for a program on this machine",
        );
    }
}

fn needed<T>(r: &mut Reader<'_>, key: &'static str, carrier: Option<T>, settings: &str) -> Option<T> {
    if carrier.is_none() {
        r.refuse(key, "its carrier is not described", format!("give {settings}"));
    }
    carrier
}

fn is_loopback(listen: &[SocketAddr]) -> bool {
    listen.iter().all(|address| address.ip().is_loopback())
}

fn is_loopback_host(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.:".contains(&byte)
}

/// What the mailer takes is narrower, and says so when the server starts.
fn is_address(text: &str) -> bool {
    let graphic = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"<>,;:\"()[]\\".contains(&byte));
    graphic
        && text.len() <= 254
        && text
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
}

const WEBHOOK: &str = "codes.webhook_url and codes.webhook_secret";
const MAX_TEXT_BYTES: usize = 300;
const MAX_SUBJECT_BYTES: usize = 60;
const MAX_NAME_BYTES: usize = 253;
const MAX_URL_BYTES: usize = 1_024;
const MIN_SECRET_BYTES: usize = 16;

#[cfg(test)]
mod tests;
