//! Finding out whether addresses are translated on the way (RFC 7296 section 2.23).

use std::net::{Ipv4Addr, SocketAddrV4};

use sha1::{Digest, Sha1};

use crate::codec::{Contents, NotifyType};

/// The hash a NAT_DETECTION payload carries: SPIs in the order of the header, address, port.
pub(crate) fn nat_hash(spi_i: u64, spi_r: u64, address: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut hash = Sha1::new();
    hash.update(spi_i.to_be_bytes());
    hash.update(spi_r.to_be_bytes());
    hash.update(address.octets());
    hash.update(port.to_be_bytes());
    hash.finalize().to_vec()
}

/// Whether a NAT was noticed. A peer may also pretend one, to have ESP encapsulated in UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nat {
    /// We appear to be behind one.
    pub(crate) local: bool,
    /// The peer appears to be behind one.
    pub(crate) remote: bool,
}

impl Nat {
    /// Compares the NAT_DETECTION payloads of a message from `remote` to `local`.
    pub(crate) fn detect(
        contents: &Contents<'_>,
        spi_i: u64,
        spi_r: u64,
        local: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Self {
        let differs = |kind: NotifyType, address: SocketAddrV4| {
            let expected = nat_hash(spi_i, spi_r, *address.ip(), address.port());
            let mut hashes =
                contents.notifies.iter().filter(|notify| notify.kind == kind).peekable();
            hashes.peek().is_some() && hashes.all(|notify| notify.data != expected)
        };
        Self {
            local: differs(NotifyType::NAT_DETECTION_DESTINATION_IP, local),
            remote: differs(NotifyType::NAT_DETECTION_SOURCE_IP, remote),
        }
    }

    /// Whether ESP must travel in UDP.
    pub(crate) const fn any(self) -> bool {
        self.local || self.remote
    }
}
