//! After a takeover: one record after the other is put under this ownership.
//!
//! ```text
//!   TakeOwnership applied: every record is inherited
//!      | SA handed to its worker, or to IKE: established here
//!      v
//!   [established] --CarryOn, one batch in the log at a time--> under us, the earlier owner's cleared
//!                 \-Hold(failed), when its record cannot be read--> kept, deleted when its time is over
//! ```
//!
//! Whatever this member changes names the ownership under which the record stands *behind all that is
//! proposed already*: the entries of one ownership are applied in the order they were proposed.

use crate::event::MemberEvent;
use crate::limits;
use crate::member::Member;
use holdfast_cluster::{
    Command, Hold, HoldKind, IkeSpi, Owner, RecordName, State, StateChange, limits::CHANGES_MAX,
};
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use holdfast_replica::ProposalId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The records of one ownership on their way from the earlier owner to this one.
#[derive(Debug, Default)]
pub(crate) struct Carrying {
    /// Established here, to be carried on.
    established: VecDeque<RecordName>,
    /// Could not be carried on, to be said.
    failed: VecDeque<(RecordName, String)>,
    /// The batch in the log.
    batch: Option<ProposalId>,
    /// When the next entries may follow.
    next: Nanos,
    /// Records that entries of ours change which are in the log and not applied.
    touched: BTreeMap<RecordName, u64>,
    touched_by: VecDeque<(u64, Vec<RecordName>)>,
    /// When records that are held are given up.
    expiry: BTreeSet<(Nanos, RecordName)>,
    expiry_of: BTreeMap<RecordName, Nanos>,
    /// When this ownership began, until its records are all its own.
    begun: Option<Nanos>,
}

impl Carrying {
    /// An ownership that begins now with these records.
    pub(crate) fn takeover(now: Nanos, state: &State) -> Self {
        let mut carrying = Self { begun: Some(now), ..Self::default() };
        for (record, hold) in state.held() {
            carrying.expire_at(record, now.plus_ms(hold.keep_ms));
        }
        carrying
    }

    /// Child SAs were handed to their workers.
    pub(crate) fn children_established(&mut self, children: &[Spi]) {
        self.established.extend(children.iter().map(|spi| RecordName::Child(*spi)));
    }

    /// IKE SAs were handed to IKE, but for those in `unreadable`.
    pub(crate) fn ike_established(
        &mut self,
        ike_sas: &[IkeSpi],
        unreadable: Vec<(IkeSpi, String)>,
    ) {
        let bad: BTreeSet<IkeSpi> = unreadable.iter().map(|(spi, _)| *spi).collect();
        let good = ike_sas.iter().filter(|spi| !bad.contains(spi));
        self.established.extend(good.map(|spi| RecordName::Ike(*spi)));
        let named = unreadable.into_iter().map(|(spi, why)| (RecordName::Ike(spi), why));
        self.failed.extend(named);
    }

    /// When something is to be proposed; `retry` is when proposals may be tried.
    pub(crate) fn due(&self, retry: Nanos) -> Option<Nanos> {
        let waiting = !self.failed.is_empty() || !self.established.is_empty();
        let may = retry.max(self.next);
        let batch = (waiting && self.batch.is_none()).then_some(may);
        let expiry = self.expiry.first().map(|(at, _)| (*at).max(may));
        batch.into_iter().chain(expiry).min()
    }

    /// Under whom a record stands behind everything proposed so far.
    fn stands_under(&self, record: RecordName, owner: Owner, state: &State) -> Owner {
        if self.touched.contains_key(&record) {
            return owner;
        }
        state.standing(record).map_or(owner, |standing| standing.owner)
    }

    /// Has each deletion name the record it means.
    pub(crate) fn name_meant(&self, changes: &mut [StateChange], owner: Owner, state: &State) {
        // What the same entry puts stands under us by the time the deletion is reached.
        let mut put = BTreeSet::new();
        for change in changes {
            match change {
                StateChange::PutIkeSa { spi, .. } => {
                    put.insert(RecordName::Ike(*spi));
                }
                StateChange::PutChildSa { parameters, .. } => {
                    put.insert(RecordName::Child(parameters.inbound_spi));
                }
                StateChange::DeleteIkeSa { spi, under } => {
                    *under = Some(self.meant(RecordName::Ike(*spi), &put, owner, state));
                }
                StateChange::DeleteChildSa { inbound_spi, under } => {
                    *under = Some(self.meant(RecordName::Child(*inbound_spi), &put, owner, state));
                }
            }
        }
    }

    fn meant(
        &self,
        record: RecordName,
        put: &BTreeSet<RecordName>,
        owner: Owner,
        state: &State,
    ) -> Owner {
        if put.contains(&record) { owner } else { self.stands_under(record, owner, state) }
    }

    /// An entry of ours that changes these records is in the log.
    pub(crate) fn proposed(&mut self, id: ProposalId, records: Vec<RecordName>) {
        for record in &records {
            self.touched.insert(*record, id.index);
        }
        self.touched_by.push_back((id.index, records));
    }

    /// An entry of ours was applied or refused.
    pub(crate) fn applied(&mut self, id: ProposalId) {
        if self.batch == Some(id) {
            self.batch = None;
        }
        while self.touched_by.front().is_some_and(|(index, _)| *index <= id.index) {
            let Some((index, records)) = self.touched_by.pop_front() else { break };
            for record in records {
                if self.touched.get(&record) == Some(&index) {
                    self.touched.remove(&record);
                }
            }
        }
    }

    /// A record is held, or no longer, or gone.
    pub(crate) fn held(&mut self, now: Nanos, record: RecordName, hold: Option<&Hold>) {
        if let Some(at) = self.expiry_of.remove(&record) {
            self.expiry.remove(&(at, record));
        }
        if let Some(hold) = hold {
            self.expire_at(record, now.plus_ms(hold.keep_ms));
        }
    }

    fn expire_at(&mut self, record: RecordName, at: Nanos) {
        self.expiry.insert((at, record));
        self.expiry_of.insert(record, at);
    }

    fn next_expired(&mut self, now: Nanos) -> Option<RecordName> {
        let (at, record) = self.expiry.first().copied().filter(|(at, _)| *at <= now)?;
        self.held(at, record, None);
        Some(record)
    }

    /// The next records to carry on, by the ownership they stand under.
    fn next_batch(&mut self, owner: Owner, state: &State) -> BTreeMap<Owner, Vec<RecordName>> {
        let mut batch: BTreeMap<Owner, Vec<RecordName>> = BTreeMap::new();
        let mut count = 0;
        while count < limits::CARRIED_PER_BATCH
            && let Some(record) = self.established.pop_front()
        {
            let from = self.stands_under(record, owner, state);
            if from != owner {
                batch.entry(from).or_default().push(record);
                count += 1;
            }
        }
        batch
    }
}

impl Member {
    /// Proposes the next records to put under this ownership, one batch at a time and with a pause
    /// between two: what waits in the log behind it is a grant or an exchange, and those must not wait
    /// long, nor must whoever applies it be held up by nothing else.
    pub(crate) fn carry_records_on(&mut self, now: Nanos, owner: Owner) {
        self.note_store_current(now, owner);
        if now < self.carrying.next {
            return;
        }
        let mut left = limits::HOLDS_PER_ROUND;
        self.give_up_held(now, owner, &mut left);
        if self.carrying.batch.is_none() && now >= self.propose_retry {
            self.hold_failed(now, owner, &mut left);
        }
        if left < limits::HOLDS_PER_ROUND {
            self.carrying.next = now.plus_ms(limits::CARRY_PAUSE_MS);
        }
        if self.carrying.batch.is_some() || now < self.propose_retry {
            return;
        }
        for (from, records) in self.carrying.next_batch(owner, self.replica.state()) {
            let command = carry_on(owner, from, &records);
            match self.replica.propose(now, &command) {
                Ok(id) => {
                    self.carrying.batch = Some(id);
                    self.carrying.next = now.plus_ms(limits::CARRY_PAUSE_MS);
                    self.carrying.proposed(id, records);
                }
                Err(_) => {
                    self.carrying.established.extend(records);
                    self.postpone(now);
                }
            }
        }
    }

    /// Says which records could not be carried on.
    fn hold_failed(&mut self, now: Nanos, owner: Owner, left: &mut usize) {
        while *left > 0
            && let Some((record, reason)) = self.carrying.failed.pop_front()
        {
            *left -= 1;
            let hold = Hold::new(HoldKind::Failed, &reason, limits::HOLD_FAILED_MS);
            if !self.propose_hold(now, owner, record, Some(hold)) {
                self.carrying.failed.push_front((record, reason));
                return;
            }
        }
    }

    /// Says why an SA does not run, or that it does. False when the log takes nothing now.
    pub(crate) fn propose_hold(
        &mut self,
        now: Nanos,
        owner: Owner,
        record: RecordName,
        hold: Option<Hold>,
    ) -> bool {
        let under = self.carrying.stands_under(record, owner, self.replica.state());
        match self.replica.propose(now, &Command::Hold { owner, record, under, hold }) {
            Ok(id) => {
                self.carrying.proposed(id, vec![record]);
                true
            }
            Err(_) => {
                self.postpone(now);
                false
            }
        }
    }

    /// Records whose time is over: what was pending has failed, what had failed is deleted.
    fn give_up_held(&mut self, now: Nanos, owner: Owner, left: &mut usize) {
        while now >= self.propose_retry
            && *left > 0
            && let Some(record) = self.carrying.next_expired(now)
        {
            let state = self.replica.state();
            let Some(hold) = state.standing(record).and_then(|standing| standing.hold.as_deref())
            else {
                continue;
            };
            *left -= 1;
            let taken = match hold.kind {
                HoldKind::Pending => {
                    let failed = Hold::new(HoldKind::Failed, &hold.reason, limits::HOLD_FAILED_MS);
                    self.propose_hold(now, owner, record, Some(failed))
                }
                HoldKind::Failed => self.propose_deletion(now, owner, record),
            };
            if !taken {
                self.carrying.expire_at(record, now.plus_ms(limits::PROPOSE_RETRY_MS));
            }
        }
    }

    fn propose_deletion(&mut self, now: Nanos, owner: Owner, record: RecordName) -> bool {
        let change = match record {
            RecordName::Ike(spi) => StateChange::DeleteIkeSa { spi, under: None },
            RecordName::Child(inbound_spi) => {
                StateChange::DeleteChildSa { inbound_spi, under: None }
            }
        };
        let mut changes = vec![change];
        self.carrying.name_meant(&mut changes, owner, self.replica.state());
        match self.replica.propose(now, &Command::Ike { owner, changes }) {
            Ok(id) => {
                self.carrying.proposed(id, vec![record]);
                true
            }
            Err(_) => {
                self.postpone(now);
                false
            }
        }
    }

    /// Says once that a successor would find nothing older than this ownership.
    fn note_store_current(&mut self, now: Nanos, owner: Owner) {
        let state = self.replica.state();
        if self.carrying.begun.is_none() || !self.loading.is_done() || state.inherited() > 0 {
            return;
        }
        let records = state.records();
        if let Some(begun) = self.carrying.begun.take() {
            let after_ms = now.ms_since(begun);
            self.event(MemberEvent::StoreCurrent { owner, records, after_ms });
        }
    }
}

fn carry_on(owner: Owner, from: Owner, records: &[RecordName]) -> Command {
    let (mut ike_sas, mut children) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            RecordName::Ike(spi) => ike_sas.push(*spi),
            RecordName::Child(spi) => children.push(*spi),
        }
    }
    Command::CarryOn { owner, from, ike_sas, children }
}

/// The records a list of changes touches.
pub(crate) fn records_of(changes: &[StateChange]) -> Vec<RecordName> {
    changes.iter().take(CHANGES_MAX).map(record_of).collect()
}

fn record_of(change: &StateChange) -> RecordName {
    match change {
        StateChange::PutIkeSa { spi, .. } | StateChange::DeleteIkeSa { spi, .. } => {
            RecordName::Ike(*spi)
        }
        StateChange::PutChildSa { parameters, .. } => RecordName::Child(parameters.inbound_spi),
        StateChange::DeleteChildSa { inbound_spi, .. } => RecordName::Child(*inbound_spi),
    }
}
