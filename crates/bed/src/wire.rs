//! What the captures prove: who spoke, about what, and what must never happen.
//!
//! Pure: frames in, findings out.

mod repeats;

pub use repeats::{Repeats, ToldRepeat};

use crate::capture::{CaptureFile, read_frames};
use crate::error::BedError;
use crate::frame::{Content, Esp, Frame, Ike, Ipv4, parse_ethernet, parse_ipv4};
use crate::time::Wall;
use crate::topology::{COMMON, INSIDE, is_member_mac, member_inside_mac};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

/// Who sent a frame, known by the port it entered the wire through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sender {
    /// The IPsec client.
    Client,
    /// A member, by number.
    Member(u8),
    /// A target, by number.
    Target(u8),
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("a client"),
            Self::Member(number) => write!(f, "member {number}"),
            Self::Target(number) => write!(f, "target {number}"),
        }
    }
}

/// A capture and whose frames it holds.
#[derive(Debug, Clone)]
pub struct Tap {
    /// Whose frames.
    pub sender: Sender,
    /// The capture.
    pub file: CaptureFile,
}

/// An unasked announcement of the common address on the outside wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announcement {
    /// When.
    pub at: Wall,
    /// By which member.
    pub member: u8,
}

/// An IKE message on the outside wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IkeMessage {
    /// When.
    pub at: Wall,
    /// From whom.
    pub sender: Sender,
    /// The end that is not the common address: which peer it is about.
    pub peer: Ipv4Addr,
    /// Its header.
    pub header: Ike,
}

/// Findings about the outside wire.
#[derive(Debug, Default)]
pub struct OutsideWire {
    /// ESP packets that repeat an SPI with a sequence number or an IV.
    pub repeats: Repeats,
    /// Packets that should have been inside the tunnel.
    pub clear_packets: u64,
    /// Of these, sent by members.
    pub clear_packets_of_members: u64,
    /// Packets of targets.
    pub target_packets: u64,
    /// Every IKE message, in order of time.
    pub ike: Vec<IkeMessage>,
    /// Every announcement of the common address, in order of time.
    pub announcements: Vec<Announcement>,
    /// Times of each member's ESP packets, ascending.
    pub esp_of_member: BTreeMap<u8, Vec<Wall>>,
    /// ESP packets of the client.
    pub esp_of_client: u64,
    /// Frames a member passed on to another during a handover: somebody else's, and seen before.
    pub passed_on: u64,
    /// Frames seen.
    pub frames: u64,
}

impl OutsideWire {
    /// Reads the captures of every port of the outside wire.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(taps: &[Tap]) -> Result<Self, BedError> {
        let mut wire = Self::default();
        for tap in taps {
            read_frames(&tap.file.path, |at, frame| wire.take(at, tap.sender, frame))?;
        }
        wire.sort();
        Ok(wire)
    }

    /// Takes one frame.
    pub fn take(&mut self, at: Wall, sender: Sender, frame: &[u8]) {
        self.frames += 1;
        match parse_ethernet(frame) {
            Some(Frame::Arp(arp)) => {
                if let (true, Sender::Member(member)) = (arp.announces(COMMON), sender) {
                    self.announcements.push(Announcement { at, member });
                }
            }
            Some(Frame::Ipv4(_)) if is_passed_on(sender, frame) => self.passed_on += 1,
            Some(Frame::Ipv4(packet)) => self.take_ipv4(at, sender, &packet, frame),
            Some(Frame::Other) | None => {}
        }
    }

    /// Brings what came from several files into the order of time.
    pub fn sort(&mut self) {
        self.ike.sort();
        self.announcements.sort();
        self.esp_of_member.values_mut().for_each(|times| times.sort());
    }

    fn take_ipv4(&mut self, at: Wall, sender: Sender, packet: &Ipv4, frame: &[u8]) {
        let clear = u64::from(is_clear(packet));
        self.clear_packets += clear;
        if let Sender::Member(_) = sender {
            self.clear_packets_of_members += clear;
        }
        self.target_packets += u64::from(is_from_target(packet, sender));
        match packet.content {
            Content::Ike(header) => {
                let from_common = packet.source == COMMON;
                let peer = if from_common { packet.destination } else { packet.source };
                self.ike.push(IkeMessage { at, sender, peer, header });
            }
            Content::Esp(esp) => self.take_esp(at, sender, esp, frame),
            _ => {}
        }
    }

    fn take_esp(&mut self, at: Wall, sender: Sender, esp: Esp, frame: &[u8]) {
        self.repeats.take(at, sender, esp, frame);
        match sender {
            Sender::Member(member) => self.esp_of_member.entry(member).or_default().push(at),
            Sender::Client => self.esp_of_client += 1,
            Sender::Target(_) => {}
        }
    }

    /// Who owned the common address at `at`, by the announcements on the wire.
    pub fn owner_at(&self, at: Wall) -> Option<u8> {
        let after = self.announcements.partition_point(|a| a.at <= at);
        after.checked_sub(1).and_then(|i| self.announcements.get(i)).map(|a| a.member)
    }

    /// The changes of ownership: the first announcement of each new owner.
    pub fn ownership(&self) -> Vec<Announcement> {
        let mut changes: Vec<Announcement> = Vec::new();
        for announcement in &self.announcements {
            if changes.last().is_none_or(|last| last.member != announcement.member) {
                changes.push(*announcement);
            }
        }
        changes
    }

    /// IKE messages of members that did not own the common address at that moment.
    pub fn ike_from_non_owner(&self) -> u64 {
        let foreign = self.ike.iter().filter(|message| match message.sender {
            Sender::Member(member) => self.owner_at(message.at) != Some(member),
            _ => false,
        });
        foreign.count() as u64
    }

    /// ESP packets of members that did not own the common address at that moment.
    pub fn esp_from_non_owner(&self) -> u64 {
        let foreign = self.esp_of_member.iter().map(|(&member, times)| {
            times.iter().filter(|&&at| self.owner_at(at) != Some(member)).count() as u64
        });
        foreign.sum()
    }

    /// IKE_SA_INIT and IKE_AUTH exchanges with a message in the window, from whomever.
    pub fn negotiations(&self, from: Wall, to: Wall) -> u64 {
        let fresh = self
            .window(from, to)
            .filter(|message| matches!(message.header.exchange, Ike::SA_INIT | Ike::AUTH));
        let exchanges: BTreeSet<_> = fresh
            .map(|m| (m.header.initiator_spi, m.header.exchange, m.header.message_id))
            .collect();
        exchanges.len() as u64
    }

    /// CREATE_CHILD_SA exchanges that `member` began in the window. Retransmissions count once.
    pub fn renewals(&self, member: u8, from: Wall, to: Wall) -> u64 {
        let requests = self.window(from, to).filter(|message| {
            message.sender == Sender::Member(member)
                && message.header.exchange == Ike::CREATE_CHILD_SA
                && !message.header.response
        });
        let exchanges: BTreeSet<_> = requests
            .map(|m| (m.header.initiator_spi, m.header.responder_spi, m.header.message_id))
            .collect();
        exchanges.len() as u64
    }

    /// CREATE_CHILD_SA exchanges in all, whoever began them.
    pub fn rekeys(&self) -> u64 {
        let requests = self.ike.iter().filter(|message| {
            message.header.exchange == Ike::CREATE_CHILD_SA && !message.header.response
        });
        let exchanges: BTreeSet<_> = requests
            .map(|m| {
                let from_client = m.sender == Sender::Client;
                (m.header.initiator_spi, m.header.responder_spi, m.header.message_id, from_client)
            })
            .collect();
        exchanges.len() as u64
    }

    /// The first ESP packet of `member` after `at`.
    pub fn first_esp_after(&self, member: u8, at: Wall) -> Option<Wall> {
        let times = self.esp_of_member.get(&member)?;
        times.get(times.partition_point(|&time| time < at)).copied()
    }

    /// IKE messages in a window.
    pub fn window(&self, from: Wall, to: Wall) -> impl Iterator<Item = &IkeMessage> {
        self.ike.iter().filter(move |message| message.at >= from && message.at <= to)
    }
}

/// Whether a frame goes from one member's port to another's.
fn is_passed_on(sender: Sender, frame: &[u8]) -> bool {
    let to_member = frame.first_chunk().is_some_and(is_member_mac);
    matches!(sender, Sender::Member(_)) && to_member
}

/// Whether a packet shows on the outside wire what belongs into the tunnel: an address of the
/// inner or the inside network, or a service of the common address without ESP around it.
fn is_clear(packet: &Ipv4) -> bool {
    let hidden = |address: Ipv4Addr| {
        let octets = address.octets();
        octets.starts_with(&[10, 77]) || octets.starts_with(&[192, 0, 2])
    };
    let bare_service = matches!(packet.content, Content::Tcp { .. } | Content::Udp);
    let with_common = packet.source == COMMON || packet.destination == COMMON;
    hidden(packet.source) || hidden(packet.destination) || (bare_service && with_common)
}

/// Whether a target speaks on the outside wire: from its own port, with an address of the inside
/// network, or as the common address through no member's port.
fn is_from_target(packet: &Ipv4, sender: Sender) -> bool {
    let inside_source = packet.source.octets().starts_with(&[192, 0, 2]);
    let as_common = packet.source == COMMON && !matches!(sender, Sender::Member(_));
    matches!(sender, Sender::Target(_)) || inside_source || as_common
}

/// Findings about what the targets send.
#[derive(Debug, Default)]
pub struct InsideWire {
    /// Packets to the clients' inner network.
    pub answers: u64,
    /// Of these, addressed to no member's port: a way around the owner.
    pub answers_around_members: u64,
    /// Answers of each target.
    pub answers_of_target: BTreeMap<u8, u64>,
}

impl InsideWire {
    /// Reads the captures of the targets' ports.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(taps: &[Tap], members: u8) -> Result<Self, BedError> {
        let mut wire = Self::default();
        for tap in taps {
            read_frames(&tap.file.path, |_, frame| wire.take(tap.sender, frame, members))?;
        }
        Ok(wire)
    }

    /// Takes one frame.
    pub fn take(&mut self, sender: Sender, frame: &[u8], members: u8) {
        let Some(Frame::Ipv4(packet)) = parse_ethernet(frame) else { return };
        if !packet.destination.octets().starts_with(&[10, 77]) || packet.source == INSIDE {
            return;
        }
        let to: Option<&[u8; 6]> = frame.first_chunk();
        let to_member = to.is_some_and(|to| (1..=members).any(|n| member_inside_mac(n) == *to));
        self.answers += 1;
        self.answers_around_members += u64::from(!to_member);
        if let Sender::Target(number) = sender {
            *self.answers_of_target.entry(number).or_default() += 1;
        }
    }
}

/// TCP resets in a capture of the client's tunnel device.
///
/// # Errors
/// When the file cannot be read.
pub fn tcp_resets(file: &CaptureFile) -> Result<u64, BedError> {
    let mut resets = 0;
    read_frames(&file.path, |_, packet| {
        let content = parse_ipv4(packet).map(|packet| packet.content);
        resets += u64::from(content == Some(Content::Tcp { reset: true }));
    })?;
    Ok(resets)
}

#[cfg(test)]
mod tests;
