//! Telling a peer that an SPI it sends to names nothing here (RFC 7296 sections 1.5 and 2.21.4).
//!
//! ESP of an unknown SPI is not authenticated, and its source may be forged. So what follows from it
//! goes only to a peer whose IKE SA we have, inside of that IKE SA, where it is protected and
//! acknowledged; nobody else hears anything, and nothing is ever told in clear. How often is up to the
//! caller, who also knows which SPIs had a Child SA.
//!
//! ```text
//!   the SPI had a Child SA that is gone      INFORMATIONAL { D(ESP, SPI) }            the peer deletes its half
//!   nobody here knows it                     INFORMATIONAL { N(INVALID_SPI, SPI) }    the peer may look into it
//! ```

use std::net::Ipv4Addr;

use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;

use crate::codec::{Chain, Delete, Notify, NotifyType, PayloadType};
use crate::exchange::INFORMATIONAL;
use crate::sa::{IkeSa, Pending, Phase, Stray, Task};
use crate::{Ike, IkeError, IkeSpi};

/// IKE SAs of one address that are looked through: replaced ones stay for some seconds only.
const LOOKED_AT_MAX: usize = 8;

impl Ike {
    /// The IKE SA with the peer at `address`, if there is exactly one in use: behind a NAT there may
    /// be several peers, and it is not known which of them is meant.
    #[must_use]
    pub fn only_peer_at(&self, address: Ipv4Addr) -> Option<IkeSpi> {
        let mut there = self.peers_at(address);
        let only = there.next()?;
        there.next().is_none().then_some(only)
    }

    /// The established IKE SAs with an address: several behind one NAT, of which few are looked at.
    pub fn peers_at(&self, address: Ipv4Addr) -> impl Iterator<Item = IkeSpi> {
        let there = self.places.range((address, IkeSpi(0))..=(address, IkeSpi(u64::MAX)));
        there
            .map(|(_, spi)| *spi)
            .take(LOOKED_AT_MAX)
            .filter(|spi| self.sas.get(spi).is_some_and(|sa| sa.phase == Phase::Established))
    }

    /// Whether an inbound SPI is in use here, or offered in an exchange under way: the peer may send
    /// to it before we have its answer.
    #[must_use]
    pub fn uses(&self, spi: Spi) -> bool {
        self.child_owners.contains_key(&spi)
    }

    /// Tells the peer of an IKE SA, as soon as its window is free, that `spi` names nothing here;
    /// `deleted` says that a Child SA with the peer had it. The caller limits how often.
    ///
    /// # Errors
    /// [`IkeError::NoIkeSa`], or [`IkeError::Busy`] when the IKE SA is being replaced or closed, or the
    /// SPI is in use after all.
    pub fn disown(
        &mut self,
        now: Nanos,
        ike: IkeSpi,
        (spi, deleted): (Spi, bool),
    ) -> Result<(), IkeError> {
        if self.uses(spi) {
            return Err(IkeError::Busy);
        }
        let stray = if deleted { Stray::Deleted(spi) } else { Stray::Unknown(spi) };
        self.ike_task(now, ike, Task::Disown(stray))
    }

    /// Sends it. Nothing depends on the answer, so it is kept as a sign of life.
    pub(crate) fn send_disowning(&mut self, now: Nanos, sa: &mut IkeSa, stray: Stray) {
        let (Stray::Deleted(spi) | Stray::Unknown(spi)) = stray;
        // The window was not free until now, and what was under way may have taken the SPI.
        if self.uses(spi) {
            return;
        }
        let mut chain = Chain::new();
        match stray {
            Stray::Deleted(spi) => {
                chain.push(PayloadType::DELETE, Delete::Esp(vec![spi.get()]).emit());
            }
            Stray::Unknown(spi) => {
                chain.notify(&Notify::new(NotifyType::INVALID_SPI, &spi.get().to_be_bytes()));
            }
        }
        self.counters.disowned += 1;
        self.request(now, sa, (INFORMATIONAL, &chain), Pending::Liveness);
    }
}
