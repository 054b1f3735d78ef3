//! What a replay prints at its end.

use std::io::{self, Write};

use serde_json::json;

use super::push::{Counts, Input};
use crate::CloseReport;
use crate::cli::format;
use crate::cli::output::Status;

/// The result of a replay.
pub struct Summary<'a> {
    inputs: &'a [Input],
    closed: &'a CloseReport,
    total: Counts,
}

impl<'a> Summary<'a> {
    /// Of files that were read and a session that is closed.
    pub fn new(inputs: &'a [Input], closed: &'a CloseReport) -> Self {
        let mut total = Counts::default();
        for input in inputs {
            total.add(input.counts());
        }
        Self {
            inputs,
            closed,
            total,
        }
    }

    /// Faults when a line was bad or lost, or the session did not end well.
    pub fn status(&self) -> Status {
        let account = self.closed.ledger.total();
        let complete = self.total.bad == 0
            && self.total.lost == 0
            && account.dropped_total() == 0
            && account.sampled_out() == 0
            && self.closed.ledger.is_exact()
            && self.closed.faults.is_empty();
        if complete { Status::Ok } else { Status::Faults }
    }

    /// One JSON object on one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let inputs = self.inputs.iter().map(|input| {
            let counts = input.counts();
            json!({
                "path": input.source.name(),
                "category": input.source.category.name(),
                "lines": counts.lines,
                "bad": counts.bad,
                "lost": counts.lost,
            })
        });
        let files = self.closed.files.iter().map(|file| {
            json!({
                "path": file.path.display().to_string(),
                "category": file.category,
                "lines": file.lines,
                "bytes": file.bytes,
            })
        });
        let summary = json!({
            "session_id": self.closed.session_id,
            "lines": self.total.lines,
            "bad": self.total.bad,
            "lost": self.total.lost,
            "inputs": inputs.collect::<Vec<_>>(),
            "ledger": self.closed.ledger.to_json(),
            "files": files.collect::<Vec<_>>(),
            "segments": self.closed.segments.as_ref().map(|path| path.display().to_string()),
            "faults": self.closed.faults,
        });
        writeln!(out, "{summary}")
    }

    /// For people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Replayed {} of {} as session {}: {} bad, {} lost.",
            format::counted(self.total.lines, "line"),
            format::counted(self.inputs.len() as u64, "file"),
            self.closed.session_id,
            format::count(self.total.bad),
            format::count(self.total.lost),
        )?;
        let mut table = format::table(&["file", "category", "lines", "bad", "lost"], 2);
        for input in self.inputs {
            let counts = input.counts();
            table.add_row([
                input.source.name(),
                input.source.category.name().to_owned(),
                format::count(counts.lines),
                format::count(counts.bad),
                format::count(counts.lost),
            ]);
        }
        writeln!(out, "\n{}", format::indented(&table))?;
        writeln!(
            out,
            "\nLedger\n{}",
            format::indented(&format::ledger(&self.closed.ledger))
        )?;
        if let Some(reasons) = format::drop_reasons(&self.closed.ledger) {
            writeln!(out, "  {reasons}")?;
        }
        if !self.closed.files.is_empty() {
            writeln!(out, "\nFiles")?;
        }
        for file in &self.closed.files {
            let size = format::bytes(file.bytes);
            writeln!(out, "  {}  {size}", file.path.display())?;
        }
        if let Some(segments) = &self.closed.segments {
            let size = format::bytes(self.closed.segment_bytes);
            writeln!(out, "  {}  {size} of segments", segments.display())?;
        }
        for fault in &self.closed.faults {
            writeln!(out, "\nFault: {fault}")?;
        }
        Ok(())
    }
}
