//! Handing the common address over on purpose, without losing a packet.
//!
//! ```text
//!   old owner                                             successor
//!   ---------                                             ---------
//!   Draining      IKE under way is committed and sent;
//!       |         new IKE messages wait here; the
//!       |         workers have all SAs
//!   Offered       ------------ Offer ------------------>  fit and warm? then its workers keep
//!       |         <----------- Answer ------------------  what arrives
//!   Suspending    workers stop, pass frames on, report
//!       |         ============ frames =================>  kept
//!   Settling      Settle, Settle, ... committed
//!       |
//!   Transferring  lease withdrawn, leadership offered ->  elected, TakeOwnership: exact numbers;
//!       |                                                 lease, announcement, and of each SA that
//!       |                                                 is loaded the kept frames
//!   Counting      how many frames were passed on?
//!       |
//!   (done)        stragglers are passed on for some seconds more, before encryption: what this
//!                 member could still seal would be numbers the successor has
//! ```
//!
//! Giving up: before the workers stopped nothing has happened; before anything was settled they just
//! go on; after that this member campaigns anew and takes the ownership in a new term, exactly where
//! it stopped, like any successor would. What the successor keeps meanwhile expires.
//!
//! A member whose workers do not answer cannot settle. It hands over the plain way: the successor
//! takes over as after a crash, only sooner.

use crate::bulletin::MemberMessage;
use crate::event::{HandoverCause, MemberEvent};
use crate::io::Output;
use crate::limits;
use crate::member::Member;
use crate::ownership::Ownership;
use holdfast_cluster::limits::SETTLE_ITEMS_MAX;
use holdfast_cluster::{
    Command, MemberId, Mutation, Owner, SettleItem, Settlement, level, mutated,
};
use holdfast_datapath::{StoppedSa, WorkerCommand};
use holdfast_packet::{Nanos, Side};
use holdfast_replica::{Lane, ProposalId};
use std::collections::{BTreeSet, VecDeque};

/// How far a handover has come.
#[derive(Debug)]
enum Phase {
    Draining,
    Offered,
    Suspending { missing: BTreeSet<u32>, items: Vec<SettleItem> },
    Settling { waiting: VecDeque<Vec<SettleItem>>, last: Option<ProposalId> },
    Transferring,
    Counting { owner: Owner, missing: BTreeSet<u32>, frames: u64 },
}

/// A handover by this member.
#[derive(Debug)]
pub(crate) struct Handover {
    /// Names it to the successor.
    number: u64,
    pub(crate) to: MemberId,
    operator: Option<u64>,
    began: Nanos,
    /// When the workers were told to stop.
    suspended: Option<Nanos>,
    /// When another member's ownership was applied.
    moved: Option<Nanos>,
    phase: Phase,
    /// The phase is given up then.
    until: Nanos,
    /// IKE frames that arrived since it began.
    punted: VecDeque<(Side, Box<[u8]>)>,
}

impl Handover {
    /// When the present phase is given up.
    pub(crate) fn due(&self) -> Nanos {
        self.until
    }

    /// Numbers are settled or about to be: nothing more is asked for.
    pub(crate) fn is_settling(&self) -> bool {
        !matches!(self.phase, Phase::Draining | Phase::Offered)
    }

    fn enter(&mut self, phase: Phase, until: Nanos) {
        self.phase = phase;
        self.until = until;
    }
}

impl Member {
    /// Two election timeouts: what the log and an election take at most when all goes well.
    fn election_patience_ms(&self) -> u64 {
        let timing = self.config.timing;
        timing.tick_ms.saturating_mul(timing.election_ticks).saturating_mul(2)
    }

    pub(crate) fn begin_handover(
        &mut self,
        now: Nanos,
        to: MemberId,
        cause: HandoverCause,
        operator: Option<u64>,
    ) {
        self.event(MemberEvent::HandoverStarted { to, cause });
        self.handover = Some(Handover {
            number: now.0,
            to,
            operator,
            began: now,
            suspended: None,
            moved: None,
            phase: Phase::Draining,
            until: now.plus_ms(limits::HANDOVER_DRAIN_MS),
            punted: VecDeque::new(),
        });
        // A worker that does not poll does not stop on demand, what cannot be stored is not applied
        // here, and who is silent has nothing to pass on.
        let stalled = self.health.stalled().next().is_some() || self.health.storage_failed();
        let unreadable = !self.all_can_read_a_settlement();
        if stalled || unreadable || !self.speaks(now) || self.fellows.stations(to).is_none() {
            self.transfer(now);
        }
    }

    /// No member is known to be of a release that cannot read what is about to be in the log.
    fn all_can_read_a_settlement(&self) -> bool {
        let members = self.replica.configuration().members();
        let levels = members.into_iter().filter_map(|id| self.replica.told_by(id));
        levels.into_iter().all(|(_, told)| told >= level::SETTLEMENT)
    }

    /// Takes the next step when it can be taken.
    pub(crate) fn advance_handover(&mut self, now: Nanos) {
        match self.handover.as_ref().map(|handover| &handover.phase) {
            // Workers that still get their SAs will be told to serve: not once they were told to stop and
            // said where.
            Some(Phase::Draining)
                if self.outbox.is_empty()
                    && (!self.filling || mutated(Mutation::OfferedWhileFilling)) =>
            {
                self.offer(now);
            }
            Some(Phase::Settling { last: None, .. }) => self.propose_settlement(now),
            _ => {}
        }
        if self.handover.as_ref().is_some_and(|handover| handover.until <= now) {
            self.give_up_phase(now);
        }
    }

    /// Keeps an IKE frame that arrived while a handover is under way; false when there is none.
    pub(crate) fn keep_for_successor(&mut self, side: Side, frame: &[u8]) -> bool {
        let Some(handover) = &mut self.handover else { return false };
        if matches!(handover.phase, Phase::Draining | Phase::Offered) {
            if handover.punted.len() < limits::HANDOVER_PUNTS_MAX {
                handover.punted.push_back((side, frame.into()));
            }
        } else {
            self.transmit_as_received(side, frame.into());
        }
        true
    }

    fn transmit_as_received(&mut self, side: Side, frame: Box<[u8]>) {
        self.command(0, WorkerCommand::Pass { side, frame });
    }

    fn offer(&mut self, now: Nanos) {
        let Some(handover) = &mut self.handover else { return };
        handover.enter(Phase::Offered, now.plus_ms(limits::HANDOVER_OFFER_MS));
        let (to, number) = (handover.to, handover.number);
        self.tell(to, &MemberMessage::Offer { number });
    }

    pub(crate) fn tell(&mut self, to: MemberId, message: &MemberMessage) {
        self.output(Output::SendPeer { to, lane: Lane::Heartbeat, bytes: message.encode().into() });
    }

    /// This member is asked to take over.
    pub(crate) fn on_offer(&mut self, now: Nanos, from: MemberId, number: u64) {
        let fitness = self.own_fitness();
        let refusal = if self.replica.leader() != Some(from) {
            Some(format!("member {from} does not lead here"))
        } else if self.ownership != Ownership::Standby {
            Some("is about to own already".to_owned())
        } else {
            (!fitness.is_fit()).then(|| fitness.to_string())
        };
        if refusal.is_none() {
            let patience_ms = self.election_patience_ms();
            let until = now.plus_ms(patience_ms.saturating_add(limits::HANDOVER_SUSPEND_MS));
            self.command_all(|| WorkerCommand::Hold { until });
        }
        self.tell(from, &MemberMessage::Answer { number, refusal });
    }

    /// The successor keeps frames, or does not want to.
    pub(crate) fn on_answer(
        &mut self,
        now: Nanos,
        from: MemberId,
        number: u64,
        refusal: Option<String>,
    ) {
        let Some(handover) = &self.handover else { return };
        let expected = (handover.to, handover.number) == (from, number)
            && matches!(handover.phase, Phase::Offered);
        if !expected {
            return;
        }
        match refusal {
            None => self.suspend(now),
            Some(reason) => {
                self.resume(now, &format!("member {from} does not take over: {reason}"))
            }
        }
    }

    /// From here on this member's workers open and seal nothing.
    fn suspend(&mut self, now: Nanos) {
        let workers = 0..self.config.workers;
        let Some(handover) = &mut self.handover else { return };
        let Some(to) = self.fellows.stations(handover.to) else { return };
        let number = handover.number;
        let phase = Phase::Suspending { missing: workers.collect(), items: Vec::new() };
        handover.enter(phase, now.plus_ms(limits::HANDOVER_SUSPEND_MS));
        handover.suspended = Some(now);
        self.passing_on = Some(now);
        let punted = std::mem::take(&mut handover.punted);
        let until = now.plus_ms(limits::MOVING_MS);
        self.command_all(|| WorkerCommand::Suspend { number, to, until });
        for (side, frame) in punted {
            self.transmit_as_received(side, frame);
        }
    }

    /// A worker says where its SAs stopped.
    pub(crate) fn on_stopped(
        &mut self,
        now: Nanos,
        (worker, number): (u32, u64),
        sas: Vec<StoppedSa>,
        last: bool,
    ) {
        let state = self.replica.state();
        let handover = self.handover.as_mut().filter(|handover| handover.number == number);
        // A report of an earlier handover that was given up tells where the worker was then.
        let Some(Handover { phase: Phase::Suspending { missing, items }, .. }) = handover else {
            return;
        };
        for sa in sas {
            // A Child SA the records do not have any more needs no numbers; a direction that is not
            // installed has not moved since the records say.
            let Some(child) = state.child(sa.id) else { continue };
            items.push(SettleItem {
                spi: sa.id,
                outbound_next: sa.outbound_next.unwrap_or(child.outbound_start),
                edge: sa.edge.unwrap_or_else(|| child.edge.clone()),
            });
        }
        if last {
            missing.remove(&worker);
        }
        if missing.is_empty() {
            let items = std::mem::take(items);
            self.settle_numbers(now, &items);
        }
    }

    fn settle_numbers(&mut self, now: Nanos, items: &[SettleItem]) {
        let mut waiting: VecDeque<_> = items.chunks(SETTLE_ITEMS_MAX).map(<[_]>::to_vec).collect();
        if waiting.is_empty() {
            waiting.push_back(Vec::new());
        }
        let until = now.plus_ms(self.election_patience_ms());
        if let Some(handover) = &mut self.handover {
            handover.enter(Phase::Settling { waiting, last: None }, until);
        }
        self.propose_retry = Nanos::ZERO;
        self.propose_settlement(now);
    }

    fn propose_settlement(&mut self, now: Nanos) {
        let Ownership::Owning { owner, .. } = self.ownership else { return };
        if now < self.propose_retry {
            return;
        }
        let Some(Handover { phase: Phase::Settling { waiting, last: proposed }, .. }) =
            &mut self.handover
        else {
            return;
        };
        while let Some(items) = waiting.front() {
            let last = waiting.len() == 1;
            let command = Command::Settle { owner, items: items.clone(), last };
            match self.replica.propose(now, &command) {
                Ok(id) if last => *proposed = Some(id),
                Ok(_) => {}
                Err(_) => {
                    self.propose_retry = now.plus_ms(limits::PROPOSE_RETRY_MS);
                    return;
                }
            }
            waiting.pop_front();
        }
    }

    /// Whether something of a settlement is still to be proposed.
    pub(crate) fn has_unproposed_settlement(&self) -> bool {
        let phase = self.handover.as_ref().map(|handover| &handover.phase);
        matches!(phase, Some(Phase::Settling { last: None, .. }))
    }

    /// Our settlement is applied: by all that follows it is known where this member stopped.
    pub(crate) fn on_settled(&mut self, now: Nanos, settlement: Settlement) {
        if settlement != Settlement::Complete {
            self.event(MemberEvent::SettlementVoid);
        }
        if self.handover.as_ref().is_some_and(Handover::is_settling) {
            self.transfer(now);
        }
    }

    fn transfer(&mut self, now: Nanos) {
        let until = now.plus_ms(self.election_patience_ms());
        let Some(handover) = &mut self.handover else { return };
        let settling = handover.is_settling();
        handover.enter(Phase::Transferring, until);
        let to = handover.to;
        match self.replica.transfer_to(now, to) {
            Ok(()) => {}
            // Its numbers are settled: it must not go on in this ownership.
            Err(error) if settling => self.take_back(now, &error.to_string()),
            Err(error) => self.fail_handover(&error.to_string()),
        }
    }

    fn give_up_phase(&mut self, now: Nanos) {
        let Some(handover) = &self.handover else { return };
        match &handover.phase {
            Phase::Draining => {
                let why = if self.filling {
                    "the workers have not got all SAs yet"
                } else {
                    "IKE exchanges under way did not come to their end"
                };
                self.resume(now, why);
            }
            Phase::Offered => {
                let text = format!("member {} does not answer", handover.to);
                self.resume(now, &text);
            }
            Phase::Suspending { missing, .. } => {
                let text = format!("workers did not stop in time: {missing:?}");
                self.resume(now, &text);
            }
            Phase::Settling { .. } => {
                self.take_back(now, "the log did not take the numbers in time")
            }
            Phase::Transferring if self.replica.is_leader() => {
                self.take_back(now, "the successor was not elected in time");
            }
            Phase::Transferring => {
                // Somebody else was elected and may be about to own.
                let until = handover.began.plus_ms(limits::HANDOVER_PATIENCE_MS);
                match &mut self.handover {
                    Some(handover) if now < until => handover.until = until,
                    _ => self.fail_handover("no new owner in time"),
                }
            }
            Phase::Counting { .. } => self.finish_handover(),
        }
    }

    /// Goes on in the same ownership: nothing was settled.
    fn resume(&mut self, now: Nanos, why: &str) {
        let punted = self.handover.as_mut().map(|handover| std::mem::take(&mut handover.punted));
        if !self.filling {
            self.command_all(|| WorkerCommand::Serve);
        }
        self.fail_handover(why);
        for (side, frame) in punted.into_iter().flatten() {
            self.on_punt(now, side, &frame);
        }
    }

    /// This member does not lead in the term of its ownership any more.
    pub(crate) fn handover_role_lost(&mut self, now: Nanos) {
        let Some(handover) = &mut self.handover else { return };
        match handover.phase {
            Phase::Draining | Phase::Offered => {
                self.fail_handover("this member does not lead any more");
            }
            // Somebody takes over where the workers stopped, or behind it.
            Phase::Suspending { .. } | Phase::Settling { .. } => {
                handover.enter(Phase::Transferring, now.plus_ms(limits::HANDOVER_PATIENCE_MS));
            }
            Phase::Transferring | Phase::Counting { .. } => {}
        }
    }

    /// Takes the ownership again, in a new term: in this one its numbers are settled, or may be.
    fn take_back(&mut self, now: Nanos, why: &str) {
        self.fail_handover(why);
        self.replica.renew_leadership(now);
    }

    /// The common address has a new owner: perhaps the one it was handed to.
    pub(crate) fn handover_owner_changed(&mut self, now: Nanos, owner: Owner) {
        self.point_stragglers(now, owner);
        let workers = 0..self.config.workers;
        let Some(handover) = &mut self.handover else { return };
        if owner.member == self.config.id {
            return self.fail_handover("the successor did not take over; this member carries on");
        }
        if owner.member != handover.to {
            let text = format!("the common address is owned by {owner} now");
            return self.fail_handover(&text);
        }
        handover.moved = Some(now);
        let missing = workers.collect();
        let until = now.plus_ms(limits::FLOW_LIST_PATIENCE_MS);
        handover.enter(Phase::Counting { owner, missing, frames: 0 }, until);
        self.command_all(|| WorkerCommand::CountForwarded);
    }

    /// Frames that still come here go to whoever owns now, for a while.
    fn point_stragglers(&mut self, now: Nanos, owner: Owner) {
        let Some(suspended) = self.passing_on.filter(|_| owner.member != self.config.id) else {
            return;
        };
        if now.ms_since(suspended) > limits::MOVING_MS {
            self.passing_on = None;
            return;
        }
        match self.fellows.stations(owner.member) {
            Some(to) => {
                let until = now.plus_ms(limits::MOVING_MS);
                self.command_all(|| WorkerCommand::Forward { to, until });
            }
            None => self.command_all(|| WorkerCommand::Serve),
        }
    }

    pub(crate) fn on_forwarded(&mut self, worker: u32, count: u64) {
        let Some(Handover { phase: Phase::Counting { missing, frames, .. }, .. }) =
            &mut self.handover
        else {
            return;
        };
        if missing.remove(&worker) {
            *frames = frames.saturating_add(count);
        }
        if missing.is_empty() {
            self.finish_handover();
        }
    }

    fn finish_handover(&mut self) {
        let Some(handover) = self.handover.take() else { return };
        let Phase::Counting { owner, frames, .. } = handover.phase else { return };
        let moved = handover.moved.unwrap_or(handover.began);
        let took_us = moved.since(handover.began) / 1_000;
        let passed_on_us = handover.suspended.map_or(0, |suspended| moved.since(suspended) / 1_000);
        self.event(MemberEvent::HandoverDone { owner, took_us, passed_on_us, frames });
        if let Some(operator) = handover.operator {
            let done = crate::operator::DoneReply {
                operation: owner.epoch.0,
                text: format!(
                    "the common address is owned by {owner}, {} ms after the request; {frames} frames \
                     were passed on in {} ms",
                    took_us.div_ceil(1_000),
                    passed_on_us.div_ceil(1_000),
                ),
            };
            self.output(Output::Operator {
                id: operator,
                reply: crate::operator::OperatorReply::Done(done),
            });
        }
    }

    pub(crate) fn fail_handover(&mut self, why: &str) {
        let Some(handover) = self.handover.take() else { return };
        self.event(MemberEvent::HandoverFailed { to: handover.to, reason: why.to_owned() });
        if let Some(operator) = handover.operator {
            self.refuse_failed(operator, why);
        }
    }

    /// Whether IKE may begin or answer anything: it is loaded, and no handover is under way.
    pub(crate) fn ike_serves(&self) -> bool {
        self.ike_runs() && self.handover.is_none()
    }
}
