//! Answering CREATE_CHILD_SA: a new Child SA, or the rekey of one (RFC 7296 sections 1.3 and 2.8).

use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;

use crate::child::ChildRefusal;
use crate::codec::{Chain, Contents, Header, Notify, NotifyType, Protocol};
use crate::endpoint::Fate;
use crate::keys::Nonces;
use crate::sa::{CHILDREN_MAX, ChildPhase, Collision, IkeSa, Outstanding, Pending, Phase, Task};
use crate::{Datagram, Ike, Refusal};

/// Milliseconds a side that rekeyed has for deleting what it replaced, before we do it. Longer than
/// peers repeat a request whose answer they do not get: until then they know nothing of the new SA.
pub(crate) const REPLACED_MS: u64 = 300_000;

impl Ike {
    pub(crate) fn create_child_sa(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, contents): (&Header, &Contents<'_>),
    ) -> Fate {
        let mut chain = Chain::new();
        let outcome = match contents.proposals() {
            Err(malformed) => Err(malformed.into()),
            Ok(offers) => {
                let of_ike = offers.iter().any(|offer| offer.protocol == Some(Protocol::Ike));
                if of_ike {
                    self.answer_ike_rekey(now, sa, contents, &offers, &mut chain)
                } else {
                    self.answer_child_request(now, sa, contents, &mut chain)
                }
            }
        };
        match outcome {
            Ok(()) => {
                self.respond(sa, datagram, header, &chain);
                Fate::Keep
            }
            Err(ChildRefusal::Syntax) => self.refuse_syntax(sa, datagram, header),
            Err(ChildRefusal::Notify(kind, refusal, data)) => {
                self.counters.count(refusal);
                // The SPI the peer asked about goes back in the SPI field (section 2.25).
                let notify = if kind == NotifyType::CHILD_SA_NOT_FOUND {
                    Notify::about_esp(kind, &data)
                } else {
                    Notify::new(kind, &data)
                };
                self.respond_notify(sa, datagram, header, &notify)
            }
        }
    }

    fn answer_child_request(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        contents: &Contents<'_>,
        chain: &mut Chain,
    ) -> Result<(), ChildRefusal> {
        let nonce_i = contents.nonce()?;
        let ke = contents.key_exchange()?;
        if sa.phase != Phase::Established || sa.rekeying_ike() {
            return Err(TEMPORARY_FAILURE);
        }
        let rekeyed = rekeyed_child(sa, contents)?;
        if rekeyed.is_none() && sa.children.len() >= CHILDREN_MAX {
            return Err(ChildRefusal::new(NotifyType::NO_ADDITIONAL_SAS, Refusal::SaLimit));
        }
        let connection = self.connection_of(sa).ok_or_else(|| {
            ChildRefusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Refusal::NoProposal)
        })?;
        let agreed = self.agree_child(&connection, contents, Some(ke))?;
        if let Some(old) = rekeyed {
            self.withdraw_replacements(sa, old);
        }
        let nonce_r = self.draw_nonce();
        let nonces = Nonces { i: nonce_i, r: &nonce_r };
        let answer = (Some(&*nonce_r), rekeyed, &mut *chain);
        let made = self.answer_child(now, sa, (&connection, agreed), nonces, answer);
        if let (Some(old), Some(made)) = (rekeyed, made) {
            self.counters.child_rekeys += 1;
            note_rekey(now, sa, old, Collision { made, lowest: nonces.lowest().to_vec() });
        }
        Ok(())
    }

    /// The peer rekeys a Child SA once more: it gave up an earlier request and does not know what that
    /// made here. Nothing was sent with that one yet.
    fn withdraw_replacements(&mut self, sa: &mut IkeSa, old: Spi) {
        let earlier = sa.children.iter().filter(|(_, child)| child.replaces == Some(old));
        for spi in earlier.map(|(spi, _)| *spi).collect::<Vec<_>>() {
            self.withdraw_child(sa, spi);
        }
    }
}

pub(crate) const TEMPORARY_FAILURE: ChildRefusal =
    ChildRefusal::new(NotifyType::TEMPORARY_FAILURE, Refusal::TemporaryFailure);

/// The Child SA a REKEY_SA notification is about, if there is one.
fn rekeyed_child(sa: &IkeSa, contents: &Contents<'_>) -> Result<Option<Spi>, ChildRefusal> {
    let Some(notify) = contents.notify(NotifyType::REKEY_SA) else { return Ok(None) };
    let found = notify.esp_spi().and_then(|spi| sa.child_by_outbound(spi));
    let Some((spi, child)) = found.and_then(|spi| Some((spi, sa.children.get(&spi)?))) else {
        // Only four octets are echoed, whatever length the peer sent.
        let spi = notify.esp_spi().unwrap_or_default().to_be_bytes().to_vec();
        let kind = NotifyType::CHILD_SA_NOT_FOUND;
        return Err(ChildRefusal::Notify(kind, Refusal::ChildSaNotFound, spi));
    };
    if child.phase == ChildPhase::Closing {
        return Err(TEMPORARY_FAILURE);
    }
    Ok(Some(spi))
}

/// The peer has rekeyed a Child SA and will delete the old one; if it does not, we do. If we are
/// rekeying it too, nonces will decide which of the new ones stays (section 2.8.1).
fn note_rekey(now: Nanos, sa: &mut IkeSa, old: Spi, made: Collision<Spi>) {
    if let Some(Outstanding { pending: Pending::RekeyChild { old: ours, collision, .. }, .. }) =
        &mut sa.outstanding
        && *ours == old
    {
        *collision = Some(made);
        return;
    }
    mark_replaced(now, sa, old);
}

/// Leaves a Child SA that the peer has rekeyed to the peer, which deletes it. From here on it is not
/// ours to rekey: a successor that did would make a second replacement.
pub(crate) fn mark_replaced(now: Nanos, sa: &mut IkeSa, old: Spi) {
    sa.tasks.remove(&Task::RekeyChild(old));
    if let Some(child) = sa.children.get_mut(&old) {
        child.phase = ChildPhase::Replaced;
        child.rekey_at = None;
        let limit = now.plus_ms(REPLACED_MS);
        child.expire_at = Some(child.expire_at.map_or(limit, |at| at.min(limit)));
    }
}
