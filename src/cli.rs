//! The command line. Flags are the last layer of the settings and know nothing of their meaning.

mod admin;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use toml::Value;

use crate::config::{Flag, Sources};

pub use admin::{AccountStep, AdminArgs, AdminStep, InviteStep, LogStep};

/// A self-hosted key directory and blind message relay for clients that speak the Signal protocol.
#[derive(Parser)]
#[command(name = "blind-relay", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// Settings that every command shares.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// What to do. Without one: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Clone, Subcommand)]
pub enum Command {
    /// Run the server (what happens without a command).
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Bring the database's tables to this version, take the last step back, or show where they are.
    Migrate {
        /// Which way.
        #[command(subcommand)]
        step: MigrateStep,
    },
    /// Make, show or replace the keys for sealed sender, and those that sign tokens.
    #[command(after_help = KEYS_EXAMPLES)]
    Keys {
        /// What to do with them.
        #[command(subcommand)]
        step: KeysStep,
    },
    /// Copy the SQLite database to a file, also while a server runs.
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup {
        /// Where to. It must not exist yet.
        file: PathBuf,
        /// Do not tell on standard error how far the copy is.
        #[arg(long)]
        quiet: bool,
    },
    /// Put a backup in the place of the database. The server must be stopped.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore {
        /// The backup: a file that `blind-relay backup` wrote, or a copy of relay.db.
        #[arg(required_unless_present = "in_place", conflicts_with = "in_place")]
        file: Option<PathBuf>,
        /// The database is a backup already, put there by pg_restore, a snapshot or by hand.
        #[arg(long)]
        in_place: bool,
    },
    /// Check configuration, data directory, keys, database, Redis, TLS, clock and limits, and say how to mend what is wrong.
    Doctor,
    /// Print the configuration in effect, where each value came from, and no secrets.
    Config,
    /// Have a running server do what only its operator may: sums, accounts, invites, draining, and the log of all that.
    #[command(after_help = admin::EXAMPLES)]
    Admin(AdminArgs),
    /// Hold a running system against what this release says that it knows.
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit {
        /// What to do.
        #[command(subcommand)]
        step: AuditStep,
    },
}

/// What to audit.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditStep {
    /// Compare tables, Redis, metrics and log with the manifest, and look into every stored value. Changes nothing.
    #[command(after_help = BLINDNESS_EXAMPLES)]
    Blindness(BlindnessArgs),
    /// Check the signature of a report, and print it.
    Verify {
        /// The report.
        file: PathBuf,
        /// The public key that it must be signed with, in hex. Without it only changes are seen, not another signer.
        #[arg(long, value_name = "HEX")]
        public_key: Option<String>,
    },
}

/// What an audit looks at beside the database and Redis of the settings.
#[derive(Args, Clone, Debug, Default)]
pub struct BlindnessArgs {
    /// Write the report there as signed JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Sign with the key in this file, made when missing [default: audit-key in the data directory].
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Look at the metrics of this admin listener [default: the one of the settings, if it answers].
    #[arg(long, value_name = "URL")]
    pub metrics: Option<String>,
    /// Look at this log, written by a server with --log json.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Send canaries between two throw-away accounts of the server at this URL, and look for them everywhere.
    #[arg(long, value_name = "URL")]
    pub canary: Option<String>,
    /// Trust this certificate authority, for a canary over https.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Do not tell on standard error how far the scan is.
    #[arg(long)]
    pub quiet: bool,
}

/// Which way to migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum MigrateStep {
    /// Apply what is missing.
    Up,
    /// Undo the last step. What only that step's tables held is lost.
    Down,
    /// Show what is applied and what is missing.
    Status,
}

/// What to do with the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum KeysStep {
    /// Make a server key, and the trust root unless it is there. The first start does the same.
    Init,
    /// Show the trust root that clients pin, which server key is in use, and the names of the keys that sign tokens.
    Show {
        /// As a JSON object, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Replace the server key. Needs the trust root; what the old key signed stays valid. Takes effect at the next start.
    RotateServerKey,
    /// Have another key sign tokens. Running nodes take it up within seconds; the old one verifies what it signed until that
    /// is over.
    Rotate {
        /// The old key was stolen: take nothing any more that it signed.
        #[arg(long)]
        now: bool,
    },
}

/// Settings as flags. What has none here is set in the file or the environment.
#[derive(Args, Default)]
pub struct SettingsArgs {
    /// Read settings from this TOML file [env: BLIND_RELAY_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen there; may be repeated [default: 127.0.0.1:8080]. Port 0 picks a free port.
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Vec<String>,
    /// Listen there for metrics and health [default: 127.0.0.1:9090].
    #[arg(long, global = true, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// Keep files in this directory [default: ./blind-relay-data].
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Use this database: sqlite:PATH or postgres://… [default: SQLite in the data directory]. A password is better given
    /// with BLIND_RELAY_DATABASE_URL_FILE: flags can be seen by everyone on the machine.
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// Join other nodes through this Redis [default: a single node].
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// Serve TLS with this certificate chain (PEM).
    #[arg(long, global = true, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Private key of the certificate (PEM, readable by its owner alone).
    #[arg(long, global = true, value_name = "FILE")]
    tls_key: Option<String>,
    /// Serve TLS for localhost with a certificate made in the data directory.
    #[arg(long, global = true)]
    tls_self_signed: bool,
    /// Key of the hash of phone numbers [default: the file pepper in the data directory, made when missing].
    #[arg(long, global = true, value_name = "FILE")]
    pepper_file: Option<String>,
    /// Private half of the trust root for sealed sender [default: the file trust-root in the data directory, made when
    /// missing]. Needed to make a server key, not to serve.
    #[arg(long, global = true, value_name = "FILE")]
    trust_root_file: Option<String>,
    /// Key that signs sender certificates [default: the file server-key in the data directory, made when missing].
    #[arg(long, global = true, value_name = "FILE")]
    server_key_file: Option<String>,
    /// Who may register: open (anyone who reaches the server), invite, otp or closed [default: open if every listener is on
    /// loopback, otherwise closed].
    #[arg(long, global = true, value_name = "POLICY")]
    registration: Option<String>,
    /// Rate limits: on, off (for load tests), or how many times as much as declared [default: on].
    #[arg(long, global = true, value_name = "SCALE")]
    limits: Option<String>,
    /// Form of the log: text or json [default: text].
    #[arg(long, global = true, value_name = "FORM")]
    log: Option<String>,
}

impl Cli {
    /// What to do and the layers of settings, with this environment below the flags.
    pub fn into_sources(self, environment: impl Iterator<Item = (OsString, OsString)>) -> (Command, Sources) {
        let s = self.settings;
        let mut flags = Vec::new();
        let strings = [
            ("admin_listen", "--admin-listen", s.admin_listen),
            ("data_dir", "--data-dir", s.data_dir),
            ("database_url", "--database-url", s.database_url),
            ("redis_url", "--redis-url", s.redis_url),
            ("tls_cert", "--tls-cert", s.tls_cert),
            ("tls_key", "--tls-key", s.tls_key),
            ("pepper_file", "--pepper-file", s.pepper_file),
            ("trust_root_file", "--trust-root-file", s.trust_root_file),
            ("server_key_file", "--server-key-file", s.server_key_file),
            ("registration", "--registration", s.registration),
            ("rate_limits", "--limits", s.limits),
            ("log", "--log", s.log),
        ];
        for (key, name, value) in strings {
            flags.extend(value.map(|text| Flag {
                key,
                name,
                value: Value::String(text),
            }));
        }
        if !s.listen.is_empty() {
            let value = Value::Array(s.listen.into_iter().map(Value::String).collect());
            flags.push(Flag {
                key: "listen",
                name: "--listen",
                value,
            });
        }
        if s.tls_self_signed {
            flags.push(Flag {
                key: "tls_self_signed",
                name: "--tls-self-signed",
                value: Value::Boolean(true),
            });
        }
        let sources = Sources {
            file: s.config,
            environment: environment.collect(),
            flags,
        };
        (self.command.unwrap_or(Command::Serve), sources)
    }
}

const EXAMPLES: &str = "\
Examples:
  blind-relay                                  Try it: HTTP on 127.0.0.1:8080, SQLite in ./blind-relay-data
  blind-relay --tls-self-signed                The same with TLS for https://localhost:8080
  blind-relay config > relay.toml              Write the settings to a file, to change them
  blind-relay --config relay.toml doctor       Check them before serving

Every setting also has an environment variable: `blind-relay config` lists the keys, BLIND_RELAY_ before the key in
capitals and two underscores for the dot of a table make its name (BLIND_RELAY_QUEUE__MAX_ENVELOPES).

Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

const BACKUP_EXAMPLES: &str = "\
Examples:
  blind-relay backup /backup/relay-monday.db                       While the server runs
  blind-relay --config relay.toml backup /backup/relay-monday.db   The database of these settings

Give the settings of the server itself, as its user. The copy is checked before it gets its name. Keep it apart from the
pepper and the trust root, which are not in it. PostgreSQL has its own tools; docs/backup.md says what to do there.

Exit status: 0 there is a backup that can be put back, 1 there is none.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  blind-relay restore /backup/relay-monday.db     SQLite: the backup takes the database's place
  blind-relay restore --in-place                  PostgreSQL, after pg_restore; SQLite, after a snapshot was put back

All nodes must be stopped. One-time keys are invalid afterwards, since some of them were handed out after the backup was
made; devices are asked for new ones. The database that was there is kept beside the new one.";

const AUDIT_EXAMPLES: &str = "\
Examples:
  blind-relay audit blindness                       Look at everything that is at hand
  blind-relay audit verify report.json              See that nobody changed a report

docs/audit.md says what is looked at, and what a pass means.";

const BLINDNESS_EXAMPLES: &str = "\
Examples:
  blind-relay audit blindness                                       The database of the settings, while its server runs
  blind-relay --config relay.toml audit blindness --report r.json   The same, with a signed report
  blind-relay audit blindness --log-file relay.log                  And every line of a log in JSON
  blind-relay audit blindness --canary http://127.0.0.1:8080        And messages of two throw-away accounts

Give the settings of the server itself: its file, environment or flags. The first run makes a key for reports; note its
public half where the operator cannot change it, and give it to `audit verify --public-key` later.

Exit status: 0 clean, 1 something is there that must not be, 2 not everything could be looked at.";

const SERVE_EXAMPLES: &str = "\
Examples:
  blind-relay serve --listen 127.0.0.1:8080
  blind-relay serve --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem --registration closed
  BLIND_RELAY_DATABASE_URL_FILE=/run/secrets/database-url blind-relay serve --redis-url redis://cache:6379

The first lines on standard output name each bound address. SIGTERM or SIGINT stops gracefully within drain_secs, a
second one at once. SIGHUP reads the certificate again.";

const KEYS_EXAMPLES: &str = "\
Examples:
  blind-relay keys init                                            Both keys in the data directory
  blind-relay keys init --trust-root-file /media/usb/trust-root    Keep the trust root off this machine from the start
  blind-relay keys show                                            What clients must pin
  blind-relay keys rotate-server-key --trust-root-file /media/usb/trust-root
  blind-relay keys rotate                                          Another key for tokens, from time to time
  blind-relay keys rotate --now                                    The same, when the old one may have been stolen

All nodes of one database have the same trust root: it is in every client, and the database remembers it. A node needs
its private half only to make a server key. Give a new node either the trust root's file, with which it makes a server
key of its own, or another node's server key file.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::{Config, Database, Origin, Registration, Tls, load};

    fn parse(arguments: &[&str]) -> (Command, Sources) {
        let all = ["blind-relay"].iter().chain(arguments);
        Cli::try_parse_from(all)
            .expect("parses")
            .into_sources(std::iter::empty())
    }

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_parses() {
        let lines: Vec<&str> = [
            EXAMPLES,
            SERVE_EXAMPLES,
            KEYS_EXAMPLES,
            AUDIT_EXAMPLES,
            BLINDNESS_EXAMPLES,
            BACKUP_EXAMPLES,
            RESTORE_EXAMPLES,
            admin::EXAMPLES,
            admin::ACCOUNT_EXAMPLES,
            admin::INVITE_EXAMPLES,
            admin::DRAIN_EXAMPLES,
            admin::LOG_EXAMPLES,
        ]
        .iter()
        .flat_map(|text| text.lines())
        .collect();
        let commands = lines
            .iter()
            .filter_map(|line| line.strip_prefix("  ")?.split("  ").next());
        let mut count = 0;
        for command in commands {
            let words = command.split_whitespace().skip_while(|word| *word != "blind-relay");
            let words: Vec<&str> = words.skip(1).take_while(|word| *word != ">").collect();
            let (_, sources) = parse(&words);
            assert!(
                sources.file.is_some() || Config::from_settings(load(sources)).is_ok(),
                "{command}"
            );
            count += 1;
        }
        assert_eq!(count, 39);
    }

    #[test]
    fn serves_without_a_command() {
        assert!(matches!(parse(&[]).0, Command::Serve));
        assert!(matches!(parse(&["--listen", "127.0.0.1:0"]).0, Command::Serve));
        assert!(matches!(
            parse(&["migrate", "status"]).0,
            Command::Migrate {
                step: MigrateStep::Status
            }
        ));
    }

    #[test]
    fn every_flag_reaches_its_setting_before_and_after_the_command() {
        let flags = [
            "--listen",
            "0.0.0.0:1",
            "--listen",
            "[::1]:2",
            "--admin-listen",
            "127.0.0.1:3",
            "--data-dir",
            "d",
            "--database-url",
            "postgres://h/d",
            "--redis-url",
            "redis://h",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--pepper-file",
            "p",
            "--trust-root-file",
            "t",
            "--server-key-file",
            "s",
            "--registration",
            "closed",
            "--limits",
            "10",
            "--log",
            "json",
        ];
        for arguments in [[&["serve"], &flags[..]].concat(), [&flags[..], &["serve"]].concat()] {
            let settings = load(parse(&arguments).1);
            let set = settings
                .iter()
                .filter(|setting| setting.origin != Origin::Default)
                .count();
            assert_eq!(set, 13);
            let config = Config::from_settings(settings).unwrap();
            assert_eq!(config.listen.len(), 2);
            assert_eq!(config.registration, Registration::Closed { chosen: true });
            assert!(matches!(config.database, Database::Postgres(_)));
        }
        let config = Config::from_settings(load(parse(&["--tls-self-signed"]).1))
            .ok()
            .unwrap();
        assert!(matches!(config.tls, Tls::SelfSigned { .. }));
    }
}
