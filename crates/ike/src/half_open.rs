//! IKE SAs between IKE_SA_INIT and IKE_AUTH. They are not replicated: nothing is authenticated yet,
//! and after a takeover the peer begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use holdfast_packet::Nanos;

use crate::IkeSpi;
use crate::algorithm::IkeSuite;
use crate::fragment::Reassembly;
use crate::keys::IkeKeys;
use crate::nat::Nat;

/// Milliseconds an initiator has for IKE_AUTH.
const COMPLETE_MS: u64 = 30_000;

/// One half-open IKE SA, in which we are the responder.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    pub(crate) spi_i: u64,
    pub(crate) spi_r: IkeSpi,
    /// Where IKE_SA_INIT came from.
    pub(crate) remote: SocketAddrV4,
    /// The IKE_SA_INIT request, which IDi's AUTH covers.
    pub(crate) request: Vec<u8>,
    /// The IKE_SA_INIT response, which ours covers.
    pub(crate) response: Vec<u8>,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    pub(crate) nat: Nat,
    pub(crate) fragmentation: bool,
    pub(crate) fragments: Option<Reassembly>,
    /// Messages sealed so far.
    pub(crate) sealed: u64,
    /// Set when IKE_AUTH was answered: the refusal to repeat, or nothing when the SA was established
    /// and answers for itself.
    pub(crate) answered: Option<Vec<Vec<u8>>>,
}

/// Every half-open IKE SA, until its time is over.
#[derive(Debug, Default)]
pub(crate) struct HalfOpenTable {
    entries: BTreeMap<IkeSpi, HalfOpen>,
    by_request: BTreeMap<(SocketAddrV4, u64), IkeSpi>,
    deadlines: BTreeSet<(Nanos, IkeSpi)>,
    /// Entries whose IKE_AUTH has not been answered.
    open: usize,
}

impl HalfOpenTable {
    /// IKE SAs that are really half-open.
    pub(crate) const fn open(&self) -> usize {
        self.open
    }

    /// Entries in all: answered ones stay to absorb repetitions.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn insert(&mut self, now: Nanos, half_open: HalfOpen) {
        let spi = half_open.spi_r;
        self.deadlines.insert((now.plus_ms(COMPLETE_MS), spi));
        self.by_request.insert((half_open.remote, half_open.spi_i), spi);
        self.entries.insert(spi, half_open);
        self.open += 1;
    }

    /// The entry the same IKE_SA_INIT request made, octet for octet.
    pub(crate) fn by_request(
        &self,
        remote: SocketAddrV4,
        spi_i: u64,
        request: &[u8],
    ) -> Option<&HalfOpen> {
        let entry = self.entries.get(self.by_request.get(&(remote, spi_i))?)?;
        (entry.request == request).then_some(entry)
    }

    pub(crate) fn get_mut(&mut self, spi: IkeSpi) -> Option<&mut HalfOpen> {
        self.entries.get_mut(&spi)
    }

    pub(crate) fn contains(&self, spi: IkeSpi) -> bool {
        self.entries.contains_key(&spi)
    }

    /// Notes the answer to IKE_AUTH; see [`HalfOpen::answered`].
    pub(crate) fn answer(&mut self, spi: IkeSpi, answer: Vec<Vec<u8>>) {
        if let Some(entry) = self.entries.get_mut(&spi)
            && entry.answered.replace(answer).is_none()
        {
            self.open = self.open.saturating_sub(1);
        }
    }

    /// When the first entry's time is over.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Forgets entries whose time is over; returns how many were not completed.
    pub(crate) fn expire(&mut self, now: Nanos) -> usize {
        let mut incomplete = 0;
        while let Some((at, spi)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(entry) = self.entries.remove(&spi) else { continue };
            let key = (entry.remote, entry.spi_i);
            if self.by_request.get(&key) == Some(&spi) {
                self.by_request.remove(&key);
            }
            if entry.answered.is_none() {
                incomplete += 1;
            }
        }
        self.open = self.open.saturating_sub(incomplete);
        incomplete
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
