//! What the threads of a session learn from each other, and in which order. Natively these tests
//! show little; miri answers a load with any value that the memory orders allow, and
//! `.ci/orderings` weakens the orders one by one.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread::yield_now;
use std::time::Duration;

use bytemuck::Zeroable as _;

use super::*;
use crate::config::CategoryRules;
use crate::ledger::OFFERED;
use crate::policy::Policies;
use crate::record::{CATEGORY_CUSTOM, SchemaDef, SchemaIds, Symbol};
use crate::ring::{Backend, RegistryCursor, Storage, StorageSizes};
use crate::segment::entry::{
    ENTRY_CATEGORY, ENTRY_HEADER_BYTES, ENTRY_SCHEMA, ENTRY_SYMBOL, EntryHeader,
};
use crate::segment::layout::FileHeader;
use crate::sys::clock::Clock;

/// Rounds with a session of its own, which miri takes seconds to make.
const SESSIONS: usize = if cfg!(miri) { 2 } else { 50 };
/// Rounds within one.
const ROUNDS: usize = if cfg!(miri) { 8 } else { 50 };

fn core() -> Arc<Core> {
    core_of(1024)
}

/// With records of so many bytes at most.
pub(super) fn core_of(record_bytes_max: usize) -> Arc<Core> {
    let sizes = StorageSizes {
        ring_total_bytes: 64 << 10,
        large_total_bytes: 64 << 10,
        spill_total_bytes: 64 << 10,
    };
    let storage = Storage::new(&Backend::Anonymous, &FileHeader::zeroed(), sizes).unwrap();
    let policies = Policies::new(&CategoryRules::default(), 1_000_000_000);
    let core = Core::new(
        storage,
        Clock::detect(),
        record_bytes_max,
        policies,
        true,
        0,
        Duration::ZERO,
    );
    Arc::new(core.unwrap())
}

/// A producer that goes on when it sees something, and a writer that is told by the commit of the
/// record: what the producer relied on, an entry of this kind and id, is in the registry.
fn assert_registered(
    core: &Core,
    (kind, id): (u8, u32),
    teach: impl Fn() + Sync,
    learn: impl Fn() + Sync,
) {
    let committed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(&teach);
        scope.spawn(|| {
            learn();
            committed.store(1, Release);
        });
        while committed.load(Acquire) == 0 {
            yield_now();
        }
        let mut found = false;
        let registry = &core.storage.registry;
        RegistryCursor::default().advance(registry, |entry| {
            let header: EntryHeader = bytemuck::pod_read_unaligned(&entry[..ENTRY_HEADER_BYTES]);
            found |= (header.kind, u32::from(header.id16) + header.id32) == (kind, id);
        });
        assert!(found, "the entry of kind {kind} is missing");
    });
}

/// A schema that no session knows yet, in a category of its own.
fn new_schema(test: &str, round: usize) -> (&'static SchemaDef, SchemaIds) {
    let category = Category::named(&format!("order_{test}_{round}")).unwrap();
    let schema = category.schema();
    (schema, schema.ids().unwrap())
}

#[test]
fn a_symbol_that_is_known_is_in_the_registry() {
    let core = core();
    for round in 0..ROUNDS {
        let symbol = Symbol::intern(&format!("order_known_{round}")).unwrap();
        let teach = || assert!(core.register_symbol(symbol));
        let learn = || {
            while !core.knows_symbol(symbol) {
                yield_now();
            }
        };
        assert_registered(&core, (ENTRY_SYMBOL, symbol.id()), teach, learn);
    }
}

#[test]
fn a_symbol_that_two_threads_meet_is_in_the_registry() {
    let core = core();
    for round in 0..ROUNDS {
        let symbol = Symbol::intern(&format!("order_met_{round}")).unwrap();
        let register = || assert!(core.register_symbol(symbol));
        assert_registered(&core, (ENTRY_SYMBOL, symbol.id()), register, register);
    }
}

/// The gate is opened by a switch of the session, on another thread than the one that registers.
#[test]
fn a_schema_whose_gate_is_open_is_in_the_registry() {
    let core = core();
    let log = Log::new(Arc::clone(&core));
    for round in 0..ROUNDS {
        let (schema, ids) = new_schema("gate", round);
        let teach = || assert!(core.enter_schema(ids, schema));
        let refresh = || {
            while core.gates.gate(ids.schema).load(Relaxed) & GATE_ON == 0 {
                core.refresh_gate(ids);
                yield_now();
            }
        };
        let learn = || {
            while log.gate(schema.packed_ids()) & GATE_ON == 0 {
                yield_now();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(refresh);
            assert_registered(&core, (ENTRY_SCHEMA, ids.schema.into()), teach, learn);
        });
    }
}

#[test]
fn a_schema_that_two_threads_meet_is_in_the_registry() {
    let core = core();
    for round in 0..ROUNDS {
        let (schema, ids) = new_schema("met", round);
        let done = AtomicU32::new(0);
        let register = || assert!(core.register_schema(ids, schema));
        let teach = || {
            register();
            done.store(1, Relaxed);
        };
        // Both at once, or one that comes late: it would nearly always be too early otherwise.
        let learn = || {
            while round % 2 == 1 && done.load(Relaxed) == 0 {
                yield_now();
            }
            register();
        };
        assert_registered(&core, (ENTRY_SCHEMA, ids.schema.into()), teach, learn);
    }
}

#[test]
fn a_category_that_is_known_is_in_the_registry() {
    let core = core();
    for round in 0..ROUNDS {
        let (_, ids) = new_schema("known", round);
        let done = AtomicU32::new(0);
        let teach = || {
            assert!(core.enter_category(ids.category));
            done.store(1, Relaxed);
        };
        let learn = || {
            while done.load(Relaxed) == 0 {
                yield_now();
            }
            assert!(core.enter_category(ids.category));
        };
        assert_registered(&core, (ENTRY_CATEGORY, ids.category.into()), teach, learn);
    }
}

/// A ledger that is looked at never has more written than was offered.
#[test]
fn what_is_counted_as_written_was_counted_as_offered() {
    for _ in 0..SESSIONS {
        let core = core();
        let committed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                core.storage.count_shared(CATEGORY_CUSTOM, OFFERED);
                committed.store(1, Release);
            });
            scope.spawn(|| {
                while committed.load(Acquire) == 0 {
                    yield_now();
                }
                core.add_written(CATEGORY_CUSTOM, 1);
            });
            loop {
                let ledger = core.ledger();
                let account = ledger.categories.get("custom").copied().unwrap_or_default();
                assert!(account.written() <= account.offered());
                if account.written() == 1 {
                    break;
                }
            }
        });
    }
}
