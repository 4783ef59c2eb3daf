//! Loading what the records hold after a takeover, a slice at a time.
//!
//! Ten thousand SAs take longer to set up than a lease lasts. So the Child SAs go to the workers in
//! slices, between which heartbeats are answered, and the IKE SAs follow; until the last of them is
//! there, IKE messages are dropped (peers repeat them), lest a known SA be answered as unknown.

use crate::limits;
use holdfast_cluster::{IkeSpi, State};
use holdfast_ipsec::Spi;
use std::collections::VecDeque;

/// What is still to be loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loading {
    children: VecDeque<Spi>,
    ike_sas: VecDeque<IkeSpi>,
}

impl Loading {
    /// Everything in the records.
    pub(crate) fn everything(state: &State) -> Self {
        let children = state.children().map(|child| child.parameters.inbound_spi).collect();
        Self { children, ..Self::ike_only(state) }
    }

    /// The IKE SAs in the records; the workers keep their Child SAs.
    pub(crate) fn ike_only(state: &State) -> Self {
        let ike_sas = state.ike_sas().map(|(spi, _)| spi).collect();
        Self { children: VecDeque::new(), ike_sas }
    }

    /// True when all is loaded.
    pub(crate) fn is_done(&self) -> bool {
        self.children.is_empty() && self.ike_sas.is_empty()
    }

    /// True when the workers have all Child SAs.
    pub(crate) fn has_all_children(&self) -> bool {
        self.children.is_empty()
    }

    /// How many SAs of either kind are to come.
    pub(crate) fn left(&self) -> usize {
        self.children.len().saturating_add(self.ike_sas.len())
    }

    /// The Child SAs of the next slice.
    pub(crate) fn next_children(&mut self) -> Vec<Spi> {
        let count = self.children.len().min(limits::LOAD_CHILDREN_PER_ROUND);
        self.children.drain(..count).collect()
    }

    /// The IKE SAs of the next slice; none before the last Child SA.
    pub(crate) fn next_ike_sas(&mut self) -> Vec<IkeSpi> {
        if !self.children.is_empty() {
            return Vec::new();
        }
        let count = self.ike_sas.len().min(limits::LOAD_IKE_SAS_PER_ROUND);
        self.ike_sas.drain(..count).collect()
    }
}
