//! What the demo prints.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value as Json, json};

use super::event::Side;
use super::record::{Recorded, Run};
use crate::CloseReport;
use crate::cli::human;
use crate::cli::output::{Status, files_json};

/// The result of a run with what is known about it.
pub struct Report<'a> {
    /// The run.
    pub run: &'a Run,
    /// Log directory.
    pub dir: &'a Path,
    /// Seed of the traffic.
    pub seed: u64,
    /// What reading the clock takes, ns.
    pub clock_ns: u64,
    /// Whether threads waited for the time of a record.
    pub slept: bool,
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Orchestrator => "orchestrator",
        Side::Proxy => "proxy",
    }
}

impl Report<'_> {
    /// Faults when a record was lost or a session did not end well.
    pub fn status(&self) -> Status {
        let good = |side: &Recorded| {
            side.closed.ledger.is_exact()
                && side.closed.ledger.total().dropped_total() == 0
                && side.closed.faults.is_empty()
        };
        if self.run.pushes.refused == 0 && self.run.sides.iter().all(good) {
            Status::Ok
        } else {
            Status::Faults
        }
    }

    /// One JSON object on one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let nanos = &self.run.pushes.nanos;
        let report = json!({
            "seed": self.seed,
            "elapsed_seconds": self.run.elapsed.as_secs_f64(),
            "push_ns": {
                "count": nanos.len(),
                "p50": nanos.value_at_quantile(0.5),
                "p99": nanos.value_at_quantile(0.99),
                "p999": nanos.value_at_quantile(0.999),
                "max": nanos.max(),
                "clock_p50": self.clock_ns,
            },
            "refused": self.run.pushes.refused,
            "sessions": self.run.sides.iter().map(session_json).collect::<Vec<_>>(),
        });
        writeln!(out, "{report}")
    }

    /// For people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let nanos = &self.run.pushes.nanos;
        writeln!(
            out,
            "Recorded {} in {:.1} s, seed {}.",
            human::counted(nanos.len(), "record"),
            self.run.elapsed.as_secs_f64(),
            self.seed
        )?;
        for side in &self.run.sides {
            self.write_side(side, out)?;
        }
        let at = |quantile| human::nanos(nanos.value_at_quantile(quantile));
        writeln!(
            out,
            "\nPush: p50 {}, p99 {}, max {}. Of each, {} are the two clock readings around it.",
            at(0.5),
            at(0.99),
            human::nanos(nanos.max()),
            human::nanos(self.clock_ns),
        )?;
        let wakes = self.run.sides.iter().map(|side| side.closed.wakes).sum();
        writeln!(
            out,
            "Syscalls made by pushes: {}, to wake the sleeping writer.",
            human::count(wakes)
        )?;
        let sum = |count: fn(&CloseReport) -> u64| -> u64 {
            self.run.sides.iter().map(|side| count(&side.closed)).sum()
        };
        let spilled = sum(|closed| closed.spilled);
        if spilled > 0 {
            writeln!(
                out,
                "{} found a full ring and took the spill; {} of them, or of those that were lost, \
                 waited.",
                human::counted(spilled, "record"),
                human::count(sum(|closed| closed.always_waits)),
            )?;
        }
        if self.slept {
            writeln!(
                out,
                "Threads slept between records, so caches were cold; --records N measures them hot."
            )?;
        }
        if self.run.pushes.refused > 0 {
            let refused = human::counted(self.run.pushes.refused, "record");
            writeln!(out, "Not taken: {refused}.")?;
        }
        writeln!(out, "\nTry next")?;
        for command in self.commands() {
            writeln!(out, "  {command}")?;
        }
        Ok(())
    }

    fn write_side(&self, side: &Recorded, out: &mut impl Write) -> io::Result<()> {
        let closed = &side.closed;
        writeln!(out, "\nSession {} ({})", closed.session_id, name(side.side))?;
        writeln!(out, "{}", human::ledger(&closed.ledger))?;
        if let Some(reasons) = human::drop_reasons(&closed.ledger) {
            writeln!(out, "  {reasons}")?;
        }
        let exact = if closed.ledger.is_exact() {
            "every record is accounted for"
        } else {
            "THE LEDGER DOES NOT ADD UP"
        };
        let bytes = closed.files.iter().map(|file| file.bytes).sum();
        let files = human::counted(closed.files.len() as u64, "file");
        writeln!(
            out,
            "  {exact}; {files}, {} in {}",
            human::bytes(bytes),
            self.pattern(side)
        )?;
        if let Some(segments) = &closed.segments {
            let bytes = human::bytes(closed.segment_bytes);
            writeln!(out, "  segments: {}, {bytes}", segments.display())?;
        }
        for fault in &closed.faults {
            writeln!(out, "  Fault: {fault}")?;
        }
        Ok(())
    }

    fn pattern(&self, side: &Recorded) -> String {
        let name = format!("{}_*.jsonl", side.closed.session_id);
        self.dir.join(name).display().to_string()
    }

    /// Three commands that work on what was recorded.
    fn commands(&self) -> [String; 3] {
        let sides = &self.run.sides;
        let dir = human::shell(&self.dir.display().to_string());
        let stress = file_of(&sides[0], "stress").or_else(|| file_of(&sides[1], "stress"));
        let look = match stress.or_else(|| file_of(&sides[0], "session")) {
            Some(file) if is_installed("jq") => format!("jq -c . {file} | head -n 3"),
            Some(file) => format!("head -n 3 {file}"),
            None => format!("ls {dir}"),
        };
        let segments = sides.each_ref().map(|side| side.closed.segments.as_deref());
        let again = match segments {
            [Some(first), _] | [_, Some(first)] => {
                format!(
                    "stormlog inspect {}",
                    human::shell(&first.display().to_string())
                )
            }
            [None, None] => {
                let mut again = self.dir.as_os_str().to_owned();
                again.push("-again");
                let again = human::shell(&again.display().to_string());
                let files = sides.iter().filter_map(|side| {
                    let provisioning = file_of(side, "provisioning");
                    provisioning.or_else(|| file_of(side, "session"))
                });
                let files = files.collect::<Vec<_>>().join(" ");
                format!("stormlog replay --dir {again} {files}")
            }
        };
        [look, format!("stormlog sessions {dir}"), again]
    }
}

/// The file of a category, quoted for a shell, if there is one.
fn file_of(side: &Recorded, category: &str) -> Option<String> {
    let mut files = side.closed.files.iter();
    let file = files.find(|file| file.category == category)?;
    Some(human::shell(&file.path.display().to_string()))
}

/// Whether a shell would probably find `program`.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn session_json(side: &Recorded) -> Json {
    let closed = &side.closed;
    json!({
        "side": name(side.side),
        "session_id": closed.session_id,
        "ledger": closed.ledger.to_json(),
        "files": files_json(&closed.files),
        "segments": closed.segments.as_ref().map(|path| path.display().to_string()),
        "segment_bytes": closed.segment_bytes,
        "wakes": closed.wakes,
        "spilled": closed.spilled,
        "always_waits": closed.always_waits,
        "always_lost": closed.always_lost,
        "faults": closed.faults,
    })
}
