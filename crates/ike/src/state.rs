//! An IKE SA as octets, for the replicated record: everything a successor needs to be at exactly the
//! same point of every exchange. The first two octets are the version of this format.
//!
//! Moments are written as milliseconds from now, because a successor has another clock. A takeover can
//! so stretch a lifetime by the time since the last change, but never shorten one.

use std::net::{Ipv4Addr, SocketAddrV4};

use holdfast_crypto::{
    AeadAlgorithm, BlockMode, Composition, Group, IntegrityAlgorithm, PrfAlgorithm, PrivateKey,
    SecretBytes,
};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, SaKey, Selectors, Spi, TrafficSelector};
use holdfast_packet::Nanos;

use crate::IkeSpi;
use crate::algorithm::{ChildSuite, IkeEncryption, IkeSuite};
use crate::auth::Authenticated;
use crate::codec::{Cursor, Malformed, Writer};
use crate::config::Identity;
use crate::initiate::Initiation;
use crate::keys::IkeKeys;
use crate::nat::Nat;
use crate::sa::{
    Child, ChildPhase, Collision, IkeSa, Outstanding, Path, Pending, Phase, Seed, Task,
};
pub(crate) use crate::state_initiation::encode_begun;
use crate::sync::{MessageIdSync, SyncSupport};

/// The first format; without what follows [`Out::sa_end`].
const VERSION_1: u16 = 1;
/// Has a kind after the version, and RFC 6311's state at the end.
pub(crate) const VERSION: u16 = 2;
/// The same with a synchronisation that waits for its answer. Written for such IKE SAs alone, so that
/// members that know nothing of it read all others.
const VERSION_3: u16 = 3;
/// Items in any list of a record; far above what a live IKE SA has.
const ITEMS_MAX: u32 = 4096;

pub(crate) type Read<T> = Result<T, Malformed>;

/// Writes an IKE SA.
pub(crate) fn encode(now: Nanos, sa: &IkeSa) -> SecretBytes {
    let mut out = Out { now, writer: Writer::with_capacity(size_estimate(sa)) };
    let version = if sa.synchronising() { VERSION_3 } else { VERSION };
    out.writer.u16(version).u8(KIND_SA);
    out.identity(sa);
    out.suite(&sa.suite);
    out.keys(&sa.keys);
    out.writer.u64(sa.sealed).u32(sa.expected_request).u32(sa.next_request);
    out.messages(&sa.last_response);
    out.writer.u8(match sa.phase {
        Phase::Established => 0,
        Phase::Replaced => 1,
        Phase::Closing => 2,
    });
    out.moment(sa.rekey_at);
    out.moment(sa.expire_at);
    out.writer.u32(u32::try_from(sa.children.len()).unwrap_or(u32::MAX));
    for child in sa.children.values() {
        out.child(child);
    }
    out.outstanding(sa.outstanding.as_ref());
    out.sa_end(sa);
    SecretBytes::new(out.writer.into_bytes())
}

/// Reads an IKE SA back. Its outstanding request is due at once.
///
/// # Errors
/// A sentence fragment for the operator: written by a newer version, or damaged.
pub(crate) fn decode(now: Nanos, spi: IkeSpi, bytes: &[u8]) -> Result<Record, &'static str> {
    let mut cursor = Cursor::new(bytes);
    let version = match cursor.u16() {
        Ok(version @ (VERSION | VERSION_1 | VERSION_3)) => version,
        Ok(_) => return Err("written by another version"),
        Err(_) => return Err("empty"),
    };
    let mut input = In { now, cursor };
    let record = input.record(spi, version).map_err(|_| "damaged")?;
    input.cursor.finish().map_err(|_| "damaged")?;
    Ok(record)
}

/// What a record holds.
#[derive(Debug)]
pub(crate) enum Record {
    /// An IKE SA that stands.
    Sa(Box<IkeSa>),
    /// One that we have begun.
    Begun(Box<Initiation>),
}

pub(crate) const KIND_SA: u8 = 0;
pub(crate) const KIND_BEGUN: u8 = 1;

/// Room for the whole record, so that the buffer never grows and leaves copies of keys behind.
fn size_estimate(sa: &IkeSa) -> usize {
    let messages = |messages: &[Vec<u8>]| messages.iter().map(|m| m.len() + 8).sum::<usize>();
    let outstanding = sa.outstanding.as_ref().map_or(0, |o| messages(&o.messages));
    let selectors = |child: &Child| {
        let selectors = &child.parameters.selectors;
        selectors.local.len() + selectors.remote.len()
    };
    let children: usize = sa.children.values().map(|child| 512 + 16 * selectors(child)).sum();
    8192 + messages(&sa.last_response) + outstanding + children
}

pub(crate) struct Out {
    pub(crate) now: Nanos,
    pub(crate) writer: Writer,
}

impl Out {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.writer.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).bytes(bytes);
    }

    pub(crate) fn messages(&mut self, messages: &[Vec<u8>]) {
        self.writer.u32(u32::try_from(messages.len()).unwrap_or(u32::MAX));
        for message in messages {
            self.bytes(message);
        }
    }

    fn moment(&mut self, at: Option<Nanos>) {
        match at {
            None => self.writer.u8(0),
            Some(at) => self.writer.u8(1).u64(at.ms_since(self.now)),
        };
    }

    fn identity(&mut self, sa: &IkeSa) {
        self.writer.u64(sa.remote_spi).u8(sa.original_initiator.into());
        self.bytes(&sa.authenticated.identity().emit());
        self.bytes(sa.authenticated.connection().as_bytes());
        self.writer.u16(sa.path.local_port).u32((*sa.path.remote.ip()).into());
        self.writer.u16(sa.path.remote.port());
        self.writer.u8(sa.nat.local.into()).u8(sa.nat.remote.into()).u8(sa.fragmentation.into());
    }

    pub(crate) fn suite(&mut self, suite: &IkeSuite) {
        self.writer.u8(match suite.encryption {
            IkeEncryption::Gcm(algorithm) => cipher_number(algorithm),
            IkeEncryption::Cbc128 => 3,
            IkeEncryption::Cbc256 => 4,
        });
        self.writer.u8(match suite.integrity {
            None => 0,
            Some(IntegrityAlgorithm::HmacSha256_128) => 1,
            Some(IntegrityAlgorithm::HmacSha384_192) => 2,
            Some(IntegrityAlgorithm::HmacSha512_256) => 3,
        });
        self.writer.u8(match suite.prf {
            PrfAlgorithm::HmacSha256 => 1,
            PrfAlgorithm::HmacSha384 => 2,
            PrfAlgorithm::HmacSha512 => 3,
        });
        self.writer.u16(suite.group.transform_id());
    }

    pub(crate) fn keys(&mut self, keys: &IkeKeys) {
        for key in [&keys.d, &keys.ai, &keys.ar, &keys.ei, &keys.er, &keys.pi, &keys.pr] {
            self.bytes(key.as_bytes());
        }
    }

    fn group(&mut self, group: Option<Group>) {
        self.writer.u16(group.map_or(0, Group::transform_id));
    }

    fn private(&mut self, private: &PrivateKey) {
        self.bytes(private.to_bytes().as_bytes());
    }

    fn child(&mut self, child: &Child) {
        let parameters = &child.parameters;
        self.writer.u32(parameters.inbound_spi.get()).u32(parameters.outbound_spi.get());
        self.writer.u8(cipher_number(parameters.inbound_key.algorithm()));
        self.bytes(parameters.inbound_key.key_and_salt().as_bytes());
        self.bytes(parameters.outbound_key.key_and_salt().as_bytes());
        self.writer.u8(parameters.esn.into()).u32(parameters.window_packets);
        self.writer.u32(parameters.local.into()).u32(parameters.remote.into());
        match parameters.encapsulation {
            Encapsulation::Esp => self.writer.u8(0),
            Encapsulation::Udp { local_port, remote_port } => {
                self.writer.u8(1).u16(local_port).u16(remote_port)
            }
        };
        self.selectors(&parameters.selectors.local);
        self.selectors(&parameters.selectors.remote);
        self.bytes(parameters.connection.as_bytes());
        self.group(child.group);
        self.writer.u8(match child.phase {
            ChildPhase::Installed => 0,
            ChildPhase::Closing => 1,
            ChildPhase::Replaced => 2,
        });
        self.moment(child.rekey_at);
        self.moment(child.expire_at);
    }

    pub(crate) fn selectors(&mut self, selectors: &[TrafficSelector]) {
        self.writer.u32(u32::try_from(selectors.len()).unwrap_or(u32::MAX));
        for selector in selectors {
            self.writer.u8(selector.protocol).u16(selector.ports.0).u16(selector.ports.1);
            self.writer.u32(selector.addresses.0.into()).u32(selector.addresses.1.into());
        }
    }

    fn outstanding(&mut self, outstanding: Option<&Outstanding>) {
        let Some(outstanding) = outstanding else {
            self.writer.u8(0);
            return;
        };
        let number = match &outstanding.pending {
            Pending::Synchronise { sync, .. } => {
                self.writer.u8(7).bytes(&sync.emit());
                return;
            }
            Pending::CounterSync => 6,
            Pending::Liveness => 1,
            Pending::CloseIke => 2,
            Pending::CloseChildren(_) => 3,
            Pending::RekeyChild { .. } => 4,
            Pending::RekeyIke { .. } => 5,
        };
        self.writer.u8(number).u32(outstanding.message_id);
        self.messages(&outstanding.messages);
        match &outstanding.pending {
            Pending::Liveness
            | Pending::CloseIke
            | Pending::CounterSync
            | Pending::Synchronise { .. } => {}
            Pending::CloseChildren(spis) => {
                self.writer.u32(u32::try_from(spis.len()).unwrap_or(u32::MAX));
                for spi in spis {
                    self.writer.u32(spi.get());
                }
            }
            Pending::RekeyChild { old, inbound, nonce, suite, private, collision } => {
                self.writer.u32(old.get()).u32(inbound.get());
                self.bytes(nonce);
                self.writer.u8(cipher_number(suite.cipher)).u8(suite.esn.into());
                self.group(suite.group);
                if let Some(private) = private {
                    self.private(private);
                }
                self.collision(collision.as_ref().map(|c| (c.made.get().into(), &c.lowest)));
            }
            Pending::RekeyIke { spi, nonce, suite, private, collision } => {
                self.writer.u64(spi.0);
                self.bytes(nonce);
                self.suite(suite);
                self.private(private);
                self.collision(collision.as_ref().map(|c| (c.made.0, &c.lowest)));
            }
        }
    }

    /// What came with the second format.
    fn sa_end(&mut self, sa: &IkeSa) {
        self.writer.u8(sa.sync.message_id.into()).u8(sa.sync.replay_counter.into());
        match sa.sync_seen {
            None => self.writer.u8(0),
            Some(seen) => self.writer.u8(1).u32(seen),
        };
    }

    fn collision(&mut self, collision: Option<(u64, &Vec<u8>)>) {
        match collision {
            None => {
                self.writer.u8(0);
            }
            Some((made, lowest)) => {
                self.writer.u8(1).u64(made);
                self.bytes(lowest);
            }
        }
    }
}

const fn cipher_number(algorithm: AeadAlgorithm) -> u8 {
    match algorithm {
        AeadAlgorithm::Aes128Gcm16 => 1,
        AeadAlgorithm::Aes256Gcm16 => 2,
        // 3 and 4 are ciphers of IKE's own.
        AeadAlgorithm::Aes192Gcm16 => 5,
        AeadAlgorithm::ChaCha20Poly1305 => 6,
        AeadAlgorithm::Aes128Gmac => 7,
        AeadAlgorithm::Aes192Gmac => 8,
        AeadAlgorithm::Aes256Gmac => 9,
        AeadAlgorithm::Composed(Composition { mode, integrity }) => {
            let mode = match mode {
                BlockMode::Cbc128 => 0x10,
                BlockMode::Cbc192 => 0x20,
                BlockMode::Cbc256 => 0x30,
                BlockMode::Ctr128 => 0x40,
                BlockMode::Ctr192 => 0x50,
                BlockMode::Ctr256 => 0x60,
            };
            mode + match integrity {
                IntegrityAlgorithm::HmacSha256_128 => 1,
                IntegrityAlgorithm::HmacSha384_192 => 2,
                IntegrityAlgorithm::HmacSha512_256 => 3,
            }
        }
    }
}

pub(crate) struct In<'a> {
    pub(crate) now: Nanos,
    pub(crate) cursor: Cursor<'a>,
}

impl<'a> In<'a> {
    pub(crate) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.cursor.u32()?;
        self.cursor.take(usize::try_from(len).map_err(|_| Malformed::Length)?)
    }

    pub(crate) fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Malformed::Value)
    }

    pub(crate) fn flag(&mut self) -> Read<bool> {
        match self.cursor.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Value),
        }
    }

    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.cursor.u32()?;
        if count > ITEMS_MAX {
            return Err(Malformed::TooMany);
        }
        (0..count).map(|_| item(self)).collect()
    }

    pub(crate) fn messages(&mut self) -> Read<Vec<Vec<u8>>> {
        self.list(|input| input.bytes().map(<[u8]>::to_vec))
    }

    fn moment(&mut self) -> Read<Option<Nanos>> {
        let present = self.flag()?;
        Ok(if present { Some(self.now.plus_ms(self.cursor.u64()?)) } else { None })
    }

    pub(crate) fn address(&mut self) -> Read<Ipv4Addr> {
        self.cursor.u32().map(Ipv4Addr::from)
    }

    fn record(&mut self, spi: IkeSpi, version: u16) -> Read<Record> {
        if version == VERSION_1 {
            return Ok(Record::Sa(Box::new(self.sa(spi)?)));
        }
        match self.cursor.u8()? {
            KIND_SA => {
                let mut sa = self.sa(spi)?;
                self.sa_end(&mut sa)?;
                Ok(Record::Sa(Box::new(sa)))
            }
            KIND_BEGUN => Ok(Record::Begun(Box::new(self.begun()?))),
            _ => Err(Malformed::Value),
        }
    }

    fn sa_end(&mut self, sa: &mut IkeSa) -> Read<()> {
        sa.sync = SyncSupport { message_id: self.flag()?, replay_counter: self.flag()? };
        sa.sync_seen = if self.flag()? { Some(self.cursor.u32()?) } else { None };
        Ok(())
    }

    fn sa(&mut self, local_spi: IkeSpi) -> Read<IkeSa> {
        let (remote_spi, original_initiator) = (self.cursor.u64()?, self.flag()?);
        let identity = Identity::parse(self.bytes()?)?;
        let authenticated = Authenticated::from_committed_record(identity, self.text()?);
        let local_port = self.cursor.u16()?;
        let remote = SocketAddrV4::new(self.address()?, self.cursor.u16()?);
        let path = Path { local_port, remote };
        let nat = Nat { local: self.flag()?, remote: self.flag()? };
        let fragmentation = self.flag()?;
        let suite = self.suite()?;
        let keys = self.keys()?;
        let seed = Seed {
            local_spi,
            remote_spi,
            original_initiator,
            path,
            nat,
            fragmentation,
            suite,
            keys,
        };
        let mut sa = IkeSa::establish(authenticated, seed);
        sa.sealed = self.cursor.u64()?;
        sa.expected_request = self.cursor.u32()?;
        sa.next_request = self.cursor.u32()?;
        sa.last_response = self.messages()?;
        sa.phase = match self.cursor.u8()? {
            0 => Phase::Established,
            1 => Phase::Replaced,
            2 => Phase::Closing,
            _ => return Err(Malformed::Value),
        };
        sa.rekey_at = self.moment()?;
        sa.expire_at = self.moment()?;
        let children = self.list(Self::child)?;
        sa.children = children.into_iter().map(|c| (c.parameters.inbound_spi, c)).collect();
        sa.outstanding = self.outstanding()?;
        resume_tasks(&mut sa);
        Ok(sa)
    }

    pub(crate) fn suite(&mut self) -> Read<IkeSuite> {
        let encryption = match self.cursor.u8()? {
            1 => IkeEncryption::Gcm(AeadAlgorithm::Aes128Gcm16),
            2 => IkeEncryption::Gcm(AeadAlgorithm::Aes256Gcm16),
            3 => IkeEncryption::Cbc128,
            4 => IkeEncryption::Cbc256,
            _ => return Err(Malformed::Value),
        };
        let integrity = match self.cursor.u8()? {
            0 => None,
            1 => Some(IntegrityAlgorithm::HmacSha256_128),
            2 => Some(IntegrityAlgorithm::HmacSha384_192),
            3 => Some(IntegrityAlgorithm::HmacSha512_256),
            _ => return Err(Malformed::Value),
        };
        let prf = match self.cursor.u8()? {
            1 => PrfAlgorithm::HmacSha256,
            2 => PrfAlgorithm::HmacSha384,
            3 => PrfAlgorithm::HmacSha512,
            _ => return Err(Malformed::Value),
        };
        let group = self.group()?.ok_or(Malformed::Value)?;
        Ok(IkeSuite { encryption, integrity, prf, group })
    }

    pub(crate) fn keys(&mut self) -> Read<IkeKeys> {
        let mut key = || self.bytes().map(SecretBytes::from);
        Ok(IkeKeys {
            d: key()?,
            ai: key()?,
            ar: key()?,
            ei: key()?,
            er: key()?,
            pi: key()?,
            pr: key()?,
        })
    }

    fn group(&mut self) -> Read<Option<Group>> {
        match self.cursor.u16()? {
            0 => Ok(None),
            id => Group::from_transform_id(id).map(Some).ok_or(Malformed::Value),
        }
    }

    fn private(&mut self, group: Group) -> Read<PrivateKey> {
        PrivateKey::from_bytes(group, self.bytes()?).map_err(|_| Malformed::Value)
    }

    fn cipher(&mut self) -> Read<AeadAlgorithm> {
        let number = self.cursor.u8()?;
        AeadAlgorithm::every()
            .find(|cipher| cipher_number(*cipher) == number)
            .ok_or(Malformed::Value)
    }

    pub(crate) fn spi(&mut self) -> Read<Spi> {
        Spi::new(self.cursor.u32()?).map_err(|_| Malformed::Value)
    }

    fn child(&mut self) -> Read<Child> {
        let (inbound_spi, outbound_spi) = (self.spi()?, self.spi()?);
        let cipher = self.cipher()?;
        let mut key = || SaKey::new(cipher, self.bytes()?).map_err(|_| Malformed::Value);
        let (inbound_key, outbound_key) = (key()?, key()?);
        let (esn, window_packets) = (self.flag()?, self.cursor.u32()?);
        let (local, remote) = (self.address()?, self.address()?);
        let encapsulation = if self.flag()? {
            let (local_port, remote_port) = (self.cursor.u16()?, self.cursor.u16()?);
            Encapsulation::Udp { local_port, remote_port }
        } else {
            Encapsulation::Esp
        };
        let selectors =
            Selectors { local: self.list(Self::selector)?, remote: self.list(Self::selector)? };
        let parameters = ChildSaParameters {
            inbound_spi,
            outbound_spi,
            inbound_key,
            outbound_key,
            esn,
            window_packets,
            local,
            remote,
            encapsulation,
            selectors,
            connection: self.text()?,
        };
        let group = self.group()?;
        let phase = match self.cursor.u8()? {
            0 => ChildPhase::Installed,
            1 => ChildPhase::Closing,
            2 => ChildPhase::Replaced,
            _ => return Err(Malformed::Value),
        };
        let (rekey_at, expire_at) = (self.moment()?, self.moment()?);
        Ok(Child { parameters, group, phase, replaces: None, rekey_at, expire_at })
    }

    pub(crate) fn selector(&mut self) -> Read<TrafficSelector> {
        Ok(TrafficSelector {
            protocol: self.cursor.u8()?,
            ports: (self.cursor.u16()?, self.cursor.u16()?),
            addresses: (self.address()?, self.address()?),
        })
    }

    fn outstanding(&mut self) -> Read<Option<Outstanding>> {
        let number = self.cursor.u8()?;
        if number == 0 {
            return Ok(None);
        }
        if number == 7 {
            return Ok(Some(self.synchronisation()?));
        }
        let message_id = self.cursor.u32()?;
        let messages = self.messages()?;
        let pending = match number {
            1 => Pending::Liveness,
            2 => Pending::CloseIke,
            3 => Pending::CloseChildren(self.list(Self::spi)?),
            4 => self.child_rekey()?,
            5 => self.ike_rekey()?,
            6 => Pending::CounterSync,
            _ => return Err(Malformed::Value),
        };
        // Whether it was ever sent is unknown here: attempt 0, due now, sends it and waits afresh.
        Ok(Some(Outstanding { message_id, messages, attempt: 0, deadline: self.now, pending }))
    }

    /// Message IDs are out of step until the peer has answered: it may act upon the request at any
    /// time, even long after. So a successor asks anew, with a higher M1. By how much the peer's numbers
    /// are to be counted on is for the successor to say.
    fn synchronisation(&mut self) -> Read<Outstanding> {
        let sync = MessageIdSync::parse(self.cursor.take(MessageIdSync::LEN)?)?;
        let pending = Pending::Synchronise { sync, delta: None };
        let messages = Vec::new();
        Ok(Outstanding { message_id: 0, messages, attempt: 0, deadline: self.now, pending })
    }

    fn child_rekey(&mut self) -> Read<Pending> {
        let (old, inbound) = (self.spi()?, self.spi()?);
        let nonce = self.bytes()?.to_vec();
        let (cipher, esn) = (self.cipher()?, self.flag()?);
        let group = self.group()?;
        let private = group.map(|group| self.private(group)).transpose()?;
        let collision = match self.collision()? {
            None => None,
            Some((made, lowest)) => {
                let made = u32::try_from(made).map_err(|_| Malformed::Value)?;
                Some(Collision { made: Spi::new(made).map_err(|_| Malformed::Value)?, lowest })
            }
        };
        let suite = ChildSuite { cipher, esn, group };
        Ok(Pending::RekeyChild { old, inbound, nonce, suite, private, collision })
    }

    fn ike_rekey(&mut self) -> Read<Pending> {
        let spi = IkeSpi(self.cursor.u64()?);
        let nonce = self.bytes()?.to_vec();
        let suite = self.suite()?;
        let private = self.private(suite.group)?;
        let collision = self.collision()?;
        let collision = collision.map(|(made, lowest)| Collision { made: IkeSpi(made), lowest });
        Ok(Pending::RekeyIke { spi, nonce, suite, private, collision })
    }

    fn collision(&mut self) -> Read<Option<(u64, Vec<u8>)>> {
        if !self.flag()? {
            return Ok(None);
        }
        Ok(Some((self.cursor.u64()?, self.bytes()?.to_vec())))
    }
}

/// What a predecessor meant to ask next follows from where the SAs are in their lives.
fn resume_tasks(sa: &mut IkeSa) {
    let under_way = match &sa.outstanding {
        Some(Outstanding { pending: Pending::CloseChildren(spis), .. }) => spis.clone(),
        _ => Vec::new(),
    };
    let closing = sa.children.iter().filter(|(_, child)| child.phase == ChildPhase::Closing);
    let closing = closing.map(|(spi, _)| *spi).filter(|spi| !under_way.contains(spi));
    sa.tasks.extend(closing.map(Task::CloseChild));
    let closing_ike =
        matches!(&sa.outstanding, Some(Outstanding { pending: Pending::CloseIke, .. }));
    let wants_close = match sa.phase {
        Phase::Established => false,
        Phase::Closing => true,
        // The side that rekeyed deletes; without a moment set, that is us.
        Phase::Replaced => sa.rekey_at.is_none(),
    };
    if wants_close && !closing_ike {
        sa.tasks.insert(Task::CloseIke);
    }
}
