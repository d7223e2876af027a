//! The settings, typed and checked once.
//!
//! Layers: `defaults.toml` ← file ← environment ← flags ([`layers`]). A value that cannot be used is refused at start with
//! its key, its origin and the remedy; nothing below [`crate::server`] sees this module, parts receive values.

mod admin;
mod attachments;
mod calls;
mod codes;
mod layers;
mod proxies;
mod rate_limits;
mod read;
mod secret;
mod show;
mod tokens;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::Scale;
use crate::secret_file;
use read::Reader;

pub use attachments::{AttachmentStore, Attachments, UploadForm};
pub use codes::{Codes, EmailCarrier, Registration, SmsCarrier, SmtpServer, SmtpTls, WebhookCarrier};
pub use layers::{ConfigError, DEFAULTS, Flag, Origin, Problem, Setting, Settings, environment_name};
pub use proxies::Proxies;
pub use secret::{Secret, mask};
pub use show::show;

/// Everything an operator can set.
pub struct Config {
    /// Addresses that clients reach.
    pub listen: Vec<SocketAddr>,
    /// Address of metrics and health for the operator.
    pub admin_listen: SocketAddr,
    /// Whether `admin_listen` may be reachable from other machines.
    pub admin_allow_remote: bool,
    /// The socket of `blind-relay admin`; `None` if there is to be none.
    pub admin_socket: Option<PathBuf>,
    /// Under which URL clients reach the server; `None` for the one that each names.
    pub public_url: Option<Arc<str>>,
    /// Directory of everything the server keeps on disk.
    pub data_dir: PathBuf,
    /// Where accounts, keys and queues live.
    pub database: Database,
    /// Connections to Postgres.
    pub database_pool_size: u32,
    /// Redis that joins several nodes.
    pub redis_url: Option<Secret>,
    /// Where the key of the number hash comes from.
    pub pepper: Pepper,
    /// Keys for sealed sender.
    pub sealed_sender: SealedSender,
    /// Whether and how listeners speak TLS.
    pub tls: Tls,
    /// Who may register.
    pub registration: Registration,
    /// Leading zero bits of the work that is asked for before a code.
    pub registration_work_bits: Option<u8>,
    /// Who carries codes.
    pub codes: Codes,
    /// Form of the log.
    pub log: LogFormat,
    /// Level of the log, and of parts of the server.
    pub log_level: String,
    /// How long a stopping server takes for what is in flight.
    pub drain: Duration,
    /// Bounds of connections, requests and sockets.
    pub limits: Limits,
    /// Proxies in front of the server.
    pub proxies: Proxies,
    /// How the declared rate limits are taken.
    pub rate_limits: Scale,
    /// One part in so many of a limit that nodes share is what each allows while Redis is away.
    pub rate_limit_share: NonZeroU32,
    /// Bounds of the queue.
    pub queue: Queue,
    /// How sessions deliver.
    pub relay: Relay,
    /// Bounds of what an account keeps for its own devices.
    pub account_data: AccountData,
    /// Linked devices.
    pub devices: Devices,
    /// Attachments.
    pub attachments: Attachments,
    /// Sessions with tokens.
    pub tokens: Tokens,
    /// Of which sites pages may open sockets here, beside this server's own.
    pub allowed_origins: Arc<[String]>,
    /// Sizes of caches.
    pub cache: Cache,
    /// TURN servers for calls.
    pub turn: Option<Turn>,
    /// Values that every client is told.
    pub remote_config: BTreeMap<String, String>,
}

/// Where accounts, keys and queues live.
#[derive(Clone)]
pub enum Database {
    /// One file.
    Sqlite(PathBuf),
    /// A Postgres URL.
    Postgres(Secret),
}

/// Where the key of the number hash comes from.
#[derive(Clone)]
pub enum Pepper {
    /// 64 hex digits.
    Given(Secret),
    /// A file, made when missing.
    File(PathBuf),
}

/// Keys for sealed sender.
#[derive(Clone, Debug)]
pub struct SealedSender {
    /// The file of the trust root's private half.
    pub trust_root_file: PathBuf,
    /// The file of the server key and its certificate.
    pub server_key_file: PathBuf,
    /// How long a sender certificate is valid.
    pub certificate_lifetime: Duration,
}

/// Whether and how listeners speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// With these files.
    Files {
        /// Certificate chain, PEM.
        cert: PathBuf,
        /// Private key, PEM.
        key: PathBuf,
    },
    /// With a certificate made in this directory.
    SelfSigned {
        /// Directory of the files.
        dir: PathBuf,
    },
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
}

/// Bounds of connections, requests and sockets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections on all listeners together.
    pub max_connections: usize,
    /// Connections of one network.
    pub max_connections_per_network: usize,
    /// For a TLS handshake, and for the head of a connection's first request.
    pub header_timeout: Duration,
    /// Without a request in flight.
    pub idle_timeout: Duration,
    /// Size of a request's headers.
    pub max_header_bytes: u32,
    /// Number of a request's headers.
    pub max_headers: usize,
    /// Size of a message on a WebSocket.
    pub socket_max_message_bytes: usize,
    /// Silence after which a WebSocket counts as dead.
    pub socket_idle: Duration,
    /// WebSockets of devices that are about to be linked.
    pub max_provisioning_sockets: usize,
    /// Silence after which such a WebSocket is closed.
    pub provisioning_idle: Duration,
    /// After which such a WebSocket is closed in any case.
    pub provisioning_lifetime: Duration,
}

/// Bounds of the queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Envelopes that wait for one device.
    pub max_envelopes: u32,
    /// Bytes that wait for one device.
    pub max_bytes: u64,
    /// Of both, what one sender may have there, in a hundred.
    pub sender_share_percent: u8,
    /// Days after which an envelope nobody fetched is dropped.
    pub retention_days: u16,
}

/// How sessions deliver.
#[derive(Clone, Debug)]
pub struct Relay {
    /// After which a session looks into its queue even if nobody woke it.
    pub fallback_tick: Duration,
    /// After which answers of sends leave, whatever the send took; zero for as soon as they are ready.
    pub answer_tick: Duration,
    /// Whether connected devices are offered envelopes that are not written yet.
    pub direct: DirectSetting,
    /// For how long their acknowledgement is waited for, before they are written.
    pub linger: Duration,
    /// Envelopes sent ahead of acknowledgements.
    pub window_envelopes: usize,
    /// Without an acknowledgement while envelopes wait for one.
    pub stalled: Duration,
}

/// Whether connected devices are offered envelopes that are not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectSetting {
    /// Where this node hears of what others write, or is alone for certain.
    Auto,
    /// It is alone.
    On,
    /// They are not.
    Off,
}

const DIRECT: &[(&str, DirectSetting)] = &[
    ("auto", DirectSetting::Auto),
    ("on", DirectSetting::On),
    ("off", DirectSetting::Off),
];

/// Bounds of what an account keeps for its own devices.
#[derive(Clone, Debug)]
pub struct AccountData {
    /// Bytes of one entry.
    pub max_value_bytes: usize,
    /// Entries.
    pub max_keys: u32,
    /// Bytes of all entries together.
    pub max_total_bytes: u64,
}

/// Linked devices.
#[derive(Clone, Debug)]
pub struct Devices {
    /// Devices that an account may have, its primary included.
    pub max_per_account: u8,
    /// Days after which a linked device that was not seen is removed; 0 for never.
    pub idle_days: u16,
    /// How long after a start none is removed for that.
    pub idle_grace: Duration,
}

/// Sessions with tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For how long an access token is good.
    pub access: Duration,
    /// Whole days after the present one that a session lasts without a refresh.
    pub refresh_days: u16,
}

/// Sizes of caches.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Verified credentials.
    pub credentials: u64,
    /// Accounts with their devices.
    pub accounts: u64,
}

/// TURN servers for calls.
#[derive(Clone)]
pub struct Turn {
    /// Where they are.
    pub urls: Vec<String>,
    /// What they share with this server.
    pub secret: Secret,
    /// How long credentials are good.
    pub ttl: Duration,
}

/// Where the layers above the defaults are.
#[derive(Default)]
pub struct Sources {
    /// `--config`. Without it, `BLIND_RELAY_CONFIG`.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
}

/// Merges the layers and reads secret files. What is wrong is noted in the answer; [`Config::from_settings`] refuses it.
pub fn load(sources: Sources) -> Settings {
    let mut settings = Settings::defaults();
    let named = sources
        .environment
        .iter()
        .find(|(name, value)| name == CONFIG_VARIABLE && !value.is_empty());
    let (path, origin) = match (sources.file, named) {
        (Some(path), _) => (Some(path), Origin::Flag("--config")),
        (None, Some((_, value))) => (
            Some(PathBuf::from(value)),
            Origin::Environment(CONFIG_VARIABLE.to_owned()),
        ),
        (None, None) => (None, Origin::Default),
    };
    if let Some(path) = path {
        match std::fs::read_to_string(&path) {
            Ok(text) => settings.apply_toml(&text, &path),
            Err(error) => {
                let what = format!("cannot read {}: {}", path.display(), error.kind());
                settings.problem("configuration", &origin, what, "name a file that this process may read");
            }
        }
    }
    settings.apply_environment(&sources.environment);
    settings.apply_flags(sources.flags);
    read_secret_files(&mut settings);
    settings
}

/// The configuration that this text of a file makes over the defaults. Touches no file: also the one that fuzzing calls.
pub fn parse_toml(text: &str) -> Result<Config, ConfigError> {
    let mut settings = Settings::defaults();
    settings.apply_toml(text, Path::new("blind-relay.toml"));
    Config::from_settings(settings)
}

impl Config {
    /// Types every value and checks them against each other.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&mut settings);
        let config = read_config(&mut reader);
        if settings.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                problems: settings.problems,
            })
        }
    }
}

fn read_config(r: &mut Reader<'_>) -> Config {
    let data_dir = r.path("data_dir").unwrap_or_else(|| {
        r.refuse("data_dir", "empty", "name a directory, such as ./blind-relay-data");
        PathBuf::new()
    });
    let listen = r.addresses("listen");
    let registration = codes::read_registration(r, &listen);
    let config = Config {
        admin_listen: r.address("admin_listen"),
        admin_allow_remote: r.boolean("admin_allow_remote"),
        admin_socket: admin::read_admin_socket(r, &data_dir),
        database: read_database(r, &data_dir),
        database_pool_size: r.integer("database_pool_size", 1..=1_000),
        redis_url: read_redis(r),
        pepper: read_pepper(r, &data_dir),
        sealed_sender: read_sealed_sender(r, &data_dir),
        tls: read_tls(r, &data_dir),
        registration,
        registration_work_bits: codes::read_work_bits(r),
        codes: codes::read_codes(r, registration, &listen),
        log: r
            .choice("log", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
            .unwrap_or(LogFormat::Text),
        log_level: read_log_level(r),
        drain: r.seconds("drain_secs", 1..=3_600),
        limits: Limits {
            max_connections: r.integer("limits.max_connections", 1..=10_000_000),
            max_connections_per_network: r.integer("limits.max_connections_per_network", 1..=10_000_000),
            header_timeout: r.seconds("limits.header_timeout_secs", 1..=300),
            idle_timeout: r.seconds("limits.idle_timeout_secs", 1..=3_600),
            // hyper does not work with less than 8 KiB.
            max_header_bytes: r.integer("limits.max_header_bytes", 8_192..=1_048_576),
            max_headers: r.integer("limits.max_headers", 16..=1_000),
            socket_max_message_bytes: r.integer("limits.socket_max_message_bytes", 262_144..=67_108_864),
            socket_idle: r.seconds("limits.socket_idle_secs", 10..=3_600),
            max_provisioning_sockets: r.integer("limits.max_provisioning_sockets", 1..=1_000_000),
            provisioning_idle: r.seconds("limits.provisioning_idle_secs", 1..=3_600),
            provisioning_lifetime: r.seconds("limits.provisioning_lifetime_secs", 1..=3_600),
        },
        proxies: proxies::read_proxies(r),
        rate_limits: rate_limits::read_scale(r),
        rate_limit_share: NonZeroU32::new(r.integer("rate_limit_share", 1..=1_000)).unwrap_or(NonZeroU32::MIN),
        queue: Queue {
            max_envelopes: r.integer("queue.max_envelopes", 1..=10_000_000),
            max_bytes: r.integer("queue.max_bytes", 1_048_576..=1_099_511_627_776),
            sender_share_percent: r.integer("queue.sender_share_percent", 1..=100),
            retention_days: r.integer("queue.retention_days", 1..=365),
        },
        relay: Relay {
            fallback_tick: r.millis("relay.fallback_tick_millis", 10..=600_000),
            answer_tick: r.millis("relay.answer_tick_millis", 0..=1_000),
            direct: r.choice("relay.direct", DIRECT).unwrap_or(DirectSetting::Auto),
            linger: r.millis("relay.linger_millis", 0..=10_000),
            window_envelopes: r.integer("relay.window_envelopes", 1..=10_000),
            stalled: r.seconds("relay.stalled_secs", 1..=3_600),
        },
        account_data: AccountData {
            max_value_bytes: r.integer("account_data.max_value_bytes", 1_024..=262_144),
            max_keys: r.integer("account_data.max_keys", 1..=100_000),
            max_total_bytes: r.integer("account_data.max_total_bytes", 1_024..=17_179_869_184),
        },
        devices: Devices {
            max_per_account: r.integer("devices.max_per_account", 1..=127),
            idle_days: r.integer("devices.idle_days", 0..=3_650),
            idle_grace: r.seconds("devices.idle_grace_secs", 0..=2_592_000),
        },
        attachments: attachments::read_attachments(r, &data_dir),
        public_url: attachments::read_public_url(r),
        tokens: tokens::read_tokens(r),
        allowed_origins: tokens::read_origins(r),
        cache: Cache {
            credentials: r.integer("cache.credentials", 0..=100_000_000),
            accounts: r.integer("cache.accounts", 0..=100_000_000),
        },
        turn: calls::read_turn(r),
        remote_config: calls::read_remote_config(r),
        listen,
        data_dir,
    };
    if !config.admin_listen.ip().is_loopback() && !config.admin_allow_remote {
        let what = format!(
            "{} is reachable from other machines and its metrics need no login",
            config.admin_listen
        );
        r.refuse(
            "admin_listen",
            what,
            "use a loopback address, or set admin_allow_remote = true behind a firewall",
        );
    }
    config
}

fn read_database(r: &mut Reader<'_>, data_dir: &Path) -> Database {
    // Its file has been read into `database_url` by `load`.
    r.path("database_url_file");
    let Some(url) = r.secret("database_url") else {
        return Database::Sqlite(data_dir.join("relay.db"));
    };
    let text = url.expose();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Database::Postgres(url);
    }
    match text
        .strip_prefix("sqlite:")
        .map(|path| path.strip_prefix("//").unwrap_or(path))
    {
        Some(path) if !path.is_empty() && !path.starts_with(':') && !path.contains('?') => {
            Database::Sqlite(PathBuf::from(path))
        }
        _ => {
            let remedy = "write postgres://USER:PASSWORD@HOST/NAME, sqlite:PATH, or nothing for the file in data_dir";
            r.refuse("database_url", "not a database this server speaks to", remedy);
            Database::Sqlite(PathBuf::new())
        }
    }
}

fn read_redis(r: &mut Reader<'_>) -> Option<Secret> {
    r.path("redis_url_file");
    let url = r.secret("redis_url")?;
    if !["redis://", "redis+unix://", "unix://"]
        .iter()
        .any(|scheme| url.expose().starts_with(scheme))
    {
        r.refuse(
            "redis_url",
            "not a Redis URL",
            "write redis://HOST:PORT or redis://:PASSWORD@HOST:PORT, without TLS",
        );
    }
    Some(url)
}

fn read_pepper(r: &mut Reader<'_>, data_dir: &Path) -> Pepper {
    let file = r.path("pepper_file");
    let Some(given) = r.secret("pepper") else {
        return Pepper::File(file.unwrap_or_else(|| data_dir.join("pepper")));
    };
    if file.is_some() {
        r.refuse("pepper", "given beside pepper_file", "keep one of the two");
    }
    if secret_file::decode_hex(given.expose()).is_none() {
        r.refuse("pepper", "not 64 hex digits", "make one with `openssl rand -hex 32`");
    }
    Pepper::Given(given)
}

fn read_sealed_sender(r: &mut Reader<'_>, data_dir: &Path) -> SealedSender {
    let days: u64 = r.integer("sender_certificate_days", 1..=90);
    SealedSender {
        trust_root_file: r.path("trust_root_file").unwrap_or_else(|| data_dir.join("trust-root")),
        server_key_file: r.path("server_key_file").unwrap_or_else(|| data_dir.join("server-key")),
        certificate_lifetime: Duration::from_secs(days * 24 * 60 * 60),
    }
}

fn read_tls(r: &mut Reader<'_>, data_dir: &Path) -> Tls {
    let self_signed = r.boolean("tls_self_signed");
    match (r.path("tls_cert"), r.path("tls_key")) {
        (None, None) if self_signed => Tls::SelfSigned {
            dir: data_dir.join("tls"),
        },
        (None, None) => Tls::Off,
        (Some(cert), Some(key)) => {
            if self_signed {
                r.refuse("tls_self_signed", "given beside tls_cert", "keep one of the two");
            }
            Tls::Files { cert, key }
        }
        (Some(_), None) => {
            r.refuse(
                "tls_cert",
                "given without its private key",
                "give --tls-key FILE as well",
            );
            Tls::Off
        }
        (None, Some(_)) => {
            r.refuse(
                "tls_key",
                "given without its certificate",
                "give --tls-cert FILE as well",
            );
            Tls::Off
        }
    }
}

fn read_log_level(r: &mut Reader<'_>) -> String {
    let text = r.text("log_level");
    if let Err(remedy) = crate::telemetry::logging::parse_levels(&text) {
        r.refuse("log_level", "not understood", remedy);
    }
    text
}

/// Secrets that are read from the file named by the key's `_file` sibling. The pepper's file is read by the server, which
/// makes it when missing.
fn read_secret_files(settings: &mut Settings) {
    for key in SECRETS.into_iter().filter(|key| *key != "pepper") {
        let file_key = format!("{key}_file");
        let text_of = |key: &str| {
            let setting = settings.find(key)?;
            let text = setting.value.as_str()?;
            (!text.is_empty()).then(|| (text.to_owned(), setting.origin.clone()))
        };
        let (Some((path, origin)), direct) = (text_of(&file_key), text_of(key)) else {
            continue;
        };
        if direct.is_some() {
            settings.problem(&file_key, &origin, format!("given beside {key}"), "keep one of the two");
            continue;
        }
        let path = PathBuf::from(path);
        match secret_file::read(&path) {
            Ok(text) => settings.set_secret(key, text.trim(), &path),
            Err(error) => settings.problem(&file_key, &origin, error.to_string(), error.remedy()),
        }
    }
}

/// Keys whose values are never shown.
const SECRETS: [&str; 9] = [
    "database_url",
    "redis_url",
    "pepper",
    "turn.secret",
    "codes.smtp_password",
    "codes.twilio_auth_token",
    "codes.webhook_secret",
    "attachments.s3_access_key_id",
    "attachments.s3_secret_access_key",
];
const CONFIG_VARIABLE: &str = "BLIND_RELAY_CONFIG";

#[cfg(test)]
mod tests;
