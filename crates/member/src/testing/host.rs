//! A target: a host that answers ARP and echoes UDP.

use holdfast_packet::{MacAddr, arp, ethernet, frame, ipv4, udp};
use std::net::Ipv4Addr;

/// The addresses a target knows of its world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TargetAddresses {
    /// The target's own.
    pub(crate) own: Ipv4Addr,
    /// What its clients call: bound to it, not announced by it.
    pub(crate) service: Ipv4Addr,
    /// Its way to the clients: the cluster's inside address.
    pub(crate) gateway: Ipv4Addr,
}

/// A host behind the common address.
#[derive(Debug, Clone)]
pub struct Target {
    mac: MacAddr,
    addresses: TargetAddresses,
    gateway_mac: Option<MacAddr>,
    received: u64,
    /// A target that is off answers nothing.
    pub on: bool,
}

impl Target {
    pub(crate) fn new(mac: MacAddr, addresses: TargetAddresses) -> Self {
        Self { mac, addresses, gateway_mac: None, received: 0, on: true }
    }

    /// Requests received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes a frame in; returns the frame it answers with.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let view = ethernet::View::parse(bytes).ok()?;
        if !self.on || (view.destination() != self.mac && !view.destination().is_group()) {
            return None;
        }
        match view.ether_type() {
            ethernet::TYPE_ARP => self.on_arp(view.payload()),
            ethernet::TYPE_IPV4 => self.on_packet(view.payload()),
            _ => None,
        }
    }

    /// Like Linux: an announcement updates what is known, a request for the own address is
    /// answered, also when its sender claims no address.
    fn on_arp(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let packet = arp::Repr::parse(packet).ok()?;
        if packet.source == self.addresses.gateway {
            self.gateway_mac = Some(packet.source_mac);
        }
        let asked =
            packet.operation == arp::Operation::Request && packet.target == self.addresses.own;
        asked.then(|| packet.reply(self.mac).frame(packet.source_mac).to_vec())
    }

    fn on_packet(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let ip = ipv4::View::parse(packet).ok()?;
        if ip.destination() != self.addresses.service || ip.protocol() != ipv4::PROTOCOL_UDP {
            return None;
        }
        let datagram = udp::View::parse(ip.payload()).ok()?;
        self.received = self.received.saturating_add(1);
        let answer = frame::udp_packet(
            self.addresses.service,
            datagram.destination_port(),
            ip.source(),
            datagram.source_port(),
            datagram.payload(),
        );
        self.gateway_mac.map(|mac| frame::ethernet_frame(mac, self.mac, &answer))
    }
}
