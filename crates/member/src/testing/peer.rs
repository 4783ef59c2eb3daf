//! A peer: an unmodified IKEv2 initiator with ESP, and a client behind it that calls the service.

use holdfast_crypto::SecretBytes;
use holdfast_ike::testing::{Client, ClientConfig};
use holdfast_ike::{Datagram, Identity, Outcome, SyncSupport};
use holdfast_ipsec::{
    ChildSaParameters, DropReason, Encapsulation, InboundSa, OutboundSa, SequenceRange, Spi,
    TrafficSelector,
};
use holdfast_packet::{HeapBuf, MacAddr, Nanos, PacketBuf, arp, ethernet, frame, ipv4, udp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Requests remembered; older answers no longer count.
const REQUESTS_MAX: usize = 1 << 20;

/// Ports the client calls from: so many connections at a time.
const PORTS: u16 = 64;

/// Stands in every request and answer, so that clear text is known where it must not be.
pub(crate) const MARKER: &[u8; 16] = b"in clear, alas!!";

/// The bit of the IKE header's flags that tells a response (RFC 7296 section 3.1), and where the
/// flags are.
const RESPONSE_FLAG: u8 = 0x20;
const FLAGS_OFFSET: usize = 19;

/// After this long a persistent peer begins a handshake anew.
const HANDSHAKE_PATIENCE_MS: u64 = 2_000;

/// How long to wait for an answer to an ARP question.
const ASK_AGAIN_MS: u64 = 100;

/// What a peer is made of.
#[derive(Debug, Clone)]
pub(crate) struct PeerSetup {
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
    /// The address of the client behind it.
    pub(crate) client: Ipv4Addr,
    pub(crate) common: Ipv4Addr,
    pub(crate) psk: Vec<u8>,
    pub(crate) seed: [u8; 32],
    pub(crate) esn: bool,
    pub(crate) sync: SyncSupport,
}

/// A pair of SAs as the peer runs it.
struct Pair {
    order: u64,
    parameters: ChildSaParameters,
    inbound: InboundSa,
    outbound: OutboundSa,
}

/// The peer.
pub struct Peer {
    mac: MacAddr,
    address: Ipv4Addr,
    client: Ipv4Addr,
    common: Ipv4Addr,
    common_mac: Option<MacAddr>,
    asked: Option<Nanos>,
    answers_to_arp: Vec<Vec<u8>>,
    ike: Client,
    pairs: BTreeMap<Spi, Pair>,
    /// The pair packets are sent with.
    sending: Option<Spi>,
    /// Whether a rekey at the peer's own wish is under way.
    rekeying: bool,
    installed: u64,
    out: VecDeque<Vec<u8>>,
    /// Every ESP frame sent, for an attacker to replay.
    sent_esp: Vec<Vec<u8>>,
    interval_us: Option<u64>,
    next_request: Nanos,
    requests: u64,
    first_port: u16,
    /// When each request was sent.
    sent: BTreeMap<u64, Nanos>,
    /// When each answer came.
    answers: BTreeMap<u64, Nanos>,
    /// Which targets' answers were refused, and why.
    refused: BTreeMap<&'static str, u64>,
    rekeys: u64,
    window: Option<Window>,
    /// The pairs the cluster told this peer it has, by the cluster's SPI.
    acknowledged: BTreeSet<Spi>,
    /// Pairs there were when it last began to connect, until that has led to a new one.
    connecting: Option<u64>,
    /// When it last began to connect.
    connected: Nanos,
    /// Pairs it had.
    gone: BTreeSet<Spi>,
    /// Connects again whenever it has no pair.
    persistent: bool,
    /// Neither sends nor hears.
    silent: bool,
}

/// A sender that waits for answers, as TCP does.
#[derive(Debug, Clone)]
struct Window {
    requests_max: usize,
    pause_us: u64,
    under_way: BTreeSet<u64>,
    /// After a timeout one request at a time, until an answer comes.
    recovering: bool,
    timeout_ms: u64,
    timeout_at: Nanos,
}

/// The retransmission timeout of Linux in a local network, and the first of a doubling row.
const TIMEOUT_MS: u64 = 200;

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("pairs", &self.pairs.keys().collect::<Vec<_>>())
            .field("requests", &self.requests)
            .field("answers", &self.answers.len())
            .field("refused", &self.refused)
            .field("failure", &self.ike.failure())
            .field("station", &self.common_mac)
            .field("connected", &self.connected)
            .finish_non_exhaustive()
    }
}

impl Window {
    /// Whether nothing may be sent before an answer or the timeout.
    fn is_shut(&self) -> bool {
        let most = if self.recovering { 1 } else { self.requests_max };
        self.under_way.len() >= most
    }
}

impl Peer {
    pub(crate) fn new(setup: &PeerSetup) -> Self {
        let psk = SecretBytes::new(setup.psk.clone());
        let mut config = ClientConfig::new(setup.address, setup.common, psk);
        config.local_ts = vec![TrafficSelector::host(setup.client)];
        config.remote_ts = vec![TrafficSelector::host(setup.common)];
        // An identity of its own: INITIAL_CONTACT ends all other IKE SAs of the same.
        config.identity = Identity::Ipv4(setup.address);
        config.esn = setup.esn;
        config.sync = setup.sync;
        config.pretend_nat = false;
        Self {
            mac: setup.mac,
            address: setup.address,
            client: setup.client,
            common: setup.common,
            common_mac: None,
            asked: None,
            answers_to_arp: Vec::new(),
            ike: Client::new(config, setup.seed),
            pairs: BTreeMap::new(),
            sending: None,
            rekeying: false,
            installed: 0,
            out: VecDeque::new(),
            sent_esp: Vec::new(),
            interval_us: None,
            next_request: Nanos::ZERO,
            requests: 0,
            first_port: 1_024,
            sent: BTreeMap::new(),
            answers: BTreeMap::new(),
            refused: BTreeMap::new(),
            rekeys: 0,
            window: None,
            acknowledged: BTreeSet::new(),
            connecting: None,
            connected: Nanos::ZERO,
            gone: BTreeSet::new(),
            persistent: false,
            silent: false,
        }
    }

    /// Begins to connect.
    pub fn connect(&mut self, now: Nanos) {
        self.connecting = Some(self.installed);
        self.connected = now;
        self.ike.connect(now);
    }

    /// Whether traffic can flow.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.ike.established() && self.sending.is_some()
    }

    /// From now on calls the service once per `interval_us`; `None` ends it.
    pub fn set_traffic(&mut self, now: Nanos, interval_us: Option<u64>) {
        self.interval_us = interval_us;
        self.next_request = now;
    }

    /// From now on has at most `requests_max` requests unanswered, `pause_us` apart. When none is
    /// answered for a fifth of a second it repeats one, then waits twice as long, and so on.
    pub fn set_window(&mut self, now: Nanos, requests_max: usize, pause_us: u64) {
        self.set_traffic(now, Some(pause_us));
        self.window = Some(Window {
            requests_max,
            pause_us,
            under_way: BTreeSet::new(),
            recovering: false,
            timeout_ms: TIMEOUT_MS,
            timeout_at: now.plus_ms(TIMEOUT_MS),
        });
    }

    /// From now on calls from other ports: new connections.
    pub fn hang_up(&mut self) {
        self.first_port = self.first_port.wrapping_add(PORTS);
    }

    /// Rekeys the pair packets are sent with, at the peer's own wish.
    pub fn rekey(&mut self, now: Nanos) {
        if let Some(spi) = self.sending {
            // Busy with the same already: then it happens anyway.
            let _ = self.ike.ike().rekey_child(now, spi);
            self.rekeying = true;
        }
    }

    /// Rekeys the IKE SA, at the peer's own wish.
    pub fn rekey_ike(&mut self, now: Nanos) {
        let spi = self.ike.ike().sas().find(|sa| sa.state == "established").map(|sa| sa.spi);
        if let Some(spi) = spi {
            // Busy with the same already: then it happens anyway.
            let _ = self.ike.ike().rekey_ike(now, spi);
        }
    }

    /// Deletes the pair packets are sent with.
    pub fn delete_child(&mut self, now: Nanos) {
        if let Some(spi) = self.sending {
            // Busy with the same already: then it happens anyway.
            let _ = self.ike.ike().delete_child(now, spi);
        }
    }

    /// Deletes the IKE SA and everything under it.
    pub fn delete_ike(&mut self, now: Nanos) {
        let spi = self.ike.ike().sas().find(|sa| sa.state == "established").map(|sa| sa.spi);
        if let Some(spi) = spi {
            // Busy with the same already: then it happens anyway.
            let _ = self.ike.ike().delete_ike(now, spi);
        }
    }

    /// From now on connects again whenever it has no pair left.
    pub fn persist(&mut self) {
        self.persistent = true;
    }

    /// Goes silent, its power cord pulled from the network card, or comes back.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// The pairs the cluster told this peer it has, by the cluster's inbound SPI, of those this
    /// peer still has: any owner must know them.
    pub fn acknowledged(&self) -> impl Iterator<Item = Spi> {
        let spis = self.pairs.values().map(|pair| pair.parameters.outbound_spi);
        spis.filter(|spi| self.acknowledged.contains(spi))
    }

    /// Sends a packet that is authentic but pretends to come from another client, which this
    /// peer's selectors do not allow.
    pub fn spoof(&mut self, now: Nanos) {
        let [a, b, c, _] = self.client.octets();
        self.request_as(now, Ipv4Addr::new(a, b, c, 250));
        self.run_ike();
    }

    /// Requests sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Answers received so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.len() as u64
    }

    /// The moment of the first answer to a request sent at or after `since`.
    #[must_use]
    pub fn first_answer_since(&self, since: Nanos) -> Option<Nanos> {
        let requests = self.sent.iter().filter(|(_, at)| **at >= since);
        requests.filter_map(|(id, _)| self.answers.get(id)).min().copied()
    }

    /// When the request was sent that was answered first of those sent at or after `since`, and when
    /// its answer came.
    #[must_use]
    pub fn first_answered(&self, since: Nanos) -> Option<(Nanos, Nanos)> {
        let requests = self.sent.iter().filter(|(_, at)| **at >= since);
        let answered = requests.filter_map(|(id, at)| Some((*at, *self.answers.get(id)?)));
        answered.min_by_key(|(_, answered)| *answered)
    }

    /// The longest time without an answer between two moments, in milliseconds.
    #[must_use]
    pub fn longest_silence_ms(&self, from: Nanos, to: Nanos) -> u64 {
        let mut moments: Vec<Nanos> =
            self.answers.values().copied().filter(|at| (from..=to).contains(at)).collect();
        moments.extend([from, to]);
        moments.sort_unstable();
        let gaps = moments.iter().zip(moments.iter().skip(1));
        gaps.map(|(earlier, later)| later.ms_since(*earlier)).max().unwrap_or(0)
    }

    /// The pair packets are sent with, by this peer's own SPI.
    #[must_use]
    pub fn sending(&self) -> Option<Spi> {
        self.sending
    }

    /// How many IKE SAs it has.
    pub fn ike_sas(&mut self) -> usize {
        self.ike.ike().sas().count()
    }

    /// How often a pair took another's place.
    #[must_use]
    pub fn rekeys(&self) -> u64 {
        self.rekeys
    }

    /// Packets of the cluster this peer refused, by reason.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Every frame with ESP sent so far.
    #[must_use]
    pub fn sent_esp(&self) -> &[Vec<u8>] {
        &self.sent_esp
    }

    pub(crate) fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Has it believe that the common address is at this station.
    pub(crate) fn mislead(&mut self, station: MacAddr) {
        self.common_mac = Some(station);
    }

    pub(crate) fn common_mac(&self) -> Option<MacAddr> {
        self.common_mac
    }

    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        let traffic = match &self.window {
            Some(window) if window.is_shut() => Some(window.timeout_at),
            _ => self.interval_us.map(|_| self.next_request),
        };
        self.ike.poll_timeout().into_iter().chain(traffic).min()
    }

    /// Does what is due; returns the frames to send.
    pub(crate) fn run(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        if self.ike.poll_timeout().is_some_and(|due| due <= now) {
            self.ike.handle_timeout(now);
        }
        self.reconnect(now);
        self.run_ike();
        self.run_window(now);
        while let Some(interval_us) = self.interval_us
            && self.next_request <= now
            && self.window.as_ref().is_none_or(|window| !window.is_shut())
        {
            self.request(now);
            self.next_request = self.next_request.plus_us(interval_us.max(1));
            if let Some(window) = &mut self.window {
                window.under_way.insert(self.requests);
                self.next_request = now.plus_us(window.pause_us);
            }
        }
        if self.silent {
            self.answers_to_arp.clear();
            self.out.clear();
            return Vec::new();
        }
        let Some(mac) = self.common_mac else { return self.ask(now) };
        let own = self.mac;
        let addressed = |mut frame: Vec<u8>| {
            ethernet::set_addresses(&mut frame, mac, own);
            frame
        };
        self.answers_to_arp.drain(..).chain(self.out.drain(..).map(addressed)).collect()
    }

    /// Repeats one request when none was answered for too long.
    fn run_window(&mut self, now: Nanos) {
        let Some(window) = &mut self.window else { return };
        if now < window.timeout_at {
            return;
        }
        window.under_way.clear();
        window.recovering = true;
        window.timeout_ms = window.timeout_ms.saturating_mul(2);
        window.timeout_at = now.plus_ms(window.timeout_ms);
        self.next_request = now;
    }

    /// What is left of the old IKE SA closes by itself: RFC 7296 section 1.4.1 lets its end wait
    /// for an answer, which a new connection need not. A handshake that was half done when its
    /// owner died is begun anew: its successor knows nothing of it.
    fn reconnect(&mut self, now: Nanos) {
        let closed = self.ike.established() && self.pairs.is_empty();
        let hangs =
            !self.ike.established() && now.ms_since(self.connected) >= HANDSHAKE_PATIENCE_MS;
        if self.persistent && (closed || hangs || self.ike.failure().is_some()) {
            let left: Vec<_> = self.ike.ike().sas().map(|sa| sa.spi).collect();
            // An IKE SA without a pair is of no use; busy with closing it is as good.
            left.into_iter().for_each(|spi| drop(self.ike.ike().delete_ike(now, spi)));
            self.connect(now);
        }
    }

    /// Nothing can be sent before the common address has a station.
    fn ask(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        let mut frames: Vec<Vec<u8>> = self.answers_to_arp.drain(..).collect();
        let due = self.asked.is_none_or(|asked| now.ms_since(asked) >= ASK_AGAIN_MS);
        if due && !self.out.is_empty() {
            self.asked = Some(now);
            let question = arp::Repr::request(self.mac, self.address, self.common);
            frames.push(question.frame(MacAddr::BROADCAST).to_vec());
        }
        frames
    }

    fn run_ike(&mut self) {
        while let Some(ready) = self.ike.poll_ready() {
            for datagram in ready.datagrams {
                let packet = frame::ike_packet(
                    self.address,
                    datagram.local_port,
                    *datagram.remote.ip(),
                    datagram.remote.port(),
                    &datagram.payload,
                );
                self.send(&packet);
            }
        }
        self.follow_children();
        while let Some(outcome) = self.ike.poll_outcome() {
            if let Outcome::CountOn { spi, packets } = outcome {
                self.count_on(spi, packets);
            }
        }
    }

    /// Skips outbound numbers, as a cluster asks after a failover (RFC 6311 section 5.2).
    fn count_on(&mut self, spi: Spi, packets: u64) {
        if let Some(pair) = self.pairs.get_mut(&spi) {
            let next = pair.outbound.range().next().saturating_add(packets);
            let rest = SequenceRange::new(next, u64::MAX);
            pair.outbound = OutboundSa::new(&pair.parameters, rest);
        }
    }

    /// Runs the Child SAs IKE has, no others; those of an IKE SA this peer closes are over for it.
    fn follow_children(&mut self) {
        let open = self.ike.ike().sas().filter(|sa| sa.state != "closing");
        let open: BTreeSet<Spi> = open.flat_map(|sa| sa.children).collect();
        let children = self.ike.children().filter(|child| open.contains(&child.inbound_spi));
        let children: BTreeMap<Spi, ChildSaParameters> =
            children.map(|child| (child.inbound_spi, child.clone())).collect();
        let gone = self.pairs.keys().filter(|spi| !children.contains_key(spi));
        self.gone.extend(gone);
        self.pairs.retain(|spi, _| children.contains_key(spi));
        for (spi, parameters) in children {
            // A pair never comes back: its numbers would begin anew under the same keys.
            if self.pairs.contains_key(&spi) || self.gone.contains(&spi) {
                continue;
            }
            self.installed = self.installed.saturating_add(1);
            let everything = SequenceRange::new(1, u64::MAX);
            let pair = Pair {
                order: self.installed,
                inbound: InboundSa::new(&parameters, 0, u64::MAX),
                outbound: OutboundSa::new(&parameters, everything),
                parameters,
            };
            self.pairs.insert(spi, pair);
            // RFC 7296 section 2.8: the side that began a rekey sends with the new pair at once.
            if std::mem::take(&mut self.rekeying) {
                self.switch_to(Some(spi));
            }
        }
        // A connection just made takes over at once.
        let newest = self.pairs.iter().max_by_key(|(_, pair)| pair.order);
        if let Some(first) = self.connecting
            && let Some((spi, pair)) = newest
            && self.ike.established()
            && pair.order > first
        {
            self.connecting = None;
            self.switch_to(Some(*spi));
        }
        // The other side goes on with the old pair until it is deleted or the new one was used.
        if self.sending.is_none_or(|spi| !self.pairs.contains_key(&spi)) {
            let newest = self.pairs.iter().max_by_key(|(_, pair)| pair.order);
            self.switch_to(newest.map(|(spi, _)| *spi));
        }
    }

    fn switch_to(&mut self, spi: Option<Spi>) {
        if self.sending.is_some() && spi.is_some() && self.sending != spi {
            self.rekeys = self.rekeys.saturating_add(1);
        }
        self.sending = spi;
    }

    fn request(&mut self, now: Nanos) {
        self.request_as(now, self.client);
    }

    fn request_as(&mut self, now: Nanos, source: Ipv4Addr) {
        let Some(pair) = self.sending.and_then(|spi| self.pairs.get_mut(&spi)) else { return };
        self.requests = self.requests.saturating_add(1);
        let nth = u16::try_from(self.requests % u64::from(PORTS)).unwrap_or(0);
        let port = self.first_port.wrapping_add(nth);
        let id = self.requests.to_be_bytes();
        let payload = [id.as_slice(), &self.client.octets(), MARKER].concat();
        let inner = frame::udp_packet(source, port, self.common, 7, &payload);
        let mut buf = HeapBuf::from_frame(&inner);
        if pair.outbound.seal(&mut buf).is_err() {
            return;
        }
        let packet = match pair.parameters.encapsulation {
            Encapsulation::Esp => frame::ipv4_packet(
                &ipv4::Repr::new(self.address, self.common, ipv4::PROTOCOL_ESP, 0),
                buf.bytes(),
            ),
            Encapsulation::Udp { local_port, remote_port } => {
                frame::udp_packet(self.address, local_port, self.common, remote_port, buf.bytes())
            }
        };
        if self.sent.len() < REQUESTS_MAX {
            self.sent.insert(self.requests, now);
        }
        if let Some(mac) = self.common_mac {
            self.sent_esp.push(frame::ethernet_frame(mac, self.mac, &packet));
        }
        self.send(&packet);
    }

    fn send(&mut self, packet: &[u8]) {
        let station = self.common_mac.unwrap_or(MacAddr::ZERO);
        self.out.push_back(frame::ethernet_frame(station, self.mac, packet));
    }

    /// Takes a frame in.
    pub(crate) fn receive(&mut self, now: Nanos, bytes: &[u8]) {
        let Ok(view) = ethernet::View::parse(bytes) else { return };
        if self.silent {
            return;
        }
        if view.destination() != self.mac && !view.destination().is_group() {
            return;
        }
        match view.ether_type() {
            ethernet::TYPE_ARP => self.on_arp(view.payload()),
            ethernet::TYPE_IPV4 => self.on_packet(now, view.payload()),
            _ => {}
        }
    }

    fn on_arp(&mut self, packet: &[u8]) {
        let Ok(packet) = arp::Repr::parse(packet) else { return };
        if packet.source == self.common {
            self.common_mac = Some(packet.source_mac);
        }
        if packet.operation == arp::Operation::Request && packet.target == self.address {
            let answer = packet.reply(self.mac).frame(packet.source_mac);
            self.answers_to_arp.push(answer.to_vec());
        }
    }

    fn on_packet(&mut self, now: Nanos, packet: &[u8]) {
        let Ok(ip) = ipv4::View::parse(packet) else { return };
        if ip.source() != self.common || ip.destination() != self.address {
            return;
        }
        if ip.protocol() == ipv4::PROTOCOL_ESP {
            return self.on_esp(now, ip.payload());
        }
        let Ok(datagram) = udp::View::parse(ip.payload()) else { return };
        let local_port = datagram.destination_port();
        let payload = match local_port {
            udp::PORT_IKE => datagram.payload(),
            _ => match udp::NatTraversal::parse(datagram.payload()) {
                udp::NatTraversal::Ike(message) => message,
                udp::NatTraversal::Esp(esp) => return self.on_esp(now, esp),
                _ => return,
            },
        };
        let remote = SocketAddrV4::new(ip.source(), datagram.source_port());
        let datagram = Datagram { local_port, remote, payload: payload.to_vec() };
        let flags = datagram.payload.get(FLAGS_OFFSET).copied().unwrap_or(0);
        self.ike.handle_datagram(now, &datagram);
        let before: BTreeSet<Spi> = self.pairs.keys().copied().collect();
        self.run_ike();
        if flags & RESPONSE_FLAG != 0 {
            let new = self.pairs.iter().filter(|(spi, _)| !before.contains(spi));
            self.acknowledged.extend(new.map(|(_, pair)| pair.parameters.outbound_spi));
        }
    }

    fn on_esp(&mut self, now: Nanos, esp: &[u8]) {
        match self.open(esp) {
            Ok((spi, payload)) => {
                // The cluster uses the pair: it has it, whoever asked for it.
                let used = self.pairs.get(&spi).map(|pair| pair.parameters.outbound_spi);
                self.acknowledged.extend(used);
                let newer = self.order(Some(spi)) > self.order(self.sending);
                if newer {
                    self.switch_to(Some(spi));
                }
                if let Some(id) = payload.first_chunk().map(|id| u64::from_be_bytes(*id)) {
                    self.answers.entry(id).or_insert(now);
                    self.answered(now, id);
                }
            }
            Err(reason) => {
                let count = self.refused.entry(reason.name()).or_insert(0);
                *count = count.saturating_add(1);
            }
        }
    }

    fn answered(&mut self, now: Nanos, id: u64) {
        let Some(window) = &mut self.window else { return };
        if window.under_way.remove(&id) {
            window.recovering = false;
            window.timeout_ms = TIMEOUT_MS;
            window.timeout_at = now.plus_ms(TIMEOUT_MS);
            self.next_request = self.next_request.max(now);
        }
    }

    fn order(&self, spi: Option<Spi>) -> u64 {
        spi.and_then(|spi| self.pairs.get(&spi)).map_or(0, |pair| pair.order)
    }

    /// The UDP payload inside, with the SPI it came under.
    fn open(&mut self, esp: &[u8]) -> Result<(Spi, Vec<u8>), DropReason> {
        let spi = esp.first_chunk().map(|spi| u32::from_be_bytes(*spi)).unwrap_or_default();
        let spi = Spi::new(spi).map_err(|_| DropReason::UnknownSpi)?;
        let pair = self.pairs.get_mut(&spi).ok_or(DropReason::UnknownSpi)?;
        let mut bytes = esp.to_vec();
        let opened = pair.inbound.open(&mut bytes)?;
        let inner = bytes.get(opened.inner).unwrap_or_default();
        let ip = ipv4::View::parse(inner).map_err(|_| DropReason::InnerMalformed)?;
        let datagram = udp::View::parse(ip.payload()).map_err(|_| DropReason::InnerMalformed)?;
        Ok((spi, datagram.payload().to_vec()))
    }
}
