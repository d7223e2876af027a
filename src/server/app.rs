//! Puts the parts of a node together. The only place that names a concrete backend, bus or provider.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accounts::{Invites, Linker, Registrar};
use crate::admin::AdminState;
use crate::admin::pseudonym::Pseudonyms;
use crate::age;
use crate::auth::{Authenticator, ServerSecrets};
use crate::calling::Relays;
use crate::config::{AccountData, Config, Database, DirectSetting};
use crate::directory::Directory;
use crate::domain::{Clock, DataLimits, QueueLimits, SystemClock};
use crate::http::account_data::DataBounds;
use crate::http::drain::Drain;
use crate::http::export::Exports;
use crate::http::health::Readiness;
use crate::http::pace::Pace;
use crate::http::remote_config::remote_config;
use crate::http::state::{AppState, Node, SocketLimits};
use crate::http::waits::Waits;
use crate::http::{admin, operator, routes};
use crate::limits::{Elapsed, Limits, LimitsConfig};
use crate::provisioning::{Provisioning, Registry};
use crate::relay::even::EvenTimes;
use crate::relay::hints::receive_hint;
use crate::relay::presence::Presence;
use crate::relay::session::SessionLimits;
use crate::relay::writer::Writer;
use crate::relay::{DirectDelivery, FAN_OUT_ROOM, Relay, Shares, seen, tick};
use crate::retention;
use crate::sealing::queue::run_epochs;
use crate::storage::migrate::{self, Location};
use crate::storage::{AccountCache, Storage, TokenSessions, postgres, sqlite};
use crate::telemetry::metrics;
use crate::wakeup::{Bus, RedisBus, SingleNode};

use super::{App, Lifecycle, attachments, keys, load_pepper, registration, tokens};

/// Opens storage, starts what runs in the background, and builds the routes.
pub(super) async fn build(config: &Config, lifecycle: &Lifecycle, elapsed: Elapsed) -> anyhow::Result<App> {
    let metrics = recorder()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let secrets = Arc::new(ServerSecrets::from_pepper(&*load_pepper(config)?));
    let storage = open_storage(config, &secrets).await?;
    if !storage
        .accounts
        .pin_pepper(secrets.check_value())
        .await
        .context("cannot read the database")?
    {
        bail!(
            "the database was made with another pepper, so no number in it would be found again; give this node the \
             pepper file of the others (--pepper-file), or restore the file from its backup"
        );
    }
    let age = age::Keeper::start(&config.data_dir, Arc::clone(&storage.ages), Arc::clone(&clock)).await?;
    lifecycle
        .background
        .spawn(age.run(lifecycle.stop_background.clone(), lifecycle.give_up.clone()));
    let issuer = keys::issuer(config, &*storage.accounts).await?;
    let accounts = Arc::new(AccountCache::new(Arc::clone(&storage.accounts), config.cache.accounts));
    let waiting = Arc::new(Registry::new(config.limits.max_provisioning_sockets));
    let tokens = tokens::open(config, lifecycle, &secrets, &storage, &accounts, &clock).await?;
    let known = (&accounts, &tokens.sessions);
    let relay = relay(config, lifecycle, &storage, known, &secrets, &clock, &waiting)?;
    let verifier = Arc::new(registration::verifier(config, &storage, &secrets, &clock)?);
    let registrar = Registrar::new(
        Arc::clone(&storage.accounts),
        Arc::clone(&secrets),
        Arc::clone(&verifier),
        Arc::clone(&clock),
    );
    let linker = Linker::new(
        Arc::clone(&storage.accounts),
        Arc::clone(&storage.devices),
        Arc::clone(&clock),
        config.devices.max_per_account,
    );
    let attachments = attachments::open(&config.attachments, &secrets, &storage, &clock).await?;
    lifecycle.background.spawn(retention::run_attachments(
        Arc::clone(&attachments),
        lifecycle.stop_background.clone(),
    ));
    lifecycle.background.spawn(retention::run_orphans(
        Arc::clone(&attachments),
        lifecycle.stop_background.clone(),
    ));
    spawn_background(config, lifecycle, &storage, &relay, &clock, metrics.clone());
    let limits = LimitsConfig {
        scale: config.rate_limits,
        key: secrets.limits_key(),
        redis_url: config.redis_url.as_ref().map(|url| url.expose().to_owned()),
        share_without_redis: config.rate_limit_share,
        elapsed,
        clock: Arc::clone(&clock),
    };
    let limits = Limits::new(limits, &lifecycle.background)?;
    let probe = Arc::clone(&storage.accounts);
    let readiness = Readiness::new(Arc::new(move || {
        let probe = Arc::clone(&probe);
        Box::pin(async move { probe.ping().await.is_ok() })
    }));
    let drain = Drain::new(readiness.clone(), config.drain, lifecycle.close_sessions.clone());
    let node: AppState = Arc::new(Node {
        drain: Arc::new(drain),
        directory: Directory::start(Arc::clone(&storage.keys), claim_lanes(config), &lifecycle.background),
        storage,
        provisioning: Provisioning::new(waiting, Arc::clone(&relay.bus)),
        relay,
        pace: Pace::new(config.relay.answer_tick, lifecycle.close_sessions.clone()),
        authenticator: Authenticator::new(accounts, Arc::clone(&tokens), config.cache.credentials),
        tokens,
        allowed_origins: Arc::clone(&config.allowed_origins),
        secrets,
        verifier,
        registrar,
        linker,
        waits: Waits::default(),
        exports: Exports::default(),
        issuer,
        limits,
        remote_config: remote_config(&config.remote_config),
        turn: config
            .turn
            .as_ref()
            .map(|turn| Relays::new(turn.urls.clone(), turn.secret.expose(), turn.ttl)),
        attachments,
        upload_by: attachments::upload_by(config.attachments.form),
        attachment_idle: config.attachments.idle,
        public_url: config.public_url.clone(),
        data: data_bounds(&config.account_data),
        clock,
        sockets: SocketLimits {
            max_message: config.limits.socket_max_message_bytes,
            idle: config.limits.socket_idle,
            session: SessionLimits {
                window: config.relay.window_envelopes,
                stalled: config.relay.stalled,
                ..SessionLimits::default()
            },
            provisioning_idle: config.limits.provisioning_idle,
            provisioning_lifetime: config.limits.provisioning_lifetime,
        },
        tasks: lifecycle.sessions.clone(),
        stop: lifecycle.close_sessions.clone(),
    });
    if config.devices.idle_days > 0 {
        let telling = Arc::clone(&node);
        lifecycle.background.spawn(retention::run_idle(
            node.storage.clone(),
            Arc::clone(&node.clock),
            config.devices.idle_days,
            config.devices.idle_grace,
            move |aci, mailbox| telling.relay.account_changed(aci, &[mailbox]),
            lifecycle.stop_background.clone(),
        ));
    }
    lifecycle
        .background
        .spawn(tidy(Arc::clone(&node), lifecycle.stop_background.clone()));
    let flushing = Arc::clone(&node);
    lifecycle.flush_with(async move {
        flushing.relay.writer.flush().await;
        flushing.storage.accounts.close().await;
    });
    let acts = AdminState {
        store: Arc::clone(&node.storage.admin),
        invites: Invites::new(
            Arc::clone(&node.storage.invites),
            Arc::clone(&node.secrets),
            Arc::clone(&node.clock),
        ),
        pseudonyms: Pseudonyms::new(node.secrets.pseudonym_key()),
        surroundings: Arc::new(operator::NodeSurroundings(Arc::clone(&node))),
        clock: Arc::clone(&node.clock),
        since: Instant::now(),
    };
    Ok(App {
        operator: operator::router(Arc::new(acts)),
        router: routes::router(node, readiness.clone()),
        admin: admin::router(metrics, readiness.clone()),
        readiness,
    })
}

fn data_bounds(data: &AccountData) -> DataBounds {
    DataBounds {
        max_value: data.max_value_bytes,
        limits: DataLimits {
            keys: data.max_keys,
            total_bytes: data.max_total_bytes,
        },
    }
}

/// Where the migrations find the database.
pub fn location(config: &Config) -> Location {
    match &config.database {
        Database::Sqlite(path) => Location::Sqlite(path.clone()),
        Database::Postgres(url) => Location::Postgres(url.expose().to_owned()),
    }
}

/// The bounds of a queue.
pub fn queue_limits(config: &Config) -> QueueLimits {
    QueueLimits {
        envelopes: config.queue.max_envelopes,
        bytes: config.queue.max_bytes,
    }
}

/// An empty or older database is brought up to date; one that is not ours, or newer, is refused.
pub async fn open_storage(config: &Config, secrets: &ServerSecrets) -> anyhow::Result<Storage> {
    let location = location(config);
    if migrate::check(&location).await? == migrate::Schema::Outdated {
        tracing::info!("bringing the database up to date");
        migrate::up(&location, &secrets.upgrade()).await?;
    }
    let limits = queue_limits(config);
    Ok(match &config.database {
        Database::Sqlite(path) => sqlite::open(path, limits).await?,
        Database::Postgres(url) => postgres::open(url.expose(), limits, config.database_pool_size).await?,
    })
}

/// How many transactions take keys at a time.
fn claim_lanes(config: &Config) -> usize {
    match &config.database {
        // SQLite has one writer.
        Database::Sqlite(_) => 1,
        Database::Postgres(_) => POSTGRES_CLAIM_LANES,
    }
}

fn relay(
    config: &Config,
    lifecycle: &Lifecycle,
    storage: &Storage,
    (accounts, sessions): (&Arc<AccountCache>, &Arc<TokenSessions>),
    secrets: &ServerSecrets,
    clock: &Arc<dyn Clock>,
    waiting: &Arc<Registry>,
) -> anyhow::Result<Relay> {
    let presence = Arc::new(Presence::default());
    let bus: Arc<dyn Bus> = match &config.redis_url {
        None => Arc::new(SingleNode),
        Some(url) => {
            let (presence, accounts, waiting) = (Arc::clone(&presence), Arc::clone(accounts), Arc::clone(waiting));
            let sessions = Arc::clone(sessions);
            let receive = move |hint| receive_hint(hint, &presence, &accounts, &sessions, &waiting);
            Arc::new(RedisBus::start(
                url.expose(),
                secrets.bus_key(),
                &lifecycle.background,
                &lifecycle.stop_background,
                receive,
            )?)
        }
    };
    let lanes = match &config.database {
        // SQLite has one writer.
        Database::Sqlite(_) => 1,
        Database::Postgres(_) => POSTGRES_LANES,
    };
    let shares = Arc::new(Shares::new(queue_limits(config), config.queue.sender_share_percent));
    let writer = Writer::start(lanes, &lifecycle.background, &storage.queue, &presence, &bus, &shares);
    Ok(Relay {
        seals: Arc::default(),
        interim: secrets.interim_keys(),
        accounts: Arc::clone(accounts),
        queue: Arc::clone(&storage.queue),
        shares,
        writer,
        presence,
        direct: direct_delivery(config),
        times: even_times(config),
        bus,
        clock: Arc::clone(clock),
        retention_days: config.queue.retention_days,
        max_content: MAX_CONTENT,
        fan_out_room: Semaphore::new(FAN_OUT_ROOM),
        rekeying: Semaphore::new(1),
    })
}

fn even_times(config: &Config) -> EvenTimes {
    match direct_delivery(config) {
        DirectDelivery::After(linger) if !config.relay.answer_tick.is_zero() => EvenTimes::new(linger),
        DirectDelivery::After(_) | DirectDelivery::Off => EvenTimes::default(),
    }
}

fn direct_delivery(config: &Config) -> DirectDelivery {
    let alone = matches!(config.database, Database::Sqlite(_));
    match config.relay.direct {
        DirectSetting::On => DirectDelivery::After(config.relay.linger),
        DirectSetting::Auto if alone || config.redis_url.is_some() => DirectDelivery::After(config.relay.linger),
        DirectSetting::Auto | DirectSetting::Off => DirectDelivery::Off,
    }
}

fn spawn_background(
    config: &Config,
    lifecycle: &Lifecycle,
    storage: &Storage,
    relay: &Relay,
    clock: &Arc<dyn Clock>,
    metrics: PrometheusHandle,
) {
    let stop = || lifecycle.stop_background.clone();
    let background = &lifecycle.background;
    background.spawn(retention::run(storage.clone(), Arc::clone(clock), stop()));
    background.spawn(tick::run(
        config.relay.fallback_tick,
        Arc::clone(&storage.queue),
        Arc::clone(&storage.devices),
        Arc::clone(&relay.presence),
        stop(),
    ));
    background.spawn(run_epochs(Arc::clone(&relay.seals), stop()));
    background.spawn(seen::run(
        Arc::clone(&storage.devices),
        Arc::clone(&relay.presence),
        Arc::clone(clock),
        stop(),
    ));
    background.spawn(upkeep(metrics, stop()));
}

/// Histograms gather samples until they are drained.
async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

/// What memory holds for a while only is let go also where nobody asks anything.
async fn tidy(node: AppState, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TIDY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        node.tidy();
    }
}

/// One recorder serves the process, however many nodes a test starts in it.
fn recorder() -> anyhow::Result<PrometheusHandle> {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = INSTALLED.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full(metrics::COMMIT_ROWS.into()),
            &metrics::COMMIT_ROWS_BUCKETS,
        )
        .and_then(|builder| {
            builder.set_buckets_for_metric(
                Matcher::Full(metrics::COMMIT_SECONDS.into()),
                &metrics::COMMIT_SECONDS_BUCKETS,
            )
        })
        .context("the histograms have buckets")?;
    Ok(INSTALLED
        .get_or_init(|| {
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if ::metrics::set_global_recorder(recorder).is_ok() {
                metrics::describe();
            }
            handle
        })
        .clone())
}

/// The largest ciphertext for one device.
const MAX_CONTENT: usize = 96 * 1024;
/// Each holds a connection while it commits; more only wait for the same disk.
const POSTGRES_LANES: usize = 3;
/// The same, for claims of keys.
const POSTGRES_CLAIM_LANES: usize = 2;
const UPKEEP: Duration = Duration::from_secs(5);
/// Within the minute that is promised for a deleted account.
const TIDY: Duration = Duration::from_secs(10);
