//! Packets in files, and whether what an implementation sent is right.

use crate::case::{Case, PACKETS};
use crate::support::setup::Direction;
use holdfast_ipsec::InboundSa;
use holdfast_packet::{ethernet, ipv4};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Writes frames one after the other.
pub(crate) fn write(file: &Path, frames: &[Vec<u8>]) {
    let file = File::create(file).expect("the file can be written");
    let mut writer = PcapWriter::new(file).expect("the file can be written");
    for frame in frames {
        let len = frame.len() as u32;
        let packet = PcapPacket::new(Duration::ZERO, len, frame);
        writer.write_packet(&packet).expect("the file can be written");
    }
}

fn read(file: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(file).expect("it has been captured"))
        .expect("the capture has a header");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("the capture is whole").data.into_owned());
    }
    frames
}

/// Checks that the capture holds every packet of the replay, in order, as it has to be on the other
/// side: sealed with the SA's key under numbers that rise, or opened. The portable AEAD opens what was
/// sealed, which shares no code with either implementation under test.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(case: &Case, file: &Path) -> Result<(), String> {
    let frames = read(file);
    if frames.len() != PACKETS {
        return Err(format!("{} packets came through of {PACKETS}", frames.len()));
    }
    let mut receiver = InboundSa::new(&case.load.mirrored(0), 0, u64::MAX);
    for (n, (frame, inner)) in frames.iter().zip(case.inner_packets()).enumerate() {
        let packet = frame.get(ethernet::HEADER_LEN..).unwrap_or_default();
        let out = match case.direction {
            Direction::Encrypt => opened(&mut receiver, packet)?,
            Direction::Decrypt => packet.to_vec(),
        };
        if !is_forwarded(&inner, &out) {
            return Err(format!("packet {n} is not what was sent"));
        }
    }
    Ok(())
}

fn opened(receiver: &mut InboundSa, outer: &[u8]) -> Result<Vec<u8>, String> {
    let outer = ipv4::View::parse(outer).map_err(|error| format!("outer header: {error}"))?;
    let mut esp = outer.payload().to_vec();
    let opened = receiver.open(&mut esp).map_err(|reason| format!("ESP packet: {reason}"))?;
    Ok(esp.get(opened.inner).unwrap_or_default().to_vec())
}

/// Whether a packet is another one but for what a hop changes: the time to live and the checksum.
fn is_forwarded(before: &[u8], after: &[u8]) -> bool {
    let parts = |packet: &[u8]| {
        let fields = [packet.get(..8), packet.get(9..10), packet.get(12..)];
        fields.map(|part| part.map(<[u8]>::to_vec))
    };
    let valid = ipv4::View::parse(after).is_ok_and(|view| view.checksum_is_valid());
    valid && parts(before) == parts(after)
}
