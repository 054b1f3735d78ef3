//! The push: enabled > sample > reserve > encode > commit.
#![expect(unsafe_code, reason = "the handle points straight at the gates")]

use bytemuck::{Pod, Zeroable};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Acquire;

use crate::core::{Core, GATE_ON, phase};
use crate::ledger::{DropReason, OFFERED};
use crate::local;
use crate::record::{
    Category, Described, Extra, FLAG_CUT, FLAG_EXTRA, FLAG_LARGE, HEADER_BYTES, KeepClass,
    LARGE_RECORD_BYTES, LargeReference, Name, Open, Place, Record, RecordHeader, SCHEMAS_MAX,
    SchemaIds, Sink, Symbol, Variable, align_record, extras_bytes, extras_cut, write_extras,
};
use crate::ring::{Refused, RingSlot};

/// What became of an offered record, as far as the caller's thread knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the ring; the writer takes it from there.
    Kept,
    /// Left out by sampling; counted.
    SampledOut,
    /// Dropped for this reason; counted.
    Dropped(DropReason),
    /// Recording, or the category, is switched off, or this is a forked child; not counted.
    Disabled,
    /// The session is closed; not counted.
    Closed,
}

/// Cheap handle for producers; clone it freely, send it anywhere.
///
/// For normal records a push never waits, locks, allocates or enters the kernel, except for a
/// counted wake of a sleeping writer. It never panics and never returns an error: see [`Outcome`].
#[derive(Clone, Debug)]
pub struct Log {
    /// One gate per schema: those of `core`, or the page of the disabled handle.
    gates: *const [AtomicU8; SCHEMAS_MAX],
    /// `None`: a handle that records nothing.
    core: Option<Arc<Core>>,
}

/// Gates of handles that record nothing.
static GATES_OFF: [AtomicU8; SCHEMAS_MAX] = [const { AtomicU8::new(0) }; SCHEMAS_MAX];

// SAFETY: `gates` points to atomics that live as long as `core` or for ever.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Log {
    /// A handle that records nothing: every push returns [`Outcome::Disabled`] at once.
    pub fn disabled() -> Self {
        Self {
            gates: &raw const GATES_OFF,
            core: None,
        }
    }

    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            gates: core.gates.ptr(),
            core: Some(core),
        }
    }

    /// Offers a record.
    #[inline(always)]
    pub fn push(&self, record: &impl Record) -> Outcome {
        self.push_with(record, &[])
    }

    /// Offers a record with extra fields, which follow the fields of its schema in the line.
    #[inline(always)]
    pub fn push_with(&self, record: &impl Record, extras: &[Extra<'_>]) -> Outcome {
        let ids = record.schema().packed_ids();
        if self.gate(ids) != GATE_ON {
            return self.push_cold(record, extras);
        }
        let Some(core) = &self.core else {
            return Outcome::Disabled;
        };
        let offer = Offer {
            record,
            extras,
            schema: ids as u16,
            category: (ids >> 16) as u8,
            flags: 0,
        };
        match local::fast_slot(core) {
            Some(slot) => offer.push(core, slot),
            None => offer.push_first(core),
        }
    }

    /// Offers an open record: a category and any fields.
    #[inline]
    pub fn event(&self, category: Category, extras: &[Extra<'_>]) -> Outcome {
        self.push_with(&Open(category), extras)
    }

    /// Whether records of this category are taken now. For callers that want to skip the work of
    /// gathering arguments; a push checks it anyway.
    pub fn is_on(&self, category: Category) -> bool {
        match (&self.core, category.schema().ids()) {
            (Some(core), Some(ids)) => core.phase() == phase::RECORDING && core.is_on(ids.category),
            _ => false,
        }
    }

    /// The gate of a schema; that of id 0, which is never [`GATE_ON`], when it has no id yet.
    #[inline(always)]
    fn gate(&self, ids: u32) -> u8 {
        // SAFETY: points to the gates of `core`, which this handle keeps alive, or to a static.
        let gates = unsafe { &*self.gates };
        // Acquire: pairs with the store in `refresh_gate`; the schema is in the registry.
        gates[ids as usize % SCHEMAS_MAX].load(Acquire)
    }

    /// Everything that is not a push into an open gate.
    #[cold]
    #[inline(never)]
    fn push_cold<R: Record>(&self, record: &R, extras: &[Extra<'_>]) -> Outcome {
        let Some(core) = &self.core else {
            return Outcome::Disabled;
        };
        if core.gates.is_forked() {
            return Outcome::Disabled;
        }
        if core.phase() != phase::RECORDING {
            return Outcome::Closed;
        }
        let schema = record.schema();
        let Some(ids) = schema.ids() else {
            return push_described(core, record, extras);
        };
        if !core.is_on(ids.category) {
            return Outcome::Disabled;
        }
        if !core.register_schema(ids, schema) {
            return push_described(core, record, extras);
        }
        let SchemaIds { schema, category } = ids;
        Offer {
            record,
            extras,
            schema,
            category,
            flags: 0,
        }
        .push_first(core)
    }
}

/// The registry has no room: the record describes itself in category `custom`.
#[cold]
fn push_described<R: Record>(core: &Arc<Core>, record: &R, extras: &[Extra<'_>]) -> Outcome {
    let described = Described { record, extras };
    let schema = described.schema();
    core.note_registry_full();
    match schema.ids() {
        // The writer registers `custom` when the session starts, so there is always room.
        Some(ids) if core.register_schema(ids, schema) => {
            let (schema, category) = (ids.schema, ids.category);
            let offer = Offer {
                record: &described,
                extras: &[],
                schema,
                category,
                flags: FLAG_EXTRA,
            };
            offer.push_first(core)
        }
        _ => Outcome::Dropped(DropReason::RegistryFull),
    }
}

/// Header and fixed part of a record, which are written in one go.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Head<F> {
    header: RecordHeader,
    fixed: F,
}

// SAFETY: all bytes zero are a zero header and a zeroed `F`, which is `Zeroable`.
unsafe impl<F: Zeroable> Zeroable for Head<F> {}
// SAFETY: packed, so there is no padding; both members are Pod, so any bytes are a value.
unsafe impl<F: Pod> Pod for Head<F> {}

/// A record that passed its gate.
struct Offer<'a, R> {
    record: &'a R,
    extras: &'a [Extra<'a>],
    schema: u16,
    category: u8,
    /// Flags beyond those that follow from the record and the extra fields.
    flags: u8,
}

// Not derived: a record need not be `Copy` itself.
impl<R> Clone for Offer<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Offer<'_, R> {}

impl<R: Record> Offer<'_, R> {
    /// The calling thread may have no ring yet.
    #[cold]
    #[inline(never)]
    fn push_first(self, core: &Arc<Core>) -> Outcome {
        local::with_slot(core, |slot| self.push(core, slot)).unwrap_or_else(|| {
            core.storage.count_shared(self.category, OFFERED);
            core.storage
                .count_shared(self.category, DropReason::NoRing.counter());
            Outcome::Dropped(DropReason::NoRing)
        })
    }

    #[inline(always)]
    fn push(self, core: &Arc<Core>, slot: &RingSlot) -> Outcome {
        let wake = || core.wake.wake_if_parked();
        let guard = match slot.busy.enter(wake) {
            Ok(guard) => guard,
            Err(refused) => return self.refused(core, refused),
        };
        if !self.symbols_known(core) && !self.register_symbols(core) {
            drop(guard);
            return push_described(core, self.record, self.extras);
        }
        core.storage.count(slot, self.category, OFFERED);
        let ticks = core.clock.ticks();
        // Everything that is read from the record but the texts, before the first store into
        // the ring: the compiler must assume that such a store changes what it reads after it.
        let fixed = self.record.fixed(usize::MAX);
        let flags = self.flags(usize::MAX);
        let body = size_of::<R::Fixed>()
            + self.record.variable_bytes(usize::MAX)
            + extras_bytes(self.extras, usize::MAX);
        let bytes = align_record(HEADER_BYTES + body);
        if bytes > slot.side.inline_bytes_max() {
            return self.push_large(core, slot, ticks, body);
        }
        let ring = slot.ring();
        let wake = || core.wake.wake_if_parked();
        let Ok(place) = slot.side.reserve(ring, bytes, self.record.keep(), wake) else {
            return self.full(core, slot);
        };
        let out = slot.side.bytes(ring, place);
        // Zeroes the padding; the body overwrites what is not padding.
        if let Some(last) = out.last_chunk_mut::<4>() {
            *last = [0; 4];
        }
        let header = RecordHeader::new(bytes, self.schema, flags, 0, ticks);
        let head = Head { header, fixed };
        if let Some((place, rest)) = out.split_at_mut_checked(size_of::<Head<R::Fixed>>()) {
            place.copy_from_slice(bytemuck::bytes_of(&head));
            let mut rest = Place::new(rest);
            self.record.write_variable(usize::MAX, &mut rest);
            write_extras(self.extras, usize::MAX, &mut rest);
        }
        slot.side.commit(ring, place);
        drop(guard);
        Outcome::Kept
    }

    fn write_body(self, cap: usize, out: &mut impl Sink) {
        out.put(bytemuck::bytes_of(&self.record.fixed(cap)));
        self.record.write_variable(cap, out);
        write_extras(self.extras, cap, out);
    }

    #[inline(always)]
    fn flags(&self, cap: usize) -> u8 {
        let extra = if self.extras.is_empty() {
            0
        } else {
            FLAG_EXTRA
        };
        let cut =
            self.record.is_cut(cap) || (!self.extras.is_empty() && extras_cut(self.extras, cap));
        self.flags | extra | if cut { FLAG_CUT } else { 0 }
    }

    #[inline(always)]
    fn symbols_known(&self, core: &Core) -> bool {
        self.all_symbols(|symbol| core.knows_symbol(symbol))
    }

    #[cold]
    fn register_symbols(self, core: &Core) -> bool {
        self.all_symbols(|symbol| core.register_symbol(symbol))
    }

    #[inline(always)]
    fn all_symbols(&self, mut check: impl FnMut(Symbol) -> bool) -> bool {
        self.record.all_symbols(&mut check)
            && self.extras.iter().all(|extra| match extra.key {
                Name::Symbol(symbol) => check(symbol),
                Name::Text(_) => true,
            })
    }

    #[cold]
    fn refused(self, core: &Core, refused: Refused) -> Outcome {
        match refused {
            Refused::Closed => Outcome::Closed,
            Refused::Reentrant => {
                core.storage.count_shared(self.category, OFFERED);
                core.storage
                    .count_shared(self.category, DropReason::Reentrant.counter());
                Outcome::Dropped(DropReason::Reentrant)
            }
        }
    }

    #[cold]
    fn full(self, core: &Core, slot: &RingSlot) -> Outcome {
        let reason = match self.record.keep() {
            KeepClass::Sampled => DropReason::RingFull,
            KeepClass::Always => DropReason::AlwaysBudget,
        };
        core.wake.wake_if_parked();
        core.storage.count(slot, self.category, reason.counter());
        Outcome::Dropped(reason)
    }

    /// A record that is too long for the ring: its body goes into a chain of chunks.
    #[cold]
    #[inline(never)]
    fn push_large(self, core: &Core, slot: &RingSlot, ticks: u64, body: usize) -> Outcome {
        let (cap, body) = self.cap(core.record_bytes_max, body);
        let chunks = &core.storage.large;
        let Some(mut chain) = chunks.take(body) else {
            core.wake.wake_if_parked();
            core.storage
                .count(slot, self.category, DropReason::LargeBudget.counter());
            return Outcome::Dropped(DropReason::LargeBudget);
        };
        let chunk = chain.first;
        let mut out = Variable::chained(&mut chain);
        self.write_body(cap, &mut out);
        let ring = slot.ring();
        let wake = || core.wake.wake_if_parked();
        let Ok(place) = slot
            .side
            .reserve(ring, LARGE_RECORD_BYTES, self.record.keep(), wake)
        else {
            chunks.give_back(chunk);
            return self.full(core, slot);
        };
        let flags = self.flags(cap) | FLAG_LARGE;
        let header = RecordHeader::new(LARGE_RECORD_BYTES, self.schema, flags, 0, ticks);
        let mut out = Variable::new(slot.side.bytes(ring, place));
        out.put(bytemuck::bytes_of(&header));
        out.put(bytemuck::bytes_of(&LargeReference {
            body_bytes: body as u32,
            chunk,
        }));
        slot.side.commit(ring, place);
        Outcome::Kept
    }

    /// How long each text may be so that the whole record stays within `bytes_max`, and the length
    /// of the body then. Halves the texts until it fits.
    fn cap(&self, bytes_max: usize, body: usize) -> (usize, usize) {
        let mut cap = usize::MAX;
        let mut body = body;
        let mut next = bytes_max;
        while HEADER_BYTES + body > bytes_max && next > 0 {
            cap = next;
            body = size_of::<R::Fixed>()
                + self.record.variable_bytes(cap)
                + extras_bytes(self.extras, cap);
            next /= 2;
        }
        (cap, body)
    }
}
