//! Chunks for records that are too long for a ring: a cold path with a budget of its own.
//!
//! A body is written into a chain of chunks; a short record in the ring refers to the first one.
//! The writer copies the chain into a large block and gives the chunks back.
#![expect(
    unsafe_code,
    reason = "slices over chunks that belong to one side at a time"
)]
#![expect(clippy::cast_ptr_alignment, reason = "chunks are aligned to 8")]

use super::stack::IndexStack;
use crate::record::ChunkSource;

/// Bytes of a chunk, with the index of the next one in front.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;
const NEXT_BYTES: usize = 8;
/// Bytes of a body in one chunk; they stand at its end.
pub(crate) const BODY_BYTES: usize = CHUNK_BYTES - NEXT_BYTES;
/// Ends a chain.
const END: u32 = u32::MAX;

/// All chunks of a session.
#[derive(Debug)]
pub(crate) struct LargeChunks {
    start: *mut u8,
    count: u32,
    /// Chunks that belong to nobody.
    free: IndexStack,
}

impl LargeChunks {
    /// # Safety
    /// `start` points to `bytes` initialised bytes, aligned to 8, that stay mapped as long as this
    /// value lives and are used through it only.
    pub(crate) unsafe fn new(start: *mut u8, bytes: usize) -> Self {
        let count = (bytes / CHUNK_BYTES) as u32;
        let free = IndexStack::new(count as usize);
        (0..count).for_each(|index| free.push(index));
        Self { start, count, free }
    }

    /// Takes a chain for a body of `bytes` bytes; `None` when there are too few chunks.
    pub(crate) fn take(&self, bytes: usize) -> Option<Chain<'_>> {
        let mut first = END;
        for _ in 0..bytes.div_ceil(BODY_BYTES).max(1) {
            let Some(index) = self.free.pop() else {
                self.give_back(first);
                return None;
            };
            self.set_next(index, first);
            first = index;
        }
        Some(Chain {
            chunks: self,
            first,
            next: first,
        })
    }

    /// Gives a chain back.
    pub(crate) fn give_back(&self, first: u32) {
        let mut index = first;
        while index < self.count {
            let next = self.next(index);
            self.free.push(index);
            index = next;
        }
    }

    /// Writer: shows the body of a chain in pieces, `bytes` bytes in all.
    pub(crate) fn read(&self, first: u32, bytes: usize, mut visit: impl FnMut(&[u8])) {
        let (mut index, mut left) = (first, bytes);
        while left > 0 && index < self.count {
            let piece = left.min(BODY_BYTES);
            visit(&self.body(index)[..piece]);
            left -= piece;
            index = self.next(index);
        }
    }

    fn chunk(&self, index: u32) -> *mut u8 {
        assert!(index < self.count);
        // SAFETY: inside the region by the assertion.
        unsafe { self.start.add(index as usize * CHUNK_BYTES) }
    }

    fn next(&self, index: u32) -> u32 {
        // SAFETY: the chunk belongs to the caller (taken from `free`, or handed over by a
        // committed record); aligned to 8.
        unsafe { self.chunk(index).cast::<u32>().read() }
    }

    fn set_next(&self, index: u32, next: u32) {
        // SAFETY: as in `next`.
        unsafe { self.chunk(index).cast::<u32>().write(next) }
    }

    fn body(&self, index: u32) -> &[u8] {
        // SAFETY: inside the chunk.
        let start = unsafe { self.chunk(index).add(NEXT_BYTES) };
        // SAFETY: initialised; the writer owns the chunk from the commit of the record that
        // refers to it until `give_back`.
        unsafe { std::slice::from_raw_parts(start, BODY_BYTES) }
    }

    #[expect(clippy::mut_from_ref, reason = "the chunk belongs to the chain")]
    fn body_mut(&self, index: u32) -> &mut [u8] {
        // SAFETY: inside the chunk.
        let start = unsafe { self.chunk(index).add(NEXT_BYTES) };
        // SAFETY: initialised; the chain owns the chunk until it is committed, and each body is
        // handed out once, because `Chain::next` moves on.
        unsafe { std::slice::from_raw_parts_mut(start, BODY_BYTES) }
    }
}

/// A chain that is being filled. Forgetting it loses its chunks, so either its record is committed
/// or [`LargeChunks::give_back`] follows.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    chunks: &'a LargeChunks,
    /// First chunk, for the record that refers to the chain.
    pub(crate) first: u32,
    next: u32,
}

impl<'a> ChunkSource<'a> for Chain<'a> {
    fn next_chunk(&mut self) -> Option<&'a mut [u8]> {
        if self.next == END {
            return None;
        }
        let index = self.next;
        self.next = self.chunks.next(index);
        Some(self.chunks.body_mut(index))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::record::Variable;

    #[test]
    fn body_survives_the_chain_and_chunks_return() {
        let mut words = vec![0_u64; 4 * CHUNK_BYTES / 8];
        // SAFETY: the words outlive the chunks and are used through them only.
        let chunks = unsafe { LargeChunks::new(words.as_mut_ptr().cast(), 4 * CHUNK_BYTES) };
        let body: Vec<u8> = (0..3 * BODY_BYTES + 5).map(|index| index as u8).collect();
        for _ in 0..3 {
            let mut chain = chunks.take(body.len()).unwrap();
            assert!(chunks.take(1).is_none());
            let first = chain.first;
            let mut out = Variable::chained(&mut chain);
            for part in body.chunks(1000) {
                out.put(part);
            }
            let mut read = Vec::new();
            chunks.read(first, body.len(), |piece| read.extend_from_slice(piece));
            assert!(read == body);
            chunks.give_back(first);
        }
        assert!(chunks.take(4 * BODY_BYTES + 1).is_none());
        assert!(chunks.take(4 * BODY_BYTES).is_some());
    }
}
