//! Who may register: from the settings to what asks for proof, and who carries codes.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use zeroize::Zeroizing;

use crate::accounts::{Policy, Verifier, WorkBits};
use crate::auth::{EmailAddress, ServerSecrets};
use crate::codes::{Carrier, Codes, HttpClient, Log, Mail, MailTls, Smtp, Twilio, TwilioAccount, Webhook};
use crate::config::{
    self, Config, EmailCarrier, Registration, Secret, SmsCarrier, SmtpServer, SmtpTls, WebhookCarrier,
};
use crate::domain::Clock;
use crate::storage::Storage;

/// What checks who registers.
pub(super) fn verifier(
    config: &Config,
    storage: &Storage,
    secrets: &Arc<ServerSecrets>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Verifier> {
    let policy = match config.registration {
        Registration::Open => Policy::Open,
        Registration::Invite => Policy::Invite(Arc::clone(&storage.invites)),
        Registration::Otp => Policy::Otp(Arc::new(codes(&config.codes, clock)?)),
        Registration::Closed { .. } => Policy::Closed,
    };
    Ok(Verifier::new(
        Arc::clone(&storage.accounts),
        Arc::clone(secrets),
        policy,
        config.registration_work_bits.and_then(WorkBits::new),
        Arc::clone(clock),
    ))
}

/// Tells the log who may register.
pub(super) fn announce(config: &Config) {
    let reachable = config.listen.iter().any(|address| !address.ip().is_loopback());
    match config.registration {
        Registration::Open if reachable => tracing::warn!(
            "registration is open: anyone who reaches the server can register, and take over any number on it"
        ),
        Registration::Open => tracing::info!("registration is open, on loopback only"),
        Registration::Invite => tracing::info!("registration is by invite"),
        Registration::Otp => tracing::info!("registration is by codes that are sent"),
        Registration::Closed { chosen: true } => tracing::info!("registration is closed"),
        Registration::Closed { chosen: false } => tracing::warn!(
            "registration is closed, because nothing says who may register and the server is reachable from other \
             machines; say it with --registration invite, otp, open or closed"
        ),
    }
    let on_standard_output =
        matches!(config.codes.sms, Some(SmsCarrier::Log)) || matches!(config.codes.email, Some(EmailCarrier::Log));
    if config.registration == Registration::Otp && on_standard_output {
        tracing::warn!("codes go to standard output: whoever reads it can register any number; that is for trials");
    }
}

fn codes(settings: &config::Codes, clock: &Arc<dyn Clock>) -> anyhow::Result<Codes> {
    let client =
        HttpClient::new(settings.timeout).map_err(|_| anyhow!("the client for carriers of codes cannot be made"))?;
    let sms: Option<Arc<dyn Carrier>> = settings.sms.as_ref().map(|carrier| -> Arc<dyn Carrier> {
        match carrier {
            SmsCarrier::Log => Arc::new(Log),
            SmsCarrier::Twilio {
                url,
                account_sid,
                auth_token,
                from,
            } => Arc::new(Twilio::new(
                client.clone(),
                TwilioAccount {
                    base_url: url.clone(),
                    sid: account_sid.clone(),
                    token: exposed(auth_token),
                    from: from.clone(),
                },
            )),
            SmsCarrier::Webhook(webhook) => posted(webhook, &client, clock),
        }
    });
    let email: Option<Arc<dyn Carrier>> = match &settings.email {
        None => None,
        Some(EmailCarrier::Log) => Some(Arc::new(Log)),
        Some(EmailCarrier::Smtp(server)) => Some(Arc::new(mailer(server, settings, clock)?)),
        Some(EmailCarrier::Webhook(webhook)) => Some(posted(webhook, &client, clock)),
    };
    Ok(Codes::new(
        sms,
        email,
        settings.text.clone(),
        settings.timeout,
        settings.max_in_flight,
    ))
}

fn posted(webhook: &WebhookCarrier, client: &HttpClient, clock: &Arc<dyn Clock>) -> Arc<dyn Carrier> {
    let (url, secret) = (webhook.url.clone(), exposed(&webhook.secret));
    Arc::new(Webhook::new(client.clone(), url, secret, Arc::clone(clock)))
}

fn mailer(server: &SmtpServer, settings: &config::Codes, clock: &Arc<dyn Clock>) -> anyhow::Result<Smtp> {
    let authority = match &server.ca_file {
        None => None,
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("codes.smtp_ca_file: cannot read {}", path.display()))?)
        }
    };
    let mail = Mail {
        host: server.host.clone(),
        port: server.port,
        tls: match server.tls {
            SmtpTls::StartTls => MailTls::StartTls,
            SmtpTls::Tls => MailTls::Tls,
            SmtpTls::None => MailTls::Off,
        },
        authority,
        credentials: server
            .login
            .as_ref()
            .map(|(name, password)| (name.clone(), exposed(password))),
        from: EmailAddress::parse(&server.from).map_err(|error| anyhow!("codes.smtp_from: {error}"))?,
        subject: server.subject.clone(),
        timeout: settings.timeout,
    };
    Ok(Smtp::new(mail, Arc::clone(clock))?)
}

fn exposed(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new(secret.expose().to_owned())
}
