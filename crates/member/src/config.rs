//! What a member is told once, at its start.

use holdfast_cluster::{Incarnation, MemberId, TargetId};
use holdfast_datapath::{Prefix, TunnelRules};
use holdfast_ike::{Identity, IkeConfig};
use holdfast_packet::MacAddr;
use holdfast_replica::Timing;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Everything a member needs to know before its first input. Addresses, targets, IKE connections,
/// timing and seeds are equal on all members; identity and station addresses are its own.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    /// This member.
    pub id: MemberId,
    /// The boot counter of this member, written and synced before this start.
    pub incarnation: Incarnation,
    /// All members, this one among them.
    pub members: Vec<MemberId>,
    /// Those of them that vote and never own.
    pub witnesses: BTreeSet<MemberId>,
    /// Where members listen for each other, as the configuration says.
    pub member_addresses: BTreeMap<MemberId, String>,
    /// Whether this member was added to a running cluster and knows nothing yet.
    pub join: bool,
    /// The release of the program, told to the other members.
    pub release: String,
    /// The clockwork of elections and leases.
    pub timing: Timing,
    /// The addresses the cluster speaks for, and its networks.
    pub addresses: Addresses,
    /// The station address of this member's outside port.
    pub outside_mac: MacAddr,
    /// The station address of this member's inside port.
    pub inside_mac: MacAddr,
    /// The connections peers may make.
    pub ike: IkeConfig,
    /// The hosts behind the common address, at most [`crate::limits::TARGETS_MAX`].
    pub targets: Vec<TargetConfig>,
    /// How many workers there are: 1, 2, 4, ... A Child SA lives on the worker its SPI's low bits
    /// name.
    pub workers: u32,
    /// Secret of the Maglev table.
    pub maglev_seed: u64,
    /// Secret of the flow hash.
    pub flow_seed: u64,
    /// What happens to packets at the ends of tunnels.
    pub tunnel: TunnelRules,
    /// Which member should own when several could.
    pub succession: SuccessionPolicy,
}

impl MemberConfig {
    /// What a witness needs to know: it votes, stores the log and owns nothing, so it has neither
    /// workers nor ports, and no address means anything to it.
    #[must_use]
    pub fn witness(
        id: MemberId,
        incarnation: Incarnation,
        members: Vec<MemberId>,
        witnesses: BTreeSet<MemberId>,
        timing: Timing,
    ) -> Self {
        let nothing = Ipv4Addr::UNSPECIFIED;
        Self {
            id,
            incarnation,
            members,
            witnesses,
            member_addresses: BTreeMap::new(),
            join: false,
            release: String::new(),
            timing,
            addresses: Addresses {
                common: nothing,
                inside: nothing,
                service: nothing,
                outside_prefix: Prefix { address: nothing, length: 32 },
                gateway: None,
            },
            outside_mac: MacAddr::ZERO,
            inside_mac: MacAddr::ZERO,
            ike: IkeConfig::new(nothing, Identity::Ipv4(nothing)),
            targets: Vec::new(),
            workers: 0,
            maglev_seed: 0,
            flow_seed: 0,
            tunnel: TunnelRules::default(),
            succession: SuccessionPolicy::default(),
        }
    }

    /// Whether this member votes and never owns.
    #[must_use]
    pub fn is_witness(&self) -> bool {
        self.witnesses.contains(&self.id)
    }
}

/// The addresses that move with the ownership, and how to reach peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Where peers reach the cluster: IKE, ESP.
    pub common: Ipv4Addr,
    /// Where targets send their replies.
    pub inside: Ipv4Addr,
    /// The address peers use inside the tunnel; usually the common address.
    pub service: Ipv4Addr,
    /// The outside network: peers in it are reached directly.
    pub outside_prefix: Prefix,
    /// Where other peers are reached.
    pub gateway: Option<Ipv4Addr>,
}

impl Addresses {
    /// Who must receive a frame for `peer`: itself on the outside network, else the gateway.
    #[must_use]
    pub fn next_hop(&self, peer: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.outside_prefix.contains(peer) { Some(peer) } else { self.gateway }
    }
}

/// A host behind the common address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetConfig {
    /// Its number, unique and stable.
    pub id: TargetId,
    /// Its name for the operator, unique.
    pub name: String,
    /// Its address on the inside network.
    pub address: Ipv4Addr,
    /// Its share of new connections, relative to the others; 0 for none.
    pub weight: u32,
    /// How packets are delivered to it.
    pub delivery: Delivery,
    /// Whether its weight falls with the load it reports.
    pub follows_load: bool,
    /// The member on whose host it runs, if it is one's.
    pub member: Option<MemberId>,
}

/// How packets are delivered to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// As they come out of the tunnel, to its station on the inside network.
    #[default]
    Clear,
    /// Marked under the key of the epoch; it takes no others.
    Marked,
}

/// Which member should own when several are fit. Equal on all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessionPolicy {
    /// Whether a preferred member gets the address back.
    pub takeback: Takeback,
    /// Members, the one that should own first; those not named follow in the order of their ids.
    pub preference: Vec<MemberId>,
    /// A member is not given the address back before it has been fit for so long, nor before the
    /// owner has owned for so long.
    pub hold_down_ms: u64,
    /// Without a packet for so long the cluster counts as idle.
    pub idle_ms: u64,
}

impl Default for SuccessionPolicy {
    fn default() -> Self {
        Self {
            takeback: Takeback::Never,
            preference: Vec::new(),
            hold_down_ms: 60_000,
            idle_ms: 10_000,
        }
    }
}

/// When a preferred member that is fit again gets the address back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Takeback {
    /// Not at all: the ownership moves only when it must, or when the operator says so.
    #[default]
    Never,
    /// When no packet flows.
    Idle,
    /// At once.
    Now,
}

impl Takeback {
    /// Its word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Idle => "idle",
            Self::Now => "now",
        }
    }
}
