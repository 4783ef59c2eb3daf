//! An initiator: IKE_SA_INIT and IKE_AUTH; what follows is done by the machine itself.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use holdfast_crypto::{AeadAlgorithm, Group, PrivateKey, SecretBytes};
use holdfast_ipsec::{ChildSaParameters, Selectors, Spi, TrafficSelector};
use holdfast_packet::Nanos;

use crate::algorithm::{ChildSuite, IkeEncryption, IkeSuite};
use crate::auth::{Authenticated, SignedOctets, auth_body};
use crate::codec::{
    Chain, Contents, ExchangeType, HEADER_LEN, Header, KeyExchange, Notify, NotifyType,
    PayloadType, Proposal, Transform, TransformType, emit_selectors, parse_selectors,
};
use crate::config::{Connection, Identity, IkeConfig, RetransmitSchedule};
use crate::init::{InitExtras, plain_message};
use crate::keys::{ChildKeys, IkeKeys, Nonces, skeyseed};
use crate::nat::Nat;
use crate::protect::{DirectionKeys, IvSource};
use crate::sa::{IkeSa, Path, Seed};
use crate::{Datagram, Ike, IkeSpi, Outcome, Ready, SyncSupport};

/// How a [`Client`] connects.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Its address.
    pub address: Ipv4Addr,
    /// The address it connects to.
    pub gateway: Ipv4Addr,
    /// Who it says it is.
    pub identity: Identity,
    /// The key it has.
    pub psk: SecretBytes,
    /// What is behind it.
    pub local_ts: Vec<TrafficSelector>,
    /// What it wants to reach.
    pub remote_ts: Vec<TrafficSelector>,
    /// The suites it offers for the IKE SA, one proposal each.
    pub ike_suites: Vec<IkeSuite>,
    /// The group it guesses.
    pub ke_group: Group,
    /// The ciphers it offers for the Child SA.
    pub ciphers: Vec<AeadAlgorithm>,
    /// Whether it offers extended sequence numbers besides 32-bit ones.
    pub esn: bool,
    /// Whether it pretends to be behind a NAT, to have ESP in UDP.
    pub pretend_nat: bool,
    /// Octets of the largest IP datagram, beyond which it fragments.
    pub fragment_size: u16,
    /// Whether it says that it has no other IKE SA.
    pub initial_contact: bool,
    /// What it asserts of RFC 6311.
    pub sync: SyncSupport,
    /// Payloads of no use, to make IKE_AUTH this much longer.
    pub ballast: usize,
}

impl ClientConfig {
    /// A client with the algorithms strongSwan would choose by default.
    #[must_use]
    pub fn new(address: Ipv4Addr, gateway: Ipv4Addr, psk: SecretBytes) -> Self {
        let suite = IkeSuite {
            encryption: IkeEncryption::Gcm(AeadAlgorithm::Aes256Gcm16),
            integrity: None,
            prf: holdfast_crypto::PrfAlgorithm::HmacSha256,
            group: Group::Curve25519,
        };
        Self {
            address,
            gateway,
            identity: Identity::Email("client@example.org".to_owned()),
            psk,
            local_ts: vec![TrafficSelector::host(address)],
            remote_ts: vec![TrafficSelector::host(gateway)],
            ike_suites: vec![suite],
            ke_group: Group::Curve25519,
            ciphers: vec![AeadAlgorithm::Aes256Gcm16, AeadAlgorithm::Aes128Gcm16],
            esn: true,
            pretend_nat: true,
            fragment_size: 1280,
            initial_contact: true,
            sync: SyncSupport::NONE,
            ballast: 0,
        }
    }
}

/// One end that connects to a gateway and then keeps the SAs alive.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    ike: Ike,
    handshake: Handshake,
    datagrams: VecDeque<Datagram>,
    readies: u64,
}

#[derive(Debug)]
enum Handshake {
    Idle,
    Init(Box<Init>),
    Auth(Box<Auth>),
    Established,
    Failed(u16),
}

#[derive(Debug)]
struct Init {
    spi: IkeSpi,
    nonce: Vec<u8>,
    private: PrivateKey,
    cookie: Option<Vec<u8>>,
    request: Vec<u8>,
    repeat: Repeat,
}

#[derive(Debug)]
struct Auth {
    spi: IkeSpi,
    spi_r: u64,
    suite: IkeSuite,
    keys: IkeKeys,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    response: Vec<u8>,
    inbound: Spi,
    nat: Nat,
    fragmentation: bool,
    fragments: Option<crate::fragment::Reassembly>,
    sealed: u64,
    messages: Vec<Vec<u8>>,
    repeat: Repeat,
}

/// When to send again.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    attempt: u32,
    at: Nanos,
}

impl Repeat {
    const SCHEDULE: RetransmitSchedule =
        RetransmitSchedule { first_ms: 500, longest_ms: 8_000, attempts: 12 };

    const fn starting(now: Nanos) -> Self {
        Self { attempt: 0, at: now.plus_ms(Self::SCHEDULE.first_ms as u64) }
    }

    /// Whether it is time, and whether it is time to give up.
    fn due(&mut self, now: Nanos) -> Option<bool> {
        if now < self.at {
            return None;
        }
        self.attempt += 1;
        let wait = Self::SCHEDULE.wait_ms(self.attempt);
        self.at = now.plus_ms(wait.unwrap_or_default());
        Some(wait.is_some())
    }
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(config: ClientConfig, seed: [u8; 32]) -> Self {
        let mut connection = Connection::new("gateway", config.psk.clone());
        connection.local_ts.clone_from(&config.local_ts);
        connection.remote_ts.clone_from(&config.remote_ts);
        connection.liveness_s = None;
        let mut ike = IkeConfig::new(config.address, config.identity.clone());
        ike.fragment_size = config.fragment_size;
        ike.connections.push(connection);
        Self {
            config,
            ike: Ike::new(ike, seed),
            handshake: Handshake::Idle,
            datagrams: VecDeque::new(),
            readies: 0,
        }
    }

    /// Begins to connect.
    pub fn connect(&mut self, now: Nanos) {
        let spi = self.ike.draw_ike_spi();
        let nonce = self.ike.draw_nonce();
        let private = PrivateKey::generate(self.config.ke_group, &mut self.ike.random);
        let repeat = Repeat::starting(now);
        let mut init = Init { spi, nonce, private, cookie: None, request: Vec::new(), repeat };
        self.send_init(now, &mut init);
        self.handshake = Handshake::Init(Box::new(init));
    }

    /// The machine that keeps the SAs alive after the handshake.
    pub const fn ike(&mut self) -> &mut Ike {
        &mut self.ike
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub const fn established(&self) -> bool {
        matches!(self.handshake, Handshake::Established)
    }

    /// The notification that ended the handshake; 0 when the gateway did not answer.
    #[must_use]
    pub const fn failure(&self) -> Option<u16> {
        match self.handshake {
            Handshake::Failed(kind) => Some(kind),
            _ => None,
        }
    }

    /// Takes in one datagram.
    pub fn handle_datagram(&mut self, now: Nanos, datagram: &Datagram) {
        match std::mem::replace(&mut self.handshake, Handshake::Idle) {
            Handshake::Init(init) => self.handshake = self.init_answered(now, init, datagram),
            Handshake::Auth(auth) => self.handshake = self.auth_answered(now, auth, datagram),
            other => {
                self.handshake = other;
                self.ike.handle_datagram(now, datagram);
            }
        }
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let (due, messages) = match &mut self.handshake {
            Handshake::Init(init) => (init.repeat.due(now), vec![init.request.clone()]),
            Handshake::Auth(auth) => (auth.repeat.due(now), auth.messages.clone()),
            _ => (None, Vec::new()),
        };
        match due {
            Some(true) => self.send(&messages),
            Some(false) => self.handshake = Handshake::Failed(0),
            None => {}
        }
        self.ike.handle_timeout(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        match &self.handshake {
            Handshake::Init(init) => Some(init.repeat.at),
            Handshake::Auth(auth) => Some(auth.repeat.at),
            _ => self.ike.poll_timeout(),
        }
    }

    /// The next step; a client commits nowhere, so its datagrams may go at once.
    pub fn poll_ready(&mut self) -> Option<Ready> {
        if let Some(datagram) = self.datagrams.pop_front() {
            self.readies += 1;
            return Some(Ready { id: self.readies, changes: vec![], datagrams: vec![datagram] });
        }
        self.ike.poll_ready()
    }

    /// How the next thing came out; what its gateway asks of it is there too.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.ike.poll_outcome()
    }

    /// Every Child SA it has, as seen from its end.
    pub fn children(&self) -> impl Iterator<Item = &ChildSaParameters> {
        self.ike.sas.values().flat_map(|sa| sa.children.values()).map(|child| &child.parameters)
    }

    const fn path(&self) -> Path {
        let port = match self.handshake {
            Handshake::Auth(_) if self.config.pretend_nat => 4500,
            _ => 500,
        };
        Path { local_port: port, remote: SocketAddrV4::new(self.config.gateway, port) }
    }

    fn send(&mut self, messages: &[Vec<u8>]) {
        self.datagrams.extend(self.path().carry(messages));
    }

    fn send_init(&mut self, now: Nanos, init: &mut Init) {
        let header = Header {
            spi_i: init.spi.0,
            spi_r: 0,
            exchange: ExchangeType::IkeSaInit,
            from_initiator: true,
            response: false,
            message_id: 0,
        };
        let mut chain = Chain::new();
        if let Some(cookie) = &init.cookie {
            chain.notify(&Notify::new(NotifyType::COOKIE, cookie));
        }
        let offers: Vec<_> = (1..)
            .zip(&self.config.ike_suites)
            .map(|(number, suite)| suite.proposal(number, vec![]))
            .collect();
        chain.push(PayloadType::SA, Proposal::emit_all(&offers));
        let group = init.private.group().transform_id();
        let ke = KeyExchange { group, public: &init.private.public_bytes() };
        chain.push(PayloadType::KE, ke.emit());
        chain.push(PayloadType::NONCE, init.nonce.clone());
        // A wrong source address makes the gateway believe in a NAT.
        let shown =
            if self.config.pretend_nat { Ipv4Addr::UNSPECIFIED } else { self.config.address };
        let extras = InitExtras {
            local: SocketAddrV4::new(shown, 500),
            remote: SocketAddrV4::new(self.config.gateway, 500),
            fragmentation: true,
        };
        extras.append(&header, &mut chain);
        init.request = plain_message(&header, &chain);
        init.repeat = Repeat::starting(now);
        self.send(std::slice::from_ref(&init.request));
    }

    fn init_answered(&mut self, now: Nanos, mut init: Box<Init>, datagram: &Datagram) -> Handshake {
        let Some((header, contents)) = parse_init(&init, datagram) else {
            return Handshake::Init(init);
        };
        if let Some(cookie) = contents.notify(NotifyType::COOKIE) {
            init.cookie = Some(cookie.data.to_vec());
            self.send_init(now, &mut init);
            return Handshake::Init(init);
        }
        if let Some(error) = contents.error() {
            let wanted = error.data.try_into().map(u16::from_be_bytes).unwrap_or_default();
            let group = Group::from_transform_id(wanted);
            let (NotifyType::INVALID_KE_PAYLOAD, Some(group)) = (error.kind, group) else {
                return Handshake::Failed(error.kind.0);
            };
            init.private = PrivateKey::generate(group, &mut self.ike.random);
            self.send_init(now, &mut init);
            return Handshake::Init(init);
        }
        let auth = self.begin_auth(now, &init, datagram, (&header, &contents));
        match auth {
            Some(auth) => {
                let messages = auth.messages.clone();
                self.handshake = Handshake::Auth(auth);
                self.send(&messages);
                std::mem::replace(&mut self.handshake, Handshake::Idle)
            }
            None => Handshake::Init(init),
        }
    }

    fn begin_auth(
        &mut self,
        now: Nanos,
        init: &Init,
        datagram: &Datagram,
        (header, contents): (&Header, &Contents<'_>),
    ) -> Option<Box<Auth>> {
        let chosen = contents.proposals().ok()?.into_iter().next()?;
        let suite = *self.config.ike_suites.get(usize::from(chosen.number).checked_sub(1)?)?;
        let ke = contents.key_exchange().ok()??;
        let shared = init.private.agree(ke.public).ok()?;
        let nonce_r = contents.nonce().ok()?.to_vec();
        let nonces = Nonces { i: &init.nonce, r: &nonce_r };
        let seed = skeyseed(suite.prf, nonces, &shared);
        let keys = IkeKeys::derive(&suite, &seed, nonces, init.spi.0, header.spi_r).ok()?;
        let mut auth = Auth {
            spi: init.spi,
            spi_r: header.spi_r,
            suite,
            keys,
            nonce_i: init.nonce.clone(),
            nonce_r,
            response: datagram.payload.clone(),
            inbound: self.ike.draw_spi(),
            nat: Nat { local: self.config.pretend_nat, remote: false },
            fragmentation: contents.notify(NotifyType::FRAGMENTATION_SUPPORTED).is_some(),
            fragments: None,
            sealed: 0,
            messages: Vec::new(),
            repeat: Repeat::starting(now),
        };
        auth.messages = self.auth_request(&mut auth, &init.request)?;
        Some(Box::new(auth))
    }

    fn auth_request(&mut self, auth: &mut Auth, request: &[u8]) -> Option<Vec<Vec<u8>>> {
        let id = self.config.identity.emit();
        let signed = SignedOctets {
            prf: auth.suite.prf,
            p: &auth.keys.pi,
            message: request,
            nonce: &auth.nonce_r,
            id: &id,
        };
        let mut chain = Chain::new();
        chain.push(PayloadType::ID_I, id.clone());
        if self.config.initial_contact {
            chain.notify(&Notify::new(NotifyType::INITIAL_CONTACT, &[]));
        }
        chain.push(PayloadType::AUTH, auth_body(&signed.mac(&self.config.psk)));
        self.config.sync.append(&mut chain);
        chain.push(PayloadType::SA, Proposal::emit_all(&self.child_offers(auth.inbound)));
        chain.push(PayloadType::TS_I, emit_selectors(&self.config.local_ts));
        chain.push(PayloadType::TS_R, emit_selectors(&self.config.remote_ts));
        if self.config.ballast > 0 {
            chain.push(PayloadType::VENDOR_ID, vec![0x55; self.config.ballast]);
        }
        let header = Header {
            spi_i: auth.spi.0,
            spi_r: auth.spi_r,
            exchange: ExchangeType::IkeAuth,
            from_initiator: true,
            response: false,
            message_id: 1,
        };
        let limit = usize::from(self.config.fragment_size).saturating_sub(32);
        let mut iv = IvSource { counter: &mut auth.sealed, random: &mut self.ike.random };
        DirectionKeys::new(&auth.suite, &auth.keys, true)
            .seal(&header, &chain, auth.fragmentation.then_some(limit), &mut iv)
            .ok()
    }

    fn child_offers(&self, inbound: Spi) -> Vec<Proposal> {
        let suites = self.config.ciphers.iter().map(|cipher| ChildSuite {
            cipher: *cipher,
            esn: self.config.esn,
            group: None,
        });
        (1..)
            .zip(suites)
            .map(|(number, suite)| {
                let mut offer = suite.proposal(number, inbound.get().to_be_bytes().to_vec());
                if suite.esn {
                    offer.transforms.push(Transform::new(TransformType::ESN, 0, None));
                }
                offer
            })
            .collect()
    }

    fn auth_answered(&mut self, now: Nanos, mut auth: Box<Auth>, datagram: &Datagram) -> Handshake {
        let Some((first, content)) = self.open_auth(now, &mut auth, datagram) else {
            return Handshake::Auth(auth);
        };
        let Ok(contents) = Contents::parse(first, &content, 0) else { return Handshake::Failed(7) };
        match self.verify_auth(&auth, &contents) {
            Some(proof) => {
                self.establish(now, &auth, proof, datagram, &contents);
                Handshake::Established
            }
            None => Handshake::Failed(contents.error().map_or(24, |error| error.kind.0)),
        }
    }

    fn open_auth(
        &mut self,
        now: Nanos,
        auth: &mut Auth,
        datagram: &Datagram,
    ) -> Option<(PayloadType, Vec<u8>)> {
        let (header, first) = Header::parse(&datagram.payload).ok()?;
        let expected = header.exchange == ExchangeType::IkeAuth
            && header.response
            && header.message_id == 1
            && header.spi_i == auth.spi.0;
        if !expected {
            return None;
        }
        let outer = Contents::parse(PayloadType(first), &datagram.payload, HEADER_LEN).ok()?;
        let keys = DirectionKeys::new(&auth.suite, &auth.keys, false);
        let opening = (keys, &mut auth.fragments, false);
        let message = (&*datagram.payload, &header, &outer);
        Ike::open_message(now, &mut self.ike.counters, opening, message)
    }

    fn verify_auth(&self, auth: &Auth, contents: &Contents<'_>) -> Option<Authenticated> {
        let id = contents.id_r().ok()?;
        let (_, mac) = contents.auth().ok()??;
        let signed = SignedOctets {
            prf: auth.suite.prf,
            p: &auth.keys.pr,
            message: &auth.response,
            nonce: &auth.nonce_i,
            id,
        };
        let connection = self.ike.config.connections.first()?;
        Authenticated::verify(connection, &Identity::parse(id).ok()?, &signed, mac)
    }

    fn establish(
        &mut self,
        now: Nanos,
        auth: &Auth,
        proof: Authenticated,
        datagram: &Datagram,
        contents: &Contents<'_>,
    ) {
        let seed = Seed {
            local_spi: auth.spi,
            remote_spi: auth.spi_r,
            original_initiator: true,
            path: Path::of(datagram),
            nat: auth.nat,
            fragmentation: auth.fragmentation,
            suite: auth.suite,
            keys: auth.keys.clone(),
        };
        let mut sa = IkeSa::establish(proof, seed);
        sa.sealed = auth.sealed;
        sa.next_request = 2;
        sa.sync = SyncSupport::asserted(contents).and(self.config.sync);
        if let Some((parameters, suite)) = self.child(auth, &sa, contents)
            && let Some(connection) = self.ike.config.connections.first().cloned()
        {
            self.ike.install(now, &mut sa, &connection, (parameters, suite, None));
        }
        self.ike.schedule(now, &mut sa);
        self.ike.keep(sa);
        self.ike.flush(now);
    }

    fn child(
        &self,
        auth: &Auth,
        sa: &IkeSa,
        contents: &Contents<'_>,
    ) -> Option<(ChildSaParameters, ChildSuite)> {
        let chosen = contents.proposals().ok()?.into_iter().next()?;
        let number = usize::from(chosen.number).checked_sub(1)?;
        let cipher = *self.config.ciphers.get(number)?;
        let esn = chosen.of(TransformType::ESN).any(|transform| transform.id == 1);
        let nonces = Nonces { i: &auth.nonce_i, r: &auth.nonce_r };
        let keys = ChildKeys::derive(auth.suite.prf, &auth.keys.d, cipher, None, nonces).ok()?;
        let outbound = u32::from_be_bytes(chosen.spi.as_slice().try_into().ok()?);
        let (ts_i, ts_r) = contents.selectors().ok()?;
        let selectors =
            Selectors { local: parse_selectors(ts_i).ok()?, remote: parse_selectors(ts_r).ok()? };
        let parameters = ChildSaParameters {
            inbound_spi: auth.inbound,
            outbound_spi: Spi::new(outbound).ok()?,
            inbound_key: keys.from_responder,
            outbound_key: keys.from_initiator,
            esn,
            window_packets: 1024,
            local: self.config.address,
            remote: self.config.gateway,
            encapsulation: sa.path.encapsulation(sa.nat),
            selectors,
            connection: "gateway".to_owned(),
        };
        Some((parameters, ChildSuite { cipher, esn, group: None }))
    }
}

fn parse_init<'a>(init: &Init, datagram: &'a Datagram) -> Option<(Header, Contents<'a>)> {
    let (header, first) = Header::parse(&datagram.payload).ok()?;
    let expected = header.exchange == ExchangeType::IkeSaInit
        && header.response
        && header.spi_i == init.spi.0
        && header.message_id == 0;
    let contents = Contents::parse(PayloadType(first), &datagram.payload, HEADER_LEN).ok()?;
    expected.then_some((header, contents))
}
