//! Commands and snapshots to bytes and back, checked completely on the way in.

use crate::command::{Command, Direction, GrantItem, StateChange};
use crate::digest::sha256_words;
use crate::records::{ChildRecord, Hold, HoldKind, IkeRecord, RecordName, Standing, fixed_digest};
use crate::settlement::{SettleItem, Settled, Settlement};
use crate::state::{Frozen, State};
use crate::{
    Epoch, IkeSpi, Incarnation, MemberCommand, MemberId, Membership, Owner, TargetId, limits,
    numbers, wire,
};
use holdfast_crypto::SecretBytes;
use holdfast_crypto::{AeadAlgorithm, Composition, IntegrityAlgorithm};
use holdfast_ipsec::{
    ChildSaParameters, Encapsulation, ReplayEdge, SaKey, Selectors, Spi, TrafficSelector,
};
use prost::Message;
use std::net::Ipv4Addr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why bytes are no command or no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer release: upgrade this member before the others use new features.
    #[error(
        "written by a newer release (format {found}; this one knows {known}): upgrade this member"
    )]
    Newer {
        /// The major version found.
        found: u32,
        /// The highest one this release reads.
        known: u32,
    },
    /// The cluster is of a level this release does not know: there may be fields in its records that
    /// would be lost here, in the next snapshot.
    #[error("the cluster is of level {found}, this release of {known}: upgrade this member")]
    Level {
        /// The cluster's level.
        found: u32,
        /// The highest one this release reads and writes.
        known: u32,
    },
    /// Not the protobuf messages of this release.
    #[error("malformed")]
    Malformed,
    /// A field is absent or outside its range.
    #[error("{0} is missing or out of range")]
    Invalid(&'static str),
    /// Longer than [`limits::COMMAND_BYTES_MAX`].
    #[error("{0} bytes are too many for one command")]
    TooLarge(usize),
}

impl Command {
    /// The log entry for this command. Contains keys: zeroized on drop.
    ///
    /// # Errors
    /// [`CodecError::TooLarge`] when it does not fit into one entry.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, CodecError> {
        let message =
            wire::Command { version_major: wire::VERSION_MAJOR, body: Some(body_to_wire(self)) };
        // The length is computed first, so the buffer never moves and leaves no copy of a key.
        let bytes = Zeroizing::new(message.encode_to_vec());
        if bytes.len() > limits::COMMAND_BYTES_MAX {
            return Err(CodecError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads a log entry.
    ///
    /// # Errors
    /// [`CodecError`] tells whether the entry is newer than this release or broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > limits::COMMAND_BYTES_MAX {
            return Err(CodecError::TooLarge(bytes.len()));
        }
        let message = wire::Command::decode(bytes).map_err(|_| CodecError::Malformed)?;
        check_version(message.version_major)?;
        body_from_wire(message.body.ok_or(CodecError::Invalid("the command"))?)
    }
}

impl State {
    /// Everything, as bytes another member or a later boot can [`Self::restore`]. Contains keys.
    ///
    /// Takes a tenth of a second for a hundred thousand SAs: who cannot wait has
    /// [`Self::freeze`] and lets another thread encode.
    #[must_use]
    pub fn snapshot(&self) -> Zeroizing<Vec<u8>> {
        self.freeze().encode()
    }

    /// The state a snapshot was taken of.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are no consistent snapshot of a known version.
    pub fn restore(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut message = wire::Snapshot::decode(bytes).map_err(|_| CodecError::Malformed)?;
        check_version(message.version_major)?;
        let owner = message.owner.take().map(|owner| owner_from_wire(&owner));
        // Before records had a standing they were the owner's of the moment.
        let unsaid = owner.unwrap_or(Owner {
            member: MemberId(0),
            incarnation: Incarnation(0),
            epoch: Epoch(0),
        });
        let mut state = Self::assemble(message.applied, owner);
        state.membership = Membership::from_wire(message.membership.take());
        check_level(state.membership.level())?;
        state.settlement = settlement_from_wire(message.settlement)?;
        for ike in std::mem::take(&mut message.ike_sas) {
            let (spi, record) = ike_from_wire(ike, unsaid)?;
            state.set_ike(spi, Some(record));
        }
        for child in std::mem::take(&mut message.children) {
            let record = child_from_wire(child, unsaid)?;
            if state.ike_sa(record.ike).is_none() {
                return Err(CodecError::Invalid("the IKE SA of a Child SA"));
            }
            state.set_child(record.parameters.inbound_spi, Some(record));
        }
        for target in std::mem::take(&mut message.draining) {
            state.set_draining(TargetId(target));
        }
        if let Some(secret) = message.mark_secret.take() {
            state.set_mark_secret(mark_secret_from_wire(secret)?);
        }
        Ok(state)
    }

    /// A fingerprint of everything: members with equal [`Self::applied`] have equal hashes.
    ///
    /// The first eight octets of a SHA-256 over the digests that are kept with every change and the
    /// little that has none, so that it can be shown: it does not lead back to the keys it covers.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let (ike_sas, children) = self.record_digests();
        let rest = self.freeze_without_records().encode();
        sha256_words(&[&rest, &ike_sas.to_le_bytes(), &children.to_le_bytes()])
    }
}

impl Frozen {
    /// The bytes of a snapshot; see [`State::snapshot`].
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let message = wire::Snapshot {
            version_major: wire::VERSION_MAJOR,
            applied: self.applied,
            owner: self.owner.map(owner_to_wire),
            ike_sas: self.ike_sas.iter().map(|(spi, record)| ike_to_wire(spi, record)).collect(),
            children: self.children.iter().map(|(_, record)| child_to_wire(record)).collect(),
            draining: self.draining.iter().map(|target| target.0).collect(),
            mark_secret: self.mark_secret.as_ref().map(secret_to_wire),
            settlement: settlement_to_wire(self.settlement),
            membership: self.membership.to_wire(),
        };
        Zeroizing::new(message.encode_to_vec())
    }
}

/// The parameters of a Child SA as they are in a snapshot. Contains keys.
pub(crate) fn encode_parameters(parameters: &ChildSaParameters) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(parameters_to_wire(parameters).encode_to_vec())
}

fn check_version(found: u32) -> Result<(), CodecError> {
    match found {
        0 => Err(CodecError::Invalid("the version")),
        wire::VERSION_MAJOR => Ok(()),
        _ => Err(CodecError::Newer { found, known: wire::VERSION_MAJOR }),
    }
}

pub(crate) fn check_level(found: u32) -> Result<(), CodecError> {
    let known = crate::level::LEVEL;
    if found > known { Err(CodecError::Level { found, known }) } else { Ok(()) }
}

fn body_to_wire(command: &Command) -> wire::Body {
    match command {
        Command::Noop => wire::Body::Noop(wire::Noop {}),
        Command::Members(members) => wire::Body::Members(members.to_wire()),
        Command::TakeOwnership { owner } => wire::Body::TakeOwnership(owner_to_wire(*owner)),
        Command::Ike { owner, changes } => wire::Body::Ike(wire::Ike {
            owner: Some(owner_to_wire(*owner)),
            changes: changes.iter().map(change_to_wire).collect(),
        }),
        Command::Grant { owner, grants } => wire::Body::Grant(wire::Grant {
            owner: Some(owner_to_wire(*owner)),
            items: grants.iter().map(grant_to_wire).collect(),
        }),
        Command::Settle { owner, items, last } => wire::Body::Settle(wire::Settle {
            owner: Some(owner_to_wire(*owner)),
            items: items.iter().map(settle_item_to_wire).collect(),
            last: *last,
        }),
        Command::CarryOn { owner, from, ike_sas, children } => wire::Body::CarryOn(wire::CarryOn {
            owner: Some(owner_to_wire(*owner)),
            from: Some(owner_to_wire(*from)),
            ike_sas: ike_sas.iter().map(|spi| spi.0).collect(),
            children: children.iter().map(|spi| spi.get()).collect(),
        }),
        Command::Hold { owner, record, under, hold } => wire::Body::Hold(wire::SetHold {
            owner: Some(owner_to_wire(*owner)),
            under: Some(owner_to_wire(*under)),
            record: Some(match record {
                RecordName::Ike(spi) => wire::RecordName::Ike(spi.0),
                RecordName::Child(spi) => wire::RecordName::Child(spi.get()),
            }),
            hold: hold.as_ref().map(hold_to_wire),
        }),
        Command::SetTarget { target, draining } => {
            wire::Body::SetTarget(wire::SetTarget { target: target.0, draining: *draining })
        }
        Command::SetMarkSecret { owner, secret } => {
            wire::Body::SetMarkSecret(wire::SetMarkSecret {
                owner: Some(owner_to_wire(*owner)),
                secret: Some(secret_to_wire(secret)),
            })
        }
    }
}

fn body_from_wire(body: wire::Body) -> Result<Command, CodecError> {
    Ok(match body {
        wire::Body::Noop(_) => Command::Noop,
        wire::Body::Members(members) => Command::Members(MemberCommand::from_wire(members)?),
        wire::Body::TakeOwnership(owner) => {
            Command::TakeOwnership { owner: owner_from_wire(&owner) }
        }
        wire::Body::Ike(ike) => Command::Ike {
            owner: required_owner(ike.owner)?,
            changes: ike.changes.into_iter().map(change_from_wire).collect::<Result<_, _>>()?,
        },
        wire::Body::Grant(grant) => Command::Grant {
            owner: required_owner(grant.owner)?,
            grants: grant.items.iter().map(grant_from_wire).collect::<Result<_, _>>()?,
        },
        wire::Body::Settle(settle) => Command::Settle {
            owner: required_owner(settle.owner)?,
            items: settle.items.into_iter().map(settle_item_from_wire).collect::<Result<_, _>>()?,
            last: settle.last,
        },
        wire::Body::CarryOn(carry) => carry_on_from_wire(carry)?,
        wire::Body::Hold(set) => hold_command_from_wire(set)?,
        wire::Body::SetTarget(set) => {
            Command::SetTarget { target: TargetId(set.target), draining: set.draining }
        }
        wire::Body::SetMarkSecret(set) => {
            let secret = set.secret.ok_or(CodecError::Invalid("the secret of the marks"))?;
            Command::SetMarkSecret {
                owner: required_owner(set.owner)?,
                secret: mark_secret_from_wire(secret)?,
            }
        }
    })
}

fn carry_on_from_wire(carry: wire::CarryOn) -> Result<Command, CodecError> {
    Ok(Command::CarryOn {
        owner: required_owner(carry.owner)?,
        from: required_owner(carry.from)?,
        ike_sas: carry.ike_sas.into_iter().map(IkeSpi).collect(),
        children: carry.children.into_iter().map(spi_from_wire).collect::<Result<_, _>>()?,
    })
}

fn hold_command_from_wire(set: wire::SetHold) -> Result<Command, CodecError> {
    Ok(Command::Hold {
        owner: required_owner(set.owner)?,
        under: required_owner(set.under)?,
        record: match set.record.ok_or(CodecError::Invalid("the record"))? {
            wire::RecordName::Ike(spi) => RecordName::Ike(IkeSpi(spi)),
            wire::RecordName::Child(spi) => RecordName::Child(spi_from_wire(spi)?),
        },
        hold: set.hold.map(hold_from_wire),
    })
}

fn hold_to_wire(hold: &Hold) -> wire::Hold {
    let failed = hold.kind == HoldKind::Failed;
    wire::Hold { failed, reason: hold.reason.clone(), keep_ms: hold.keep_ms }
}

fn hold_from_wire(hold: wire::Hold) -> Hold {
    let kind = if hold.failed { HoldKind::Failed } else { HoldKind::Pending };
    Hold { kind, reason: hold.reason, keep_ms: hold.keep_ms }
}

fn standing_to_wire(standing: &Standing) -> wire::Standing {
    wire::Standing {
        owner: Some(owner_to_wire(standing.owner)),
        hold: standing.hold.as_deref().map(hold_to_wire),
    }
}

fn standing_from_wire(
    standing: Option<wire::Standing>,
    unsaid: Owner,
) -> Result<Standing, CodecError> {
    let Some(standing) = standing else { return Ok(Standing::under(unsaid)) };
    let hold = standing.hold.map(hold_from_wire).map(Box::new);
    Ok(Standing { owner: required_owner(standing.owner)?, hold })
}

fn owner_to_wire(owner: Owner) -> wire::Owner {
    wire::Owner { member: owner.member.0, incarnation: owner.incarnation.0, epoch: owner.epoch.0 }
}

fn owner_from_wire(owner: &wire::Owner) -> Owner {
    Owner {
        member: MemberId(owner.member),
        incarnation: Incarnation(owner.incarnation),
        epoch: Epoch(owner.epoch),
    }
}

fn required_owner(owner: Option<wire::Owner>) -> Result<Owner, CodecError> {
    owner.map(|owner| owner_from_wire(&owner)).ok_or(CodecError::Invalid("the owner"))
}

fn change_to_wire(change: &StateChange) -> wire::StateChange {
    let under = match change {
        StateChange::DeleteIkeSa { under, .. } | StateChange::DeleteChildSa { under, .. } => {
            under.map(owner_to_wire)
        }
        StateChange::PutIkeSa { .. } | StateChange::PutChildSa { .. } => None,
    };
    let change = match change {
        StateChange::PutIkeSa { spi, connection, state } => wire::Change::PutIke(wire::IkeSa {
            spi: spi.0,
            connection: connection.clone(),
            state: Some(secret_to_wire(state)),
            standing: None,
        }),
        StateChange::DeleteIkeSa { spi, .. } => wire::Change::DeleteIke(spi.0),
        StateChange::PutChildSa { ike, parameters, replaces } => {
            wire::Change::PutChild(wire::PutChildSa {
                ike: ike.0,
                parameters: Some(parameters_to_wire(parameters)),
                replaces: replaces.map(Spi::get),
            })
        }
        StateChange::DeleteChildSa { inbound_spi, .. } => {
            wire::Change::DeleteChild(inbound_spi.get())
        }
    };
    wire::StateChange { change: Some(change), under }
}

fn change_from_wire(change: wire::StateChange) -> Result<StateChange, CodecError> {
    let under = change.under.as_ref().map(owner_from_wire);
    Ok(match change.change.ok_or(CodecError::Invalid("a change"))? {
        wire::Change::PutIke(ike) => {
            let state = secret_from_wire(ike.state, "the IKE SA")?;
            StateChange::PutIkeSa { spi: IkeSpi(ike.spi), connection: ike.connection, state }
        }
        wire::Change::DeleteIke(spi) => StateChange::DeleteIkeSa { spi: IkeSpi(spi), under },
        wire::Change::PutChild(put) => {
            let parameters = put.parameters.ok_or(CodecError::Invalid("the parameters"))?;
            StateChange::PutChildSa {
                ike: IkeSpi(put.ike),
                parameters: Box::new(parameters_from_wire(parameters)?),
                replaces: put.replaces.map(spi_from_wire).transpose()?,
            }
        }
        wire::Change::DeleteChild(spi) => {
            StateChange::DeleteChildSa { inbound_spi: spi_from_wire(spi)?, under }
        }
    })
}

fn grant_to_wire(item: &GrantItem) -> wire::GrantItem {
    wire::GrantItem {
        spi: item.spi.get(),
        outbound: item.direction == Direction::Outbound,
        packets: item.packets,
    }
}

fn grant_from_wire(item: &wire::GrantItem) -> Result<GrantItem, CodecError> {
    let direction = if item.outbound { Direction::Outbound } else { Direction::Inbound };
    Ok(GrantItem { spi: spi_from_wire(item.spi)?, direction, packets: item.packets })
}

fn ike_to_wire(spi: IkeSpi, record: &IkeRecord) -> wire::IkeSa {
    wire::IkeSa {
        spi: spi.0,
        connection: (*record.connection).to_owned(),
        state: Some(secret_to_wire(&record.state)),
        standing: Some(standing_to_wire(&record.standing)),
    }
}

fn ike_from_wire(ike: wire::IkeSa, unsaid: Owner) -> Result<(IkeSpi, IkeRecord), CodecError> {
    let state = secret_from_wire(ike.state, "the IKE SA")?;
    let standing = standing_from_wire(ike.standing, unsaid)?;
    Ok((IkeSpi(ike.spi), IkeRecord::new(&ike.connection, state, standing)))
}

fn settle_item_to_wire(item: &SettleItem) -> wire::SettleItem {
    wire::SettleItem {
        spi: item.spi.get(),
        settled: Some(settled_to_wire(item.outbound_next, &item.edge)),
    }
}

fn settle_item_from_wire(item: wire::SettleItem) -> Result<SettleItem, CodecError> {
    let settled = item.settled.ok_or(CodecError::Invalid("the numbers of a settled SA"))?;
    let Settled { outbound_next, edge } = settled_from_wire(settled)?;
    Ok(SettleItem { spi: spi_from_wire(item.spi)?, outbound_next, edge })
}

fn settled_to_wire(outbound_next: u64, edge: &ReplayEdge) -> wire::Settled {
    wire::Settled { outbound_next, edge: Some(edge_to_wire(edge)) }
}

fn settled_from_wire(settled: wire::Settled) -> Result<Settled, CodecError> {
    let edge = settled.edge.ok_or(CodecError::Invalid("the replay window"))?;
    Ok(Settled { outbound_next: settled.outbound_next, edge: edge_from_wire(&edge)? })
}

fn edge_to_wire(edge: &ReplayEdge) -> wire::ReplayEdge {
    let right_edge = edge.right_edge;
    let run =
        |(first, last): &(u64, u64)| [right_edge.wrapping_sub(*first), last.wrapping_sub(*first)];
    wire::ReplayEdge { right_edge, unseen: edge.unseen.iter().flat_map(run).collect() }
}

fn edge_from_wire(edge: &wire::ReplayEdge) -> Result<ReplayEdge, CodecError> {
    let invalid = CodecError::Invalid("the replay window");
    let (pairs, rest) = edge.unseen.as_chunks::<2>();
    let run = |[left, more]: &[u64; 2]| {
        let first = edge.right_edge.checked_sub(*left)?;
        Some((first, first.checked_add(*more)?))
    };
    let unseen: Option<Vec<(u64, u64)>> = pairs.iter().map(run).collect();
    let unseen = unseen.filter(|_| rest.is_empty()).ok_or_else(|| invalid.clone())?;
    let edge = ReplayEdge { right_edge: edge.right_edge, unseen };
    if edge.is_well_formed() { Ok(edge) } else { Err(invalid) }
}

fn settlement_to_wire(settlement: Settlement) -> u32 {
    match settlement {
        Settlement::Open => 0,
        Settlement::Begun => 1,
        Settlement::Complete => 2,
        Settlement::Void => 3,
    }
}

fn settlement_from_wire(settlement: u32) -> Result<Settlement, CodecError> {
    Ok(match settlement {
        0 => Settlement::Open,
        1 => Settlement::Begun,
        2 => Settlement::Complete,
        3 => Settlement::Void,
        _ => return Err(CodecError::Invalid("the settlement")),
    })
}

fn child_to_wire(record: &ChildRecord) -> wire::ChildSa {
    let edge = &record.edge;
    let settled = record.settled.as_deref();
    wire::ChildSa {
        ike: record.ike.0,
        parameters: Some(parameters_to_wire(&record.parameters)),
        outbound_start: record.outbound_start,
        outbound_high: record.outbound_high,
        floor: record.floor,
        horizon: record.horizon,
        edge: (*edge != ReplayEdge::at(record.floor)).then(|| edge_to_wire(edge)),
        settled: settled.map(|settled| settled_to_wire(settled.outbound_next, &settled.edge)),
        standing: Some(standing_to_wire(&record.standing)),
        replaces: record.replaces.map(Spi::get),
    }
}

fn child_from_wire(child: wire::ChildSa, unsaid: Owner) -> Result<ChildRecord, CodecError> {
    let parameters = child.parameters.ok_or(CodecError::Invalid("the parameters"))?;
    let parameters = parameters_from_wire(parameters)?;
    let last = numbers::last_number(parameters.esn);
    let ordered = child.outbound_start <= child.outbound_high && child.floor <= child.horizon;
    let edge = match &child.edge {
        Some(edge) => edge_from_wire(edge)?,
        None => ReplayEdge::at(child.floor),
    };
    let ordered = ordered && edge.right_edge <= child.horizon;
    if !ordered || child.horizon > last || child.outbound_high.saturating_sub(1) > last {
        return Err(CodecError::Invalid("the sequence numbers of a Child SA"));
    }
    let settled = child.settled.map(settled_from_wire).transpose()?.map(Box::new);
    Ok(ChildRecord {
        fixed: fixed_digest(&parameters),
        parameters: Arc::new(parameters),
        ike: IkeSpi(child.ike),
        outbound_start: child.outbound_start,
        outbound_high: child.outbound_high,
        floor: child.floor,
        horizon: child.horizon,
        edge,
        settled,
        standing: standing_from_wire(child.standing, unsaid)?,
        replaces: child.replaces.map(spi_from_wire).transpose()?,
    })
}

fn parameters_to_wire(parameters: &ChildSaParameters) -> wire::ChildParameters {
    let udp = match parameters.encapsulation {
        Encapsulation::Esp => None,
        Encapsulation::Udp { local_port, remote_port } => Some(wire::UdpEncapsulation {
            local_port: local_port.into(),
            remote_port: remote_port.into(),
        }),
    };
    wire::ChildParameters {
        inbound_spi: parameters.inbound_spi.get(),
        outbound_spi: parameters.outbound_spi.get(),
        inbound_key: Some(key_to_wire(&parameters.inbound_key)),
        outbound_key: Some(key_to_wire(&parameters.outbound_key)),
        esn: parameters.esn,
        window_packets: parameters.window_packets,
        local: parameters.local.octets().to_vec(),
        remote: parameters.remote.octets().to_vec(),
        udp,
        local_selectors: parameters.selectors.local.iter().map(selector_to_wire).collect(),
        remote_selectors: parameters.selectors.remote.iter().map(selector_to_wire).collect(),
        connection: parameters.connection.clone(),
    }
}

fn parameters_from_wire(wire: wire::ChildParameters) -> Result<ChildSaParameters, CodecError> {
    Ok(ChildSaParameters {
        inbound_spi: spi_from_wire(wire.inbound_spi)?,
        outbound_spi: spi_from_wire(wire.outbound_spi)?,
        inbound_key: key_from_wire(wire.inbound_key)?,
        outbound_key: key_from_wire(wire.outbound_key)?,
        esn: wire.esn,
        window_packets: wire.window_packets,
        local: address_from_wire(&wire.local)?,
        remote: address_from_wire(&wire.remote)?,
        encapsulation: encapsulation_from_wire(wire.udp.as_ref())?,
        selectors: Selectors {
            local: selectors_from_wire(&wire.local_selectors)?,
            remote: selectors_from_wire(&wire.remote_selectors)?,
        },
        connection: wire.connection,
    })
}

fn encapsulation_from_wire(
    udp: Option<&wire::UdpEncapsulation>,
) -> Result<Encapsulation, CodecError> {
    Ok(match udp {
        None => Encapsulation::Esp,
        Some(udp) => Encapsulation::Udp {
            local_port: port_from_wire(udp.local_port)?,
            remote_port: port_from_wire(udp.remote_port)?,
        },
    })
}

fn key_to_wire(key: &SaKey) -> wire::Key {
    let (encryption, key_bits, integrity) = algorithm_to_wire(key.algorithm());
    wire::Key { key_bits, key: Some(secret_to_wire(&key.key_and_salt())), encryption, integrity }
}

/// Numbers of the cipher's transform, bits of its key, and number of the integrity algorithm's
/// transform; AES-GCM goes without its number, as it always did.
const fn algorithm_to_wire(algorithm: AeadAlgorithm) -> (u32, u32, u32) {
    const ENCR_AES_CBC: u32 = 12;
    const ENCR_AES_CTR: u32 = 13;
    const ENCR_NULL_AUTH_AES_GMAC: u32 = 21;
    const ENCR_CHACHA20_POLY1305: u32 = 28;
    match algorithm {
        AeadAlgorithm::Aes128Gcm16 => (0, 128, 0),
        AeadAlgorithm::Aes192Gcm16 => (0, 192, 0),
        AeadAlgorithm::Aes256Gcm16 => (0, 256, 0),
        AeadAlgorithm::ChaCha20Poly1305 => (ENCR_CHACHA20_POLY1305, 256, 0),
        AeadAlgorithm::Aes128Gmac => (ENCR_NULL_AUTH_AES_GMAC, 128, 0),
        AeadAlgorithm::Aes192Gmac => (ENCR_NULL_AUTH_AES_GMAC, 192, 0),
        AeadAlgorithm::Aes256Gmac => (ENCR_NULL_AUTH_AES_GMAC, 256, 0),
        AeadAlgorithm::Composed(Composition { mode, integrity }) => {
            let integrity = match integrity {
                IntegrityAlgorithm::HmacSha256_128 => 12,
                IntegrityAlgorithm::HmacSha384_192 => 13,
                IntegrityAlgorithm::HmacSha512_256 => 14,
            };
            let encryption = if mode.is_ctr() { ENCR_AES_CTR } else { ENCR_AES_CBC };
            (encryption, mode.aes_key_len() as u32 * 8, integrity)
        }
    }
}

fn key_from_wire(key: Option<wire::Key>) -> Result<SaKey, CodecError> {
    let key = key.ok_or(CodecError::Invalid("a key"))?;
    let said = (key.encryption, key.key_bits, key.integrity);
    let algorithm = AeadAlgorithm::every().find(|named| algorithm_to_wire(*named) == said);
    let algorithm = algorithm.ok_or(CodecError::Invalid("the algorithm of a key"))?;
    let octets = secret_from_wire(key.key, "a key")?;
    SaKey::new(algorithm, octets.as_bytes()).map_err(|_| CodecError::Invalid("a key"))
}

fn mark_secret_from_wire(mut secret: wire::Secret) -> Result<SecretBytes, CodecError> {
    let bytes = SecretBytes::new(std::mem::take(&mut secret.bytes));
    let right = bytes.len() == limits::MARK_SECRET_BYTES;
    if right { Ok(bytes) } else { Err(CodecError::Invalid("the secret of the marks")) }
}

fn secret_to_wire(secret: &SecretBytes) -> wire::Secret {
    wire::Secret { bytes: secret.as_bytes().to_vec() }
}

fn secret_from_wire(
    secret: Option<wire::Secret>,
    what: &'static str,
) -> Result<SecretBytes, CodecError> {
    let mut secret = secret.ok_or(CodecError::Invalid(what))?;
    Ok(SecretBytes::new(std::mem::take(&mut secret.bytes)))
}

fn selector_to_wire(selector: &TrafficSelector) -> wire::TrafficSelector {
    wire::TrafficSelector {
        protocol: selector.protocol.into(),
        first_port: selector.ports.0.into(),
        last_port: selector.ports.1.into(),
        first_address: selector.addresses.0.octets().to_vec(),
        last_address: selector.addresses.1.octets().to_vec(),
    }
}

fn selectors_from_wire(
    selectors: &[wire::TrafficSelector],
) -> Result<Vec<TrafficSelector>, CodecError> {
    if selectors.len() > limits::SELECTORS_MAX {
        return Err(CodecError::Invalid("the list of traffic selectors"));
    }
    selectors.iter().map(selector_from_wire).collect()
}

fn selector_from_wire(selector: &wire::TrafficSelector) -> Result<TrafficSelector, CodecError> {
    let protocol = u8::try_from(selector.protocol)
        .map_err(|_| CodecError::Invalid("the protocol of a traffic selector"))?;
    Ok(TrafficSelector {
        protocol,
        ports: (port_from_wire(selector.first_port)?, port_from_wire(selector.last_port)?),
        addresses: (
            address_from_wire(&selector.first_address)?,
            address_from_wire(&selector.last_address)?,
        ),
    })
}

fn spi_from_wire(spi: u32) -> Result<Spi, CodecError> {
    Spi::new(spi).map_err(|_| CodecError::Invalid("an SPI"))
}

fn port_from_wire(port: u32) -> Result<u16, CodecError> {
    u16::try_from(port).map_err(|_| CodecError::Invalid("a port"))
}

fn address_from_wire(address: &[u8]) -> Result<Ipv4Addr, CodecError> {
    <[u8; 4]>::try_from(address).map(Ipv4Addr::from).map_err(|_| CodecError::Invalid("an address"))
}
