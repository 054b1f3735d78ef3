//! The thread that appends lines to their files while the session records (`live`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::dirs;
use super::start::spawn;
use crate::config::Settings;
use crate::convert::LiveConverter;
use crate::core::{Core, LiveFeed};
use crate::error::Error;
use crate::segment::files::LIVE_NAME;
use crate::sys::report::say;
use crate::writer::{Control, Request};

/// How long a record is waited for that was begun before those that are there.
const WINDOW: Duration = Duration::from_millis(50);
/// The shortest and the longest pause while records wait for the end of their window.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = WINDOW;
/// So many windows are waited for a writer that does not get on.
const WINDOWS_MAX: u64 = 20;
/// Pause when segments cannot be read or lines not be written.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long a call waits for the segment of its record (`line_sync`).
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// What the thread leaves behind.
#[derive(Debug, Default)]
pub(super) struct LiveEnd {
    /// Lines that were appended behind later ones.
    pub(super) late: u64,
    /// Why lines are missing in the files, if some are.
    pub(super) missing: Option<String>,
}

/// The thread, while it runs.
#[derive(Debug)]
pub(super) struct LiveThread(JoinHandle<LiveEnd>);

/// What a session with `live` has for the thread, which is to be started.
pub(super) fn feed(settings: &Settings, control: &Arc<Control>) -> Option<LiveFeed> {
    if !settings.live {
        return None;
    }
    let control = Arc::clone(control);
    let flush = settings.line_sync.then_some(control).map(|control| {
        Box::new(move |core: &Core| {
            // Refused when the session ends or there is no disk: the push has returned then.
            drop(control.ask(Request::Flush, FLUSH_LIMIT, || core.wake.unpark()));
        }) as _
    });
    Some(LiveFeed::new(flush))
}

impl LiveThread {
    /// Starts it, if the session has `live`.
    pub(super) fn start(
        claimed: &dirs::Claimed,
        core: &Arc<Core>,
        ticks_per_second: u64,
    ) -> Result<Option<Self>, Error> {
        let Some(live) = &core.live else {
            return Ok(None);
        };
        let (dir, log_dir) = (&claimed.session_dir, &claimed.log_dir);
        // Says that there are files of lines which nobody vouches for.
        drop(dir.create_file(LIVE_NAME)?);
        let converter = LiveConverter::new(Arc::clone(dir), Arc::clone(log_dir), &claimed.id)?;
        let appender = Appender {
            core: Arc::clone(core),
            converter,
            // Far below the range of 64 bits, whatever the clock.
            window: (ticks_per_second as f64 * WINDOW.as_secs_f64()) as u64,
            ticks_per_second,
            trouble: None,
        };
        let thread = spawn("stormlog-live", dir.path(), move || appender.run())?;
        live.register(thread.thread().clone());
        Ok(Some(Self(thread)))
    }

    /// Lets it append what is left, until `deadline`, and waits for its end.
    pub(super) fn end(self, core: &Core, deadline: Instant) -> LiveEnd {
        if let Some(live) = &core.live {
            live.stop(deadline);
        }
        let failed = || LiveEnd {
            missing: Some("the thread that appends lines panicked".to_owned()),
            ..LiveEnd::default()
        };
        self.0.join().unwrap_or_else(|_| failed())
    }
}

/// Ends the thread of a session that does not start: nothing was recorded.
pub(super) fn give_up(live: Option<LiveThread>, core: &Core) {
    if let Some(live) = live {
        drop(live.end(core, Instant::now()));
    }
}

/// What the thread does.
struct Appender {
    core: Arc<Core>,
    converter: LiveConverter,
    /// Ticks of [`WINDOW`].
    window: u64,
    ticks_per_second: u64,
    /// Why the last round did not append what it should have.
    trouble: Option<String>,
}

/// What is to be done after a round.
enum Next {
    /// The next one.
    GoOn,
    /// There is no more, and nobody asks: sleep until there are other blocks than these.
    Doze(u64),
    Pause(Duration),
    End,
}

impl Appender {
    fn run(mut self) -> LiveEnd {
        /// Lets callers know when the thread ends, by a panic too.
        struct Ended(Arc<Core>);
        impl Drop for Ended {
            fn drop(&mut self) {
                if let Some(live) = &self.0.live {
                    live.end();
                }
            }
        }
        let core = Arc::clone(&self.core);
        let _ended = Ended(Arc::clone(&core));
        if let Some(live) = &core.live {
            loop {
                match self.round(live) {
                    Next::GoOn => {}
                    Next::Doze(blocks) => live.doze(blocks),
                    Next::Pause(pause) => std::thread::park_timeout(pause),
                    Next::End => break,
                }
            }
        }
        LiveEnd {
            late: self.converter.late(),
            missing: self.trouble,
        }
    }

    /// Reads what is new, and appends the lines whose time has come.
    fn round(&mut self, live: &LiveFeed) -> Next {
        let wishes = *live.wishes();
        // Before it is read: so much has to be there then.
        let (drained, blocks) = live.told();
        let urgent = wishes.stop || wishes.is_asked();
        let done = self.append(drained, blocks, urgent);
        let (files, again) = self.converter.sizes();
        self.core.space.live.store(files, Relaxed);
        self.core.space.again.store(again, Relaxed);
        let late_for_end = wishes
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        match done {
            Ok(false) if !late_for_end => return Next::GoOn,
            Ok(true) => self.trouble = None,
            Ok(false) => self.have_trouble("there was no time for all lines".to_owned()),
            Err(error) => self.have_trouble(error.to_string()),
        }
        if wishes.is_asked() {
            live.answer(wishes.asked);
        }
        if wishes.stop {
            return Next::End;
        }
        if self.trouble.is_some() {
            return Next::Pause(RETRY_PAUSE);
        }
        match self.converter.first_waiting() {
            None => Next::Doze(blocks),
            Some(first) => Next::Pause(self.pause(first)),
        }
    }

    /// Whether all that is in so many blocks was read, and appended as far as its time has come.
    fn append(&mut self, drained: u64, blocks: u64, urgent: bool) -> Result<bool, Error> {
        let all = self.converter.read(blocks)?;
        let horizon = if !all {
            // What was not read yet may be older than what was.
            self.converter.seen().saturating_sub(self.window)
        } else if urgent {
            u64::MAX
        } else {
            let now = self.core.clock.ticks();
            let least = now.saturating_sub(self.window.saturating_mul(WINDOWS_MAX));
            drained.saturating_sub(self.window).max(least)
        };
        let any = self.converter.write(horizon)?;
        if !all && !any && !self.converter.write(u64::MAX)? {
            return Err(Error::Io {
                what: "cannot read the next block of",
                path: self.converter.path().to_owned(),
                source: std::io::Error::other("it is damaged, or not there"),
            });
        }
        Ok(all)
    }

    /// Until the window of the record with these ticks is over.
    fn pause(&self, first: u64) -> Duration {
        let due = first.saturating_add(self.window);
        let left = due.saturating_sub(self.core.clock.ticks());
        let left = left as f64 / self.ticks_per_second.max(1) as f64;
        // With the pass of the writer that follows.
        Duration::from_secs_f64(left).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    fn have_trouble(&mut self, what: String) {
        if self.trouble.as_ref() != Some(&what) {
            say(&format!("lines wait: {what}"));
            self.trouble = Some(what);
        }
    }
}
