//! Loom models of the protocols between producers, writer and closer.
//!
//! Each model is run as it is, where it must explore a minimum of interleavings and pass, and once
//! for every memory order it depends on, weakened, where it must fail. Both sides of each model
//! are spawned threads: loom 0.7 explores too little when one of them is the main thread.
//!
//! Loom does not know mapped memory, membarrier or padding bytes; it sees the data of a ring as a
//! grid of cells (see `buffer`). The fence that membarrier causes on another thread is modelled as
//! a fence of that thread (see `sync::barrier`).
#![expect(unsafe_code, reason = "models share memory as the real rings do")]

use std::sync::atomic::AtomicUsize as StdUsize;
use std::sync::atomic::Ordering::Relaxed as StdRelaxed;
use std::sync::{Mutex, PoisonError};

use loom::sync::Arc;
use loom::thread;

use super::buffer::Buffer;
use super::busy::{BusyFlag, BusyGuard, Refused};
use super::header::RingHeader;
use super::spsc::{Consumer, Full, ProducerSide, Ring};
use crate::record::{HEADER_BYTES, KeepClass, SCHEMA_PADDING};
use crate::sync::WEAKENED;

/// Bytes of the model's ring: the longest record is a quarter of it.
pub(super) const CAPACITY: u64 = 128;
/// Two of these leave 72 bytes, four leave a rest that has to be padded.
pub(super) const RECORD_BYTES: usize = 28;

/// Models share the weakened order, so they run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Preemptions that are enough to find every defect that the models look for, and few enough to
/// run in seconds. `LOOM_MAX_PREEMPTIONS` overrides it.
pub(super) const PREEMPTIONS: usize = 3;

/// Runs a model, and then once for each order in `weaker`, where it must fail.
pub(crate) fn check(iterations_min: usize, weaker: &[&str], model: fn()) {
    explore(Some(PREEMPTIONS), &[], iterations_min, weaker, model);
}

/// As `check`, with preemptions wherever they can be, and without the barriers in `absent`.
pub(super) fn explore(
    preemptions: Option<usize>,
    absent: &[&str],
    iterations_min: usize,
    weaker: &[&str],
    model: fn(),
) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let weaken = |name: Option<&str>| {
        let names = absent.iter().copied().chain(name);
        let mut weakened = WEAKENED.lock().unwrap_or_else(PoisonError::into_inner);
        *weakened = names.map(str::to_owned).collect();
    };
    let builder = || {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(preemptions);
        builder
    };
    weaken(None);
    let iterations = std::sync::Arc::new(StdUsize::new(0));
    let count = std::sync::Arc::clone(&iterations);
    builder().check(move || {
        count.fetch_add(1, StdRelaxed);
        model();
    });
    let iterations = iterations.load(StdRelaxed);
    println!("{iterations} interleavings");
    assert!(
        iterations >= iterations_min,
        "{iterations} interleavings only"
    );
    for name in weaker {
        weaken(Some(name));
        let result = std::panic::catch_unwind(|| builder().check(model));
        weaken(None);
        assert!(result.is_err(), "the model does not notice a weaker {name}");
    }
    WEAKENED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

/// A ring with both its sides' state.
pub(super) struct Model {
    header: RingHeader,
    buffer: Buffer,
    pub(super) side: ProducerSide,
    pub(super) busy: BusyFlag,
    /// Keeps the bytes of `buffer`.
    _data: Vec<u64>,
}

// SAFETY: the data pointer leads into `_data`; accesses follow the protocol under test, and loom
// reports two of them that are not ordered. `side` is used by the producer thread only.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Model {
    pub(super) fn new() -> Arc<Self> {
        Self::of(CAPACITY)
    }

    fn of(capacity: u64) -> Arc<Self> {
        let mut data = vec![0_u64; capacity as usize / 8];
        // SAFETY: `capacity` bytes, a power of two, that live as long as the model.
        let buffer = unsafe { Buffer::new(data.as_mut_ptr().cast(), capacity) };
        let header = RingHeader::for_model(capacity);
        let model = Self {
            header,
            buffer,
            side: ProducerSide::new(),
            busy: BusyFlag::new(),
            _data: data,
        };
        model.side.take(model.ring());
        Arc::new(model)
    }

    pub(super) fn ring(&self) -> Ring<'_> {
        Ring {
            header: &self.header,
            buffer: &self.buffer,
        }
    }

    /// Begins a push as a producer does: the quick path first.
    pub(super) fn enter(&self, wake: impl FnOnce()) -> Result<BusyGuard<'_>, Refused> {
        let quick = self.busy.enter_quick();
        quick.map_or_else(|| self.busy.enter(wake), Ok)
    }

    /// Pushes a record that holds `number`.
    pub(super) fn push(&self, number: u32) -> Result<(), Full> {
        self.push_as(number, KeepClass::Always)
    }

    /// As `push`, for a record of this keep class.
    pub(super) fn push_as(&self, number: u32, keep: KeepClass) -> Result<(), Full> {
        let place = self.side.reserve(self.ring(), RECORD_BYTES, keep, || ())?;
        write(self.side.bytes(self.ring(), place), number);
        self.side.commit(self.ring(), place);
        Ok(())
    }

    /// Drains what is committed and checks that the numbers go on from `next`.
    pub(super) fn drain(&self, consumer: &mut Consumer, next: &mut u32) {
        let end = consumer.committed(self.ring());
        self.drain_to(consumer, end, next);
    }

    /// Drains up to `end`, which is committed.
    pub(super) fn drain_to(&self, consumer: &mut Consumer, end: u64, next: &mut u32) {
        while consumer.read_pos() < end {
            let run = consumer.run(self.ring(), end);
            check_numbers(run, next);
            let position = consumer.read_pos() + run.len() as u64;
            consumer.free(self.ring(), position);
        }
    }
}

/// Writes a record that holds `number`.
pub(super) fn write(bytes: &mut [u8], number: u32) {
    bytes.fill(0);
    bytes[0] = (RECORD_BYTES / 4) as u8;
    bytes[2] = 1;
    bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&number.to_le_bytes());
}

/// Checks that the numbers of the records in `run` go on from `next`.
pub(super) fn check_numbers(run: &[u8], next: &mut u32) {
    let mut at = 0;
    while at < run.len() {
        let words = usize::from(u16::from_le_bytes([run[at], run[at + 1]]));
        let schema = u16::from_le_bytes([run[at + 2], run[at + 3]]);
        assert!(words > 0, "a torn record");
        if schema != SCHEMA_PADDING {
            let number = &run[at + HEADER_BYTES..at + HEADER_BYTES + 4];
            assert_eq!(number, next.to_le_bytes(), "lost, torn or out of order");
            *next += 1;
        }
        at += words * 4;
    }
}

/// Every committed record is drained once, whole and in order, through a full ring and a lap that
/// ends with padding; the ring starts with two records in it.
#[test]
fn loom_ring() {
    let orders = [
        "store_write_pos",
        "load_write_pos",
        "store_read_pos",
        "load_read_pos",
    ];
    check(100, &orders, || {
        const PUSHES: u32 = 5;
        let model = Model::new();
        model.push(0).unwrap();
        model.push(1).unwrap();
        let producer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let mut pushed = 2;
                for _ in 2..PUSHES {
                    match model.push(pushed) {
                        Ok(()) => pushed += 1,
                        Err(Full) => thread::yield_now(),
                    }
                }
                pushed
            }
        });
        let writer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let (mut consumer, mut next) = (Consumer::new(), 0);
                for _ in 0..2 {
                    model.drain(&mut consumer, &mut next);
                }
                (consumer, next)
            }
        });
        let pushed = producer.join().unwrap();
        let (mut consumer, mut next) = writer.join().unwrap();
        model.drain(&mut consumer, &mut next);
        assert_eq!(next, pushed);
    });
}

/// The same in a ring of two records, with three pushes and three looks of the writer, in every
/// interleaving that loom can make: no bound on preemptions.
#[test]
fn loom_two_slots() {
    let orders = [
        "store_write_pos",
        "load_write_pos",
        "store_read_pos",
        "load_read_pos",
    ];
    explore(None, &[], 1000, &orders, || {
        // Two records and 8 bytes that the third one has to pad.
        let model = Model::of(64);
        let producer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let mut pushed = 0;
                for _ in 0..3 {
                    pushed += u32::from(model.push(pushed).is_ok());
                }
                pushed
            }
        });
        let writer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let (mut consumer, mut next) = (Consumer::new(), 0);
                for _ in 0..3 {
                    model.drain(&mut consumer, &mut next);
                }
                (consumer, next)
            }
        });
        let pushed = producer.join().unwrap();
        assert!(pushed >= 2, "there is room for two");
        let (mut consumer, mut next) = writer.join().unwrap();
        model.drain(&mut consumer, &mut next);
        assert_eq!(next, pushed);
    });
}

/// A thread that ends while the writer drains: when the writer has seen the end, what it drains
/// after that is everything.
#[test]
fn loom_thread_exit() {
    check(10, &["store_state", "load_state"], || {
        let model = Model::new();
        let producer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                model.push(0).unwrap();
                model.push(1).unwrap();
                model.ring().give_up();
            }
        });
        let writer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let (mut consumer, mut next) = (Consumer::new(), 0);
                for _ in 0..2 {
                    let given_up = model.ring().is_given_up();
                    model.drain(&mut consumer, &mut next);
                    assert!(
                        !given_up || next == 2,
                        "the ring went back with records in it"
                    );
                }
            }
        });
        producer.join().unwrap();
        writer.join().unwrap();
    });
}
