//! Rekeying IKE SAs, from both sides (RFC 7296 sections 1.3.2, 2.8.2 and 2.18).

use holdfast_crypto::{CryptoError, PrivateKey, SecretBytes};
use holdfast_packet::Nanos;

use crate::algorithm::{IkeSuite, choose_ike};
use crate::child::ChildRefusal;
use crate::codec::{
    Chain, Contents, ExchangeType, KeyExchange, Malformed, NotifyType, PayloadType, Proposal,
};
use crate::create_child::{REPLACED_MS, TEMPORARY_FAILURE};
use crate::keys::{IkeKeys, Nonces, skeyseed_of_rekey};
use crate::rekey_child::{RETRY_REFUSED_MS, RETRY_TEMPORARY_MS};
use crate::sa::{Collision, IkeSa, Outstanding, Pending, Phase, Seed, Task};
use crate::{Ike, IkeSpi, Refusal};

/// The two SPIs of a new IKE SA and who began it.
struct NewSpis {
    local: IkeSpi,
    remote: u64,
    ours: bool,
}

impl Ike {
    /// Answers the peer's rekey of an IKE SA.
    pub(crate) fn answer_ike_rekey(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        contents: &Contents<'_>,
        offers: &[Proposal],
        chain: &mut Chain,
    ) -> Result<(), ChildRefusal> {
        let no_proposal = ChildRefusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Refusal::NoProposal);
        let nonce_i = contents.nonce()?;
        let ke = contents.key_exchange()?.ok_or(Malformed::Missing(PayloadType::KE.0))?;
        if sa.phase != Phase::Established || sa.changing_children() {
            return Err(TEMPORARY_FAILURE);
        }
        let connection = self.connection_of(sa).ok_or(no_proposal.clone())?;
        let chosen = choose_ike(&connection.ike_proposals, offers, ke.group);
        let (suite, number, spi) = chosen.ok_or(no_proposal.clone())?;
        let remote = spi.as_slice().try_into().map(u64::from_be_bytes).unwrap_or_default();
        if remote == 0 {
            return Err(no_proposal);
        }
        let group = suite.group.transform_id();
        if group != ke.group {
            let wanted = group.to_be_bytes().to_vec();
            let kind = NotifyType::INVALID_KE_PAYLOAD;
            return Err(ChildRefusal::Notify(kind, Refusal::InvalidKe, wanted));
        }
        let illegal = ChildRefusal::new(NotifyType::INVALID_SYNTAX, Refusal::PublicValue);
        let private = PrivateKey::generate(suite.group, &mut self.random);
        let shared = private.agree(ke.public).map_err(|_| illegal.clone())?;
        let nonce_r = self.draw_nonce();
        let nonces = Nonces { i: nonce_i, r: &nonce_r };
        let spis = NewSpis { local: self.draw_ike_spi(), remote, ours: false };
        let local = spis.local;
        let mut new = self.heir(now, sa, suite, spis, (nonces, &shared)).map_err(|_| illegal)?;
        let proposal = suite.proposal(number, local.0.to_be_bytes().to_vec());
        chain.push(PayloadType::SA, Proposal::emit_all(&[proposal]));
        chain.push(PayloadType::NONCE, nonce_r.clone());
        let ke = KeyExchange { group, public: &private.public_bytes() };
        chain.push(PayloadType::KE, ke.emit());
        self.counters.ike_rekeys += 1;
        let made = Collision { made: local, lowest: nonces.lowest().to_vec() };
        match &mut sa.outstanding {
            // Nonces will decide who inherits the Child SAs.
            Some(Outstanding { pending: Pending::RekeyIke { collision, .. }, .. }) => {
                *collision = Some(made);
            }
            _ => self.inherit(now, sa, &mut new),
        }
        self.keep(new);
        Ok(())
    }

    pub(crate) fn start_ike_rekey(&mut self, now: Nanos, sa: &mut IkeSa) {
        let suite = sa.suite;
        let spi = self.draw_ike_spi();
        let nonce = self.draw_nonce();
        let private = PrivateKey::generate(suite.group, &mut self.random);
        let proposal = suite.proposal(1, spi.0.to_be_bytes().to_vec());
        let group = suite.group.transform_id();
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, Proposal::emit_all(&[proposal]));
        chain.push(PayloadType::NONCE, nonce.clone());
        let ke = KeyExchange { group, public: &private.public_bytes() };
        chain.push(PayloadType::KE, ke.emit());
        let pending = Pending::RekeyIke { spi, nonce, suite, private, collision: None };
        self.request(now, sa, (ExchangeType::CreateChildSa, &chain), pending);
    }

    /// The peer answered our rekey of the IKE SA.
    pub(crate) fn ike_rekeyed(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        pending: Pending,
        contents: &Contents<'_>,
    ) {
        let Pending::RekeyIke { spi, nonce, suite, private, collision } = pending else { return };
        let new = self.finish_ike_rekey(now, sa, (spi, &nonce, &suite, &private), contents);
        let Ok((mut new, lowest)) = new else {
            return self.ike_rekey_failed(now, sa, contents, collision);
        };
        self.counters.ike_rekeys += 1;
        let rival = collision.and_then(|peers| Some((self.sas.remove(&peers.made)?, peers.lowest)));
        match rival {
            Some((mut rival, peers_lowest)) if lowest < peers_lowest => {
                // Ours is redundant and ours to delete; the peer deletes the old one.
                self.inherit(now, sa, &mut rival);
                new.phase = Phase::Closing;
                new.tasks.insert(Task::CloseIke);
                self.start_next(now, &mut new);
                self.keep(rival);
            }
            rival => {
                self.inherit(now, sa, &mut new);
                sa.rekey_at = None;
                sa.tasks.insert(Task::CloseIke);
                if let Some((mut rival, _)) = rival {
                    // The peer made it and deletes it; if it does not, we do.
                    rival.phase = Phase::Replaced;
                    rival.rekey_at = Some(now.plus_ms(REPLACED_MS));
                    self.keep(rival);
                }
            }
        }
        self.keep(new);
    }

    fn finish_ike_rekey(
        &mut self,
        now: Nanos,
        sa: &IkeSa,
        (local, nonce, suite, private): (IkeSpi, &[u8], &IkeSuite, &PrivateKey),
        contents: &Contents<'_>,
    ) -> Result<(IkeSa, Vec<u8>), Malformed> {
        if contents.error().is_some() {
            return Err(Malformed::Value);
        }
        let remote = accepted_spi(suite, &contents.proposals()?)?;
        let nonce_r = contents.nonce()?;
        let ke = contents.key_exchange()?.ok_or(Malformed::Missing(PayloadType::KE.0))?;
        if ke.group != suite.group.transform_id() {
            return Err(Malformed::Value);
        }
        let shared = private.agree(ke.public).map_err(|_| Malformed::Value)?;
        let nonces = Nonces { i: nonce, r: nonce_r };
        let spis = NewSpis { local, remote, ours: true };
        let new = self.heir(now, sa, *suite, spis, (nonces, &shared));
        Ok((new.map_err(|_| Malformed::Value)?, nonces.lowest().to_vec()))
    }

    fn ike_rekey_failed(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        contents: &Contents<'_>,
        collision: Option<Collision<IkeSpi>>,
    ) {
        if let Some(mut rival) = collision.and_then(|peers| self.sas.remove(&peers.made)) {
            // Only the peer's rekey went through, and it deletes the old IKE SA.
            self.inherit(now, sa, &mut rival);
            self.keep(rival);
            return;
        }
        let temporary = contents.notify(NotifyType::TEMPORARY_FAILURE).is_some();
        if !temporary {
            self.counters.count(Refusal::BadResponse);
        }
        let wait_ms = if temporary { RETRY_TEMPORARY_MS } else { RETRY_REFUSED_MS };
        sa.rekey_at = Some(now.plus_ms(wait_ms));
    }

    /// The peer deletes an IKE SA that we are rekeying: our attempt is forgotten, and if the peer had
    /// rekeyed it too, that one inherits (section 2.8.2).
    pub(crate) fn forget_own_rekey(&mut self, now: Nanos, sa: &mut IkeSa) {
        let Some(Outstanding { pending: Pending::RekeyIke { collision, .. }, .. }) =
            sa.outstanding.take()
        else {
            return;
        };
        if let Some(mut rival) = collision.and_then(|peers| self.sas.remove(&peers.made)) {
            self.inherit(now, sa, &mut rival);
            self.keep(rival);
        }
    }

    /// A new IKE SA between the same two parties, without Child SAs yet.
    fn heir(
        &mut self,
        now: Nanos,
        old: &IkeSa,
        suite: IkeSuite,
        spis: NewSpis,
        (nonces, shared): (Nonces<'_>, &SecretBytes),
    ) -> Result<IkeSa, CryptoError> {
        let seed = skeyseed_of_rekey(old.suite.prf, &old.keys.d, nonces, shared);
        let (spi_i, spi_r) =
            if spis.ours { (spis.local.0, spis.remote) } else { (spis.remote, spis.local.0) };
        let keys = IkeKeys::derive(&suite, &seed, nonces, spi_i, spi_r)?;
        let seed = Seed {
            local_spi: spis.local,
            remote_spi: spis.remote,
            original_initiator: spis.ours,
            path: old.path,
            nat: old.nat,
            fragmentation: old.fragmentation,
            suite,
            keys,
        };
        let mut new = IkeSa::establish(old.authenticated.clone(), seed);
        new.sync = old.sync;
        self.schedule(now, &mut new);
        Ok(new)
    }

    /// Moves Child SAs and what is to be done with them to the IKE SA that replaces `old`
    /// (section 2.8). `old` waits for its deletion. When it was being closed while the rekey was under
    /// way, the peer moved its Child SAs to `new` all the same: then that one is closed.
    fn inherit(&mut self, now: Nanos, old: &mut IkeSa, new: &mut IkeSa) {
        for (spi, child) in std::mem::take(&mut old.children) {
            self.child_owners.insert(spi, new.local_spi);
            self.step.installed.push((new.local_spi, child.parameters.clone(), None));
            new.children.insert(spi, child);
        }
        if old.phase == Phase::Closing {
            new.phase = Phase::Closing;
            new.tasks.insert(Task::CloseIke);
        }
        let of_children = |task: &Task| matches!(task, Task::CloseChild(_) | Task::RekeyChild(_));
        new.tasks.extend(std::mem::take(&mut old.tasks).into_iter().filter(of_children));
        old.phase = Phase::Replaced;
        old.rekey_at = Some(now.plus_ms(REPLACED_MS));
        old.expire_at = None;
        old.liveness_at = None;
        self.step.dirty.extend([old.local_spi, new.local_spi]);
        self.start_next(now, new);
    }
}

/// The peer must choose what we offered, unchanged (section 3.3.6).
fn accepted_spi(suite: &IkeSuite, chosen: &[Proposal]) -> Result<u64, Malformed> {
    let [chosen] = chosen else { return Err(Malformed::Value) };
    let offered = suite.proposal(1, chosen.spi.clone());
    let same = |a: &Proposal, b: &Proposal| a.transforms.iter().all(|t| b.transforms.contains(t));
    let unchanged = chosen.protocol == offered.protocol
        && chosen.number == offered.number
        && same(chosen, &offered)
        && same(&offered, chosen);
    match chosen.spi.as_slice().try_into().map(u64::from_be_bytes) {
        Ok(spi) if unchanged && spi != 0 => Ok(spi),
        _ => Err(Malformed::Value),
    }
}
