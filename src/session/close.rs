//! Ending a session.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::live::LiveThread;
use super::{CloseReport, Live, dirs};
use crate::config::Conversion;
use crate::convert::{ConvertOptions, ConvertReport, convert_into, convert_over};
use crate::error::Error;
use crate::segment::files::{LIVE_NAME, SessionFiles};
use crate::segment::ledger_file::CLOSED;
use crate::sys::dir::Dir;
use crate::sys::report::say;

/// How often, and in which steps, running pushes are waited for: 1 s in all.
const BUSY_TRIES: u32 = 5_000;
const BUSY_PAUSE: Duration = Duration::from_micros(200);
/// How often the end of another conversion is looked for.
const TURN_PAUSE: Duration = Duration::from_millis(2);

impl Live {
    /// Ends the session; `reason` goes into `session_end`. Whoever comes second waits for the first
    /// and is told the same.
    pub(super) fn close(self: &Arc<Self>, reason: &'static str) -> Result<CloseReport, Error> {
        if self.core.gates.is_forked() {
            self.leave_to_parent();
            return Err(Error::Forked);
        }
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = &*closed {
            return Ok(report.clone());
        }
        let report = self.end(reason)?;
        *closed = Some(report.clone());
        Ok(report)
    }

    fn end(self: &Arc<Self>, reason: &'static str) -> Result<CloseReport, Error> {
        let mut report = CloseReport {
            session_id: self.id.clone(),
            rings: self.rings.text.clone(),
            ..CloseReport::default()
        };
        self.core.begin_closing();
        fail_point!("close.begun");
        let pause = || std::thread::sleep(BUSY_PAUSE);
        let busy = self.core.storage.close_producers(BUSY_TRIES, pause);
        if busy > 0 {
            report.faults.push(format!(
                "{busy} threads were inside a push and did not leave it"
            ));
        }
        let counting = (0..BUSY_TRIES).find(|_| {
            let done = !self.core.is_counting();
            if !done {
                pause();
            }
            done
        });
        if counting.is_none() {
            report
                .faults
                .push("a thread did not finish counting a dropped record".to_owned());
        }
        let resources = self.resources.lock();
        if let Some(resources) = resources.unwrap_or_else(PoisonError::into_inner).take() {
            resources.stop();
        }
        fail_point!("close.quiet");
        self.control.stop(reason, busy);
        self.core.wake.unpark();
        let failed = |what: &str| Error::WriterFailed {
            what: what.to_owned(),
        };
        let threads = self
            .take_threads()
            .ok_or_else(|| failed("it was joined before"))?;
        let end = threads.writer.join().map_err(|_| failed("it panicked"))?;
        report.duration = self.started.elapsed();
        report.ledger = end.ledger;
        report.segment_bytes = end.segment_bytes;
        report.wakes = self.core.wake.wakes();
        report.spilled = self.core.storage.spill.spilled();
        report.always_waits = self.core.losses.waits();
        report.always_lost = self.core.losses.lost();
        report.faults.extend(end.faults);
        let (faults, mut ledger_file) = threads
            .helper
            .join()
            .map_err(|_| failed("its helper panicked"))?;
        report.faults.extend(faults);
        if let Some(syncer) = threads.syncer {
            let faults = syncer.join().map_err(|_| failed("its sync panicked"))?;
            report.faults.extend(faults);
        }
        if let Err(error) = ledger_file.publish(report.ledger.clone(), CLOSED) {
            // The helper may have met the same one.
            let fault = error.to_string();
            if !report.faults.contains(&fault) {
                report.faults.push(fault);
            }
        }
        fail_point!("close.published");
        // Unsealed, it is a case for recovery, which needs them.
        if end.sealed
            && let Err(error) = self.rings.remove(&self.session_dir)
        {
            report.faults.push(error.to_string());
        }
        if !report.ledger.is_exact() {
            report
                .faults
                .push("the ledger does not add up: this is a defect".to_owned());
        }
        report.faults.extend(self.core.losses.sentence());
        let registry_full = self.core.registry_full();
        if registry_full > 0 {
            report.faults.push(format!(
                "the registry was full {registry_full} times: records carry texts instead of \
                 symbols, or describe themselves in custom"
            ));
        }
        let skipped = self.core.rules.as_ref().map_or(0, |rules| rules.skipped());
        if skipped > 0 {
            report.faults.push(format!(
                "stress rules were not evaluated {skipped} times: too many threads at once"
            ));
        }
        report.segments = Some(self.session_dir.path().to_owned());
        let deadline = Instant::now() + self.settings.close_deadline;
        if let Some(live) = threads.live {
            self.end_live(live, deadline, &mut report);
        }
        self.convert(deadline, &mut report);
        Ok(report)
    }

    /// Waits until all lines are appended. Where the session converts itself, what is missing is
    /// no trouble yet.
    fn end_live(&self, live: LiveThread, deadline: Instant, report: &mut CloseReport) {
        let end = live.end(deadline);
        report.late = end.late;
        if end.panicked {
            let fault = "the thread that appends lines panicked";
            report.faults.push(fault.to_owned());
        }
        if self.settings.conversion == Conversion::Later {
            let missing = end.missing.map(|what| {
                format!("lines are missing in the files ({what}): use stormlog convert")
            });
            report.faults.extend(missing);
            self.forget_live(report);
        }
    }

    /// The files of lines are not to be made by whoever comes next.
    fn forget_live(&self, report: &mut CloseReport) {
        if self.settings.live
            && let Err(error) = self.session_dir.remove_file(LIVE_NAME)
        {
            report.faults.push(error.to_string());
        }
    }

    /// In a forked child the threads and files of the session are the parent's.
    fn leave_to_parent(self: &Arc<Self>) {
        match self.threads.try_lock() {
            Ok(mut threads) => {
                std::mem::forget(threads.take());
                if let Ok(mut resources) = self.resources.try_lock() {
                    std::mem::forget(resources.take());
                }
            }
            // A thread of the parent was closing the session: the handles must not be dropped here,
            // and nothing that could be dropped is worth a wait without an end.
            Err(_) => std::mem::forget(Arc::clone(self)),
        }
    }

    fn convert(self: &Arc<Self>, deadline: Instant, report: &mut CloseReport) {
        match self.settings.conversion {
            Conversion::Later => {}
            Conversion::Wait => self.convert_until(Some(deadline), report),
            Conversion::Background => {
                let mut background = report.clone();
                let live = Arc::clone(self);
                let spawned = std::thread::Builder::new()
                    .name("stormlog-convert".to_owned())
                    .spawn(move || {
                        background.faults.clear();
                        live.convert_until(None, &mut background);
                        for fault in background.faults {
                            say(&format!("session {}: {fault}", background.session_id));
                        }
                    });
                if let Err(error) = spawned {
                    report.faults.push(format!(
                        "cannot start a thread for the conversion: {error}; use stormlog convert"
                    ));
                }
            }
        }
    }

    fn convert_until(&self, deadline: Option<Instant>, report: &mut CloseReport) {
        let options = ConvertOptions {
            deadline,
            sync: !self.settings.keep_segments,
            ..Default::default()
        };
        let _turn = self.wait_for_turn(deadline);
        let converted = self
            .session_dir
            .try_clone()
            .and_then(|dir| SessionFiles::in_dir(dir, self.log_dir.path()))
            .and_then(|files| {
                let convert = if self.settings.live {
                    convert_over
                } else {
                    convert_into
                };
                convert(&files, &self.log_dir, options)
            });
        match converted {
            Ok(converted) => self.converted(converted, report),
            Err(Error::TimedOut { .. }) => report.faults.push(format!(
                "the conversion did not end within {} ms: the segments stay in {}; \
                 use stormlog convert",
                self.settings.close_deadline.as_millis(),
                self.session_dir.path().display()
            )),
            Err(error) => report.faults.push(format!(
                "the conversion failed, the segments stay in {}: {error}",
                self.session_dir.path().display()
            )),
        }
    }

    /// Waits while another process converts what this session has recorded so far: the last
    /// conversion to end has to be ours, which is the whole one. Where directories cannot be
    /// locked nobody else converts a session that is alive.
    fn wait_for_turn(&self, deadline: Option<Instant>) -> Option<Dir> {
        let dir = self.root_dir.open_dir(&self.id).ok()?;
        let in_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
        while dir.try_lock() == Ok(false) && in_time() {
            std::thread::sleep(TURN_PAUSE);
        }
        Some(dir)
    }

    /// The files are there. Segments go when every line is accounted for.
    fn converted(&self, converted: ConvertReport, report: &mut CloseReport) {
        let verified = converted.faults.is_empty();
        report.files = converted.files;
        report.redacted = converted.redacted;
        report.faults.extend(converted.faults);
        if self.settings.keep_segments || !verified {
            self.forget_live(report);
        }
        if verified && !self.settings.keep_segments {
            match dirs::remove(&self.root_dir, &self.session_dir, &self.id) {
                Ok(()) => report.segments = None,
                Err(error) => report.faults.push(error.to_string()),
            }
        }
    }
}
