//! From what was left in rings and spill to blocks, in the order of each thread: as the writer
//! would have done it.

use super::covered::Covered;
use super::output::NewSegment;
use super::storage::Leftover;
use crate::error::Error;
use crate::record::{
    FLAG_LARGE, HEADER_BYTES, INLINE_BYTES_MAX, LARGE_RECORD_BYTES, LargeReference, RECORD_ALIGN,
    SCHEMA_PADDING, align_record,
};
use crate::ring::NO_RING;
use crate::segment::layout::{BLOCK_DATA, BLOCK_FLAG_SHED, BLOCK_LARGE, DATA_BYTES_MAX, RingHead};
use crate::segment::records::RecordRef;
use crate::segment::source::Source;
use crate::segment::writer::BlockInfo;

/// What was saved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    pub(super) from_rings: u64,
    pub(super) from_spill: u64,
    /// Records of known length that cannot be taken.
    pub(super) damaged: u64,
}

/// Records of one ring that become one block.
struct Run {
    info: BlockInfo,
    payload: Vec<u8>,
}

impl Run {
    fn new(ring: u32, position: u64) -> Self {
        Self {
            info: BlockInfo {
                kind: BLOCK_DATA,
                ring,
                first_pos: position,
                next_pos: position,
                min_ticks: u64::MAX,
                ..BlockInfo::default()
            },
            payload: Vec::new(),
        }
    }
}

/// A recovery under way.
pub(super) struct Drain<'a, 'b, S: ?Sized> {
    pub(super) leftover: &'a mut Leftover<'b, S>,
    pub(super) covered: &'a mut Covered,
    pub(super) out: &'a mut NewSegment,
    pub(super) drained: Drained,
}

impl<S: Source + ?Sized> Drain<'_, '_, S> {
    /// Writes everything that is in no block yet.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        self.entries()?;
        for (at, head) in self.leftover.rings.heads.clone() {
            self.ring(at, &head)?;
        }
        for ring in self.leftover.spill_rings() {
            let position = match ring {
                NO_RING => self.covered.no_ring,
                _ => self.covered.rings.get(&ring).copied().unwrap_or(0),
            };
            self.spilled(ring, position, u64::MAX)?;
        }
        Ok(())
    }

    /// Every registry entry, so that the segment can be read alone.
    fn entries(&mut self) -> Result<(), Error> {
        let (registry, out) = (&mut self.covered.registry, &mut *self.out);
        let mut rejected = 0_u64;
        self.leftover.entries(&mut |entry| {
            let before = registry.rejected;
            registry.add_block(entry);
            if registry.rejected == before {
                return out.entry(entry);
            }
            registry.rejected = before;
            rejected = rejected.saturating_add(1);
            Ok(())
        })?;
        if rejected > 0 {
            self.fault(format!(
                "{rejected} entries of the registry in the ring storage are damaged"
            ));
        }
        Ok(())
    }

    fn fault(&mut self, fault: String) {
        self.covered.damaged = true;
        self.covered.faults.push(fault);
    }

    fn ring(&mut self, at: u64, head: &RingHead) -> Result<(), Error> {
        let ring = head.ring_id;
        let waiting = head.write_pos.checked_sub(head.read_pos);
        let right = waiting.is_some_and(|bytes| bytes <= head.capacity)
            && head.read_pos.is_multiple_of(RECORD_ALIGN as u64)
            && ring != 0
            && ring != NO_RING;
        if !right {
            self.fault(format!(
                "the positions of ring {ring} cannot be right: left out"
            ));
            return Ok(());
        }
        let covered = self.covered.rings.get(&ring).copied();
        // The writer publishes a block before it frees the bytes: what a block holds is not taken
        // again.
        let mut position = head.read_pos.max(covered.unwrap_or(0));
        let shed =
            covered.is_some_and(|end| position > end.saturating_add(INLINE_BYTES_MAX as u64));
        let mut flags = if shed { BLOCK_FLAG_SHED } else { 0 };
        loop {
            self.spilled(ring, position, position)?;
            if position >= head.write_pos {
                return Ok(());
            }
            let next = self.leftover.next_spilled(ring).unwrap_or(u64::MAX);
            let end = next.min(head.write_pos);
            let left = end.saturating_sub(position);
            let bytes =
                self.leftover
                    .ring_bytes(at, head, position, left.min(DATA_BYTES_MAX as u64))?;
            let taken = self.window(ring, position, &bytes, &mut flags)?;
            if taken == 0 {
                self.fault(format!("{left} bytes in ring {ring} are no records"));
                // What was spilled stands behind them.
                self.covered.rings.insert(ring, position);
                return Ok(());
            }
            position = position.saturating_add(taken as u64);
            self.covered.rings.insert(ring, position);
        }
    }

    /// Writes the records at the start of `bytes`. Returns their length; 0 = they are none.
    fn window(
        &mut self,
        ring: u32,
        position: u64,
        bytes: &[u8],
        flags: &mut u16,
    ) -> Result<usize, Error> {
        let mut at = 0_usize;
        let mut run = Run::new(ring, position);
        while let Some([low, high, schema @ ..]) =
            bytes.get(at..).and_then(<[u8]>::first_chunk::<4>)
        {
            let words = u16::from_le_bytes([*low, *high]);
            let length = usize::from(words).saturating_mul(RECORD_ALIGN);
            let next = at.saturating_add(length);
            let here = position.saturating_add(at as u64);
            if length == 0 || next > bytes.len() {
                break;
            }
            if u16::from_le_bytes(*schema) == SCHEMA_PADDING {
                self.flush(&mut run, flags)?;
                at = next;
                run = Run::new(ring, position.saturating_add(next as u64));
                continue;
            }
            let Some(record) = RecordRef::at(bytes, at) else {
                break;
            };
            let raw = bytes.get(at..next).unwrap_or_default();
            if self.add(&mut run, here, &record, raw, false, flags)? {
                self.drained.from_rings = self.drained.from_rings.saturating_add(1);
            } else {
                self.flush(&mut run, flags)?;
                run = Run::new(ring, here.saturating_add(length as u64));
            }
            at = next;
        }
        self.flush(&mut run, flags)?;
        Ok(at)
    }

    /// Writes the spilled records of a ring up to position `until`; they stand at `position`.
    fn spilled(&mut self, ring: u32, position: u64, until: u64) -> Result<(), Error> {
        let mut at = position;
        let mut run = Run::new(ring, at);
        let mut flags = 0;
        while let Some((own, raw)) = self.leftover.take_spilled(ring, until)? {
            if ring != NO_RING && own > at {
                self.flush(&mut run, &mut flags)?;
                at = own;
                run = Run::new(ring, at);
            }
            let record = RecordRef::at(&raw, 0);
            let taken = match &record {
                Some(record) => self.add(&mut run, at, record, &raw, true, &mut flags)?,
                None => false,
            };
            if !taken {
                continue;
            }
            self.drained.from_spill = self.drained.from_spill.saturating_add(1);
            if ring == NO_RING {
                // Its position is the number of records before it: one block each is simplest.
                self.flush(&mut run, &mut flags)?;
                at = at.saturating_add(1);
                run = Run::new(ring, at);
            }
        }
        self.flush(&mut run, &mut flags)
    }

    /// Adds a record at `position` to a run. False when it cannot be taken: it is counted.
    fn add(
        &mut self,
        run: &mut Run,
        position: u64,
        record: &RecordRef<'_>,
        raw: &[u8],
        spilled: bool,
        flags: &mut u16,
    ) -> Result<bool, Error> {
        let header = record.header;
        let registry = &self.covered.registry;
        let schema = registry.schema(header.schema);
        let category = schema.and_then(|schema| registry.category(schema.category));
        let known = category.is_some()
            && record.flags_known()
            && registry.weight(header.weight).is_some()
            && header.is_spilled() == spilled;
        let large = header.flags & FLAG_LARGE != 0;
        let body = match (known, large) {
            (false, _) => None,
            (true, false) => Some(Vec::new()),
            (true, true) => self.body(raw)?,
        };
        let Some(body) = body else {
            self.drained.damaged = self.drained.damaged.saturating_add(1);
            let (ring, schema) = (run.info.ring, header.schema);
            self.fault(format!(
                "a record of schema {schema} of ring {ring} cannot be read"
            ));
            return Ok(false);
        };
        let full = run.payload.len().saturating_add(raw.len()) > DATA_BYTES_MAX;
        if large || full {
            self.flush(run, flags)?;
            *run = Run::new(run.info.ring, position);
        }
        if large {
            let info = BlockInfo {
                kind: BLOCK_LARGE,
                records: 1,
                min_ticks: header.ticks(),
                max_ticks: header.ticks(),
                ..run.info
            };
            self.out.block(info, &body)?;
        }
        run.payload.extend_from_slice(raw);
        let info = &mut run.info;
        info.records = info.records.saturating_add(1);
        info.min_ticks = info.min_ticks.min(header.ticks());
        info.max_ticks = info.max_ticks.max(header.ticks());
        if !spilled {
            info.next_pos = position.saturating_add(raw.len() as u64);
        }
        self.out.count(header.schema);
        self.covered.max_ticks = self.covered.max_ticks.max(header.ticks());
        Ok(true)
    }

    /// The body of a large record, as long as its block wants it.
    fn body(&mut self, raw: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let reference = raw
            .get(HEADER_BYTES..)
            .filter(|_| raw.len() == LARGE_RECORD_BYTES);
        let reference = reference
            .and_then(|bytes| bytemuck::try_pod_read_unaligned::<LargeReference>(bytes).ok());
        let Some(reference) = reference else {
            return Ok(None);
        };
        let body = self.leftover.large_body(reference)?;
        Ok(body.map(|mut body| {
            body.resize(align_record(body.len()), 0);
            body
        }))
    }

    fn flush(&mut self, run: &mut Run, flags: &mut u16) -> Result<(), Error> {
        if run.payload.is_empty() {
            return Ok(());
        }
        run.info.flags = std::mem::take(flags);
        self.out.block(run.info, &run.payload)?;
        run.payload.clear();
        let position = run.info.next_pos;
        *run = Run::new(run.info.ring, position);
        Ok(())
    }
}
