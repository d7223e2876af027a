//! A mail server of RFC 5321, as far as a client that submits mail needs one: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA,
//! RSET, QUIT. It keeps what it takes, and is strict: commands out of order end a test.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How its connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// In the clear.
    None,
    /// From the beginning.
    Tls,
    /// It takes no mail before STARTTLS.
    StartTls,
}

/// A mail that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mail {
    /// Name and password, if somebody logged in.
    pub(crate) login: Option<(String, String)>,
    /// Whether it came by TLS.
    pub(crate) protected: bool,
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Headers and text.
    pub(crate) data: String,
}

impl Mail {
    /// The text, decoded.
    pub(crate) fn text(&self) -> String {
        let (_, body) = self.data.split_once("\r\n\r\n").unwrap();
        String::from_utf8(STANDARD.decode(body.replace("\r\n", "")).unwrap()).unwrap()
    }
}

/// A server on a port of its own, which ends with the test.
pub(crate) struct SmtpServer {
    port: u16,
    certificate: String,
    taken: Arc<Mutex<Vec<Mail>>>,
    serving: JoinHandle<()>,
}

impl SmtpServer {
    /// One that refuses mail to addresses that begin with `nobody`, and logins with another password than `secret`.
    pub(crate) async fn start(protection: Protection) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let taken: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let kept = Arc::clone(&taken);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acceptor.clone(), protection, Arc::clone(&kept)));
            }
        });
        Self {
            port,
            certificate: cert.pem(),
            taken,
            serving,
        }
    }

    /// Its port on localhost.
    pub(crate) fn port(&self) -> String {
        self.port.to_string()
    }

    /// Its certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What it has taken.
    pub(crate) fn taken(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A client that ends early is no failure of the server's.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, protection: Protection, kept: Arc<Mutex<Vec<Mail>>>) {
    match protection {
        Protection::None => {
            let _ = converse(stream, true, Offer::Mail, false, &kept).await;
        }
        Protection::Tls => {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = converse(stream, true, Offer::Mail, true, &kept).await;
            }
        }
        Protection::StartTls => {
            let upgraded = converse(stream, true, Offer::StartTls, false, &kept).await;
            if let Ok(Some(stream)) = upgraded
                && let Ok(stream) = acceptor.accept(stream).await
            {
                let _ = converse(stream, false, Offer::Mail, true, &kept).await;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Offer {
    Mail,
    StartTls,
}

/// Talks until QUIT, or until the client wants TLS: then the stream comes back.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    greets: bool,
    offer: Offer,
    protected: bool,
    kept: &Mutex<Vec<Mail>>,
) -> std::io::Result<Option<S>> {
    let mut stream = BufReader::new(stream);
    if greets {
        say(&mut stream, "220 mail.test ESMTP").await?;
    }
    let mut mail = Mail {
        protected,
        ..Mail::default()
    };
    let mut greeted = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.strip_suffix("\r\n").expect("lines end with CRLF").to_owned();
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                assert!(!rest.is_empty(), "a client says who it is");
                greeted = true;
                let offered = if offer == Offer::StartTls {
                    "STARTTLS"
                } else {
                    "AUTH PLAIN"
                };
                say(&mut stream, &format!("250-mail.test\r\n250-8BITMIME\r\n250 {offered}")).await?;
            }
            "STARTTLS" if offer == Offer::StartTls => {
                say(&mut stream, "220 go on").await?;
                return Ok(Some(stream.into_inner()));
            }
            _ if offer == Offer::StartTls && verb != "QUIT" => say(&mut stream, "530 STARTTLS first").await?,
            "AUTH" => {
                let plain = rest.strip_prefix("PLAIN ").expect("it is what is offered");
                let plain = String::from_utf8(STANDARD.decode(plain).unwrap()).unwrap();
                let parts: Vec<&str> = plain.split('\0').collect();
                assert_eq!(parts.len(), 3);
                mail.login = Some((parts[1].to_owned(), parts[2].to_owned()));
                let answer = if parts[2] == "secret" { "235 welcome" } else { "535 no" };
                say(&mut stream, answer).await?;
            }
            "MAIL" => {
                assert!(greeted);
                mail.from = address(rest, "FROM:");
                say(&mut stream, "250 ok").await?;
            }
            "RCPT" => {
                assert!(!mail.from.is_empty());
                let to = address(rest, "TO:");
                if to.starts_with("nobody") {
                    say(&mut stream, "550 no such mailbox").await?;
                } else {
                    mail.to.push(to);
                    say(&mut stream, "250 ok").await?;
                }
            }
            "DATA" => {
                assert!(!mail.to.is_empty());
                say(&mut stream, "354 go on").await?;
                mail.data = data(&mut stream).await?;
                kept.lock().unwrap().push(mail.clone());
                say(&mut stream, "250 taken").await?;
            }
            "RSET" | "NOOP" => say(&mut stream, "250 ok").await?,
            "QUIT" => {
                say(&mut stream, "221 bye").await?;
                return Ok(None);
            }
            _ => say(&mut stream, "500 what?").await?,
        }
    }
}

/// Lines up to a single dot, of which those that begin with one lose it.
async fn data<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<String> {
    let mut data = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line == ".\r\n" {
            return Ok(data);
        }
        data.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

/// `<…>` behind the keyword.
fn address(rest: &str, keyword: &str) -> String {
    let (_, rest) = rest.split_once(keyword).unwrap();
    let (inside, _) = rest.strip_prefix('<').unwrap().split_once('>').unwrap();
    inside.to_owned()
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}
