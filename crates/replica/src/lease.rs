//! Law 1, "lease before own": at no instant do two members hold a valid lease.
//!
//! raft-rs has no such lease: its `in_lease` means "leader and `check_quorum`", and a leader that
//! was cut off notices only one to two election timeouts later, while another leads already. So
//! the lease is built here, outside of it, from promises with a time limit.
//!
//! # Construction
//!
//! ```text
//!   leader L, term T                                   follower F
//!   reads its clock: s ------ heartbeat/append(T, s) ------> steps it at its time p
//!                                                            votes for nobody until p + D
//!   lease end candidate <---- response(T, echo s, D) -------
//!     s + 0.99 D
//!   lease end = the latest moment that candidates of a quorum reach, L's own being now + 0.99 D
//! ```
//!
//! A quorum is a majority of the voters; while the configuration is joint, a majority of the old
//! voters and one of the new ones. L counts by the configuration it has *applied*, like raft-rs
//! when it commits and elects. Learners give the promise like everybody and are not counted.
//!
//! `D` is [`Timing::promise_ns`](crate::Timing::promise_ns), the election timeout less one tick.
//! F keeps the promise in two ways: raft-rs ignores votes for an election timeout after a message
//! of the leader, and `Promise` drops vote requests before they reach raft-rs. The second one is
//! needed because raft-rs counts ticks, not time, and forgets its leader whenever it hears of a
//! higher term.
//!
//! # Proof that leases do not overlap
//!
//! Let L hold a valid lease of term T at time t. Suppose somebody leads a term T' > T at t. The
//! votes for T' came from a quorum, the promises L counted came from a quorum, so one member F is
//! in both. If F is L, L has left term T and withdrawn its lease before it voted. Otherwise F
//! stepped a message of L sent at s, at its time p, and t < s + 0.99 D.
//!
//! 1. F cannot have voted for T' before p: its term would be T' and it would not have accepted a
//!    message of term T. Only accepted messages are echoed.
//! 2. After p, until p + D on F's clock, F drops every vote request, and campaigns for itself
//!    only after at least one election timeout of ticks of which none was due before p
//!    (overdue ticks are forgiven when a message of the leader is stepped). Since s is before p,
//!    and the clocks run equally fast to within one per cent, p + D on F's clock is not before
//!    s + 0.99 D on L's, which is after t.
//! 3. F may have restarted since p and forgotten the promise. It then drops every vote request
//!    for D after its start and does not campaign (boot quarantine), and it started after p.
//! 4. One kind of vote request is exempt: leadership transfer, where L itself asks a successor to
//!    campaign at once. L withdraws its lease before that message leaves and takes no lease in
//!    term T again, however the transfer ends: a copy of the message may arrive at any later
//!    time. It makes its receiver campaign for T + 1 only; whoever holds a lease of term T + 1 or
//!    later rests on a quorum that is in that term already and does not grant it.
//!
//! # Proof for changing members
//!
//! The proof above needs one thing of the two quorums: a member F in both. With configurations
//! C1, C2, ... (each the result of one entry of Raft's log: joint, then the new one alone, and so
//! on) any quorum of a configuration meets any quorum of the next one: a joint one contains a
//! majority of either neighbour. What is left are L and the candidate being two or more steps
//! apart. A leader proposes a change only after it applied the one before (`members`, raft-rs'
//! `pending_conf_index`), so a log that holds entry j knows that entry j-1 is committed, and
//! raft-rs does not campaign before it applied what it knows to be committed. A crash could tear
//! that knowledge off the disk; it is put back from the log itself at the start.
//!
//! 1. *The candidate is behind*: it acts by Ci and L applied Cj, j >= i+2. Entry i+2 is committed
//!    by a quorum of C(i+1), which meets the candidate's quorum of Ci in a member that has the
//!    entry and votes only for logs that have it. Then the candidate's log holds entry i+2, it
//!    knows that i+1 is committed, and acts at least by C(i+1): a contradiction.
//! 2. *The candidate is ahead*: the lease was counted by Ci at a moment m of L, so it ends before
//!    m + 0.99 D, and the candidate acts by Cj, j >= i+2. Entry j was proposed after C(j-1) was
//!    applied, in term T by L itself and so after m. (By a leader of a later term it cannot have
//!    been: take for T' the first term after T that got a leader.) It is committed by a quorum of
//!    C(j-1), which meets the candidate's quorum of Cj in a member F. F acknowledged the entry
//!    in a message of L sent after m, stepped it, and so promised until at least m + D: it votes
//!    for nobody before the lease is over, and it had not voted for T' before (1. above).
//!
//! So the lease end may stay what it was when the configuration changes under it. A member that
//! joins starts with a quarantine like any other, and votes for nobody before the leader's
//! snapshot made it a learner; if that snapshot says that it votes already, its id belonged to
//! somebody whose promises it cannot know, and it halts. A leader that is to leave hands
//! leadership over first, so L is always a voter of the configuration it counts by.
//!
//! The operator's `force_quorum` is outside of this proof: it makes a quorum of one by decree.
//!
//! What must hold around it: `now` is read after the message was received and never goes back;
//! the clock does not stop while the machine sleeps; whoever uses the lease compares it with the
//! same clock at the moment of use; all members use the same timing, or each D travels with its
//! echo (it does) and nobody shortens its D over a restart.

use crate::timing::lease_ns;
use holdfast_cluster::{Configuration, MemberId, Mutation, mutated};
use holdfast_packet::Nanos;
use std::collections::BTreeMap;

/// The follower's side: what was promised to whom, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// The leader last heard, its term, and the newest send time stepped from it in that term.
    heard: Option<(MemberId, u64, Nanos)>,
    until: Nanos,
}

impl Promise {
    /// After a start nobody knows what was promised before: assume it was promised just now.
    pub(crate) fn at_boot(until: Nanos) -> Self {
        Self { heard: None, until }
    }

    /// A message of the leader was accepted: vote for nobody else until `until`.
    pub(crate) fn give(&mut self, leader: MemberId, term: u64, sent: Nanos, until: Nanos) {
        let newest = match self.heard {
            // Messages of several lanes overtake each other; the promise covers the newest.
            Some((known, known_term, newest)) if known == leader && known_term == term => {
                newest.max(sent)
            }
            _ => sent,
        };
        self.heard = Some((leader, term, newest));
        self.until = self.until.max(until);
    }

    /// The send time to put into a response to `leader` in `term`.
    pub(crate) fn echo(&self, leader: MemberId, term: u64) -> Option<Nanos> {
        self.heard.filter(|heard| heard.0 == leader && heard.1 == term).map(|heard| heard.2)
    }

    /// Whether a vote request must be dropped.
    pub(crate) fn binds(&self, now: Nanos) -> bool {
        now < self.until
    }
}

/// The leader's side: which promises it can count on.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    term: u64,
    ends: BTreeMap<MemberId, Nanos>,
    /// A transfer of this term's leadership was asked for: no lease until the term is over.
    suspended: bool,
    until: Option<Nanos>,
}

impl Lease {
    /// No lease.
    pub(crate) fn none() -> Self {
        Self { term: 0, ends: BTreeMap::new(), suspended: false, until: None }
    }

    /// Ends the lease at once: the member does not lead.
    pub(crate) fn withdraw(&mut self) {
        self.ends.clear();
        self.until = None;
    }

    /// Ends the lease and bars it for the rest of the term.
    pub(crate) fn suspend(&mut self, term: u64) {
        self.enter(term);
        self.suspended = true;
        self.withdraw();
    }

    pub(crate) fn is_suspended(&self, term: u64) -> bool {
        self.term == term && self.suspended
    }

    fn enter(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.suspended = false;
            self.withdraw();
        }
    }

    /// A follower echoed `sent` in this term and stands by it for `promise_ns`.
    pub(crate) fn echoed(&mut self, term: u64, follower: MemberId, sent: Nanos, promise_ns: u64) {
        self.enter(term);
        let end = sent.plus_ns(lease_ns(promise_ns));
        let known = self.ends.entry(follower).or_insert(end);
        *known = end.max(*known);
    }

    /// Recomputes the end of the lease of the leader of `term`, whose own promise is `promise_ns`,
    /// by the majorities of the configuration it applied.
    pub(crate) fn renew(
        &mut self,
        term: u64,
        now: Nanos,
        (leader, promise_ns): (MemberId, u64),
        configuration: &Configuration,
    ) {
        self.enter(term);
        if self.suspended {
            return;
        }
        let own = now.plus_ns(lease_ns(promise_ns));
        let end = |member: MemberId| {
            if member == leader { Some(own) } else { self.ends.get(&member).copied() }
        };
        let end = configuration.reached(end);
        self.until = self.until.max(end);
        if mutated(Mutation::LeaseIgnored) {
            self.until = Some(now.plus_ms(10_000));
        }
    }

    /// The end of the lease; `None` without one.
    pub(crate) fn until(&self) -> Option<Nanos> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: u64 = 25_000_000;
    const LEASE: u64 = 24_750_000;
    const OWN: (MemberId, u64) = (MemberId(1), D);

    fn voters(last: u64) -> Configuration {
        Configuration::of_voters((1..=last).map(MemberId))
    }

    #[test]
    fn a_leader_of_three_counts_on_the_better_of_two_followers() {
        let mut lease = Lease::none();
        lease.renew(7, Nanos::from_ms(100), OWN, &voters(3));
        assert_eq!(lease.until(), None, "its own promise alone is no quorum");
        lease.echoed(7, MemberId(2), Nanos::from_ms(90), D);
        lease.echoed(7, MemberId(3), Nanos::from_ms(95), D);
        lease.renew(7, Nanos::from_ms(100), OWN, &voters(3));
        assert_eq!(lease.until(), Some(Nanos::from_ms(95).plus_ns(LEASE)));
    }

    #[test]
    fn of_five_the_second_best_follower_decides() {
        let mut lease = Lease::none();
        for (member, sent_ms) in [(2, 90), (3, 95), (4, 80), (5, 10)] {
            lease.echoed(1, MemberId(member), Nanos::from_ms(sent_ms), D);
        }
        lease.renew(1, Nanos::from_ms(100), OWN, &voters(5));
        assert_eq!(lease.until(), Some(Nanos::from_ms(90).plus_ns(LEASE)));
    }

    #[test]
    fn a_single_member_needs_nobody() {
        let mut lease = Lease::none();
        lease.renew(1, Nanos::from_ms(100), OWN, &voters(1));
        assert_eq!(lease.until(), Some(Nanos::from_ms(100).plus_ns(LEASE)));
    }

    #[test]
    fn promises_of_an_earlier_term_do_not_count() {
        let mut lease = Lease::none();
        lease.echoed(7, MemberId(2), Nanos::from_ms(99), D);
        lease.renew(8, Nanos::from_ms(100), OWN, &voters(3));
        assert_eq!(lease.until(), None);
    }

    #[test]
    fn after_a_transfer_was_asked_for_the_term_has_no_lease_again() {
        let mut lease = Lease::none();
        lease.echoed(7, MemberId(2), Nanos::from_ms(90), D);
        lease.renew(7, Nanos::from_ms(90), OWN, &voters(3));
        lease.suspend(7);
        assert_eq!(lease.until(), None);
        lease.echoed(7, MemberId(2), Nanos::from_ms(95), D);
        lease.renew(7, Nanos::from_ms(95), OWN, &voters(3));
        assert_eq!(lease.until(), None);
        lease.echoed(8, MemberId(2), Nanos::from_ms(99), D);
        lease.renew(8, Nanos::from_ms(99), OWN, &voters(3));
        assert!(lease.until().is_some());
    }

    #[test]
    fn an_overtaken_message_does_not_move_the_echo_back() {
        let mut promise = Promise::at_boot(Nanos::ZERO);
        promise.give(MemberId(1), 3, Nanos::from_ms(20), Nanos::from_ms(45));
        promise.give(MemberId(1), 3, Nanos::from_ms(10), Nanos::from_ms(46));
        assert_eq!(promise.echo(MemberId(1), 3), Some(Nanos::from_ms(20)));
        assert_eq!(promise.echo(MemberId(1), 4), None);
        assert_eq!(promise.echo(MemberId(2), 3), None);
        assert!(promise.binds(Nanos::from_ms(45)) && !promise.binds(Nanos::from_ms(46)));
    }
}
