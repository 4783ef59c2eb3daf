//! Carrying out renewals: from whose turn it is to what IKE is asked to do.

use crate::event::MemberEvent;
use crate::limits;
use crate::member::Member;
use crate::renewals::{Continuity, Renewal, Subject};
use holdfast_cluster::{ChildRecord, Direction, IkeSpi};
use holdfast_ike::{Dial, IkeError, Outcome, Refusal, TakeoverPolicy};
use holdfast_ipsec::{Encapsulation, Spi};
use holdfast_packet::{Nanos, udp};
use std::net::SocketAddrV4;

impl Member {
    /// What a connection wants done after a takeover. One that was taken out of the configuration has
    /// the default.
    pub(crate) fn policy(&self, connection: &str) -> TakeoverPolicy {
        let connections = &self.config.ike.connections;
        let connection = connections.iter().find(|known| known.name == connection);
        connection.map_or(TakeoverPolicy::default(), |connection| connection.policy)
    }

    /// Begins the renewals whose turn it is.
    pub(crate) fn begin_renewals(&mut self, now: Nanos) {
        if !self.speaks(now) || !self.ike_serves() || self.outbox.is_full() {
            return;
        }
        for renewal in self.renewals.next(now) {
            self.begin_renewal(now, renewal);
        }
    }

    fn begin_renewal(&mut self, now: Nanos, renewal: Renewal) {
        match (renewal.subject, renewal.policy) {
            (Subject::Child(spi), _) => {
                self.event(MemberEvent::SaRenewing { spi, urgent: renewal.urgent });
                self.rekey(now, spi);
            }
            (Subject::Ike(ike), TakeoverPolicy::Reestablish) => self.reestablish(now, ike),
            (Subject::Ike(ike), _) => self.synchronise(now, ike),
        }
    }

    /// Has the peer count its Child SAs on (RFC 6311), or rekeys them where that cannot be.
    fn synchronise(&mut self, now: Nanos, ike: IkeSpi) {
        let delta = self.delta(ike);
        let begun = self.ike.synchronise(now, holdfast_ike::IkeSpi(ike.0), delta);
        match begun {
            Ok(()) => {
                self.expect_jump(now, ike, delta);
                self.event(MemberEvent::IkeSynchronising { ike, delta });
            }
            Err(_) => self.renewals.fall_back(now, Subject::Ike(ike)),
        }
    }

    /// Where the peer is now is only known of Child SAs that were heard: the others may land as far
    /// beyond the floor as they are told to count on, and their first packet is to be accepted.
    fn expect_jump(&mut self, now: Nanos, ike: IkeSpi, delta: u64) {
        let children: Vec<Spi> = self.replica.state().children_of(ike).collect();
        for spi in children {
            if self.renewals.heard(spi).is_none() {
                let packets = u32::try_from(delta).unwrap_or(u32::MAX);
                self.grants.want(now, spi, Direction::Inbound, packets.max(1));
            }
        }
    }

    /// By how much the peer must count on so that each of its Child SAs gets beyond the floor.
    fn delta(&self, ike: IkeSpi) -> u64 {
        let state = self.replica.state();
        let children = state.children_of(ike).filter_map(|spi| state.child(spi));
        let gap = |child: &ChildRecord| {
            let spi = child.parameters.inbound_spi;
            match (self.renewals.continuity(spi), self.renewals.heard(spi)) {
                (Continuity::Certain, _) => 0,
                (_, Some(heard)) => child.floor.saturating_sub(heard),
                (_, None) => child.floor.min(limits::SYNC_GAP_PACKETS),
            }
        };
        children.map(gap).max().unwrap_or(0)
    }

    /// Begins a new IKE SA in place of an old one, whether IKE can read the old one or not.
    fn reestablish(&mut self, now: Nanos, ike: IkeSpi) {
        let old = holdfast_ike::IkeSpi(ike.0);
        let begun = match self.ike.reestablish(now, old) {
            Err(IkeError::NoIkeSa(_)) => match self.dial(ike) {
                Some(dial) => self.ike.begin(now, dial),
                None => return self.renewals.finished(Subject::Ike(ike)),
            },
            begun => begun,
        };
        match begun {
            Ok(()) => self.event(MemberEvent::IkeReestablishing { ike }),
            // The peer is replacing or closing it.
            Err(IkeError::Busy) => self.renewals.finished(Subject::Ike(ike)),
            Err(error) => {
                self.event(MemberEvent::IkeNotReestablished { ike, reason: error.to_string() });
                self.renewals.failed(now, Subject::Ike(ike));
            }
        }
    }

    /// What the records of Child SAs tell about how their peer can be reached, when that of their IKE
    /// SA cannot be read.
    fn dial(&self, ike: IkeSpi) -> Option<Dial> {
        let state = self.replica.state();
        let child = state.children_of(ike).find_map(|spi| state.child(spi))?;
        let parameters = &child.parameters;
        let (local_port, port) = match parameters.encapsulation {
            Encapsulation::Esp => (udp::PORT_IKE, udp::PORT_IKE),
            Encapsulation::Udp { local_port, remote_port } => (local_port, remote_port),
        };
        Some(Dial {
            connection: parameters.connection.clone(),
            local_port,
            peer: SocketAddrV4::new(parameters.remote, port),
            identity: None,
            selectors: parameters.selectors.clone(),
            replaces: holdfast_ike::IkeSpi(ike.0),
        })
    }

    /// Takes up what came of renewals, and what a peer that is a cluster itself asks for.
    pub(crate) fn conclude_renewals(&mut self, now: Nanos) {
        while let Some(outcome) = self.ike.poll_outcome() {
            match outcome {
                Outcome::ChildNotRekeyed(spi) => self.renewals.failed(now, Subject::Child(spi)),
                Outcome::Synchronised { ike, counters: true } => {
                    self.renewals.synchronised(now, Subject::Ike(IkeSpi(ike.0)));
                }
                // The Child SAs are rekeyed meanwhile.
                Outcome::Synchronised { .. } => {}
                Outcome::CountOn { spi, packets } => self.count_on(now, spi, packets),
                Outcome::Reestablished { old, new } => {
                    let (old, new) = (IkeSpi(old.0), IkeSpi(new.0));
                    self.renewals.finished(Subject::Ike(old));
                    self.event(MemberEvent::IkeReestablished { old, new });
                }
                Outcome::NotReestablished { old, reason } => {
                    self.not_reestablished(now, IkeSpi(old.0), reason);
                }
            }
        }
    }

    /// A peer that does not answer is tried again later; one that refuses is left with what it has.
    fn not_reestablished(&mut self, now: Nanos, ike: IkeSpi, reason: Refusal) {
        self.event(MemberEvent::IkeNotReestablished { ike, reason: reason.name().to_owned() });
        let readable = self.ike.sas().any(|sa| sa.spi.0 == ike.0);
        if reason == Refusal::PeerUnresponsive || !readable {
            self.renewals.failed(now, Subject::Ike(ike));
        } else {
            self.renewals.fall_back(now, Subject::Ike(ike));
        }
    }

    /// The peer is a cluster that took over: it wants our numbers beyond those it cannot tell apart.
    /// So many are granted and given up; far more are spared by a rekey.
    fn count_on(&mut self, now: Nanos, spi: Spi, packets: u64) {
        if packets > limits::COUNT_ON_PACKETS_MAX {
            return self.rekey(now, spi);
        }
        self.grants.count_on(now, spi, packets);
    }

    pub(crate) fn rekey(&mut self, now: Nanos, spi: Spi) {
        if !self.speaks(now) || !self.ike_serves() {
            return;
        }
        // Being replaced already, or gone: either way there is nothing to begin.
        if self.ike.rekey_child(now, spi).is_err() {
            self.renewals.finished(Subject::Child(spi));
        }
    }
}
