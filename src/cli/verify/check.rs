//! The rules that the counts of a session have to keep. Pure: what was read goes in, sentences
//! come out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::ledger::{Account, INTERRUPTED, Ledger, OFFERED, SAMPLED_OUT};
use crate::segment::figures::Figures;
use crate::segment::survey::Survey;

use super::durations::Found;
use super::lines::Counted;
use crate::cli::human;
use crate::cli::places::Place;

/// What a conversion of the segments would give.
#[derive(Clone, Debug, Default)]
pub struct Recounted {
    /// Lines by category.
    pub lines: BTreeMap<String, u64>,
    /// The ledger in the `session_end` of the segments.
    pub ledger: Option<Ledger>,
    /// Whether the session was closed.
    pub sealed: bool,
    /// What is not as it should be, as sentences.
    pub faults: Vec<String>,
    /// Category and byte from which on its file is another one.
    pub differs: Vec<(String, u64)>,
}

/// Everything that was read of a session.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its files.
    pub place: Place,
    /// A process records it.
    pub live: bool,
    /// Another process makes its lines: they are not looked at.
    pub converting: bool,
    /// What its files `ledger` and `rings` say.
    pub figures: Option<Figures>,
    /// What is in its segments.
    pub survey: Option<Survey>,
    /// What its segments give; not for a live session.
    pub recounted: Option<Recounted>,
    /// The durations of the records in whole segments; not for a live session.
    pub durations: Option<Found>,
    /// What is in its files with lines, by category.
    pub lines: BTreeMap<String, Counted>,
}

/// The result.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What disagrees: a sentence each, with file and remedy.
    pub disagreements: Vec<String>,
    /// `Always` records that were lost: a sentence per category.
    pub lost: Vec<String>,
    /// How many.
    pub always_lost: u64,
    /// What should be known and is no fault.
    pub notes: Vec<String>,
    /// The ledger that was checked, and which one it is.
    pub ledger: Option<(Ledger, &'static str)>,
}

impl Facts {
    /// Compares everything with everything.
    pub fn check(&self) -> Findings {
        let mut findings = Findings {
            ledger: self.ledger(),
            ..Findings::default()
        };
        self.check_files(&mut findings);
        if self.live {
            findings
                .notes
                .push("it is still being recorded: checked as far as that is possible".to_owned());
        } else {
            if self.converting {
                findings.disagreements.push(format!(
                    "{}: another process is converting it, so its lines are not compared; verify \
                     it again when that has ended",
                    self.session_dir().display()
                ));
            }
            self.check_ends(&mut findings);
            self.check_lines(&mut findings);
            self.check_durations(&mut findings);
        }
        self.check_published(&mut findings);
        self.check_losses(&mut findings);
        findings
    }

    /// The best ledger there is, and where it stands.
    fn ledger(&self) -> Option<(Ledger, &'static str)> {
        let of_lines = self.lines.get("session").and_then(|c| c.ledger.clone());
        let of_segments = || self.recounted.as_ref()?.ledger.clone();
        let figures = || Some(self.figures.as_ref()?.ledger.clone());
        let figures = || figures().filter(|ledger| !ledger.categories.is_empty());
        of_lines
            .map(|ledger| (ledger, "lines"))
            .or_else(|| of_segments().map(|ledger| (ledger, "segments")))
            .or_else(|| figures().map(|ledger| (ledger, "ledger")))
    }

    /// The final ledger.
    fn last_ledger(&self) -> Option<(Ledger, &'static str)> {
        let is_last = |from: &str| from != "ledger" || self.is_final();
        self.ledger().filter(|(_, from)| is_last(from))
    }

    fn is_final(&self) -> bool {
        self.figures.as_ref().is_some_and(Figures::is_final)
    }

    fn session_dir(&self) -> PathBuf {
        let dir = self.place.session_dir.as_ref();
        dir.unwrap_or(&self.place.log_dir).clone()
    }

    /// Where a ledger stands.
    pub(super) fn file_of(&self, from: &str) -> String {
        match from {
            "lines" => self.place.line_file("session").display().to_string(),
            "segments" => self.session_dir().display().to_string(),
            _ => self.session_dir().join("ledger").display().to_string(),
        }
    }

    /// What puts lines right.
    fn lines_remedy(&self) -> String {
        if self.recounted.is_some() {
            let dir = human::shell(&self.session_dir().display().to_string());
            format!("make it anew: stormlog convert {dir}")
        } else {
            "its segments are gone, so take it from a copy".to_owned()
        }
    }

    /// Damage that was found while reading.
    fn check_files(&self, findings: &mut Findings) {
        let remedy = self.lines_remedy();
        for (category, counted) in &self.lines {
            let path = self.place.line_file(category);
            for fault in &counted.faults {
                let sentence = format!("{}: {fault}; {remedy}", path.display());
                findings.disagreements.push(sentence);
            }
        }
        let segments = match (&self.recounted, &self.survey) {
            (Some(recounted), _) => &recounted.faults,
            (None, Some(survey)) => &survey.faults,
            _ => &Vec::new(),
        };
        let figures = self.figures.iter().flat_map(|figures| &figures.faults);
        let dir = self.session_dir().display().to_string();
        let remedy = "take the file from a copy; stormlog convert --salvage saves what can be read";
        let mut seen = BTreeSet::new();
        for fault in segments.iter().chain(figures) {
            if !seen.insert(fault) {
                continue;
            }
            let place = if fault.contains(&dir) {
                String::new()
            } else {
                format!("{dir}: ")
            };
            findings
                .disagreements
                .push(format!("{place}{fault}; {remedy}"));
        }
    }

    /// The ends of the session: in lines, in segments, and in the file `ledger`.
    fn check_ends(&self, findings: &mut Findings) {
        let of_lines = self.lines.get("session").and_then(|c| c.ledger.as_ref());
        let recounted = self.recounted.as_ref();
        let of_segments = recounted.and_then(|recounted| recounted.ledger.as_ref());
        let path = self.place.line_file("session");
        let path = path.display();
        let remedy = self.lines_remedy();
        if of_lines.is_none() && !self.lines.is_empty() {
            findings.disagreements.push(format!(
                "{path}: there is no session_end in it, so the final counts are not known; {remedy}"
            ));
        } else if of_lines.is_none() && !recounted.is_some_and(|recounted| recounted.sealed) {
            let dir = self.session_dir();
            let convert = human::shell(&dir.display().to_string());
            findings.disagreements.push(format!(
                "{}: the session was not closed, so its final counts are not known; \
                 stormlog convert {convert} makes lines of what was recorded",
                dir.display()
            ));
        }
        if let (Some(lines), Some(segments)) = (of_lines, of_segments)
            && lines != segments
        {
            findings.disagreements.push(format!(
                "{path}: its session_end is not that of the segments; {remedy}"
            ));
        }
        let Some((ledger, from)) = self.last_ledger() else {
            return;
        };
        let file = self.file_of(from);
        // The conversion has checked its own.
        let checked = of_segments == Some(&ledger);
        for (name, account) in ledger.categories.iter().filter(|_| !checked) {
            if !account.is_exact() {
                findings.disagreements.push(format!(
                    "{file}: the counts of {name} do not add up ({}); take it from a copy",
                    equation(account)
                ));
            }
        }
    }

    /// Lines against records in segments and against what the ledger says was written.
    fn check_lines(&self, findings: &mut Findings) {
        let ledger = self.last_ledger();
        let said = |name: &str| {
            let (ledger, _) = ledger.as_ref()?;
            Some(ledger.categories.get(name).map_or(0, Account::written))
        };
        let in_segments = |name: &str| {
            let recounted = self.recounted.as_ref()?;
            Some(recounted.lines.get(name).copied().unwrap_or(0))
        };
        let mut names: BTreeSet<&str> = self.lines.keys().map(String::as_str).collect();
        let ledgers = ledger.iter().flat_map(|(ledger, _)| &ledger.categories);
        names.extend(ledgers.map(|(name, _)| name.as_str()));
        let recounted = self.recounted.iter();
        names.extend(recounted.flat_map(|recounted| recounted.lines.keys().map(String::as_str)));
        let remedy = self.lines_remedy();
        let from = ledger.as_ref().map_or("", |(_, from)| from);
        let of_segments = self
            .recounted
            .as_ref()
            .and_then(|found| found.ledger.as_ref());
        let ledger_is = |other: &Ledger| ledger.as_ref().is_some_and(|(own, _)| own == other);
        for name in names {
            let path = self.place.line_file(name);
            let path = path.display();
            let lines = self.lines.get(name).map(|counted| counted.lines);
            let (said, found) = (said(name), in_segments(name));
            // What the conversion tells of its own session_end, which it takes with or without
            // the record that carries it.
            let told = of_segments.is_some_and(ledger_is)
                && !(name == "session" && found == said.map(|said| said.saturating_add(1)));
            if let (Some(said), Some(found)) = (said, found)
                && said != found
                && !told
            {
                findings.disagreements.push(format!(
                    "{}: {name}: {said} records were written, {found} are in the segments; take \
                     the segments from a copy",
                    self.file_of(from)
                ));
            }
            // Not converted yet.
            if self.lines.is_empty() {
                continue;
            }
            let Some(expected) = found.or(said) else {
                continue;
            };
            match lines {
                None if expected > 0 => findings.disagreements.push(format!(
                    "{path}: is missing, {expected} records were written; {remedy}"
                )),
                Some(lines) if lines != expected => findings.disagreements.push(format!(
                    "{path}: has {}, {expected} records were written; {remedy}",
                    human::counted(lines, "line")
                )),
                _ => self.check_content(name, findings),
            }
        }
    }

    /// The durations that the session tells at its end.
    fn check_durations(&self, findings: &mut Findings) {
        let Some((ledger, _)) = self.last_ledger() else {
            return;
        };
        let Some(session) = self.lines.get("session") else {
            return;
        };
        let path = self.place.line_file("session");
        let registry = self.survey.as_ref().map(|survey| &survey.registry);
        let found = self.durations.as_ref().zip(registry);
        let faults = session.durations.check(&ledger, found);
        for fault in faults {
            findings.disagreements.push(format!(
                "{}: {fault}; {}",
                path.display(),
                self.lines_remedy()
            ));
        }
    }

    fn check_content(&self, name: &str, findings: &mut Findings) {
        let differs = self.recounted.iter().flat_map(|found| &found.differs);
        for (_, at) in differs.filter(|(category, _)| category == name) {
            findings.disagreements.push(format!(
                "{}: from byte {at} on it is not what its segments give; {}",
                self.place.line_file(name).display(),
                self.lines_remedy()
            ));
        }
    }

    /// The file `ledger` against what the session has written since, and against its end.
    fn check_published(&self, findings: &mut Findings) {
        let Some(published) = self.figures.as_ref().and_then(|f| f.published.as_ref()) else {
            return;
        };
        let file = self.file_of("ledger");
        let before = published.ledger();
        let end = self.ledger().filter(|(_, from)| *from != "ledger");
        let goes_on = self.live || !published.closed;
        for (name, then) in &before.categories {
            if let Some((end, _)) = end.as_ref().filter(|_| !self.live) {
                let last = end.categories.get(name).copied().unwrap_or_default();
                let grew = |index: &usize| then.counters[*index] <= last.counters[*index];
                let fits = if published.closed {
                    *then == last
                } else {
                    (0..=INTERRUPTED).all(|index| grew(&index))
                };
                if !fits {
                    findings.disagreements.push(format!(
                        "{file}: {name}: its counts ({}) are not those of session_end ({}); one of \
                         both was changed, take it from a copy",
                        equation(then),
                        equation(&last)
                    ));
                }
            } else if let Some(survey) = self.survey.as_ref().filter(|_| goes_on) {
                let found = survey.by_category().get(name).copied().unwrap_or(0);
                if found < then.written() {
                    findings.disagreements.push(format!(
                        "{file}: {name}: {} records were written, {found} are in the segments; \
                         take the segments from a copy",
                        then.written()
                    ));
                }
            }
        }
    }
}

fn equation(account: &Account) -> String {
    format!(
        "offered {}, written {}, sampled_out {}, dropped {}, interrupted {}",
        account.counters[OFFERED],
        account.written(),
        account.counters[SAMPLED_OUT],
        account.dropped_total(),
        account.interrupted()
    )
}
