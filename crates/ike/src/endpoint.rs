//! The machine: inputs in, steps out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::codec::{
    Chain, Contents, ExchangeType, HEADER_LEN, Header, Malformed, Notify, NotifyType, PayloadType,
};
use crate::config::{Connection, IkeConfig};
use crate::cookie::CookieJar;
use crate::fragment::{Fragment, Reassembly};
use crate::half_open::HalfOpenTable;
use crate::init::plain_message;
use crate::initiate::{Initiation, Stage};
use crate::protect::DirectionKeys;
use crate::ready::Step;
use crate::sa::{ChildPhase, IkeSa, Path, Phase, Task};
use crate::state::Record;
use crate::sync::SyncSupport;
use crate::{Change, Datagram, IkeCounters, IkeError, IkeSpi, Outcome, Ready, Refusal, state};

/// Milliseconds a closed IKE SA repeats its last answer for peers that did not get it.
const DEPARTED_MS: u64 = 30_000;
/// Closed IKE SAs that are kept for that.
const DEPARTED_MAX: usize = 1024;
/// The highest major version we speak.
const MAJOR_VERSION: u8 = 2;
/// Milliseconds between two complaints about a higher major version (section 2.21.4).
const COMPLAINT_MS: u64 = 1000;

/// Whether an IKE SA lives on after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Fate {
    Keep,
    Discard,
}

/// An IKEv2 responder that also rekeys, deletes and checks what it established, and begins new IKE SAs in
/// place of those it took over.
///
/// Inputs are the `handle_…` methods and the requests of our own side; after each of them, call
/// [`poll_ready`](Self::poll_ready) until it is empty and ask [`poll_timeout`](Self::poll_timeout) when
/// to come back. `now` must not run backwards.
#[derive(Debug)]
pub struct Ike {
    pub(crate) config: IkeConfig,
    pub(crate) random: ChaCha20Rng,
    pub(crate) sas: BTreeMap<IkeSpi, IkeSa>,
    pub(crate) half_open: HalfOpenTable,
    /// IKE SAs we have begun, by our SPI, and when each is due.
    pub(crate) initiations: BTreeMap<IkeSpi, Initiation>,
    pub(crate) initiation_timers: BTreeSet<(Nanos, IkeSpi)>,
    /// Closed IKE SAs, which only repeat their last answer.
    pub(crate) departed: BTreeMap<IkeSpi, IkeSa>,
    departed_until: VecDeque<(Nanos, IkeSpi)>,
    /// Forgotten IKE SAs whose memory is still to be wiped and freed.
    discarded: Vec<BTreeMap<IkeSpi, IkeSa>>,
    /// The IKE SA of every Child SA; SPIs reserved for exchanges under way included.
    pub(crate) child_owners: BTreeMap<Spi, IkeSpi>,
    pub(crate) cookies: CookieJar,
    pub(crate) counters: IkeCounters,
    pub(crate) step: Step,
    timers: BTreeSet<(Nanos, IkeSpi)>,
    /// IKE SAs by where their peers are.
    pub(crate) places: BTreeSet<(Ipv4Addr, IkeSpi)>,
    ready: VecDeque<Ready>,
    pub(crate) outcomes: VecDeque<Outcome>,
    readies: u64,
    complained: Option<Nanos>,
}

/// What an operator may see of an IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaSummary {
    /// Our SPI, its name here.
    pub spi: IkeSpi,
    /// SPI of the original initiator.
    pub spi_i: u64,
    /// SPI of the original responder.
    pub spi_r: u64,
    /// The connection it was made for.
    pub connection: String,
    /// The peer's address and port.
    pub peer: std::net::SocketAddrV4,
    /// Who the peer proved to be.
    pub identity: crate::Identity,
    /// `established`, `replaced` or `closing`.
    pub state: &'static str,
    /// Inbound SPIs of its Child SAs.
    pub children: Vec<Spi>,
    /// What both ends can synchronise after a failover.
    pub sync: SyncSupport,
}

impl Ike {
    /// A machine that knows no SAs yet. `seed` must come from a good source of randomness and never be
    /// used twice: nonces, SPIs and private values are drawn from it.
    #[must_use]
    pub fn new(config: IkeConfig, seed: [u8; 32]) -> Self {
        let mut random = ChaCha20Rng::from_seed(seed);
        let cookies = CookieJar::new(&mut random);
        Self {
            config,
            random,
            sas: BTreeMap::new(),
            half_open: HalfOpenTable::default(),
            initiations: BTreeMap::new(),
            initiation_timers: BTreeSet::new(),
            departed: BTreeMap::new(),
            departed_until: VecDeque::new(),
            discarded: Vec::new(),
            child_owners: BTreeMap::new(),
            cookies,
            counters: IkeCounters::default(),
            step: Step::default(),
            timers: BTreeSet::new(),
            places: BTreeSet::new(),
            ready: VecDeque::new(),
            outcomes: VecDeque::new(),
            readies: 0,
            complained: None,
        }
    }

    /// Takes in one datagram from the network.
    pub fn handle_datagram(&mut self, now: Nanos, datagram: &Datagram) {
        self.dispatch(now, datagram);
        self.flush(now);
    }

    /// Does what has become due; call it at [`poll_timeout`](Self::poll_timeout) or any other time.
    pub fn handle_timeout(&mut self, now: Nanos) {
        for _ in 0..self.half_open.expire(now) {
            self.counters.count(Refusal::HalfOpenTimeout);
        }
        self.initiations_timeout(now);
        while let Some((at, spi)) = self.departed_until.front().copied()
            && at <= now
        {
            self.departed_until.pop_front();
            self.departed.remove(&spi);
        }
        while let Some((at, spi)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(mut sa) = self.sas.remove(&spi) else { continue };
            sa.indexed = None;
            let fate = self.sa_timeout(now, &mut sa);
            self.settle(now, sa, fate);
            self.flush(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        let sas = self.timers.first().map(|(at, _)| *at);
        let departed = self.departed_until.front().map(|(at, _)| *at);
        let begun = self.initiation_timers.first().map(|(at, _)| *at);
        [sas, departed, begun, self.half_open.deadline()].into_iter().flatten().min()
    }

    /// The next step, if there is one.
    pub fn poll_ready(&mut self) -> Option<Ready> {
        self.ready.pop_front()
    }

    /// How the next of the things our own side asked for came out; ask after every input.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// Rekeys a Child SA as soon as the window of its IKE SA is free (RFC 7296 section 1.3.3).
    ///
    /// # Errors
    /// [`IkeError::NoChildSa`], or [`IkeError::Busy`] when it is being replaced or closed already.
    pub fn rekey_child(&mut self, now: Nanos, spi: Spi) -> Result<(), IkeError> {
        self.child_task(now, spi, Task::RekeyChild(spi))
    }

    /// Closes a Child SA.
    ///
    /// # Errors
    /// [`IkeError::NoChildSa`], or [`IkeError::Busy`] when it is being closed already.
    pub fn delete_child(&mut self, now: Nanos, spi: Spi) -> Result<(), IkeError> {
        self.child_task(now, spi, Task::CloseChild(spi))
    }

    /// Rekeys an IKE SA as soon as its window is free (RFC 7296 section 1.3.2).
    ///
    /// # Errors
    /// [`IkeError::NoIkeSa`], or [`IkeError::Busy`] when it is being replaced or closed already.
    pub fn rekey_ike(&mut self, now: Nanos, spi: IkeSpi) -> Result<(), IkeError> {
        self.ike_task(now, spi, Task::RekeyIke)
    }

    /// Closes an IKE SA and all its Child SAs.
    ///
    /// # Errors
    /// [`IkeError::NoIkeSa`], or [`IkeError::Busy`] when it is being closed already.
    pub fn delete_ike(&mut self, now: Nanos, spi: IkeSpi) -> Result<(), IkeError> {
        self.ike_task(now, spi, Task::CloseIke)
    }

    /// Asks the peer whether it lives (RFC 7296 section 2.4). No answer closes the IKE SA.
    ///
    /// # Errors
    /// [`IkeError::NoIkeSa`], or [`IkeError::Busy`] when it is being replaced or closed already.
    pub fn check_liveness(&mut self, now: Nanos, spi: IkeSpi) -> Result<(), IkeError> {
        self.ike_task(now, spi, Task::Liveness)
    }

    /// Takes up IKE SAs that were exported by [`Change::PutIkeSa`]: here, or by a predecessor whose
    /// place we take. Requests under way are due at once. Returns what could not be read; the
    /// rest is restored all the same.
    pub fn restore<'a>(
        &mut self,
        now: Nanos,
        ike_sas: impl Iterator<Item = (IkeSpi, &'a [u8])>,
    ) -> Vec<IkeError> {
        let mut errors = Vec::new();
        for (spi, bytes) in ike_sas {
            match state::decode(now, spi, bytes) {
                Ok(Record::Begun(begun)) => {
                    if let Stage::Auth(auth) = &begun.stage {
                        self.child_owners.insert(auth.inbound, spi);
                    }
                    self.put_initiation(spi, *begun);
                }
                Ok(Record::Sa(sa)) => {
                    let mut sa = *sa;
                    self.child_owners.extend(sa.children.keys().map(|child| (*child, spi)));
                    self.child_owners.extend(sa.reserved_spi().map(|child| (child, spi)));
                    self.heard(now, &mut sa);
                    // Spread out, or all peers of a predecessor would be asked at one moment.
                    if let Some(at) = sa.liveness_at {
                        let wait_ms = self.random.next_u64() % at.ms_since(now).max(1);
                        sa.liveness_at = Some(now.plus_ms(wait_ms.saturating_add(1)));
                    }
                    self.start_next(now, &mut sa);
                    self.put_back(sa);
                }
                Err(reason) => errors.push(IkeError::Restore(spi, reason)),
            }
        }
        self.flush(now);
        errors
    }

    /// Says that the peer made the Child SA `new` in place of `old`, which is still there, as
    /// [`Change::PutChildSa`] told when it was made: for a successor, after [`restore`](Self::restore).
    /// Should the peer rekey `old` once more, it does not know `new`, and that one is withdrawn.
    pub fn note_replacement(&mut self, new: Spi, old: Spi) {
        let sa = self.child_owners.get(&new).and_then(|owner| self.sas.get_mut(owner));
        if let Some(child) = sa.and_then(|sa| sa.children.get_mut(&new)) {
            child.replaces = Some(old);
        }
    }

    /// Forgets everything, steps not yet polled included: for a member that is not the owner any more.
    ///
    /// Nothing is known of the IKE SAs from now on. Their keys are wiped by
    /// [`wipe_some`](Self::wipe_some): with a hundred thousand of them that takes longer than a lease lasts.
    pub fn clear(&mut self) {
        let forgotten = std::mem::take(&mut self.sas);
        if !forgotten.is_empty() {
            self.discarded.push(forgotten);
        }
        self.half_open.clear();
        self.initiations.clear();
        self.initiation_timers.clear();
        self.departed.clear();
        self.departed_until.clear();
        self.child_owners.clear();
        self.timers.clear();
        self.places.clear();
        self.ready.clear();
        self.outcomes.clear();
        self.step = Step::default();
    }

    /// Wipes and frees at most `most` of the IKE SAs forgotten by [`clear`](Self::clear).
    pub fn wipe_some(&mut self, most: usize) {
        for _ in 0..most {
            let Some(map) = self.discarded.last_mut() else { return };
            if map.pop_first().is_none() {
                self.discarded.pop();
            }
        }
    }

    /// Whether [`wipe_some`](Self::wipe_some) has something to do.
    #[must_use]
    pub fn has_unwiped(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &IkeCounters {
        &self.counters
    }

    /// Half-open IKE SAs at the moment.
    #[must_use]
    pub const fn half_open(&self) -> usize {
        self.half_open.open()
    }

    /// IKE SAs being begun by us.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.initiations.len()
    }

    /// Every IKE SA, in the order of SPIs.
    pub fn sas(&self) -> impl Iterator<Item = IkeSaSummary> + '_ {
        self.sas.values().map(|sa| IkeSaSummary {
            spi: sa.local_spi,
            spi_i: sa.spi_i(),
            spi_r: sa.spi_r(),
            connection: sa.authenticated.connection().to_owned(),
            peer: sa.path.remote,
            identity: sa.authenticated.identity().clone(),
            state: match sa.phase {
                Phase::Established => "established",
                Phase::Replaced => "replaced",
                Phase::Closing => "closing",
            },
            children: sa.children.keys().copied().collect(),
            sync: sa.sync,
        })
    }

    fn child_task(&mut self, now: Nanos, spi: Spi, task: Task) -> Result<(), IkeError> {
        let missing = IkeError::NoChildSa(spi.get());
        let owner = *self.child_owners.get(&spi).ok_or(missing.clone())?;
        let sa = self.sas.get_mut(&owner).ok_or(missing.clone())?;
        let free = sa.phase == Phase::Established;
        let child = sa.children.get_mut(&spi).ok_or(missing)?;
        let deletes = task == Task::CloseChild(spi);
        let possible = match child.phase {
            ChildPhase::Installed => true,
            ChildPhase::Replaced => deletes,
            ChildPhase::Closing => false,
        };
        if !free || !possible {
            return Err(IkeError::Busy);
        }
        if deletes {
            child.phase = ChildPhase::Closing;
        }
        self.add_task(now, owner, task);
        Ok(())
    }

    pub(crate) fn ike_task(&mut self, now: Nanos, spi: IkeSpi, task: Task) -> Result<(), IkeError> {
        let sa = self.sas.get_mut(&spi).ok_or(IkeError::NoIkeSa(spi))?;
        match (sa.phase, task) {
            (Phase::Closing, _) => return Err(IkeError::Busy),
            (_, Task::CloseIke) => sa.phase = Phase::Closing,
            (Phase::Replaced, _) => return Err(IkeError::Busy),
            (Phase::Established, _) => {}
        }
        self.add_task(now, spi, task);
        Ok(())
    }

    pub(crate) fn add_task(&mut self, now: Nanos, spi: IkeSpi, task: Task) {
        if let Some(mut sa) = self.sas.remove(&spi) {
            sa.tasks.insert(task);
            self.start_next(now, &mut sa);
            self.step.dirty.insert(spi);
            self.put_back(sa);
            self.flush(now);
        }
    }

    /// The connection an IKE SA was made for, unless the operator took it away.
    pub(crate) fn connection_of(&self, sa: &IkeSa) -> Option<Connection> {
        let name = sa.authenticated.connection();
        self.config.connections.iter().find(|connection| connection.name == name).cloned()
    }

    fn dispatch(&mut self, now: Nanos, datagram: &Datagram) {
        let (header, first) = match Header::parse(&datagram.payload) {
            Ok((header, first)) => (header, PayloadType(first)),
            Err(Malformed::Version(version)) => return self.other_version(now, version, datagram),
            Err(_) => return self.counters.count(Refusal::Malformed),
        };
        if header.exchange == ExchangeType::IkeSaInit && !header.response {
            return self.handle_init(now, datagram, &header, first);
        }
        let own = IkeSpi(if header.from_initiator { header.spi_r } else { header.spi_i });
        let Ok(outer) = Contents::parse(first, &datagram.payload, HEADER_LEN) else {
            return self.counters.count(Refusal::Malformed);
        };
        if header.exchange == ExchangeType::IkeSaInit {
            return self.handle_init_response(now, datagram, (&header, &outer));
        }
        if let Some(mut sa) = self.sas.remove(&own) {
            let fate = if !sa.fits(&header) {
                self.counters.count(Refusal::UnknownSpi);
                Fate::Keep
            } else if header.response {
                self.handle_response(now, &mut sa, datagram, (&header, &outer))
            } else {
                self.handle_request(now, &mut sa, datagram, (&header, &outer))
            };
            return self.settle(now, sa, fate);
        }
        if let Some(mut sa) = self.departed.remove(&own) {
            if sa.fits(&header) && !header.response {
                // It can only be a repetition: nothing was expected after the last answer.
                self.handle_departed(now, &mut sa, datagram, (&header, &outer));
            } else {
                self.counters.count(Refusal::UnknownSpi);
            }
            self.departed.insert(own, sa);
            return;
        }
        if !header.from_initiator && self.initiations.contains_key(&own) {
            return self.handle_auth_response(now, datagram, (&header, &outer));
        }
        if header.from_initiator && self.half_open.contains(own) {
            return self.handle_auth(now, datagram, &header, &outer);
        }
        self.counters.count(Refusal::UnknownSpi);
    }

    /// A higher major version is told about ours, rarely (sections 2.5 and 2.21.4).
    fn other_version(&mut self, now: Nanos, version: u8, datagram: &Datagram) {
        self.counters.count(Refusal::Version);
        let recently = self.complained.is_some_and(|at| now.ms_since(at) < COMPLAINT_MS);
        if version <= MAJOR_VERSION || recently {
            return;
        }
        // The header's first 18 octets and the Message ID are where they are in version 2.
        let mut as_ours = datagram.payload.clone();
        if let Some(octet) = as_ours.get_mut(17) {
            *octet = MAJOR_VERSION << 4;
        }
        let Ok((header, _)) = Header::parse(&as_ours) else { return };
        if header.response {
            return;
        }
        self.complained = Some(now);
        let mut chain = Chain::new();
        chain.notify(&Notify::new(NotifyType::INVALID_MAJOR_VERSION, &[MAJOR_VERSION]));
        let response = plain_message(&header.reply(), &chain);
        self.step.datagrams.extend(Path::of(datagram).carry(&[response]));
    }

    /// Authenticates a protected message and returns what is inside once it is complete. `repeated`
    /// says that the request was answered before: then only its first fragment counts, so that one
    /// repetition makes one answer (RFC 7383 section 2.6.1).
    pub(crate) fn open_message(
        now: Nanos,
        counters: &mut IkeCounters,
        (keys, slot, repeated): (DirectionKeys<'_>, &mut Option<Reassembly>, bool),
        (message, header, outer): (&[u8], &Header, &Contents<'_>),
    ) -> Option<(PayloadType, Vec<u8>)> {
        let Some(encrypted) = &outer.encrypted else {
            counters.count(Refusal::Malformed);
            return None;
        };
        let Ok(opened) = keys.open(message, encrypted) else {
            counters.count(Refusal::NotAuthentic);
            return None;
        };
        let Some(place) = opened.fragment else {
            return Some((encrypted.first, opened.content));
        };
        if repeated {
            return (place.number == 1).then_some((PayloadType::NONE, Vec::new()));
        }
        let fragment = Fragment {
            message_id: header.message_id,
            place,
            first: encrypted.first,
            content: opened.content,
        };
        Reassembly::accept(slot, now, fragment).unwrap_or_else(|_| {
            counters.count(Refusal::Fragment);
            None
        })
    }

    /// Puts an IKE SA back, or lets it go.
    fn settle(&mut self, now: Nanos, sa: IkeSa, fate: Fate) {
        match fate {
            Fate::Keep => self.put_back(sa),
            Fate::Discard => self.discard(now, sa),
        }
    }

    /// Puts an IKE SA into the table that changed.
    pub(crate) fn keep(&mut self, sa: IkeSa) {
        self.step.dirty.insert(sa.local_spi);
        self.put_back(sa);
    }

    /// Puts an IKE SA into the table and its next deadline into the index.
    fn put_back(&mut self, mut sa: IkeSa) {
        let deadline = sa.deadline();
        if sa.indexed != deadline {
            if let Some(at) = sa.indexed {
                self.timers.remove(&(at, sa.local_spi));
            }
            if let Some(at) = deadline {
                self.timers.insert((at, sa.local_spi));
            }
            sa.indexed = deadline;
        }
        let place = *sa.path.remote.ip();
        if sa.placed != Some(place) {
            self.unplace(&mut sa);
            self.places.insert((place, sa.local_spi));
            sa.placed = Some(place);
        }
        self.sas.insert(sa.local_spi, sa);
    }

    /// Removes an IKE SA and the Child SAs it still has.
    pub(crate) fn discard(&mut self, now: Nanos, mut sa: IkeSa) {
        let spi = sa.local_spi;
        if let Some(at) = sa.indexed.take() {
            self.timers.remove(&(at, spi));
        }
        self.unplace(&mut sa);
        self.step.gone.insert(spi);
        for child in std::mem::take(&mut sa.children).into_keys() {
            self.child_owners.remove(&child);
            self.step.removed.push(child);
        }
        if let Some(reserved) = sa.reserved_spi() {
            self.child_owners.remove(&reserved);
        }
        sa.outstanding = None;
        sa.tasks.clear();
        if !sa.last_response.is_empty() && self.departed.len() < DEPARTED_MAX {
            self.departed_until.push_back((now.plus_ms(DEPARTED_MS), spi));
            self.departed.insert(spi, sa);
        }
    }

    fn unplace(&mut self, sa: &mut IkeSa) {
        if let Some(place) = sa.placed.take() {
            self.places.remove(&(place, sa.local_spi));
        }
    }

    /// Turns what the input changed into one step.
    pub(crate) fn flush(&mut self, now: Nanos) {
        let step = std::mem::take(&mut self.step);
        let mut changes = Vec::new();
        for spi in step.dirty {
            if let Some(sa) = self.sas.get(&spi) {
                let connection = sa.authenticated.connection().to_owned();
                changes.push(Change::PutIkeSa { spi, connection, state: state::encode(now, sa) });
            } else if let Some(begun) = self.initiations.get(&spi)
                && let Some(state) = state::encode_begun(begun)
            {
                let connection = begun.dial.connection.clone();
                changes.push(Change::PutIkeSa { spi, connection, state });
            }
        }
        for (ike, parameters, replaces) in step.installed {
            let inbound = parameters.inbound_spi;
            let there = self.sas.get(&ike).is_some_and(|sa| sa.children.contains_key(&inbound));
            if there {
                let parameters = Box::new(parameters);
                changes.push(Change::PutChildSa { ike, parameters, replaces });
            }
        }
        let removed = step.removed.into_iter();
        changes.extend(removed.map(|inbound_spi| Change::DeleteChildSa { inbound_spi }));
        changes.extend(step.gone.into_iter().map(|spi| Change::DeleteIkeSa { spi }));
        if changes.is_empty() && step.datagrams.is_empty() {
            return;
        }
        self.readies += 1;
        self.ready.push_back(Ready { id: self.readies, changes, datagrams: step.datagrams });
    }
}
