//! Mail by SMTP. A connection for each message, so that nothing of one waits for the next.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use zeroize::Zeroizing;

use crate::auth::EmailAddress;
use crate::domain::{Clock, Timestamp};
use crate::encoding::{BASE64, hex};
use crate::sealing::random;

use super::{Carrier, Failed, Message};

/// How mail is sent.
pub struct Mail {
    /// The server that takes it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// Certificates that are trusted beside those of the system, PEM.
    pub authority: Option<Vec<u8>>,
    /// Name and password, if the server asks for them.
    pub credentials: Option<(String, Zeroizing<String>)>,
    /// Whom it comes from.
    pub from: EmailAddress,
    /// Its subject. ASCII.
    pub subject: String,
    /// How long a step may take.
    pub timeout: Duration,
}

/// How the connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// It begins in the clear and goes on with TLS, or not at all.
    StartTls,
    /// It begins with TLS.
    Tls,
    /// Not at all.
    Off,
}

/// The settings make no mailer. Says nothing of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmtpError {
    /// The certificates cannot be read.
    #[error("the file of certificates for mail holds none that can be read")]
    Authority,
    /// TLS cannot be set up.
    #[error("TLS to the mail server cannot be set up")]
    Tls,
    /// The address of the sender is not taken.
    #[error("mail cannot come from that address")]
    From,
}

/// Sends mail.
pub struct Smtp {
    mailer: AsyncSmtpTransport<Tokio1Executor>,
    sender: Address,
    from: EmailAddress,
    subject: String,
    clock: Arc<dyn Clock>,
}

impl Smtp {
    /// To the server that the settings name.
    pub fn new(mail: Mail, clock: Arc<dyn Clock>) -> Result<Self, SmtpError> {
        let sender: Address = mail.from.as_str().parse().map_err(|_| SmtpError::From)?;
        let tls = match mail.tls {
            MailTls::Off => Tls::None,
            MailTls::StartTls => Tls::Required(parameters(&mail)?),
            MailTls::Tls => Tls::Wrapper(parameters(&mail)?),
        };
        let mut mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.host)
            .port(mail.port)
            .tls(tls)
            .timeout(Some(mail.timeout))
            // The machine's own name is nobody's business.
            .hello_name(ClientId::Domain(mail.from.domain().to_owned()));
        if let Some((name, password)) = &mail.credentials {
            mailer = mailer.credentials(Credentials::new(name.clone(), password.to_string()));
        }
        Ok(Self {
            mailer: mailer.build(),
            sender,
            from: mail.from,
            subject: mail.subject,
            clock,
        })
    }
}

fn parameters(mail: &Mail) -> Result<TlsParameters, SmtpError> {
    let mut parameters = TlsParameters::builder(mail.host.clone());
    if let Some(pem) = &mail.authority {
        let certificate = Certificate::from_pem(pem).map_err(|_| SmtpError::Authority)?;
        parameters = parameters.add_root_certificate(certificate);
    }
    parameters.build_rustls().map_err(|_| SmtpError::Tls)
}

#[async_trait]
impl Carrier for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    async fn carry(&self, message: &Message<'_>) -> Result<(), Failed> {
        let to: Address = message
            .to
            .parse()
            .map_err(|_| Failed::Rejected("it takes no such address"))?;
        let envelope = Envelope::new(Some(self.sender.clone()), vec![to])
            .map_err(|_| Failed::Rejected("it takes no such address"))?;
        let mail = written(&self.from, message, &self.subject, self.clock.now());
        match self.mailer.send_raw(&envelope, mail.as_bytes()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(judge(&error)),
        }
    }
}

fn judge(error: &lettre::transport::smtp::Error) -> Failed {
    // 530 to 539 are about this server's login.
    let login = error.status().is_some_and(|code| (530..540).contains(&u16::from(code)));
    if login {
        Failed::Unavailable("it does not take this server's login")
    } else if error.is_permanent() {
        Failed::Rejected("it takes no mail for there")
    } else if error.is_transient() {
        Failed::Unavailable("it takes no mail for now")
    } else if error.is_timeout() {
        Failed::Unavailable("it did not answer in time")
    } else if error.is_client() {
        Failed::Unavailable("it does not offer what the settings ask for")
    } else {
        // A certificate that is not trusted looks like a connection that broke off.
        Failed::Again("it cannot be reached, is not trusted, or broke the connection off")
    }
}

/// The message. Every header is of parts that were checked: an address, a subject of the operator, a date and random digits;
/// the text is in base64, so that no line of it can mean anything.
fn written(from: &EmailAddress, message: &Message<'_>, subject: &str, now: Timestamp) -> Zeroizing<String> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
    let date = httpdate::fmt_http_date(at).replace("GMT", "+0000");
    let (id, domain) = (hex(&random::<16>()), from.domain());
    let mut mail = Zeroizing::new(format!(
        "From: <{}>\r\nTo: <{}>\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}@{domain}>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\
         Auto-Submitted: auto-generated\r\n\r\n",
        from.as_str(),
        message.to,
    ));
    let text = Zeroizing::new(BASE64.encode(format!("{}\r\n", message.text)));
    let (lines, rest) = text.as_bytes().as_chunks::<LINE>();
    for line in lines
        .iter()
        .map(<[u8; LINE]>::as_slice)
        .chain([rest])
        .filter(|line| !line.is_empty())
    {
        mail.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        mail.push_str("\r\n");
    }
    mail
}

/// RFC 2045.
const LINE: usize = 76;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_the_headers_it_needs_and_its_text_in_short_lines() {
        let from = EmailAddress::parse("relay@example.org").unwrap();
        let text = format!("Ihr Code für das Relay: 123456\r\n.\r\nBcc: all {}", "x".repeat(200));
        let message = Message {
            to: "alice@example.com",
            transport: "email",
            text: &text,
            code: "123456",
        };
        let mail = written(&from, &message, "Your code", Timestamp(1_700_000_000_123));
        let (headers, body) = mail.split_once("\r\n\r\n").unwrap();
        assert!(headers.starts_with("From: <relay@example.org>\r\nTo: <alice@example.com>\r\nSubject: Your code\r\n"));
        assert!(headers.contains("\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <"));
        assert_eq!(headers.lines().count(), 9);
        assert!(mail.is_ascii() && mail.ends_with("\r\n") && body.lines().all(|line| line.len() <= 76));
        let read = BASE64.decode(body.replace("\r\n", "")).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), format!("{text}\r\n"));
    }
}
