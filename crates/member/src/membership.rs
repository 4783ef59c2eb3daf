//! The operator's changes of the members, and what becomes of a member whose disk fails.

use crate::event::MemberEvent;
use crate::io::Output;
use crate::limits;
use crate::member::Member;
use crate::operator::RefusedKind;
use holdfast_cluster::{Command, MemberCommand, MemberId, MemberRecord};
use holdfast_packet::Nanos;
use holdfast_replica::ProposeError;

/// A disk that takes nothing any more.
#[derive(Debug)]
pub(crate) struct StorageFailure {
    reason: String,
    /// When this member ends, handed over or not.
    until: Nanos,
}

impl Member {
    /// Begins a change of the members; its steps are the replica's.
    pub(crate) fn change_members(
        &mut self,
        now: Nanos,
        operator: u64,
        add: Option<(MemberId, MemberRecord)>,
        remove: Option<MemberId>,
    ) {
        let text = match (&add, remove) {
            (Some((id, record)), Some(gone)) => {
                format!("member {id} at {} is about to replace member {gone}", record.address)
            }
            (Some((id, record)), None) => {
                format!("member {id} at {} is about to join", record.address)
            }
            (None, Some(gone)) => format!("member {gone} is about to leave"),
            (None, None) => "nothing".to_owned(),
        };
        if let Err(message) = self.refusal_of(add.as_ref().map(|(id, _)| *id), remove) {
            let next_action = "see `holdfast cluster status` for who is a member and what goes on";
            return self.refuse(operator, RefusedKind::Usage, &message, next_action);
        }
        let command = Command::Members(MemberCommand::Begin { add, remove });
        self.propose_for(now, operator, &command, text);
    }

    /// Gives the change under way up.
    pub(crate) fn cancel_member_change(&mut self, now: Nanos, operator: u64) {
        let command = Command::Members(MemberCommand::Cancel);
        self.propose_for(now, operator, &command, "the change of members is given up".to_owned());
    }

    /// What the log would refuse, said before it has to.
    fn refusal_of(&self, add: Option<MemberId>, remove: Option<MemberId>) -> Result<(), String> {
        let membership = self.replica.state().membership();
        if membership.change().is_some() {
            return Err("another change of the members is under way".to_owned());
        }
        if let Some(id) = add.filter(|id| membership.is_retired(*id)) {
            return Err(format!("id {id} was used before; give the member a new one"));
        }
        if let Some(id) = add.filter(|id| self.replica.configuration().contains(*id)) {
            return Err(format!("member {id} is there already"));
        }
        if let Some(id) = remove.filter(|id| !self.replica.configuration().contains(*id)) {
            return Err(format!("there is no member {id}"));
        }
        Ok(())
    }

    fn propose_for(&mut self, now: Nanos, operator: u64, command: &Command, text: String) {
        if !self.replica.is_leader() {
            return self.refuse_not_owner(operator);
        }
        match self.replica.propose(now, command) {
            Ok(id) => self.await_change(now, operator, id, text),
            Err(error @ ProposeError::Level { .. }) => self.refuse(
                operator,
                RefusedKind::Degraded,
                &error.to_string(),
                "upgrade and start every member; then try again",
            ),
            Err(error) => {
                let message = format!("the log takes no change now: {error}");
                self.refuse(operator, RefusedKind::Degraded, &message, "try again in a moment");
            }
        }
    }

    /// How far the change of the members is, in words.
    pub(crate) fn member_change(&self) -> Option<String> {
        let change = self.replica.state().membership().change()?;
        let configuration = self.replica.configuration();
        let what = match (change.add, change.remove) {
            (Some(add), Some(remove)) => format!("member {add} replaces member {remove}"),
            (Some(add), None) => format!("member {add} joins"),
            (None, Some(remove)) => format!("member {remove} leaves"),
            (None, None) => return None,
        };
        let status = self.replica.status();
        let behind = change.add.and_then(|id| {
            let progress = status.members.iter().find(|member| member.id == id)?;
            Some((progress.active, status.last.saturating_sub(progress.matched)))
        });
        let step = match change.add {
            _ if configuration.is_joint() => "old and new majority agree".to_owned(),
            Some(id) if configuration.voters.contains(&id) => "it votes".to_owned(),
            Some(id) if configuration.learners.contains(&id) => match behind {
                Some((true, entries)) => format!("it learns, {entries} entries behind"),
                Some((false, _)) => "it is waited for: start it with `join = true`".to_owned(),
                None => "it learns".to_owned(),
            },
            Some(_) => "about to be told to the others".to_owned(),
            None if change.remove == Some(self.config.id) && self.replica.is_leader() => {
                "the owner hands over first".to_owned()
            }
            None => "about to be told to the others".to_owned(),
        };
        Some(format!("{what}: {step}"))
    }

    /// The log cannot be stored any more. What is not stored is not acknowledged: as a follower
    /// this member is of no more use. As the owner it hands over first, which needs the others'
    /// disks only.
    pub(crate) fn on_storage_failed(&mut self, now: Nanos, reason: String) {
        if self.storage_failure.is_some() {
            return;
        }
        self.event(MemberEvent::StorageFailed { reason: reason.clone() });
        self.health.set_storage_failed();
        let until = now.plus_ms(limits::STORAGE_FAREWELL_MS);
        self.storage_failure = Some(StorageFailure { reason, until });
    }

    pub(crate) fn storage_failure_due(&self) -> Option<Nanos> {
        self.storage_failure.as_ref().map(|failure| failure.until)
    }

    /// Ends a member without a disk once it leads no more, or has tried for long enough.
    pub(crate) fn end_without_storage(&mut self, now: Nanos) {
        let leads = self.replica.is_leader();
        let Some(failure) = self.storage_failure.take_if(|failure| !leads || failure.until <= now)
        else {
            return;
        };
        self.relinquish(now, crate::event::LossCause::Leadership);
        let reason = format!("the log cannot be stored: {}", failure.reason);
        self.output(Output::Halt { reason });
    }
}
