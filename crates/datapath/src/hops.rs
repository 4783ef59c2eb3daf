//! The Ethernet headers to the targets that flows have, ready to be put in front.

use crate::flows::{FlowTable, TARGETS_MAX, TargetNumber};
use crate::tables::{Tables, Way};
use holdfast_packet::ethernet::{self, HEADER_LEN};

/// By the flow table's numbers of the targets. Only what most packets need: targets that take their
/// packets as they are, and whose station is known.
#[derive(Debug)]
pub(crate) struct Hops {
    generation: u64,
    version: u64,
    headers: Vec<Option<[u8; HEADER_LEN]>>,
}

impl Hops {
    /// Room for all targets is there from the beginning.
    pub(crate) fn new() -> Self {
        let headers = Vec::with_capacity(TARGETS_MAX);
        Self { generation: u64::MAX, version: u64::MAX, headers }
    }

    /// The header to a target, when there is nothing else to do for its packets.
    #[inline]
    pub(crate) fn get(
        &mut self,
        number: TargetNumber,
        flows: &FlowTable,
        tables: &Tables,
    ) -> Option<&[u8; HEADER_LEN]> {
        if self.generation != tables.generation || self.version != flows.version() {
            self.renew(flows, tables);
        }
        self.headers.get(number.index())?.as_ref()
    }

    #[cold]
    fn renew(&mut self, flows: &FlowTable, tables: &Tables) {
        let header = |id: &u64| {
            let target = tables.targets.by_id.get(id)?;
            if !matches!(target.way, Way::Clear) {
                return None;
            }
            let header = ethernet::Repr {
                destination: target.mac?,
                source: tables.inside_mac,
                ether_type: ethernet::TYPE_IPV4,
            };
            Some(header.bytes())
        };
        self.headers.clear();
        self.headers.extend(flows.targets().iter().map(header));
        (self.generation, self.version) = (tables.generation, flows.version());
    }
}
