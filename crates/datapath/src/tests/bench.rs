//! A worker on two memory ports, and the peer at the other end of its tunnel.

use crate::{
    Counters, DropReason, Handoff, LeaseCell, Metric, PollResult, Prefix, Retired, RingReceiver,
    RingSender, SaRef, Stations, Tables, TablesPublisher, TargetEntry, TargetTable, Way, Worker,
    WorkerCommand, WorkerEvent, WorkerLimits, WorkerParts, ring,
};
use holdfast_crypto::{AeadAlgorithm, AeadKey, Portable};
use holdfast_ipsec::{
    ChildSaParameters, Encapsulation, InboundSa, OutboundSa, SaKey, Selectors, SequenceRange, Spi,
    TrafficSelector,
};
use holdfast_maglev::Table;
use holdfast_packet::{
    HeapBuf, MacAddr, MemoryPort, Nanos, PacketBuf, Side, ethernet, frame, ipv4, udp,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub(super) const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
pub(super) const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
pub(super) const OUTSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
pub(super) const INSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
pub(super) const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
/// The ports of another member.
pub(super) const OTHER: Stations =
    Stations { outside: MacAddr([2, 0, 0, 0, 9, 1]), inside: MacAddr([2, 0, 0, 0, 9, 2]) };
pub(super) const MTU: u16 = 1500;
pub(super) const NAT: Encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 31_000 };

/// Horizon and first range of the SAs in the bench.
pub(super) const HORIZON: u64 = 100_000;
pub(super) const RANGE: u64 = 100_000;

const KEY_AND_SALT: [u8; 20] = [7; 20];
const WINDOW: u32 = 128;

pub(super) fn target_mac(id: u64) -> MacAddr {
    MacAddr([2, 0, 0, 0, 3, id as u8])
}

pub(super) fn target(id: u64) -> TargetEntry {
    TargetEntry {
        address: Ipv4Addr::new(192, 0, 2, 10 + id as u8),
        mac: Some(target_mac(id)),
        draining: false,
        way: Way::Clear,
        connections: crate::ConnectionCount::default(),
    }
}

/// Targets `ids`, all of them open for new connections.
pub(super) fn targets(ids: &[u64]) -> TargetTable {
    let weights: Vec<(u64, u32)> = ids.iter().map(|id| (*id, 1)).collect();
    TargetTable {
        table: Arc::new(Table::new(&weights, 251, 1)),
        by_id: ids.iter().map(|id| (*id, target(*id))).collect(),
    }
}

/// The pair of SAs number `n` on worker `n % 4`, as the worker sees it.
pub(super) fn parameters(n: u32, encapsulation: Encapsulation) -> ChildSaParameters {
    let key = || SaKey::new(AeadAlgorithm::Aes128Gcm16, &KEY_AND_SALT).unwrap();
    ChildSaParameters {
        inbound_spi: Spi::new(0x1000 + n).unwrap(),
        outbound_spi: Spi::new(0x9000 + n).unwrap(),
        inbound_key: key(),
        outbound_key: key(),
        esn: false,
        window_packets: WINDOW,
        local: COMMON,
        remote: PEER,
        encapsulation,
        selectors: Selectors {
            local: vec![TrafficSelector::host(COMMON)],
            remote: vec![TrafficSelector::prefix(Ipv4Addr::new(10, 77, n as u8, 0), 24)],
        },
        connection: "test".into(),
    }
}

/// The same pair as the peer sees it.
fn mirrored(parameters: &ChildSaParameters) -> ChildSaParameters {
    ChildSaParameters {
        inbound_spi: parameters.outbound_spi,
        outbound_spi: parameters.inbound_spi,
        inbound_key: parameters.outbound_key.clone(),
        outbound_key: parameters.inbound_key.clone(),
        local: parameters.remote,
        remote: parameters.local,
        selectors: Selectors {
            local: parameters.selectors.remote.clone(),
            remote: parameters.selectors.local.clone(),
        },
        ..parameters.clone()
    }
}

/// The other end of one pair of SAs.
pub(super) struct Peer {
    parameters: ChildSaParameters,
    sender: OutboundSa,
    receiver: InboundSa,
    pub(super) ecn: u8,
}

impl Peer {
    pub(super) fn new(parameters: &ChildSaParameters) -> Self {
        let parameters = mirrored(parameters);
        Self {
            sender: OutboundSa::new(&parameters, SequenceRange::new(1, u64::from(u32::MAX))),
            receiver: InboundSa::new(&parameters, 0, u64::MAX),
            parameters,
            ecn: 0,
        }
    }

    /// Goes on numbering at `sequence`.
    pub(super) fn jump_to(&mut self, sequence: u64) {
        let range = SequenceRange::new(sequence, u64::from(u32::MAX));
        self.sender = OutboundSa::new(&self.parameters, range);
    }

    /// The frame that carries `inner` through the tunnel.
    pub(super) fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let mut buf = HeapBuf::from_frame(inner);
        self.sender.seal(&mut buf).unwrap();
        self.frame(buf.bytes())
    }

    /// A frame whose ESP packet has this number and this text, trailer included, under the right key.
    pub(super) fn seal_text(&self, sequence: u32, text: &[u8]) -> Vec<u8> {
        let key = AeadKey::new(AeadAlgorithm::Aes128Gcm16, &KEY_AND_SALT[..16]).unwrap();
        let mut esp = self.parameters.outbound_spi.get().to_be_bytes().to_vec();
        esp.extend(sequence.to_be_bytes());
        let aad = esp.clone();
        let mut nonce = [7; 12];
        nonce[4..].copy_from_slice(&u64::from(sequence).to_be_bytes());
        esp.extend(u64::from(sequence).to_be_bytes());
        let mut data = text.to_vec();
        let tag = key.seal_one(&nonce, &aad, &mut data).unwrap();
        esp.extend(data);
        esp.extend(tag);
        self.frame(&esp)
    }

    /// `esp` behind the outer headers.
    pub(super) fn frame(&self, esp: &[u8]) -> Vec<u8> {
        let (protocol, payload) = match self.parameters.encapsulation {
            Encapsulation::Esp => (ipv4::PROTOCOL_ESP, esp.to_vec()),
            Encapsulation::Udp { local_port, remote_port } => {
                // As seen behind the NAT: the peer's own port is the remote one of our side.
                let ports = udp::Repr { source_port: remote_port, destination_port: local_port };
                let header = ports.bytes_without_checksum(esp.len());
                (ipv4::PROTOCOL_UDP, [header.as_slice(), esp].concat())
            }
        };
        let header = ipv4::Repr { ecn: self.ecn, ..ipv4::Repr::new(PEER, COMMON, protocol, 0) };
        frame::ethernet_frame(OUTSIDE_MAC, PEER_MAC, &frame::ipv4_packet(&header, &payload))
    }

    /// The inner packet of a frame the worker sent.
    pub(super) fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>, DropReason> {
        let link = ethernet::View::parse(frame).unwrap();
        assert_eq!((link.destination(), link.source()), (PEER_MAC, OUTSIDE_MAC));
        let packet = ipv4::View::parse(link.payload()).unwrap();
        assert!(packet.checksum_is_valid());
        assert_eq!((packet.source(), packet.destination()), (COMMON, PEER));
        let mut esp = match self.parameters.encapsulation {
            Encapsulation::Esp => packet.payload().to_vec(),
            Encapsulation::Udp { local_port, remote_port } => {
                let datagram = udp::View::parse(packet.payload()).unwrap();
                assert_eq!(datagram.source_port(), local_port);
                assert_eq!(datagram.destination_port(), remote_port);
                datagram.payload().to_vec()
            }
        };
        self.receiver.open(&mut esp).map(|opened| esp[opened.inner].to_vec())
    }
}

/// One worker, its controller's end of everything, and one peer.
pub(super) struct Bench {
    pub(super) worker: Worker<MemoryPort>,
    pub(super) peer: Peer,
    pub(super) lease: LeaseCell,
    pub(super) now: Nanos,
    pub(super) tables: Tables,
    commands: RingSender<WorkerCommand>,
    pub(super) ring: RingReceiver<WorkerEvent>,
    publisher: TablesPublisher,
}

impl Bench {
    /// An owner with one pair of SAs without NAT and the targets 1, 2, 3.
    pub(super) fn new() -> Self {
        Self::with_encapsulation(Encapsulation::Esp)
    }

    pub(super) fn with_encapsulation(encapsulation: Encapsulation) -> Self {
        let mut handoffs = Handoff::mesh(1);
        let mut bench = Self::bare(handoffs.remove(0), 4096);
        let parameters = parameters(0, encapsulation);
        bench.peer = Peer::new(&parameters);
        bench.install(&parameters);
        bench.poll();
        bench
    }

    /// An owner with one pair of SAs, whose lease is compared with this clock before it sends.
    pub(super) fn with_clock(clock: fn() -> Nanos) -> Self {
        let mut bench = Self::assemble(Handoff::mesh(1).remove(0), 4096, clock);
        bench.install(&parameters(0, Encapsulation::Esp));
        bench.poll();
        bench
    }

    /// An owner without SAs that is one of several workers.
    pub(super) fn bare(handoff: Handoff<HeapBuf>, event_ring: usize) -> Self {
        Self::assemble(handoff, event_ring, || Nanos::ZERO)
    }

    fn assemble(handoff: Handoff<HeapBuf>, event_ring: usize, clock: fn() -> Nanos) -> Self {
        let (commands, command_receiver) = ring(256);
        let (event_sender, events) = ring(event_ring);
        let mut publisher = TablesPublisher::new();
        let lease = LeaseCell::new();
        let worker = Worker::new(WorkerParts {
            outside: MemoryPort::new(OUTSIDE_MAC, MTU),
            inside: MemoryPort::new(INSIDE_MAC, MTU),
            commands: command_receiver,
            events: event_sender,
            lease: lease.clone(),
            clock,
            tables: publisher.reader(),
            counters: Arc::new(Counters::new()),
            handoff,
            aead: Box::new(Portable),
            limits: WorkerLimits { sas: 64, flows: 1024 },
        });
        lease.set(Nanos::from_secs(1_000));
        let peer = Peer::new(&parameters(0, Encapsulation::Esp));
        let now = Nanos::from_secs(1);
        let mut bench =
            Self { worker, peer, lease, now, tables: tables(), commands, ring: events, publisher };
        bench.publish();
        bench
    }

    /// Installs both SAs of a pair, and the policy that leads to them.
    pub(super) fn install(&mut self, parameters: &ChildSaParameters) {
        let id = parameters.inbound_spi;
        let range = SequenceRange::new(1, RANGE + 1);
        self.install_inbound(parameters, 0, HORIZON);
        self.command(WorkerCommand::InstallOutbound {
            id,
            sa: Box::new(OutboundSa::new(parameters, range)),
        });
        self.add_policy(parameters, 0);
    }

    pub(super) fn install_inbound(&self, parameters: &ChildSaParameters, floor: u64, horizon: u64) {
        let sa = Box::new(InboundSa::new(parameters, floor, horizon));
        self.command(WorkerCommand::InstallInbound(sa));
    }

    pub(super) fn add_policy(&mut self, parameters: &ChildSaParameters, worker: u32) {
        let reference = SaRef { worker, spi: parameters.inbound_spi };
        self.tables.spd.insert(parameters.selectors.clone(), reference);
        self.publish();
    }

    /// Gives the worker a port to a target on its own host.
    pub(super) fn add_local(&mut self, mac: MacAddr, station: MacAddr) {
        let bench = Self::bare(Handoff::mesh(1).remove(0), 16);
        let worker = std::mem::replace(&mut self.worker, bench.worker);
        self.worker = worker.with_local(MemoryPort::new(mac, MTU), station);
    }

    /// Publishes `tables` as the next generation.
    pub(super) fn publish(&mut self) {
        self.tables.generation += 1;
        self.publisher.publish(Arc::new(self.tables.clone()));
    }

    pub(super) fn command(&self, command: WorkerCommand) {
        self.commands.push(command).unwrap();
    }

    pub(super) fn poll(&mut self) -> PollResult {
        self.now = self.now.plus_us(10);
        self.worker.poll(self.now)
    }

    pub(super) fn receive(&mut self, side: Side, frame: &[u8]) {
        assert!(self.worker.port_mut(side).deliver(frame));
    }

    /// Lets a packet come from the peer and returns what reached the targets.
    pub(super) fn inbound(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for frame in frames {
            self.receive(Side::Outside, frame);
        }
        self.poll();
        self.sent(Side::Inside)
    }

    /// Lets bare packets come from target 1 and returns what left for the peers.
    pub(super) fn outbound(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        for packet in packets {
            self.receive(Side::Inside, &from_target(packet));
        }
        self.poll();
        self.sent(Side::Outside)
    }

    pub(super) fn sent(&mut self, side: Side) -> Vec<Vec<u8>> {
        self.worker.port_mut(side).take_sent()
    }

    /// What the worker told, memory sent home excepted.
    pub(super) fn events(&self) -> Vec<WorkerEvent> {
        std::iter::from_fn(|| self.ring.pop())
            .filter(|event| !matches!(event, WorkerEvent::Retired(_)))
            .collect()
    }

    /// News but that SAs are in use.
    pub(super) fn other_events(&self) -> Vec<WorkerEvent> {
        let mut events = self.events();
        events.retain(|event| !matches!(event, WorkerEvent::InUse { .. }));
        events
    }

    /// Memory sent home.
    pub(super) fn retired(&self) -> Vec<Retired> {
        std::iter::from_fn(|| self.ring.pop())
            .filter_map(|event| match event {
                WorkerEvent::Retired(retired) => Some(retired),
                _ => None,
            })
            .collect()
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.worker.counters().dropped(reason)
    }

    /// Every reason with its count, but those of 0.
    pub(super) fn drops(&self) -> BTreeMap<DropReason, u64> {
        let all = DropReason::ALL.iter().map(|reason| (*reason, self.dropped(*reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn metric(&self, metric: Metric) -> u64 {
        self.worker.counters().metric(metric)
    }

    pub(super) fn spi(&self) -> Spi {
        Spi::new(0x1000).unwrap()
    }
}

fn tables() -> Tables {
    Tables {
        common: COMMON,
        inside: INSIDE,
        service: COMMON,
        outside_mac: OUTSIDE_MAC,
        inside_mac: INSIDE_MAC,
        outside_prefix: Prefix { address: COMMON, length: 24 },
        targets: targets(&[1, 2, 3]),
        neighbours: BTreeMap::from([(PEER, PEER_MAC)]),
        flow_seed: 42,
        ..Tables::empty()
    }
}

/// A datagram from the client to the service.
pub(super) fn request(port: u16) -> Vec<u8> {
    frame::udp_packet(CLIENT, port, COMMON, 80, b"who is there?")
}

/// A datagram from the service to the client.
pub(super) fn reply(port: u16) -> Vec<u8> {
    frame::udp_packet(COMMON, 80, CLIENT, port, b"it is me")
}

/// `packet` in a frame from target 1 to us.
pub(super) fn from_target(packet: &[u8]) -> Vec<u8> {
    frame::ethernet_frame(INSIDE_MAC, target_mac(1), packet)
}

/// `packet` in a frame from the peer to us.
pub(super) fn from_peer(packet: &[u8]) -> Vec<u8> {
    frame::ethernet_frame(OUTSIDE_MAC, PEER_MAC, packet)
}

/// The IPv4 packet of a frame, its lengths and checksum checked.
pub(super) fn packet_of(frame: &[u8]) -> Vec<u8> {
    let packet = ipv4::View::parse(ethernet::View::parse(frame).unwrap().payload()).unwrap();
    assert!(packet.checksum_is_valid());
    packet.bytes().to_vec()
}

/// Where a frame goes to.
pub(super) fn destination(frame: &[u8]) -> MacAddr {
    ethernet::View::parse(frame).unwrap().destination()
}

/// `packet` after one hop.
pub(super) fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    ipv4::decrement_ttl(&mut packet).unwrap();
    packet
}
