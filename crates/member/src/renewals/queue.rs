//! Whose turn it is: urgent ones first, planned ones when their moment has come, few at a time.

use super::Subject;
use crate::limits;
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Renewals that wait, and those under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    urgent: VecDeque<Subject>,
    /// What is in `urgent`.
    hurried: BTreeSet<Subject>,
    planned: BTreeSet<(Nanos, Subject)>,
    planned_at: BTreeMap<Subject, Nanos>,
    /// Under way, with the moment each stops counting.
    outstanding: BTreeMap<Subject, Nanos>,
    next_round: Nanos,
}

impl Queue {
    /// Has its turn at `at`, or earlier if it was planned for an earlier moment.
    pub(super) fn plan(&mut self, subject: Subject, at: Nanos) {
        if self.planned_at.get(&subject).is_some_and(|planned| *planned <= at) {
            return;
        }
        self.cancel_plan(subject);
        self.planned.insert((at, subject));
        self.planned_at.insert(subject, at);
    }

    /// Goes before all that are not urgent, behind all that were urgent before.
    pub(super) fn hurry(&mut self, subject: Subject) {
        self.cancel_plan(subject);
        if self.hurried.insert(subject) {
            self.urgent.push_back(subject);
        }
    }

    /// Needs no turn. What is under way goes on.
    pub(super) fn cancel(&mut self, subject: Subject) {
        self.cancel_plan(subject);
        // Taken out of `urgent` when it comes to the front.
        self.hurried.remove(&subject);
    }

    /// Needs no turn, and is not under way any more.
    pub(super) fn remove(&mut self, subject: Subject) {
        self.cancel(subject);
        self.outstanding.remove(&subject);
    }

    /// When [`Self::next`] may have something.
    pub(super) fn due(&self) -> Option<Nanos> {
        let under_way = self.outstanding.len();
        let urgent = (!self.hurried.is_empty()).then_some(Nanos::ZERO);
        let urgent = urgent.filter(|_| under_way < limits::RENEWALS_OUTSTANDING_MAX);
        let planned = self.planned.first().map(|(at, _)| *at);
        let planned = planned.filter(|_| under_way < limits::RENEWALS_PLANNED_MAX);
        let waiting = !self.hurried.is_empty() || !self.planned.is_empty();
        let room = self.outstanding.values().min().copied();
        let room = room.filter(|_| waiting && under_way >= limits::RENEWALS_PLANNED_MAX);
        [urgent, planned, room].into_iter().flatten().min().map(|due| due.max(self.next_round))
    }

    /// The renewals to begin now, and whether each is urgent.
    pub(super) fn next(&mut self, now: Nanos) -> Vec<(Subject, bool)> {
        let mut begin = Vec::new();
        if now < self.next_round {
            return begin;
        }
        self.outstanding.retain(|_, until| now < *until);
        while begin.len() < limits::RENEWALS_PER_ROUND_MAX
            && let Some((subject, urgent)) = self.pop(now)
        {
            self.outstanding.insert(subject, now.plus_ms(limits::RENEWAL_PATIENCE_MS));
            begin.push((subject, urgent));
        }
        if !begin.is_empty() {
            self.next_round = now.plus_ms(limits::RENEWAL_ROUND_MS);
        }
        begin
    }

    fn pop(&mut self, now: Nanos) -> Option<(Subject, bool)> {
        if self.outstanding.len() >= limits::RENEWALS_OUTSTANDING_MAX {
            return None;
        }
        while let Some(subject) = self.urgent.pop_front() {
            if self.hurried.remove(&subject) {
                return Some((subject, true));
            }
        }
        let (at, subject) = self.planned.first().copied()?;
        if now < at || self.outstanding.len() >= limits::RENEWALS_PLANNED_MAX {
            return None;
        }
        self.cancel_plan(subject);
        Some((subject, false))
    }

    fn cancel_plan(&mut self, subject: Subject) {
        if let Some(at) = self.planned_at.remove(&subject) {
            self.planned.remove(&(at, subject));
        }
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }
}
