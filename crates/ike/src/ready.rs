//! What leaves the machine: changes to be committed, then datagrams to be sent.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddrV4;

use holdfast_crypto::SecretBytes;
use holdfast_ipsec::{ChildSaParameters, Spi};

use crate::Refusal;

/// The SPI we gave an IKE SA, which names it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub u64);

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One UDP datagram from or to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Our port: 500, or 4500, where a non-ESP marker of four zero octets goes in front of the payload
    /// on the wire (RFC 7296 section 2.23).
    pub local_port: u16,
    /// The peer's address and port.
    pub remote: SocketAddrV4,
    /// The IKE message, without the marker.
    pub payload: Vec<u8>,
}

/// One change of the replicated records.
#[derive(Clone, Debug)]
pub enum Change {
    /// Creates or replaces the record of an IKE SA.
    PutIkeSa {
        /// Its local SPI.
        spi: IkeSpi,
        /// The connection it was made for.
        connection: String,
        /// All of it, for [`crate::Ike::restore`].
        state: SecretBytes,
    },
    /// Removes an IKE SA.
    DeleteIkeSa {
        /// Its local SPI.
        spi: IkeSpi,
    },
    /// Installs a Child SA, or moves one to the IKE SA that inherits it (RFC 7296 section 2.8).
    PutChildSa {
        /// The IKE SA it belongs to.
        ike: IkeSpi,
        /// Both directions of it.
        parameters: Box<ChildSaParameters>,
        /// The Child SA it takes the place of, when the peer has rekeyed that one and may not know this
        /// one yet: the old one is to be sent with until it is deleted or the peer is heard on the new
        /// one (RFC 7296 section 2.8).
        replaces: Option<Spi>,
    },
    /// Removes both directions of a Child SA.
    DeleteChildSa {
        /// Its inbound SPI.
        inbound_spi: Spi,
    },
}

/// One step: commit `changes`, all or none, then send `datagrams`.
///
/// Steps are to be taken strictly in the order of their `id`, also those without changes: a repeated
/// response must not leave before the step that made it is committed.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Counts from 1.
    pub id: u64,
    /// What must be committed first; empty when nothing changes.
    pub changes: Vec<Change>,
    /// What may be sent then.
    pub datagrams: Vec<Datagram>,
}

/// How something that our own side asked for came out, where the changes do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer refused to have this Child SA rekeyed, or answered in a way that cannot be used. It is
    /// asked again later.
    ChildNotRekeyed(Spi),
    /// The peer answered a synchronisation.
    Synchronised {
        /// The IKE SA.
        ike: IkeSpi,
        /// Whether its Child SAs were counted on; otherwise only Message IDs were synchronised.
        counters: bool,
    },
    /// The peer is a cluster and asks that we count a Child SA's outbound numbers on (RFC 6311
    /// section 5.2).
    CountOn {
        /// Inbound SPI of the pair.
        spi: Spi,
        /// By so many numbers.
        packets: u64,
    },
    /// A new IKE SA stands in place of an old one.
    Reestablished {
        /// The old one, which is being deleted.
        old: IkeSpi,
        /// The new one.
        new: IkeSpi,
    },
    /// No new IKE SA could be made in place of an old one, which stays as it is.
    NotReestablished {
        /// The old one.
        old: IkeSpi,
        /// Why.
        reason: Refusal,
    },
}

/// A step being put together while one input is handled.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// IKE SAs to be exported as they are when the input has been handled.
    pub(crate) dirty: BTreeSet<IkeSpi>,
    pub(crate) gone: BTreeSet<IkeSpi>,
    pub(crate) installed: Vec<(IkeSpi, ChildSaParameters, Option<Spi>)>,
    pub(crate) removed: Vec<Spi>,
    pub(crate) datagrams: Vec<Datagram>,
}
