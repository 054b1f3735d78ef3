//! What the handles, the writer and the helper of one session share.

mod books;
mod live;
mod operations;
pub(crate) mod phase;
pub(crate) mod rate;
mod registry;
mod space;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::gates::{GATE_K, GATE_OFF, Gates, open_gate, settle};
use crate::ledger::{DropReason, OFFERED};
use crate::losses::Losses;
use crate::policy::Policies;
use crate::record::{
    CATEGORIES_MAX, KeepClass, SCHEMAS_MAX, SYMBOLS_MAX, SchemaDef, SchemaIds, schema, schemas_end,
};
use crate::ring::{Observation, Storage};
use crate::segment::entry::ClockPoint;
use crate::stress::Online;
use crate::sys::clock::Clock;
use crate::wake::Wake;
pub(crate) use live::LiveFeed;
use phase::{Phase, WithoutRing};
use rate::TickRate;
use space::SpaceUse;

/// What a session's threads share.
///
/// Laid out in this order: what a push reads comes first, in one cache line that nobody writes.
#[repr(C)]
pub(crate) struct Core {
    /// Number of the session in this process, from 1; never reused.
    pub(crate) uid: u64,
    pub(crate) clock: Clock,
    /// Bytes of every `Symbol` id: 1 = in the registry, 2 = the registry had no room.
    symbols: Box<[AtomicU8]>,
    pub(crate) record_bytes_max: usize,
    pub(crate) gates: Gates,
    pub(crate) wake: CachePadded<Wake>,
    pub(crate) storage: Storage,
    pub(crate) losses: Losses,
    /// How long the push of an `Always` record may wait for room.
    pub(crate) always_wait_max: Duration,
    /// The same per schema.
    schemas: Box<[AtomicU8]>,
    /// The same per category, without 2.
    categories: Box<[AtomicBool]>,
    /// Switched off by the user.
    categories_off: Box<[AtomicBool]>,
    off: AtomicBool,
    /// Pressure of each category, set by the writer.
    pressure: Box<[AtomicU8]>,
    /// Some category is under pressure.
    any_pressure: AtomicBool,
    /// At the disk bound: records that are not `Always` are dropped.
    shed: AtomicBool,
    pub(crate) policies: Policies,
    /// Stress rules, if there are any.
    pub(crate) rules: Option<Box<Online>>,
    /// Salt of key hashes.
    pub(crate) salt: u64,
    /// Whether rings may sample by their own fill.
    pub(crate) sampling: bool,
    phase: Phase,
    /// Things that the registry had no room for.
    registry_full: AtomicU64,
    /// Records found in blocks, per category; stored by the writer only.
    written: Box<[AtomicU64]>,
    /// What the session takes and will take on the disk.
    pub(crate) space: SpaceUse,
    /// For who appends lines while the session records, if anybody does.
    pub(crate) live: Option<LiveFeed>,
    pub(crate) rate: TickRate,
    /// A test moves UTC by so many ns, and the counter by so many ticks.
    pub(crate) clock_shifts: [AtomicI64; 2],
}

// Not derived: it would print every table.
impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

fn table<T>(length: usize, new: impl Fn() -> T) -> Box<[T]> {
    (0..length).map(|_| new()).collect()
}

impl Core {
    pub(crate) fn new(
        storage: Storage,
        clock: Clock,
        record_bytes_max: usize,
        policies: Policies,
        sampling: bool,
        salt: u64,
        always_wait_max: Duration,
    ) -> std::io::Result<Self> {
        static UIDS: AtomicU64 = AtomicU64::new(1);
        Ok(Self {
            // Relaxed: a ticket.
            uid: UIDS.fetch_add(1, Relaxed),
            gates: Gates::new()?,
            clock,
            storage,
            wake: CachePadded::new(Wake::default()),
            record_bytes_max,
            losses: Losses::default(),
            always_wait_max,
            symbols: table(SYMBOLS_MAX + 1, || AtomicU8::new(0)),
            schemas: table(SCHEMAS_MAX, || AtomicU8::new(0)),
            categories: table(CATEGORIES_MAX, || AtomicBool::new(false)),
            categories_off: table(CATEGORIES_MAX, || AtomicBool::new(false)),
            off: AtomicBool::new(false),
            pressure: table(CATEGORIES_MAX, || AtomicU8::new(0)),
            any_pressure: AtomicBool::new(false),
            shed: AtomicBool::new(false),
            policies,
            rules: None,
            salt,
            sampling,
            phase: Phase::new(),
            registry_full: AtomicU64::new(0),
            written: table(CATEGORIES_MAX, || AtomicU64::new(0)),
            space: SpaceUse::default(),
            live: None,
            rate: TickRate::default(),
            clock_shifts: [const { AtomicI64::new(0) }; 2],
        })
    }

    pub(crate) fn phase(&self) -> u32 {
        self.phase.now()
    }

    /// Refuses pushes from now on. Returns false if somebody else did before.
    pub(crate) fn begin_closing(&self) -> bool {
        let first = self.phase.close();
        self.storage.note_closing();
        self.refresh_gates();
        first
    }

    /// All clocks now.
    pub(crate) fn clock_point(&self) -> ClockPoint {
        let mut point = self.clock.point();
        let [utc, ticks] = &self.clock_shifts;
        point.utc_ns = point.utc_ns.saturating_add_signed(utc.load(Relaxed));
        point.ticks = point.ticks.saturating_add_signed(ticks.load(Relaxed));
        point
    }

    /// Whether the user's switches let records of this category through.
    pub(crate) fn is_on(&self, category: u8) -> bool {
        !self.off.load(Relaxed) && !self.categories_off[usize::from(category)].load(Relaxed)
    }

    /// Switches the session on or off.
    pub(crate) fn set_on(&self, on: bool) {
        self.off.store(!on, Relaxed);
        self.refresh_gates();
    }

    /// Switches one category on or off.
    pub(crate) fn set_category_on(&self, category: u8, on: bool) {
        self.categories_off[usize::from(category)].store(!on, Relaxed);
        self.refresh_gates();
    }

    /// Writer: sets the pressure of some categories.
    pub(crate) fn set_pressures(&self, changes: impl Iterator<Item = (u8, u8)>) {
        for (category, k) in changes {
            debug_assert!(k & GATE_K == k, "k is 0..=15");
            self.pressure[usize::from(category)].store(k, Relaxed);
        }
        let any = self.pressure.iter().any(|k| k.load(Relaxed) > 0);
        self.any_pressure.store(any, Relaxed);
        self.refresh_gates();
    }

    /// Whether some category is under pressure.
    pub(crate) fn has_pressure(&self) -> bool {
        // Relaxed: what is a moment old is as good.
        self.any_pressure.load(Relaxed)
    }

    /// Pressure of a category now.
    pub(crate) fn pressure(&self, category: u8) -> u8 {
        self.pressure[usize::from(category)].load(Relaxed)
    }

    /// Writer: whether records that are not `Always` are dropped now.
    pub(crate) fn set_shed(&self, shed: bool) {
        if self.shed.swap(shed, Relaxed) != shed {
            self.refresh_gates();
        }
    }

    /// Whether records that are not `Always` are dropped now.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shed.load(Relaxed)
    }

    /// The class of a record in this session: its own, or what the configuration says.
    pub(crate) fn keep_class(&self, category: u8, class: KeepClass) -> KeepClass {
        self.policies.of(category).keep.unwrap_or(class)
    }

    fn refresh_gates(&self) {
        for id in 1..schemas_end() {
            if let Some(ids) = schema(id).and_then(SchemaDef::ids) {
                self.refresh_gate(SchemaIds { schema: id, ..ids });
            }
        }
    }

    /// Stores the gate of a schema. Whoever changes what a gate depends on calls this after the
    /// change. `settle` orders both, so all accesses to those things are Relaxed.
    pub(crate) fn refresh_gate(&self, ids: SchemaIds) {
        let value = || {
            if self.gates.is_forked() || self.phase() != phase::RECORDING {
                0
            } else if !self.is_on(ids.category) {
                GATE_OFF
            } else if self.schemas[usize::from(ids.schema)].load(Acquire) == 1 {
                self.open_gate(ids)
            } else {
                0
            }
        };
        let gate = self.gates.gate(ids.schema);
        // Release: pairs with the Acquire in `Log::gate`; the schema is in the registry.
        settle(value, |stored| gate.store(stored, Release));
    }

    /// The gate of a schema whose records are taken.
    fn open_gate(&self, ids: SchemaIds) -> u8 {
        let class = schema(ids.schema).map_or(KeepClass::Sampled, |def| def.keep);
        let class = self.keep_class(ids.category, class);
        let policy = self.policies.of(ids.category).concerns(class) || self.is_line_sync();
        let rules = (self.rules.iter()).any(|rules| rules.concerns(ids.schema));
        match class {
            KeepClass::Always => open_gate(rules, policy, 0),
            KeepClass::Sampled => {
                let k = self.pressure[usize::from(ids.category)].load(Relaxed);
                open_gate(rules, policy || self.is_shedding(), k)
            }
        }
    }

    /// Counts a record that was offered and dropped without a ring. False when the session is
    /// closing: the record is outside of the ledger then.
    #[cold]
    pub(crate) fn count_dropped(
        &self,
        category: u8,
        reason: DropReason,
        observation: Option<Observation>,
    ) -> bool {
        let Some(_inside) = self.enter_without_ring() else {
            return false;
        };
        self.storage.count_shared(category, OFFERED);
        self.storage.count_shared(category, reason.counter());
        if let Some(observation) = observation {
            self.storage.aggregates.observe_shared(observation);
        }
        true
    }

    /// Begins something that close has to wait for, on a thread that has no busy flag. `None`
    /// when the session is closing.
    #[cold]
    pub(crate) fn enter_without_ring(&self) -> Option<WithoutRing<'_>> {
        self.phase.enter()
    }

    /// Closer: whether a thread is inside [`enter_without_ring`](Self::enter_without_ring).
    pub(crate) fn is_counting(&self) -> bool {
        self.phase.is_anybody_inside()
    }

    /// Counts something that the registry had no room for.
    #[cold]
    pub(crate) fn note_registry_full(&self) {
        self.registry_full.fetch_add(1, Relaxed);
    }

    /// How often the registry had no room.
    pub(crate) fn registry_full(&self) -> u64 {
        self.registry_full.load(Relaxed)
    }
}
