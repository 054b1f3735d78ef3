//! The push: enabled > sample > reserve > encode > commit.
#![expect(unsafe_code, reason = "the handle points straight at the gates")]

mod offer;
mod overflow;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Acquire;

use crate::core::{Core, phase};
use crate::gates::{GATE_OFF, GATE_ON};
use crate::ledger::DropReason;
use crate::local;
use crate::record::{Category, Declared, Extra, Open, Record, SCHEMAS_MAX, SchemaIds};
use offer::{Offer, push_described};

/// What became of an offered record, as far as the caller's thread knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the ring or the spill; the writer takes it from there.
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
/// counted wake of a sleeping writer. An `Always` record may wait for room, when its ring and the
/// spill are full, for `always_wait_max` at most. It never panics and never returns an error: see
/// [`Outcome`].
#[derive(Clone)]
pub struct Log {
    /// One gate per schema: those of `core`, or the page of the disabled handle.
    gates: *const [AtomicU8; SCHEMAS_MAX],
    /// `None`: a handle that records nothing.
    core: Option<Arc<Core>>,
}

/// Gates of handles that record nothing.
static GATES_OFF: [AtomicU8; SCHEMAS_MAX] = [const { AtomicU8::new(GATE_OFF) }; SCHEMAS_MAX];

// SAFETY: `gates` points to atomics that live as long as `core` or for ever.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("enabled", &self.core.is_some())
            .finish_non_exhaustive()
    }
}

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
        match self.gate(ids) {
            GATE_ON => {}
            GATE_OFF => return Outcome::Disabled,
            _ => return self.push_cold(record, extras),
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

    /// Offers the record that `make` returns. While recording or the category is switched off,
    /// `make` is not called: the record costs one load, not its arguments. (It is called for the
    /// first record of its type, after close and in a forked child.)
    #[inline(always)]
    pub fn push_lazy<R: Record + Declared>(&self, make: impl FnOnce() -> R) -> Outcome {
        if self.gate(R::declared().packed_ids()) == GATE_OFF {
            return Outcome::Disabled;
        }
        self.push(&make())
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
            (Some(core), Some(ids)) => {
                !core.gates.is_forked()
                    && core.phase() == phase::RECORDING
                    && core.is_on(ids.category)
            }
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
            core.refresh_gate(ids);
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
