//! Telling the targets who owns the common address, and hearing how they are.
//!
//! ```text
//!   ownership taken ---> pending --notice--> target --acknowledged--> settled
//!   target joins ------>    |  ^------------ pause, doubled --'           |
//!                           |                                             '-- joins again: pending
//!                           +--refused: the target knows a later epoch: settled, told to the operator
//!                           '--patience over: shown as a problem; a marked target gets nothing new
//! ```
//!
//! Only a member that holds the lease of the epoch tells anybody anything; the moment it loses the
//! ownership nothing is pending any more. A target that runs no `holdfast-target` never joins and
//! is told nothing: it follows gratuitous ARP.

use crate::config::{Delivery, TargetConfig};
use crate::event::MemberEvent;
use crate::io::Output;
use crate::limits;
use crate::member::Member;
use crate::ownership::Ownership;
use holdfast_cluster::{Command, Epoch, Owner, TargetId};
use holdfast_crypto::{PrfAlgorithm, SecretBytes};
use holdfast_datapath::{MARK_KEY_LEN, MarkKey};
use holdfast_packet::{MacAddr, Nanos};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What the owner tells a target. The shell authenticates both ends and encrypts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerNotice {
    /// The owner with its epoch.
    pub owner: Owner,
    /// The address it speaks for.
    pub common: Ipv4Addr,
    /// The address targets reply through.
    pub inside: Ipv4Addr,
    /// The station that has the inside address now.
    pub inside_mac: MacAddr,
    /// Under which packets for this target are marked in this epoch; `None` when they go in clear.
    pub key: Option<MarkKey>,
}

/// What a target says, as the shell authenticated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetEvent {
    /// Its connection stands: it wants to know who owns the address.
    Joined,
    /// Its connection is gone.
    Left,
    /// It follows the owner of this epoch.
    Acknowledged {
        /// The epoch of the notice.
        epoch: Epoch,
    },
    /// It does not: it knows a later owner.
    Refused {
        /// The epoch of the notice.
        epoch: Epoch,
        /// The epoch it knows.
        known: Epoch,
    },
    /// How it is.
    Report(TargetReport),
}

/// How a target is, by its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetReport {
    /// Whether all of its services accept connections.
    pub healthy: bool,
    /// How busy it is; 100 is full.
    pub load_percent: u32,
    /// Connections it has established.
    pub connections: u64,
    /// Marked packets it refused: forged, stale, of an unknown epoch.
    pub marks_refused: u64,
    /// Packets it dropped because they should have come marked.
    pub clear_dropped: u64,
    /// Notices it refused because it knew a later epoch.
    pub notices_refused: u64,
}

/// Where the notice of the present epoch stands with one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeState {
    /// It never joined: it runs no `holdfast-target`, or cannot reach this member.
    Absent,
    /// It is joined, and there is nothing to tell: this member is not the owner.
    Standby,
    /// It was told and has not acknowledged yet.
    Pending {
        /// How often it was told.
        attempts: u32,
        /// For how long it has not acknowledged.
        waiting_ms: u64,
    },
    /// It follows this owner.
    Acknowledged {
        /// Of this epoch.
        epoch: Epoch,
    },
    /// It knows a later owner.
    Refused {
        /// Of this epoch.
        known: Epoch,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    attempts: u32,
    since: Nanos,
    next: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    Nothing,
    Pending(Pending),
    Acknowledged,
    Refused { known: Epoch },
}

#[derive(Debug)]
struct Entry {
    marked: bool,
    follows_load: bool,
    joined: bool,
    notice: Notice,
    refused: u64,
    report: Option<(Nanos, TargetReport)>,
    /// What the tables were told last.
    standing: Standing,
}

/// What a target's own account means for new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it may get new ones.
    pub(crate) open: bool,
    /// Its weight in quarters of the configured one.
    pub(crate) quarters: u32,
}

impl Standing {
    /// Of a target that says nothing.
    const PLAIN: Self = Self { open: true, quarters: QUARTERS };
}

/// Quarters of a weight that counts whole.
pub(crate) const QUARTERS: u32 = 4;

/// What [`Notices::review`] found changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) target: TargetId,
    pub(crate) standing: Standing,
}

/// One row for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetNews {
    pub(crate) state: NoticeState,
    pub(crate) report: Option<TargetReport>,
    pub(crate) refused: u64,
    /// The notice is pending for longer than patience lasts, although it could have been heard or
    /// the target cannot do without.
    pub(crate) overdue: bool,
}

/// The targets and what each has been told.
#[derive(Debug)]
pub(crate) struct Notices {
    epoch: Option<Epoch>,
    entries: BTreeMap<TargetId, Entry>,
}

impl Notices {
    /// Nobody joined yet.
    pub(crate) fn new(targets: &[TargetConfig]) -> Self {
        let entry = |target: &TargetConfig| Entry {
            marked: target.delivery == Delivery::Marked,
            follows_load: target.follows_load,
            joined: false,
            notice: Notice::Nothing,
            refused: 0,
            report: None,
            standing: Standing::PLAIN,
        };
        let entries = targets.iter().map(|target| (target.id, entry(target))).collect();
        Self { epoch: None, entries }
    }

    /// This member owns the address from now on: everybody is to be told.
    pub(crate) fn begin(&mut self, now: Nanos, epoch: Epoch) {
        self.epoch = Some(epoch);
        for entry in self.entries.values_mut() {
            entry.notice = Notice::Pending(Pending { attempts: 0, since: now, next: now });
        }
    }

    /// This member owns the address no more: nobody is told anything.
    pub(crate) fn end(&mut self) {
        self.epoch = None;
        for entry in self.entries.values_mut() {
            entry.notice = Notice::Nothing;
        }
    }

    /// Takes what a target says; false when there is no such target.
    pub(crate) fn hear(&mut self, now: Nanos, target: TargetId, event: TargetEvent) -> bool {
        let owning = self.epoch;
        let Some(entry) = self.entries.get_mut(&target) else { return false };
        let current = |epoch| owning == Some(epoch);
        match event {
            TargetEvent::Joined => {
                entry.joined = true;
                // It may have been started anew and know nothing, whatever it acknowledged before.
                if owning.is_some() {
                    let next = Pending { attempts: 0, since: now, next: now };
                    entry.notice = Notice::Pending(next);
                }
            }
            TargetEvent::Left => {
                entry.joined = false;
                entry.report = None;
                if owning.is_some() && entry.notice == Notice::Acknowledged {
                    let next = Pending { attempts: 0, since: now, next: now };
                    entry.notice = Notice::Pending(next);
                }
            }
            TargetEvent::Acknowledged { epoch } if current(epoch) => {
                entry.notice = Notice::Acknowledged;
            }
            TargetEvent::Refused { epoch, known } => {
                entry.refused = entry.refused.saturating_add(1);
                if current(epoch) {
                    entry.notice = Notice::Refused { known };
                }
            }
            // Of an ownership that has ended.
            TargetEvent::Acknowledged { .. } => {}
            TargetEvent::Report(report) => entry.report = Some((now, report)),
        }
        true
    }

    /// The targets to be told now.
    pub(crate) fn due_notices(&mut self, now: Nanos) -> Vec<TargetId> {
        let mut due = Vec::new();
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.joined) {
            if let Notice::Pending(pending) = &mut entry.notice
                && pending.next <= now
            {
                pending.attempts = pending.attempts.saturating_add(1);
                pending.next = now.plus_ms(pause_ms(pending.attempts));
                due.push(*id);
            }
        }
        due
    }

    /// When [`Self::due_notices`] or [`Self::review`] has something to do.
    pub(crate) fn due(&self) -> Option<Nanos> {
        let moments = self.entries.values().flat_map(|entry| {
            let pending = match entry.notice {
                Notice::Pending(pending) => Some(pending),
                _ => None,
            };
            let told = pending.filter(|_| entry.joined).map(|pending| pending.next);
            let patience = pending
                .filter(|_| entry.marked && entry.standing.open)
                .map(|pending| pending.since.plus_ms(limits::NOTICE_PATIENCE_MS));
            let stale = entry.report.map(|(at, _)| at.plus_ms(limits::REPORT_LIFETIME_MS));
            [told, patience, stale]
        });
        moments.flatten().min()
    }

    /// Forgets reports that are too old and tells whose standing changed.
    pub(crate) fn review(&mut self, now: Nanos) -> Vec<Change> {
        let mut changes = Vec::new();
        for (target, entry) in &mut self.entries {
            entry.report =
                entry.report.filter(|(at, _)| now < at.plus_ms(limits::REPORT_LIFETIME_MS));
            let standing = entry.judge(now);
            if standing != entry.standing {
                entry.standing = standing;
                changes.push(Change { target: *target, standing });
            }
        }
        changes
    }

    /// What the last review found of a target.
    pub(crate) fn standing(&self, target: TargetId) -> Standing {
        self.entries.get(&target).map_or(Standing::PLAIN, |entry| entry.standing)
    }

    /// Everything about a target that the operator may want to know.
    pub(crate) fn news(&self, now: Nanos, target: TargetId) -> Option<TargetNews> {
        let entry = self.entries.get(&target)?;
        let state = match (entry.notice, self.epoch) {
            (Notice::Pending(pending), _) if entry.joined || entry.marked => NoticeState::Pending {
                attempts: pending.attempts,
                waiting_ms: now.ms_since(pending.since),
            },
            (Notice::Acknowledged, Some(epoch)) => NoticeState::Acknowledged { epoch },
            (Notice::Refused { known }, _) => NoticeState::Refused { known },
            _ if entry.joined => NoticeState::Standby,
            _ => NoticeState::Absent,
        };
        let overdue = matches!(state, NoticeState::Pending { waiting_ms, .. }
            if waiting_ms >= limits::NOTICE_PATIENCE_MS);
        let report = entry.report.map(|(_, report)| report);
        Some(TargetNews { state, report, refused: entry.refused, overdue })
    }
}

impl Entry {
    /// A takeover alone must not change the answer at once, or the new owner would place
    /// connections differently from the old one while the notices are on their way.
    fn judge(&self, now: Nanos) -> Standing {
        let report = self.report.map(|(_, report)| report);
        let told = match self.notice {
            Notice::Pending(pending) => now < pending.since.plus_ms(limits::NOTICE_PATIENCE_MS),
            Notice::Refused { .. } => false,
            Notice::Nothing | Notice::Acknowledged => true,
        };
        let healthy = report.is_none_or(|report| report.healthy);
        let quarters = match report {
            Some(report) if self.follows_load => {
                load_quarters(report.load_percent, self.standing.quarters)
            }
            _ => Standing::PLAIN.quarters,
        };
        Standing { open: healthy && (told || !self.marked), quarters }
    }
}

/// Pause before a notice is repeated, after it was sent `attempts` times.
fn pause_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    (limits::NOTICE_RETRY_MS.0 << doublings).min(limits::NOTICE_RETRY_MS.1)
}

/// Coarse, and slow to give back, so that a load that wavers around a step moves nothing: each
/// change of a weight moves connections' places in the Maglev table.
fn load_quarters(load_percent: u32, present: u32) -> u32 {
    let quarters = |load: u32| match load {
        0..60 => 4,
        60..80 => 3,
        80..95 => 2,
        _ => 1,
    };
    let (now, with_margin) = (
        quarters(load_percent),
        quarters(load_percent.saturating_add(limits::LOAD_MARGIN_PERCENT)),
    );
    if now < present { now } else { with_margin.max(present) }
}

/// The key that the owner of `epoch` shares with `target`: `prf+` (RFC 7296 section 2.13) of the
/// cluster's secret, so that every member derives it alike and a target learns of no other.
pub(crate) fn mark_key(secret: &SecretBytes, epoch: Epoch, target: TargetId) -> Option<MarkKey> {
    let seed: [&[u8]; 3] = [b"holdfast mark", &epoch.0.to_be_bytes(), &target.0.to_be_bytes()];
    let key = PrfAlgorithm::HmacSha256.prf_plus(secret.as_bytes(), &seed, MARK_KEY_LEN).ok()?;
    MarkKey::new(key.as_bytes())
}

/// The secret this member would have the cluster agree upon, should it own first.
#[derive(Debug)]
pub(crate) struct MarkSecret {
    drawn: SecretBytes,
    /// When it may be proposed.
    next: Nanos,
}

impl MarkSecret {
    /// Drawn from the seed of this start, which nothing else derives in this way.
    pub(crate) fn draw(seed: &[u8; 32]) -> Self {
        let drawn = PrfAlgorithm::HmacSha256.prf(seed, &[b"holdfast mark secret"]);
        Self { drawn, next: Nanos::ZERO }
    }

    /// Whatever was proposed in an earlier ownership may be lost.
    pub(crate) fn forget_proposal(&mut self) {
        self.next = Nanos::ZERO;
    }
}

impl Member {
    pub(crate) fn on_target(&mut self, now: Nanos, target: TargetId, event: TargetEvent) {
        if !self.notices.hear(now, target, event) {
            return;
        }
        match event {
            TargetEvent::Acknowledged { epoch } => {
                self.event(MemberEvent::TargetAcknowledged { target, epoch });
            }
            TargetEvent::Refused { epoch, known } => {
                self.event(MemberEvent::TargetRefused { target, epoch, known });
            }
            TargetEvent::Joined | TargetEvent::Left | TargetEvent::Report(_) => {}
        }
        self.review_targets(now);
    }

    /// Tells the targets whose turn it is, and draws the consequences of what time has changed.
    pub(crate) fn tell_targets(&mut self, now: Nanos) {
        if self.notices.due().is_none_or(|due| now < due) {
            return;
        }
        let speaks = self.speaks(now);
        if let Ownership::Owning { owner, .. } = self.ownership {
            for target in self.notices.due_notices(now) {
                // Without the lease the moment passes and the next one comes.
                if speaks {
                    let notice = Box::new(self.notice(owner, target));
                    self.output(Output::NotifyTarget { target, notice });
                }
            }
        }
        self.review_targets(now);
    }

    fn notice(&self, owner: Owner, target: TargetId) -> OwnerNotice {
        let marked = self
            .config
            .targets
            .iter()
            .any(|config| config.id == target && config.delivery == Delivery::Marked);
        let secret = self.replica.state().mark_secret().filter(|_| marked);
        OwnerNotice {
            owner,
            common: self.config.addresses.common,
            inside: self.config.addresses.inside,
            inside_mac: self.config.inside_mac,
            key: secret.and_then(|secret| mark_key(secret, owner.epoch, target)),
        }
    }

    fn review_targets(&mut self, now: Nanos) {
        for Change { target, standing: Standing { open, quarters } } in self.notices.review(now) {
            self.tables.touch();
            self.event(MemberEvent::TargetStanding { target, open, quarters });
        }
    }

    /// Keys can be derived now; targets that were told without one are told again.
    pub(crate) fn on_mark_secret(&mut self, now: Nanos) {
        self.tables.touch();
        if let Some(owner) = self.ownership.owner() {
            self.notices.begin(now, owner.epoch);
        }
    }

    fn wants_mark_secret(&self) -> bool {
        let marked = |target: &TargetConfig| target.delivery == Delivery::Marked;
        self.replica.state().mark_secret().is_none() && self.config.targets.iter().any(marked)
    }

    pub(crate) fn mark_secret_due(&self) -> Option<Nanos> {
        self.wants_mark_secret().then_some(self.mark_secret.next.max(self.propose_retry))
    }

    pub(crate) fn propose_mark_secret(&mut self, now: Nanos, owner: Owner) {
        if self.mark_secret_due().is_none_or(|due| now < due) {
            return;
        }
        let secret = self.mark_secret.drawn.clone();
        // Whether it was taken or not, the next look is after the pause.
        let _proposed = self.replica.propose(now, &Command::SetMarkSecret { owner, secret });
        self.mark_secret.next = now.plus_ms(limits::MARK_SECRET_RETRY_MS);
    }
}

#[cfg(test)]
mod tests;
