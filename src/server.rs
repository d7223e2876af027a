//! Builds the server from its settings, binds, serves and stops.
//!
//! Stopping goes in one order: not ready any more → no new connections → sessions close with 1012 → what is in flight
//! finishes → the writer flushes. What is left after the drain time is cut and named.

mod app;
mod attachments;
mod keys;
mod lifecycle;
mod registration;
mod tokens;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::Router;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::ServerSecrets;
use crate::cli::MigrateStep;
use crate::config::{Config, Database, Limits, Pepper, Tls};
use crate::domain::{Clock, SystemClock, Timestamp};
use crate::http::crowd::Crowd;
use crate::http::health::Readiness;
use crate::http::listener::{ConnectionLimits, Door, Listener};
use crate::http::operator::socket::AdminSocket;
use crate::http::proxies::Proxies;
use crate::limits::{Elapsed, Scale, monotonic};
use crate::secret_file;
use crate::storage::migrate;
use crate::tls::{ServerTls, TlsFiles, self_signed};

pub use app::{location, open_storage, queue_limits};
pub use attachments::blobs;
pub use keys::{key_files, keys};
pub use lifecycle::{Lifecycle, Unfinished, signals};

/// A server that is bound and does not serve yet.
pub struct Server {
    listeners: Vec<Listener>,
    admin: Listener,
    operator: Option<AdminSocket>,
    app: App,
    tls: Option<Arc<ServerTls>>,
    lifecycle: Lifecycle,
}

/// The parts that answer requests.
pub struct App {
    /// Every route of the main listeners.
    pub router: Router,
    /// Every route of the admin listener.
    pub admin: Router,
    /// Every route of the admin socket.
    pub operator: Router,
    /// What load balancers are told.
    pub readiness: Readiness,
}

impl Server {
    /// Builds everything and binds every address, so that nothing but serving is left that could fail.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        Self::bind_at(config, monotonic()).await
    }

    /// As [`Self::bind`], with a time of its own by which rate limits refill.
    pub async fn bind_at(config: &Config, elapsed: Elapsed) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        secret_file::create_private_dir(&config.data_dir)
            .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
        raise_descriptor_limit();
        let tls = load_tls(&config.tls, clock.now())?;
        let lifecycle = Lifecycle::new(config.drain);
        let app = app::build(config, &lifecycle, elapsed).await?;

        let door = door(config);
        let limits = connection_limits(&config.limits);
        let mut listeners = Vec::new();
        for &address in &config.listen {
            let acceptor = tls.as_ref().map(ServerTls::acceptor);
            let bound = Listener::bind(address, acceptor, limits.clone(), door.clone()).await;
            listeners.push(bound.with_context(|| bind_failed("listen", address))?);
        }
        // A few places of its own: the operator must be able to look when clients have taken all others.
        let own = Door::open(Arc::new(Semaphore::new(ADMIN_CONNECTIONS)));
        let admin = Listener::bind(config.admin_listen, None, limits, own).await;
        let admin = admin.with_context(|| bind_failed("admin_listen", config.admin_listen))?;
        let operator = match &config.admin_socket {
            Some(path) => Some(
                AdminSocket::bind(path)
                    .await
                    .map_err(|error| anyhow!("{error} (admin_socket); {}", error.remedy()))?,
            ),
            None => None,
        };
        Ok(Self {
            listeners,
            admin,
            operator,
            app,
            tls,
            lifecycle,
        })
    }

    /// The main addresses as URLs, in the order of the settings, with the ports the system chose.
    pub fn urls(&self) -> anyhow::Result<Vec<String>> {
        self.listeners.iter().map(url).collect()
    }

    /// The main addresses.
    pub fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        Ok(self
            .listeners
            .iter()
            .map(Listener::local_addr)
            .collect::<Result<_, _>>()?)
    }

    /// The admin address.
    pub fn admin_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.admin.local_addr()?)
    }

    /// Serves until `shutdown`, then stops in order. `cut` ends the waiting early. An error names what was left.
    pub async fn serve(self, shutdown: CancellationToken, cut: CancellationToken) -> anyhow::Result<()> {
        let Self {
            listeners,
            admin,
            operator,
            app,
            tls,
            lifecycle,
        } = self;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        if let Some(tls) = tls {
            tokio::spawn(tls.watch(clock, lifecycle.stop_accepting.clone()));
        }
        let mut accepting = Vec::new();
        for listener in listeners {
            let serving = listener.serve(
                app.router.clone(),
                lifecycle.stop_accepting.clone(),
                lifecycle.connections.clone(),
            );
            accepting.push(tokio::spawn(serving));
        }
        // Until the very end: health and metrics are most wanted while a server stops.
        let admin_stop = CancellationToken::new();
        let _stop_admin = admin_stop.clone().drop_guard();
        // Its file goes when this returns.
        let _socket_file = operator.map(|socket| {
            let (file, serving) = socket.serve(app.operator, admin_stop.clone(), lifecycle.background.clone());
            tokio::spawn(serving);
            file
        });
        tokio::spawn(admin.serve(app.admin, admin_stop, lifecycle.background.clone()));

        let give_up = lifecycle.give_up.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = give_up.cancelled() => {}
        }
        tracing::info!("stopping");
        app.readiness.drain();
        match lifecycle.stop(accepting, cut).await {
            Ok(()) => {
                tracing::info!("stopped");
                if give_up.is_cancelled() {
                    bail!("the database was put back while this node ran: start it again");
                }
                Ok(())
            }
            Err(unfinished) => {
                tracing::error!(
                    connections = unfinished.connections,
                    sessions = unfinished.sessions,
                    flushed = unfinished.flushed,
                    "stopped before everything was finished"
                );
                Err(anyhow!("{unfinished}"))
            }
        }
    }
}

/// Serves until `shutdown`, and tells standard output where.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_with_cut(config, shutdown, CancellationToken::new()).await
}

/// Serves until SIGTERM or SIGINT; a second one cuts.
pub async fn run_until_signal(config: Config) -> anyhow::Result<()> {
    let (shutdown, cut) = signals().context("cannot listen for signals")?;
    run_with_cut(config, shutdown, cut).await
}

/// Moves the database's tables, or shows where they are.
pub async fn migrate(config: &Config, step: MigrateStep) -> anyhow::Result<()> {
    let location = location(config);
    match step {
        MigrateStep::Up => {
            if let Database::Sqlite(_) = &config.database {
                secret_file::create_private_dir(&config.data_dir)
                    .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
            }
            let secrets = ServerSecrets::from_pepper(&*load_pepper(config)?);
            migrate::up(&location, &secrets.upgrade()).await?;
        }
        MigrateStep::Down => match migrate::down(&location).await? {
            Some(undone) => say(&format!("undone: {} {}\n", undone.version, undone.name)),
            None => say("nothing to undo\n"),
        },
        MigrateStep::Status => {}
    }
    for step in migrate::status(&location).await? {
        let stand = if step.applied { "applied" } else { "missing" };
        say(&format!("{stand}  {:04} {}\n", step.version, step.name));
    }
    Ok(())
}

/// The key of the number hash, from the settings or its file.
pub fn load_pepper(config: &Config) -> anyhow::Result<zeroize::Zeroizing<[u8; 32]>> {
    match &config.pepper {
        Pepper::Given(text) => secret_file::decode_hex(text.expose()).context("pepper is not 64 hex digits"),
        Pepper::File(path) => {
            secret_file::read_or_create(path).map_err(|error| anyhow!("pepper: {error}; {}", error.remedy()))
        }
    }
}

/// Writes to standard output. Nobody reading it is no reason to fail.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

async fn run_with_cut(config: Config, shutdown: CancellationToken, cut: CancellationToken) -> anyhow::Result<()> {
    let server = tokio::select! {
        server = Server::bind(&config) => server?,
        () = cut.cancelled() => return Err(anyhow!("interrupted while starting")),
    };
    let urls = server.urls()?;
    let mut text: String = urls.iter().map(|url| format!("listening on {url}\n")).collect();
    text.push_str(&first_thing_to_try(&config, &urls[0]));
    say(&text);
    tracing::info!(admin = %server.admin_address()?, "serving");
    registration::announce(&config);
    if config.relay.answer_tick.is_zero() {
        tracing::warn!(
            "relay.answer_tick_millis is 0: whoever sends to a device can tell by the time of the answer whether it is \
             connected; the default hides that"
        );
    }
    match config.rate_limits {
        Scale::Off => tracing::warn!(
            "rate limits are off: anyone may use up the keys, queues and codes of others; that is for load tests alone"
        ),
        #[expect(clippy::float_cmp, reason = "exactly what was written")]
        Scale::Times(times) if times != 1.0 => {
            tracing::warn!(
                "rate limits are not those that are declared: rate_limits or --limits says how many times as much"
            );
        }
        Scale::Times(_) => {}
    }
    server.serve(shutdown, cut).await
}

fn load_tls(tls: &Tls, now: Timestamp) -> anyhow::Result<Option<Arc<ServerTls>>> {
    let files = match tls {
        Tls::Off => return Ok(None),
        Tls::Files { cert, key } => TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
        },
        Tls::SelfSigned { dir } => {
            let made = self_signed::ensure(dir, now);
            made.with_context(|| format!("cannot make a certificate in {}", dir.display()))?
                .files
        }
    };
    let loaded = ServerTls::load(files, now).map_err(|error| anyhow!("TLS: {error}; {}", error.remedy()))?;
    Ok(Some(loaded))
}

/// Whom the main listeners let in.
fn door(config: &Config) -> Door {
    Door {
        slots: Arc::new(Semaphore::new(config.limits.max_connections)),
        crowd: (config.rate_limits != Scale::Off).then(|| Crowd::new(config.limits.max_connections_per_network)),
        proxies: Arc::new(Proxies::new(config.proxies.trusted.clone(), config.proxies.protocol)),
    }
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits {
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        stuck_timeout: STUCK_TIMEOUT,
        max_header_bytes: limits.max_header_bytes,
        max_headers: limits.max_headers,
    }
}

/// Each connection is a descriptor, and the soft limit of many systems is 1,024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If it fails, the old limit stands, and `doctor` tells of it.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
}

fn url(listener: &Listener) -> anyhow::Result<String> {
    let scheme = if listener.is_tls() { "https" } else { "http" };
    Ok(format!("{scheme}://{}", listener.local_addr()?))
}

fn first_thing_to_try(config: &Config, url: &str) -> String {
    let reachable = url.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]");
    let trust = match &config.tls {
        Tls::SelfSigned { dir } => format!("--cacert {} ", dir.join("ca-cert.pem").display()),
        Tls::Off | Tls::Files { .. } => String::new(),
    };
    format!("try: curl {trust}{reachable}/health/ready\n")
}

fn bind_failed(key: &str, address: SocketAddr) -> String {
    format!("cannot listen on {address} ({key}); choose another address, or port 0 for any free one")
}

const ADMIN_CONNECTIONS: usize = 64;
/// Four times what a handler has.
const STUCK_TIMEOUT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests;
