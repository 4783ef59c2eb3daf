//! What a virtual outage is made of.
//!
//! ```text
//!   kill --detect--> a member leads --agree--> it owns and announces --wait--> a request that is --serve--> answered
//!        (rank's timeout)     (commit, lease)                    (interval)    answered is sent  (renewal)
//! ```

use holdfast_member::MemberEvent;
use holdfast_member::testing::{Peer, World};
use holdfast_packet::Nanos;

/// One outage: how long after the kill of the owner each thing happened, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outage {
    /// The member that took over led.
    pub elected_ns: u64,
    /// It owned the address, and announced it.
    pub owned_ns: u64,
    /// The request was sent that was answered first.
    pub asked_ns: u64,
    /// Its answer arrived: the outage.
    pub answered_ns: u64,
}

impl Outage {
    /// Its parts, each from the end of the one before, with their names.
    #[must_use]
    pub const fn parts(&self) -> [(&'static str, u64); 4] {
        let Self { elected_ns, owned_ns, asked_ns, answered_ns } = *self;
        [
            ("detect", elected_ns),
            ("agree", owned_ns.saturating_sub(elected_ns)),
            ("wait", asked_ns.saturating_sub(owned_ns)),
            ("serve", answered_ns.saturating_sub(asked_ns)),
        ]
    }

    /// The outage since `killed`, once a peer was answered.
    pub(crate) fn since(world: &World, killed: Nanos) -> Option<Self> {
        let answers = world.peers().iter().filter_map(|peer: &Peer| peer.first_answered(killed));
        let (asked, answered) = answers.min_by_key(|(_, answered)| *answered)?;
        let events = world
            .nodes()
            .flat_map(|(id, node)| node.events().iter().map(move |(at, event)| (*at, id, event)));
        let events: Vec<_> = events.filter(|(at, ..)| (killed..=answered).contains(at)).collect();
        let owned = events.iter().rev().filter_map(|(at, id, event)| match event {
            MemberEvent::OwnershipTaken { .. } => Some((*at, *id)),
            _ => None,
        });
        let (owned, owner) = owned.max()?;
        let elected = events.iter().filter_map(|(at, id, event)| match event {
            MemberEvent::LeaderChanged { leader: Some(leader), .. } => {
                (*id == owner && *leader == owner && *at <= owned).then_some(*at)
            }
            _ => None,
        });
        let after = |at: Nanos| at.since(killed);
        Some(Self {
            elected_ns: after(elected.max()?),
            owned_ns: after(owned),
            asked_ns: after(asked),
            answered_ns: after(answered),
        })
    }
}
