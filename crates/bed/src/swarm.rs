//! A swarm of IPsec peers: as many real IKEv2 negotiations as are wanted, from one host, by the
//! initiator of crate `ike`, whose SAs then stand and answer as any peer's would.
//!
//! For numbers of SAs only, which no interoperability and no traffic is judged by: those come from
//! strongSwan. All peers share one address and its ports, as behind one NAT; their messages are
//! told apart by the IKE SPIs.
//!
//! ```text
//!   Client 0 .. N (sans-I/O)  <-- by SPI --  ports 500 and 4500 of one host on the outside wire
//! ```

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::topology::{COMMON, Topology};
use crate::wait::check_interrupt;
use holdfast_crypto::SecretBytes;
use holdfast_ike::testing::{Client, ClientConfig};
use holdfast_ike::{Datagram, Identity};
use holdfast_ipsec::TrafficSelector;
use holdfast_packet::Nanos;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The host all peers of the swarm share.
pub const SWARM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const SWARM_MAC: [u8; 6] = [0x02, 0x68, 0x66, 0x03, 0x02, 0x01];
/// The swarm's pre-shared key, of no value anywhere else.
const SWARM_KEY: &str = "for a swarm of test peers, of no value";
/// Inner addresses: one a peer.
const INNER_NETWORK: u32 = u32::from_be_bytes([10, 80, 0, 0]);
const INNER_PREFIX: &str = "10.80.0.0/14";
/// As many as the inner network has addresses.
pub const PEERS_MAX: usize = 1 << 18;
/// Negotiations at the same time: fewer than make the other end ask for cookies, and what they cost
/// its controller between two heartbeats is a small part of the time between those.
const AT_ONCE: usize = 8;
/// The swarm gives way to everything else on the machine: it is not what is measured.
const NICE: i32 = 19;
/// Port of IKE behind NATs, where a marker of four zero octets precedes it (RFC 3948, 2.2).
const PORT_NAT: u16 = 4500;
const PORT_IKE: u16 = 500;
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// How long the loop sleeps when nothing comes.
const IDLE: Duration = Duration::from_millis(2);
/// Half-open SAs end with their owner, so a negotiation that takes longer begins anew.
const PATIENCE_MS: u64 = 5_000;
/// Without a new SA for so long, the swarm has failed. A gateway that has answered thousands of
/// negotiations within half a minute takes no more for as long.
const STUCK: Duration = Duration::from_secs(60);

/// The members' `[[connection]]` that lets the swarm in, to stand behind another connection's
/// settings. Neither liveness checks nor lifetimes stir its SAs.
pub fn connection_table() -> String {
    let mut text = String::from("\n[[connection]]\nname = \"swarm\"\n");
    let _ = writeln!(text, "psk = \"{SWARM_KEY}\"\nremote_ts = [\"{INNER_PREFIX}\"]");
    text + "liveness_s = 0\nchild_lifetime_s = 86400\nike_lifetime_s = 86400\n"
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    wanted: AtomicUsize,
    established: AtomicUsize,
}

/// A running swarm. Dropping it lets its peers fall silent.
#[derive(Debug)]
pub struct Swarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<io::Result<()>>>>,
    // Behind the thread: it ends first.
    _namespace: Namespace,
}

impl Swarm {
    /// Connects its host to the outside wire. No peer negotiates yet.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn join(topology: &Topology) -> Result<Self, BedError> {
        let namespace = topology.join_outside("swarm", SWARM, SWARM_MAC)?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = namespace.spawn("swarm", move || {
            // Of the calling thread alone.
            rustix::process::setpriority_process(None, NICE)?;
            Peers::new()?.serve(&own)
        })?;
        Ok(Self { shared, thread: Some(thread), _namespace: namespace })
    }

    /// Lets peers connect until `count` of them are established.
    ///
    /// # Errors
    /// When no SA has been added for a while, with how far it came; or on interruption.
    pub fn grow_to(&mut self, count: usize) -> Result<(), BedError> {
        self.shared.wanted.store(count.min(PEERS_MAX), Ordering::Relaxed);
        let (mut newest, mut since) = (self.established(), Instant::now());
        while self.established() < count {
            check_interrupt()?;
            std::thread::sleep(Duration::from_millis(20));
            if self.established() > newest {
                (newest, since) = (self.established(), Instant::now());
            }
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if since.elapsed() > STUCK || ended {
                return Err(BedError::Timeout {
                    what: format!("{count} peers"),
                    waited_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                    hint: format!("; {newest} are established"),
                });
            }
        }
        Ok(())
    }

    /// Peers with an SA.
    pub fn established(&self) -> usize {
        self.shared.established.load(Ordering::Relaxed)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its failure has shown as peers that were missing.
            let _ = thread.join();
        }
    }
}

/// All peers and their two sockets.
struct Peers {
    clients: Vec<Client>,
    established: Vec<bool>,
    /// Peers by the SPI they gave their IKE SA, which both ends put first.
    by_spi: HashMap<u64, usize>,
    timeouts: BTreeSet<(Nanos, usize)>,
    timeout_of: Vec<Option<Nanos>>,
    /// When negotiations began that may not be complete, in order.
    begun: VecDeque<(Nanos, usize)>,
    under_way: usize,
    ike: UdpSocket,
    nat: UdpSocket,
    start: Instant,
}

impl Peers {
    fn new() -> io::Result<Self> {
        let bind = |port| {
            let socket = UdpSocket::bind(SocketAddrV4::new(SWARM, port))?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self {
            clients: Vec::new(),
            established: Vec::new(),
            by_spi: HashMap::new(),
            timeouts: BTreeSet::new(),
            timeout_of: Vec::new(),
            begun: VecDeque::new(),
            under_way: 0,
            ike: bind(PORT_IKE)?,
            nat: bind(PORT_NAT)?,
            start: Instant::now(),
        })
    }

    fn serve(mut self, shared: &Shared) -> io::Result<()> {
        while !shared.stop.load(Ordering::Relaxed) {
            let heard = self.receive()?;
            self.expire();
            let wanted = shared.wanted.load(Ordering::Relaxed);
            while self.clients.len() < wanted && self.under_way < AT_ONCE {
                self.begin();
            }
            let established = self.clients.len() - self.under_way;
            shared.established.store(established, Ordering::Relaxed);
            if !heard {
                std::thread::sleep(IDLE);
            }
        }
        Ok(())
    }

    fn now(&self) -> Nanos {
        // From 1, as 0 stands for never.
        Nanos::from_ms(1 + u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn begin(&mut self) {
        let index = self.clients.len();
        self.clients.push(client(index));
        self.established.push(false);
        self.timeout_of.push(None);
        self.under_way += 1;
        self.connect(index);
    }

    fn connect(&mut self, index: usize) {
        let now = self.now();
        if let Some(client) = self.clients.get_mut(index) {
            client.connect(now);
        }
        self.begun.push_back((now, index));
        self.settle(index);
    }

    /// Whether anything came.
    fn receive(&mut self) -> io::Result<bool> {
        let mut heard = false;
        let mut buffer = [0u8; 4096];
        for port in [PORT_IKE, PORT_NAT] {
            loop {
                let socket = if port == PORT_NAT { &self.nat } else { &self.ike };
                let (length, from) = match socket.recv_from(&mut buffer) {
                    Ok((length, SocketAddr::V4(from))) => (length, from),
                    Ok(_) => continue,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if crate::probe::is_transient(&e) => continue,
                    Err(e) => return Err(e),
                };
                heard = true;
                let datagram = buffer.get(..length).unwrap_or_default();
                self.take(port, from, datagram);
            }
        }
        Ok(heard)
    }

    fn take(&mut self, port: u16, from: SocketAddrV4, datagram: &[u8]) {
        let message = match port {
            PORT_NAT => datagram.strip_prefix(&NON_ESP_MARKER),
            _ => Some(datagram),
        };
        let Some(message) = message else { return };
        let Some(&index) = spi_of(message).and_then(|spi| self.by_spi.get(&spi)) else { return };
        let now = self.now();
        if let Some(client) = self.clients.get_mut(index) {
            let payload = message.to_vec();
            client.handle_datagram(now, &Datagram { local_port: port, remote: from, payload });
        }
        self.settle(index);
    }

    fn expire(&mut self) {
        let now = self.now();
        while let Some((_, index)) =
            self.begun.pop_front_if(|(begun, _)| now >= begun.plus_ms(PATIENCE_MS))
        {
            if self.established.get(index) == Some(&false) {
                self.connect(index);
            }
        }
        while let Some((at, index)) = self.timeouts.first().copied().filter(|(at, _)| *at <= now) {
            self.timeouts.remove(&(at, index));
            if let Some(of) = self.timeout_of.get_mut(index) {
                *of = None;
            }
            if let Some(client) = self.clients.get_mut(index) {
                client.handle_timeout(now);
            }
            self.settle(index);
        }
    }

    /// Sends what a peer has to send, notes its next timeout and whether it is established. One
    /// that gave up begins again.
    fn settle(&mut self, index: usize) {
        let now = self.now();
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.failure().is_some() {
            client.connect(now);
        }
        while let Some(ready) = client.poll_ready() {
            for datagram in ready.datagrams {
                if let Some(spi) = spi_of(&datagram.payload) {
                    self.by_spi.insert(spi, index);
                }
                let (socket, mut bytes) = match datagram.local_port {
                    PORT_NAT => (&self.nat, NON_ESP_MARKER.to_vec()),
                    _ => (&self.ike, Vec::new()),
                };
                bytes.extend(datagram.payload);
                // What is lost here is repeated like anything lost.
                let _ = socket.send_to(&bytes, datagram.remote);
            }
        }
        let done = client.established();
        if let Some(established) = self.established.get_mut(index)
            && done
            && !*established
        {
            *established = true;
            self.under_way -= 1;
        }
        let timeout = client.poll_timeout();
        if let Some(of) = self.timeout_of.get_mut(index)
            && *of != timeout
        {
            if let Some(old) = of.take() {
                self.timeouts.remove(&(old, index));
            }
            *of = timeout;
            self.timeouts.extend(timeout.map(|at| (at, index)));
        }
    }
}

fn spi_of(message: &[u8]) -> Option<u64> {
    message.first_chunk().map(|spi| u64::from_be_bytes(*spi))
}

fn client(index: usize) -> Client {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let mut config = ClientConfig::new(SWARM, COMMON, SecretBytes::from(SWARM_KEY.as_bytes()));
    config.identity = Identity::Email(format!("swarm-{index}@holdfast.example"));
    config.local_ts = vec![TrafficSelector::host(Ipv4Addr::from(INNER_NETWORK | number))];
    config.remote_ts = vec![TrafficSelector::host(COMMON)];
    config.initial_contact = false;
    let mut seed = [0x5a; 32];
    if let Some(start) = seed.first_chunk_mut() {
        *start = number.to_be_bytes();
    }
    Client::new(config, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_an_spi_and_an_inner_address_of_its_own() {
        let mut spis = BTreeSet::new();
        for index in 0..50 {
            let mut client = client(index);
            client.connect(Nanos::from_ms(1));
            let ready = client.poll_ready().expect("the first request");
            spis.extend(ready.datagrams.iter().filter_map(|d| spi_of(&d.payload)));
        }
        assert_eq!(spis.len(), 50);
        assert!(connection_table().contains("remote_ts = [\"10.80.0.0/14\"]"));
    }
}
