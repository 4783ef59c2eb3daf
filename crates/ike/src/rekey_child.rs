//! Rekeying Child SAs on our own initiative (RFC 7296 sections 1.3.3, 2.8 and 2.8.1).

use holdfast_crypto::{Group, PrivateKey};
use holdfast_ipsec::{ChildSaParameters, Selectors, Spi, TrafficSelector};
use holdfast_packet::Nanos;

use crate::algorithm::ChildSuite;
use crate::codec::{
    Chain, Contents, ExchangeType, KeyExchange, Malformed, Notify, NotifyType, PayloadType,
    Proposal, emit_selectors, parse_selectors,
};
use crate::config::Connection;
use crate::create_child::mark_replaced;
use crate::keys::{ChildKeys, Nonces};
use crate::sa::{ChildPhase, Collision, IkeSa, Pending, Task};
use crate::{Ike, Outcome, Refusal};

/// Milliseconds before a rekey is tried again that was refused for the moment (section 2.25).
pub(crate) const RETRY_TEMPORARY_MS: u64 = 10_000;
/// Milliseconds before a rekey is tried again that was refused otherwise.
pub(crate) const RETRY_REFUSED_MS: u64 = 60_000;

/// An exchange of ours that was answered: see [`Pending::RekeyChild`].
struct Answered {
    old: Spi,
    inbound: Spi,
    nonce: Vec<u8>,
    suite: ChildSuite,
    private: Option<PrivateKey>,
    collision: Option<Collision<Spi>>,
}

impl Ike {
    pub(crate) fn start_child_rekey(&mut self, now: Nanos, sa: &mut IkeSa, old: Spi) {
        let connection = self.connection_of(sa);
        let Some(child) = sa.children.get(&old).filter(|c| c.phase == ChildPhase::Installed) else {
            return;
        };
        let wanted = connection.as_ref().and_then(wanted_group);
        let suite = ChildSuite {
            cipher: child.parameters.inbound_key.algorithm(),
            esn: child.parameters.esn,
            group: child.group.or(wanted),
        };
        let selectors = child.parameters.selectors.clone();
        let inbound = self.draw_spi();
        self.child_owners.insert(inbound, sa.local_spi);
        let nonce = self.draw_nonce();
        let private = suite.group.map(|group| PrivateKey::generate(group, &mut self.random));
        let spi = old.get().to_be_bytes();
        let proposal = suite.proposal(1, inbound.get().to_be_bytes().to_vec());
        let mut chain = Chain::new();
        chain.notify(&Notify::about_esp(NotifyType::REKEY_SA, &spi));
        chain.push(PayloadType::SA, Proposal::emit_all(&[proposal]));
        chain.push(PayloadType::NONCE, nonce.clone());
        if let Some(private) = &private {
            let group = private.group().transform_id();
            let ke = KeyExchange { group, public: &private.public_bytes() };
            chain.push(PayloadType::KE, ke.emit());
        }
        chain.push(PayloadType::TS_I, emit_selectors(&selectors.local));
        chain.push(PayloadType::TS_R, emit_selectors(&selectors.remote));
        let pending = Pending::RekeyChild { old, inbound, nonce, suite, private, collision: None };
        self.request(now, sa, (ExchangeType::CreateChildSa, &chain), pending);
    }

    /// The peer answered our rekey of a Child SA.
    pub(crate) fn child_rekeyed(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        pending: Pending,
        contents: &Contents<'_>,
    ) {
        let Pending::RekeyChild { old, inbound, nonce, suite, private, collision } = pending else {
            return;
        };
        self.child_owners.remove(&inbound);
        let answered = Answered { old, inbound, nonce, suite, private, collision };
        if let Some(error) = contents.error() {
            return self.child_rekey_refused(now, sa, &answered, error);
        }
        let Some(connection) = self.connection_of(sa) else { return };
        match self.finish_child_rekey(sa, &connection, &answered, contents) {
            Ok((parameters, lowest)) => {
                self.counters.child_rekeys += 1;
                self.install(now, sa, &connection, (parameters, answered.suite, None));
                let rival = answered.collision.as_ref();
                if is_closing(sa, old) {
                    close_with_heirs(sa, old, [Some(inbound), rival.map(|peers| peers.made)]);
                } else if rival.is_some_and(|peers| lowest < peers.lowest) {
                    mark_replaced(now, sa, old);
                    close(sa, inbound);
                } else {
                    close(sa, old);
                }
            }
            Err(_) => {
                // The peer has an SA now that we cannot use: it shall go (section 2.21).
                self.counters.count(Refusal::BadResponse);
                sa.tasks.insert(Task::CloseChild(inbound));
                self.retry(sa, old, now.plus_ms(RETRY_REFUSED_MS));
            }
        }
    }

    fn child_rekey_refused(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        answered: &Answered,
        error: &Notify<'_>,
    ) {
        let Answered { old, suite, collision, .. } = answered;
        if let Some(peers) = collision {
            // The peer has rekeyed it meanwhile, and its SA stays (section 2.8.1).
            if is_closing(sa, *old) {
                close_with_heirs(sa, *old, [Some(peers.made)]);
            } else {
                mark_replaced(now, sa, *old);
            }
            return;
        }
        let tried = suite.group;
        match error.kind {
            NotifyType::TEMPORARY_FAILURE => {
                self.retry(sa, *old, now.plus_ms(RETRY_TEMPORARY_MS));
            }
            NotifyType::CHILD_SA_NOT_FOUND => {
                self.counters.count(Refusal::ChildSaNotFound);
                self.remove_child(sa, *old);
            }
            NotifyType::INVALID_KE_PAYLOAD => {
                let wanted = error.data.try_into().map(u16::from_be_bytes).ok();
                let group = wanted.and_then(Group::from_transform_id);
                self.again_with(now, sa, *old, group.filter(|group| tried != Some(*group)));
            }
            // Some peers insist on a Diffie-Hellman exchange when rekeying.
            NotifyType::NO_PROPOSAL_CHOSEN if tried.is_none() => {
                self.again_with(now, sa, *old, Some(sa.suite.group));
            }
            _ => {
                self.counters.count(Refusal::BadResponse);
                self.retry(sa, *old, now.plus_ms(RETRY_REFUSED_MS));
            }
        }
    }

    /// Has a Child SA rekeyed at a later moment.
    fn retry(&mut self, sa: &mut IkeSa, spi: Spi, at: Nanos) {
        if let Some(child) = sa.children.get_mut(&spi) {
            child.rekey_at = Some(at);
            self.outcomes.push_back(Outcome::ChildNotRekeyed(spi));
        }
    }

    /// Asks once more with another group, or later if there is none to try.
    fn again_with(&mut self, now: Nanos, sa: &mut IkeSa, spi: Spi, group: Option<Group>) {
        if group.is_none() {
            return self.retry(sa, spi, now.plus_ms(RETRY_REFUSED_MS));
        }
        if let Some(child) = sa.children.get_mut(&spi) {
            child.group = group;
            sa.tasks.insert(Task::RekeyChild(spi));
        }
    }

    /// Checks the answer against what we asked for and derives the keys. Returns the lower nonce too.
    fn finish_child_rekey(
        &self,
        sa: &IkeSa,
        connection: &Connection,
        answered: &Answered,
        contents: &Contents<'_>,
    ) -> Result<(ChildSaParameters, Vec<u8>), Malformed> {
        let Answered { inbound, nonce, suite, private, .. } = answered;
        let outbound_spi = accepted_spi(suite, &contents.proposals()?)?;
        let nonce_r = contents.nonce()?;
        let shared = match (private, contents.key_exchange()?) {
            (None, _) => None,
            (Some(private), Some(ke)) if ke.group == private.group().transform_id() => {
                Some(private.agree(ke.public).map_err(|_| Malformed::Value)?)
            }
            (Some(_), _) => return Err(Malformed::Missing(PayloadType::KE.0)),
        };
        let nonces = Nonces { i: nonce, r: nonce_r };
        let (prf, d) = (sa.suite.prf, &sa.keys.d);
        let keys = ChildKeys::derive(prf, d, suite.cipher, shared.as_ref(), nonces)
            .map_err(|_| Malformed::Value)?;
        let parameters = ChildSaParameters {
            inbound_spi: *inbound,
            outbound_spi,
            inbound_key: keys.from_responder,
            outbound_key: keys.from_initiator,
            esn: suite.esn,
            window_packets: connection.replay_window,
            local: self.config.local,
            remote: *sa.path.remote.ip(),
            encapsulation: sa.path.encapsulation(sa.nat),
            selectors: accepted_selectors(connection, contents)?,
            connection: connection.name.clone(),
        };
        Ok((parameters, nonces.lowest().to_vec()))
    }
}

/// The group the operator asks for when rekeying.
fn wanted_group(connection: &Connection) -> Option<Group> {
    connection.esp_proposals.first()?.groups.first().copied()
}

/// The peer must choose what we offered, unchanged (section 3.3.6).
fn accepted_spi(suite: &ChildSuite, chosen: &[Proposal]) -> Result<Spi, Malformed> {
    let [chosen] = chosen else { return Err(Malformed::Value) };
    let offered = suite.proposal(1, chosen.spi.clone());
    let same = |a: &Proposal, b: &Proposal| a.transforms.iter().all(|t| b.transforms.contains(t));
    let unchanged = chosen.protocol == offered.protocol
        && chosen.number == offered.number
        && same(chosen, &offered)
        && same(&offered, chosen);
    let spi = chosen.spi.as_slice().try_into().map(u32::from_be_bytes);
    match spi.map(Spi::new) {
        Ok(Ok(spi)) if unchanged => Ok(spi),
        _ => Err(Malformed::Value),
    }
}

/// What the peer left of our selectors. The policy in force bounds them, not the old SA: a narrower
/// answer is the peer's fault but harmless.
pub(crate) fn accepted_selectors(
    connection: &Connection,
    contents: &Contents<'_>,
) -> Result<Selectors, Malformed> {
    let (ts_i, ts_r) = contents.selectors()?;
    let side = |body, allowed: &[TrafficSelector]| {
        let chosen = parse_selectors(body)?;
        let within = chosen.iter().all(|chosen| allowed.iter().any(|own| own.covers(chosen)));
        if chosen.is_empty() || !within { Err(Malformed::Value) } else { Ok(chosen) }
    };
    let local = side(ts_i, &connection.local_ts)?;
    let remote = side(ts_r, &connection.remote_ts)?;
    Ok(Selectors { local, remote })
}

fn is_closing(sa: &IkeSa, spi: Spi) -> bool {
    sa.children.get(&spi).is_some_and(|child| child.phase == ChildPhase::Closing)
}

/// A Child SA was to be deleted while its rekey was under way: so is what took its place.
fn close_with_heirs(sa: &mut IkeSa, old: Spi, heirs: impl IntoIterator<Item = Option<Spi>>) {
    heirs.into_iter().flatten().chain([old]).for_each(|spi| close(sa, spi));
}

/// Marks a Child SA superfluous and lets it be deleted.
fn close(sa: &mut IkeSa, spi: Spi) {
    if let Some(child) = sa.children.get_mut(&spi) {
        child.phase = ChildPhase::Closing;
        child.rekey_at = None;
        sa.tasks.insert(Task::CloseChild(spi));
    }
}
