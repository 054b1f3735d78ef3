//! From rendered lines to the sink.

use super::batch::Totals;
use super::buffer::LineBuffer;
use super::json::write_long;
use super::output::{LinePlace, LineSink};
use super::plan::{Context, SESSION};
use super::report::{ConvertReport, ledger_of_line};
use crate::error::Error;
use crate::segment::files::SessionFiles;
use crate::session::ConvertedFile;

/// Lines of a category are written out when they are longer than this.
const WRITE_BYTES: usize = 128 * 1024;
/// The same where there are many categories: what all of them hold together, at most.
const WRITE_BYTES_TOTAL: usize = 8 << 20;
/// Memory that the buffer of a category keeps.
const KEEP_BYTES: usize = 1 << 20;
/// The same of all categories and threads together.
const KEEP_BYTES_TOTAL: usize = 16 << 20;
/// The longest line that is searched for the ledger.
const LEDGER_LINE_BYTES_MAX: usize = 1 << 20;
/// Lines of a category that a thread writes alone, where several render.
const PLACE_BYTES: usize = 32 * 1024;

/// Moves rendered lines to the sink, in their order.
pub(super) struct Lines<'a, S> {
    context: &'a Context,
    sink: &'a mut S,
    /// Index of each category in `report.files`, once it has lines.
    files: Vec<Option<usize>>,
    report: ConvertReport,
    pub(super) totals: Totals,
    /// Lines that are too short to be written alone, by category, where several threads render: a
    /// thread alone keeps them itself.
    waiting: Option<Vec<LineBuffer>>,
    /// When the lines of a category are written out, by a thread alone and by several.
    write_bytes: usize,
    place_bytes: usize,
    /// What a buffer keeps of its memory.
    pub(super) keep_bytes: usize,
}

impl<'a, S: LineSink> Lines<'a, S> {
    pub(super) fn new(
        context: &'a Context,
        files: &SessionFiles,
        sink: &'a mut S,
        threads: usize,
    ) -> Self {
        let count = context.categories.len().max(1);
        let buffers = || (0..count).map(|_| LineBuffer::new()).collect();
        Self {
            context,
            sink,
            files: vec![None; count],
            report: ConvertReport {
                session_id: files.session_id.clone(),
                ..ConvertReport::default()
            },
            totals: Totals::new(count),
            waiting: (threads > 1).then(buffers),
            write_bytes: WRITE_BYTES.min(WRITE_BYTES_TOTAL / count),
            place_bytes: PLACE_BYTES.min(WRITE_BYTES_TOTAL / count),
            keep_bytes: KEEP_BYTES.min(KEEP_BYTES_TOTAL / count / threads),
        }
    }

    /// Takes the lines of a thread whose turn it is. Those of the categories that are returned
    /// have a place, to which the thread writes them when its turn is over.
    pub(super) fn take(
        &mut self,
        rendered: &mut [LineBuffer],
    ) -> Result<Vec<(usize, LinePlace)>, Error> {
        let mut later = Vec::new();
        for (category, lines) in rendered.iter_mut().enumerate() {
            if lines.is_empty() {
                continue;
            }
            let long = !lines.long_texts().is_empty();
            let waiting = self.waiting.as_mut().and_then(|all| all.get_mut(category));
            match waiting {
                None if lines.len() < self.write_bytes && !long => continue,
                None => self.write(category, lines)?,
                Some(waiting) if waiting.len() + lines.len() < self.place_bytes && !long => {
                    waiting.put(lines.content());
                }
                Some(waiting) => {
                    let mut before = std::mem::take(waiting);
                    self.write(category, &before)?;
                    before.clear(self.keep_bytes);
                    if let Some(place) = self.waiting.as_mut().and_then(|all| all.get_mut(category))
                    {
                        *place = before;
                    }
                    if !long && let Some(place) = self.place(category, lines.content())? {
                        later.push((category, place));
                        continue;
                    }
                    self.write(category, lines)?;
                }
            }
            lines.clear(self.keep_bytes);
        }
        Ok(later)
    }

    /// Writes what a thread has left.
    pub(super) fn last(&mut self, rendered: &mut [LineBuffer]) -> Result<(), Error> {
        for (category, lines) in rendered.iter_mut().enumerate() {
            self.write(category, lines)?;
            lines.clear(0);
        }
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn finish(mut self) -> Result<(ConvertReport, Totals), Error> {
        if let Some(mut waiting) = self.waiting.take() {
            self.last(&mut waiting)?;
        }
        // In the order of their names, whichever had lines first.
        self.report
            .files
            .sort_by(|one, other| one.category.cmp(&other.category));
        Ok((self.report, self.totals))
    }

    /// Writes lines with the long texts in them.
    fn write(&mut self, category: usize, lines: &LineBuffer) -> Result<(), Error> {
        in_pieces(lines, |piece| self.put(category, piece))
    }

    /// Gives lines to the sink.
    fn put(&mut self, category: usize, lines: &[u8]) -> Result<(), Error> {
        let Some(name) = self.count(category, lines) else {
            return Ok(());
        };
        self.sink.write(name, lines)
    }

    /// Asks the sink for the place of lines.
    fn place(&mut self, category: usize, lines: &[u8]) -> Result<Option<LinePlace>, Error> {
        let Some(name) = self.context.categories.get(category) else {
            return Ok(None);
        };
        let place = self.sink.place(name, lines.len() as u64)?;
        if place.is_some() {
            self.count(category, lines);
        }
        Ok(place)
    }

    /// Counts lines; returns the name of their category, `None` when there is nothing to do.
    fn count(&mut self, category: usize, lines: &[u8]) -> Option<&'a str> {
        let name = self.context.categories.get(category)?;
        let file = self.files.get_mut(category)?;
        if lines.is_empty() {
            return None;
        }
        if name == SESSION {
            let ends = lines.split(|byte| *byte == b'\n');
            let ends = ends.filter(|line| line.len() <= LEDGER_LINE_BYTES_MAX);
            if let Some(ledger) = ends.rev().find_map(ledger_of_line) {
                self.report.ledger = Some(ledger);
            }
        }
        let files = &mut self.report.files;
        let index = *file.get_or_insert_with(|| {
            files.push(ConvertedFile {
                category: name.clone(),
                path: format!("{}_{name}.jsonl", self.context.session_id).into(),
                lines: 0,
                bytes: 0,
            });
            files.len() - 1
        });
        if let Some(file) = files.get_mut(index) {
            file.bytes += lines.len() as u64;
        }
        Some(name)
    }
}

/// Hands out lines with the long texts in them.
pub(super) fn in_pieces<E>(
    lines: &LineBuffer,
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut from = 0;
    for text in lines.long_texts() {
        put(lines.content().get(from..text.at).unwrap_or_default())?;
        write_long(text, &mut put)?;
        from = text.at;
    }
    put(lines.content().get(from..).unwrap_or_default())
}
