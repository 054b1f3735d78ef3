//! Record A, which several benches push: their figures are of the same bytes.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::hint::black_box;

use stormlog::record::{ShortText, Symbol};
use stormlog::{Log, Outcome};

stormlog::record! {
    /// Record A.
    pub struct RecordA in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

#[inline(always)]
pub fn record_a(number: u64) -> RecordA<'static> {
    RecordA {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        value: number as f64,
        ok: true,
    }
}

#[inline(always)]
pub fn push_a(log: &Log, number: u64) -> Outcome {
    log.push(&record_a(number))
}
