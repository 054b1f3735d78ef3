//! Loom models of overload: the headroom of a ring, the spill beside it and the stack under it.
//! What `models` says of models holds here too.
#![expect(unsafe_code, reason = "models share memory as the real spill does")]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::models::{CAPACITY, Model, RECORD_BYTES, check, check_numbers, write};
use super::registry::Memory;
use super::spill::{Origin, SLOT_BYTES, Spill, SpillReader};
use super::spsc::{Consumer, Full, headroom};
use super::stack::IndexStack;
use super::used::Used;
use crate::record::KeepClass;
use crate::sync::weakened;
use crate::wake::Wake;

/// At the line of the headroom a normal record is refused and an `Always` one accepted, while the
/// writer moves the line.
#[test]
fn loom_headroom() {
    check(20, &["store_read_pos", "load_read_pos"], || {
        // 84 of the 96 bytes in front of the headroom.
        const FULL: u32 = 3;
        let model = Model::new();
        for number in 0..FULL {
            model.push_as(number, KeepClass::Sampled).unwrap();
        }
        assert!((CAPACITY - headroom(CAPACITY)) as usize - 3 * RECORD_BYTES < RECORD_BYTES);
        let producer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let mut pushed = FULL;
                let refused = model.push_as(pushed, KeepClass::Sampled) == Err(Full);
                let kept = model.push_as(pushed + u32::from(!refused), KeepClass::Always);
                assert!(!refused || kept.is_ok(), "the headroom is not there");
                pushed += u32::from(!refused) + u32::from(kept.is_ok());
                // On into the next lap, over what the writer has freed.
                if model.push_as(pushed, KeepClass::Always).is_ok() {
                    pushed += 1;
                }
                (pushed, refused)
            }
        });
        let writer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                let (mut consumer, mut next) = (Consumer::new(), 0);
                model.drain(&mut consumer, &mut next);
                (consumer, next)
            }
        });
        let (pushed, _) = producer.join().unwrap();
        let (mut consumer, mut next) = writer.join().unwrap();
        model.drain(&mut consumer, &mut next);
        assert_eq!(next, pushed);
    });
}

/// Two threads take numbers from a stack and put them back: nobody holds one that another holds.
#[test]
fn loom_stack() {
    check(100, &["store_head", "load_head", "load_moved_head"], || {
        let stack = Arc::new(IndexStack::new(2));
        let held: Arc<Vec<UnsafeCell<u32>>> =
            Arc::new((0..2).map(|_| UnsafeCell::new(0)).collect());
        stack.push(0);
        stack.push(1);
        let worker = || {
            let (stack, held) = (Arc::clone(&stack), Arc::clone(&held));
            thread::spawn(move || {
                for _ in 0..2 {
                    if let Some(index) = stack.pop() {
                        // loom notices two owners, and one that does not see the former's work.
                        held[index as usize].with_mut(|_| ());
                        stack.push(index);
                    }
                }
            })
        };
        let (a, b) = (worker(), worker());
        a.join().unwrap();
        b.join().unwrap();
        assert!(stack.pop().is_some() && stack.pop().is_some() && stack.pop().is_none());
    });
}

/// A spill with the words that hold it.
struct SpillModel {
    spill: Spill,
    _words: Vec<u64>,
}

// SAFETY: the memory leads into `_words`; accesses follow the protocol under test, and loom
// reports two of them that are not ordered.
unsafe impl Send for SpillModel {}
// SAFETY: as above.
unsafe impl Sync for SpillModel {}

impl SpillModel {
    fn new(slots: usize) -> Arc<Self> {
        let mut words = vec![0_u64; slots * SLOT_BYTES / 8];
        // SAFETY: the words live as long as the model and are used through the spill only.
        let memory = unsafe { Memory::new(words.as_mut_ptr().cast(), words.len() * 8) };
        let spill = Spill::new(memory);
        Arc::new(Self {
            spill,
            _words: words,
        })
    }

    /// Spills a record; false when there is no slot.
    fn put(&self, origin: Origin, number: u32) -> bool {
        let Some(mut slot) = self.spill.take() else {
            return false;
        };
        write(&mut slot.record()[..RECORD_BYTES], number);
        slot.commit(origin, RECORD_BYTES);
        true
    }
}

/// A pass of the writer over one ring and its spilled records, as `writer::drain` makes it.
fn pass(
    model: &Model,
    spill: &Spill,
    consumer: &mut Consumer,
    reader: &mut SpillReader,
    next: &mut u32,
) {
    let collect = |reader: &mut SpillReader| {
        assert_eq!(reader.collect(spill), 0, "a slot without its commit word");
    };
    if weakened("write_pos_first") {
        collect(reader);
    }
    let end = consumer.committed(model.ring());
    if !weakened("write_pos_first") {
        collect(reader);
    }
    loop {
        let position = consumer.read_pos();
        let mut batch = Vec::new();
        let records = reader.copy(spill, 1, position, usize::MAX, &mut batch);
        check_numbers(&batch, next);
        reader.free(spill, 1, position, records);
        if position >= end {
            return;
        }
        let until = reader.next(1).map_or(end, |spilled| spilled.min(end));
        model.drain_to(consumer, until, next);
    }
}

/// A thread whose ring is full spills, and goes on in the ring as soon as there is room: every
/// record is drained once and in the order of the thread.
#[test]
fn loom_spill() {
    let orders = [
        "store_write_pos",
        "load_write_pos",
        "store_read_pos",
        "load_read_pos",
        "store_head",
        "load_head",
        "write_pos_first",
    ];
    check(100, &orders, || {
        let (model, spill) = (Model::new(), SpillModel::new(1));
        // The ring is full but for one record.
        for number in 0..3 {
            model.push_as(number, KeepClass::Always).unwrap();
        }
        let producer = thread::spawn({
            let (model, spill) = (Arc::clone(&model), Arc::clone(&spill));
            move || {
                let mut pushed = 3;
                for _ in 0..4 {
                    let kept = model.push_as(pushed, KeepClass::Always).is_ok()
                        || spill.put(Origin::of(model.ring(), 1), pushed);
                    pushed += u32::from(kept);
                }
                pushed
            }
        });
        let writer = thread::spawn({
            let (model, spill) = (Arc::clone(&model), Arc::clone(&spill));
            move || {
                let (mut consumer, mut reader) = (Consumer::new(), SpillReader::default());
                let mut next = 0;
                for _ in 0..2 {
                    pass(&model, &spill.spill, &mut consumer, &mut reader, &mut next);
                }
                (consumer, reader, next)
            }
        });
        let pushed = producer.join().unwrap();
        let (mut consumer, mut reader, mut next) = writer.join().unwrap();
        pass(&model, &spill.spill, &mut consumer, &mut reader, &mut next);
        assert_eq!(next, pushed, "lost or twice");
        assert!(reader.is_empty());
    });
}

/// A thread without a ring spills while the writer lies down: the writer sees the slot, or is
/// woken.
#[test]
fn loom_doze_spill() {
    check(10, &["fence_spilled", "heavy"], || {
        let (spill, wake) = (SpillModel::new(1), Arc::new(Wake::default()));
        let producer = thread::spawn({
            let (spill, wake) = (Arc::clone(&spill), Arc::clone(&wake));
            move || {
                assert!(spill.put(Origin::NO_RING, 0));
                wake.wake_if_parked();
            }
        });
        let writer = thread::spawn({
            let (spill, wake) = (Arc::clone(&spill), Arc::clone(&wake));
            move || {
                wake.set_dozing(true);
                Used::new().ask_each(|_| ());
                !spill.spill.has_committed()
            }
        });
        producer.join().unwrap();
        if writer.join().unwrap() {
            assert_eq!(
                wake.wakes(),
                1,
                "the writer sleeps with a record in the spill"
            );
        }
    });
}

/// Recovery takes a slot for whole when its commit word is there: nothing else orders its reads.
#[test]
fn loom_spill_commit_word() {
    let orders = ["store_spill_commit", "load_spill_commit"];
    check(5, &orders, || {
        let spill = SpillModel::new(1);
        let producer = thread::spawn({
            let spill = Arc::clone(&spill);
            move || assert!(spill.put(Origin::NO_RING, 7))
        });
        let finder = thread::spawn({
            let spill = Arc::clone(&spill);
            move || {
                if let Some(record) = spill.spill.find(0) {
                    let mut next = 7;
                    check_numbers(&record, &mut next);
                    assert_eq!(next, 8);
                }
            }
        });
        producer.join().unwrap();
        finder.join().unwrap();
        assert!(spill.spill.find(0).is_some());
    });
}

/// Two threads without a ring share the slots: none is held twice, and each record is drained once.
#[test]
fn loom_spill_shared() {
    check(100, &["store_head", "load_head"], || {
        let spill = SpillModel::new(2);
        let producer = |number| {
            let spill = Arc::clone(&spill);
            thread::spawn(move || u32::from(spill.put(Origin::NO_RING, number)))
        };
        let (a, b) = (producer(0), producer(0));
        let writer = thread::spawn({
            let spill = Arc::clone(&spill);
            move || {
                let mut reader = SpillReader::default();
                reader.collect(&spill.spill);
                let drained = drain_shared(&spill.spill, &mut reader);
                (reader, drained)
            }
        });
        let put = a.join().unwrap() + b.join().unwrap();
        let (mut reader, drained) = writer.join().unwrap();
        assert_eq!(reader.collect(&spill.spill), 0);
        assert_eq!(drained + drain_shared(&spill.spill, &mut reader), put);
        assert_eq!(put, 2, "a slot was not there for its taker");
    });
}

fn drain_shared(spill: &Spill, reader: &mut SpillReader) -> u32 {
    let mut batch = Vec::new();
    let records = reader.copy(spill, super::spill::NO_RING, 0, usize::MAX, &mut batch);
    for record in batch.chunks(RECORD_BYTES) {
        check_numbers(record, &mut 0);
    }
    reader.free(spill, super::spill::NO_RING, 0, records);
    records as u32
}
