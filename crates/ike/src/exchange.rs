//! Requests and responses on established IKE SAs: window, repetition, tasks (RFC 7296 sections 2.1 to
//! 2.4).

use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;

use crate::codec::{
    Chain, Contents, Delete, ExchangeType, Header, Notify, NotifyType, PayloadType,
};
use crate::endpoint::Fate;
use crate::protect::IvSource;
use crate::sa::{ChildPhase, IkeSa, Outstanding, Path, Pending, Phase, Task};
use crate::{Datagram, Ike, Refusal};

const IP_AND_UDP_LEN: usize = 28;
const NON_ESP_MARKER_LEN: usize = 4;

impl Ike {
    /// Handles a request on an established IKE SA.
    pub(crate) fn handle_request(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, outer): (&Header, &Contents<'_>),
    ) -> Fate {
        if let Some(fate) = self.answer_sync(now, sa, datagram, (header, outer)) {
            return fate;
        }
        let repeated = header.message_id.checked_add(1) == Some(sa.expected_request)
            && !sa.last_response.is_empty();
        if !repeated && header.message_id != sa.expected_request {
            self.counters.count(Refusal::MessageId);
            return Fate::Keep;
        }
        if !repeated && sa.synchronising() && header.exchange == ExchangeType::CreateChildSa {
            // The peer gives up what it waits for when it is synchronised, also an SA it would then not
            // know of. It asks anew (RFC 6311 sections 8.1 and 9).
            self.counters.count(Refusal::TemporaryFailure);
            return Fate::Keep;
        }
        let mut slot = sa.request_fragments.take();
        let opened = Self::open_message(
            now,
            &mut self.counters,
            (sa.inbound_keys(), &mut slot, repeated),
            (&datagram.payload, header, outer),
        );
        sa.request_fragments = slot;
        let Some((first, content)) = opened else { return Fate::Keep };
        if repeated {
            self.repeat_response(sa, datagram);
            return Fate::Keep;
        }
        self.heard(now, sa);
        self.moved(sa, datagram);
        self.step.dirty.insert(sa.local_spi);
        let fate = self.answer(now, sa, datagram, (header, first, &content));
        if fate == Fate::Keep {
            self.start_next(now, sa);
        }
        fate
    }

    /// Answers a fresh, authentic request.
    fn answer(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, first, content): (&Header, PayloadType, &[u8]),
    ) -> Fate {
        match Contents::parse(first, content, 0) {
            Err(_) => self.refuse_syntax(sa, datagram, header),
            Ok(contents) => match (contents.unknown_critical, header.exchange) {
                (Some(kind), _) => {
                    self.counters.count(Refusal::UnknownCritical);
                    let data = [kind.0];
                    let kind = NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD;
                    self.respond_notify(sa, datagram, header, &Notify::new(kind, &data))
                }
                (None, ExchangeType::Informational) => {
                    self.informational(now, sa, datagram, (header, &contents))
                }
                (None, ExchangeType::CreateChildSa) => {
                    self.create_child_sa(now, sa, datagram, (header, &contents))
                }
                (None, _) => {
                    self.counters.count(Refusal::UnexpectedExchange);
                    self.refuse_syntax(sa, datagram, header)
                }
            },
        }
    }

    /// A message for an IKE SA that was closed: repeats the last answer if it asks for that.
    pub(crate) fn handle_departed(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, outer): (&Header, &Contents<'_>),
    ) {
        if header.message_id.checked_add(1) != Some(sa.expected_request) {
            return self.counters.count(Refusal::UnknownSpi);
        }
        let keys = (sa.inbound_keys(), &mut None, true);
        let message = (&*datagram.payload, header, outer);
        if Self::open_message(now, &mut self.counters, keys, message).is_some() {
            self.repeat_response(sa, datagram);
        }
    }

    fn repeat_response(&mut self, sa: &IkeSa, datagram: &Datagram) {
        self.counters.repeated_responses += 1;
        self.step.datagrams.extend(Path::of(datagram).carry(&sa.last_response));
    }

    /// An authentic request that makes no sense closes the IKE SA on both sides (section 2.21.3).
    pub(crate) fn refuse_syntax(
        &mut self,
        sa: &mut IkeSa,
        datagram: &Datagram,
        header: &Header,
    ) -> Fate {
        self.counters.count(Refusal::InvalidSyntax);
        let notify = Notify::new(NotifyType::INVALID_SYNTAX, &[]);
        let _kept = self.respond_notify(sa, datagram, header, &notify);
        Fate::Discard
    }

    /// Answers with one notification.
    pub(crate) fn respond_notify(
        &mut self,
        sa: &mut IkeSa,
        datagram: &Datagram,
        header: &Header,
        notify: &Notify<'_>,
    ) -> Fate {
        let mut chain = Chain::new();
        chain.notify(notify);
        self.respond(sa, datagram, header, &chain);
        Fate::Keep
    }

    /// Answers a fresh request; the answer is kept for repetition.
    pub(crate) fn respond(
        &mut self,
        sa: &mut IkeSa,
        datagram: &Datagram,
        header: &Header,
        chain: &Chain,
    ) {
        if let Some(messages) = self.seal(sa, &header.reply(), chain, datagram.local_port) {
            self.step.datagrams.extend(Path::of(datagram).carry(&messages));
            sa.last_response = messages;
            sa.expected_request = header.message_id.saturating_add(1);
            self.step.dirty.insert(sa.local_spi);
        }
    }

    pub(crate) fn seal(
        &mut self,
        sa: &mut IkeSa,
        header: &Header,
        chain: &Chain,
        local_port: u16,
    ) -> Option<Vec<Vec<u8>>> {
        let room = self.room(local_port);
        let mut sealed = sa.sealed;
        let mut iv = IvSource { counter: &mut sealed, random: &mut self.random };
        let limit = sa.fragmentation.then_some(room);
        let messages = sa.outbound_keys().seal(header, chain, limit, &mut iv).ok();
        sa.sealed = sealed;
        messages
    }

    /// Octets an unfragmented message may have.
    pub(crate) fn room(&self, local_port: u16) -> usize {
        let marker = if local_port == 500 { 0 } else { NON_ESP_MARKER_LEN };
        usize::from(self.config.fragment_size).saturating_sub(IP_AND_UDP_LEN + marker)
    }

    /// Sends a request of our own; the window must be free.
    pub(crate) fn request(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        (exchange, chain): (ExchangeType, &Chain),
        pending: Pending,
    ) {
        let header = Header {
            spi_i: sa.spi_i(),
            spi_r: sa.spi_r(),
            exchange,
            from_initiator: sa.original_initiator,
            response: false,
            message_id: sa.next_request,
        };
        let Some(messages) = self.seal(sa, &header, chain, sa.path.local_port) else { return };
        self.step.datagrams.extend(sa.path.carry(&messages));
        let wait_ms = self.config.retransmit.wait_ms(0).unwrap_or_default();
        sa.outstanding = Some(Outstanding {
            message_id: sa.next_request,
            messages,
            attempt: 0,
            deadline: now.plus_ms(wait_ms),
            pending,
        });
        sa.next_request = sa.next_request.saturating_add(1);
        self.step.dirty.insert(sa.local_spi);
    }

    /// Handles a response on an established IKE SA.
    pub(crate) fn handle_response(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, outer): (&Header, &Contents<'_>),
    ) -> Fate {
        let awaited = sa.outstanding.as_ref().is_some_and(|outstanding| {
            outstanding.message_id == header.message_id
                && outstanding.pending.exchange() == header.exchange
        });
        if !awaited {
            self.counters.count(Refusal::UnexpectedResponse);
            return Fate::Keep;
        }
        let mut slot = sa.response_fragments.take();
        let opened = Self::open_message(
            now,
            &mut self.counters,
            (sa.inbound_keys(), &mut slot, false),
            (&datagram.payload, header, outer),
        );
        sa.response_fragments = slot;
        let Some((first, content)) = opened else { return Fate::Keep };
        if !Self::fits_sync(sa, &Contents::parse(first, &content, 0).unwrap_or_default()) {
            self.counters.count(Refusal::UnexpectedResponse);
            return Fate::Keep;
        }
        let Some(outstanding) = sa.outstanding.take() else { return Fate::Keep };
        self.heard(now, sa);
        self.moved(sa, datagram);
        self.step.dirty.insert(sa.local_spi);
        let contents = Contents::parse(first, &content, 0).unwrap_or_else(|_| {
            self.counters.count(Refusal::BadResponse);
            Contents::default()
        });
        if contents.notify(NotifyType::INVALID_SYNTAX).is_some() {
            self.counters.count(Refusal::BadResponse);
            return Fate::Discard;
        }
        let fate = self.answered(now, sa, outstanding.pending, &contents);
        if fate == Fate::Keep {
            self.start_next(now, sa);
        }
        fate
    }

    /// Draws the consequences of an answer.
    fn answered(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        pending: Pending,
        contents: &Contents<'_>,
    ) -> Fate {
        match pending {
            Pending::Liveness => Fate::Keep,
            Pending::Synchronise { delta, .. } => {
                self.synchronised(sa, delta.as_ref(), contents);
                Fate::Keep
            }
            Pending::CounterSync => {
                self.synchronised(sa, Some(&Vec::new()), contents);
                Fate::Keep
            }
            Pending::CloseIke => Fate::Discard,
            Pending::CloseChildren(spis) => {
                for spi in spis {
                    self.remove_child(sa, spi);
                }
                Fate::Keep
            }
            pending @ Pending::RekeyChild { .. } => {
                self.child_rekeyed(now, sa, pending, contents);
                Fate::Keep
            }
            pending @ Pending::RekeyIke { .. } => {
                self.ike_rekeyed(now, sa, pending, contents);
                Fate::Keep
            }
        }
    }

    /// Sends the most urgent request if the window is free.
    pub(crate) fn start_next(&mut self, now: Nanos, sa: &mut IkeSa) {
        while sa.outstanding.is_none() {
            let Some(task) = sa.tasks.pop_first() else { return };
            if sa.phase != Phase::Established && task != Task::CloseIke {
                continue;
            }
            match task {
                Task::CloseIke => {
                    sa.tasks.clear();
                    let delete = delete_chain(&Delete::Ike);
                    self.request(now, sa, (INFORMATIONAL, &delete), Pending::CloseIke);
                }
                Task::Synchronise(delta) => self.start_sync(now, sa, delta),
                Task::CloseChild(spi) => self.close_children(now, sa, spi),
                Task::RekeyChild(spi) => self.start_child_rekey(now, sa, spi),
                Task::RekeyIke => self.start_ike_rekey(now, sa),
                Task::Disown(stray) => self.send_disowning(now, sa, stray),
                Task::Liveness => {
                    self.request(now, sa, (INFORMATIONAL, &Chain::new()), Pending::Liveness);
                }
            }
        }
    }

    /// Deletes a Child SA and all others that wait for it, in one exchange.
    fn close_children(&mut self, now: Nanos, sa: &mut IkeSa, spi: Spi) {
        let mut spis = vec![spi];
        while let Some(Task::CloseChild(spi)) = sa.tasks.first().copied() {
            sa.tasks.pop_first();
            spis.push(spi);
        }
        let delete = Delete::Esp(spis.iter().map(|spi| spi.get()).collect());
        let chain = delete_chain(&delete);
        self.request(now, sa, (INFORMATIONAL, &chain), Pending::CloseChildren(spis));
    }

    /// An authentic, fresh message came: the peer lives (section 2.4).
    pub(crate) fn heard(&self, now: Nanos, sa: &mut IkeSa) {
        let name = sa.authenticated.connection();
        let connection = self.config.connections.iter().find(|c| c.name == name);
        let after = connection.and_then(|connection| connection.liveness_s);
        sa.liveness_at = after.map(|after| now.plus_secs(after.into()));
    }

    /// Follows the peer to a new address or port, which a NAT may give it at any time (section 2.23).
    /// Its Child SAs are rekeyed to follow too.
    fn moved(&self, sa: &mut IkeSa, datagram: &Datagram) {
        let path = Path::of(datagram);
        if sa.nat.local || sa.path == path {
            return;
        }
        sa.path = path;
        let encapsulation = path.encapsulation(sa.nat);
        for child in sa.children.values().filter(|child| child.phase == ChildPhase::Installed) {
            let parameters = &child.parameters;
            if parameters.remote != *path.remote.ip() || parameters.encapsulation != encapsulation {
                sa.tasks.insert(Task::RekeyChild(parameters.inbound_spi));
            }
        }
    }

    /// When a new IKE SA is rekeyed, expires, and is asked whether its peer lives.
    pub(crate) fn schedule(&mut self, now: Nanos, sa: &mut IkeSa) {
        let life_s = self.connection_of(sa).map_or(0, |connection| connection.ike_lifetime_s);
        (sa.rekey_at, sa.expire_at) = self.lifetime(now, life_s);
        self.heard(now, sa);
    }

    /// Does what has become due for one IKE SA.
    pub(crate) fn sa_timeout(&mut self, now: Nanos, sa: &mut IkeSa) -> Fate {
        let due = |at: &mut Option<Nanos>| at.take_if(|at| *at <= now).is_some();
        if let Some(outstanding) = sa.outstanding.as_mut().filter(|o| o.deadline <= now) {
            outstanding.attempt = outstanding.attempt.saturating_add(1);
            let Some(wait_ms) = self.config.retransmit.wait_ms(outstanding.attempt) else {
                self.counters.count(Refusal::PeerUnresponsive);
                return Fate::Discard;
            };
            outstanding.deadline = now.plus_ms(wait_ms);
            self.counters.retransmissions += 1;
            if !self.repeat_sync(now, sa, wait_ms)
                && let Some(outstanding) = &sa.outstanding
            {
                self.step.datagrams.extend(sa.path.carry(&outstanding.messages));
            }
        }
        if due(&mut sa.expire_at) {
            for spi in sa.children.keys().copied().collect::<Vec<_>>() {
                self.remove_child(sa, spi);
            }
            sa.phase = Phase::Closing;
            sa.tasks.insert(Task::CloseIke);
            self.step.dirty.insert(sa.local_spi);
        }
        if due(&mut sa.rekey_at) {
            let replaced = sa.phase != Phase::Established;
            sa.tasks.insert(if replaced { Task::CloseIke } else { Task::RekeyIke });
        }
        if due(&mut sa.liveness_at) && sa.outstanding.is_none() {
            sa.tasks.insert(Task::Liveness);
        }
        let mut expired = Vec::new();
        for (spi, child) in &mut sa.children {
            if due(&mut child.expire_at) {
                expired.push(*spi);
            } else if due(&mut child.rekey_at) && child.phase == ChildPhase::Installed {
                sa.tasks.insert(Task::RekeyChild(*spi));
            }
        }
        for spi in expired {
            self.withdraw_child(sa, spi);
            self.step.dirty.insert(sa.local_spi);
        }
        self.start_next(now, sa);
        Fate::Keep
    }
}

pub(crate) const INFORMATIONAL: ExchangeType = ExchangeType::Informational;

fn delete_chain(delete: &Delete) -> Chain {
    let mut chain = Chain::new();
    chain.push(PayloadType::DELETE, delete.emit());
    chain
}

impl Pending {
    /// The exchange type of the request.
    pub(crate) const fn exchange(&self) -> ExchangeType {
        match self {
            Self::Liveness
            | Self::Synchronise { .. }
            | Self::CounterSync
            | Self::CloseIke
            | Self::CloseChildren(_) => INFORMATIONAL,
            Self::RekeyChild { .. } | Self::RekeyIke { .. } => ExchangeType::CreateChildSa,
        }
    }
}

impl IkeSa {
    /// The inbound SPI reserved for a Child SA whose exchange is under way.
    pub(crate) fn reserved_spi(&self) -> Option<Spi> {
        match &self.outstanding.as_ref()?.pending {
            Pending::RekeyChild { inbound, .. } => Some(*inbound),
            _ => None,
        }
    }
}
