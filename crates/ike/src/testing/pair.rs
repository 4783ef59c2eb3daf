//! Both ends over a network that loses, doubles and reorders, in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use holdfast_crypto::SecretBytes;
use holdfast_ipsec::{ChildSaParameters, Spi};
use holdfast_packet::Nanos;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::testing::{Client, ClientConfig};
use crate::{Change, Datagram, Ike, IkeConfig, IkeSpi};

/// What the network does to datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Milliseconds every datagram takes.
    pub latency_ms: u64,
    /// Milliseconds some take longer; above zero they overtake each other.
    pub jitter_ms: u64,
    /// Datagrams lost, in percent.
    pub loss_percent: u32,
    /// Datagrams that arrive twice, in percent.
    pub duplicate_percent: u32,
}

impl Network {
    /// Ten milliseconds, nothing lost.
    pub const GOOD: Self =
        Self { latency_ms: 10, jitter_ms: 0, loss_percent: 0, duplicate_percent: 0 };
    /// A third lost, a fifth doubled, everything out of order.
    pub const BAD: Self =
        Self { latency_ms: 10, jitter_ms: 400, loss_percent: 33, duplicate_percent: 20 };
}

/// What the gateway has committed.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Exported IKE SAs.
    pub ike_sas: BTreeMap<IkeSpi, SecretBytes>,
    /// Child SAs and the IKE SAs they belong to.
    pub children: BTreeMap<Spi, (IkeSpi, ChildSaParameters)>,
    /// Child SAs the peer made in place of others.
    replaces: BTreeMap<Spi, Spi>,
}

impl Committed {
    /// Child SAs the peer made in place of others that are still there, each with that other.
    #[must_use]
    pub fn replacements(&self) -> Vec<(Spi, Spi)> {
        let standing = |spi: &Spi| self.children.contains_key(spi);
        let pairs = self.replaces.iter().filter(|(new, old)| standing(new) && standing(old));
        pairs.map(|(new, old)| (*new, *old)).collect()
    }

    /// Applies changes in order.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::PutIkeSa { spi, state, .. } => {
                    self.ike_sas.insert(*spi, state.clone());
                }
                Change::DeleteIkeSa { spi } => {
                    self.ike_sas.remove(spi);
                }
                Change::PutChildSa { ike, parameters, replaces } => {
                    self.replaces.extend(replaces.map(|old| (parameters.inbound_spi, old)));
                    self.children.insert(parameters.inbound_spi, (*ike, (**parameters).clone()));
                }
                Change::DeleteChildSa { inbound_spi } => {
                    self.children.remove(inbound_spi);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Gateway,
    Client,
}

/// A gateway, a client, and the way between them.
#[derive(Debug)]
pub struct Pair {
    /// The gateway's machine.
    pub gateway: Ike,
    /// The client.
    pub client: Client,
    /// The present.
    pub now: Nanos,
    /// What the way does; may be changed at any time.
    pub network: Network,
    /// What the gateway has committed.
    pub committed: Committed,
    /// Every datagram that was sent, with `true` for those of the gateway.
    pub sent: Vec<(bool, Datagram)>,
    config: IkeConfig,
    client_address: std::net::Ipv4Addr,
    under_way: BTreeMap<(Nanos, u64), (End, Datagram)>,
    number: u64,
    random: ChaCha20Rng,
}

impl Pair {
    /// Both ends, not connected yet. Every random number follows from `seed`.
    #[must_use]
    pub fn new(config: IkeConfig, client: ClientConfig, seed: u64) -> Self {
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        let mut draw = || {
            let mut seed = [0; 32];
            random.fill_bytes(&mut seed);
            seed
        };
        let (of_gateway, of_client) = (draw(), draw());
        Self {
            gateway: Ike::new(config.clone(), of_gateway),
            client_address: client.address,
            client: Client::new(client, of_client),
            now: Nanos::from_ms(1),
            network: Network::GOOD,
            committed: Committed::default(),
            sent: Vec::new(),
            config,
            under_way: BTreeMap::new(),
            number: 0,
            random,
        }
    }

    /// Connects and runs until the handshake is over.
    pub fn connect(&mut self) -> bool {
        self.client.connect(self.now);
        self.connect_on()
    }

    /// Runs until a handshake under way is over.
    pub fn connect_on(&mut self) -> bool {
        for _ in 0..10_000 {
            self.step();
            if self.client.established() || self.client.failure().is_some() {
                break;
            }
        }
        self.client.established()
    }

    /// Runs for `ms` of virtual time.
    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        self.collect();
        while self.next_event().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
        self.work();
    }

    /// Jumps to the next event and does everything that is due.
    pub fn step(&mut self) {
        self.collect();
        if let Some(at) = self.next_event() {
            self.now = self.now.max(at);
        }
        self.work();
    }

    fn work(&mut self) {
        while let Some(((at, number), _)) = self.under_way.first_key_value()
            && *at <= self.now
        {
            let key = (*at, *number);
            if let Some((to, datagram)) = self.under_way.remove(&key) {
                self.deliver(to, &datagram);
            }
            self.collect();
        }
        self.gateway.handle_timeout(self.now);
        self.client.handle_timeout(self.now);
        self.collect();
    }

    /// Replaces the gateway by another instance that knows only what was committed. What is under way
    /// stays under way.
    pub fn take_over(&mut self) {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        self.gateway = Ike::new(self.config.clone(), seed);
        let records: Vec<_> =
            self.committed.ike_sas.iter().map(|(spi, state)| (*spi, state.clone())).collect();
        let records = records.iter().map(|(spi, state)| (*spi, state.as_bytes()));
        let errors = self.gateway.restore(self.now, records);
        debug_assert!(errors.is_empty(), "{errors:?}");
    }

    /// A datagram of the client as it arrives: ports and addresses change places.
    #[must_use]
    pub fn as_seen_by_gateway(&self, datagram: Datagram) -> Datagram {
        let remote = SocketAddrV4::new(self.client_address, datagram.local_port);
        let local_port = datagram.remote.port();
        Datagram { local_port, remote, ..datagram }
    }

    /// Hands a datagram to the gateway as if it came from the client.
    pub fn inject(&mut self, datagram: &Datagram) {
        self.gateway.handle_datagram(self.now, datagram);
    }

    /// Commits the gateway's steps without sending anything, as if it died right after the commit.
    pub fn commit_without_sending(&mut self) -> Vec<Datagram> {
        let mut unsent = Vec::new();
        while let Some(ready) = self.gateway.poll_ready() {
            self.committed.apply(&ready.changes);
            unsent.extend(ready.datagrams);
        }
        unsent
    }

    /// Commits and sends what both ends have ready.
    pub fn collect(&mut self) {
        while let Some(ready) = self.gateway.poll_ready() {
            self.committed.apply(&ready.changes);
            for datagram in ready.datagrams {
                self.sent.push((true, datagram.clone()));
                // Seen from the other side, ports and addresses change places.
                let remote = SocketAddrV4::new(self.config.local, datagram.local_port);
                let local_port = datagram.remote.port();
                self.send(End::Client, Datagram { local_port, remote, ..datagram });
            }
        }
        while let Some(ready) = self.client.poll_ready() {
            for datagram in ready.datagrams {
                let seen = self.as_seen_by_gateway(datagram);
                self.sent.push((false, seen.clone()));
                self.send(End::Gateway, seen);
            }
        }
    }

    fn deliver(&mut self, to: End, datagram: &Datagram) {
        match to {
            End::Gateway => self.gateway.handle_datagram(self.now, datagram),
            End::Client => self.client.handle_datagram(self.now, datagram),
        }
    }

    fn send(&mut self, to: End, datagram: Datagram) {
        let copies = if self.chance(self.network.duplicate_percent) { 2 } else { 1 };
        for _ in 0..copies {
            if self.chance(self.network.loss_percent) {
                continue;
            }
            let jitter_ms = match self.network.jitter_ms {
                0 => 0,
                jitter_ms => self.random.next_u64() % jitter_ms,
            };
            self.number += 1;
            let at = self.now.plus_ms(self.network.latency_ms + jitter_ms);
            self.under_way.insert((at, self.number), (to, datagram.clone()));
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.random.next_u32() % 100 < percent
    }

    fn next_event(&self) -> Option<Nanos> {
        let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
        [arrival, self.gateway.poll_timeout(), self.client.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}
