//! Bringing counters in step after a failover (RFC 6311), from both sides: as the cluster whose member
//! took an IKE SA over, and as the peer of such a cluster.
//!
//! Message IDs are exact here after every takeover, because nothing is sent before it is committed, and
//! a synchronisation that waits for its answer is part of what is committed: a successor begins it anew;
//! the exchange is used all the same where it was negotiated, for then it carries what is needed: the
//! peer counts its Child SAs on by a delta, beyond the numbers that became ambiguous.

use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use rand_core::Rng;

use crate::codec::{
    Chain, Contents, Cursor, ExchangeType, Header, Malformed, Notify, NotifyType, Writer,
};
use crate::endpoint::Fate;
use crate::exchange::INFORMATIONAL;
use crate::sa::{IkeSa, Outstanding, Path, Pending, Phase, Task};
use crate::{Datagram, Ike, IkeError, IkeSpi, Outcome, Refusal};

/// What both ends of an IKE SA said they can (RFC 6311 section 5): part of the IKE SA's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncSupport {
    /// IKEV2_MESSAGE_ID_SYNC_SUPPORTED.
    pub message_id: bool,
    /// IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED.
    pub replay_counter: bool,
}

impl SyncSupport {
    /// Neither.
    pub const NONE: Self = Self { message_id: false, replay_counter: false };
    /// Both.
    pub const BOTH: Self = Self { message_id: true, replay_counter: true };

    /// What a message of IKE_AUTH asserts.
    pub(crate) fn asserted(contents: &Contents<'_>) -> Self {
        let says = |kind| contents.notify(kind).is_some();
        Self {
            message_id: says(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED),
            replay_counter: says(NotifyType::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED),
        }
    }

    /// Asserts it.
    pub(crate) fn append(self, chain: &mut Chain) {
        if self.message_id {
            chain.notify(&Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]));
        }
        if self.replay_counter {
            chain.notify(&Notify::new(NotifyType::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED, &[]));
        }
    }

    /// What both assert: a responder says nothing its initiator did not say.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self {
            message_id: self.message_id && other.message_id,
            replay_counter: self.replay_counter && other.replay_counter,
        }
    }
}

/// The data of an IKEV2_MESSAGE_ID_SYNC notification (RFC 6311 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageIdSync {
    pub(crate) nonce: [u8; 4],
    /// EXPECTED_SEND_REQ_MESSAGE_ID: of the sender's next request.
    pub(crate) send: u32,
    /// EXPECTED_RECV_REQ_MESSAGE_ID: of the request the sender awaits.
    pub(crate) receive: u32,
}

impl MessageIdSync {
    /// Octets it is written as.
    pub(crate) const LEN: usize = 12;

    pub(crate) fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(data);
        let nonce = cursor.u32()?.to_be_bytes();
        let sync = Self { nonce, send: cursor.u32()?, receive: cursor.u32()? };
        cursor.finish()?;
        Ok(sync)
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.nonce).u32(self.send).u32(self.receive);
        writer.into_bytes()
    }

    fn of(contents: &Contents<'_>) -> Option<Self> {
        Self::parse(contents.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC)?.data).ok()
    }
}

impl IkeSa {
    /// Whether all Child SAs have extended numbers, or none has; `None` when they are mixed, for then
    /// one delta cannot serve them (RFC 6311 section 6.4).
    fn uniform_esn(&self) -> Option<bool> {
        let mut widths = self.children.values().map(|child| child.parameters.esn);
        let first = widths.next()?;
        widths.all(|esn| esn == first).then_some(first)
    }

    /// The delta of an IPSEC_REPLAY_COUNTER_SYNC notification, if that can be used.
    fn delta_data(&self, delta: u64) -> Option<Vec<u8>> {
        let esn = self.sync.replay_counter.then(|| self.uniform_esn()).flatten()?;
        match (esn, u32::try_from(delta)) {
            (true, _) => Some(delta.to_be_bytes().to_vec()),
            (false, Ok(delta)) => Some(delta.to_be_bytes().to_vec()),
            (false, Err(_)) => None,
        }
    }

    /// The highest Message ID of a request seen from the peer, earlier synchronisations included.
    fn highest_seen(&self) -> Option<u32> {
        self.expected_request.checked_sub(1).max(self.sync_seen)
    }
}

impl Ike {
    /// Asks the peer to bring its counters in step after a takeover: to count each of its Child SAs on
    /// by `delta` numbers, together with the Message IDs where that was negotiated. At most once per
    /// takeover. [`Outcome::Synchronised`] tells how it came out.
    ///
    /// A peer whose Message IDs are synchronised gives up the request it waits for (section 9). Should
    /// that have made an SA here, the peer would not know of it. So Message IDs, which are exact, are
    /// left alone while the peer may wait for such an answer: it repeats the request and is answered.
    ///
    /// A synchronisation that a predecessor did not see answered is begun anew by [`Ike::restore`], for
    /// the peer may have acted upon it or may yet. It becomes this one.
    ///
    /// # Errors
    /// [`IkeError::NoIkeSa`], [`IkeError::Busy`] when it is being replaced or closed,
    /// [`IkeError::CannotSync`] when the peer did not negotiate the counters' synchronisation, or
    /// Child SAs with and without extended numbers are mixed. Where it negotiated that of Message IDs
    /// alone, these are synchronised all the same, unless it may wait for an SA.
    pub fn synchronise(&mut self, now: Nanos, spi: IkeSpi, delta: u64) -> Result<(), IkeError> {
        let sa = self.sas.get(&spi).ok_or(IkeError::NoIkeSa(spi))?;
        let counters = sa.delta_data(delta).is_some();
        if sa.phase != Phase::Established {
            return Err(IkeError::Busy);
        }
        if sa.synchronising() {
            self.synchronise_instead(now, spi, delta);
        } else if counters || sa.sync.message_id && !sa.made_sa_last() {
            self.add_task(now, spi, Task::Synchronise(delta));
        }
        if counters { Ok(()) } else { Err(IkeError::CannotSync(spi)) }
    }

    /// A synchronisation is under way: this takes its place. Nothing else may be asked before one is
    /// answered, for until then the peer may await another Message ID.
    fn synchronise_instead(&mut self, now: Nanos, spi: IkeSpi, delta: u64) {
        if let Some(mut sa) = self.sas.remove(&spi) {
            let data = sa.delta_data(delta);
            self.request_sync(now, &mut sa, data);
            self.keep(sa);
            self.flush(now);
        }
    }

    /// The window is free: sends the request.
    pub(crate) fn start_sync(&mut self, now: Nanos, sa: &mut IkeSa, delta: u64) {
        let data = sa.delta_data(delta);
        if sa.sync.message_id && !sa.made_sa_last() {
            self.request_sync(now, sa, data);
        } else if let Some(data) = data {
            // Without Message IDs it is a request like any other (section 5, case 2).
            let mut chain = Chain::new();
            chain.notify(&Notify::new(NotifyType::IPSEC_REPLAY_COUNTER_SYNC, &data));
            self.request(now, sa, (INFORMATIONAL, &chain), Pending::CounterSync);
        }
    }

    /// A request with Message ID zero. M1 is higher than any Message ID used, by the window of one,
    /// and becomes the next to be used at once, so that no successor repeats it (section 5.1).
    fn request_sync(&mut self, now: Nanos, sa: &mut IkeSa, delta: Option<Vec<u8>>) {
        let mut nonce = [0; 4];
        self.random.fill_bytes(&mut nonce);
        sa.next_request = sa.next_request.saturating_add(1);
        let sync = MessageIdSync { nonce, send: sa.next_request, receive: sa.expected_request };
        let mut chain = Chain::new();
        chain.notify(&Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, &sync.emit()));
        if let Some(data) = &delta {
            chain.notify(&Notify::new(NotifyType::IPSEC_REPLAY_COUNTER_SYNC, data));
        }
        let header = Header {
            spi_i: sa.spi_i(),
            spi_r: sa.spi_r(),
            exchange: ExchangeType::Informational,
            from_initiator: sa.original_initiator,
            response: false,
            message_id: 0,
        };
        let Some(messages) = self.seal(sa, &header, &chain, sa.path.local_port) else { return };
        self.step.datagrams.extend(sa.path.carry(&messages));
        let wait_ms = self.config.retransmit.wait_ms(0).unwrap_or_default();
        let pending = Pending::Synchronise { sync, delta };
        let deadline = now.plus_ms(wait_ms);
        sa.outstanding =
            Some(Outstanding { message_id: 0, messages, attempt: 0, deadline, pending });
        self.step.dirty.insert(sa.local_spi);
    }

    /// No answer came: the same octets would be dropped as a replay, so the request is made anew with
    /// a higher M1. Returns whether the outstanding request is such a one.
    pub(crate) fn repeat_sync(&mut self, now: Nanos, sa: &mut IkeSa, wait_ms: u64) -> bool {
        let Some(Outstanding { pending: Pending::Synchronise { delta, .. }, attempt, .. }) =
            &sa.outstanding
        else {
            return false;
        };
        let (delta, attempt) = (delta.clone(), *attempt);
        self.request_sync(now, sa, delta);
        if let Some(outstanding) = &mut sa.outstanding {
            outstanding.attempt = attempt;
            outstanding.deadline = now.plus_ms(wait_ms);
        }
        true
    }

    /// Whether an answer may be taken for that to our synchronisation; one with another nonce is
    /// silently dropped.
    pub(crate) fn fits_sync(sa: &IkeSa, contents: &Contents<'_>) -> bool {
        match &sa.outstanding {
            Some(Outstanding { pending: Pending::Synchronise { sync, .. }, .. }) => {
                MessageIdSync::of(contents).is_some_and(|answer| {
                    answer.nonce == sync.nonce
                        && answer.receive >= sync.send
                        && answer.send >= sync.receive
                })
            }
            _ => true,
        }
    }

    /// The peer answered our synchronisation: both go on from the values it names.
    pub(crate) fn synchronised(
        &mut self,
        sa: &mut IkeSa,
        delta: Option<&Vec<u8>>,
        contents: &Contents<'_>,
    ) {
        if let Some(answer) = MessageIdSync::of(contents) {
            sa.next_request = answer.receive.max(sa.next_request);
            if answer.send > sa.expected_request {
                sa.expected_request = answer.send;
                sa.last_response.clear();
            }
        }
        self.counters.synchronised += 1;
        let counters = delta.is_some();
        self.outcomes.push_back(Outcome::Synchronised { ike: sa.local_spi, counters });
    }

    /// Answers a synchronisation of a cluster whose peer we are. `None` when the message is no such.
    pub(crate) fn answer_sync(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, outer): (&Header, &Contents<'_>),
    ) -> Option<Fate> {
        let possible = sa.sync.message_id
            && header.message_id == 0
            && header.exchange == ExchangeType::Informational;
        if !possible {
            return None;
        }
        let encrypted = outer.encrypted.as_ref()?;
        let opened = sa.inbound_keys().open(&datagram.payload, encrypted).ok()?;
        if opened.fragment.is_some() {
            return None;
        }
        let contents = Contents::parse(encrypted.first, &opened.content, 0).ok()?;
        let sync = MessageIdSync::of(&contents)?;
        let delta = contents.notify(NotifyType::IPSEC_REPLAY_COUNTER_SYNC);
        let expected = 1 + usize::from(delta.is_some());
        let stale = sa.highest_seen().is_some_and(|seen| sync.send <= seen);
        if stale || contents.notifies.len() != expected || !contents.deletes.is_empty() {
            // A replay would set the counters back: not a word (section 5.1).
            self.counters.count(Refusal::MessageId);
            return Some(Fate::Keep);
        }
        self.heard(now, sa);
        let answer = MessageIdSync {
            nonce: sync.nonce,
            send: sync.receive.max(sa.next_request),
            receive: sync.send,
        };
        sa.sync_seen = Some(sync.send);
        sa.expected_request = answer.receive;
        sa.last_response.clear();
        sa.next_request = answer.send;
        self.ask_anew(sa);
        self.count_on(sa, &contents);
        let mut chain = Chain::new();
        chain.notify(&Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, &answer.emit()));
        if let Some(messages) = self.seal(sa, &header.reply(), &chain, datagram.local_port) {
            self.step.datagrams.extend(Path::of(datagram).carry(&messages));
        }
        self.step.dirty.insert(sa.local_spi);
        self.start_next(now, sa);
        Some(Fate::Keep)
    }

    /// A request of ours under way has a Message ID that is not awaited any more: it is made anew.
    pub(crate) fn ask_anew(&mut self, sa: &mut IkeSa) {
        let Some(outstanding) = sa.outstanding.take() else { return };
        match outstanding.pending {
            Pending::Liveness => drop(sa.tasks.insert(Task::Liveness)),
            Pending::CloseIke => drop(sa.tasks.insert(Task::CloseIke)),
            Pending::CloseChildren(spis) => sa.tasks.extend(spis.into_iter().map(Task::CloseChild)),
            Pending::RekeyChild { old, inbound, .. } => {
                self.child_owners.remove(&inbound);
                sa.tasks.insert(Task::RekeyChild(old));
            }
            Pending::RekeyIke { .. } => drop(sa.tasks.insert(Task::RekeyIke)),
            Pending::Synchronise { .. } | Pending::CounterSync => {}
        }
    }

    /// The cluster asks for its peer's outbound numbers to be counted on (section 5.2).
    pub(crate) fn count_on(&mut self, sa: &IkeSa, contents: &Contents<'_>) {
        let Some(notify) = contents.notify(NotifyType::IPSEC_REPLAY_COUNTER_SYNC) else { return };
        let packets = match (sa.uniform_esn(), notify.data.len()) {
            (Some(true), 8) => notify.data.try_into().map(u64::from_be_bytes).ok(),
            (Some(false), 4) => notify.data.try_into().map(u32::from_be_bytes).map(u64::from).ok(),
            _ => None,
        };
        let Some(packets) = packets.filter(|_| sa.sync.replay_counter) else {
            return self.counters.count(Refusal::Malformed);
        };
        let children: Vec<Spi> = sa.children.keys().copied().collect();
        let count_on = children.into_iter().map(|spi| Outcome::CountOn { spi, packets });
        self.outcomes.extend(count_on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_reads_back_what_was_written() {
        let sync = MessageIdSync { nonce: [1, 2, 3, 4], send: 7, receive: 9 };
        let octets = sync.emit();
        assert_eq!(octets, [1, 2, 3, 4, 0, 0, 0, 7, 0, 0, 0, 9]);
        assert_eq!(MessageIdSync::parse(&octets), Ok(sync));
        assert!(MessageIdSync::parse(&octets[1..]).is_err());
    }
}
