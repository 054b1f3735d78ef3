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
use crate::wake::become_engine;
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
    /// It did not come to its end.
    pub(super) panicked: bool,
}

/// The thread, while it runs. Dropped, it is told to end, and nobody waits for it: a close that
/// fails before its time leaves no thread that sleeps for ever.
#[derive(Debug)]
pub(super) struct LiveThread {
    /// None when it was waited for.
    thread: Option<JoinHandle<LiveEnd>>,
    core: Arc<Core>,
}

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
        Ok(Some(Self {
            thread: Some(thread),
            core: Arc::clone(core),
        }))
    }

    /// Lets it append what is left, until `deadline`, and waits for its end.
    pub(super) fn end(mut self, deadline: Instant) -> LiveEnd {
        self.stop(deadline);
        let failed = || LiveEnd {
            panicked: true,
            ..LiveEnd::default()
        };
        let end = self.thread.take().map(JoinHandle::join);
        end.map_or_else(LiveEnd::default, |end| end.unwrap_or_else(|_| failed()))
    }

    fn stop(&self, deadline: Instant) {
        if let Some(live) = &self.core.live {
            live.stop(deadline);
        }
    }
}

impl Drop for LiveThread {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop(Instant::now());
        }
    }
}

/// Ends the thread of a session that does not start: nothing was recorded.
pub(super) fn give_up(live: Option<LiveThread>) {
    if let Some(live) = live {
        drop(live.end(Instant::now()));
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
        become_engine();
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
            panicked: false,
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Session;
    use super::*;
    use crate::record::Category;

    /// A session in a directory of its own that appends lines.
    fn session(line_sync: bool) -> (tempfile::TempDir, Session) {
        let temp = tempfile::tempdir().unwrap();
        let builder = Session::builder().enabled(true).dir(temp.path()).live(true);
        let session = builder.line_sync(line_sync).start().unwrap();
        (temp, session)
    }

    #[test]
    fn a_thread_that_nobody_waits_for_ends() {
        let (_temp, session) = session(false);
        let live = session.live.as_ref().unwrap();
        let mut threads = live.threads.lock().unwrap();
        drop(threads.as_mut().unwrap().live.take().unwrap());
        drop(threads);
        let end = Instant::now() + Duration::from_secs(60);
        while !live.core.live.as_ref().unwrap().wishes().ended {
            assert!(Instant::now() < end, "it goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(session.close().unwrap().faults, Vec::<String>::new());
    }

    #[test]
    fn a_thread_of_the_engine_does_not_wait_for_its_line() {
        let (_temp, session) = session(true);
        let category = Category::named("docker").unwrap();
        let log = session.log();
        let asked = || {
            let live = session.live.as_ref().unwrap();
            live.core.live.as_ref().unwrap().wishes().asked
        };
        log.event(category, &[]);
        assert_eq!(asked(), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                become_engine();
                log.event(category, &[]);
            });
        });
        assert_eq!(asked(), 1);
    }
}
