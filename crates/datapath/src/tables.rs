//! What all workers know alike: immutable, published whole, replaced whole.

use crate::mark::Marker;
use crate::ring::{RingReceiver, RingSender, ring};
use holdfast_ipsec::{Spd, Spi};
use holdfast_maglev::Table;
use holdfast_packet::{MacAddr, Nanos, Side};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the outbound SA of a policy lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaRef {
    /// The worker that keeps the SA.
    pub worker: u32,
    /// The name of the pair of SAs: its inbound SPI.
    pub spi: Spi,
}

/// A host behind the appliance.
#[derive(Debug, Clone)]
pub struct TargetEntry {
    /// Its address on the inside network.
    pub address: Ipv4Addr,
    /// Its station address, once ARP has told it.
    pub mac: Option<MacAddr>,
    /// It keeps its connections and gets no new ones.
    pub draining: bool,
    /// How packets reach it.
    pub way: Way,
    /// How many connections it was given; shared between generations.
    pub connections: ConnectionCount,
}

/// Connections given to one target, counted by all workers: once for each connection, off the way
/// of the other packets.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCount(Arc<AtomicU64>);

impl ConnectionCount {
    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the packets of a connection reach their target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Way {
    /// As they are, to its station: whoever is on the inside network is trusted.
    #[default]
    Clear,
    /// Marked, because the target takes nothing else.
    Marked(Arc<Marker>),
    /// It is on this member's own host: through the port to it, never over the inside network.
    Local,
    /// Marked in principle, but the key of the epoch is not known yet: not at all.
    Unmarked,
}

/// The targets and how new connections spread over them.
#[derive(Debug, Clone)]
pub struct TargetTable {
    /// Over the targets that take new connections; shared between generations that agree.
    pub table: Arc<Table>,
    /// Every target that may have connections. A target missing here is gone: its connections move.
    pub by_id: BTreeMap<u64, TargetEntry>,
}

/// The station addresses of one member's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stations {
    /// Outside.
    pub outside: MacAddr,
    /// Inside.
    pub inside: MacAddr,
}

impl Stations {
    /// The one on a side.
    #[must_use]
    pub const fn on(&self, side: Side) -> MacAddr {
        match side {
            Side::Outside => self.outside,
            Side::Inside => self.inside,
        }
    }
}

/// What happens to the packets of all tunnels at their ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelRules {
    /// The outer code point; `None` copies the inner one (RFC 4301, 5.1.2.1).
    pub dscp: Option<u8>,
    /// Whether congestion notification goes through the tunnel (RFC 6040, 4.1): normal mode, or
    /// compatibility mode, in which the outer header takes no part in it.
    pub ecn: bool,
    /// Whether fragmentation of the outer packet is forbidden (RFC 4301, 8.1).
    pub dont_fragment: DontFragment,
    /// Whether the segment size of TCP connections is lowered to what fits into the tunnel, so that
    /// they need no ICMP to find out.
    pub clamp_segment_size: bool,
}

impl Default for TunnelRules {
    fn default() -> Self {
        Self { dscp: None, ecn: true, dont_fragment: DontFragment::Copy, clamp_segment_size: true }
    }
}

/// The ban on fragmentation in outer headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DontFragment {
    /// As in the inner header.
    Copy,
    /// Always.
    Set,
    /// Never.
    Clear,
}

/// One generation of everything a worker looks up.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Counts publications; ascending.
    pub generation: u64,
    /// The address peers reach outside.
    pub common: Ipv4Addr,
    /// The address targets send their replies through.
    pub inside: Ipv4Addr,
    /// The address peers use inside the tunnel; usually the common address.
    pub service: Ipv4Addr,
    /// The station address this member receives with outside.
    pub outside_mac: MacAddr,
    /// The station address this member receives with inside.
    pub inside_mac: MacAddr,
    /// The outside network: peers in it are reached directly.
    pub outside_prefix: Prefix,
    /// Where peers beyond the outside network are reached; `None` when there is no such way.
    pub gateway: Option<Ipv4Addr>,
    /// Which packets from inside are encrypted with which SA.
    pub spd: Spd<SaRef>,
    /// Where packets from peers go.
    pub targets: TargetTable,
    /// Station addresses of the outside network.
    pub neighbours: BTreeMap<Ipv4Addr, MacAddr>,
    /// The longest packets that get through to peers, in bytes, where that is less than the outside
    /// port's MTU.
    pub path_mtus: BTreeMap<Ipv4Addr, u16>,
    /// Secret of [`holdfast_packet::FlowKey::hash`], the same on all members.
    pub flow_seed: u64,
    /// What happens to packets at the ends of tunnels.
    pub tunnel: TunnelRules,
    /// The ports of the other members, as far as they are known.
    pub members: Vec<Stations>,
}

impl Tables {
    /// Tables of a member that knows nothing: every packet is dropped.
    pub fn empty() -> Self {
        Self {
            generation: 0,
            common: Ipv4Addr::UNSPECIFIED,
            inside: Ipv4Addr::UNSPECIFIED,
            service: Ipv4Addr::UNSPECIFIED,
            outside_mac: MacAddr::ZERO,
            inside_mac: MacAddr::ZERO,
            outside_prefix: Prefix { address: Ipv4Addr::UNSPECIFIED, length: 32 },
            gateway: None,
            spd: Spd::default(),
            targets: TargetTable { table: Arc::new(Table::new(&[], 2, 0)), by_id: BTreeMap::new() },
            neighbours: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            flow_seed: 0,
            tunnel: TunnelRules::default(),
            members: Vec::new(),
        }
    }

    /// Who must receive a frame for `peer`: itself on the outside network, else the gateway.
    pub fn next_hop(&self, peer: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.outside_prefix.contains(peer) { Some(peer) } else { self.gateway }
    }
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Any address in it.
    pub address: Ipv4Addr,
    /// Leading bits that count; above 32 is 32.
    pub length: u8,
}

impl Prefix {
    /// True when `address` is in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let host_bits = 32u32.saturating_sub(u32::from(self.length));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        (self.address.to_bits() ^ address.to_bits()) & mask == 0
    }
}

/// The controller's end: publishes tables and keeps retired ones until no worker reads them.
///
/// ```text
///   publish(new) --ring--> reader 1: current() -> &Tables
///        |       --ring--> reader 2
///        v
///   retired: Vec<Arc<Tables>>  freed here, never by a worker
/// ```
#[derive(Debug, Default)]
pub struct TablesPublisher {
    rings: Vec<RingSender<Arc<Tables>>>,
    /// Every generation a reader may still hold, the published one last. At most the one it reads and
    /// [`GENERATIONS_WAITING_MAX`] per reader, and the newest.
    held: Vec<Arc<Tables>>,
    /// Some reader's ring was full when the newest was to go in.
    behind: bool,
}

/// Generations that may wait for a worker: it fetches all of them at its next poll. One that does not
/// poll for longer gets the newest once it does.
const GENERATIONS_WAITING_MAX: usize = 8;

impl TablesPublisher {
    /// A publisher without readers, of [`Tables::empty`].
    pub fn new() -> Self {
        Self { rings: Vec::new(), held: vec![Arc::new(Tables::empty())], behind: false }
    }

    /// One more reader; it starts with what is published now.
    pub fn reader(&mut self) -> TablesReader {
        let (sender, receiver) = ring(GENERATIONS_WAITING_MAX);
        self.rings.push(sender);
        TablesReader { ring: receiver, current: self.newest() }
    }

    /// Gives `tables` to every reader and frees the generations nobody reads any more.
    pub fn publish(&mut self, tables: Arc<Tables>) {
        self.held.push(tables);
        self.deliver();
        self.reclaim();
    }

    /// Gives the newest generation to the readers, as far as their rings have room.
    fn deliver(&mut self) {
        let newest = self.newest();
        let full = |ring: &RingSender<_>| ring.push(Arc::clone(&newest)).is_err();
        // Every one, whether those before had room or not.
        self.behind = self.rings.iter().filter(|ring| full(ring)).count() > 0;
    }

    /// Makes up for what could not be delivered: to be called now and then.
    pub fn catch_up(&mut self) {
        if self.behind {
            self.deliver();
        }
    }

    /// Frees the generations nobody reads any more; returns how many are left.
    pub fn reclaim(&mut self) -> usize {
        let newest = self.held.pop();
        self.held.retain(|tables| Arc::strong_count(tables) > 1);
        self.held.extend(newest);
        self.held.len()
    }

    fn newest(&self) -> Arc<Tables> {
        self.held.last().map_or_else(|| Arc::new(Tables::empty()), Arc::clone)
    }
}

/// A worker's end: never blocks, never frees.
#[derive(Debug)]
pub struct TablesReader {
    ring: RingReceiver<Arc<Tables>>,
    current: Arc<Tables>,
}

impl TablesReader {
    /// Moves on to the newest generation. The one left behind is not freed here, because the
    /// publisher holds it too.
    pub fn refresh(&mut self) {
        while let Some(newer) = self.ring.pop() {
            self.current = newer;
        }
    }

    /// The generation of the last refresh.
    pub fn current(&self) -> &Tables {
        &self.current
    }

    /// The generation of the last refresh, to hold on to during a poll.
    pub fn hold(&self) -> Arc<Tables> {
        Arc::clone(&self.current)
    }
}

/// Keeps a question from being asked more often than once per interval.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    next: Nanos,
}

impl Pace {
    /// True at most once per `interval_ms`.
    pub(crate) fn allows(&mut self, now: Nanos, interval_ms: u64) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now.plus_ms(interval_ms);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(n: u64) -> Arc<Tables> {
        Arc::new(Tables { generation: n, ..Tables::empty() })
    }

    #[test]
    fn readers_see_the_newest_after_a_refresh() {
        let mut publisher = TablesPublisher::new();
        let mut reader = publisher.reader();
        publisher.publish(generation(1));
        publisher.publish(generation(2));
        assert_eq!(reader.current().generation, 0);
        reader.refresh();
        assert_eq!(reader.current().generation, 2);
        assert_eq!(publisher.reader().current().generation, 2);
    }

    #[test]
    fn a_generation_outlives_its_last_reader_only_in_the_publisher() {
        let mut publisher = TablesPublisher::new();
        let mut reader = publisher.reader();
        for n in 1..20 {
            publisher.publish(generation(n));
        }
        let (read, newest) = (1, 1);
        assert_eq!(publisher.reclaim(), read + GENERATIONS_WAITING_MAX + newest);
        let oldest = Arc::downgrade(&reader.hold());
        reader.refresh();
        publisher.catch_up();
        reader.refresh();
        assert_eq!(reader.current().generation, 19, "whatever was left out");
        assert!(oldest.upgrade().is_some(), "the worker must not free it");
        assert_eq!(publisher.reclaim(), 1);
        assert!(oldest.upgrade().is_none());
    }

    #[test]
    fn next_hop_is_the_peer_or_the_gateway() {
        let gateway = Ipv4Addr::new(198, 51, 100, 1);
        let tables = Tables {
            outside_prefix: Prefix { address: Ipv4Addr::new(198, 51, 100, 0), length: 24 },
            gateway: Some(gateway),
            ..Tables::empty()
        };
        let near = Ipv4Addr::new(198, 51, 100, 77);
        assert_eq!(tables.next_hop(near), Some(near));
        assert_eq!(tables.next_hop(Ipv4Addr::new(203, 0, 113, 1)), Some(gateway));
    }

    #[test]
    fn prefix_lengths_reach_from_all_to_one() {
        let any = Ipv4Addr::new(203, 0, 113, 9);
        let prefix = |length| Prefix { address: Ipv4Addr::new(198, 51, 100, 0), length };
        assert!(prefix(0).contains(any));
        assert!(!prefix(32).contains(Ipv4Addr::new(198, 51, 100, 1)));
        assert!(prefix(255).contains(Ipv4Addr::new(198, 51, 100, 0)));
    }
}
