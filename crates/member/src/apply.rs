//! What the replica has to say: entries applied, roles, leases.

use crate::event::{LossCause, MemberEvent};
use crate::io::Output;
use crate::member::Member;
use crate::neighbours::Interest;
use crate::ownership::Ownership;
use holdfast_cluster::{Command, Direction, Effect, RecordName, Refusal};
use holdfast_datapath::WorkerCommand;
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use holdfast_replica::{Output as ReplicaOutput, ProposalId, Role};
use std::collections::BTreeSet;

impl Member {
    pub(crate) fn on_replica(&mut self, now: Nanos, output: ReplicaOutput) {
        match output {
            ReplicaOutput::Send { to, lane, bytes } => {
                self.output(Output::SendPeer { to, lane, bytes });
            }
            ReplicaOutput::Persist(batch) => self.output(Output::Persist(batch)),
            ReplicaOutput::Applied { index, term, command, effects } => {
                self.on_applied(now, ProposalId { index, term }, &command, effects);
            }
            ReplicaOutput::StateReplaced { .. } => self.on_state_replaced(now),
            ReplicaOutput::RoleChanged { role, term, leader } => {
                self.event(MemberEvent::LeaderChanged { term, leader });
                self.suspect_owner(now, role);
                match role {
                    Role::Leader if self.config.is_witness() => {}
                    Role::Leader => self.begin_claim(now),
                    Role::Follower | Role::Candidate => {
                        self.relinquish(now, LossCause::Leadership);
                    }
                }
                self.operations_role_changed(role == Role::Leader);
            }
            ReplicaOutput::LeaseUntil(until) => self.on_lease(now, until),
            ReplicaOutput::Peers { peers, retired } => {
                self.output(Output::Peers { peers, retired });
            }
            ReplicaOutput::Discard(superseded) => self.output(Output::Discard(superseded)),
            ReplicaOutput::Halted(error) => {
                self.relinquish(now, LossCause::Leadership);
                self.output(Output::Halt { reason: error.to_string() });
            }
        }
    }

    /// Passed on at once, because the message that asks a successor to campaign may be the very
    /// next output.
    fn on_lease(&mut self, now: Nanos, until: Option<Nanos>) {
        if matches!(self.ownership, Ownership::Owning { .. }) {
            let valid = until.filter(|until| now < *until);
            self.publish_lease(valid.unwrap_or(Nanos::ZERO));
        }
    }

    fn on_state_replaced(&mut self, now: Nanos) {
        self.relinquish(now, LossCause::Superseded);
        self.owner_since = Some(now);
        self.reload_records(now);
    }

    fn on_applied(&mut self, now: Nanos, id: ProposalId, command: &Command, effects: Vec<Effect>) {
        let ours = match self.ownership {
            Ownership::Owning { owner, .. } => command.owner() == Some(owner),
            _ => false,
        };
        let refused = effects.iter().any(|effect| matches!(effect, Effect::Refused(_)));
        let mut gone = BTreeSet::new();
        for effect in effects {
            self.on_effect(now, ours, effect, &mut gone);
        }
        if !gone.is_empty() {
            self.tables.remove(&gone);
            if ours {
                self.removals.extend(gone);
            }
        }
        if ours {
            if matches!(command, Command::Ike { .. }) {
                self.outbox.applied(id, refused);
            }
            self.carrying.applied(id);
        }
        self.operations_applied(id, refused);
    }

    fn on_effect(&mut self, now: Nanos, ours: bool, effect: Effect, gone: &mut BTreeSet<Spi>) {
        match effect {
            Effect::OwnerChanged { owner, previous } => {
                self.on_owner_changed(now, owner, previous);
                self.handover_owner_changed(now, owner);
            }
            Effect::IkeChanged(spi) | Effect::IkeRemoved(spi) => {
                self.carrying.held(now, RecordName::Ike(spi), None);
            }
            Effect::ChildMoved { spi, .. } => {
                self.carrying.held(now, RecordName::Child(spi), None);
            }
            Effect::CarriedOn { from, records } => {
                self.event(MemberEvent::RecordsCarriedOn { from, records });
            }
            Effect::Held { record, hold } => {
                if ours {
                    self.carrying.held(now, record, hold.as_ref());
                }
                self.event(MemberEvent::RecordHeld { record, hold });
            }
            Effect::ChildInstalled(spi) => self.on_child_installed(now, ours, spi),
            Effect::ChildRemoved(spi) => {
                gone.insert(spi);
                self.carrying.held(now, RecordName::Child(spi), None);
                self.warming.forget(spi);
                self.strays.note(now, spi);
                self.renewals.removed(spi);
                self.activity.forget(spi);
                self.grants.forget(spi);
                self.event(MemberEvent::SaRemoved { spi });
            }
            Effect::Granted { spi, range } => {
                self.grants.answered(spi, Direction::Outbound);
                if ours && !self.grants.gives_up(now, spi, range.len()) {
                    let worker = spi.worker(self.spi_mask);
                    self.command(worker, WorkerCommand::Grant { id: spi, range });
                }
            }
            Effect::HorizonMoved { spi, horizon } => {
                self.activity.note(now, spi);
                self.grants.answered(spi, Direction::Inbound);
                if ours {
                    let worker = spi.worker(self.spi_mask);
                    self.command(worker, WorkerCommand::Horizon { spi, horizon });
                }
            }
            Effect::Settled(settlement) if ours => self.on_settled(now, settlement),
            Effect::Settled(_) => {}
            Effect::TargetChanged { target, draining } => {
                self.tables.touch();
                self.event(MemberEvent::TargetDraining { target, draining });
            }
            Effect::MarkSecretSet => self.on_mark_secret(now),
            Effect::MembersChanged => self.on_members_changed(),
            Effect::Refused(refusal) => self.on_refused(refusal),
        }
    }

    fn on_child_installed(&mut self, now: Nanos, ours: bool, spi: Spi) {
        let Some(child) = self.replica.state().child(spi).cloned() else { return };
        self.activity.note(now, spi);
        if ours {
            self.install(&child);
        } else if !self.config.is_witness() {
            self.warming.add(spi);
        }
        self.tables.add(&child, self.replica.state(), self.spi_mask);
        if let Some(hop) = self.config.addresses.next_hop(child.parameters.remote) {
            self.outside.want(now, hop, Interest::NextHop);
        }
        self.event(MemberEvent::SaEstablished {
            spi,
            ike: child.ike,
            connection: child.parameters.connection.clone(),
            peer: child.parameters.remote,
        });
    }

    fn on_members_changed(&mut self) {
        let configuration = self.replica.configuration();
        let event = MemberEvent::MembersChanged {
            voters: configuration.voters.iter().copied().collect(),
            learners: configuration.learners.iter().copied().collect(),
            joint: configuration.is_joint(),
        };
        self.event(event);
    }

    fn on_refused(&mut self, refusal: Refusal) {
        if let Refusal::SequenceSpaceExhausted { spi, direction } = &refusal {
            self.grants.answered(*spi, *direction);
        }
        let count = self.refusals.entry(refusal_name(&refusal)).or_insert(0);
        *count = count.saturating_add(1);
        self.event(MemberEvent::CommandRefused(refusal));
    }
}

fn refusal_name(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotOwner { .. } => "not_owner",
        Refusal::Settled(_) => "settled",
        Refusal::EpochNotNewer { .. } => "epoch_not_newer",
        Refusal::StaleRecord { .. } => "stale_record",
        Refusal::UnknownIkeSa(_) => "unknown_ike_sa",
        Refusal::UnknownChildSa(_) => "unknown_child_sa",
        Refusal::ChildSaExists(_) => "child_sa_exists",
        Refusal::SequenceSpaceExhausted { .. } => "sequence_space_exhausted",
        Refusal::TooManyIkeSas => "too_many_ike_sas",
        Refusal::TooManyChildSas => "too_many_child_sas",
        Refusal::TooManyTargets => "too_many_targets",
        Refusal::TooLarge(_) => "too_large",
        Refusal::MembersNotRecorded => "members_not_recorded",
        Refusal::MemberChangeUnderWay => "member_change_under_way",
        Refusal::NoMemberChange => "no_member_change",
        Refusal::TooLateToCancel => "too_late_to_cancel",
        Refusal::MemberRetired(_) => "member_retired",
        Refusal::MemberExists(_) => "member_exists",
        Refusal::NoSuchMember(_) => "no_such_member",
        Refusal::LastFullMember(_) => "last_full_member",
        Refusal::TooManyMembers => "too_many_members",
    }
}
