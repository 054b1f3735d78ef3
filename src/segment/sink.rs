//! Where the bytes of a segment go: into a mapping of its file, or to the file by `pwrite`.
//!
//! The mapping is written without a system call, but what its file system cannot keep (no space
//! for a copy of a block, a server that is gone, a file that somebody cut) ends the process by
//! SIGBUS. `pwrite` returns an error for all of them. The bytes are the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::segment::layout::HINT_OFFSET;
use crate::sys::map::Region;
use crate::sys::reserve::{allocate, extend, fill_with_zeros};
use crate::sys::sigbus::RangeGuard;

/// Memory that a sink keeps for its blocks.
const KEEP_BYTES: usize = 128 << 10;
/// Bytes made present at one time, so that a stop request is noticed in between.
const POPULATE_BYTES: usize = 4 << 20;

/// Which kind of sink segments have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkKind {
    Mapped,
    Pwrite,
}

/// How sinks are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SinkPlan {
    pub(crate) kind: SinkKind,
    /// Mappings are guarded against SIGBUS.
    pub(crate) guard: bool,
}

/// Takes the bytes of one segment.
#[derive(Debug)]
pub(crate) enum Sink {
    Mapped(Mapped),
    Pwrite(Blocks),
}

/// A mapping of the whole segment.
#[derive(Debug)]
pub(crate) struct Mapped {
    // Dropped before the mapping.
    guard: Option<RangeGuard>,
    pub(crate) region: Region,
}

/// Blocks on their way to the file.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Whole blocks that belong behind what was written.
    pub(crate) pending: Vec<u8>,
}

impl SinkPlan {
    /// Reserves `bytes` bytes for an empty file and makes its sink. With `needed` the space is
    /// reserved even where that means to write it.
    pub(crate) fn make(self, file: &File, bytes: usize, needed: bool) -> io::Result<Sink> {
        let reserved = allocate(file, bytes as u64)?;
        if self.kind == SinkKind::Mapped {
            if !reserved {
                fill_with_zeros(file, bytes as u64)?;
            }
            let region = Region::file(file, bytes)?;
            let guard = if self.guard {
                RangeGuard::new(region.ptr(), bytes)?
            } else {
                None
            };
            if guard.is_some() || !self.guard {
                return Ok(Sink::Mapped(Mapped { guard, region }));
            }
            // More mappings than the guard has places for.
        } else if !reserved && needed {
            fill_with_zeros(file, bytes as u64)?;
        } else if !reserved {
            extend(file, bytes as u64)?;
        }
        Ok(Sink::Pwrite(Blocks::default()))
    }
}

impl Sink {
    /// Writes bytes that are no block: the header. Before the first block only.
    pub(crate) fn write(&self, file: &File, offset: usize, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Mapped(mapped) => mapped.region.write(offset, bytes),
            Self::Pwrite(_) => file.write_all_at(bytes, offset as u64)?,
        }
        Ok(())
    }

    /// Asks for large pages of the mapping.
    pub(crate) fn advise_huge(&self) {
        if let Self::Mapped(mapped) = self {
            // Not every file system has large pages; small ones are slower, not wrong.
            drop(mapped.region.advise_huge());
        }
    }

    /// Makes the pages of a mapping present whose space is reserved and that nobody else knows.
    pub(crate) fn make_present(&self) -> io::Result<()> {
        let Self::Mapped(Mapped { region, .. }) = self else {
            return Ok(());
        };
        for offset in (0..region.len()).step_by(POPULATE_BYTES) {
            let piece = POPULATE_BYTES.min(region.len() - offset);
            if !region.populate(offset, piece)? {
                region.zero(offset, piece);
            }
        }
        Ok(())
    }

    /// Whether pages of the mapping were lost.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Mapped(mapped) => mapped.guard.as_ref().is_some_and(|it| it.faults() > 0),
            Self::Pwrite(_) => false,
        }
    }

    /// Waits until the first `bytes` bytes are on the disk.
    pub(crate) fn sync(&self, file: &File, bytes: usize) -> io::Result<()> {
        if let Self::Mapped(mapped) = self {
            mapped.region.sync(0, bytes)?;
        }
        file.sync_data()
    }
}

impl Blocks {
    /// Writes what is pending at `offset`. On an error nothing is pending any more, and the bytes
    /// there are no valid block.
    pub(crate) fn flush(&mut self, file: &File, offset: usize) -> io::Result<()> {
        let written = file.write_all_at(&self.pending, offset as u64);
        self.pending.clear();
        self.pending.shrink_to(KEEP_BYTES);
        written
    }
}

/// Writes the pieces one behind the other at `offset`: in one call, but for what the kernel leaves
/// over.
pub(crate) fn write_pieces(file: &File, offset: usize, pieces: &[&[u8]]) -> io::Result<()> {
    const PIECES_MAX: usize = 3;
    let mut slices = [io::IoSlice::new(&[]); PIECES_MAX];
    for (slice, piece) in slices.iter_mut().zip(pieces) {
        *slice = io::IoSlice::new(piece);
    }
    debug_assert!(pieces.len() <= PIECES_MAX);
    let mut written = match rustix::io::pwritev(file, &slices[..pieces.len()], offset as u64) {
        Ok(written) => written,
        Err(rustix::io::Errno::INTR) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut at = offset;
    for piece in pieces {
        let done = written.min(piece.len());
        written -= done;
        file.write_all_at(&piece[done..], (at + done) as u64)?;
        at += piece.len();
    }
    Ok(())
}

/// Stores the offset up to which blocks are complete. A copy-on-write file system can have space
/// for a new block and none to change an old one: readers look behind the hint, so the blocks are
/// written without it.
pub(crate) fn write_hint(file: &File, end: usize) {
    drop(file.write_all_at(&end.to_le_bytes(), HINT_OFFSET as u64));
}
