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
use crate::record::{CATEGORY_CUSTOM, KeepClass, SchemaDef, Symbol};
use crate::ring::{Backend, RegistryCursor, Storage, StorageSizes};
use crate::segment::entry::{ENTRY_CATEGORY, ENTRY_SCHEMA, ENTRY_SYMBOL};
use crate::segment::layout::FileHeader;
use crate::sys::clock::Clock;

/// Few under miri, which takes seconds for each and has many seeds.
const ROUNDS: usize = if cfg!(miri) { 2 } else { 50 };

static FIRST: SchemaDef = SchemaDef::new("OrderFirst", "docker", KeepClass::Sampled, &[], 0, None);
static SECOND: SchemaDef =
    SchemaDef::new("OrderSecond", "docker", KeepClass::Sampled, &[], 0, None);

fn core() -> Arc<Core> {
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
        1024,
        policies,
        true,
        0,
        Duration::ZERO,
    );
    Arc::new(core.unwrap())
}

/// A producer that goes on when it sees something, and a writer that is told by the commit of the
/// record: what the producer relied on is in the registry.
fn assert_registered(core: &Core, kind: u8, teach: impl Fn() + Sync, learn: impl Fn() + Sync) {
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
            found |= entry[8] == kind;
        });
        assert!(found, "an entry of kind {kind} is missing");
    });
}

#[test]
fn a_symbol_that_is_known_is_in_the_registry() {
    let symbol = Symbol::intern("order_tests").unwrap();
    for _ in 0..ROUNDS {
        let core = core();
        let teach = || assert!(core.register_symbol(symbol));
        let learn = || {
            while !core.knows_symbol(symbol) {
                yield_now();
            }
        };
        assert_registered(&core, ENTRY_SYMBOL, teach, learn);
    }
}

#[test]
fn a_symbol_that_two_threads_meet_is_in_the_registry() {
    let symbol = Symbol::intern("order_tests").unwrap();
    for _ in 0..ROUNDS {
        let core = core();
        let register = || assert!(core.register_symbol(symbol));
        assert_registered(&core, ENTRY_SYMBOL, register, register);
    }
}

#[test]
fn a_schema_whose_gate_is_open_is_in_the_registry() {
    let ids = FIRST.ids().unwrap();
    for round in 0..2 * ROUNDS {
        let core = core();
        let log = Log::new(Arc::clone(&core));
        let teach = || assert!(core.register_schema(ids, &FIRST));
        // As a switch of the session does, which is seen by others before the registering thread
        // has opened the gate itself.
        let refresh = || {
            while core.gates.gate(ids.schema).load(Relaxed) & GATE_ON == 0 {
                core.refresh_gate(ids);
            }
        };
        let learn = || {
            while log.gate(FIRST.packed_ids()) & GATE_ON == 0 {
                yield_now();
            }
        };
        std::thread::scope(|scope| {
            if round % 2 == 0 {
                scope.spawn(refresh);
            }
            assert_registered(&core, ENTRY_SCHEMA, teach, learn);
        });
    }
}

#[test]
fn the_schema_and_the_category_that_two_threads_meet_are_in_the_registry() {
    let (first, second) = (FIRST.ids().unwrap(), SECOND.ids().unwrap());
    for _ in 0..ROUNDS {
        let core = core();
        let register = || assert!(core.register_schema(first, &FIRST));
        assert_registered(&core, ENTRY_SCHEMA, register, register);
    }
    for _ in 0..ROUNDS {
        let core = core();
        let done = AtomicU32::new(0);
        let teach = || {
            assert!(core.register_schema(first, &FIRST));
            done.store(1, Relaxed);
        };
        let learn = || {
            while done.load(Relaxed) == 0 {
                yield_now();
            }
            assert!(core.register_schema(second, &SECOND));
        };
        assert_registered(&core, ENTRY_CATEGORY, teach, learn);
    }
}

/// A ledger that is looked at never has more written than was offered.
#[test]
fn what_is_counted_as_written_was_counted_as_offered() {
    for _ in 0..ROUNDS {
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
