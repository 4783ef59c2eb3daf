//! Captures on every link of the bed, outside, inside and management, and what the inside links
//! tell about the packets that came out of the tunnels.
//!
//! Each link is captured at its far end, what its owner sends only: together they hold each frame
//! once, with its sender known by the port.

use crate::bed::Bed;
use crate::capture::{Capture, CaptureFile, read_frames};
use crate::error::BedError;
use crate::frame::{Content, Frame, Ipv4, parse_ethernet, parse_ipv4};
use crate::peers::far_end;
use crate::time::Wall;
use crate::topology::{COMMON, member_inside_mac};
use crate::wire::{OutsideWire, Sender, Tap};
use std::fs;
use std::net::Ipv4Addr;

/// The wires of the bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    /// Towards the peers.
    Outside,
    /// Towards the targets.
    Inside,
    /// Between members, and to the targets' programs.
    Management,
}

/// Running captures of every link.
#[derive(Debug)]
pub struct EveryLink {
    captures: Vec<(Wire, Sender, Capture)>,
}

/// Finished captures of every link.
#[derive(Debug)]
pub struct Links {
    /// Each link with whose it is.
    pub taps: Vec<(Wire, Tap)>,
}

impl EveryLink {
    /// Starts capturing; `clients` is how many there are, the bed's own one included.
    ///
    /// # Errors
    /// When a capture does not start.
    pub fn start(bed: &Bed, clients: u8) -> Result<Self, BedError> {
        let links = links_of(bed, clients);
        let ends: Vec<String> = links.iter().map(|(.., end)| end.clone()).collect();
        let folder = bed.memory_path("links");
        fs::create_dir_all(&folder).map_err(|e| BedError::file("create", &folder, e))?;
        for member in &bed.topology.members {
            member.run(&["ethtool", "-K", "mgmt", "tso", "off", "gso", "off"])?;
        }
        let whole = |end: &str| end.ends_with("-mgmt");
        let captures = Capture::start_each(&bed.topology.wires, &folder, &ends, whole)?;
        let named = links.into_iter().zip(captures);
        let captures = named.map(|((wire, sender, _), capture)| (wire, sender, capture));
        Ok(Self { captures: captures.collect() })
    }

    /// Ends all captures.
    ///
    /// # Errors
    /// When one of them is not known to be complete.
    pub fn finish(self) -> Result<Links, BedError> {
        let finish = |(wire, sender, capture): (Wire, Sender, Capture)| {
            let file: CaptureFile = capture.finish()?;
            if file.dropped_frames > 0 {
                let detail = format!("{} frames are missing", file.dropped_frames);
                return Err(BedError::Capture { path: file.path, detail });
            }
            Ok((wire, Tap { sender, file }))
        };
        let taps = self.captures.into_iter().map(finish).collect::<Result<_, _>>()?;
        Ok(Links { taps })
    }
}

/// Every link with its wire, whose it is and its far end.
fn links_of(bed: &Bed, clients: u8) -> Vec<(Wire, Sender, String)> {
    let clients = (1..=clients).map(|n| (Wire::Outside, Sender::Client, far_end(n)));
    let members = (1..).take(bed.topology.members.len()).flat_map(|n| {
        let link = |wire, end: &str| (wire, Sender::Member(n), format!("m{n}-{end}"));
        [link(Wire::Outside, "out"), link(Wire::Inside, "in"), link(Wire::Management, "mgmt")]
    });
    let targets = (1..).take(bed.topology.targets.len()).flat_map(|n| {
        let link = |wire, end: &str| (wire, Sender::Target(n), format!("t{n}-{end}"));
        [link(Wire::Inside, "in"), link(Wire::Management, "mgmt")]
    });
    let serving = bed.member_target().map(|(member, name)| {
        let number = name.trim_start_matches("target").parse().unwrap_or(0);
        (Wire::Inside, Sender::Target(number), format!("m{member}-target"))
    });
    clients.chain(members).chain(targets).chain(serving).collect()
}

impl Links {
    /// What the outside wire proves.
    ///
    /// # Errors
    /// When a capture cannot be read.
    pub fn outside(&self) -> Result<OutsideWire, BedError> {
        let outside = self.of(Wire::Outside).cloned().collect::<Vec<_>>();
        OutsideWire::read(&outside)
    }

    /// The links of one wire.
    pub fn of(&self, wire: Wire) -> impl Iterator<Item = &Tap> {
        self.taps.iter().filter(move |(of, _)| *of == wire).map(|(_, tap)| tap)
    }

    /// The packets between clients and services on one wire, in order of time.
    ///
    /// # Errors
    /// When a capture cannot be read.
    pub fn inner_packets(&self, wire: Wire) -> Result<Vec<InnerPacket>, BedError> {
        let mut packets = Vec::new();
        for tap in self.of(wire) {
            read_frames(&tap.file.path, |at, frame| {
                packets.extend(InnerPacket::parse(at, tap.sender, frame));
            })?;
        }
        packets.sort_by_key(|packet| packet.at);
        Ok(packets)
    }

    /// The raw bytes of every capture of one sender on one wire.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn bytes_of(&self, wire: Wire, sender: Sender) -> Result<Vec<u8>, BedError> {
        let mut bytes = Vec::new();
        for tap in self.of(wire).filter(|tap| tap.sender == sender) {
            let path = &tap.file.path;
            bytes.extend(fs::read(path).map_err(|e| BedError::file("read", path, e))?);
        }
        Ok(bytes)
    }

    /// Times and lengths of the frames that `sender` sent to `destination` on one wire.
    ///
    /// # Errors
    /// When a capture cannot be read.
    pub fn frames_between(
        &self,
        wire: Wire,
        sender: Sender,
        destination: Ipv4Addr,
    ) -> Result<Vec<(Wall, usize)>, BedError> {
        let mut frames = Vec::new();
        for tap in self.of(wire).filter(|tap| tap.sender == sender) {
            read_frames(&tap.file.path, |at, frame| {
                if let Some(Frame::Ipv4(packet)) = parse_ethernet(frame)
                    && packet.destination == destination
                {
                    frames.push((at, frame.len()));
                }
            })?;
        }
        Ok(frames)
    }
}

/// A packet between a client's inner address and a service, in clear or in a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InnerPacket {
    /// When.
    pub at: Wall,
    /// Through whose port.
    pub sender: Sender,
    /// To which station.
    pub to: [u8; 6],
    /// The client's inner address.
    pub client: Ipv4Addr,
    /// Whether it comes from the client; else it is an answer.
    pub from_client: bool,
    /// Whether it is a TCP segment.
    pub tcp: bool,
    /// Whether it came in a mark.
    pub marked: bool,
}

/// Network that the clients' inner addresses are of.
const INNER_NETWORK: [u8; 2] = [10, 77];
/// UDP port of marked packets.
const MARK_PORT: [u8; 2] = 6080_u16.to_be_bytes();

impl InnerPacket {
    fn parse(at: Wall, sender: Sender, frame: &[u8]) -> Option<Self> {
        let Some(Frame::Ipv4(outer)) = parse_ethernet(frame) else { return None };
        let to = *frame.first_chunk()?;
        let marked = in_mark(frame).and_then(parse_ipv4);
        let packet = marked.as_ref().unwrap_or(&outer);
        let (client, from_client) = ends(packet)?;
        let tcp = matches!(packet.content, Content::Tcp { .. });
        Some(Self { at, sender, to, client, from_client, tcp, marked: marked.is_some() })
    }

    /// The member whose inside port this is addressed to, of so many.
    pub fn to_member(&self, members: u8) -> Option<u8> {
        (1..=members).find(|number| member_inside_mac(*number) == self.to)
    }
}

/// The client's address, and whether the packet comes from it.
fn ends(packet: &Ipv4) -> Option<(Ipv4Addr, bool)> {
    let is_client = |address: Ipv4Addr| address.octets().starts_with(&INNER_NETWORK);
    match (packet.source, packet.destination) {
        (client, COMMON) if is_client(client) => Some((client, true)),
        (COMMON, client) if is_client(client) => Some((client, false)),
        _ => None,
    }
}

/// The packet in a mark: IPv4 and UDP without options, then GUE (variant 0, so many words long).
fn in_mark(frame: &[u8]) -> Option<&[u8]> {
    let udp = frame.get(14 + 20..)?;
    let is_udp = frame.get(14) == Some(&0x45) && frame.get(14 + 9) == Some(&17);
    let gue = udp.get(8..).filter(|_| is_udp && udp.get(2..4) == Some(&MARK_PORT))?;
    let words = usize::from(gue.first()? & 0x1f);
    gue.get(4 + words * 4..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::samples::{ethernet, ipv4, udp};
    use crate::topology::{CLIENT_INNER, INSIDE, target_address};

    const AT: Wall = Wall(7);
    const FROM: Sender = Sender::Member(2);

    #[test]
    fn a_packet_of_a_client_is_found_in_clear_and_in_a_mark() {
        let inner = ipv4(CLIENT_INNER, COMMON, 6, &[0; 20]);
        let clear = ethernet([2; 6], 0x0800, &inner);
        let clear = InnerPacket::parse(AT, FROM, &clear).expect("a packet");
        assert_eq!((clear.client, clear.from_client, clear.marked), (CLIENT_INNER, true, false));

        let gue = [&[4, 4, 0, 0], [9; 16].as_slice(), &inner].concat();
        let marked = ipv4(INSIDE, target_address(1), 17, &udp(6080, &gue));
        let marked = ethernet([2; 6], 0x0800, &marked);
        let marked = InnerPacket::parse(AT, FROM, &marked).expect("a packet");
        assert_eq!((marked.client, marked.marked, marked.tcp), (CLIENT_INNER, true, true));
    }

    #[test]
    fn an_answer_tells_which_member_it_goes_to_and_strangers_are_no_clients() {
        let mut answer = ethernet([2; 6], 0x0800, &ipv4(COMMON, CLIENT_INNER, 6, &[0; 20]));
        answer[..6].copy_from_slice(&member_inside_mac(3));
        let answer = InnerPacket::parse(AT, Sender::Target(1), &answer).expect("a packet");
        assert_eq!((answer.from_client, answer.to_member(3)), (false, Some(3)));
        assert_eq!(answer.to_member(2), None);
        let other = ethernet([2; 6], 0x0800, &ipv4(INSIDE, COMMON, 6, &[0; 20]));
        assert_eq!(InnerPacket::parse(AT, FROM, &other), None);
    }
}
