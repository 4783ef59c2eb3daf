//! The replicated state and the one function that changes it.

use crate::command::{Command, GrantItem, StateChange};
use crate::effect::{Effect, Refusal};
use crate::record_map::RecordMap;
use crate::records::{ChildRecord, Hold, IkeRecord, Readiness, RecordName, Standing};
use crate::settlement::Settlement;
use crate::{IkeSpi, Membership, Mutation, Owner, TargetId, limits, mutated};
use holdfast_crypto::SecretBytes;
use holdfast_ipsec::{ChildSaParameters, Spi};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state all members agree upon after the same number of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    applied: u64,
    owner: Option<Owner>,
    ike_sas: RecordMap<IkeSpi, IkeRecord>,
    ike_bytes: usize,
    children: RecordMap<Spi, ChildRecord>,
    selectors: usize,
    /// The relation IKE SA to Child SA, derived from `children`.
    children_of: BTreeMap<IkeSpi, BTreeSet<Spi>>,
    draining: BTreeSet<TargetId>,
    mark_secret: Option<SecretBytes>,
    /// Whether the present owner has stopped.
    pub(crate) settlement: Settlement,
    pub(crate) membership: Membership,
    /// Records that stand under the present owner; all others are inherited.
    standing: usize,
    /// Records with a hold, derived from their standings.
    held: BTreeSet<RecordName>,
}

/// The state of one moment, as far as a snapshot contains it: what [`State::freeze`] takes, in no time,
/// and [`Frozen::encode`] encodes, wherever there is time.
///
/// It shares its records, keys too, with the state it was taken of. A key that is cleared there
/// meanwhile lives here until this is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    pub(crate) applied: u64,
    pub(crate) owner: Option<Owner>,
    pub(crate) ike_sas: RecordMap<IkeSpi, IkeRecord>,
    pub(crate) children: RecordMap<Spi, ChildRecord>,
    pub(crate) draining: BTreeSet<TargetId>,
    pub(crate) mark_secret: Option<SecretBytes>,
    pub(crate) settlement: Settlement,
    pub(crate) membership: Membership,
}

/// How to take one change back when a later one of the same entry is refused.
enum Undo {
    Ike(IkeSpi, Option<IkeRecord>),
    Child(Spi, Option<Box<ChildRecord>>),
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of this moment, to be encoded later. Costs a pointer for a hundred records; from then
    /// on the first change of each piece of the records costs its copy.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let (ike_sas, children) = (self.ike_sas.clone(), self.children.clone());
        Frozen { ike_sas, children, ..self.freeze_without_records() }
    }

    pub(crate) fn freeze_without_records(&self) -> Frozen {
        Frozen {
            applied: self.applied,
            owner: self.owner,
            ike_sas: RecordMap::default(),
            children: RecordMap::default(),
            draining: self.draining.clone(),
            mark_secret: self.mark_secret.clone(),
            settlement: self.settlement,
            membership: self.membership.clone(),
        }
    }

    /// Applies the entry at `index` and tells what it changed.
    ///
    /// Deterministic: no clock, no randomness, no member-local knowledge. An index at or below
    /// [`Self::applied`] changes nothing, so nothing is granted twice.
    pub fn apply(&mut self, index: u64, command: &Command) -> Vec<Effect> {
        if !self.advance_applied(index) {
            return Vec::new();
        }
        let outcome = match command {
            Command::Noop => Ok(Vec::new()),
            Command::Members(command) => self.change_members(index, command),
            Command::TakeOwnership { owner } => self.take_ownership(*owner),
            Command::Ike { owner, changes } => {
                self.served_by(*owner).and_then(|()| self.change_all(*owner, changes))
            }
            Command::CarryOn { owner, from, ike_sas, children } => {
                self.owned_by(*owner).and_then(|()| self.carry_on(*owner, *from, ike_sas, children))
            }
            Command::Hold { owner, record, under, hold } => self
                .owned_by(*owner)
                .and_then(|()| self.hold(*owner, *record, *under, hold.as_ref())),
            Command::Grant { owner, grants } => {
                self.served_by(*owner).and_then(|()| self.grant_all(grants))
            }
            Command::Settle { owner, items, last } => {
                self.owned_by(*owner).and_then(|()| self.settle(*owner, items, *last))
            }
            Command::SetTarget { target, draining } => self.set_target(*target, *draining),
            Command::SetMarkSecret { owner, secret } => {
                self.owned_by(*owner).and_then(|()| self.agree_mark_secret(secret))
            }
        };
        outcome.unwrap_or_else(|refusal| vec![Effect::Refused(refusal)])
    }

    /// Whether the entry at `index` is new; if so, it counts as applied.
    pub(crate) fn advance_applied(&mut self, index: u64) -> bool {
        let new = index > self.applied;
        self.applied = self.applied.max(index);
        new
    }

    /// Forgets every SA with its keys.
    pub(crate) fn drop_all_sas(&mut self) {
        for spi in self.children.iter().map(|(spi, _)| spi).collect::<Vec<_>>() {
            self.set_child(spi, None);
        }
        for spi in self.ike_sas.iter().map(|(spi, _)| spi).collect::<Vec<_>>() {
            self.set_ike(spi, None);
        }
    }

    fn owned_by(&self, claimed: Owner) -> Result<(), Refusal> {
        if self.owner == Some(claimed) {
            Ok(())
        } else {
            Err(Refusal::NotOwner { claimed, current: self.owner })
        }
    }

    /// Owned by it, and it has not said that it stopped.
    fn served_by(&self, claimed: Owner) -> Result<(), Refusal> {
        self.owned_by(claimed)?;
        match self.settlement {
            Settlement::Open => Ok(()),
            _ => Err(Refusal::Settled(claimed)),
        }
    }

    fn take_ownership(&mut self, claimed: Owner) -> Result<Vec<Effect>, Refusal> {
        if let Some(current) = self.owner.filter(|current| claimed.epoch <= current.epoch) {
            return Err(Refusal::EpochNotNewer { claimed, current });
        }
        let previous = self.owner.replace(claimed);
        let exact = std::mem::take(&mut self.settlement) == Settlement::Complete;
        // The records still stand under who made them: they are inherited until carried on.
        self.standing = 0;
        let same = previous.is_some_and(|previous| previous.member == claimed.member);
        if same && mutated(Mutation::IncarnationForgotten) {
            return Ok(vec![Effect::OwnerChanged { owner: claimed, previous }]);
        }
        self.children.update_all(|child| if exact { child.carry_on() } else { child.take_over() });
        Ok(vec![Effect::OwnerChanged { owner: claimed, previous }])
    }

    /// All changes of one exchange or none: a half-recorded exchange would leave a successor
    /// with message IDs that do not fit its SAs.
    fn change_all(
        &mut self,
        owner: Owner,
        changes: &[StateChange],
    ) -> Result<Vec<Effect>, Refusal> {
        if changes.len() > limits::CHANGES_MAX {
            return Err(Refusal::TooLarge("the list of changes"));
        }
        let mut undo = Vec::new();
        let mut effects = Vec::new();
        for change in changes {
            if let Err(refusal) = self.change(owner, change, &mut undo, &mut effects) {
                self.roll_back(undo);
                return Err(refusal);
            }
        }
        Ok(effects)
    }

    fn roll_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            match step {
                Undo::Ike(spi, record) => drop(self.set_ike(spi, record)),
                Undo::Child(spi, record) => drop(self.set_child(spi, record.map(|record| *record))),
            }
        }
    }

    fn change(
        &mut self,
        owner: Owner,
        change: &StateChange,
        undo: &mut Vec<Undo>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        match change {
            StateChange::PutIkeSa { spi, connection, state } => {
                self.check_ike(*spi, connection, state)?;
                let record = IkeRecord::new(connection, state.clone(), Standing::under(owner));
                undo.push(Undo::Ike(*spi, self.set_ike(*spi, Some(record))));
                effects.push(Effect::IkeChanged(*spi));
            }
            StateChange::DeleteIkeSa { spi, under } => {
                self.check_standing(RecordName::Ike(*spi), *under)?;
                self.delete_ike(*spi, undo, effects);
            }
            StateChange::PutChildSa { ike, parameters, replaces } => {
                self.put_child(owner, *ike, (parameters, *replaces), undo, effects)?;
            }
            StateChange::DeleteChildSa { inbound_spi, under } => {
                self.check_standing(RecordName::Child(*inbound_spi), *under)?;
                self.delete_child(*inbound_spi, undo, effects);
            }
        }
        Ok(())
    }

    fn check_ike(&self, spi: IkeSpi, connection: &str, state: &SecretBytes) -> Result<(), Refusal> {
        if connection.len() > limits::CONNECTION_NAME_BYTES_MAX {
            return Err(Refusal::TooLarge("the connection name"));
        }
        let bytes = state.as_bytes().len();
        if bytes > limits::IKE_STATE_BYTES_MAX {
            return Err(Refusal::TooLarge("the IKE SA"));
        }
        let replaced = self.ike_sas.get(spi).map(|record| record.state.as_bytes().len());
        if replaced.is_none() && self.ike_sas.len() >= limits::IKE_SAS_MAX {
            return Err(Refusal::TooManyIkeSas);
        }
        let others = self.ike_bytes.saturating_sub(replaced.unwrap_or(0));
        if others.saturating_add(bytes) > limits::IKE_STATE_BYTES_TOTAL_MAX {
            return Err(Refusal::TooLarge("the sum of all IKE SAs"));
        }
        Ok(())
    }

    fn put_child(
        &mut self,
        owner: Owner,
        ike: IkeSpi,
        (parameters, replaces): (&ChildSaParameters, Option<Spi>),
        undo: &mut Vec<Undo>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        check_parameters(parameters)?;
        if !self.ike_sas.contains_key(ike) {
            return Err(Refusal::UnknownIkeSa(ike));
        }
        let spi = parameters.inbound_spi;
        let (record, effect) = match self.children.get(spi) {
            Some(existing) if *existing.parameters == *parameters => {
                let standing = Standing::under(owner);
                (ChildRecord { ike, standing, ..existing.clone() }, Effect::ChildMoved { spi, ike })
            }
            // Other keys under the numbers of this SA would mix two nonce spaces.
            Some(_) => return Err(Refusal::ChildSaExists(spi)),
            None if self.children.len() >= limits::CHILD_SAS_MAX => {
                return Err(Refusal::TooManyChildSas);
            }
            None if self.selectors.saturating_add(count_selectors(parameters))
                > limits::SELECTORS_TOTAL_MAX =>
            {
                return Err(Refusal::TooLarge("the sum of all traffic selectors"));
            }
            None => {
                let standing = Standing::under(owner);
                let parameters = Arc::new(parameters.clone());
                let record = ChildRecord::new(ike, parameters, replaces, standing);
                (record, Effect::ChildInstalled(spi))
            }
        };
        undo.push(Undo::Child(spi, self.set_child(spi, Some(record)).map(Box::new)));
        effects.push(effect);
        Ok(())
    }

    /// Deleting what is not there is no refusal: both ends may delete at the same time
    /// (RFC 7296 section 1.4.1).
    fn delete_ike(&mut self, spi: IkeSpi, undo: &mut Vec<Undo>, effects: &mut Vec<Effect>) {
        let belonging: Vec<Spi> = self.children_of(spi).collect();
        for child in belonging {
            self.delete_child(child, undo, effects);
        }
        if let Some(record) = self.set_ike(spi, None) {
            undo.push(Undo::Ike(spi, Some(record)));
            effects.push(Effect::IkeRemoved(spi));
        }
    }

    fn delete_child(&mut self, spi: Spi, undo: &mut Vec<Undo>, effects: &mut Vec<Effect>) {
        if let Some(record) = self.set_child(spi, None) {
            undo.push(Undo::Child(spi, Some(Box::new(record))));
            effects.push(Effect::ChildRemoved(spi));
        }
    }

    /// Whether the records show that the peer has this Child SA. One that the peer made by a rekey is
    /// known to it when our answer has arrived, and the peer shows that by deleting the old one; until
    /// then it sends, and is to be sent, with the old one (RFC 7296 section 2.8).
    #[must_use]
    pub fn is_known_to_peer(&self, child: &ChildRecord) -> bool {
        child.replaces.is_none_or(|old| !self.children.contains_key(old))
    }

    /// The only place that touches `ike_sas`, so the byte count stays true.
    pub(crate) fn set_ike(&mut self, spi: IkeSpi, record: Option<IkeRecord>) -> Option<IkeRecord> {
        let added = record.as_ref().map_or(0, |record| record.state.as_bytes().len());
        self.note_standing(RecordName::Ike(spi), record.as_ref().map(|record| &record.standing));
        let previous = match record {
            Some(record) => self.ike_sas.insert(spi, record),
            None => self.ike_sas.remove(spi),
        };
        let removed = previous.as_ref().map_or(0, |record| record.state.as_bytes().len());
        self.ike_bytes = self.ike_bytes.saturating_add(added).saturating_sub(removed);
        previous
    }

    /// The only place that touches `children`, so the relation and the count stay true.
    pub(crate) fn set_child(
        &mut self,
        spi: Spi,
        record: Option<ChildRecord>,
    ) -> Option<ChildRecord> {
        let parent = record.as_ref().map(|record| record.ike);
        let count = |record: &ChildRecord| count_selectors(&record.parameters);
        let added = record.as_ref().map_or(0, count);
        self.note_standing(RecordName::Child(spi), record.as_ref().map(|record| &record.standing));
        let previous = match record {
            Some(record) => self.children.insert(spi, record),
            None => self.children.remove(spi),
        };
        let removed = previous.as_ref().map_or(0, count);
        self.selectors = self.selectors.saturating_add(added).saturating_sub(removed);
        if let Some(previous) = &previous {
            self.detach(previous.ike, spi);
        }
        if let Some(parent) = parent {
            self.children_of.entry(parent).or_default().insert(spi);
        }
        previous
    }

    /// Whether a record stands under the present owner.
    pub(crate) fn stands(&self, standing: &Standing) -> bool {
        self.owner == Some(standing.owner)
    }

    /// Keeps the count and the held ones true before a record's standing becomes `after`.
    fn note_standing(&mut self, name: RecordName, after: Option<&Standing>) {
        let added = after.is_some_and(|standing| self.stands(standing));
        let removed = self.standing(name).is_some_and(|standing| self.stands(standing));
        let more = self.standing.saturating_add(usize::from(added));
        self.standing = more.saturating_sub(usize::from(removed));
        if after.is_some_and(|standing| standing.hold.is_some()) {
            self.held.insert(name);
        } else {
            self.held.remove(&name);
        }
    }

    /// Moves a record that is there from one standing to another.
    pub(crate) fn restand(&mut self, name: RecordName, standing: Standing) {
        self.note_standing(name, Some(&standing));
        let _present = match name {
            RecordName::Ike(spi) => self.ike_sas.update(spi, |ike| ike.standing = standing),
            RecordName::Child(spi) => self.children.update(spi, |child| child.standing = standing),
        };
    }

    fn detach(&mut self, ike: IkeSpi, spi: Spi) {
        if let Some(siblings) = self.children_of.get_mut(&ike) {
            siblings.remove(&spi);
            if siblings.is_empty() {
                self.children_of.remove(&ike);
            }
        }
    }

    fn grant_all(&mut self, grants: &[GrantItem]) -> Result<Vec<Effect>, Refusal> {
        if grants.len() > limits::GRANTS_MAX {
            return Err(Refusal::TooLarge("the list of grants"));
        }
        // Items stand alone: one that names a deleted SA must not starve the others.
        Ok(grants.iter().map(|item| self.grant(*item).unwrap_or_else(Effect::Refused)).collect())
    }

    fn grant(&mut self, item: GrantItem) -> Result<Effect, Refusal> {
        let moved = self.children.update(item.spi, |child| child.grant(item));
        moved.unwrap_or(Err(Refusal::UnknownChildSa(item.spi)))
    }

    fn set_target(&mut self, target: TargetId, draining: bool) -> Result<Vec<Effect>, Refusal> {
        let changed = if draining {
            if self.draining.len() >= limits::DRAINING_TARGETS_MAX {
                return Err(Refusal::TooManyTargets);
            }
            self.draining.insert(target)
        } else {
            self.draining.remove(&target)
        };
        Ok(if changed { vec![Effect::TargetChanged { target, draining }] } else { Vec::new() })
    }

    /// Whoever asks second gets what the first one drew: a target may have been told a key of it.
    fn agree_mark_secret(&mut self, secret: &SecretBytes) -> Result<Vec<Effect>, Refusal> {
        if secret.len() != limits::MARK_SECRET_BYTES {
            return Err(Refusal::TooLarge("the secret of the marks"));
        }
        if self.mark_secret.is_some() {
            return Ok(Vec::new());
        }
        self.mark_secret = Some(secret.clone());
        Ok(vec![Effect::MarkSecretSet])
    }

    /// The secret from which the key of each epoch and target is derived, once it is agreed upon.
    #[must_use]
    pub fn mark_secret(&self) -> Option<&SecretBytes> {
        self.mark_secret.as_ref()
    }

    pub(crate) fn set_mark_secret(&mut self, secret: SecretBytes) {
        self.mark_secret = Some(secret);
    }

    /// The index of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Who owns the common address, if anybody ever did.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// All IKE SAs in the order of their SPIs.
    pub fn ike_sas(&self) -> impl ExactSizeIterator<Item = (IkeSpi, &IkeRecord)> {
        self.ike_sas.iter()
    }

    /// One IKE SA.
    #[must_use]
    pub fn ike_sa(&self, spi: IkeSpi) -> Option<&IkeRecord> {
        self.ike_sas.get(spi)
    }

    /// All Child SAs in the order of their inbound SPIs.
    pub fn children(&self) -> impl ExactSizeIterator<Item = &ChildRecord> {
        self.children.iter().map(|(_, child)| child)
    }

    /// One Child SA, by its inbound SPI.
    #[must_use]
    pub fn child(&self, inbound_spi: Spi) -> Option<&ChildRecord> {
        self.children.get(inbound_spi)
    }

    /// Changes a Child SA that is there.
    pub(crate) fn update_child<R>(
        &mut self,
        inbound_spi: Spi,
        change: impl FnOnce(&mut ChildRecord) -> R,
    ) -> Option<R> {
        self.children.update(inbound_spi, change)
    }

    /// The digests of all records, kept with every change.
    pub(crate) fn record_digests(&self) -> (u64, u64) {
        (self.ike_sas.digest(), self.children.digest())
    }

    #[cfg(test)]
    pub(crate) fn recomputed_digests(&self) -> (u64, u64) {
        (self.ike_sas.recomputed(), self.children.recomputed())
    }

    /// The Child SAs of one IKE SA, by their inbound SPIs.
    pub fn children_of(&self, ike: IkeSpi) -> impl Iterator<Item = Spi> {
        self.children_of.get(&ike).into_iter().flatten().copied()
    }

    /// Under whom a record stands, if it is there.
    #[must_use]
    pub fn standing(&self, name: RecordName) -> Option<&Standing> {
        match name {
            RecordName::Ike(spi) => self.ike_sas.get(spi).map(|record| &record.standing),
            RecordName::Child(spi) => self.children.get(spi).map(|record| &record.standing),
        }
    }

    /// What a standing means under the present owner.
    #[must_use]
    pub fn readiness<'a>(&self, standing: &'a Standing) -> Readiness<'a> {
        match &standing.hold {
            Some(hold) => Readiness::Held(hold),
            None if self.stands(standing) => Readiness::Ready,
            None => Readiness::Inherited,
        }
    }

    /// Records, of IKE SAs and Child SAs, that the present owner has not carried on yet.
    #[must_use]
    pub fn inherited(&self) -> usize {
        self.records().saturating_sub(self.standing)
    }

    /// How many records there are, of IKE SAs and Child SAs.
    #[must_use]
    pub fn records(&self) -> usize {
        self.ike_sas.len().saturating_add(self.children.len())
    }

    /// The records that are kept although their SAs do not run.
    pub fn held(&self) -> impl Iterator<Item = (RecordName, &Hold)> {
        let hold = |name: &RecordName| self.standing(*name)?.hold.as_deref();
        self.held.iter().filter_map(move |name| Some((*name, hold(name)?)))
    }

    /// The targets that get no new connections.
    pub fn draining(&self) -> impl ExactSizeIterator<Item = TargetId> {
        self.draining.iter().copied()
    }

    /// Whether a target gets no new connections.
    #[must_use]
    pub fn is_draining(&self, target: TargetId) -> bool {
        self.draining.contains(&target)
    }

    pub(crate) fn assemble(applied: u64, owner: Option<Owner>) -> Self {
        Self { applied, owner, ..Self::default() }
    }

    pub(crate) fn set_draining(&mut self, target: TargetId) {
        self.draining.insert(target);
    }
}

fn count_selectors(parameters: &ChildSaParameters) -> usize {
    parameters.selectors.local.len().saturating_add(parameters.selectors.remote.len())
}

fn check_parameters(parameters: &ChildSaParameters) -> Result<(), Refusal> {
    let selectors = &parameters.selectors;
    if selectors.local.len() > limits::SELECTORS_MAX
        || selectors.remote.len() > limits::SELECTORS_MAX
    {
        return Err(Refusal::TooLarge("the list of traffic selectors"));
    }
    if parameters.connection.len() > limits::CONNECTION_NAME_BYTES_MAX {
        return Err(Refusal::TooLarge("the connection name"));
    }
    Ok(())
}
