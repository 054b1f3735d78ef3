//! Processes that die at any instant of recording, and what `recover` makes of what they leave.
//!
//! A child is killed (SIGKILL), aborts itself, or panics where a panic aborts; some of them in a
//! storm. Recovery and conversion are killed at random instants too, and done again. Then every
//! record that was told of must be there exactly once, whole and in the order of its thread, and
//! no other but the one that each thread was just pushing; the ledger and the durations are exact.
//!
//! `STORMLOG_ROUNDS` sets the number of kills, `STORMLOG_SEED` the first seed.

#[path = "support/crash.rs"]
mod crash;
#[path = "support/recording.rs"]
mod recording;

#[cfg(feature = "cli")]
use std::path::Path;
#[cfg(feature = "cli")]
use std::process::Command;
use std::time::Duration;

use crash::{Found, Plan, Random, Told};
#[cfg(feature = "cli")]
use stormlog::ledger::{Account, Ledger};
use stormlog::recover::{RecoverOptions, RecoverReport, State, recover_session};

/// Kills of a run, unless the environment says otherwise.
const ROUNDS: u64 = 80;
const FIRST_SEED: &str = "STORMLOG_SEED";

#[cfg(feature = "cli")]
fn verify(plan: Plan, dir: &Path, ledger: &Ledger) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    let output = command
        .current_dir(dir)
        .args(["verify", "."])
        .output()
        .unwrap();
    // Lost `Always` records are a finding of their own.
    let lost = ledger
        .categories
        .get("errors")
        .map_or(0, Account::dropped_total);
    let code = output.status.code();
    assert_eq!(
        code,
        Some(i32::from(lost > 0)),
        "{plan:?}: {ledger:?}: {output:?}"
    );
}

/// The child process.
#[test]
fn child() {
    crash::child();
}

#[derive(Default)]
struct Totals {
    records: u64,
    told: u64,
    rings: u64,
    spill: u64,
    sampled_out: u64,
    shed: u64,
    live: u64,
    recoveries_killed: u64,
    conversions_killed: u64,
}

fn round(plan: Plan, totals: &mut Totals) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let page = crash::crash(plan, dir, 0);
    let id = crash::only_session(dir);
    totals.live += crash::check_live_lines(plan, dir, &id);
    let look = RecoverOptions {
        dry_run: true,
        ..RecoverOptions::default()
    };
    let looked = recover_session(dir, &id, look).unwrap();
    let mut random = Random(plan.seed ^ 0xdead);
    let mut delay = || Duration::from_micros(random.below(25_000));
    let mut again = false;
    if plan.seed.is_multiple_of(3) {
        let role = format!("recover {id}");
        for _ in 0..2 {
            let killed = crash::interrupt(dir, &role, delay());
            totals.recoveries_killed += u64::from(killed);
            again = true;
        }
    }
    let report = crash::recover(dir, &id);
    let state = match report.state {
        State::Complete if again => looked.state,
        state => state,
    };
    assert_eq!(state, State::Recovered, "{plan:?}: {report:?}");
    assert_eq!(report.faults, Vec::<String>::new(), "{plan:?}");
    if plan.seed % 3 == 1 {
        let role = format!("convert {id}");
        for _ in 0..2 {
            let killed = crash::interrupt(dir, &role, delay());
            totals.conversions_killed += u64::from(killed);
        }
    }
    let ledger = crash::convert(dir, &id);
    assert_eq!(ledger, looked.ledger, "{plan:?}: a look says the same");
    let found = crash::check_all(plan, dir, &id, &page, &ledger);
    #[cfg(feature = "cli")]
    if plan.seed.is_multiple_of(8) {
        verify(plan, dir, &ledger);
    }
    totals.add(plan, &page, &looked, found);
}

impl Totals {
    fn add(&mut self, plan: Plan, page: &crash::Page, report: &RecoverReport, found: Found) {
        self.records += found.records;
        self.told += page.all(plan, Told::Kept);
        self.rings += report.from_rings;
        self.spill += report.from_spill;
        self.sampled_out += page.all(plan, Told::SampledOut);
        self.shed += found.shed;
    }
}

#[test]
fn every_record_that_was_told_of_survives_a_kill() {
    let rounds = crash::number_of("STORMLOG_ROUNDS", ROUNDS);
    let first = crash::number_of(FIRST_SEED, 0);
    let mut totals = Totals::default();
    for seed in first..first + rounds {
        round(Plan::new(seed), &mut totals);
    }
    let Totals {
        records,
        told,
        rings,
        spill,
        sampled_out,
        shed,
        live,
        recoveries_killed,
        conversions_killed,
    } = totals;
    println!(
        "seeds {first} to {}: {rounds} kills, {told} records told of, {records} found, {rings} of \
         them only in rings, {spill} only in the spill; {sampled_out} sampled out, {shed} shed \
         from rings; {live} lines were appended before; killed too: {recoveries_killed} \
         recoveries, {conversions_killed} conversions",
        first + rounds - 1
    );
    let proven = rings > 0 && spill > 0 && sampled_out > 0 && live > 0;
    let proven = proven && recoveries_killed > 0 && conversions_killed > 0;
    assert!(
        proven || rounds < ROUNDS,
        "nothing was at stake: this proves nothing"
    );
}
