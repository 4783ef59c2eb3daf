//! What all ways to a new Child SA share: choosing its suite and selectors, and making its parameters
//! (RFC 7296 sections 2.7, 2.9 and 2.17).

use holdfast_crypto::{PrivateKey, SecretBytes};
use holdfast_ipsec::{ChildSaParameters, Selectors, Spi, TrafficSelector, narrow};
use holdfast_packet::Nanos;
use rand_core::Rng;

use crate::algorithm::{ChildRequest, ChildSuite, choose_child};
use crate::codec::{
    Chain, Contents, KeyExchange, Malformed, Notify, NotifyType, PayloadType, Proposal,
    emit_selectors, parse_selectors,
};
use crate::config::Connection;
use crate::keys::{ChildKeys, Nonces};
use crate::sa::{Child, ChildPhase, IkeSa, Task};
use crate::{Ike, Refusal};

/// Traffic selectors of one side a peer may propose: each costs a comparison with ours, and the whole
/// set is kept in every member.
const PROPOSED_SELECTORS_MAX: usize = 64;

/// Why a Child SA cannot be made; the exchange around it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChildRefusal {
    /// The request is malformed: fatal for the IKE SA (section 2.21.3).
    Syntax,
    /// To be answered with this notification.
    Notify(NotifyType, Refusal, Vec<u8>),
}

impl From<Malformed> for ChildRefusal {
    fn from(_: Malformed) -> Self {
        Self::Syntax
    }
}

impl ChildRefusal {
    pub(crate) const fn new(kind: NotifyType, refusal: Refusal) -> Self {
        Self::Notify(kind, refusal, Vec::new())
    }
}

/// A Child SA agreed upon with us as the exchange's responder.
#[derive(Debug)]
pub(crate) struct Agreed {
    number: u8,
    pub(crate) suite: ChildSuite,
    outbound_spi: Spi,
    /// Our public value and the shared secret, if the exchange has Diffie-Hellman of its own.
    exchange: Option<(Vec<u8>, SecretBytes)>,
    selectors: Selectors,
}

impl Ike {
    /// Makes the Child SA that IKE_AUTH asks for, or says in `chain` why not: the IKE SA stands either
    /// way (section 1.2).
    pub(crate) fn first_child(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        connection: &Connection,
        contents: &Contents<'_>,
        nonces: Nonces<'_>,
        chain: &mut Chain,
    ) {
        match self.agree_child(connection, contents, None) {
            Ok(agreed) => {
                self.answer_child(now, sa, (connection, agreed), nonces, (None, None, chain));
            }
            Err(ChildRefusal::Syntax) => {
                self.counters.count(Refusal::Malformed);
                chain.notify(&Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, &[]));
            }
            Err(ChildRefusal::Notify(kind, refusal, data)) => {
                self.counters.count(refusal);
                chain.notify(&Notify::new(kind, &data));
            }
        }
    }

    /// Chooses suite and selectors for a Child SA the peer asks for. `ke` is the KE payload of a
    /// CREATE_CHILD_SA request, and `None` in IKE_AUTH.
    pub(crate) fn agree_child(
        &mut self,
        connection: &Connection,
        contents: &Contents<'_>,
        ke: Option<Option<KeyExchange<'_>>>,
    ) -> Result<Agreed, ChildRefusal> {
        let no_proposal = ChildRefusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Refusal::NoProposal);
        let offers = contents.proposals()?;
        let ke_group = ke.map(|ke| ke.map_or(0, |ke| ke.group));
        let request = ChildRequest { esn: connection.esn, ke_group };
        let chosen = choose_child(&connection.esp_proposals, &offers, request);
        let (suite, number, outbound_spi) = chosen.ok_or(no_proposal.clone())?;
        let outbound_spi = Spi::new(outbound_spi).map_err(|_| no_proposal)?;
        let exchange = match suite.group {
            None => None,
            Some(group) => {
                let matching = ke.flatten().filter(|ke| ke.group == group.transform_id());
                let Some(ke) = matching else {
                    let wanted = group.transform_id().to_be_bytes().to_vec();
                    let kind = NotifyType::INVALID_KE_PAYLOAD;
                    return Err(ChildRefusal::Notify(kind, Refusal::InvalidKe, wanted));
                };
                let private = PrivateKey::generate(group, &mut self.random);
                let shared = private.agree(ke.public).map_err(|_| {
                    ChildRefusal::new(NotifyType::INVALID_SYNTAX, Refusal::PublicValue)
                })?;
                Some((private.public_bytes(), shared))
            }
        };
        let selectors = narrowed(connection, contents)?;
        Ok(Agreed { number, suite, outbound_spi, exchange, selectors })
    }

    /// Installs what was agreed upon and appends the answer. `nonce` is ours in CREATE_CHILD_SA.
    /// Returns the inbound SPI.
    pub(crate) fn answer_child(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        (connection, agreed): (&Connection, Agreed),
        nonces: Nonces<'_>,
        (nonce, replaces, chain): (Option<&[u8]>, Option<Spi>, &mut Chain),
    ) -> Option<Spi> {
        let inbound_spi = self.draw_spi();
        let shared = agreed.exchange.as_ref().map(|(_, shared)| shared);
        let cipher = agreed.suite.cipher;
        let keys = ChildKeys::derive(sa.suite.prf, &sa.keys.d, cipher, shared, nonces);
        let Ok(keys) = keys else {
            chain.notify(&Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, &[]));
            return None;
        };
        let proposal =
            agreed.suite.proposal(agreed.number, inbound_spi.get().to_be_bytes().to_vec());
        chain.push(PayloadType::SA, Proposal::emit_all(&[proposal]));
        if let Some(nonce) = nonce {
            chain.push(PayloadType::NONCE, nonce.to_vec());
        }
        if let (Some(group), Some((public, _))) = (agreed.suite.group, &agreed.exchange) {
            let ke = KeyExchange { group: group.transform_id(), public };
            chain.push(PayloadType::KE, ke.emit());
        }
        chain.push(PayloadType::TS_I, emit_selectors(&agreed.selectors.remote));
        chain.push(PayloadType::TS_R, emit_selectors(&agreed.selectors.local));
        let parameters = ChildSaParameters {
            inbound_spi,
            outbound_spi: agreed.outbound_spi,
            inbound_key: keys.from_initiator,
            outbound_key: keys.from_responder,
            esn: agreed.suite.esn,
            window_packets: connection.replay_window,
            local: self.config.local,
            remote: *sa.path.remote.ip(),
            encapsulation: sa.path.encapsulation(sa.nat),
            selectors: agreed.selectors,
            connection: connection.name.clone(),
        };
        self.install(now, sa, connection, (parameters, agreed.suite, replaces));
        Some(inbound_spi)
    }

    /// Adds a Child SA to its IKE SA and to the changes.
    pub(crate) fn install(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        connection: &Connection,
        (parameters, suite, replaces): (ChildSaParameters, ChildSuite, Option<Spi>),
    ) {
        let (rekey_at, expire_at) = self.lifetime(now, connection.child_lifetime_s);
        let spi = parameters.inbound_spi;
        self.step.installed.push((sa.local_spi, parameters.clone(), replaces));
        self.child_owners.insert(spi, sa.local_spi);
        let group = suite.group;
        let phase = ChildPhase::Installed;
        sa.children.insert(spi, Child { parameters, group, phase, replaces, rekey_at, expire_at });
    }

    /// Removes a Child SA from its IKE SA and tells so.
    pub(crate) fn remove_child(&mut self, sa: &mut IkeSa, spi: Spi) -> Option<Child> {
        let child = sa.children.remove(&spi)?;
        sa.tasks.retain(|task| *task != Task::RekeyChild(spi));
        self.child_owners.remove(&spi);
        self.step.removed.push(spi);
        Some(child)
    }

    /// Removes a Child SA that the peer may not have at once, and tells the peer, which ignores what it
    /// does not know.
    pub(crate) fn withdraw_child(&mut self, sa: &mut IkeSa, spi: Spi) {
        self.remove_child(sa, spi);
        sa.tasks.insert(Task::CloseChild(spi));
    }

    /// A fresh inbound SPI, whose low bits name a worker that exists.
    pub(crate) fn draw_spi(&mut self) -> Spi {
        let workers = self.config.workers.max(1);
        let mask = workers.checked_next_power_of_two().map_or(u32::MAX, |power| power - 1);
        loop {
            if let Ok(spi) = Spi::new(self.random.next_u32())
                && spi.worker(mask) < workers
                && !self.child_owners.contains_key(&spi)
            {
                return spi;
            }
        }
    }

    /// When an SA that is made now is rekeyed and when it expires: at nine tenths of its life, earlier
    /// by up to a tenth at random, so that not all are due at once (section 2.8).
    pub(crate) fn lifetime(
        &mut self,
        now: Nanos,
        lifetime_s: u32,
    ) -> (Option<Nanos>, Option<Nanos>) {
        if lifetime_s == 0 {
            return (None, None);
        }
        let life_ms = u64::from(lifetime_s) * 1000;
        let jitter_ms = self.random.next_u64() % (life_ms / 10).max(1);
        let rekey = now.plus_ms((life_ms / 10 * 9).saturating_sub(jitter_ms));
        (Some(rekey), Some(now.plus_ms(life_ms)))
    }
}

/// The part of the proposed selectors that is allowed.
fn narrowed(connection: &Connection, contents: &Contents<'_>) -> Result<Selectors, ChildRefusal> {
    let unacceptable =
        ChildRefusal::new(NotifyType::TS_UNACCEPTABLE, Refusal::SelectorsUnacceptable);
    let (ts_i, ts_r) = contents.selectors()?;
    let side = |body, allowed: &[TrafficSelector]| {
        let proposed = parse_selectors(body)?;
        if proposed.len() > PROPOSED_SELECTORS_MAX {
            return Err(Malformed::TooMany);
        }
        Ok(narrow(&proposed, allowed))
    };
    let remote = side(ts_i, &connection.remote_ts)?;
    let local = side(ts_r, &connection.local_ts)?;
    if remote.is_empty() || local.is_empty() {
        return Err(unacceptable);
    }
    Ok(Selectors { local, remote })
}
