//! Lines while a session records: what the writer has put into the segments is appended to the
//! files, in the order of their lines as far as it is known.
//!
//! ```text
//!  segments --feed--> blocks --merge, up to a horizon--> batches --render--> lines --> files
//! ```
//!
//! The lines are those of a conversion, byte for byte: records, registry and clock points stand in
//! the segments in the order in which they are needed, and times depend on earlier points only.
//! A record that comes after later ones were appended is late: its line is in the wrong place until
//! the session is closed. Nothing here is the last word: the close compares the files with a
//! conversion.

mod feed;
mod files;
mod merge;

use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use super::buffer::LineBuffer;
use super::plan::Context;
use super::render::Renderer;
use super::run::redactor;
use crate::error::Error;
use crate::segment::clock::ClockMap;
use crate::segment::layout::BLOCK_REGISTRY;
use crate::segment::registry::Registry;
use crate::sys::dir::Dir;

pub(super) use files::copy_pieces;

use feed::Feed;
use files::LiveFiles;
use merge::{Filled, LiveMerge};

/// Blocks that may wait for the records that come before theirs.
const WAITING_BYTES_MAX: u64 = 16 << 20;
/// Bytes of lines after which they are appended.
const RENDER_BYTES: usize = 1 << 20;
/// Memory that the buffers of all categories keep.
const KEEP_BYTES_TOTAL: usize = 4 << 20;
/// Clock points that are remembered, for records that are that late.
const CLOCK_POINTS_KEPT: usize = 256;

/// Appends the lines of one session while it is recorded.
pub(crate) struct LiveConverter {
    session_id: String,
    feed: Feed,
    merge: LiveMerge,
    /// Known once the first segment was read.
    context: Option<Context>,
    /// The registry has grown.
    is_new: bool,
    batch: Batch,
    /// What is in `batch`.
    filled: Filled,
    /// Lines that are not in a file yet, by category.
    lines: Vec<LineBuffer>,
    files: LiveFiles,
    /// Lines that are in the wrong place.
    late: u64,
}

impl LiveConverter {
    /// For the session with this directory; the files are made in `log_dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn new(
        session_dir: Arc<Dir>,
        log_dir: Arc<Dir>,
        session_id: &str,
    ) -> Result<Self, Error> {
        let owner = session_dir.ownership()?;
        Ok(Self {
            session_id: session_id.to_owned(),
            feed: Feed::new(session_dir),
            merge: LiveMerge::default(),
            context: None,
            is_new: false,
            batch: Batch::default(),
            filled: Filled::None,
            lines: Vec::new(),
            files: LiveFiles::new(log_dir, session_id, owner),
            late: 0,
        })
    }

    /// Reads blocks up to the one with the sequence `until`, which comes next; less when too many
    /// bytes wait. Whether all of them were read.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be read now.
    pub(crate) fn read(&mut self, until: u64) -> Result<bool, Error> {
        let context = match &mut self.context {
            Some(context) => context,
            None => match self.feed.header()? {
                None => return Ok(false),
                Some(header) => {
                    let clock = ClockMap::new(&header, []);
                    let context = Context::new(&self.session_id, clock, Registry::default(), None);
                    self.context.insert(context)
                }
            },
        };
        if self.merge.waiting() >= WAITING_BYTES_MAX {
            // They could not be written: reading a block at each try would have no bound.
            return Ok(self.feed.is_at(until));
        }
        let (merge, is_new) = (&mut self.merge, &mut self.is_new);
        self.feed.read(until, |block| {
            if block.header.kind == BLOCK_REGISTRY {
                context.registry.add_block(block.payload);
                for (_, point) in std::mem::take(&mut context.registry.clock_points) {
                    context.clock.add(point);
                }
                context.clock.forget(CLOCK_POINTS_KEPT);
                *is_new = true;
            } else {
                merge.add(block);
            }
            merge.waiting() < WAITING_BYTES_MAX
        })
    }

    /// Appends the lines of all records that were read, up to `horizon` ticks. Whether there were
    /// any.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written now: nothing is lost, and no part of a line stays.
    pub(crate) fn write(&mut self, horizon: u64) -> Result<bool, Error> {
        let mut any = false;
        loop {
            self.append()?;
            if !self.render(horizon)? {
                break;
            }
            any = true;
        }
        self.merge.forget();
        Ok(any)
    }

    /// The session directory.
    pub(crate) fn path(&self) -> &Path {
        self.feed.path()
    }

    /// Ticks of the next record that waits.
    pub(crate) fn first_waiting(&self) -> Option<u64> {
        self.merge.first()
    }

    /// The largest ticks of all records that were read.
    pub(crate) fn seen(&self) -> u64 {
        self.merge.seen()
    }

    /// Lines that are in the wrong place.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }

    /// Bytes of all files, and of those that the close will write again.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        self.files.sizes()
    }

    /// Renders the next lines. False when there are none.
    fn render(&mut self, horizon: u64) -> Result<bool, Error> {
        let Some(context) = &mut self.context else {
            return Ok(false);
        };
        if self.filled == Filled::None {
            self.filled = self.merge.next_batch(&mut self.batch, horizon);
        }
        if self.filled == Filled::None {
            return Ok(false);
        }
        if self.is_new {
            if context.redactor.is_none() {
                // What it is made from is in the registry before the first record.
                context.redactor = redactor(None, &context.registry)?;
            }
            context.refresh();
            self.is_new = false;
        }
        let mut renderer = Renderer::new(context);
        for (place, buffer) in renderer.lines.iter_mut().zip(&mut self.lines) {
            std::mem::swap(place, buffer);
        }
        let done = renderer.render(&mut self.batch, RENDER_BYTES);
        self.lines = std::mem::take(&mut renderer.lines);
        if self.filled == Filled::Late {
            for (name, counts) in context.categories.iter().zip(&renderer.totals.counts) {
                if counts.lines > 0 {
                    self.late += counts.lines;
                    self.files.is_to_be_written_again(name);
                }
            }
        }
        if done {
            self.filled = Filled::None;
        }
        Ok(true)
    }

    /// Appends what is rendered.
    fn append(&mut self) -> Result<(), Error> {
        let Some(context) = &self.context else {
            return Ok(());
        };
        let keep_bytes = KEEP_BYTES_TOTAL / self.lines.len().max(1);
        for (name, lines) in context.categories.iter().zip(&mut self.lines) {
            if !lines.is_empty() {
                self.files.append(name, lines)?;
                lines.clear(keep_bytes);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Category, Extra};
    use crate::{Conversion, Outcome, RingStorage, Session};

    /// Blocks that cannot be written, because the disk is full or somebody has put a directory in
    /// the place of a file, are not added to for as long as that lasts.
    #[test]
    fn what_waits_has_a_bound_however_often_it_is_tried() {
        let temp = tempfile::tempdir().unwrap();
        let builder = Session::builder().dir(temp.path()).sampling(false);
        let builder = builder
            .ring_storage(RingStorage::Anonymous)
            .conversion(Conversion::Later);
        let session = builder.start().unwrap();
        let (id, log) = (session.id().to_owned(), session.log());
        let (category, text) = (Category::named("calls").unwrap(), "x".repeat(20_000));
        let mut bytes = 0;
        while bytes < WAITING_BYTES_MAX + (4 << 20) {
            if log.event(category, &[Extra::new("text", text.as_str())]) == Outcome::Kept {
                bytes += text.len() as u64;
            } else {
                session.flush().unwrap();
            }
        }
        let segments = session.close().unwrap().segments.unwrap();
        let dir = |path: &Path| Arc::new(Dir::open(path).unwrap());
        let mut live = LiveConverter::new(dir(&segments), dir(temp.path()), &id).unwrap();
        assert!(!live.read(u64::MAX).unwrap());
        let before = live.merge.waiting();
        assert!(before >= WAITING_BYTES_MAX);
        for _ in 0..20 {
            assert!(!live.read(u64::MAX).unwrap());
        }
        assert_eq!(live.merge.waiting(), before);
        let mut written = 0;
        while live.write(u64::MAX).unwrap() {
            written += 1;
            live.read(u64::MAX).unwrap();
        }
        assert!(written > 1 && live.merge.waiting() == 0);
        assert!(live.sizes().0 > bytes);
    }
}
