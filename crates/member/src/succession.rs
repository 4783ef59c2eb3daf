//! Who should own: fitness decides, then the configured preference, and neither makes it flap.
//!
//! ```text
//!   this owner is unfit, another member is fit        hand over now
//!   a preferred member is fit and has been for the    `takeback`: never | once nothing flows | now
//!   hold-down time, and so long this one has owned
//! ```
//!
//! Fit means: both ports have a link, all workers poll, the tables are built, the SAs made ready and
//! the neighbours known. To be handed to, a member must also be connected and have the log but for its
//! last entries.

use crate::bulletin::{Bulletin, Fitness, MemberMessage};
use crate::config::Takeback;
use crate::event::{HandoverCause, MemberEvent};
use crate::limits;
use crate::member::Member;
use crate::ownership::Ownership;
use holdfast_cluster::MemberId;
use holdfast_datapath::Stations;
use holdfast_packet::{Nanos, Side};

/// Entries a successor may lack when a handover begins; leadership moves only once it has them.
const HANDOVER_LAG_MAX: u64 = 256;

impl Member {
    /// How this member is.
    pub(crate) fn own_fitness(&self) -> Fitness {
        Fitness {
            outside_up: self.health.is_up(Side::Outside),
            inside_up: self.health.is_up(Side::Inside),
            stalled_workers: u32::try_from(self.health.stalled().count()).unwrap_or(u32::MAX),
            warm: self.warm && self.warming.is_warm() && self.tables.is_whole(),
        }
    }

    /// Tells the others how this member is, at every change and now and then.
    pub(crate) fn send_bulletins(&mut self, now: Nanos) {
        if self.replica.is_witness(self.config.id) {
            return;
        }
        if self.next_bulletin <= now && !self.warm {
            self.warm = now >= self.quarantine_until
                && self.tables.is_published()
                && self.outside.is_warm()
                && self.inside.is_warm();
        }
        let fitness = self.own_fitness();
        if now < self.next_bulletin && self.fitness_told == Some(fitness) {
            return;
        }
        self.fitness_told = Some(fitness);
        if self.next_bulletin <= now {
            self.review_readiness(now);
        }
        let pause_ms = if self.warm { limits::BULLETIN_MS } else { limits::WARMING_CHECK_MS };
        self.next_bulletin = now.plus_ms(pause_ms);
        let stations =
            Stations { outside: self.config.outside_mac, inside: self.config.inside_mac };
        let incarnation = self.config.incarnation;
        let message = MemberMessage::Bulletin(Bulletin { incarnation, stations, fitness });
        for to in self.replica.configuration().members() {
            if to != self.config.id {
                self.tell(to, &message);
            }
        }
    }

    /// Another member speaks beside the replication.
    pub(crate) fn on_member_message(&mut self, now: Nanos, from: MemberId, bytes: &[u8]) {
        let known = from != self.config.id && self.replica.configuration().contains(from);
        let message = MemberMessage::decode(bytes).filter(|_| known);
        match message {
            Some(MemberMessage::Bulletin(bulletin)) => {
                if self.fellows.heard(now, from, bulletin) {
                    self.tables.touch();
                }
            }
            Some(MemberMessage::Offer { number }) => self.on_offer(now, from, number),
            Some(MemberMessage::Answer { number, refusal }) => {
                self.on_answer(now, from, number, refusal);
            }
            None => {
                let reason = "it is not understood here".to_owned();
                self.event(MemberEvent::PeerMessageRefused { from, reason });
            }
        }
    }

    /// The member to hand over to: the one wished for if it is fit, else the most preferred fit one.
    pub(crate) fn successor(&self, now: Nanos, wish: Option<MemberId>) -> Result<MemberId, String> {
        if let Some(wish) = wish {
            if !self.replica.configuration().contains(wish) {
                return Err(format!("there is no member {wish}"));
            }
            return match self.in_the_way_of(now, wish) {
                None => Ok(wish),
                Some(reason) => Err(format!("member {wish} cannot take over: {reason}")),
            };
        }
        let others = self.by_preference().filter(|id| *id != self.config.id);
        let mut reasons = Vec::new();
        for id in others {
            match self.in_the_way_of(now, id) {
                None => return Ok(id),
                Some(reason) => reasons.push(format!("member {id}: {reason}")),
            }
        }
        Err(format!("no other member can take over ({})", reasons.join("; ")))
    }

    /// Why a member cannot take over at once; `None` when it can.
    pub(crate) fn in_the_way_of(&self, now: Nanos, id: MemberId) -> Option<String> {
        let status = self.replica.status();
        let progress = status.members.iter().find(|member| member.id == id);
        let Some(progress) = progress.filter(|progress| progress.active) else {
            return Some("not connected".to_owned());
        };
        if !self.replica.configuration().is_voter(id) {
            return Some("it does not vote yet".to_owned());
        }
        if progress.witness {
            return Some("it is a witness and owns nothing".to_owned());
        }
        let missing = status.last.saturating_sub(progress.matched);
        if missing > HANDOVER_LAG_MAX {
            return Some(format!("not up to date, {missing} entries are missing"));
        }
        match self.fellows.fitness(now, id) {
            None => Some("has not said how it is".to_owned()),
            Some(fitness) => (!fitness.is_fit()).then(|| fitness.to_string()),
        }
    }

    /// All members, the one that should own first.
    fn by_preference(&self) -> impl Iterator<Item = MemberId> {
        let members = self.replica.configuration().members();
        let preferred = &self.config.succession.preference;
        let named = preferred.iter().copied().filter(|id| members.contains(id));
        let rest = members.iter().copied().filter(|id| !preferred.contains(id));
        let order: Vec<MemberId> = named.chain(rest).collect();
        order.into_iter()
    }

    /// An owner that should not own looks for one that should.
    pub(crate) fn review_succession(&mut self, now: Nanos) {
        if self.handover.is_some() || now < self.next_succession || !self.replica.is_leader() {
            return;
        }
        let chosen = match self.health.unfit() {
            Some(cause) if self.ownership.claim().is_some() => {
                self.successor(now, None).ok().map(|to| (to, cause))
            }
            Some(_) => None,
            None => self.preferred_successor(now).map(|to| (to, HandoverCause::Takeback)),
        };
        if let Some((to, cause)) = chosen {
            let pause_ms = match cause {
                HandoverCause::Takeback => self.config.succession.hold_down_ms,
                _ => limits::UNFIT_RETRY_MS,
            };
            self.next_succession = now.plus_ms(pause_ms);
            self.begin_handover(now, to, cause, None);
        }
    }

    /// The member the policy wants as the owner instead of this one, when the time has come.
    fn preferred_successor(&self, now: Nanos) -> Option<MemberId> {
        let policy = &self.config.succession;
        let hold_down_ms = policy.hold_down_ms;
        let idle = match policy.takeback {
            Takeback::Never => return None,
            Takeback::Idle => now.ms_since(self.last_traffic) >= policy.idle_ms,
            Takeback::Now => true,
        };
        let owns = matches!(self.ownership, Ownership::Owning { .. });
        let steadily =
            |since: Option<Nanos>| since.is_some_and(|since| now.ms_since(since) >= hold_down_ms);
        if !idle || !owns || !steadily(self.owner_since) || !self.speaks(now) {
            return None;
        }
        self.by_preference()
            .take_while(|id| *id != self.config.id)
            .filter(|id| steadily(self.fellows.fit_since(now, *id)))
            .find(|id| self.in_the_way_of(now, *id).is_none())
    }

    /// Packets the workers opened and sealed so far.
    pub(crate) fn on_traffic(&mut self, now: Nanos, packets: u64) {
        if self.traffic_seen != packets {
            self.traffic_seen = packets;
            self.last_traffic = now;
        }
    }
}
