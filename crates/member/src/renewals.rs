//! What a new owner does about the SAs it took over, and when.
//!
//! ```text
//!   InUse{spi} ------> settled: the peer counts beyond the floor
//!   Ambiguous{spi} --> urgent, first come, first served ------.
//!   active lately ---> at a random moment within 0.1 s -------+--> bounded rounds --> rekey, sync,
//!   silent ----------> at a random moment within minutes -----'          |            reestablish
//!                            ^------ later, with jitter ----- failed <---'
//! ```
//!
//! One renewal concerns one Child SA, or one IKE SA with all its Child SAs: see [`Subject`]. Urgent
//! ones go first and alone may fill the last quarter of what may be under way at a time, so that peers
//! who do not answer any more cannot keep those waiting that were just heard.

mod queue;
#[cfg(test)]
mod tests;

use crate::limits;
use holdfast_cluster::IkeSpi;
use holdfast_ike::TakeoverPolicy;
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet};

/// What one renewal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// One pair of Child SAs: `renew`.
    Child(Spi),
    /// An IKE SA with all its Child SAs: `sync`, `reestablish`.
    Ike(IkeSpi),
}

/// How certain the inbound numbers of a Child SA are since the last takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Made by this owner, or the peer was seen to count beyond the floor.
    Certain,
    /// Taken over, and its peer was not heard since.
    Silent,
    /// Its peer was heard in the ambiguous zone and has to count its way out: policy `strict`.
    Ambiguous,
    /// Its peer was heard in the ambiguous zone; waits for its turn to be renewed.
    Waiting,
    /// Being renewed.
    Renewing,
    /// A renewal failed; it is tried again later, or was given up.
    Failed,
}

impl Continuity {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Silent => "silent",
            Self::Ambiguous => "ambiguous",
            Self::Waiting => "waiting",
            Self::Renewing => "renewing",
            Self::Failed => "failed",
        }
    }
}

/// A Child SA as a takeover finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    pub(crate) spi: Spi,
    pub(crate) ike: IkeSpi,
    pub(crate) policy: TakeoverPolicy,
    /// Whether its numbers moved shortly before the takeover.
    pub(crate) active: bool,
    /// Whether the peer is known to have it. To one that has not, a rekey of it means nothing: its own
    /// repetition brings it the answer first.
    pub(crate) known_to_peer: bool,
}

/// A renewal to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) subject: Subject,
    pub(crate) policy: TakeoverPolicy,
    pub(crate) urgent: bool,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    subject: Subject,
    continuity: Continuity,
    /// The highest number known to have been used by the peer.
    heard: Option<u64>,
}

#[derive(Debug, Clone)]
struct Plan {
    policy: TakeoverPolicy,
    children: BTreeSet<Spi>,
    begun: bool,
    failures: u32,
}

/// The renewals of one ownership.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renewals {
    children: BTreeMap<Spi, Child>,
    plans: BTreeMap<Subject, Plan>,
    queue: Queue,
    seed: u64,
}

impl Renewals {
    /// A takeover that has inherited nothing yet.
    pub(crate) fn begin(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// One SA of a takeover: plans its renewal, should it not move on by itself.
    pub(crate) fn inherit(&mut self, now: Nanos, child: Inherited) {
        let subject = match child.policy {
            TakeoverPolicy::Renew | TakeoverPolicy::Strict => Subject::Child(child.spi),
            TakeoverPolicy::Sync | TakeoverPolicy::Reestablish => Subject::Ike(child.ike),
        };
        let window_ms = match child.policy {
            TakeoverPolicy::Strict => None,
            TakeoverPolicy::Reestablish if !child.active => Some(limits::REESTABLISH_MS),
            _ if child.active && child.known_to_peer => Some(limits::ACTIVE_RENEWAL_MS),
            _ => Some(limits::IDLE_RENEWAL_MS),
        };
        self.add(subject, child.policy, child.spi, Continuity::Silent);
        if let Some(window_ms) = window_ms {
            let at = self.within(now, window_ms, subject);
            self.queue.plan(subject, at);
        }
    }

    fn add(&mut self, subject: Subject, policy: TakeoverPolicy, spi: Spi, continuity: Continuity) {
        let heard = self.children.get(&spi).and_then(|child| child.heard);
        self.children.insert(spi, Child { subject, continuity, heard });
        let plan = self.plans.entry(subject).or_insert_with(|| Plan {
            policy,
            children: BTreeSet::new(),
            begun: false,
            failures: 0,
        });
        plan.children.insert(spi);
    }

    /// A random moment in a window of milliseconds from now.
    fn within(&self, now: Nanos, (first_ms, last_ms): (u64, u64), subject: Subject) -> Nanos {
        let number = match subject {
            Subject::Child(spi) => u64::from(spi.get()),
            Subject::Ike(IkeSpi(spi)) => spi,
        };
        let span_ms = last_ms.saturating_sub(first_ms).max(1);
        now.plus_ms(first_ms.saturating_add(mix(self.seed, number ^ now.ms()) % span_ms))
    }

    /// A packet of this SA authenticated in the ambiguous zone, with number `sequence`. SAs made after
    /// the takeover have none.
    pub(crate) fn ambiguous(&mut self, spi: Spi, sequence: u64) {
        let Some(child) = self.children.get_mut(&spi) else { return };
        child.heard = Some(child.heard.unwrap_or(0).max(sequence));
        let subject = child.subject;
        let Some(plan) = self.plans.get(&subject) else { return };
        if plan.policy == TakeoverPolicy::Strict {
            child.continuity = Continuity::Ambiguous;
        } else if !plan.begun {
            child.continuity = Continuity::Waiting;
            self.queue.hurry(subject);
        }
    }

    /// The peer counts beyond the floor.
    pub(crate) fn moved_on(&mut self, spi: Spi) {
        let Some(child) = self.children.get_mut(&spi) else { return };
        child.continuity = Continuity::Certain;
        let subject = child.subject;
        let settled = self.plans.get(&subject).is_some_and(|plan| {
            let certain = |spi| {
                self.children.get(spi).is_none_or(|child| child.continuity == Continuity::Certain)
            };
            // A policy that negotiates anew does so whether the old SA works or not.
            plan.policy != TakeoverPolicy::Reestablish && plan.children.iter().all(certain)
        });
        if settled {
            self.queue.cancel(subject);
        }
    }

    /// The SA is gone: replaced by its successor, or deleted.
    pub(crate) fn removed(&mut self, spi: Spi) {
        let Some(child) = self.children.remove(&spi) else { return };
        let Some(plan) = self.plans.get_mut(&child.subject) else { return };
        plan.children.remove(&spi);
        if plan.children.is_empty() {
            self.plans.remove(&child.subject);
            self.queue.remove(child.subject);
        }
    }

    /// There is nothing to begin, or it came to a good end.
    pub(crate) fn finished(&mut self, subject: Subject) {
        self.queue.remove(subject);
    }

    /// It did not work: once more later, and ever more rarely, until it is given up.
    pub(crate) fn failed(&mut self, now: Nanos, subject: Subject) {
        self.queue.remove(subject);
        let Some(plan) = self.plans.get_mut(&subject) else { return };
        plan.failures = plan.failures.saturating_add(1);
        let failures = plan.failures;
        if failures < limits::RENEWAL_ATTEMPTS_MAX {
            plan.begun = false;
            let wait_ms = limits::RENEWAL_RETRY_MS << failures.min(8);
            let at = self.within(now, (wait_ms, wait_ms.saturating_mul(2)), subject);
            self.queue.plan(subject, at);
        }
        self.mark(subject, Continuity::Failed);
    }

    /// An IKE SA cannot be renewed as its policy says: its Child SAs are rekeyed instead, those heard
    /// in the ambiguous zone first.
    pub(crate) fn fall_back(&mut self, now: Nanos, subject: Subject) {
        self.queue.remove(subject);
        let Some(plan) = self.plans.remove(&subject) else { return };
        for spi in plan.children {
            let Some(child) = self.children.get(&spi).copied() else { continue };
            if child.continuity == Continuity::Certain {
                continue;
            }
            let own = Subject::Child(spi);
            let urgent = child.heard.is_some();
            let continuity = if urgent { Continuity::Waiting } else { Continuity::Silent };
            self.add(own, TakeoverPolicy::Renew, spi, continuity);
            let at = self.within(now, limits::IDLE_RENEWAL_MS, own);
            self.queue.plan(own, at);
            if urgent {
                self.queue.hurry(own);
            }
        }
    }

    /// When [`Self::next`] may have something.
    pub(crate) fn due(&self) -> Option<Nanos> {
        self.queue.due()
    }

    /// The renewals to begin now.
    pub(crate) fn next(&mut self, now: Nanos) -> Vec<Renewal> {
        let mut begin = Vec::new();
        for (subject, urgent) in self.queue.next(now) {
            let Some(plan) = self.plans.get_mut(&subject) else { continue };
            plan.begun = true;
            begin.push(Renewal { subject, policy: plan.policy, urgent });
            self.mark(subject, Continuity::Renewing);
        }
        begin
    }

    fn mark(&mut self, subject: Subject, continuity: Continuity) {
        let Some(plan) = self.plans.get(&subject) else { return };
        for spi in &plan.children {
            let child = self.children.get_mut(spi);
            if let Some(child) = child.filter(|child| child.continuity != Continuity::Certain) {
                child.continuity = continuity;
            }
        }
    }

    /// How certain the numbers of a Child SA are.
    pub(crate) fn continuity(&self, spi: Spi) -> Continuity {
        self.children.get(&spi).map_or(Continuity::Certain, |child| child.continuity)
    }

    /// The highest number a peer is known to have used since the takeover, from the ambiguous zone.
    pub(crate) fn heard(&self, spi: Spi) -> Option<u64> {
        self.children.get(&spi)?.heard
    }

    /// The peer says that it has counted on. Should one that speaks not be seen beyond the floor all the
    /// same, it is rekeyed.
    pub(crate) fn synchronised(&mut self, now: Nanos, subject: Subject) {
        self.queue.remove(subject);
        let Some(plan) = self.plans.remove(&subject) else { return };
        for spi in plan.children {
            let Some(child) = self.children.get(&spi).copied() else { continue };
            let own = Subject::Child(spi);
            let speaks = child.heard.is_some() && child.continuity != Continuity::Certain;
            self.add(own, TakeoverPolicy::Renew, spi, child.continuity);
            if speaks {
                let at = self.within(now, limits::SYNC_GRACE_MS, own);
                self.queue.plan(own, at);
            }
        }
    }

    /// How many Child SAs are in each state but [`Continuity::Certain`].
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for child in self.children.values() {
            let count = match child.continuity {
                Continuity::Certain | Continuity::Silent => continue,
                Continuity::Ambiguous => &mut census.ambiguous,
                Continuity::Waiting => &mut census.waiting,
                Continuity::Renewing => &mut census.renewing,
                Continuity::Failed => &mut census.failed,
            };
            *count = count.saturating_add(1);
        }
        census
    }
}

/// Child SAs by how certain their numbers are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) ambiguous: usize,
    pub(crate) waiting: usize,
    pub(crate) renewing: usize,
    pub(crate) failed: usize,
}

/// A well-mixed function of a seed and a number (the finaliser of SplitMix64): jitter only.
pub(crate) const fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
