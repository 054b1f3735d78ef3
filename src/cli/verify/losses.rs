//! Which records were lost, and whether `Always` records are among them.

use super::check::{Facts, Findings};
use crate::cli::human;
use crate::ledger::{Account, DROP_REASONS, DropReason};
use crate::record::{CATEGORIES_ALWAYS, KeepClass};

impl Facts {
    /// Whether a category has `Always` records only (`Some(true)`), none (`Some(false)`), or some.
    fn is_always(&self, name: &str) -> Option<bool> {
        let registry = self.survey.as_ref().map(|survey| &survey.registry);
        let schemas = registry.into_iter().flat_map(|registry| {
            let of_name = |category| registry.category(category) == Some(name);
            registry.schemas().filter(move |s| of_name(s.category))
        });
        let keeps: Vec<bool> = schemas.map(|s| s.keep == KeepClass::Always).collect();
        match keeps.as_slice() {
            [] => Some(CATEGORIES_ALWAYS.contains(&name)),
            keeps if keeps.iter().all(|always| *always) => Some(true),
            keeps if keeps.iter().any(|always| *always) => None,
            _ => Some(false),
        }
    }

    /// Counts what was lost, of which kind, and for which reason.
    pub(super) fn check_losses(&self, findings: &mut Findings) {
        let Some((ledger, from)) = &findings.ledger else {
            return;
        };
        let file = self.file_of(from);
        let (mut lost, mut notes, mut sum) = (Vec::new(), Vec::new(), 0_u64);
        for (name, account) in &ledger.categories {
            let always = self.is_always(name);
            let of_always =
                |reason: DropReason| reason == DropReason::AlwaysBudget || always == Some(true);
            let counts = |keep: bool| {
                let reasons = DROP_REASONS
                    .iter()
                    .filter(|reason| of_always(**reason) == keep);
                let reasons = reasons.filter(|reason| account.dropped(**reason) > 0);
                reasons.copied().collect::<Vec<_>>()
            };
            let (of_always, others) = (counts(true), counts(false));
            if !of_always.is_empty() {
                let dropped = of_always.iter().map(|reason| account.dropped(*reason));
                let dropped = dropped.fold(0, u64::saturating_add);
                sum = sum.saturating_add(dropped);
                lost.push(format!(
                    "{file}: {} of {name} lost ({}); {}",
                    human::counted(dropped, "Always record"),
                    reasons(account, &of_always),
                    of_always.first().map_or("", |reason| remedy(*reason))
                ));
            }
            if !others.is_empty() {
                let perhaps = match always {
                    None => ", and Always records may be among them",
                    _ => "",
                };
                let what = reasons(account, &others);
                notes.push(format!("{name}: dropped ({what}){perhaps}"));
            }
            if account.interrupted() > 0 {
                let pushes = human::counted(account.interrupted(), "push");
                notes.push(format!(
                    "{name}: {pushes} interrupted by a panic or by the close"
                ));
            }
        }
        findings.lost = lost;
        findings.always_lost = sum;
        findings.notes.extend(notes);
    }
}

fn reasons(account: &Account, reasons: &[DropReason]) -> String {
    let texts = reasons.iter().map(|reason| {
        format!(
            "{}: {}",
            reason.name(),
            human::count(account.dropped(*reason))
        )
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// What keeps it from happening again.
fn remedy(reason: DropReason) -> &'static str {
    match reason {
        DropReason::AlwaysBudget | DropReason::NoRing | DropReason::RingFull => {
            "raise STORMLOG_RING_TOTAL_BYTES"
        }
        DropReason::LargeBudget => "raise STORMLOG_LARGE_TOTAL_BYTES",
        DropReason::Disk => "give the log directory more space",
        DropReason::Reentrant => "push from signal handlers only on threads that do not push",
        DropReason::RateLimit | DropReason::Repeat => "such records have no limits: a defect",
        DropReason::RegistryFull => "use fewer record types",
        DropReason::Damaged => "something wrote over the memory of the rings",
    }
}
