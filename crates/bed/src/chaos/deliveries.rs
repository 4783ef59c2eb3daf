//! What reaches the targets, and whether anything reaches them twice. Pure: frames in, findings
//! out.
//!
//! Every probe carries a number of its own, so an inner packet that a target gets a second time is
//! a replay that was accepted.

use crate::capture::read_frames;
use crate::error::BedError;
use crate::topology::ECHO_PORT;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;

const ETHERNET_LEN: usize = 14;
const UDP_LEN: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// The probes that were delivered.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// How many.
    pub probes: u64,
    /// Of these, delivered before.
    pub repeated: u64,
    seen: HashSet<(Ipv4Addr, u16, u32)>,
}

impl Deliveries {
    /// Reads the captures at the targets' ports.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(files: &[&Path]) -> Result<Self, BedError> {
        let mut deliveries = Self::default();
        for file in files {
            read_frames(file, |_, frame| deliveries.take(frame))?;
        }
        Ok(deliveries)
    }

    /// Takes one frame on its way to a target.
    pub fn take(&mut self, frame: &[u8]) {
        if let Some(probe) = probe(frame) {
            self.probes += 1;
            self.repeated += u64::from(!self.seen.insert(probe));
        }
    }
}

/// Source, source port and number of a probe.
fn probe(frame: &[u8]) -> Option<(Ipv4Addr, u16, u32)> {
    let packet = frame.get(ETHERNET_LEN..)?;
    let header_length = usize::from(packet.first()? & 15) * 4;
    let source: &[u8; 4] = packet.get(12..)?.first_chunk()?;
    let datagram = packet.get(header_length..)?;
    let port = |at: usize| Some(u16::from_be_bytes(*datagram.get(at..)?.first_chunk()?));
    let number: &[u8; 4] = datagram.get(UDP_LEN..)?.first_chunk()?;
    let is_probe = *packet.get(9)? == PROTOCOL_UDP && port(2)? == ECHO_PORT;
    is_probe.then_some((Ipv4Addr::from(*source), port(0)?, u32::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::udp;
    use std::net::SocketAddrV4;

    fn frame(port: u16, number: u32) -> Vec<u8> {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 10), 4711);
        let mut frame = vec![0; ETHERNET_LEN];
        frame.extend(udp(from, port, &number.to_be_bytes()));
        frame
    }

    #[test]
    fn a_number_that_comes_again_is_a_replay() {
        let mut deliveries = Deliveries::default();
        for number in [1, 2, 3, 2] {
            deliveries.take(&frame(ECHO_PORT, number));
        }
        deliveries.take(&frame(80, 1));
        deliveries.take(&[0; 20]);
        assert_eq!((deliveries.probes, deliveries.repeated), (4, 1));
    }
}
