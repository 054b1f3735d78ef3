//! `stormlog demo --storm`: load far past what the writer can take, and the proof of what the
//! engine promises about it.
//!
//! `traffic` is what a thread offers, `run` takes the threads through calm, storm and calm, with
//! `sampler` and `latency` looking on; `check` reads the files, `proof` holds them against the
//! bars, `report` and `plot` show it.

mod check;
mod latency;
mod plot;
mod proof;
mod report;
mod run;
mod sampler;
mod traffic;

use std::path::Path;

use anyhow::{Context, Result};

use super::record::clock_nanos;
use crate::cli::output::{Output, Status};

pub use run::Plan;

/// Where the pictures of the storm go.
#[derive(Clone, Copy, Debug)]
pub struct Pictures<'a> {
    pub plot: Option<&'a Path>,
    pub samples: Option<&'a Path>,
    pub json: bool,
}

/// Makes the storm and prints the proof.
pub fn run(plan: &Plan, pictures: Pictures<'_>, output: &mut Output) -> Result<Status> {
    let clock_ns = clock_nanos();
    let run = run::run(plan)?;
    let found = check::check(&run)?;
    let figures = proof::Figures::new(&run, plan.drain_bytes, clock_ns);
    let failures = proof::failures(&run, &found, &figures);
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = pictures.samples {
        write(path, plot::csv(&run))?;
    }
    if let Some(path) = pictures.plot {
        write(path, plot::svg(&run, plan, figures.overload))?;
    }
    let report = report::Report {
        plan,
        run: &run,
        found: &found,
        figures,
        clock_ns,
        failures,
    };
    if pictures.json {
        report.write_json(output)?;
    } else {
        report.write_text(output, pictures.plot)?;
    }
    if report.failures.is_empty() {
        Ok(Status::Ok)
    } else {
        Ok(Status::Faults)
    }
}
