//! Probe.
use stormlog::record::{ShortText, Symbol};
stormlog::record! {
    /// Record A.
    struct RecordA in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}
#[inline(never)]
fn probe(log: &stormlog::Log, id: &str, number: u64) -> stormlog::Outcome {
    log.push(&RecordA {
        operation: stormlog::symbol!("bench_operation"),
        id,
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}
fn main() {
    let session = stormlog::Session::builder()
        .dir("/tmp/probe")
        .start()
        .unwrap();
    let log = session.log();
    let n: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let id = std::env::args().nth(2).unwrap();
    for i in 0..n {
        std::hint::black_box(probe(&log, &id, i));
    }
    std::process::exit(0);
}
