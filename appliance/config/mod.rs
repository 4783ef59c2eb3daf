//! The configuration of one member: a TOML file that becomes a [`Config`] or a list of problems.
//!
//! ```text
//!   text --toml--> table with places --Section--> values --check--> Config
//!                                        |                   |
//!                                        +--- Problem{line, column, what, remedy} ...
//! ```
//!
//! Contract: a [`Config`] that exists is sound; every problem of a file is reported at once, each
//! with its place; no message contains a key.

mod check;
mod prefix;
mod problem;
mod read;
mod sections;
mod target;

pub use prefix::Prefix;
pub use problem::{ConfigError, Problem};
pub use sections::SOCKET_DEFAULT;
pub use target::{
    HealthChecks, LocalDelivery, MarkReception, STATE_DEFAULT, TargetNetwork, TargetProgram,
};

use holdfast_crypto::SecretBytes;
use holdfast_datapath::TunnelRules;
use holdfast_ike::{EsnPolicy, EspProposal, Identity, IkeProposal, TakeoverPolicy};
use holdfast_member::Takeback;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Most members of a cluster: Raft's majority of more would only be slower.
pub const MEMBERS_MAX: usize = 7;
/// Most targets; the Maglev table spreads a few hundred evenly.
pub const TARGETS_MAX: usize = 256;
/// Most connections; each is tried in order when a peer arrives.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Most queues of a port, one worker each.
pub const QUEUES_MAX: u16 = 16;

/// Everything one member needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member.
    pub member: Member,
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// Which member should own the addresses.
    pub takeover: Takeover,
    /// The addresses it may come to speak for.
    pub addresses: Addresses,
    /// The port towards the peers.
    pub outside: Port,
    /// The port towards the targets.
    pub inside: Port,
    /// The way to the target on this member's own host, if there is one.
    pub local: Option<Local>,
    /// How DPDK is started.
    pub dpdk: Dpdk,
    /// IKE in general.
    pub ike: Ike,
    /// What happens to packets at the ends of tunnels.
    pub tunnel: TunnelRules,
    /// Who may connect.
    pub connections: Vec<Connection>,
    /// Who serves.
    pub targets: Vec<Target>,
    /// Where `holdfast-target` finds this member; `None` when no target runs it.
    pub notice_address: Option<SocketAddr>,
    /// What is logged and how.
    pub log: Log,
}

/// `[member]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which of the cluster's members this is; at least 1.
    pub id: u64,
    /// What it does.
    pub role: Role,
    /// Where the log and the incarnation are kept.
    pub data_dir: PathBuf,
    /// The operator's Unix socket.
    pub socket: PathBuf,
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything: it votes, and it may come to own the common address.
    Full,
    /// It votes, stores the log and never owns; without ports and workers.
    Witness,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How fast failures are noticed.
    pub timing: Timing,
    /// Whether this member was added to a running cluster: until it has heard from it, it votes
    /// for nobody. Means nothing once it has.
    pub join: bool,
    /// Every member, this one included, in ascending order. For the first start: later the
    /// replicated log says who the members are.
    pub members: Vec<Peer>,
    /// The cluster's certificate authority, PEM.
    pub ca: PathBuf,
    /// This member's certificate, PEM.
    pub certificate: PathBuf,
    /// This member's private key, PEM.
    pub key: PathBuf,
}

/// How fast the failure of an owner is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// A few tens of milliseconds at most; for metal with isolated cores.
    Brisk,
    /// Tens of milliseconds; for machines that run nothing else.
    Default,
    /// Some hundreds of milliseconds; for crowded machines.
    Relaxed,
}

/// One `[[cluster.member]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The member's number.
    pub id: u64,
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// What it does.
    pub role: Role,
    /// The higher, the sooner it should own; among equals the lowest id.
    pub preference: u8,
}

/// `[takeover]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// Whether a preferred member gets the address back.
    pub takeback: Takeback,
    /// A member gets the address back only after it has been fit for so long, seconds.
    pub hold_down_s: u32,
    /// Without a packet for so long nothing flows, seconds.
    pub idle_s: u32,
}

impl Default for Takeover {
    fn default() -> Self {
        Self { takeback: Takeback::Never, hold_down_s: 60, idle_s: 10 }
    }
}

/// `[addresses]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The common address, outside.
    pub common: Ipv4Addr,
    /// The inside address.
    pub inside: Ipv4Addr,
    /// Inner addresses that the targets serve.
    pub service: Vec<Ipv4Addr>,
    /// What is directly reachable outside.
    pub outside_prefix: Prefix,
    /// The next hop for everything else outside.
    pub outside_gateway: Option<Ipv4Addr>,
    /// What is directly reachable inside.
    pub inside_prefix: Prefix,
}

/// `[outside]` and `[inside]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// A PCI address, a port's name or a virtual device with its arguments.
    pub device: String,
    /// Receive and transmit queues, one worker each.
    pub queues: u16,
}

/// `[local]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Our end: a port's name or a virtual device with its arguments.
    pub device: String,
    /// The host's end: an interface of the kernel.
    pub interface: String,
}

/// `[dpdk]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dpdk {
    /// Whether to use huge pages.
    pub hugepages: Hugepages,
    /// Memory for packets, in MiB.
    pub memory_mb: u32,
    /// The CPU of each worker; empty leaves it to the system.
    pub cpus: Vec<usize>,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// The implementation of AES-GCM; `None` takes the fastest that works here.
    pub aead: Option<holdfast_crypto::Level>,
}

/// Whether to use huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hugepages {
    /// When the system has some.
    Auto,
    /// Never.
    Off,
}

/// What a worker does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Polls on: lowest latency, a whole core.
    Busy,
    /// Sleeps for growing moments: several members can share a machine.
    Adaptive,
}

/// `[ike]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ike {
    /// Who we say we are.
    pub local_id: Identity,
}

/// One `[[connection]]`.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Who may use it; `None` for anybody who knows the key.
    pub remote_id: Option<Identity>,
    /// The pre-shared key.
    pub psk: SecretBytes,
    /// What the peer may reach.
    pub local_ts: Vec<Prefix>,
    /// What the peer may have behind itself.
    pub remote_ts: Vec<Prefix>,
    /// Algorithms of the IKE SA, in order of preference.
    pub ike_proposals: Vec<IkeProposal>,
    /// Algorithms of Child SAs, in order of preference.
    pub esp_proposals: Vec<EspProposal>,
    /// Extended sequence numbers (RFC 4303 section 2.2.1).
    pub esn: EsnPolicy,
    /// Lifetime of a Child SA, seconds.
    pub child_lifetime_s: u32,
    /// Lifetime of an IKE SA, seconds.
    pub ike_lifetime_s: u32,
    /// Silence after which the peer is asked whether it lives, seconds; `None` never.
    pub liveness_s: Option<u32>,
    /// Size of the anti-replay window.
    pub replay_window_packets: u32,
    /// What a new owner does about its SAs.
    pub policy: TakeoverPolicy,
}

/// One `[[target]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its address inside.
    pub address: Ipv4Addr,
    /// Its share of new flows, relative to the others'.
    pub weight: u32,
    /// Whether its packets are marked.
    pub delivery: Delivery,
    /// Whether its weight falls with its load.
    pub weight_by_load: bool,
    /// The member on whose host it is, if it is one's.
    pub member: Option<u64>,
}

/// How packets are delivered to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As they come out of the tunnel.
    Clear,
    /// Marked under the key of the epoch, for `holdfast-target` to check.
    Marked,
}

impl Target {
    /// The number the cluster knows the target by: a digest of its name (FNV-1a), so that members
    /// agree on it whatever the order of their files.
    #[must_use]
    pub fn id(&self) -> u64 {
        target_id(&self.name)
    }
}

/// The number of the target `name`; see [`Target::id`].
#[must_use]
pub fn target_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A level, or filters as `tracing` understands them.
    pub level: String,
    /// Lines for people or JSON.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// Reads and checks a file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// Every problem of the file, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Checks the text of a file that lies in `folder`.
    ///
    /// # Errors
    /// Every problem of the text, in the order of their places.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Problem>> {
        sections::parse(text, folder)
    }

    /// Whether this member votes and never owns. Of its configuration only `member`, `cluster` and
    /// `log` mean anything then.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.member.role == Role::Witness
    }

    /// This member's own entry in the list of members.
    #[must_use]
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.cluster.members.iter().find(|peer| peer.id == self.member.id).map(|p| p.address)
    }
}

#[cfg(test)]
mod tests;
