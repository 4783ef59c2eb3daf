//! A stranger on the outside wire: it hears what the client sends and sends whatever it likes, in
//! anybody's name.
//!
//! ```text
//!   client                 stranger (198.51.100.66)
//!     | client-out --.        | raw IPv4: own or forged source
//!  ===+==============|========+============== outside ====
//!                    '-> Overheard: whole frames of the client, for replays and forgeries
//! ```

use crate::bed::Bed;
use crate::capture::read_frames;
use crate::error::BedError;
use crate::frame::parse_ipv4;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::topology::{CLIENT_OUTER, COMMON, Topology};
use crate::wait::wait_until;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// The stranger's own address.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
/// The address of a stranger on the inside wire.
pub const INSIDE_STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// IP protocol number of ESP.
pub const PROTOCOL_ESP: u8 = 50;
/// Port of IKE.
pub const PORT_IKE: u16 = 500;
/// Port of IKE and ESP through NAT.
pub const PORT_NAT_TRAVERSAL: u16 = 4500;

const PROTOCOL_UDP: u8 = 17;
const IPV4_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
const ETHERNET_HEADER_LEN: usize = 14;
/// More than the longest frame of the bed.
const SNAP_BYTES: &str = "2048";
/// Kernel buffer of the capture.
const BUFFER_KIB: &str = "16384";
const INSIDE_STRANGER_MAC: [u8; 6] = [0x02, 0x68, 0x66, 0x03, 0x01, 0x02];
const STRANGER_MAC: [u8; 6] = [0x02, 0x68, 0x66, 0x03, 0x01, 0x01];
/// Pause after each packet: some thousand packets a second, so that what is missing in a counter
/// was not lost in a full ring before it.
const PACE: Duration = Duration::from_micros(250);

/// A further host on the outside wire. Dropping it removes it.
#[derive(Debug)]
pub struct Stranger {
    /// Where it lives: another IPsec client may be started there.
    pub namespace: Namespace,
}

impl Stranger {
    /// Connects it to the outside wire.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn join(topology: &Topology) -> Result<Self, BedError> {
        let namespace = topology.join_outside("stranger", STRANGER, STRANGER_MAC)?;
        Ok(Self { namespace })
    }

    /// Sends whole IPv4 packets to the common address, whatever their headers say of their
    /// origin. The kernel only fills in the header checksum.
    ///
    /// # Errors
    /// When a packet cannot be sent.
    pub fn send(&self, packets: Vec<Vec<u8>>) -> Result<(), BedError> {
        send_from(&self.namespace, COMMON, packets)
    }

    /// Forgets which member has the common address, as after a takeover.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn forget_neighbours(&self) -> Result<(), BedError> {
        self.namespace.links("neigh flush dev outside\n")
    }
}

/// A further host on the inside wire. Dropping it removes it.
#[derive(Debug)]
pub struct InsideStranger {
    namespace: Namespace,
}

impl InsideStranger {
    /// Connects it to the inside wire.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn join(topology: &Topology) -> Result<Self, BedError> {
        let namespace = topology.join_inside("insider", INSIDE_STRANGER, INSIDE_STRANGER_MAC)?;
        Ok(Self { namespace })
    }

    /// Sends whole IPv4 packets to the station of `neighbour`, whatever their headers say.
    ///
    /// # Errors
    /// When a packet cannot be sent.
    pub fn send(&self, neighbour: Ipv4Addr, packets: Vec<Vec<u8>>) -> Result<(), BedError> {
        // A raw socket goes by the packet's own destination: this sends it the wanted way.
        let destinations: BTreeSet<Ipv4Addr> = packets
            .iter()
            .filter_map(|packet| Some(Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?)))
            .filter(|destination| *destination != neighbour)
            .collect();
        for destination in destinations {
            let route = format!("route replace {destination}/32 via {neighbour}\n");
            self.namespace.links(&route)?;
        }
        send_from(&self.namespace, neighbour, packets)
    }
}

fn send_from(
    namespace: &Namespace,
    neighbour: Ipv4Addr,
    packets: Vec<Vec<u8>>,
) -> Result<(), BedError> {
    let fault = |source| BedError::io("send raw packets", source);
    let sender = namespace.spawn("stranger", move || send_raw(neighbour, &packets))?;
    let sent = sender.join().map_err(|_| fault(io::Error::other("the sender panicked")))?;
    sent.and_then(|result| result).map_err(fault)
}

fn send_raw(neighbour: Ipv4Addr, packets: &[Vec<u8>]) -> io::Result<()> {
    // With this protocol packets come with their headers.
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    let to = SocketAddrV4::new(neighbour, 0);
    for packet in packets {
        sendto(&socket, packet, SendFlags::empty(), &to)?;
        thread::sleep(PACE);
    }
    Ok(())
}

/// An IPv4 packet to the common address.
pub fn ipv4(source: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_between(source, COMMON, protocol, payload)
}

/// A UDP packet, without a checksum.
pub fn udp_between(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    ipv4_between(*from.ip(), *to.ip(), PROTOCOL_UDP, &udp_header(from, to.port(), payload))
}

fn ipv4_between(source: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(IPV4_HEADER_LEN + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    // Identification, flags (don't fragment), hops, protocol, checksum (left to the kernel).
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// A UDP packet to the common address, without a checksum.
pub fn udp(source: SocketAddrV4, port: u16, payload: &[u8]) -> Vec<u8> {
    ipv4(*source.ip(), PROTOCOL_UDP, &udp_header(source, port, payload))
}

/// Header and payload.
fn udp_header(source: SocketAddrV4, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(UDP_HEADER_LEN + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = Vec::new();
    for field in [source.port(), port, length, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// The kinds of messages a client sends to the common address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IKE, on either port.
    Ike,
    /// ESP, with or without UDP.
    Esp,
}

/// A message overheard, without its IP and UDP headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The whole IPv4 packet, for exact repetition.
    pub packet: Vec<u8>,
    /// The IKE message or ESP packet in it.
    pub content: Vec<u8>,
}

impl Message {
    /// The IPv4 packet's message, if it is IKE or ESP in one piece.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let header_length = usize::from(packet.first()? & 15) * 4;
        let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
        // Without the padding of a short frame.
        let packet = packet.get(..total)?;
        let payload = packet.get(header_length..)?;
        let (kind, content) = match *packet.get(9)? {
            PROTOCOL_ESP => (Kind::Esp, payload),
            PROTOCOL_UDP => parse_udp(payload)?,
            _ => return None,
        };
        Some(Self { kind, packet: packet.to_vec(), content: content.to_vec() })
    }

    /// SPI and sequence number of an ESP packet.
    pub fn spi_and_sequence(&self) -> Option<(u32, u32)> {
        let (spi, rest) = self.content.split_first_chunk()?;
        let sequence = rest.first_chunk()?;
        Some((u32::from_be_bytes(*spi), u32::from_be_bytes(*sequence)))
    }
}

fn parse_udp(datagram: &[u8]) -> Option<(Kind, &[u8])> {
    let port = u16::from_be_bytes(*datagram.get(2..)?.first_chunk()?);
    match (port, datagram.get(UDP_HEADER_LEN..)?) {
        (PORT_IKE, message) | (PORT_NAT_TRAVERSAL, [0, 0, 0, 0, message @ ..]) => {
            Some((Kind::Ike, message))
        }
        (PORT_NAT_TRAVERSAL, [0xff]) => None,
        (PORT_NAT_TRAVERSAL, esp) => Some((Kind::Esp, esp)),
        _ => None,
    }
}

/// Everything the client sends, whole, readable while it goes on.
#[derive(Debug)]
pub struct Overheard {
    file: PathBuf,
    tcpdump: Process,
}

impl Overheard {
    /// Starts listening at the far end of the client's link.
    ///
    /// # Errors
    /// When tcpdump does not start to listen.
    pub fn start(bed: &Bed) -> Result<Self, BedError> {
        let file = bed.memory_path("overheard.pcap");
        let path = file.display().to_string();
        let log = file.with_extension("log");
        // Immediate: each frame is in the file as soon as it was on the wire.
        let command = [
            "tcpdump",
            "-n",
            "-Z",
            "root",
            "-s",
            SNAP_BYTES,
            "-B",
            BUFFER_KIB,
            "--immediate-mode",
            "-U",
            "-Q",
            "in",
            "-i",
            "client-out",
            "-w",
            &path,
            "ip and not icmp",
        ];
        let wires = &bed.topology.wires;
        let mut tcpdump = Process::start(wires, "tcpdump", &log, &[], &command)?;
        wait_until("tcpdump to listen", Duration::from_secs(10), || {
            tcpdump.expect_running()?;
            Ok(tcpdump.last_words(5).contains("listening on").then_some(()))
        })?;
        Ok(Self { file, tcpdump })
    }

    /// The client's messages of one kind so far, in order.
    ///
    /// # Errors
    /// When nothing could be read at all.
    pub fn messages(&self, kind: Kind) -> Result<Vec<Message>, BedError> {
        let mut messages = Vec::new();
        let read = read_frames(&self.file, |_, frame| {
            let packet = frame.get(ETHERNET_HEADER_LEN..).unwrap_or_default();
            let from_client = parse_ipv4(packet)
                .is_some_and(|ip| ip.source == CLIENT_OUTER && ip.destination == COMMON);
            let message = Message::parse(packet).filter(|message| message.kind == kind);
            messages.extend(message.filter(|_| from_client));
        });
        match read {
            // The newest record may be half written.
            Err(error) if messages.is_empty() => Err(error),
            _ => Ok(messages),
        }
    }

    /// Ends listening.
    pub fn stop(&mut self) {
        self.tcpdump.stop(Signal::INT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: SocketAddrV4 = SocketAddrV4::new(STRANGER, 4711);

    fn parsed(port: u16, payload: &[u8]) -> Option<(Kind, Vec<u8>)> {
        let mut frame = udp(FROM, port, payload);
        frame.extend([0; 9]);
        let message = Message::parse(&frame)?;
        assert_eq!(message.packet, udp(FROM, port, payload), "without the frame's padding");
        Some((message.kind, message.content))
    }

    #[test]
    fn messages_are_told_apart_by_port_and_marker() {
        assert_eq!(parsed(500, b"ike"), Some((Kind::Ike, b"ike".to_vec())));
        assert_eq!(parsed(4500, b"\0\0\0\0ike"), Some((Kind::Ike, b"ike".to_vec())));
        assert_eq!(parsed(4500, b"\0\0\x01\0esp"), Some((Kind::Esp, b"\0\0\x01\0esp".to_vec())));
        assert_eq!(parsed(4500, b"\xff"), None);
        assert_eq!(parsed(53, b"other"), None);
    }

    #[test]
    fn an_esp_packet_tells_spi_and_number() {
        let packet = ipv4(STRANGER, PROTOCOL_ESP, &[0, 0, 1, 2, 0, 0, 0, 9, 77]);
        let message = Message::parse(&packet).expect("ESP");
        assert_eq!(message.spi_and_sequence(), Some((258, 9)));
        assert_eq!(Message::parse(packet.get(..22).unwrap_or_default()), None, "cut short");
    }
}
