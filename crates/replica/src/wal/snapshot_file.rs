//! A snapshot as a file of its own: it is large, and replaced as a whole.
//!
//! ```text
//!   magic 8 | index 8 | term 8 | nonce 12 | length 8 | crc 4 | sealed state | tag 16 | crc 4
//! ```

use super::record::{crc_holds, seal_crc, take};
use super::{WalError, WalKey, snapshot_name};
use crate::output::SnapshotImage;
use zeroize::Zeroizing;

const MAGIC: [u8; 7] = *b"HFSTSNP";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 48;
const HEADER_CRC_AT: usize = HEADER_LEN - 4;
const TAG_LEN: usize = 16;
const CRC_LEN: usize = 4;

pub(super) fn encode(
    key: &WalKey,
    image: &SnapshotImage,
    nonce: [u8; 12],
) -> Result<Vec<u8>, WalError> {
    let length = image.data.len() + TAG_LEN;
    let mut bytes = Vec::with_capacity(HEADER_LEN + length + CRC_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&image.index.to_le_bytes());
    bytes.extend_from_slice(&image.term.to_le_bytes());
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    bytes.extend_from_slice(&[0; CRC_LEN]);
    seal_crc(&mut bytes, HEADER_CRC_AT, 0);
    let header = bytes.clone();
    bytes.extend_from_slice(&image.data);
    let sealed = bytes.get_mut(HEADER_LEN..).unwrap_or_default();
    let tag =
        key.0.seal_one(&nonce, &header, sealed).map_err(|_| WalError::TooLarge("the snapshot"))?;
    bytes.extend_from_slice(&tag);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Reads a snapshot that says itself which it is.
#[cfg(test)]
pub(super) fn decode_any(
    key: &WalKey,
    name: &str,
    bytes: &[u8],
) -> Result<SnapshotImage, WalError> {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|mut slice| take(&mut slice));
    let cut_off = || WalError::Damaged { file: name.to_owned(), offset: 0, what: "header cut off" };
    let index = u64::from_le_bytes(number(MAGIC.len() + 1).ok_or_else(cut_off)?);
    let term = u64::from_le_bytes(number(MAGIC.len() + 9).ok_or_else(cut_off)?);
    decode(key, index, term, bytes)
}

pub(super) fn decode(
    key: &WalKey,
    index: u64,
    term: u64,
    bytes: &[u8],
) -> Result<SnapshotImage, WalError> {
    let file = snapshot_name(index);
    let damaged =
        |offset, what| WalError::Damaged { file: file.clone(), offset: offset as u64, what };
    let (header, body) =
        bytes.split_first_chunk::<HEADER_LEN>().ok_or(damaged(bytes.len(), "header cut off"))?;
    if !header.starts_with(&MAGIC) || !crc_holds(header, HEADER_CRC_AT, 0) {
        return Err(damaged(0, "header"));
    }
    let mut rest = header.get(MAGIC.len()..).unwrap_or_default();
    let [version] = take::<1>(&mut rest).ok_or(damaged(0, "header"))?;
    if version != VERSION {
        return Err(WalError::Newer { file: file.clone(), found: version });
    }
    let number = |rest: &mut &[u8]| take(rest).map(u64::from_le_bytes).ok_or(damaged(0, "header"));
    let found = (number(&mut rest)?, number(&mut rest)?);
    if found != (index, term) {
        return Err(damaged(0, "it is the snapshot of another entry"));
    }
    let nonce = take(&mut rest).ok_or(damaged(0, "header"))?;
    let length = number(&mut rest)?;
    let (sealed, crc) =
        body.split_last_chunk::<CRC_LEN>().ok_or(damaged(bytes.len(), "cut off"))?;
    if sealed.len() as u64 != length {
        return Err(damaged(bytes.len(), "length"));
    }
    let covered = bytes.len().saturating_sub(CRC_LEN);
    if crc32c::crc32c(bytes.get(..covered).unwrap_or_default()) != u32::from_le_bytes(*crc) {
        return Err(damaged(HEADER_LEN, "checksum"));
    }
    let (data, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(damaged(HEADER_LEN, "cut off"))?;
    let mut data = Zeroizing::new(data.to_vec());
    key.0
        .open_one(&nonce, header, &mut data, tag)
        .map_err(|_| WalError::Sealed { file: file.clone(), offset: HEADER_LEN as u64 })?;
    Ok(SnapshotImage { index, term, data: data.into() })
}
