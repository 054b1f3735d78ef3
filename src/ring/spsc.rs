//! Per-thread byte ring: one producer thread, one consumer (the writer).
//!
//! ```text
//!              read_pos        write_pos
//!                 v                v
//!   [.............################.............]      # committed   . free
//! ```
//!
//! Invariants
//! 1. `read_pos <= write_pos <= read_pos + capacity`; both only grow (u64: no wrap in 500 years).
//! 2. Bytes in `[read_pos, write_pos)` are committed records; the producer never touches them.
//! 3. Bytes in `[write_pos, read_pos + capacity)` belong to the producer; nobody else looks.
//! 4. A record never crosses the end of the buffer: one padding record fills the rest.
//! 5. Positions and record lengths are multiples of 4.
//!
//! Ordering
//! | field     | written by | read by  | store   | load    | publishes              |
//! |-----------|------------|----------|---------|---------|------------------------|
//! | write_pos | producer   | consumer | Release | Acquire | record bytes           |
//! | read_pos  | consumer   | producer | Release | Acquire | freedom to overwrite   |
#![expect(unsafe_code, reason = "claims bytes of the ring by the protocol above")]

use std::cell::Cell;

use super::buffer::Buffer;
use super::header::{RingHeader, state};
use crate::record::{INLINE_BYTES_MAX, KeepClass, RECORD_ALIGN, SCHEMA_PADDING};
use crate::sync::Ordering::Relaxed;
use crate::sync::order;
use crate::wake::wakes_at;

/// The producer's view of a ring. Used by one thread at a time; the fields are its own.
pub(crate) struct ProducerSide {
    /// Where the next record starts. Equal to `header.write_pos`, but for padding that was
    /// written and is published with the record behind it.
    write_pos: Cell<u64>,
    /// Up to where a record may be written without looking further: at most the end of the
    /// buffer's lap, the headroom line as of the last look at `read_pos`, and the next place
    /// where `extend` wants to see whether the writer sleeps.
    limit: Cell<u64>,
    /// Longest record that goes into this ring; longer ones take the large path.
    inline_bytes_max: Cell<usize>,
}

/// A place in the ring that the producer may fill and then commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position of its first byte.
    pub(crate) position: u64,
    /// Its length.
    pub(crate) bytes: usize,
}

/// The ring has no room for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The two sides' common view of one ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring<'a> {
    pub(crate) header: &'a RingHeader,
    pub(crate) buffer: &'a Buffer,
}

impl Ring<'_> {
    /// Owner: leaves the ring to the writer, which drains what is left in it.
    pub(crate) fn give_up(self) {
        // Release: pairs with the Acquire in `is_given_up`; the last commit comes before.
        self.header.state.store(state::EXITED, order::store_state());
        fail_point!("ring.given_up");
    }

    /// Writer: whether the owner has left. What `committed` says after this is final.
    pub(crate) fn is_given_up(self) -> bool {
        // Acquire: pairs with the Release in `give_up`.
        self.header.state.load(order::load_state()) == state::EXITED
    }
}

impl ProducerSide {
    pub(crate) fn new() -> Self {
        Self {
            write_pos: Cell::new(0),
            limit: Cell::new(0),
            inline_bytes_max: Cell::new(0),
        }
    }

    /// Takes the ring over, which nobody else produces into any more.
    pub(crate) fn take(&self, ring: Ring<'_>) {
        // Relaxed: the former owner's last store reached us through the pool that handed us the
        // ring, or we are the first owner. Its own position is behind that, if it has left padding,
        // or the page of the header was lost.
        let published = ring.header.write_pos.load(Relaxed);
        let write_pos = self.write_pos.get().max(published);
        self.write_pos.set(write_pos);
        self.limit.set(write_pos);
        self.inline_bytes_max
            .set(INLINE_BYTES_MAX.min(ring.buffer.capacity() as usize / 4));
    }

    /// Bytes in the ring that the writer has not freed, as far as it has told.
    pub(crate) fn used(&self, ring: Ring<'_>) -> u64 {
        // Relaxed: a measure; nothing is written on the strength of it.
        self.write_pos.get() - ring.header.read_pos.load(Relaxed)
    }

    /// Longest record for this ring.
    #[inline(always)]
    pub(crate) fn inline_bytes_max(&self) -> usize {
        self.inline_bytes_max.get()
    }

    /// Claims room for a record of `bytes` bytes (a multiple of 4, at most `inline_bytes_max`).
    /// Nothing is visible to the consumer until [`commit`](Self::commit). `wake` is called when
    /// the ring fills while the writer may sleep.
    #[inline(always)]
    pub(crate) fn reserve(
        &self,
        ring: Ring<'_>,
        bytes: usize,
        keep: KeepClass,
        wake: impl FnOnce(),
    ) -> Result<Place, Full> {
        debug_assert!(bytes.is_multiple_of(RECORD_ALIGN));
        debug_assert!(bytes <= self.inline_bytes_max());
        match self.reserve_quick(bytes) {
            Some(place) => Ok(place),
            None => self.extend(ring, bytes, keep, wake),
        }
    }

    /// The quick half of `reserve`: room up to the limit, if there is as much.
    #[inline(always)]
    pub(crate) fn reserve_quick(&self, bytes: usize) -> Option<Place> {
        debug_assert!(bytes.is_multiple_of(RECORD_ALIGN));
        debug_assert!(bytes <= self.inline_bytes_max());
        let position = self.write_pos.get();
        (position + bytes as u64 <= self.limit.get()).then_some(Place { position, bytes })
    }

    /// The slow half of `reserve`: looks at `read_pos`, turns the lap, raises the limit.
    #[cold]
    #[inline(never)]
    fn extend(
        &self,
        ring: Ring<'_>,
        bytes: usize,
        keep: KeepClass,
        wake: impl FnOnce(),
    ) -> Result<Place, Full> {
        let capacity = ring.buffer.capacity();
        // Acquire: pairs with the Release in `Consumer::free`; the bytes up to
        // `read_pos + capacity` are ours.
        let read_pos = ring.header.read_pos.load(order::load_read_pos());
        let start = self.write_pos.get();
        let lap_left = ring.buffer.lap_left(start);
        let padding = if bytes <= lap_left { 0 } else { lap_left };
        let end = start + (padding + bytes) as u64;
        let used = start - read_pos;
        if used >= wakes_at(capacity) {
            wake();
        }
        let room = match keep {
            KeepClass::Always => capacity,
            KeepClass::Sampled => capacity - headroom(capacity),
        };
        if end > read_pos + room {
            return Err(Full);
        }
        if padding > 0 {
            pad(ring, start, padding);
            fail_point!("ring.padded");
        }
        let position = start + padding as u64;
        let lap_end = position + ring.buffer.lap_left(position) as u64;
        let line = read_pos + capacity - headroom(capacity);
        // The next look comes soon enough for a sleeping writer to hear of a burst while most of
        // the ring is still free.
        let next_look = position + bytes as u64 + wakes_at(capacity);
        self.write_pos.set(position);
        self.limit.set(lap_end.min(line).min(next_look));
        Ok(Place { position, bytes })
    }

    /// The bytes of a reserved place.
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "only the producer has places")]
    pub(crate) fn bytes<'a>(&self, ring: Ring<'a>, place: Place) -> &'a mut [u8] {
        // SAFETY: `reserve` made the place: it does not cross the end of the buffer and lies in
        // `[write_pos, read_pos + capacity)` (invariants 3 and 4) until it is committed.
        unsafe { ring.buffer.slice_mut(place.position, place.bytes) }
    }

    /// Makes a filled place, and padding before it, visible to the consumer.
    #[inline(always)]
    pub(crate) fn commit(&self, ring: Ring<'_>, place: Place) {
        let next = place.position + place.bytes as u64;
        self.write_pos.set(next);
        // Release: pairs with the Acquire in `Consumer::committed`; publishes the record.
        ring.header.write_pos.store(next, order::store_write_pos());
        // The writer has read these lines: they are in its cache until we ask for them back.
        ring.buffer.expect_write(next + AHEAD_BYTES);
    }
}

/// How far ahead of its position the producer asks for cache lines.
const AHEAD_BYTES: u64 = 512;

/// Fills the rest of the lap, 4 bytes at least.
fn pad(ring: Ring<'_>, position: u64, bytes: usize) {
    debug_assert!((RECORD_ALIGN..=INLINE_BYTES_MAX).contains(&bytes));
    let words = (bytes / RECORD_ALIGN) as u32;
    // SAFETY:
    // - 4 <= bytes = lap_left(position).
    // - we are the producer and `position` is our unpublished write position, below
    //   `read_pos + capacity` because `extend` has checked the place behind it.
    let place = unsafe { ring.buffer.slice_mut(position, RECORD_ALIGN) };
    place.copy_from_slice(&(words | u32::from(SCHEMA_PADDING) << 16).to_le_bytes());
}

/// Bytes that only `Always` records may use.
pub(crate) const fn headroom(capacity: u64) -> u64 {
    capacity / 4
}

/// The consumer's view of a ring. Used by the writer thread only.
#[derive(Debug)]
pub(crate) struct Consumer {
    /// Equal to `header.read_pos`, which only the writer stores.
    read_pos: u64,
}

impl Consumer {
    pub(crate) fn new() -> Self {
        Self { read_pos: 0 }
    }

    /// Position of the next byte to be drained.
    pub(crate) fn read_pos(&self) -> u64 {
        self.read_pos
    }

    /// Up to where records are committed now.
    #[inline]
    pub(crate) fn committed(&self, ring: Ring<'_>) -> u64 {
        // Acquire: pairs with the Release in `ProducerSide::commit`. It is less when the page of
        // the header was lost, until the next commit.
        let committed = ring.header.write_pos.load(order::load_write_pos());
        committed.max(self.read_pos)
    }

    /// Committed bytes from `read_pos` on, as far as they lie in one piece. `end` is what
    /// [`committed`](Self::committed) said.
    pub(crate) fn run<'a>(&self, ring: Ring<'a>, end: u64) -> &'a [u8] {
        let bytes = (end - self.read_pos).min(ring.buffer.lap_left(self.read_pos) as u64) as usize;
        // SAFETY: `bytes` does not cross the end of the buffer, and `[read_pos, end)` was
        // committed (invariant 2) and not freed: only `free` does that, through `&mut self`,
        // and the caller copies the run before it frees it.
        unsafe { ring.buffer.slice(self.read_pos, bytes) }
    }

    /// Stores its position again: the page of the header was lost.
    pub(crate) fn mend(&self, ring: Ring<'_>) {
        // Release: as in `free`.
        ring.header
            .read_pos
            .store(self.read_pos, order::store_read_pos());
    }

    /// Gives the bytes before `position` back to the producer.
    pub(crate) fn free(&mut self, ring: Ring<'_>, position: u64) {
        debug_assert!(position >= self.read_pos);
        self.read_pos = position;
        // Release: pairs with the Acquire in `ProducerSide::extend`; our reads come before.
        ring.header
            .read_pos
            .store(position, order::store_read_pos());
    }
}
