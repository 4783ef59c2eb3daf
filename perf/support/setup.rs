//! The worker that packets go through, and what its controller tells it.

use super::frames::{COMMON, INSIDE_MAC, Load, OTHER_MAC, OUTSIDE_MAC, SERVICE};
use holdfast_crypto::AeadBurst;
use holdfast_datapath::{
    ConnectionCount, Controls, Metric, Prefix, SaRef, Tables, TargetEntry, TargetTable, Way,
    WorkerCommand, WorkerLimits, WorkerParts,
};
use holdfast_ipsec::{InboundSa, OutboundSa, SequenceRange};
use holdfast_maglev::{DEFAULT_SIZE, Table};
use holdfast_packet::{Nanos, Port, Side};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const TARGETS: u64 = 3;

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }

    /// Where packets come from.
    pub(crate) const fn from(self) -> Side {
        match self {
            Self::Encrypt => Side::Inside,
            Self::Decrypt => Side::Outside,
        }
    }

    /// What counts the packets that come through.
    pub(crate) const fn metric(self) -> Metric {
        match self {
            Self::Encrypt => Metric::Sealed,
            Self::Decrypt => Metric::Opened,
        }
    }

    /// Gives the worker SA number `sa` of the load, fresh.
    pub(crate) fn installation(self, load: &Load, sa: u32) -> WorkerCommand {
        let parameters = load.parameters(sa);
        let most = u64::from(u32::MAX);
        match self {
            Self::Encrypt => {
                let sa = Box::new(OutboundSa::new(&parameters, SequenceRange::new(1, most)));
                WorkerCommand::InstallOutbound { id: parameters.inbound_spi, sa }
            }
            Self::Decrypt => {
                WorkerCommand::InstallInbound(Box::new(InboundSa::new(&parameters, 0, most)))
            }
        }
    }
}

/// The parts of a worker that serves the load, leased for ever.
pub(crate) fn parts<P: Port>(
    outside: P,
    inside: P,
    load: &Load,
    aead: Box<dyn AeadBurst>,
) -> (WorkerParts<P>, Controls) {
    let limits = WorkerLimits { sas: load.sas.max(64) as usize, flows: 2 * load.flows as usize };
    let (parts, mut controls) = WorkerParts::alone(outside, inside, aead, limits);
    controls.lease.set(Nanos::MAX);
    controls.publisher.publish(Arc::new(tables(load)));
    (parts, controls)
}

fn tables(load: &Load) -> Tables {
    let target = |id: u64| TargetEntry {
        address: Ipv4Addr::new(203, 0, 113, id as u8),
        mac: Some(OTHER_MAC),
        draining: false,
        way: Way::Clear,
        connections: ConnectionCount::default(),
    };
    let weights: Vec<(u64, u32)> = (1..=TARGETS).map(|id| (id, 1)).collect();
    let mut tables = Tables {
        generation: 1,
        common: COMMON,
        inside: Ipv4Addr::new(203, 0, 113, 100),
        service: SERVICE,
        outside_mac: OUTSIDE_MAC,
        inside_mac: INSIDE_MAC,
        outside_prefix: Prefix { address: COMMON, length: 24 },
        gateway: Some(GATEWAY),
        targets: TargetTable {
            table: Arc::new(Table::new(&weights, DEFAULT_SIZE, 1)),
            by_id: (1..=TARGETS).map(|id| (id, target(id))).collect(),
        },
        neighbours: BTreeMap::from([(GATEWAY, OTHER_MAC)]),
        flow_seed: 42,
        ..Tables::empty()
    };
    for sa in 0..load.sas {
        let parameters = load.parameters(sa);
        let reference = SaRef { worker: 0, spi: parameters.inbound_spi };
        tables.spd.insert(parameters.selectors, reference);
    }
    tables
}
