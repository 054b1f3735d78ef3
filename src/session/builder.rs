//! Settings of a session, one method each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Session, start};
use crate::config::{
    Conversion, Durability, RateLimit, RingStorage, SegmentSink, Settings, WriterCore,
};
use crate::error::Error;
use crate::producer::Log;
use crate::record::KeepClass;

/// Settings of a session before it starts. See `docs/DEBUG_MODE.md` for each of them.
#[derive(Clone, Debug)]
pub struct SessionBuilder {
    settings: Settings,
}

impl SessionBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default(),
        }
    }

    /// Settings from the environment. `DEBUG_MODE` switches recording on (default off).
    ///
    /// # Errors
    /// [`Error::Setting`] names the variable, its value and what it can be.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self {
            settings: Settings::from_env()?,
        })
    }

    /// Whether to record at all. Default true here, `DEBUG_MODE` in [`from_env`](Self::from_env).
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Log directory, default `./debug_logs`; created with its parents (0700) when missing.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.dir = dir.into();
        self
    }

    /// Hard bound of the memory of all rings, default 16 MiB.
    #[must_use]
    pub fn ring_total_bytes(mut self, bytes: usize) -> Self {
        self.settings.ring_total_bytes = bytes;
        self
    }

    /// Memory for records that are too long for a ring, default 4 MiB; at least `record_bytes_max`
    /// and an eighth of it and 64 KiB, so that one record of any length finds room.
    #[must_use]
    pub fn large_total_bytes(mut self, bytes: usize) -> Self {
        self.settings.large_total_bytes = bytes;
        self
    }

    /// Memory for `Always` records that find their ring full, or have none; default 1 MiB. Each
    /// takes 512 bytes of it.
    #[must_use]
    pub fn spill_total_bytes(mut self, bytes: usize) -> Self {
        self.settings.spill_total_bytes = bytes;
        self
    }

    /// How long the push of an `Always` record waits when its ring and the spill are full, default
    /// 1 ms, at most 100 ms; 0 = not at all. After that the record is dropped and counted.
    #[must_use]
    pub fn always_wait_max(mut self, wait: Duration) -> Self {
        self.settings.always_wait_max = wait;
        self
    }

    /// Longest wait of the writer between two looks at the rings while records come, 1 ms to 1 s:
    /// how long a record takes to reach its segment. Until then it is in its ring, from which
    /// recovery takes it; a ring that fills wakes the writer before. Looks are 8 ms apart as long
    /// as they cost less than 0.05 % of a core. The default is 250 ms where rings are in the
    /// session directory, and 8 ms where they are elsewhere, with [`live`](Self::live) and with a
    /// [`durability`](Self::durability).
    #[must_use]
    pub fn drain_wait_max(mut self, wait: Duration) -> Self {
        self.settings.drain_wait_max = Some(wait);
        self
    }

    /// Largest segment, a multiple of 2 MiB, default 64 MiB. Sessions start with small ones.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.settings.segment_bytes = bytes;
        self
    }

    /// Longest record, default 1 MiB. Longer ones have their texts cut and are flagged.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.record_bytes_max = bytes;
        self
    }

    /// Where rings live, default [`RingStorage::Auto`].
    #[must_use]
    pub fn ring_storage(mut self, storage: RingStorage) -> Self {
        self.settings.ring_storage = storage;
        self
    }

    /// What is brought to the disk while the session records, default [`Durability::Off`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// How segments are written, default [`SegmentSink::Auto`].
    #[must_use]
    pub fn segment_sink(mut self, sink: SegmentSink) -> Self {
        self.settings.segment_sink = sink;
        self
    }

    /// Survive SIGBUS in a mapped segment or in the file of the rings (somebody cut it, the disk
    /// failed), default false: it installs a handler for the whole process. Records that are lost
    /// are counted as `dropped{disk}`, and as `dropped{damaged}` those in rings; of what was
    /// offered within a second before the rings were lost some may not be counted, which the report
    /// says. The signal outside of our mappings reaches the handler that was there.
    #[must_use]
    pub fn sigbus_guard(mut self, guard: bool) -> Self {
        self.settings.sigbus_guard = guard;
        self
    }

    /// Where the writer thread runs, default [`WriterCore::Auto`].
    #[must_use]
    pub fn writer_core(mut self, core: WriterCore) -> Self {
        self.settings.writer_core = core;
        self
    }

    /// When segments become JSON Lines, default [`Conversion::Wait`].
    #[must_use]
    pub fn conversion(mut self, conversion: Conversion) -> Self {
        self.settings.conversion = conversion;
        self
    }

    /// How long `close()` may convert before it leaves the segments for later, default 5 s: below
    /// the grace that container runtimes give.
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.settings.close_deadline = deadline;
        self
    }

    /// Keep segments after a verified conversion, default false.
    #[must_use]
    pub fn keep_segments(mut self, keep: bool) -> Self {
        self.settings.keep_segments = keep;
        self
    }

    /// Categories that are off from the start.
    #[must_use]
    pub fn categories_off(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.categories_off = names.into_iter().map(Into::into).collect();
        self
    }

    /// Whether normal records may be sampled under pressure, default true. Off: what does not fit
    /// is dropped and counted. Fixed rates are not affected.
    #[must_use]
    pub fn sampling(mut self, on: bool) -> Self {
        self.settings.sampling = on;
        self
    }

    /// Salt of the hash that decides which keys are kept, default 0. Processes with the same salt
    /// keep the same keys.
    #[must_use]
    pub fn sampling_salt(mut self, salt: u64) -> Self {
        self.settings.sampling_salt = salt;
        self
    }

    /// Keep class of every record of a category, whatever its schema says. Those of `session`,
    /// `stress` and `errors` cannot be lowered.
    #[must_use]
    pub fn keep(mut self, category: impl Into<String>, class: KeepClass) -> Self {
        self.settings.rules.keep.push((category.into(), class));
        self
    }

    /// Part of the normal records of a category that is kept, in (0, 1]: by key where the record
    /// type has one, so that an operation is kept whole.
    #[must_use]
    pub fn sample_rate(mut self, category: impl Into<String>, part: f64) -> Self {
        let rates = &mut self.settings.rules.sample_rates;
        rates.push((category.into(), part));
        self
    }

    /// At most so many normal records of a category per second, and `burst` at once after a rest.
    /// What is over is `dropped{rate_limit}`.
    #[must_use]
    pub fn rate_limit(mut self, category: impl Into<String>, per_second: f64, burst: u32) -> Self {
        let limit = RateLimit { per_second, burst };
        self.settings
            .rules
            .rate_limits
            .push((category.into(), limit));
        self
    }

    /// Log on change: a record of this category that equals the one before it of the same type and
    /// key (durations do not count) is `dropped{repeat}`; the next one that differs carries how
    /// many there were in the field `repeats`.
    #[must_use]
    pub fn on_change(mut self, category: impl Into<String>) -> Self {
        self.settings.rules.on_change.push(category.into());
        self
    }

    /// Most bytes of segments and JSON Lines of the session together, default 0 = no bound. At the
    /// bound normal records are shed (`dropped{disk}`); `Always` records have a reserve.
    #[must_use]
    pub fn session_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.session_bytes_max = bytes;
        self
    }

    /// Bytes of the file system that stay free for others, default the larger of 1 GiB and 5 %, at
    /// most half of it. At the bound as [`session_bytes_max`](Self::session_bytes_max).
    #[must_use]
    pub fn keep_free_bytes(mut self, bytes: u64) -> Self {
        self.settings.keep_free_bytes = Some(bytes);
        self
    }

    /// Whether secrets are kept out of the lines, default true: values of fields with names such as
    /// `password`, and texts that look like tokens, become `[redacted]` when segments are
    /// converted. docs/SECURITY.md tells what is found and what is not.
    #[must_use]
    pub fn redact(mut self, on: bool) -> Self {
        self.settings.redact.on = on;
        self
    }

    /// Names of further fields whose values are secrets, with `_` between their words.
    #[must_use]
    pub fn redact_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.redact.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Regular expressions for further secrets in texts.
    #[must_use]
    pub fn redact_patterns(
        mut self,
        patterns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.settings.redact.patterns = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Built-in names and looks that are no secrets here.
    #[must_use]
    pub fn redact_keep(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.redact.keep = names.into_iter().map(Into::into).collect();
        self
    }

    /// Whether stress rules are evaluated, default false here, true in
    /// [`from_env`](Self::from_env). Records of categories without a rule pay nothing.
    #[must_use]
    pub fn stress_rules(mut self, on: bool) -> Self {
        self.settings.stress.on = on;
        self
    }

    /// A TOML file with further rules, and changes of the built-in ones. Reading it needs the
    /// feature `rules`.
    #[must_use]
    pub fn stress_rules_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.stress.file = Some(file.into());
        self
    }

    /// How long a container may take to start, default 25 s: more than a half of it is
    /// `slow_provisioning`, more than 70 % `slow_acestream_provisioning`.
    #[must_use]
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.settings.stress.startup_timeout = timeout;
        self
    }

    /// Names of rules that are switched off.
    #[must_use]
    pub fn stress_off(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.stress.rules_off = names.into_iter().map(Into::into).collect();
        self
    }

    /// Names of rules that are switched on: those that are off by default.
    #[must_use]
    pub fn stress_on(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.stress.rules_on = names.into_iter().map(Into::into).collect();
        self
    }

    /// Append finished lines to the JSON Lines files while the session records, default false:
    /// within 100 ms of the push as long as there is processor time and disk, ordered within 50 ms.
    /// Lines of records that came later than that are counted
    /// ([`CloseReport::late`](crate::CloseReport::late)); the close puts them in their places.
    /// Callers of pushes pay nothing for it.
    #[must_use]
    pub fn live(mut self, live: bool) -> Self {
        self.settings.live = live;
        self
    }

    /// A push returns after its line is in the file, or after 20 s, default false; with
    /// [`live`](Self::live) only. For tests and scripts: every push waits for two threads and takes
    /// a lock, so nothing of what is promised about the time of a push holds.
    #[must_use]
    pub fn line_sync(mut self, line_sync: bool) -> Self {
        self.settings.line_sync = line_sync;
        self
    }

    /// Samples what the process and the machine use (memory, processor, open files, threads,
    /// connections, disk, pressure, limits of control groups) so often, as records of the category
    /// `performance`; default zero = not at all, else 100 ms to 1 h. It takes a thread of its own.
    #[must_use]
    pub fn resource_interval(mut self, interval: Duration) -> Self {
        self.settings.resource_interval = interval;
        self
    }

    /// For tests: stamps records with `CLOCK_MONOTONIC`, as on a machine without an invariant
    /// counter.
    #[doc(hidden)]
    #[must_use]
    pub fn without_counter(mut self) -> Self {
        self.settings.without_counter = true;
        self
    }

    /// Starts recording.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value out of bounds, [`Error::Insecure`] for a log directory that
    /// others can write to, [`Error::Io`] when directory, segment or threads cannot be made. To
    /// go on without recording use [`Session::disabled`] then.
    pub fn start(self) -> Result<Session, Error> {
        self.settings.validate()?;
        if !self.settings.enabled {
            return Ok(Session::disabled());
        }
        let live = start::start(self.settings)?;
        Ok(Session {
            log: Log::new(Arc::clone(&live.core)),
            live: Some(Arc::new(live)),
        })
    }
}
