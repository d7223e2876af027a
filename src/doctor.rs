//! `blind-relay doctor`: looks at everything the server needs, and says how to mend what is wrong.
//!
//! It changes nothing: what is missing and would be made by the server is told as such.

mod age;
mod attachments;
mod machine;
mod proxies;
mod services;

use std::fmt;

use anyhow::anyhow;

use crate::config::{Codes, Config, EmailCarrier, Registration, SmsCarrier, Tls};
use crate::domain::{Clock, SystemClock, Timestamp};
use crate::limits::Scale;
use crate::tls::{TlsFiles, days_left};

pub use attachments::attachments;
pub use machine::{data_dir, descriptors, keys, pepper};
pub use services::{database, redis};

/// What was found at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The place.
    pub name: &'static str,
    /// What was found.
    pub what: String,
    /// Whether it is well.
    pub verdict: Verdict,
}

/// Whether something is well, and how to mend it if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Ok,
    /// The server runs, but not as well as it could.
    Warn(String),
    /// The server does not start, or not do its work.
    Fail(String),
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self {
            name,
            what: what.into(),
            verdict: Verdict::Ok,
        }
    }

    /// The server runs, but.
    pub fn warn(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            what: what.into(),
            verdict: Verdict::Warn(remedy.into()),
        }
    }

    /// The server does not work like this.
    pub fn fail(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            what: what.into(),
            verdict: Verdict::Fail(remedy.into()),
        }
    }

    fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Fail(_))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, remedy) = match &self.verdict {
            Verdict::Ok => ("ok", None),
            Verdict::Warn(remedy) => ("warn", Some(remedy)),
            Verdict::Fail(remedy) => ("FAIL", Some(remedy)),
        };
        write!(f, "{mark:<4}  {}: {}", self.name, self.what)?;
        remedy.map_or(Ok(()), |remedy| write!(f, "\n      mend: {remedy}"))
    }
}

/// Prints every check; an error if one failed.
pub async fn run(config: &Config) -> anyhow::Result<()> {
    let checks = checks(config, SystemClock.now()).await;
    let lines: String = checks.iter().map(|check| format!("{check}\n")).collect();
    crate::server::say(&lines);
    match checks.iter().filter(|check| check.failed()).count() {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} of {} checks failed", checks.len())),
    }
}

/// Every check, as of `now`.
pub async fn checks(config: &Config, now: Timestamp) -> Vec<Check> {
    // A configuration that cannot be used does not get here: it was refused with its own remedies.
    let mut checks = vec![Check::ok("configuration", "every setting is known and fits")];
    checks.push(listeners(config));
    checks.push(proxies::proxies(config));
    checks.push(registration(config));
    checks.push(answers(config));
    checks.push(rate_limits(config));
    checks.push(data_dir(&config.data_dir));
    checks.push(pepper(config));
    checks.push(keys(config));
    checks.extend(database(config, now).await);
    checks.push(redis(config).await);
    checks.push(attachments(config).await);
    checks.push(tls(config, now));
    checks.push(descriptors(config));
    checks
}

fn rate_limits(config: &Config) -> Check {
    const NAME: &str = "rate limits";
    match config.rate_limits {
        Scale::Off => Check::warn(
            NAME,
            "off: anyone may use up the keys, queues and codes of others",
            "take rate_limits = \"off\" and --limits off away, unless this is a load test",
        ),
        #[expect(clippy::float_cmp, reason = "exactly what was written")]
        Scale::Times(times) if times != 1.0 => Check::warn(
            NAME,
            format!("{times} times those that are declared (docs/limits.md)"),
            "take rate_limits and --limits away, unless that is meant",
        ),
        Scale::Times(_) => Check::ok(NAME, "as declared (docs/limits.md)"),
    }
}

fn listeners(config: &Config) -> Check {
    let mut addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    addresses.push(format!("{} for metrics", config.admin_listen));
    let what = addresses.join(", ");
    if !config.admin_listen.ip().is_loopback() {
        return Check::warn(
            "listeners",
            what,
            "metrics are reachable from other machines: keep them behind a firewall",
        );
    }
    let reachable = config.listen.iter().any(|address| !address.ip().is_loopback());
    if reachable && config.tls == Tls::Off {
        let remedy = "credentials pass in the clear: give --tls-cert and --tls-key, unless a proxy in front speaks TLS";
        return Check::warn("listeners", format!("{what}, without TLS"), remedy);
    }
    Check::ok("listeners", what)
}

fn registration(config: &Config) -> Check {
    let reachable = config.listen.iter().any(|address| !address.ip().is_loopback());
    let work = match config.registration_work_bits {
        Some(bits) => format!(", after {bits} bits of work"),
        None => String::new(),
    };
    match config.registration {
        Registration::Open if reachable => {
            let remedy = "anyone who reaches the server can register, and take over any number on it: choose \
                          --registration invite, otp or closed if you do not want that";
            Check::warn("registration", format!("open{work}"), remedy)
        }
        Registration::Open => Check::ok("registration", format!("open, on loopback only{work}")),
        Registration::Invite => Check::ok("registration", format!("by invite{work}")),
        Registration::Otp => Check::ok("registration", format!("by codes, {}{work}", carriers(&config.codes))),
        Registration::Closed { chosen: true } => Check::ok("registration", "closed"),
        Registration::Closed { chosen: false } => {
            let remedy = "say who may register: --registration invite, otp, open or closed";
            Check::warn(
                "registration",
                "closed, because nothing says who may register and the server is reachable from other machines",
                remedy,
            )
        }
    }
}

fn carriers(codes: &Codes) -> String {
    let sms = match &codes.sms {
        None => "none to numbers",
        Some(SmsCarrier::Log) => "to numbers on standard output",
        Some(SmsCarrier::Twilio { .. }) => "to numbers by twilio",
        Some(SmsCarrier::Webhook(_)) => "to numbers by webhook",
    };
    let email = match &codes.email {
        None => "none to e-mail addresses",
        Some(EmailCarrier::Log) => "to e-mail addresses on standard output",
        Some(EmailCarrier::Smtp(_)) => "to e-mail addresses by smtp",
        Some(EmailCarrier::Webhook(_)) => "to e-mail addresses by webhook",
    };
    format!("{sms}, {email}")
}

fn answers(config: &Config) -> Check {
    match config.relay.answer_tick.as_millis() {
        0 => {
            let remedy = "whoever sends to a device can tell by the time of the answer whether it is connected: leave \
                          relay.answer_tick_millis at its default";
            Check::warn("answers", "leave as soon as they are ready", remedy)
        }
        millis => Check::ok("answers", format!("of sends leave on a tick of {millis} ms")),
    }
}

fn tls(config: &Config, now: Timestamp) -> Check {
    let files = match &config.tls {
        Tls::Off => return Check::ok("tls", "off"),
        Tls::SelfSigned { dir } => {
            return Check::ok(
                "tls",
                format!("self-signed in {}, made or renewed at start", dir.display()),
            );
        }
        Tls::Files { cert, key } => TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
        },
    };
    match days_left(&files, now) {
        Ok(days @ 0..14) => Check::warn(
            "tls",
            format!("certificate and key fit, {days} days left"),
            "renew the certificate",
        ),
        Ok(days) => Check::ok("tls", format!("certificate and key fit, {days} days left")),
        Err(error) => Check::fail("tls", error.to_string(), error.remedy()),
    }
}

#[cfg(test)]
mod tests;
