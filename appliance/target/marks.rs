//! Marked packets in, inner packets out: a UDP socket at one end, a tun device at the other.
//!
//! ```text
//!   inside network --UDP 6080--> socket -> open_mark -> tun device --> the host's own IP stack
//!                                             '-- refused: dropped, counted
//! ```

use super::owner::Notice;
use crate::os;
use holdfast_cluster::MemberId;
use holdfast_datapath::{MarkKey, MarkRefusal, open_mark};
use holdfast_packet::{gue, ipv4};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Datagrams taken before timers and connections get their turn.
const DATAGRAMS_PER_TURN: usize = 512;

/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams that may wait in the kernel: 100 ms of a gigabit.
const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// The epoch whose marks are accepted.
#[derive(Debug)]
struct Accepted {
    epoch: u64,
    key: MarkKey,
    service: Ipv4Addr,
}

/// The two ends, and what was counted between them.
#[derive(Debug)]
pub(super) struct Marks {
    socket: UdpSocket,
    tun: File,
    accepted: Option<Accepted>,
    /// This host's own member is the owner: what comes marked now comes from somebody else.
    local: bool,
    counts: MarkCounts,
    buffer: Vec<u8>,
}

/// What became of marked packets.
#[derive(Debug, Clone, Default)]
pub(super) struct MarkCounts {
    /// Handed to the host.
    pub(super) accepted: u64,
    /// Dropped, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Authentic, and the tun device did not take them.
    pub(super) undelivered: u64,
}

impl MarkCounts {
    /// All that were dropped because of their mark.
    pub(super) fn refused_total(&self) -> u64 {
        self.refused.values().sum()
    }

    fn refuse(&mut self, reason: &'static str) {
        let count = self.refused.entry(reason).or_default();
        *count = count.saturating_add(1);
    }
}

/// Why a mark is refused while this host's own member owns the address.
const LOCAL: &str = "local";
/// Why a mark is refused before any owner was heard of.
const NO_OWNER: &str = "no_owner";

impl Marks {
    /// Listens for marks at `address` and opens the tun device `device`.
    pub(super) fn open(
        address: Ipv4Addr,
        device: &str,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let at = SocketAddr::V4(SocketAddrV4::new(address, gue::PORT));
        let mut socket = UdpSocket::bind(at)?;
        // What the system grants at most; less only means earlier drops under a burst.
        let _granted = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        registry.register(&mut socket, token, Interest::READABLE)?;
        let tun = os::open_tun(device)?;
        let counts = MarkCounts {
            refused: MarkRefusal::ALL
                .iter()
                .map(|refusal| refusal.name())
                .chain([LOCAL, NO_OWNER])
                .map(|name| (name, 0))
                .collect(),
            ..MarkCounts::default()
        };
        let buffer = vec![0; DATAGRAM_BYTES_MAX];
        Ok(Self { socket, tun, accepted: None, local: false, counts, buffer })
    }

    /// Follows a new owner; `own` is the member on this host, if there is one.
    pub(super) fn follow(&mut self, notice: &Notice, own: Option<MemberId>) {
        self.local = own == Some(notice.owner.member);
        self.accepted = notice.key.clone().map(|key| Accepted {
            epoch: notice.owner.epoch.0,
            key,
            service: notice.common,
        });
    }

    /// What was counted.
    pub(super) const fn counts(&self) -> &MarkCounts {
        &self.counts
    }

    /// Takes what has arrived; true when there may be more.
    pub(super) fn receive(&mut self) -> bool {
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, _)) => self.take(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Anything but "nothing there" belongs to an earlier datagram of somebody else.
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, length: usize) {
        let payload = self.buffer.get(..length).unwrap_or_default();
        let opened = match &self.accepted {
            _ if self.local => Err(LOCAL),
            None => Err(NO_OWNER),
            Some(accepted) => open(payload, accepted),
        };
        match opened {
            Ok(inner) => match self.tun.write(inner) {
                Ok(_) => self.counts.accepted = self.counts.accepted.saturating_add(1),
                Err(_) => self.counts.undelivered = self.counts.undelivered.saturating_add(1),
            },
            Err(reason) => self.counts.refuse(reason),
        }
    }
}

/// The inner packet, when it is marked as it must be and for the address served here.
fn open<'a>(payload: &'a [u8], accepted: &Accepted) -> Result<&'a [u8], &'static str> {
    let inner = open_mark(payload, accepted.epoch, &accepted.key).map_err(MarkRefusal::name)?;
    let served = ipv4::View::parse(inner).is_ok_and(|p| p.destination() == accepted.service);
    if served { Ok(inner) } else { Err(MarkRefusal::Malformed.name()) }
}
