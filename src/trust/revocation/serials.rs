//! A set of serial numbers, a million of them in about twenty megabytes.

use std::collections::BTreeMap;

use super::{RevocationEntry, RevocationReason};
use crate::UnixTime;
use crate::certificate::Serial;

/// Serials by length; those of one length are fixed-size records in one sorted block.
#[derive(Debug, Default)]
pub(super) struct SerialTable {
    blocks: Box<[Block]>,
}

#[derive(Debug)]
struct Block {
    /// Of the serial alone.
    width: usize,
    records: Box<[u8]>,
}

/// Behind the serial: when (seconds since 1970, big-endian, up to the year 2106) and why.
const TRAILER: usize = 5;

#[derive(Default)]
pub(super) struct SerialTableBuilder {
    unsorted: BTreeMap<usize, Vec<u8>>,
}

impl SerialTableBuilder {
    /// `serial` without leading zeros.
    pub(super) fn push(&mut self, serial: &[u8], entry: RevocationEntry) {
        let records = self.unsorted.entry(serial.len()).or_default();
        records.extend_from_slice(serial);
        records.extend_from_slice(&u32::try_from(entry.revoked_at.max(0)).unwrap_or(u32::MAX).to_be_bytes());
        records.push(entry.reason.code());
    }

    pub(super) fn build(self) -> SerialTable {
        let blocks =
            self.unsorted.into_iter().map(|(width, records)| Block::sorted(width, records)).collect();
        SerialTable { blocks }
    }
}

impl SerialTable {
    pub(super) fn find(&self, serial: &Serial) -> Option<RevocationEntry> {
        let serial = serial.as_bytes();
        self.blocks.iter().find(|block| block.width == serial.len())?.find(serial)
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(Block::len).sum()
    }
}

impl Block {
    fn sorted(width: usize, records: Vec<u8>) -> Self {
        let size = width + TRAILER;
        if records.chunks_exact(size).is_sorted() {
            return Self { width, records: records.into_boxed_slice() };
        }
        let mut order: Vec<&[u8]> = records.chunks_exact(size).collect();
        order.sort_unstable();
        Self { width, records: order.concat().into_boxed_slice() }
    }

    fn len(&self) -> usize {
        self.records.len() / (self.width + TRAILER)
    }

    fn record(&self, position: usize) -> Option<(&[u8], &[u8])> {
        let size = self.width + TRAILER;
        self.records.get(position * size..(position + 1) * size)?.split_at_checked(self.width)
    }

    fn find(&self, serial: &[u8]) -> Option<RevocationEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (found, trailer) = self.record(middle)?;
            match found.cmp(serial) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return entry(trailer),
            }
        }
        None
    }
}

fn entry(trailer: &[u8]) -> Option<RevocationEntry> {
    let [at @ .., reason] = <[u8; TRAILER]>::try_from(trailer).ok()?;
    Some(RevocationEntry {
        revoked_at: UnixTime::from(u32::from_be_bytes(at)),
        reason: RevocationReason::from_code(reason),
    })
}
