//! What a dead process left in its ring storage: registry entries, undrained bytes of rings,
//! slots of the spill, chunks of large records. FORMAT.md section 7 is normative.
//!
//! Everything is read with `pread`, never through a mapping, and nothing is trusted: each length
//! is bounded by the file, each chunk and slot is used once.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, IoContext};
use crate::record::{FLAG_LARGE, HEADER_BYTES, LARGE_RECORD_BYTES, LargeReference};
use crate::ring::{AGGREGATE_BYTES, BODY_BYTES, CHUNK_BYTES, NO_RING, SLOT_BYTES, read_slot};
use crate::segment::entry::{ENTRY_ALIGN, ENTRY_HEADER_BYTES};
use crate::segment::layout::RING_OVERHEAD;
use crate::segment::layout::{PAYLOAD_BYTES_MAX, RingHead};
use crate::segment::rings::{REGISTRY_BYTES_MAX, Rings};
use crate::segment::source::Source;

/// Bytes of slots that are read at once.
const SLOTS_BYTES: usize = 128 * SLOT_BYTES;
/// Bytes of a chunk before its part of the body: the index of the next one.
const NEXT_BYTES: usize = CHUNK_BYTES - BODY_BYTES;

/// Order of spilled records: ring, position, sequence. The number of the slot makes it unique.
type SlotKey = (u32, u64, u64, u32);

/// A ring storage whose process is dead.
pub(super) struct Leftover<'a, S: ?Sized> {
    source: &'a S,
    path: &'a Path,
    end: u64,
    pub(super) rings: Rings,
    /// Slots that hold a record which is not known to be in a block.
    slots: BTreeSet<SlotKey>,
    /// The same by ring, position and bytes, as far as a hash tells them.
    by_bytes: HashMap<(u32, u64, u64), Vec<SlotKey>>,
    /// Chunks that a record has used.
    used_chunks: Vec<bool>,
}

impl<'a, S: Source + ?Sized> Leftover<'a, S> {
    pub(super) fn open(source: &'a S, path: &'a Path) -> Result<Self, Error> {
        let end = source
            .byte_count()
            .io_context("cannot read the length of", path)?;
        let mut leftover = Self {
            source,
            path,
            end,
            rings: Rings::read(source, path)?,
            slots: BTreeSet::new(),
            by_bytes: HashMap::new(),
            used_chunks: Vec::new(),
        };
        let geometry = leftover.rings.geometry;
        let chunks = leftover.inside(geometry.large_offset, geometry.large_bytes);
        let chunks = chunks.checked_div(CHUNK_BYTES as u64).unwrap_or(0);
        leftover.used_chunks = vec![false; chunks as usize];
        leftover.find_slots()?;
        Ok(leftover)
    }

    /// Bytes of a part of the file that are really there.
    fn inside(&self, offset: u64, bytes: u64) -> u64 {
        bytes.min(self.end.saturating_sub(offset))
    }

    /// Fills `place`; false when the file ends before.
    fn fill(&self, offset: u64, place: &mut [u8]) -> Result<bool, Error> {
        let count = self.source.read_at(offset, place);
        Ok(count.io_context("cannot read", self.path)? == place.len())
    }

    /// Shows every committed entry of the registry.
    pub(super) fn entries(
        &self,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let geometry = &self.rings.geometry;
        let bytes = geometry.registry_bytes.min(REGISTRY_BYTES_MAX);
        let mut place = vec![0; self.inside(geometry.registry_offset, bytes) as usize];
        if !self.fill(geometry.registry_offset, &mut place)? {
            return Ok(());
        }
        let mut rest = place.as_slice();
        while let Some(head) = rest.first_chunk::<8>() {
            let [a, b, c, d, crc @ ..] = *head;
            let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
            let Some((entry, after)) = rest.split_at_checked(bytes) else {
                break;
            };
            if bytes < ENTRY_HEADER_BYTES || !bytes.is_multiple_of(ENTRY_ALIGN) {
                break;
            }
            // Without a checksum its thread was killed before it was whole.
            if crc != [0; 4] {
                visit(entry)?;
            }
            rest = after;
        }
        Ok(())
    }

    /// Committed bytes of a ring from `position` on: up to `bytes`, or to the end of the lap.
    pub(super) fn ring_bytes(
        &self,
        at: u64,
        head: &RingHead,
        position: u64,
        bytes: u64,
    ) -> Result<Vec<u8>, Error> {
        let offset = position & head.capacity.saturating_sub(1);
        let bytes = bytes.min(head.capacity.saturating_sub(offset));
        let start = at
            .saturating_add(RING_OVERHEAD as u64)
            .saturating_add(offset);
        let mut place = vec![0; self.inside(start, bytes) as usize];
        let whole = self.fill(start, &mut place)?;
        if !whole {
            place.clear();
        }
        Ok(place)
    }

    /// The duration aggregates, as far as they are there.
    pub(super) fn aggregates(&self) -> Result<Vec<u8>, Error> {
        let geometry = self.rings.geometry;
        let bytes = geometry.aggregate_bytes.min(AGGREGATE_BYTES as u64);
        let mut area = vec![0; self.inside(geometry.aggregate_offset, bytes) as usize];
        if !self.fill(geometry.aggregate_offset, &mut area)? {
            area.clear();
        }
        Ok(area)
    }

    fn find_slots(&mut self) -> Result<(), Error> {
        let geometry = self.rings.geometry;
        if geometry.spill_slot_bytes != SLOT_BYTES as u64 {
            if geometry.spill_bytes > 0 {
                let path = self.path.display();
                let fault = format!("{path}: its spill has slots of another length: left out");
                self.rings.faults.push(fault);
            }
            return Ok(());
        }
        let bytes = self.inside(geometry.spill_offset, geometry.spill_bytes);
        let mut place = vec![0; SLOTS_BYTES];
        let (mut done, mut index) = (0, 0_u32);
        while done < bytes {
            let piece = (bytes.saturating_sub(done)).min(SLOTS_BYTES as u64);
            let Some(place) = place.get_mut(..piece as usize) else {
                break;
            };
            if !self.fill(geometry.spill_offset.saturating_add(done), place)? {
                break;
            }
            for slot in place.chunks_exact(SLOT_BYTES) {
                if let Some((header, record)) = read_slot(slot) {
                    let key = (header.ring, header.position, header.sequence, index);
                    self.slots.insert(key);
                    let bytes = (header.ring, place_of(&key), hash(record));
                    self.by_bytes.entry(bytes).or_default().push(key);
                }
                index = index.saturating_add(1);
            }
            done = done.saturating_add(piece);
        }
        Ok(())
    }

    /// A record stands in a spilled block of this ring and position: its slot, if it was not given
    /// back in time, has nothing to give.
    pub(super) fn is_written(
        &mut self,
        ring: u32,
        position: u64,
        record: &[u8],
    ) -> Result<(), Error> {
        let position = if ring == NO_RING { 0 } else { position };
        let Some(keys) = self.by_bytes.get(&(ring, position, hash(record))) else {
            return Ok(());
        };
        for key in keys.clone() {
            if !self.slots.contains(&key) {
                continue;
            }
            if masked(&self.slot(&key)?) == masked(record) {
                self.slots.remove(&key);
                break;
            }
        }
        Ok(())
    }

    /// Rings that have records in the spill.
    pub(super) fn spill_rings(&self) -> Vec<u32> {
        let mut rings: Vec<u32> = self.slots.iter().map(|key| key.0).collect();
        rings.dedup();
        rings
    }

    /// Position of the next spilled record of a ring.
    pub(super) fn next_spilled(&self, ring: u32) -> Option<u64> {
        let key = self.slots.range((ring, 0, 0, 0)..).next()?;
        (key.0 == ring).then_some(key.1)
    }

    /// Takes the next spilled record of a ring, when it stands at `until` or before.
    pub(super) fn take_spilled(
        &mut self,
        ring: u32,
        until: u64,
    ) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let Some(key) = self.slots.range((ring, 0, 0, 0)..).next() else {
            return Ok(None);
        };
        let key = *key;
        if key.0 != ring || key.1 > until {
            return Ok(None);
        }
        self.slots.remove(&key);
        Ok(Some((key.1, self.slot(&key)?)))
    }

    /// The record in a slot.
    fn slot(&self, key: &SlotKey) -> Result<Vec<u8>, Error> {
        let offset = u64::from(key.3).saturating_mul(SLOT_BYTES as u64);
        let offset = self.rings.geometry.spill_offset.saturating_add(offset);
        let mut place = [0; SLOT_BYTES];
        self.fill(offset, &mut place)?;
        Ok(read_slot(&place).map_or(Vec::new(), |(_, record)| record.to_vec()))
    }

    /// The body of a large record; `None` when its chain of chunks cannot be right.
    pub(super) fn large_body(&mut self, large: LargeReference) -> Result<Option<Vec<u8>>, Error> {
        let mut left = large.body_bytes as usize;
        if left > PAYLOAD_BYTES_MAX {
            return Ok(None);
        }
        let mut body = Vec::new();
        let mut index = large.chunk;
        while left > 0 {
            match self.used_chunks.get_mut(index as usize) {
                Some(used) if !*used => *used = true,
                _ => return Ok(None),
            }
            let offset = u64::from(index).saturating_mul(CHUNK_BYTES as u64);
            let offset = self.rings.geometry.large_offset.saturating_add(offset);
            let mut chunk = [0; CHUNK_BYTES];
            if !self.fill(offset, &mut chunk)? {
                return Ok(None);
            }
            let (next, part) = chunk.split_at(NEXT_BYTES);
            let part = part.get(..left.min(BODY_BYTES)).unwrap_or_default();
            body.extend_from_slice(part);
            left = left.saturating_sub(part.len());
            index = next
                .first_chunk()
                .map_or(0, |next| u32::from_le_bytes(*next));
        }
        Ok(Some(body))
    }
}

/// Position of a slot as its block has it: threads without a ring get it from the writer.
fn place_of(key: &SlotKey) -> u64 {
    if key.0 == NO_RING { 0 } else { key.1 }
}

/// A record without what has no meaning in a segment: the chunk of a large one.
fn masked(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    let large = record.get(4).is_some_and(|flags| flags & FLAG_LARGE != 0);
    let chunk = HEADER_BYTES.saturating_add(4)..LARGE_RECORD_BYTES;
    if let Some(chunk) = record.get_mut(chunk).filter(|_| large) {
        chunk.fill(0);
    }
    record
}

fn hash(record: &[u8]) -> u64 {
    xxh3_64(&masked(record))
}
