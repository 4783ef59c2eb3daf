//! What the workers report, and what they are to send: ARP, IKE.

use crate::announce;
use crate::event::MemberEvent;
use crate::frames::{self, Punted};
use crate::grants::{horizon_packets, outbound_packets};
use crate::limits;
use crate::member::Member;
use crate::neighbours::{Heard, Interest, Neighbours};
use crate::ownership::Ownership;
use holdfast_cluster::{Direction, Mutation, TargetId, mutated};
use holdfast_datapath::{WorkerCommand, WorkerEvent};
use holdfast_ike::Datagram;
use holdfast_ipsec::Spi;
use holdfast_packet::{MacAddr, Nanos, Side, arp};
use std::net::Ipv4Addr;

/// The worker that sends what the member makes; any would do.
const SENDER: u32 = 0;

/// Outbound numbers of 32 bits from which on the SA is renewed before they are used up: three
/// quarters of them (RFC 4303 section 3.3.3 forbids the counter to cycle).
const WORN_OUT: u64 = 3 << 30;

impl Member {
    pub(crate) fn on_worker(&mut self, now: Nanos, worker: u32, event: WorkerEvent) {
        match event {
            WorkerEvent::Punt { side, frame } => self.on_punt(now, side, &frame),
            WorkerEvent::RangeLow { id, rate_pps, .. } => self.on_range_low(now, id, rate_pps),
            WorkerEvent::HorizonLow { spi, right_edge, rate_pps, .. } => {
                self.on_horizon_low(now, spi, right_edge, rate_pps);
            }
            WorkerEvent::Ambiguous { spi, sequence } => self.renewals.ambiguous(spi, sequence),
            WorkerEvent::InUse { spi } => {
                self.renewals.moved_on(spi);
                self.tables.confirm(spi);
            }
            WorkerEvent::SequenceEnd { id } => {
                self.event(MemberEvent::SequenceEnd { spi: id });
                self.tables.release(id);
                self.rekey(now, id);
            }
            WorkerEvent::Resolve { side, address } => {
                self.neighbours_mut(side).want(now, address, Interest::Wanted);
            }
            WorkerEvent::Missing { id } => self.on_missing(now, worker, id),
            WorkerEvent::Flows(flows) => self.on_flows(worker, flows),
            WorkerEvent::UnknownSpi { spi, source } => self.on_unknown_spi(now, spi, source),
            // Retired memory is freed by being dropped here.
            WorkerEvent::Retired(_) | WorkerEvent::Sas(_) => {}
            WorkerEvent::Stopped { number, sas, last } => {
                self.on_stopped(now, (worker, number), sas, last);
            }
            WorkerEvent::Forwarded { frames } => self.on_forwarded(worker, frames),
        }
    }

    fn on_range_low(&mut self, now: Nanos, spi: Spi, rate_pps: u64) {
        let Some(child) = self.replica.state().child(spi) else { return };
        let esn = child.parameters.esn;
        let worn_out = !esn && child.outbound_high >= WORN_OUT;
        self.grants.want(now, spi, Direction::Outbound, outbound_packets(rate_pps, esn));
        if worn_out {
            self.rekey(now, spi);
        }
    }

    fn on_horizon_low(&mut self, now: Nanos, spi: Spi, right_edge: u64, rate_pps: u64) {
        let Some(child) = self.replica.state().child(spi) else { return };
        // No successor is elected before the promises given to this owner have ended.
        let ahead_ms = self.config.timing.promise_ns() / 1_000_000;
        let packets = horizon_packets(rate_pps, ahead_ms, right_edge, child.horizon);
        self.grants.want(now, spi, Direction::Inbound, packets);
    }

    pub(crate) fn on_punt(&mut self, now: Nanos, side: Side, frame: &[u8]) {
        if self.outputs_full() {
            return;
        }
        match Punted::parse(frame, self.config.addresses.common) {
            Punted::Arp(packet) => self.on_arp(now, side, &packet),
            Punted::Ike(..) if self.keep_for_successor(side, frame) => {}
            Punted::Ike(datagram, station) if side == Side::Outside => {
                self.on_ike(now, &datagram, station);
            }
            Punted::TooNarrow(report) if side == Side::Outside => self.on_too_narrow(now, &report),
            Punted::Ike(..) | Punted::TooNarrow(_) | Punted::Other => {}
        }
    }

    fn on_ike(&mut self, now: Nanos, datagram: &Datagram, station: MacAddr) {
        if !self.speaks(now) || !self.ike_runs() {
            return;
        }
        if self.outbox.is_full() {
            return self.event(MemberEvent::QueueFull { queue: "the IKE outbox" });
        }
        // Answers to a peer nobody asked for yet can go back to where its message came from; a
        // known neighbour is not overridden by a mere datagram.
        let passed_on = self.fellows.all_stations().iter().any(|known| known.outside == station);
        if let Some(hop) = self.config.addresses.next_hop(*datagram.remote.ip())
            && self.outside.mac(hop).is_none()
            && !passed_on
        {
            self.hear(now, Side::Outside, hop, station, true);
            // Its sender's address may be forged, or it may be a repetition by somebody else.
            self.outside.confirm(now, hop);
        }
        self.ike.handle_datagram(now, datagram);
    }

    fn on_arp(&mut self, now: Nanos, side: Side, packet: &arp::Repr) {
        let own = self.address(side);
        if packet.source_mac == self.mac(side) {
            return;
        }
        if packet.source == own {
            return self.on_foreign_claim(now, side, packet.source_mac);
        }
        let to_us = packet.target == own && self.speaks(now);
        self.hear(now, side, packet.source, packet.source_mac, to_us);
    }

    /// Another station says it has our address. A predecessor that has not noticed yet, or a
    /// mistake in the network: say who has it (RFC 5227 section 2.4).
    fn on_foreign_claim(&mut self, now: Nanos, side: Side, by: MacAddr) {
        if !self.speaks(now) || now < self.next_defence {
            return;
        }
        self.next_defence = now.plus_ms(limits::DEFEND_PAUSE_MS);
        self.event(MemberEvent::AddressClaimed { side, address: self.address(side), by });
        self.announce();
    }

    fn hear(&mut self, now: Nanos, side: Side, address: Ipv4Addr, mac: MacAddr, create: bool) {
        match self.neighbours_mut(side).heard(now, address, mac, create) {
            Heard::Known | Heard::Ignored => return,
            Heard::Changed | Heard::Back => self.tables.touch(),
        }
        let own = self.mac(side);
        for frame in self.neighbours_mut(side).release(now, address, own) {
            self.transmit(side, frame.into_boxed_slice());
        }
        if side == Side::Inside
            && let Some(target) = self.target_at(address)
        {
            self.event(MemberEvent::TargetUp { target, mac });
        }
    }

    /// Sends the ARP questions that are due.
    pub(crate) fn ask_neighbours(&mut self, now: Nanos) {
        let speaks = self.speaks(now);
        for side in Side::ALL {
            let (mac, own) = (self.mac(side), self.address(side));
            let (ask, down) = self.neighbours_mut(side).questions(now);
            for address in ask {
                let question = if speaks {
                    arp::Repr::request(mac, own, address)
                } else {
                    arp::Repr::probe(mac, address)
                };
                self.transmit(side, Box::from(question.frame(MacAddr::BROADCAST).as_slice()));
            }
            for address in down {
                self.tables.touch();
                if let Some(target) = self.target_at(address) {
                    self.event(MemberEvent::TargetDown { target });
                }
            }
        }
    }

    /// Tells both networks that the addresses are here.
    pub(crate) fn announce(&mut self) {
        if mutated(Mutation::NotAnnounced) {
            return;
        }
        for side in Side::ALL {
            for frame in announce::frames(self.mac(side), self.address(side)) {
                self.transmit(side, frame);
            }
        }
    }

    /// Sends an IKE datagram, or keeps it until its next hop is known.
    pub(crate) fn send_datagram(&mut self, now: Nanos, datagram: &Datagram) {
        let Some(hop) = self.config.addresses.next_hop(*datagram.remote.ip()) else { return };
        let (own, common) = (self.config.outside_mac, self.config.addresses.common);
        let station = self.outside.mac(hop);
        let frame = frames::of_ike(datagram, common, own, station.unwrap_or(MacAddr::ZERO));
        if station.is_some() {
            self.transmit(Side::Outside, frame.into_boxed_slice());
        } else if !self.outside.hold(now, hop, frame) {
            self.event(MemberEvent::QueueFull { queue: "the queue for unresolved next hops" });
        }
    }

    fn transmit(&mut self, side: Side, frame: Box<[u8]>) {
        self.command(SENDER, WorkerCommand::Transmit { side, frame });
    }

    pub(crate) fn neighbours_mut(&mut self, side: Side) -> &mut Neighbours {
        match side {
            Side::Outside => &mut self.outside,
            Side::Inside => &mut self.inside,
        }
    }

    fn target_at(&self, address: Ipv4Addr) -> Option<TargetId> {
        let target = self.config.targets.iter().find(|target| target.address == address)?;
        Some(target.id)
    }

    /// Whether this member is the owner by the records, with or without a lease.
    pub(crate) fn is_owner(&self) -> bool {
        matches!(self.ownership, Ownership::Owning { .. })
    }
}
