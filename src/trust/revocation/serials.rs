//! A set of serial numbers, a million of them in about twenty megabytes.
//!
//! The memory comes from the system and goes back to it: an allocator would keep what a list needed that has been
//! replaced, for years maybe.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use memmap2::MmapMut;

use super::{RevocationEntry, RevocationReason};
use crate::UnixTime;
use crate::certificate::Serial;

/// Serials by size; those of one size are records of one length in one sorted block.
#[derive(Debug, Default)]
pub(super) struct SerialTable {
    /// In the order of [`WIDTHS`], so that all serials are in the order of their numbers.
    blocks: [Option<Block>; WIDTHS.len()],
    /// Longer than RFC 5280 allows, but some have issued them. By length first.
    oversized: BTreeMap<(usize, Box<[u8]>), RevocationEntry>,
}

/// What the serials of a block are filled up to with zeros in front.
const WIDTHS: [usize; 3] = [8, 16, 20];

/// Behind the serial: when (seconds since 1970, big-endian, up to the year 2106) and why.
const TRAILER: usize = 5;

/// DER of the shortest entry, less its serial: SEQUENCE, INTEGER, UTCTime.
const SHORTEST_ENTRY: usize = 2 + 2 + 15;

/// The system gave no memory for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoMemory;

/// How many serials a table may come to hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Room {
    /// As many as fit into so many bytes of DER.
    Encoded(usize),
    Serials(usize),
}

#[derive(Debug)]
struct Block {
    width: usize,
    memory: MmapMut,
    used: usize,
}

pub(super) struct SerialTableBuilder {
    room: Room,
    table: SerialTable,
}

impl SerialTableBuilder {
    pub(super) fn new(room: Room) -> Self {
        Self { room, table: SerialTable::default() }
    }

    /// `serial` without leading zeros.
    pub(super) fn push(&mut self, serial: &[u8], entry: RevocationEntry) -> Result<(), NoMemory> {
        let Some(class) = class(serial) else {
            self.table.oversized.insert(oversized(serial), entry);
            return Ok(());
        };
        let block = match &mut self.table.blocks[class] {
            Some(block) => block,
            empty => empty.insert(Block::with_room(class, self.room)?),
        };
        block.push(serial, entry)
    }

    pub(super) fn build(mut self) -> SerialTable {
        for block in self.table.blocks.iter_mut().flatten() {
            block.sort();
        }
        self.table
    }
}

impl SerialTable {
    pub(super) fn find(&self, serial: &Serial) -> Option<RevocationEntry> {
        let serial = serial.as_bytes();
        match class(serial) {
            Some(class) => self.blocks[class].as_ref()?.find(serial),
            None => self.oversized.get(&oversized(serial)).copied(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.iter().flatten().map(Block::len).sum::<usize>() + self.oversized.len()
    }

    /// All of them in the order of their numbers, without leading zeros.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], RevocationEntry)> {
        let oversized = self.oversized.iter().map(|((_, serial), entry)| (&**serial, *entry));
        self.blocks.iter().flatten().flat_map(Block::iter).chain(oversized)
    }

    /// This table as a delta list changes it: what the delta names is as it says there, or gone.
    pub(super) fn amended(&self, delta: &Self) -> Result<Self, NoMemory> {
        let mut builder = SerialTableBuilder::new(Room::Serials(self.len() + delta.len()));
        let mut changes = delta.iter().peekable();
        for (serial, entry) in self.iter() {
            let mut replaced = false;
            while let Some((changed, change)) =
                changes.next_if(|(changed, _)| order(changed, serial) != Ordering::Greater)
            {
                replaced |= changed == serial;
                push_change(&mut builder, changed, change)?;
            }
            if !replaced {
                builder.push(serial, entry)?;
            }
        }
        for (serial, change) in changes {
            push_change(&mut builder, serial, change)?;
        }
        Ok(builder.build())
    }

    /// Shows to `found` the serials that are in this table and were not in `before`, until it has seen enough.
    pub(super) fn added_since(
        &self,
        before: &Self,
        mut found: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (new, old) in self.blocks.iter().zip(&before.blocks) {
            let Some(new) = new else { continue };
            new.added_since(old.as_ref().map_or(&[], Block::records), &mut found)?;
        }
        let old = &before.oversized;
        self.oversized.keys().filter(|key| !old.contains_key(*key)).try_for_each(|(_, serial)| found(serial))
    }
}

fn push_change(
    builder: &mut SerialTableBuilder,
    serial: &[u8],
    change: RevocationEntry,
) -> Result<(), NoMemory> {
    if change.reason == RevocationReason::RemoveFromCrl { Ok(()) } else { builder.push(serial, change) }
}

fn class(serial: &[u8]) -> Option<usize> {
    WIDTHS.iter().position(|width| serial.len() <= *width)
}

fn oversized(serial: &[u8]) -> (usize, Box<[u8]>) {
    (serial.len(), serial.into())
}

/// Of numbers without leading zeros.
fn order(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

impl Block {
    /// What is not filled stays with the system.
    fn with_room(class: usize, room: Room) -> Result<Self, NoMemory> {
        let width = WIDTHS[class];
        let shortest = 1 + class.checked_sub(1).map_or(0, |shorter| WIDTHS[shorter]);
        let records = match room {
            Room::Encoded(bytes) => bytes / (SHORTEST_ENTRY + shortest) + 1,
            Room::Serials(serials) => serials,
        };
        let bytes = records.checked_mul(width + TRAILER).ok_or(NoMemory)?;
        let memory = MmapMut::map_anon(bytes).map_err(|_| NoMemory)?;
        Ok(Self { width, memory, used: 0 })
    }

    fn push(&mut self, serial: &[u8], entry: RevocationEntry) -> Result<(), NoMemory> {
        let end = self.used + self.width + TRAILER;
        let record = self.memory.get_mut(self.used..end).ok_or(NoMemory)?;
        let (key, trailer) = record.split_at_mut(self.width);
        key[self.width - serial.len()..].copy_from_slice(serial);
        let at = u32::try_from(entry.revoked_at.max(0)).unwrap_or(u32::MAX);
        trailer[..4].copy_from_slice(&at.to_be_bytes());
        trailer[4] = entry.reason.code();
        self.used = end;
        Ok(())
    }

    fn sort(&mut self) {
        let records = &mut self.memory[..self.used];
        match self.width {
            8 => sort::<{ 8 + TRAILER }>(records),
            16 => sort::<{ 16 + TRAILER }>(records),
            _ => sort::<{ 20 + TRAILER }>(records),
        }
    }

    fn records(&self) -> &[u8] {
        &self.memory[..self.used]
    }

    /// `old` are the records of a block of the same width.
    fn added_since(&self, old: &[u8], found: &mut impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        match self.width {
            8 => added::<8, { 8 + TRAILER }>(self.records(), old, found),
            16 => added::<16, { 16 + TRAILER }>(self.records(), old, found),
            _ => added::<20, { 20 + TRAILER }>(self.records(), old, found),
        }
    }

    fn find(&self, serial: &[u8]) -> Option<RevocationEntry> {
        let records = self.records();
        match self.width {
            8 => find::<{ 8 + TRAILER }>(records, serial),
            16 => find::<{ 16 + TRAILER }>(records, serial),
            _ => find::<{ 20 + TRAILER }>(records, serial),
        }
    }

    fn len(&self) -> usize {
        self.used / (self.width + TRAILER)
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], RevocationEntry)> {
        self.records().chunks_exact(self.width + TRAILER).filter_map(|record| {
            let (serial, trailer) = record.split_at_checked(self.width)?;
            Some((Serial::significant(serial)?, entry(trailer)?))
        })
    }
}

fn sort<const SIZE: usize>(records: &mut [u8]) {
    let (records, _) = records.as_chunks_mut::<SIZE>();
    if !records.is_sorted() {
        records.sort_unstable();
    }
}

fn find<const SIZE: usize>(records: &[u8], serial: &[u8]) -> Option<RevocationEntry> {
    let (records, _) = records.as_chunks::<SIZE>();
    let width = SIZE - TRAILER;
    let mut key = [0; SIZE];
    key.get_mut(width.checked_sub(serial.len())?..width)?.copy_from_slice(serial);
    let found = records.binary_search_by(|record| record[..width].cmp(&key[..width])).ok()?;
    entry(&records[found][width..])
}

/// One pass through both.
fn added<const WIDTH: usize, const SIZE: usize>(
    new: &[u8],
    old: &[u8],
    found: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    fn keys<const WIDTH: usize, const SIZE: usize>(records: &[u8]) -> impl Iterator<Item = &[u8; WIDTH]> {
        records.as_chunks::<SIZE>().0.iter().filter_map(|record| record.first_chunk())
    }
    let mut old = keys::<WIDTH, SIZE>(old).peekable();
    for key in keys::<WIDTH, SIZE>(new) {
        while old.next_if(|old| *old < key).is_some() {}
        if old.peek() != Some(&key) {
            found(Serial::significant(key).unwrap_or(key))?;
        }
    }
    ControlFlow::Continue(())
}

fn entry(trailer: &[u8]) -> Option<RevocationEntry> {
    let [at @ .., reason] = <[u8; TRAILER]>::try_from(trailer).ok()?;
    Some(RevocationEntry {
        revoked_at: UnixTime::from(u32::from_be_bytes(at)),
        reason: RevocationReason::from_code(reason),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Serials of all sizes, often the same ones.
    fn serials() -> impl Strategy<Value = Vec<(Vec<u8>, u8)>> {
        let serial = prop_oneof![
            vec(0_u8..3, 1..3),
            vec(any::<u8>(), 1..24),
            (1_usize..24, 0_u8..3).prop_map(|(length, last)| [vec![1; length - 1], vec![last]].concat()),
        ];
        vec((serial, prop_oneof![Just(0_u8), Just(1), Just(8)]), 0..60)
    }

    fn table(serials: &[(Vec<u8>, u8)]) -> SerialTable {
        let mut builder = SerialTableBuilder::new(Room::Encoded(serials.len() * 44));
        for (at, (serial, reason)) in serials.iter().enumerate() {
            let entry =
                RevocationEntry { revoked_at: at as UnixTime, reason: RevocationReason::from_code(*reason) };
            builder.push(Serial::significant(serial).unwrap(), entry).unwrap();
        }
        builder.build()
    }

    fn model(serials: &[(Vec<u8>, u8)]) -> BTreeMap<Serial, RevocationReason> {
        let entry = |(serial, reason): &(Vec<u8>, u8)| {
            (Serial::from_be_bytes(serial).unwrap(), RevocationReason::from_code(*reason))
        };
        serials.iter().map(entry).collect()
    }

    /// A list names nobody twice.
    fn each_once(mut serials: Vec<(Vec<u8>, u8)>) -> Vec<(Vec<u8>, u8)> {
        let mut seen = std::collections::BTreeSet::new();
        serials.retain(|(serial, _)| seen.insert(Serial::from_be_bytes(serial)));
        serials
    }

    fn reasons(table: &SerialTable) -> BTreeMap<Serial, RevocationReason> {
        table.iter().map(|(serial, entry)| (Serial::from_be_bytes(serial).unwrap(), entry.reason)).collect()
    }

    proptest! {
        #[test]
        fn a_table_holds_what_was_put_into_it(on in serials(), off in serials()) {
            let on = each_once(on);
            let (table, model) = (table(&on), model(&on));
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(&reasons(&table), &model);
            for (serial, _) in on.iter().chain(&off) {
                let serial = Serial::from_be_bytes(serial).unwrap();
                prop_assert_eq!(table.find(&serial).map(|entry| entry.reason), model.get(&serial).copied());
            }
            prop_assert!(table.iter().map(|(serial, _)| serial).is_sorted_by(|a, b| order(a, b).is_lt()));
        }

        #[test]
        fn a_delta_adds_replaces_and_takes_away(base in serials(), delta in serials()) {
            let (base, delta) = (each_once(base), each_once(delta));
            let amended = table(&base).amended(&table(&delta)).unwrap();
            let mut expected = model(&base);
            for (serial, reason) in model(&delta) {
                if reason == RevocationReason::RemoveFromCrl {
                    expected.remove(&serial);
                } else {
                    expected.insert(serial, reason);
                }
            }
            prop_assert_eq!(reasons(&amended), expected);
        }

        #[test]
        fn what_was_added_is_what_was_not_there(before in serials(), after in serials()) {
            let (old, new) = (table(&before), table(&after));
            let mut added = std::collections::BTreeSet::new();
            let all = new.added_since(&old, |serial| {
                added.insert(Serial::from_be_bytes(serial).unwrap());
                ControlFlow::Continue(())
            });
            prop_assert!(all.is_continue());
            let before = model(&before);
            let expected = model(&after).into_keys().filter(|serial| !before.contains_key(serial)).collect();
            prop_assert_eq!(added, expected);
        }
    }
}
