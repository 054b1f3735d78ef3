//! The ring against a model: a queue of records and two positions.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::buffer::Buffer;
use super::header::RingHeader;
use super::spsc::{Consumer, ProducerSide, Ring, headroom};
use crate::record::{HEADER_BYTES, KeepClass, SCHEMA_PADDING};

const CAPACITY: u64 = 256;

#[derive(Clone, Debug)]
enum Op {
    Push {
        words: usize,
        always: bool,
    },
    /// Drain one run.
    Drain,
    /// Reserve and give up, as a panic between reserve and commit would.
    Abandon {
        words: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let words = 4..=(CAPACITY as usize / 16);
    let op = prop_oneof![
        4 => (words.clone(), any::<bool>()).prop_map(|(words, always)| Op::Push { words, always }),
        2 => Just(Op::Drain),
        1 => words.prop_map(|words| Op::Abandon { words }),
    ];
    prop::collection::vec(op, 1..200)
}

/// What the ring must hold: numbers and lengths of records, and how many bytes they take.
#[derive(Default)]
struct Model {
    records: VecDeque<(u32, usize)>,
    write_pos: u64,
    read_pos: u64,
}

impl Model {
    /// Where a record of `bytes` bytes goes; `None` when it does not fit.
    fn place(&self, bytes: usize, always: bool) -> Option<u64> {
        let lap_left = CAPACITY - self.write_pos % CAPACITY;
        let padding = if bytes as u64 <= lap_left {
            0
        } else {
            lap_left
        };
        let room = if always {
            CAPACITY
        } else {
            CAPACITY - headroom(CAPACITY)
        };
        let start = self.write_pos + padding;
        (start + bytes as u64 <= self.read_pos + room).then_some(start)
    }
}

fn keep(always: bool) -> KeepClass {
    if always {
        KeepClass::Always
    } else {
        KeepClass::Sampled
    }
}

fn fill(bytes: &mut [u8], number: u32) {
    bytes.fill(number as u8);
    let words = (bytes.len() / 4) as u16;
    bytes[..2].copy_from_slice(&words.to_le_bytes());
    bytes[2..4].copy_from_slice(&1_u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
}

/// Takes one run out of the ring and the same records out of the model.
fn drain(ring: Ring<'_>, consumer: &mut Consumer, model: &mut Model) {
    let end = consumer.committed(ring);
    assert_eq!(end, model.write_pos);
    let run = consumer.run(ring, end);
    let mut at = 0;
    while at < run.len() {
        let words = u16::from_le_bytes([run[at], run[at + 1]]) as usize;
        let schema = u16::from_le_bytes([run[at + 2], run[at + 3]]);
        if schema != SCHEMA_PADDING {
            let (number, bytes) = model
                .records
                .pop_front()
                .expect("a record that nobody pushed");
            assert_eq!(words * 4, bytes);
            let mut expected = vec![0; bytes];
            fill(&mut expected, number);
            assert_eq!(run[at..at + bytes], expected);
        }
        at += words * 4;
    }
    assert_eq!(at, run.len(), "a record crosses the end of the run");
    let position = consumer.read_pos() + run.len() as u64;
    consumer.free(ring, position);
    model.read_pos = position;
}

/// A ring of `capacity` bytes with its two sides.
fn with_ring<T>(
    capacity: u64,
    test: impl FnOnce(Ring<'_>, &ProducerSide, &mut Consumer) -> T,
) -> T {
    let mut data = vec![0_u64; capacity as usize / 8];
    // SAFETY: `capacity` bytes, a power of two, that outlive the buffer.
    #[expect(unsafe_code, reason = "the test owns the memory of its ring")]
    let buffer = unsafe { Buffer::new(data.as_mut_ptr().cast(), capacity) };
    let header = RingHeader::for_model(capacity);
    let ring = Ring {
        header: &header,
        buffer: &buffer,
    };
    let (side, mut consumer) = (ProducerSide::new(), Consumer::new());
    side.take(ring);
    test(ring, &side, &mut consumer)
}

/// The writer hears of a burst when an eighth of the ring is full, and a quarter at the latest.
#[test]
fn a_ring_that_fills_calls_the_writer_while_most_of_it_is_free() {
    const BYTES: u64 = 4096;
    with_ring(BYTES, |ring, side, consumer| {
        for lap in 0..20 {
            let start = consumer.read_pos();
            let (mut quick, mut called_at) = (0, None);
            while called_at.is_none() {
                let position = side.used(ring);
                assert!(position <= BYTES / 4, "lap {lap}: nobody was called");
                quick += u64::from(side.reserve_quick(HEADER_BYTES).is_some());
                let wake = || called_at = Some(position);
                let place = side.reserve(ring, HEADER_BYTES, KeepClass::Sampled, wake);
                let place = place.expect("there is room");
                fill(side.bytes(ring, place), 0);
                side.commit(ring, place);
            }
            let called_at = called_at.unwrap_or_default();
            assert!(called_at >= BYTES / 8, "lap {lap}: {called_at}");
            let records = side.used(ring) / HEADER_BYTES as u64;
            assert!(quick >= records - 4, "lap {lap}: {quick} of {records}");
            let end = consumer.committed(ring);
            assert!(end > start);
            consumer.free(ring, end);
        }
    });
}

#[test]
fn a_ring_is_its_owners_until_it_is_given_up() {
    with_ring(CAPACITY, |ring, _, _| {
        assert!(!ring.is_given_up());
        ring.give_up();
        assert!(ring.is_given_up());
    });
}

/// Does the same to a ring and to its model.
fn play(
    ops: Vec<Op>,
    ring: Ring<'_>,
    side: &ProducerSide,
    consumer: &mut Consumer,
) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    for (number, op) in ops.into_iter().enumerate() {
        let number = number as u32;
        match op {
            Op::Push { words, always } => {
                let bytes = words * 4;
                let place = side.reserve(ring, bytes, keep(always), || ());
                let expected = model.place(bytes, always);
                prop_assert_eq!(place.ok().map(|place| place.position), expected);
                if let (Ok(place), Some(start)) = (place, expected) {
                    fill(side.bytes(ring, place), number);
                    side.commit(ring, place);
                    model.records.push_back((number, bytes));
                    model.write_pos = start + bytes as u64;
                }
            }
            Op::Abandon { words } => {
                // What was reserved and never committed is overwritten by the next record;
                // only padding before it stays, so the model takes the same turn of the lap.
                let bytes = words * 4;
                if let Ok(place) = side.reserve(ring, bytes, KeepClass::Sampled, || ()) {
                    side.bytes(ring, place).fill(0xee);
                    let again = side.reserve(ring, HEADER_BYTES, KeepClass::Sampled, || ());
                    prop_assert_eq!(again.map(|again| again.position), Ok(place.position));
                    if let Ok(again) = again {
                        fill(side.bytes(ring, again), number);
                        side.commit(ring, again);
                        model.records.push_back((number, HEADER_BYTES));
                        model.write_pos = place.position + HEADER_BYTES as u64;
                    }
                }
            }
            Op::Drain => drain(ring, consumer, &mut model),
        }
    }
    while model.read_pos < model.write_pos {
        drain(ring, consumer, &mut model);
    }
    prop_assert!(model.records.is_empty(), "lost: {:?}", model.records);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn ring_behaves_like_a_queue(ops in ops()) {
        with_ring(CAPACITY, |ring, side, consumer| play(ops, ring, side, consumer))?;
    }
}
