//! What a replay prints at its end.

use std::io::{self, Write};

use serde_json::json;

use super::push::{Counts, Input};
use crate::CloseReport;
use crate::cli::human;
use crate::cli::output::{Status, files_json};

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
        let summary = json!({
            "session_id": self.closed.session_id,
            "lines": self.total.lines,
            "bad": self.total.bad,
            "lost": self.total.lost,
            "inputs": inputs.collect::<Vec<_>>(),
            "ledger": self.closed.ledger.to_json(),
            "files": files_json(&self.closed.files),
            "segments": self.closed.segments.as_ref().map(|path| path.display().to_string()),
            "faults": self.closed.faults,
        });
        writeln!(out, "{}", human::json_line(&summary))
    }

    /// For people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "Replayed {} of {} as session {}: {} bad, {} lost.",
            human::counted(self.total.lines, "line"),
            human::counted(self.inputs.len() as u64, "file"),
            self.closed.session_id,
            human::count(self.total.bad),
            human::count(self.total.lost),
        )?;
        let mut table = human::Table::new(&["file", "category", ">lines", ">bad", ">lost"]);
        for input in self.inputs {
            let counts = input.counts();
            table.row([
                input.source.name(),
                input.source.category.name().to_owned(),
                human::count(counts.lines),
                human::count(counts.bad),
                human::count(counts.lost),
            ]);
        }
        writeln!(out, "\n{table}")?;
        writeln!(out, "\nLedger\n{}", human::ledger(&self.closed.ledger))?;
        if let Some(reasons) = human::drop_reasons(&self.closed.ledger) {
            writeln!(out, "  {reasons}")?;
        }
        if !self.closed.files.is_empty() {
            writeln!(out, "\nFiles")?;
        }
        for file in &self.closed.files {
            let size = human::bytes(file.bytes);
            writeln!(out, "  {}  {size}", file.path.display())?;
        }
        if let Some(segments) = &self.closed.segments {
            let size = human::bytes(self.closed.segment_bytes);
            writeln!(out, "  {}  {size} of segments", segments.display())?;
        }
        for fault in &self.closed.faults {
            writeln!(out, "\nFault: {fault}")?;
        }
        Ok(())
    }
}
