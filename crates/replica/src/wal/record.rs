//! One segment: its header and its records, written and scanned.

use super::{WalError, WalKey};
use crate::output::{EntryKind, HardState, LogEntry};
use bytes::Bytes;
use zeroize::Zeroizing;

const MAGIC: [u8; 7] = *b"HFSTLOG";
const VERSION: u8 = 1;
pub(super) const HEADER_LEN: usize = 36;
const HEADER_CRC_AT: usize = HEADER_LEN - 4;
pub(super) const HEAD_LEN: usize = 16;
const HEAD_CRC_AT: usize = HEAD_LEN - 4;
pub(super) const CHAIN_LEN: usize = 4;
const TAG_LEN: usize = 16;

/// Longest payload: an entry is at most a command with its header.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentKind {
    /// Goes on where the segment before it ended.
    Continuation = 0,
    /// Begins the log anew.
    Checkpoint = 1,
}

/// The first bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) random: [u8; 8],
    pub(super) chain: u32,
    pub(super) kind: SegmentKind,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let fields: [&[u8]; 6] = [
            &MAGIC,
            &[VERSION],
            &self.number.to_le_bytes(),
            &self.random,
            &self.chain.to_le_bytes(),
            &(self.kind as u32).to_le_bytes(),
        ];
        for (slot, octet) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *slot = *octet;
        }
        seal_crc(&mut bytes, HEADER_CRC_AT, 0);
        bytes
    }

    pub(super) fn decode(file: &str, bytes: &[u8]) -> Result<Self, WalError> {
        let damaged = |what| WalError::Damaged { file: file.to_owned(), offset: 0, what };
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(damaged("header cut off"))?;
        let mut rest = header.as_slice();
        let magic: [u8; 7] = take(&mut rest).ok_or(damaged("header"))?;
        let [version] = take::<1>(&mut rest).ok_or(damaged("header"))?;
        if magic != MAGIC {
            return Err(damaged("no log segment"));
        }
        if !crc_holds(header, HEADER_CRC_AT, 0) {
            return Err(damaged("header checksum"));
        }
        if version != VERSION {
            return Err(WalError::Newer { file: file.to_owned(), found: version });
        }
        let number = u64::from_le_bytes(take(&mut rest).ok_or(damaged("header"))?);
        let random = take(&mut rest).ok_or(damaged("header"))?;
        let chain = u32::from_le_bytes(take(&mut rest).ok_or(damaged("header"))?);
        let kind = match u32::from_le_bytes(take(&mut rest).ok_or(damaged("header"))?) {
            0 => SegmentKind::Continuation,
            1 => SegmentKind::Checkpoint,
            _ => return Err(damaged("kind of segment")),
        };
        Ok(Self { number, random, chain, kind })
    }

    fn nonce(&self, count: u32) -> [u8; 12] {
        let mut nonce = [0; 12];
        for (slot, octet) in nonce.iter_mut().zip(self.random.iter().chain(&count.to_le_bytes())) {
            *slot = *octet;
        }
        nonce
    }
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    HardState(HardState),
    Entry(LogEntry),
    /// The log begins behind this snapshot: index and term, 0 and 0 for the empty state.
    CheckpointStart {
        index: u64,
        term: u64,
    },
    CheckpointEnd,
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Self::HardState(_) => 1,
            Self::Entry(LogEntry { kind: EntryKind::Command, .. }) => 2,
            Self::Entry(LogEntry { kind: EntryKind::Configuration, .. }) => 5,
            Self::CheckpointStart { .. } => 3,
            Self::CheckpointEnd => 4,
        }
    }

    fn payload(&self) -> Zeroizing<Vec<u8>> {
        let (numbers, data): (&[u64], &[u8]) = match self {
            Self::HardState(state) => (&[state.term, state.vote, state.commit], &[]),
            Self::Entry(entry) => (&[entry.term, entry.index], &entry.data),
            Self::CheckpointStart { index, term } => (&[*index, *term], &[]),
            Self::CheckpointEnd => (&[], &[]),
        };
        let mut payload = Zeroizing::new(Vec::with_capacity(numbers.len() * 8 + data.len()));
        payload.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        payload.extend_from_slice(data);
        payload
    }

    fn parse(kind: u8, mut payload: &[u8]) -> Option<Self> {
        let mut number = || take(&mut payload).map(u64::from_le_bytes);
        let record = match kind {
            1 => Self::HardState(HardState { term: number()?, vote: number()?, commit: number()? }),
            2 | 5 => {
                let (term, index) = (number()?, number()?);
                let kind = if kind == 5 { EntryKind::Configuration } else { EntryKind::Command };
                let data = Bytes::copy_from_slice(std::mem::take(&mut payload));
                Self::Entry(LogEntry { term, index, kind, data })
            }
            3 => Self::CheckpointStart { index: number()?, term: number()? },
            4 => Self::CheckpointEnd,
            _ => return None,
        };
        payload.is_empty().then_some(record)
    }
}

/// A segment being written.
pub(super) struct SegmentWriter {
    header: Header,
    header_bytes: [u8; HEADER_LEN],
    pub(super) len: usize,
    pub(super) chain: u32,
    count: u32,
}

impl SegmentWriter {
    /// A new segment; its first bytes are appended to `into`.
    pub(super) fn begin(header: Header, into: &mut Vec<u8>) -> Self {
        let header_bytes = header.encode();
        into.extend_from_slice(&header_bytes);
        let chain = crc32c::crc32c_append(header.chain, &header_bytes);
        Self { header, header_bytes, len: HEADER_LEN, chain, count: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.header.number
    }

    /// Appends a record to `into`.
    pub(super) fn push(
        &mut self,
        key: &WalKey,
        record: &Record,
        into: &mut Vec<u8>,
    ) -> Result<(), WalError> {
        let mut payload = record.payload();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(WalError::TooLarge("a log entry"));
        }
        let head = encode_head(&self.header, payload.len() + TAG_LEN, record.kind(), self.count);
        let nonce = self.header.nonce(self.count);
        let tag = key
            .0
            .seal_one(&nonce, &associated(&self.header_bytes, &head), &mut payload)
            .map_err(|_| WalError::TooLarge("a log entry"))?;
        let begin = into.len();
        for part in [&head[..], &payload, &tag] {
            into.extend_from_slice(part);
            self.chain = crc32c::crc32c_append(self.chain, part);
        }
        into.extend_from_slice(&self.chain.to_le_bytes());
        self.len += into.len() - begin;
        // Never reached: 2^32 records do not fit into one segment.
        self.count = self.count.checked_add(1).ok_or(WalError::TooLarge("a segment"))?;
        Ok(())
    }
}

fn encode_head(header: &Header, length: usize, kind: u8, count: u32) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    let length = (length as u32).to_le_bytes();
    let count = count.to_le_bytes();
    let fields: [&[u8]; 4] = [&length, &[kind], &[0; 3], &count];
    for (slot, octet) in head.iter_mut().zip(fields.into_iter().flatten()) {
        *slot = *octet;
    }
    seal_crc(&mut head, HEAD_CRC_AT, head_seed(header));
    head
}

/// Ties a head to its segment, so that bytes of an older file in the same place are no head.
fn head_seed(header: &Header) -> u32 {
    crc32c::crc32c(&header.random)
}

struct Head {
    length: usize,
    kind: u8,
    count: u32,
}

fn decode_head(header: &Header, bytes: &[u8]) -> Option<Head> {
    let head = bytes.first_chunk::<HEAD_LEN>()?;
    if !crc_holds(head, HEAD_CRC_AT, head_seed(header)) {
        return None;
    }
    let mut rest = head.as_slice();
    let length = u32::from_le_bytes(take(&mut rest)?) as usize;
    let [kind, 0, 0, 0] = take::<4>(&mut rest)? else { return None };
    let count = u32::from_le_bytes(take(&mut rest)?);
    let plausible = (TAG_LEN..=PAYLOAD_BYTES_MAX + TAG_LEN).contains(&length);
    plausible.then_some(Head { length, kind, count })
}

fn associated(header: &[u8; HEADER_LEN], head: &[u8; HEAD_LEN]) -> [u8; HEADER_LEN + HEAD_LEN] {
    let mut joined = [0; HEADER_LEN + HEAD_LEN];
    for (slot, octet) in joined.iter_mut().zip(header.iter().chain(head)) {
        *slot = *octet;
    }
    joined
}

/// A segment read to its end, to where it is torn, or to where it is damaged.
pub(super) struct Scan {
    pub(super) header: Header,
    pub(super) records: Vec<Record>,
    /// The chain behind the last record.
    pub(super) chain: u32,
    /// Where the intact part ends, if not at the end of the file.
    pub(super) broken_at: Option<usize>,
    /// Whether an intact record head follows the break: then it is not a torn write.
    pub(super) intact_behind: bool,
}

/// Reads a segment. Errors are those that no torn write explains.
pub(super) fn scan(file: &str, bytes: &[u8], key: &WalKey) -> Result<Scan, WalError> {
    let header = Header::decode(file, bytes)?;
    let header_bytes = header.encode();
    let mut scan = Scan {
        chain: crc32c::crc32c_append(header.chain, &header_bytes),
        header,
        records: Vec::new(),
        broken_at: None,
        intact_behind: false,
    };
    let mut at = HEADER_LEN;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let count = scan.records.len() as u32;
        let Some((head_bytes, head, sealed, chain)) = check_record(&scan, rest, count) else {
            scan.intact_behind = intact_head_behind(&scan.header, rest, count);
            scan.broken_at = Some(at);
            break;
        };
        let record = open(key, &scan.header, &header_bytes, head_bytes, &head, sealed);
        let offset = at as u64;
        scan.records.push(record.ok_or(WalError::Sealed { file: file.to_owned(), offset })?);
        scan.chain = chain;
        at += HEAD_LEN + sealed.len() + CHAIN_LEN;
    }
    Ok(scan)
}

/// The record at the start of `rest`, if it checks.
fn check_record<'a>(
    scan: &Scan,
    rest: &'a [u8],
    count: u32,
) -> Option<(&'a [u8; HEAD_LEN], Head, &'a [u8], u32)> {
    let head = decode_head(&scan.header, rest).filter(|head| head.count == count)?;
    let (head_bytes, rest) = rest.split_first_chunk::<HEAD_LEN>()?;
    let (sealed, rest) = rest.split_at_checked(head.length)?;
    let stored = u32::from_le_bytes(*rest.first_chunk()?);
    let chain = crc32c::crc32c_append(crc32c::crc32c_append(scan.chain, head_bytes), sealed);
    (chain == stored).then_some((head_bytes, head, sealed, chain))
}

/// A later record of this segment shows that the bytes here were once written completely.
fn intact_head_behind(header: &Header, rest: &[u8], count: u32) -> bool {
    (0..rest.len()).any(|at| {
        rest.get(at..)
            .and_then(|behind| decode_head(header, behind))
            .is_some_and(|head| head.count > count)
    })
}

fn open(
    key: &WalKey,
    header: &Header,
    header_bytes: &[u8; HEADER_LEN],
    head_bytes: &[u8; HEAD_LEN],
    head: &Head,
    sealed: &[u8],
) -> Option<Record> {
    let (data, tag) = sealed.split_last_chunk::<TAG_LEN>()?;
    let mut payload = Zeroizing::new(data.to_vec());
    let associated = associated(header_bytes, head_bytes);
    key.0.open_one(&header.nonce(head.count), &associated, &mut payload, tag).ok()?;
    Record::parse(head.kind, &payload)
}

pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

pub(super) fn seal_crc(bytes: &mut [u8], at: usize, seed: u32) {
    let (covered, crc) = bytes.split_at_mut(at);
    let value = crc32c::crc32c_append(seed, covered).to_le_bytes();
    for (slot, octet) in crc.iter_mut().zip(value) {
        *slot = octet;
    }
}

pub(super) fn crc_holds(bytes: &[u8], at: usize, seed: u32) -> bool {
    let Some((covered, crc)) = bytes.split_at_checked(at) else { return false };
    crc32c::crc32c_append(seed, covered).to_le_bytes() == crc
}
