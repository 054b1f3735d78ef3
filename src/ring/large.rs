//! Chunks for records that are too long for a ring: a cold path with a budget of its own.
//!
//! A body is written into a chain of chunks; a short record in the ring refers to the first one.
//! The writer copies the chain into a large block and gives the chunks back.
//!
//! What leads from chunk to chunk stands in front of each for recovery. The session itself has its
//! own copy: in a mapped file the first one can be lost, and a wrong one would mix up chains.
#![expect(
    unsafe_code,
    reason = "slices over chunks that belong to one side at a time"
)]
#![expect(clippy::cast_ptr_alignment, reason = "chunks are aligned to 8")]

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::stack::IndexStack;
use crate::record::{ChunkSource, LargeReference};

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
    /// By chunk: the next one of its chain.
    nexts: Box<[AtomicU32]>,
    /// By first chunk of a chain that was taken: bytes of the body plus 1. Others have 0.
    bodies: Box<[AtomicU32]>,
}

impl LargeChunks {
    /// # Safety
    /// `start` points to `bytes` initialised bytes, aligned to 8, that stay mapped as long as this
    /// value lives and are used through it only.
    pub(crate) unsafe fn new(start: *mut u8, bytes: usize) -> Self {
        let count = (bytes / CHUNK_BYTES) as u32;
        let free = IndexStack::new(count as usize);
        (0..count).for_each(|index| free.push(index));
        let table = || (0..count).map(|_| AtomicU32::new(0)).collect();
        Self {
            start,
            count,
            free,
            nexts: table(),
            bodies: table(),
        }
    }

    /// Bytes of all chunks.
    pub(crate) fn pool_bytes(&self) -> usize {
        self.count as usize * CHUNK_BYTES
    }

    /// Takes a chain for a body of `bytes` bytes; `None` when there are too few chunks.
    pub(crate) fn take(&self, bytes: usize) -> Option<Chain<'_>> {
        let mut first = END;
        for _ in 0..bytes.div_ceil(BODY_BYTES).max(1) {
            let Some(index) = self.free.pop() else {
                self.free_chain(first);
                return None;
            };
            self.set_next(index, first);
            first = index;
        }
        // Relaxed, here and below: a chain has one owner at a time, and goes to the next one
        // through a ring, the spill or the stack.
        self.bodies[first as usize].store(bytes as u32 + 1, Relaxed);
        Some(Chain {
            chunks: self,
            first,
            next: first,
        })
    }

    /// Whether a reference in a record leads to a chain that was taken for it.
    pub(crate) fn holds(&self, reference: LargeReference) -> bool {
        let body = self.bodies.get(reference.chunk as usize);
        body.is_some_and(|body| body.load(Relaxed) == reference.body_bytes.wrapping_add(1))
    }

    /// Gives a chain back; nothing when there is none.
    pub(crate) fn give_back(&self, first: u32) {
        let body = self.bodies.get(first as usize);
        if body.is_some_and(|body| body.swap(0, Relaxed) != 0) {
            self.free_chain(first);
        }
    }

    fn free_chain(&self, first: u32) {
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
        self.nexts[index as usize].load(Relaxed)
    }

    fn set_next(&self, index: u32, next: u32) {
        self.nexts[index as usize].store(next, Relaxed);
        // SAFETY: the chunk belongs to the caller, who has taken it from `free`; aligned to 8.
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
            let body_bytes = body.len() as u32;
            let reference = |chunk, body_bytes| LargeReference { body_bytes, chunk };
            assert!(chunks.holds(reference(first, body_bytes)));
            for wrong in [
                (first, 0),
                (first, body_bytes + 1),
                (4, body_bytes),
                (4, u32::MAX),
            ] {
                assert!(!chunks.holds(reference(wrong.0, wrong.1)));
            }
            // What stands in front of the chunks themselves is not asked.
            for index in 0..4 {
                // SAFETY: inside of the words, which this thread alone uses.
                unsafe { chunks.chunk(index).cast::<u32>().write(0) };
            }
            chunks.give_back(first);
            chunks.give_back(first);
        }
        assert!(chunks.take(4 * BODY_BYTES + 1).is_none());
        assert!(chunks.take(4 * BODY_BYTES).is_some());
    }
}
