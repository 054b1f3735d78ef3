//! The data bytes of a ring, as both sides see them.
//!
//! Under loom every access is also recorded in a grid of loom cells, so that the model finds two
//! sides that touch the same bytes without an order between them.
#![expect(
    unsafe_code,
    reason = "slices over memory that two threads share by protocol"
)]

use crate::sys::prefetch;

/// The data area of one ring: `capacity` bytes, a power of two.
#[derive(Debug)]
pub(crate) struct Buffer {
    data: *mut u8,
    /// Capacity minus one.
    mask: u64,
    grid: grid::Grid,
}

impl Buffer {
    /// # Safety
    /// - `data` points to `capacity` initialised bytes, aligned to 8, that stay mapped as long as
    ///   the buffer is used, and are accessed through buffers of this ring only;
    /// - `capacity` is a power of two.
    pub(crate) unsafe fn new(data: *mut u8, capacity: u64) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self {
            data,
            mask: capacity - 1,
            grid: grid::Grid::new(capacity),
        }
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Offset of a position.
    #[inline(always)]
    pub(crate) fn offset(&self, position: u64) -> usize {
        (position & self.mask) as usize
    }

    /// Bytes from a position to the end of the buffer.
    #[inline(always)]
    pub(crate) fn lap_left(&self, position: u64) -> usize {
        self.capacity() as usize - self.offset(position)
    }

    /// Asks for the cache line at a position, which the producer will come to.
    #[inline(always)]
    pub(crate) fn expect_write(&self, position: u64) {
        prefetch::write(self.data.wrapping_add(self.offset(position)));
    }

    /// The bytes at a position, to be written.
    ///
    /// # Safety
    /// - `len <= lap_left(position)`;
    /// - the caller is the producer, and `[position, position + len)` lies in
    ///   `[write_pos, read_pos + capacity)`: nobody else looks at these bytes until it commits.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "the bytes belong to the caller, see Safety"
    )]
    pub(crate) unsafe fn slice_mut(&self, position: u64, len: usize) -> &mut [u8] {
        debug_assert!(len <= self.lap_left(position));
        self.grid.written(self.offset(position), len);
        // SAFETY: `offset + len <= capacity` (first requirement), so the pointer stays inside.
        let start = unsafe { self.data.add(self.offset(position)) };
        // SAFETY: initialised bytes inside the buffer; exclusive by the second requirement.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// The bytes at a position, to be read.
    ///
    /// # Safety
    /// - `len <= lap_left(position)`;
    /// - the caller is the consumer and `[position, position + len)` lies in
    ///   `[read_pos, write_pos)`: the producer does not touch these bytes until they are freed.
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, position: u64, len: usize) -> &[u8] {
        debug_assert!(len <= self.lap_left(position));
        self.grid.read(self.offset(position), len);
        // SAFETY: `offset + len <= capacity` (first requirement), so the pointer stays inside.
        let start = unsafe { self.data.add(self.offset(position)) };
        // SAFETY: initialised bytes inside the buffer; not written to by the second requirement.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

#[cfg(not(loom))]
mod grid {
    /// Nothing to record outside of models.
    #[derive(Debug)]
    pub(super) struct Grid;

    impl Grid {
        pub(super) fn new(_capacity: u64) -> Self {
            Self
        }
        #[inline(always)]
        #[expect(clippy::unused_self, reason = "same interface as under loom")]
        pub(super) fn written(&self, _offset: usize, _len: usize) {}
        #[inline(always)]
        #[expect(clippy::unused_self, reason = "same interface as under loom")]
        pub(super) fn read(&self, _offset: usize, _len: usize) {}
    }
}

#[cfg(loom)]
mod grid {
    use loom::cell::UnsafeCell;

    /// Bytes per cell: what records are aligned to, so that two records never share one.
    const CELL_BYTES: usize = crate::record::RECORD_ALIGN;

    /// One loom cell per 4 bytes.
    #[derive(Debug)]
    pub(super) struct Grid(Vec<UnsafeCell<()>>);

    impl Grid {
        pub(super) fn new(capacity: u64) -> Self {
            let cells = (capacity as usize).div_ceil(CELL_BYTES);
            Self((0..cells).map(|_| UnsafeCell::new(())).collect())
        }
        pub(super) fn written(&self, offset: usize, len: usize) {
            self.cells(offset, len)
                .for_each(|cell| cell.with_mut(|_| ()));
        }
        pub(super) fn read(&self, offset: usize, len: usize) {
            self.cells(offset, len).for_each(|cell| cell.with(|_| ()));
        }
        fn cells(&self, offset: usize, len: usize) -> impl Iterator<Item = &UnsafeCell<()>> {
            self.0[offset / CELL_BYTES..(offset + len).div_ceil(CELL_BYTES)].iter()
        }
    }
}
