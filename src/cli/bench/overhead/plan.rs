//! What is run on each side of a comparison, and how: a process for each run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value as Json};

use super::child;
use super::data::{Data, Kind, Sample};
use super::said::said_in;

/// Tells a command that knows it how much more of its work it is to do.
pub const BURN_VARIABLE: &str = "BENCH_BURN_PPM";
/// Of the errors of a command that failed, so many bytes are shown.
const SHOWN_BYTES: usize = 2_000;

/// One side: what is run, and what it finds in its environment.
#[derive(Clone, Debug)]
pub struct Side {
    pub name: String,
    pub program: OsString,
    pub arguments: Vec<OsString>,
    pub recording: bool,
    /// Whether files in the log directory are proof that it works: a comparison with something
    /// that does nothing would look well.
    pub leaves_files: bool,
    pub variables: Vec<(String, String)>,
}

/// A comparison that can be made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub workload: String,
    pub kind: Kind,
    pub sides: Vec<Side>,
    pub settings: Map<String, Json>,
    /// A directory of its own for log directories; it is removed at the end.
    pub dir: PathBuf,
}

impl Plan {
    /// The data of this plan before anything was measured.
    pub fn data(&self) -> Data {
        Data {
            workload: self.workload.clone(),
            kind: self.kind,
            sides: self.sides.iter().map(|side| side.name.clone()).collect(),
            settings: self.settings.clone(),
            blocks: Vec::new(),
            looks: Vec::new(),
        }
    }

    /// The sides of a block in their order: there and back, so that a machine that becomes slower
    /// or quicker all the time is the same for all; every other block the other way round.
    pub fn order(&self, block: usize) -> Vec<usize> {
        let there = 0..self.sides.len();
        if block.is_multiple_of(2) {
            there.clone().chain(there.rev()).collect()
        } else {
            there.clone().rev().chain(there).collect()
        }
    }

    /// Runs all of a block.
    ///
    /// # Errors
    /// When a run fails, or did not do what its side is to do.
    pub fn block(&self, block: usize) -> Result<Vec<Sample>> {
        let order = self.order(block);
        order.into_iter().map(|side| self.run(side)).collect()
    }

    /// Runs a side once.
    ///
    /// # Errors
    /// As [`Plan::block`].
    pub fn run(&self, number: usize) -> Result<Sample> {
        let side = &self.sides[number];
        let sample = self.measured(number, side);
        sample.with_context(|| format!("the side {}", side.name))
    }

    fn measured(&self, number: usize, side: &Side) -> Result<Sample> {
        let log_dir = self.dir.join("logs");
        let path = |name: &str| self.dir.join(name);
        make_private(&self.dir)?;
        // What a run that failed has left there is none of the next one's.
        if log_dir.exists() {
            fs::remove_dir_all(&log_dir)?;
        }
        make_private(&log_dir)?;
        let (out, errors) = (path("stdout"), path("stderr"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut command = Command::new(&side.program);
        command
            .args(&side.arguments)
            .env("DEBUG_MODE", if side.recording { "true" } else { "false" })
            .env("DEBUG_LOG_DIR", &log_dir)
            .env_remove(BURN_VARIABLE)
            .envs(side.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&errors)?);
        let (status, process) = child::run(&mut command).context("cannot be run")?;
        let text = |path: &Path| fs::read(path).map(|it| String::from_utf8_lossy(&it).into_owned());
        if !status.success() {
            let errors = text(&errors)?;
            let from = errors.len().saturating_sub(SHOWN_BYTES);
            let shown = errors.get(from..).unwrap_or(&errors).trim();
            bail!("it ended with {status}: {shown}");
        }
        let said = said_in(&text(&out)?)?;
        let files = fs::read_dir(&log_dir)?.count();
        ensure!(
            files > 0 || !side.leaves_files,
            "it left nothing in DEBUG_LOG_DIR: does it honour DEBUG_MODE=true?"
        );
        ensure!(
            files == 0 || side.leaves_files,
            "it wrote into DEBUG_LOG_DIR, although DEBUG_MODE was false"
        );
        let burns = side.variables.iter().any(|(name, _)| name == BURN_VARIABLE);
        ensure!(
            said.burned > 0 || !burns,
            "it did not burn anything: {BURN_VARIABLE} is for commands that say so \
             (docs/BENCHMARKS.md)"
        );
        // Pages that are gone are not written back while the next run is measured.
        fs::remove_dir_all(&log_dir)?;
        ensure!(
            process.cpu_ns > 0,
            "it took no processor time that can be measured"
        );
        Ok(Sample {
            side: number,
            process,
            said,
        })
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clean(&self) -> Result<()> {
        let removed = fs::remove_dir_all(&self.dir);
        removed.with_context(|| format!("cannot remove {}", self.dir.display()))
    }
}

/// Makes a directory that nobody else may enter, as sessions want it; one that is there will do.
fn make_private(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.with_context(|| format!("cannot make {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dir: &Path, scripts: &[(&str, bool)]) -> Plan {
        let sides = scripts
            .iter()
            .enumerate()
            .map(|(number, (script, recording))| Side {
                name: number.to_string(),
                program: "sh".into(),
                arguments: vec!["-c".into(), script.into()],
                recording: *recording,
                leaves_files: *recording,
                variables: Vec::new(),
            });
        Plan {
            workload: "a script".to_owned(),
            kind: Kind::Recording,
            sides: sides.collect(),
            settings: Map::new(),
            dir: dir.join("bench"),
        }
    }

    /// Some work, so that there is a time to measure.
    const WORK: &str = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done";

    #[test]
    fn blocks_go_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), &[("", false), ("", true), ("", true)]);
        assert_eq!(plan.order(0), [0, 1, 2, 2, 1, 0]);
        assert_eq!(plan.order(1), [2, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn each_run_has_its_environment_and_an_empty_directory() {
        let dir = tempfile::tempdir().unwrap();
        let off = format!("{WORK}; test $DEBUG_MODE = false && test -z \"$(ls $DEBUG_LOG_DIR)\"");
        let on = format!(
            "{WORK}; test $DEBUG_MODE = true && test -z \"$(ls $DEBUG_LOG_DIR)\" && \
             echo x > $DEBUG_LOG_DIR/x && echo '{{\"bench\":{{\"records\":5}}}}'"
        );
        let plan = plan(dir.path(), &[(&off, false), (&on, true)]);
        let block = plan.block(1).unwrap();
        let found: Vec<_> = block
            .iter()
            .map(|run| (run.side, run.said.records))
            .collect();
        assert_eq!(found, [(1, 5), (0, 0), (0, 0), (1, 5)]);
        plan.clean().unwrap();
        assert!(!plan.dir.exists());
    }

    #[test]
    fn runs_that_would_mislead_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let write = format!("{WORK}; echo x > $DEBUG_LOG_DIR/x");
        let plan = plan(
            dir.path(),
            &[
                (&write, false),
                (WORK, true),
                ("echo oh no >&2; exit 3", false),
                ("echo '{\"bench\":7x'", false),
            ],
        );
        for (side, message) in [
            (0, "although DEBUG_MODE was false"),
            (1, "does it honour"),
            (2, "exit status: 3: oh no"),
            (3, "the command said"),
        ] {
            let error = format!("{:#}", plan.run(side).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
        let mut burn = plan.clone();
        burn.sides[1].leaves_files = false;
        burn.sides[1].variables = vec![(BURN_VARIABLE.to_owned(), "5".to_owned())];
        let error = format!("{:#}", burn.run(1).unwrap_err());
        assert!(error.contains("did not burn"), "{error}");
    }
}
