//! What the storm prints.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::check::{Checked, Found};
use super::proof::{Failure, Figures};
use super::run::{Plan, Run};
use super::traffic::{CATEGORIES, Phase, STRESS};
use crate::cli::human::{self, Table};
use crate::cli::output::files_json;
use hdrhistogram::Histogram;

/// The result with everything that is known about it.
pub struct Report<'a> {
    pub plan: &'a Plan,
    pub run: &'a Run,
    pub found: &'a Found,
    pub figures: Figures,
    /// What two readings of the clock take, ns.
    pub clock_ns: u64,
    pub failures: Vec<Failure>,
}

const PHASES: [(&str, Phase); 3] = [
    ("before", Phase::Before),
    ("storm", Phase::Storm),
    ("after", Phase::After),
];

impl Report<'_> {
    /// One JSON object on one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let (run, found, figures) = (self.run, self.found, &self.figures);
        let named = CATEGORIES.iter().zip(&found.categories);
        let categories: Map<String, Json> = named
            .map(|(name, checked)| ((*name).to_owned(), category_json(checked)))
            .collect();
        let latency = &run.latency;
        let mut phases = Map::new();
        for (name, phase) in PHASES {
            let mut times = times_json(&latency.phases[phase as usize]);
            times["offered"] = run.offered(phase).into();
            phases.insert(name.to_owned(), times);
        }
        let failed: Vec<_> = self
            .failures
            .iter()
            .map(|failure| json!({"bar": failure.bar, "what": failure.what}))
            .collect();
        let stress = found.stress;
        let report = json!({
            "seed": self.plan.seed,
            "threads": self.plan.threads,
            "storm_seconds": run.storm_seconds(),
            "drain_bytes_per_second": self.plan.drain_bytes,
            "offered_per_second": figures.offered_per_second,
            "capacity_per_second": figures.capacity_per_second,
            "overload": figures.overload,
            "drained_bytes": run.drained.bytes,
            "categories": categories,
            "stress": {
                "offered": stress.offered,
                "written": stress.written,
                "missing": stress.missing,
                "twice": stress.twice,
                "unknown": stress.unknown,
                "spilled": run.closed.spilled,
                "waits": run.closed.always_waits,
            },
            "push_ns": {
                "phases": phases,
                "storm_kept": times_json(&latency.kept),
                "storm_stress": times_json(&latency.stress),
                "clock_p50": self.clock_ns,
                "p50_ratio": figures.p50_ratio,
            },
            "first_left_out_ms": run.first_left_out.map(|after| after.as_secs_f64() * 1e3),
            "episodes": found.episodes.iter().map(|episode| json!({
                "cause": episode.cause,
                "duration_ms": episode.duration_ms,
                "pressure": episode.pressure,
            })).collect::<Vec<_>>(),
            "memory_kib": {
                "before": run.memory.before_kib,
                "peak": run.memory.peak_kib,
                "grown": figures.memory_grown_kib,
                "bound": figures.memory_bound_kib,
            },
            "session_id": run.closed.session_id,
            "ledger": run.closed.ledger.to_json(),
            "files": files_json(&run.closed.files),
            "segments": run.closed.segments.as_ref().map(|path| path.display().to_string()),
            "segment_bytes": run.closed.segment_bytes,
            "wakes": run.closed.wakes,
            "holds": self.failures.is_empty(),
            "failed": failed,
        });
        writeln!(out, "{report}")
    }

    /// For people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_text(&self, out: &mut impl Write, plot: Option<&Path>) -> io::Result<()> {
        let (run, plan, figures) = (self.run, self.plan, &self.figures);
        writeln!(
            out,
            "Storm of {:.1} s, {} threads, seed {}. The writer was held to {} per second.\n\
             Offered {} records per second, {:.0} times the {} that it can take.\n",
            run.storm_seconds(),
            plan.threads,
            plan.seed,
            human::bytes(plan.drain_bytes),
            human::count(figures.offered_per_second as u64),
            figures.overload,
            human::count(figures.capacity_per_second as u64),
        )?;
        writeln!(out, "{}", human::ledger(&run.closed.ledger))?;
        if let Some(reasons) = human::drop_reasons(&run.closed.ledger) {
            writeln!(out, "  {reasons}")?;
        }
        self.write_stress(out)?;
        self.write_estimates(out)?;
        self.write_calls(out)?;
        self.write_rest(out)?;
        if self.failures.is_empty() {
            writeln!(out, "\nThe proof holds.")?;
        } else {
            writeln!(out, "\nTHE PROOF FAILS")?;
            for failure in &self.failures {
                writeln!(out, "  {}: {}", failure.bar, human::plain(&failure.what))?;
            }
        }
        self.write_next(out, plot)
    }

    fn write_stress(&self, out: &mut impl Write) -> io::Result<()> {
        let stress = self.found.stress;
        writeln!(
            out,
            "\nPlanted stress events: offered {}, written {}, missing {}, twice {}.",
            human::count(stress.offered),
            human::count(stress.written),
            human::count(stress.missing),
            human::count(stress.twice),
        )?;
        writeln!(
            out,
            "  {} took the spill, {} pushes waited for room (1 ms at most).",
            human::count(self.run.closed.spilled),
            human::count(self.run.closed.always_waits),
        )
    }

    fn write_estimates(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\nEstimate from the lines against the truth (not dropped)"
        )?;
        let heads = [
            "category",
            ">truth",
            ">estimate",
            ">from",
            ">to",
            "(95 %)",
            ">lines",
        ];
        let mut table = Table::new(&heads);
        let named = CATEGORIES.iter().zip(&self.found.categories);
        for (name, checked) in named.take(STRESS) {
            let estimate = &checked.estimate;
            let verdict = match (estimate.too_few, checked.is_inside()) {
                (true, _) => "too few",
                (false, true) => "inside",
                (false, false) => "outside",
            };
            let number = |value: f64| human::count(value.max(0.0).round() as u64);
            table.row([
                (*name).to_owned(),
                number(checked.meant()),
                number(estimate.total),
                number(estimate.low),
                number(estimate.high),
                verdict.to_owned(),
                human::count(checked.lines),
            ]);
        }
        writeln!(out, "{table}")
    }

    fn write_calls(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\nCaller: time of a push (each 7th is timed; {} of each are the clock)",
            human::nanos(self.clock_ns)
        )?;
        let mut table = Table::new(&["", ">p50", ">p99", ">p99.9", ">max", ">offered"]);
        let latency = &self.run.latency;
        let row = |name: &str, times: &Histogram<u64>, offered: String| {
            let at = |quantile| human::nanos(times.value_at_quantile(quantile));
            let max = human::nanos(times.max());
            [name.to_owned(), at(0.5), at(0.99), at(0.999), max, offered]
        };
        for (name, phase) in PHASES {
            let offered = human::count(self.run.offered(phase));
            table.row(row(name, &latency.phases[phase as usize], offered));
        }
        table.row(row("storm, kept", &latency.kept, String::new()));
        table.row(row("storm, stress", &latency.stress, String::new()));
        writeln!(out, "{table}")?;
        writeln!(
            out,
            "  Without the clock the median is {:.2} times that before the storm. The tail is \
             that of the machine:\n  {} threads and the writer share its cores, and a thread that \
             is put aside in a push waits for its turn.",
            self.figures.p50_ratio, self.plan.threads
        )
    }

    fn write_rest(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        if let Some(after) = self.run.first_left_out {
            let after = human::nanos(after.as_nanos() as u64);
            writeln!(
                out,
                "The first record was left out {after} after the storm began."
            )?;
        }
        for episode in &self.found.episodes {
            let duration = match episode.duration_ms {
                Some(ms) => format!("{:.2} s", ms / 1e3),
                None => "no end".to_owned(),
            };
            writeln!(
                out,
                "Episode of sampling: {duration}, cause {}, at most 1 in {} kept.",
                human::plain(&episode.cause),
                human::count(1 << episode.pressure.min(63)),
            )?;
        }
        writeln!(
            out,
            "Memory (anonymous, measuring included) grew by {}; rings and spill may take {}.",
            human::bytes(self.figures.memory_grown_kib * 1024),
            human::bytes(self.figures.memory_bound_kib * 1024),
        )
    }

    fn write_next(&self, out: &mut impl Write, plot: Option<&Path>) -> io::Result<()> {
        let closed = &self.run.closed;
        if let Some(path) = plot {
            writeln!(out, "Plot: {}", path.display())?;
        }
        let dir = human::shell(&self.plan.dir.display().to_string());
        writeln!(out, "\nTry next")?;
        let stress = closed.files.iter().find(|file| file.category == "stress");
        if let Some(file) = stress {
            let path = human::shell(&file.path.display().to_string());
            writeln!(out, "  grep sampling_ {path}")?;
        }
        writeln!(out, "  stormlog sessions {dir}")?;
        if let Some(segments) = &closed.segments {
            let segments = human::shell(&segments.display().to_string());
            writeln!(out, "  stormlog verify {segments}")?;
        }
        Ok(())
    }
}

fn times_json(times: &Histogram<u64>) -> Json {
    json!({
        "count": times.len(),
        "p50": times.value_at_quantile(0.5),
        "p99": times.value_at_quantile(0.99),
        "p999": times.value_at_quantile(0.999),
        "max": times.max(),
    })
}

fn category_json(checked: &Checked) -> Json {
    let (truth, estimate) = (&checked.truth, &checked.estimate);
    json!({
        "truth": {
            "offered": truth.offered(),
            "kept": truth.kept,
            "sampled_out": truth.sampled_out,
            "dropped": truth.dropped,
        },
        "lines": checked.lines,
        "estimate": estimate.total,
        "low": estimate.low,
        "high": estimate.high,
        "clusters": estimate.clusters,
        "too_few": estimate.too_few,
        "inside": checked.is_inside(),
        "sigmas": checked.sigmas(),
    })
}
