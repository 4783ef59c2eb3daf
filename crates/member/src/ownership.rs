//! Law 1: taking the common address, and letting it go.

use crate::announce::Announcer;
use crate::carrying::Carrying;
use crate::event::{LossCause, MemberEvent};
use crate::io::Output;
use crate::limits;
use crate::loading::Loading;
use crate::member::Member;
use crate::neighbours::Interest;
use crate::renewals::{Inherited, Renewals, mix};
use holdfast_cluster::{ChildRecord, Command, Mutation, Owner, mutated};
use holdfast_datapath::WorkerCommand;
use holdfast_ike::IkeError;
use holdfast_ipsec::{InboundSa, Spi, TrafficSelector};
use holdfast_packet::{Nanos, Side};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What this member is to the common address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// Another member leads, or nobody.
    Standby,
    /// This member leads and is not the owner yet.
    Claiming {
        /// What it will be.
        owner: Owner,
        /// Whether the claim is in the log.
        proposed: bool,
        /// The owner before, once the claim is applied.
        applied: Option<Option<Owner>>,
    },
    /// This member is the owner. It speaks while the lease lasts.
    Owning {
        /// As what.
        owner: Owner,
        /// Whether the lease was found ended.
        lapsed: bool,
    },
}

impl Ownership {
    /// What this member is, while it is the owner.
    pub(crate) fn owner(&self) -> Option<Owner> {
        match self {
            Self::Standby | Self::Claiming { .. } => None,
            Self::Owning { owner, .. } => Some(*owner),
        }
    }

    /// What this member is or is about to be, when it leads.
    pub(crate) fn claim(&self) -> Option<Owner> {
        match self {
            Self::Standby => None,
            Self::Claiming { owner, .. } | Self::Owning { owner, .. } => Some(*owner),
        }
    }
}

impl Member {
    /// This member was elected in the present term.
    pub(crate) fn begin_claim(&mut self, now: Nanos) {
        let owner = self.replica.owner_claim();
        if self.ownership.claim() == Some(owner) {
            return;
        }
        self.relinquish(now, LossCause::Leadership);
        self.ownership = Ownership::Claiming { owner, proposed: false, applied: None };
        self.propose_retry = Nanos::ZERO;
    }

    /// An ownership was applied: ours, or somebody's.
    pub(crate) fn on_owner_changed(&mut self, now: Nanos, owner: Owner, previous: Option<Owner>) {
        self.owner_since = Some(now);
        match &mut self.ownership {
            Ownership::Claiming { owner: claim, applied, .. } if *claim == owner => {
                *applied = Some(previous);
            }
            Ownership::Owning { owner: ours, .. } if *ours != owner => {
                self.relinquish(now, LossCause::Superseded);
                self.event(MemberEvent::OwnerChanged { owner });
            }
            _ => self.event(MemberEvent::OwnerChanged { owner }),
        }
    }

    /// Takes the next step towards owning, and notices when the lease comes and goes.
    pub(crate) fn advance_ownership(&mut self, now: Nanos) {
        self.review_succession(now);
        let lease = self.replica.lease_until(now);
        match self.ownership {
            Ownership::Standby => {}
            Ownership::Claiming { owner, proposed: false, .. } => self.propose_claim(now, owner),
            Ownership::Claiming { owner, applied, .. } => {
                if let (Some(previous), Some(until)) = (applied, lease) {
                    self.take_ownership(now, owner, previous, until);
                }
            }
            Ownership::Owning { owner, lapsed } => {
                if lapsed && lease.is_some() {
                    self.event(MemberEvent::LeaseRegained);
                    self.announcer = Some(Announcer::new(now));
                } else if !lapsed && lease.is_none() {
                    self.event(MemberEvent::LeaseLost);
                }
                self.ownership = Ownership::Owning { owner, lapsed: lease.is_none() };
                self.publish_lease(lease.unwrap_or(Nanos::ZERO));
            }
        }
    }

    fn propose_claim(&mut self, now: Nanos, owner: Owner) {
        if now < self.propose_retry {
            return;
        }
        match self.replica.propose(now, &Command::TakeOwnership { owner }) {
            Ok(_) => {
                self.ownership = Ownership::Claiming { owner, proposed: true, applied: None };
            }
            Err(_) => self.propose_retry = now.plus_ms(limits::PROPOSE_RETRY_MS),
        }
    }

    /// The claim is applied and the lease is valid: carry on where the predecessor ended.
    ///
    /// A term has one ownership at most, so each granted range goes to a worker once.
    fn take_ownership(&mut self, now: Nanos, owner: Owner, previous: Option<Owner>, until: Nanos) {
        self.ownership = Ownership::Owning { owner, lapsed: false };
        self.ike.clear();
        self.command_all(|| WorkerCommand::Clear);
        self.passing_on = None;
        self.filling = true;
        self.command_all(|| WorkerCommand::Fill { keep_ms: limits::LOAD_HOLD_MS });
        self.renewals = Renewals::begin(mix(self.jitter_seed, owner.epoch.0));
        self.loading = Loading::everything(self.replica.state(), self.activity.active(now));
        self.carrying = Carrying::takeover(now, self.replica.state());
        self.warming.end();
        self.load_slice(now);
        self.tables.reload_rest(self.replica.state(), self.spi_mask);
        self.tables.begin_ownership();
        self.publish(now, true);
        self.publish_lease(until);
        // After the lease: without one they would drop what they kept.
        self.serve_when_filled();
        let mut announcer = Announcer::new(now);
        announcer.fire(now);
        self.announcer = Some(announcer);
        self.announce();
        self.notices.begin(now, owner.epoch);
        self.mark_secret.forget_proposal();
        for side in Side::ALL {
            self.neighbours_mut(side).set_pace(now, true);
        }
        let child_sas = self.replica.state().children().len();
        self.event(MemberEvent::OwnershipTaken { owner, previous, child_sas });
    }

    /// Goes on loading after a takeover.
    pub(crate) fn load(&mut self, now: Nanos) {
        self.load_slice(now);
        self.serve_when_filled();
    }

    fn serve_when_filled(&mut self) {
        if self.filling && self.loading.has_all_children() {
            self.filling = false;
            self.command_all(|| WorkerCommand::Serve);
        }
    }

    /// A worker keeps a frame for an SA it has not got.
    pub(crate) fn on_missing(&mut self, now: Nanos, worker: u32, spi: Spi) {
        if !self.filling {
            return;
        }
        if self.loading.take(spi) {
            self.load_children(now, &[spi]);
        } else if self.replica.state().child(spi).is_none() {
            self.command(worker, WorkerCommand::NoSuchSa(spi));
        }
    }

    /// Loads the next SAs.
    fn load_slice(&mut self, now: Nanos) {
        if !self.loading.begin_slice(now) {
            return;
        }
        let slice = self.loading.next_children();
        self.load_children(now, &slice);
        let slice = self.loading.next_ike_sas();
        let state = self.replica.state();
        let exported = slice.iter().filter_map(|spi| {
            Some((holdfast_ike::IkeSpi(spi.0), state.ike_sa(*spi)?.state.as_bytes()))
        });
        let mut unreadable = Vec::new();
        for error in self.ike.restore(now, exported) {
            let reason = error.to_string();
            if let IkeError::Restore(spi, _) = error {
                unreadable.push((holdfast_cluster::IkeSpi(spi.0), reason.clone()));
            }
            self.event(MemberEvent::IkeUnreadable { reason });
        }
        let state = self.replica.state();
        for child in slice.iter().flat_map(|ike| state.children_of(*ike)) {
            if let Some(old) = state.child(child).and_then(|child| child.replaces) {
                self.ike.note_replacement(child, old);
            }
        }
        self.carrying.ike_established(&slice, unreadable);
    }

    fn load_children(&mut self, now: Nanos, slice: &[Spi]) {
        for spi in slice {
            // It may have been removed meanwhile.
            if let Some(child) = self.replica.state().child(*spi).cloned() {
                self.install(&child);
            }
        }
        self.plan_renewals(now, slice);
        self.carrying.children_established(slice);
    }

    /// Plans the renewal of SAs just loaded. In slices like the loading: a hundred thousand at once
    /// would outlast the lease.
    fn plan_renewals(&mut self, now: Nanos, loaded: &[Spi]) {
        let state = self.replica.state();
        for spi in loaded {
            let Some(child) = state.child(*spi) else { continue };
            // A floor of 0: no earlier owner left anything ambiguous. An edge beyond the floor: the
            // peer has counted past it, and the owner it met there said so when it handed over.
            if child.floor == 0 || child.edge.right_edge > child.floor {
                continue;
            }
            let inherited = Inherited {
                spi: *spi,
                ike: child.ike,
                policy: self.policy(&child.parameters.connection),
                active: self.activity.is_active(now, *spi),
                known_to_peer: state.is_known_to_peer(child),
            };
            self.renewals.inherit(now, inherited);
        }
    }

    /// Ends whatever this member was to the address: the lease first, then everything that rests
    /// upon it.
    pub(crate) fn relinquish(&mut self, now: Nanos, cause: LossCause) {
        let before = std::mem::replace(&mut self.ownership, Ownership::Standby);
        self.publish_lease(Nanos::ZERO);
        if std::mem::take(&mut self.filling) {
            // What waits for SAs that do not come any more is dropped.
            self.command_all(|| WorkerCommand::Hold { until: now });
        }
        self.handover_role_lost(now);
        let Ownership::Owning { owner, .. } = before else { return };
        self.command_all(|| WorkerCommand::Clear);
        self.removals.clear();
        self.ike.clear();
        self.outbox.clear();
        self.loading = Loading::default();
        self.carrying = Carrying::default();
        self.grants.clear();
        self.renewals = Renewals::default();
        self.announcer = None;
        self.warming.begin(self.replica.state());
        self.notices.end();
        for side in Side::ALL {
            let neighbours = self.neighbours_mut(side);
            neighbours.drop_held();
            neighbours.set_pace(now, false);
        }
        self.event(MemberEvent::OwnershipLost { owner, cause });
    }

    /// Tells the workers when the lease ends, when they do not know it yet.
    pub(crate) fn publish_lease(&mut self, until: Nanos) {
        if self.lease_published != until {
            self.lease_published = until;
            self.output(Output::Lease(until));
        }
    }

    /// Has the worker of a Child SA use it with the numbers the records grant.
    pub(crate) fn install(&mut self, child: &ChildRecord) {
        let spi = child.parameters.inbound_spi;
        let worker = spi.worker(self.spi_mask);
        let horizon = if mutated(Mutation::HorizonIgnored) { u64::MAX } else { child.horizon };
        let (mut inbound, outbound) = self.warming.take(child, horizon);
        if mutated(Mutation::SelectorsIgnored) {
            let mut parameters = (*child.parameters).clone();
            let prefix = TrafficSelector::prefix(Ipv4Addr::UNSPECIFIED, 0);
            parameters.selectors.remote = vec![prefix];
            let resumed = InboundSa::resume(&parameters, child.floor, &child.edge, horizon);
            *inbound = resumed;
        }
        self.command(worker, WorkerCommand::InstallInbound(inbound));
        self.command(worker, WorkerCommand::InstallOutbound { id: spi, sa: outbound });
    }

    /// Brings policies and next hops in line with the whole state, in slices.
    pub(crate) fn reload_records(&mut self, now: Nanos) {
        self.tables.reload(self.replica.state());
        if !self.config.is_witness() {
            self.warming.begin(self.replica.state());
        }
        self.next_hop_review = now;
    }

    /// Asks for the next hops of the peers there are, and no longer for those of peers that left.
    pub(crate) fn review_next_hops(&mut self, now: Nanos) {
        self.next_hop_review = now.plus_ms(limits::NEXT_HOP_REVIEW_MS);
        let addresses = self.config.addresses;
        let children = self.replica.state().children();
        let mut hops: BTreeSet<_> =
            children.filter_map(|child| addresses.next_hop(child.parameters.remote)).collect();
        hops.extend(addresses.gateway);
        self.outside.keep_next_hops(&hops);
        for hop in hops {
            self.outside.want(now, hop, Interest::NextHop);
        }
    }
}
