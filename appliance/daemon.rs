//! Starting a member, step by step, each one a condition of the next.

use crate::config::{Config, LogFormat, Role, Timing};
use crate::controller::{Controller, ControllerError, Foundation, Parts};
use crate::pki::{Credentials, PkiError};
use crate::store::{Store, StoreError};
use crate::worker::{self, WorkerError, WorkerPlan, WorkerSet};
use crate::{clock, config, stats};
use holdfast_cluster::{Incarnation, MemberId, TargetId};
use holdfast_crypto::{CryptoError, Level};
use holdfast_datapath::{LeaseCell, Prefix, TablesPublisher};
use holdfast_ike::IkeConfig;
use holdfast_ipsec::TrafficSelector;
use holdfast_member::{
    Addresses, Delivery, Member, MemberConfig, MemberError, SuccessionPolicy, TargetConfig,
};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// Why the daemon did not start, or ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The cryptography does not compute what it should.
    #[error("the self-test of the cryptography failed: {0}")]
    SelfTest(CryptoError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// DPDK, its ports or its threads did not start.
    #[error(transparent)]
    Workers(#[from] WorkerError),
    /// Configuration or log are not usable for a member.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A socket or a thread could not be had.
    #[error("{what}: {source}")]
    Io {
        /// What for.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ran and could not go on.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.into();
    move |source| DaemonError::Io { what, source }
}

/// Sends log lines to the standard error output, as the configuration says.
pub fn start_log(log: &config::Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Runs a member until it is asked to stop.
///
/// # Errors
/// [`DaemonError`] says what the daemon could not do without.
pub fn run(config: Config) -> Result<(), DaemonError> {
    choose_aead(config.dpdk.aead).map_err(DaemonError::SelfTest)?;
    // Before anything else that another member could hear of: who starts is somebody new.
    let store = open_store(&config)?;
    let parts = assemble(config, store)?;
    Controller::new(parts).map_err(io("controller"))?.run()?;
    tracing::info!("stopped");
    Ok(())
}

/// Settles on an implementation of AES-GCM, before the first key is expanded.
fn choose_aead(configured: Option<Level>) -> Result<(), CryptoError> {
    let (fastest, _) = Level::fastest();
    for (level, error) in Level::broken() {
        tracing::warn!(%level, %error, "this AES-GCM gives wrong answers here and is not used");
    }
    let level = configured.unwrap_or(fastest);
    level.choose()?;
    tracing::info!(%level, "AES-GCM gives the known answers");
    holdfast_crypto::self_test()
}

fn open_store(config: &Config) -> Result<Store, StoreError> {
    let store = Store::open(&config.member.data_dir)?;
    if let Some(torn) = &store.torn_tail {
        tracing::warn!(
            segment = torn.segment,
            offset = torn.offset,
            bytes = torn.bytes,
            "the log's last write was torn and is dropped; nobody relied on it"
        );
    }
    Ok(store)
}

fn assemble(config: Config, store: Store) -> Result<Parts, DaemonError> {
    let incarnation = store.incarnation;
    let cluster = &config.cluster;
    let credentials = Credentials::load(&cluster.ca, &cluster.certificate, &cluster.key)?;
    let foundation = Foundation::new().map_err(io("poll"))?;
    let lease = LeaseCell::new();
    let mut tables = TablesPublisher::new();
    let workers = start_workers(&config, &foundation, &lease, &mut tables)?;
    let (recovered, storage) =
        store.start_thread(foundation.wake()).map_err(io("storage thread"))?;
    let member_config = member_config(&config, incarnation, &workers, &credentials);
    let member = Member::new(member_config, recovered, *fresh_seed()?, clock::now())?;
    let listening = config.own_address().map(|address| format!("listening on {address}"));
    let heard = config.notice_address.map(|address| format!("listening on {address}"));
    let notices =
        foundation.notices(&config, credentials.clone()).map_err(io(heard.unwrap_or_default()))?;
    let transport =
        foundation.transport(&config, credentials).map_err(io(listening.unwrap_or_default()))?;
    let socket = &config.member.socket;
    let server = foundation.server(&config).map_err(io(socket.display().to_string()))?;
    let statistics = statistics(&config, &workers)?;
    tracing::info!(
        version = env!("HOLDFAST_VERSION"),
        member = config.member.id,
        incarnation,
        workers = workers.count(),
        common = %config.addresses.common,
        "started"
    );
    Ok(Parts {
        config,
        foundation,
        member,
        transport,
        notices,
        server,
        storage,
        workers,
        tables,
        lease,
        statistics,
    })
}

fn fresh_seed() -> Result<Zeroizing<[u8; 32]>, DaemonError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| io("randomness")(io::Error::other(error)))?;
    Ok(seed)
}

fn statistics(config: &Config, workers: &WorkerSet) -> Result<stats::Writer, DaemonError> {
    let path = stats::path_beside(&config.member.socket);
    let workers = usize::try_from(workers.count()).unwrap_or(0);
    stats::Writer::create(&path, workers).map_err(io(path.display().to_string()))
}

fn start_workers(
    config: &Config,
    foundation: &Foundation,
    lease: &LeaseCell,
    tables: &mut TablesPublisher,
) -> Result<WorkerSet, WorkerError> {
    if config.is_witness() {
        return Ok(WorkerSet::none());
    }
    let plan = WorkerPlan {
        outside: config.outside.clone(),
        inside: config.inside.clone(),
        local: config.local.clone(),
        dpdk: config.dpdk.clone(),
        lease: lease.clone(),
        timing: timing(config),
        wake: Arc::new(foundation.wake()),
    };
    worker::start(&plan, tables)
}

/// The clockwork of elections that the operator named.
pub(crate) fn timing(config: &Config) -> holdfast_replica::Timing {
    match config.cluster.timing {
        Timing::Brisk => holdfast_replica::Timing::BRISK,
        Timing::Default => holdfast_replica::Timing::DEFAULT,
        Timing::Relaxed => holdfast_replica::Timing::RELAXED,
    }
}

/// The operator's configuration in the replica's words.
#[must_use]
pub fn replica_config(config: &Config, incarnation: u64) -> holdfast_replica::Config {
    let peers = &config.cluster.members;
    let members = peers.iter().map(|peer| MemberId(peer.id)).collect();
    let (id, incarnation) = (MemberId(config.member.id), Incarnation(incarnation));
    let witnesses = peers.iter().filter(|peer| peer.role == Role::Witness);
    let mut replica = holdfast_replica::Config::new(id, members, timing(config), incarnation);
    replica.witnesses = witnesses.map(|peer| MemberId(peer.id)).collect();
    replica.addresses =
        peers.iter().map(|peer| (MemberId(peer.id), peer.address.to_string())).collect();
    replica.join = config.cluster.join;
    replica.release = env!("HOLDFAST_VERSION").to_owned();
    replica
}

/// The operator's configuration in the member's words.
fn member_config(
    config: &Config,
    incarnation: u64,
    workers: &WorkerSet,
    credentials: &Credentials,
) -> MemberConfig {
    let replica = replica_config(config, incarnation);
    let holdfast_replica::Config { id, members, witnesses, addresses, join, .. } = replica;
    let (release, timing, incarnation) = (replica.release, replica.timing, replica.incarnation);
    let member_addresses = addresses;
    if config.is_witness() {
        let witness = MemberConfig::witness(id, incarnation, members, witnesses, timing);
        return MemberConfig { release, member_addresses, join, ..witness };
    }
    MemberConfig {
        id,
        incarnation,
        members,
        witnesses,
        member_addresses,
        join,
        release,
        timing,
        addresses: self::addresses(&config.addresses),
        outside_mac: workers.outside_mac(),
        inside_mac: workers.inside_mac(),
        ike: ike_config(config, workers.count()),
        targets: config.targets.iter().map(target).collect(),
        workers: workers.count(),
        maglev_seed: credentials.cluster_seed("maglev"),
        flow_seed: credentials.cluster_seed("flow"),
        tunnel: config.tunnel,
        succession: succession(config),
    }
}

fn succession(config: &Config) -> SuccessionPolicy {
    let mut members: Vec<_> = config.cluster.members.iter().collect();
    members.sort_by_key(|peer| (std::cmp::Reverse(peer.preference), peer.id));
    SuccessionPolicy {
        takeback: config.takeover.takeback,
        preference: members.into_iter().map(|peer| MemberId(peer.id)).collect(),
        hold_down_ms: u64::from(config.takeover.hold_down_s).saturating_mul(1_000),
        idle_ms: u64::from(config.takeover.idle_s).saturating_mul(1_000),
    }
}

fn addresses(addresses: &config::Addresses) -> Addresses {
    let prefix = addresses.outside_prefix;
    Addresses {
        common: addresses.common,
        inside: addresses.inside,
        service: addresses.service.first().copied().unwrap_or(addresses.common),
        outside_prefix: Prefix { address: prefix.address(), length: prefix.length() },
        gateway: addresses.outside_gateway,
    }
}

fn target(target: &config::Target) -> TargetConfig {
    TargetConfig {
        id: TargetId(target.id()),
        name: target.name.clone(),
        address: target.address,
        weight: target.weight,
        delivery: match target.delivery {
            config::Delivery::Clear => Delivery::Clear,
            config::Delivery::Marked => Delivery::Marked,
        },
        follows_load: target.weight_by_load,
        member: target.member.map(MemberId),
    }
}

fn ike_config(config: &Config, workers: u32) -> IkeConfig {
    let mut ike = IkeConfig::new(config.addresses.common, config.ike.local_id.clone());
    ike.workers = workers;
    ike.connections = config.connections.iter().map(connection).collect();
    ike
}

fn connection(connection: &config::Connection) -> holdfast_ike::Connection {
    let selector =
        |prefix: &config::Prefix| TrafficSelector::prefix(prefix.address(), prefix.length());
    holdfast_ike::Connection {
        name: connection.name.clone(),
        remote_identity: connection.remote_id.clone(),
        psk: connection.psk.clone(),
        local_ts: connection.local_ts.iter().map(selector).collect(),
        remote_ts: connection.remote_ts.iter().map(selector).collect(),
        ike_proposals: connection.ike_proposals.clone(),
        esp_proposals: connection.esp_proposals.clone(),
        esn: connection.esn,
        child_lifetime_s: connection.child_lifetime_s,
        ike_lifetime_s: connection.ike_lifetime_s,
        liveness_s: connection.liveness_s,
        replay_window: connection.replay_window_packets,
        policy: connection.policy,
    }
}
