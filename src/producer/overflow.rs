//! What becomes of a record that finds no room: normal ones are dropped at once; `Always` ones take
//! the spill, then wait a bounded time, and only then are they dropped. All of it is cold.

use std::time::{Duration, Instant};

use super::Outcome;
use super::large::{FIXED_BYTES_SLACK, TakenChunks};
use super::offer::Offer;
use crate::core::Core;
use crate::ledger::{DropReason, INTERRUPTED, OFFERED};
use crate::record::{
    FLAG_LARGE, FLAG_SPILLED, HEADER_BYTES, KeepClass, LARGE_RECORD_BYTES, LargeReference, Record,
    RecordHeader, UNCAPPED, Variable, align_record,
};
use crate::ring::{Origin, RingSlot, SLOT_RECORD_BYTES};
use crate::wake;

/// How long a waiting push sleeps between two tries.
const WAIT_STEP: Duration = Duration::from_micros(50);

/// How a record lies in the place that it is given.
#[derive(Clone, Copy)]
struct Form {
    /// Length of the body.
    body: usize,
    /// Longest text.
    cap: usize,
    /// The body goes into chunks.
    large: bool,
}

impl Form {
    /// Bytes of the place.
    fn bytes(self) -> usize {
        if self.large {
            LARGE_RECORD_BYTES
        } else {
            align_record(HEADER_BYTES + self.body)
        }
    }
}

/// A record without a ring that was counted as offered and of which nothing else is known yet.
struct Unfinished<'a> {
    core: &'a Core,
    category: u8,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.core.storage.count_shared(self.category, INTERRUPTED);
    }
}

impl<R: Record> Offer<'_, R> {
    /// The ring, or the chunks for its body, have no room for the record, which was counted as
    /// offered. `reason`: what it is lost to if nothing helps.
    #[cold]
    #[inline(never)]
    pub(super) fn overflow(
        self,
        core: &Core,
        slot: &RingSlot,
        ticks: u64,
        reason: DropReason,
    ) -> Outcome {
        core.wake.wake_if_parked();
        let keep = self.class(core);
        fail_point!("overflow.entered");
        let origin = Origin::of(slot.ring(), slot.ring_id());
        let kept = keep == KeepClass::Always
            && self.form(core, SLOT_RECORD_BYTES).is_some()
            && (self.spill(core, origin, ticks)
                || wait(core, || {
                    self.into_ring(core, slot, ticks) || self.spill(core, origin, ticks)
                }));
        if kept {
            return Outcome::Kept;
        }
        core.storage.count(slot, self.category, reason.counter());
        fail_point!("overflow.dropped");
        self.lost(core, reason);
        Outcome::Dropped(reason)
    }

    /// The thread found no ring left.
    #[cold]
    #[inline(never)]
    pub(super) fn push_without_ring(self, core: &Core) -> Result<Outcome, MissingSymbols> {
        let Some(_inside) = core.enter_without_ring() else {
            return Ok(Outcome::Closed);
        };
        let keep = self.class(core);
        // Of a record that is dropped too: its duration is counted under the name.
        let named = self.symbols_known(core) || self.register_symbols(core);
        if keep == KeepClass::Always && !named {
            return Err(MissingSymbols);
        }
        let count = |counter| core.storage.count_shared(self.category, counter);
        let observation = self.observation();
        count(OFFERED);
        fail_point!("noring.offered");
        if let Some(observation) = observation {
            core.storage.aggregates.observe_shared(observation);
        }
        if keep == KeepClass::Sampled {
            count(DropReason::NoRing.counter());
            fail_point!("noring.dropped");
            return Ok(Outcome::Dropped(DropReason::NoRing));
        }
        let category = self.category;
        let unfinished = Unfinished { core, category };
        let ticks = self.ticks(core);
        let spill = || self.spill(core, Origin::NO_RING, ticks);
        let kept = spill() || wait(core, spill);
        std::mem::forget(unfinished);
        // Nobody else would: this thread has no busy flag by which the writer asks to be woken.
        core.wake.wake_if_parked();
        if kept {
            return Ok(Outcome::Kept);
        }
        let reason = DropReason::AlwaysBudget;
        count(reason.counter());
        self.lost(core, reason);
        Ok(Outcome::Dropped(reason))
    }

    /// Notes the loss of a record that should always be kept.
    #[cold]
    pub(super) fn lost(&self, core: &Core, reason: DropReason) {
        if self.class(core) == KeepClass::Always {
            core.losses.count_lost(reason, 1);
        }
    }

    /// Puts the record into a slot of the spill. False when there is none, or no chunks.
    fn spill(self, core: &Core, origin: Origin, ticks: u64) -> bool {
        let Some(mut slot) = core.storage.spill.take() else {
            return false;
        };
        fail_point!("spill.taken");
        let Some(form) = self.form(core, SLOT_RECORD_BYTES) else {
            return false;
        };
        let out = &mut slot.record()[..form.bytes()];
        let Ok(chunks) = self.encode(core, form, ticks, FLAG_SPILLED, out) else {
            return false;
        };
        fail_point!("spill.encoded");
        slot.commit(origin, form.bytes());
        fail_point!("spill.committed");
        // The writer gives them back.
        std::mem::forget(chunks);
        true
    }

    /// Puts the record into the ring after all. False when there is no room, or no chunks.
    fn into_ring(self, core: &Core, slot: &RingSlot, ticks: u64) -> bool {
        let Some(form) = self.form(core, slot.side.inline_bytes_max()) else {
            return false;
        };
        let ring = slot.ring();
        let wake = || core.wake.wake_if_parked();
        let keep = self.class(core);
        let Ok(place) = slot.side.reserve(ring, form.bytes(), keep, wake) else {
            return false;
        };
        let out = slot.side.bytes(ring, place);
        let Ok(chunks) = self.encode(core, form, ticks, 0, out) else {
            return false;
        };
        slot.side.commit(ring, place);
        // The writer gives them back.
        std::mem::forget(chunks);
        true
    }

    /// How the record lies in a place for records of up to `inline_bytes_max`; `None` when it is
    /// too long for any, which only a record can be that breaks the promise of `Record`.
    fn form(self, core: &Core, inline_bytes_max: usize) -> Option<Form> {
        let (body, cap) = (self.body_bytes(UNCAPPED), UNCAPPED);
        if align_record(HEADER_BYTES + body) <= inline_bytes_max {
            let large = false;
            return Some(Form { body, cap, large });
        }
        let (cap, body) = self.cap(core.record_bytes_max, body);
        let large = true;
        let fits = HEADER_BYTES + body <= core.record_bytes_max + FIXED_BYTES_SLACK;
        fits.then_some(Form { body, cap, large })
    }

    /// Writes the record into `out`, `form.bytes()` bytes. Returns what holds the chunks of its
    /// body until the record is committed.
    fn encode<'a>(
        self,
        core: &'a Core,
        form: Form,
        ticks: u64,
        flags: u8,
        out: &mut [u8],
    ) -> Result<Option<TakenChunks<'a>>, NoChunks> {
        let flags = self.flags(form.cap) | flags | if form.large { FLAG_LARGE } else { 0 };
        let header = RecordHeader::new(form.bytes(), self.schema, flags, 0, ticks);
        // Zeroes the padding; the body overwrites what is not padding.
        if let Some(last) = out.last_chunk_mut::<4>() {
            *last = [0; 4];
        }
        let mut out = Variable::new(out);
        out.put(bytemuck::bytes_of(&header));
        if !form.large {
            self.write_body(form.cap, &mut out);
            return Ok(None);
        }
        let chunks = &core.storage.large;
        let mut chain = chunks.take(form.body).ok_or(NoChunks)?;
        let first = chain.first;
        let taken = TakenChunks { chunks, first };
        self.write_body(form.cap, &mut Variable::chained(&mut chain));
        out.put(bytemuck::bytes_of(&LargeReference {
            body_bytes: form.body as u32,
            chunk: first,
        }));
        Ok(Some(taken))
    }
}

/// Calls `retry` until it succeeds, for `always_wait_max` at most. Not where the writer cannot
/// make room meanwhile: in a forked child there is none, and on its own thread it would wait
/// for itself.
fn wait(core: &Core, retry: impl Fn() -> bool) -> bool {
    let limit = core.always_wait_max;
    if limit.is_zero() || core.gates.is_forked() || wake::is_engine() {
        return false;
    }
    core.losses.count_wait();
    let start = Instant::now();
    loop {
        core.wake.wake_if_parked();
        let left = limit.saturating_sub(start.elapsed());
        std::thread::sleep(left.min(WAIT_STEP));
        if retry() {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// The chunks have no room for the body.
struct NoChunks;

/// The registry has no room for the symbols of the record; nothing was counted.
pub(super) struct MissingSymbols;
