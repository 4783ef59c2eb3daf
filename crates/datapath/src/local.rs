//! Nodes: what is answered on the spot, and what the controller gets to see.

use crate::classify::narrow;
use crate::counters::Metric;
use crate::handover::is_members;
use crate::lease::LeaseState;
use crate::worker::{Context, Nodes};
use holdfast_ipsec::DropReason;
use holdfast_packet::{MacAddr, PacketBuf, Port, Side, arp, ethernet, icmp, ipv4};
use std::net::Ipv4Addr;

/// Time between two reports about paths that the controller gets to see.
const PATH_REPORT_INTERVAL_MS: u64 = 10;

impl<P: Port> Nodes<P> {
    /// Shows a frame to the controller.
    pub(crate) fn punt(&mut self, context: &Context<'_>, side: Side, buf: &P::Buf) {
        match self.events.punt(side, buf.bytes()) {
            Ok(()) => context.counters.add(Metric::Punted, 1),
            Err(reason) => context.drop_packet(reason),
        }
    }

    /// A report about the path to a peer: the controller knows whether it can be true. Paced, for
    /// anybody can write one.
    pub(crate) fn too_narrow(&mut self, context: &Context<'_>, buf: &P::Buf) {
        if self.path_reports.allows(context.now, PATH_REPORT_INTERVAL_MS) {
            self.punt(context, Side::Outside, buf);
        } else {
            context.drop_packet(DropReason::RateLimited);
        }
    }

    /// Answers questions for our own address while the lease is valid. Whatever tells where a
    /// neighbour is goes to the controller, lease or not: a standby must know its neighbours too.
    pub(crate) fn arp(&mut self, context: &Context<'_>, side: Side, buf: P::Buf) {
        let (address, mac) = own(context, side);
        let Some(packet) = ethernet::View::parse(buf.bytes())
            .ok()
            .and_then(|frame| arp::Repr::parse(frame.payload()).ok())
        else {
            return context.drop_packet(DropReason::ArpMalformed);
        };
        let is_question = packet.operation == arp::Operation::Request && packet.target == address;
        let tells_something = packet.operation == arp::Operation::Reply
            || packet.is_announcement()
            || (is_question && !packet.source.is_unspecified());
        if tells_something {
            self.punt(context, side, &buf);
        } else if !is_question {
            context.drop_packet(DropReason::ArpIgnored);
        }
        if is_question && !packet.is_announcement() && context.voice == LeaseState::Valid {
            self.answer_arp(context, side, buf, packet.reply(mac));
        }
    }

    fn answer_arp(&mut self, context: &Context<'_>, side: Side, mut buf: P::Buf, reply: arp::Repr) {
        let answer = reply.frame(reply.target_mac);
        let len = buf.bytes().len().min(answer.len());
        narrow(&mut buf, 0, len);
        if let (Some(to), Some(from)) = (buf.bytes_mut().get_mut(..len), answer.get(..len)) {
            to.copy_from_slice(from);
        }
        context.counters.add(Metric::ArpAnswered, 1);
        self.io.send(side, buf);
    }

    /// Turns an echo request, which classification has checked, into its reply in place.
    pub(crate) fn answer_echo(&mut self, context: &Context<'_>, side: Side, mut buf: P::Buf) {
        let hop = self.asker(context, side, buf.bytes());
        match echo_reply(buf.bytes_mut(), own(context, side).1, hop) {
            Some(()) => {
                context.counters.add(Metric::EchoAnswered, 1);
                self.io.send(side, buf);
            }
            None => context.drop_packet(DropReason::IcmpIgnored),
        }
    }

    /// Where the answer to a question goes: back to the station it came from, which is the next hop
    /// to the asker, unless that is a member that passed the question on.
    fn asker(&self, context: &Context<'_>, side: Side, frame: &[u8]) -> MacAddr {
        let Ok(view) = ethernet::View::parse(frame) else { return MacAddr::ZERO };
        let station = view.source();
        if side == Side::Inside || !is_members(context, side, station) {
            return station;
        }
        ipv4::View::parse(view.payload())
            .ok()
            .and_then(|packet| context.tables.next_hop(packet.source()))
            .and_then(|hop| context.tables.neighbours.get(&hop).copied())
            .unwrap_or(station)
    }
}

/// The address and station this member speaks for on `side`.
fn own(context: &Context<'_>, side: Side) -> (Ipv4Addr, MacAddr) {
    match side {
        Side::Outside => (context.tables.common, context.tables.outside_mac),
        Side::Inside => (context.tables.inside, context.tables.inside_mac),
    }
}

/// Makes the answer out of the question.
fn echo_reply(frame: &mut [u8], own: MacAddr, asker: MacAddr) -> Option<()> {
    let packet = ipv4::View::parse(frame.get(ethernet::HEADER_LEN..)?).ok()?;
    let (source, destination) = (packet.source(), packet.destination());
    let payload_len = packet.payload().len();
    let header = ipv4::Repr {
        dscp: packet.dscp(),
        dont_fragment: packet.dont_fragment(),
        identification: packet.identification(),
        ..ipv4::Repr::new(destination, source, ipv4::PROTOCOL_ICMP, payload_len)
    };
    ethernet::set_addresses(frame, asker, own);
    let packet = frame.get_mut(ethernet::HEADER_LEN..)?;
    header.emit(packet).ok()?;
    icmp::answer_echo(packet.get_mut(ipv4::HEADER_LEN..)?.get_mut(..payload_len)?);
    Some(())
}
