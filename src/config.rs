//! Settings of a session: defaults, environment, validation. Everything is checked once, before a
//! session starts.

mod check;
mod drain_wait;
mod durability;
mod live;
mod parse;
mod rules;
mod sink;
mod stress;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::record::is_category_name;
use crate::redact::Rules;
use crate::ring::{SPILL_BYTES_MAX, SPILL_BYTES_MIN, TOTAL_BYTES_MAX, TOTAL_BYTES_MIN};
use crate::segment::prepare::SEGMENT_ALIGN;
use crate::stress::StressSettings;
use crate::writer::segment_bytes_min;

pub use check::check_settings;
pub use durability::Durability;
pub(crate) use rules::{CategoryRules, RateLimit};
pub use sink::SegmentSink;
pub use writer::WriterCore;

use parse::{
    check_range, check_resource_interval, is_service_link, parse_bool, parse_bytes,
    parse_conversion, parse_durability, parse_list, parse_ms, parse_ring_storage, parse_seconds,
};
use writer::parse_writer_core;

/// When segments become JSON Lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conversion {
    /// `close()` converts and returns when the files are there, or at the deadline.
    #[default]
    Wait,
    /// `close()` leaves a thread behind that converts. If the process ends first, the segments
    /// stay and `stormlog convert` does it.
    Background,
    /// Segments stay; `stormlog convert` converts them.
    Later,
}

/// Where rings live: `docs/DURABILITY.md` says what each survives and costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingStorage {
    /// The session directory; where its file system cannot hold rings, `/dev/shm`; else memory of
    /// the process. `rings` in `session_start` says which, and why.
    #[default]
    Auto,
    /// The file `rings` in the session directory: survives the process and its container.
    SessionDir,
    /// A file in `/dev/shm`: survives the process, but not its container.
    Shm,
    /// Memory of the process: what is in the rings when the process is killed is lost.
    Anonymous,
}

impl RingStorage {
    /// As the setting is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::SessionDir => "session_dir",
            Self::Shm => "shm",
            Self::Anonymous => "anonymous",
        }
    }
}

/// Every setting of a session.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Settings {
    pub(crate) enabled: bool,
    pub(crate) dir: PathBuf,
    pub(crate) ring_total_bytes: usize,
    pub(crate) large_total_bytes: usize,
    pub(crate) spill_total_bytes: usize,
    pub(crate) always_wait_max: Duration,
    /// `None` = the default, [`Settings::drain_wait_max`].
    pub(crate) drain_wait_max: Option<Duration>,
    pub(crate) segment_bytes: usize,
    pub(crate) record_bytes_max: usize,
    pub(crate) ring_storage: RingStorage,
    pub(crate) durability: Durability,
    pub(crate) writer_core: WriterCore,
    pub(crate) conversion: Conversion,
    pub(crate) close_deadline: Duration,
    pub(crate) keep_segments: bool,
    pub(crate) categories_off: Vec<String>,
    pub(crate) sampling: bool,
    pub(crate) sampling_salt: u64,
    pub(crate) rules: CategoryRules,
    /// Stress rules.
    pub(crate) stress: StressSettings,
    /// Most bytes of segments and JSON Lines of the session; 0 = no bound.
    pub(crate) session_bytes_max: u64,
    /// Bytes of the file system that stay free; `None` = the default, which depends on its size.
    pub(crate) keep_free_bytes: Option<u64>,
    /// What is kept out of the lines.
    pub(crate) redact: Rules,
    pub(crate) segment_sink: SegmentSink,
    pub(crate) sigbus_guard: bool,
    /// Lines are appended while the session records, and a push waits for its line.
    pub(crate) live: bool,
    pub(crate) line_sync: bool,
    /// How often resources are sampled; zero = not at all.
    pub(crate) resource_interval: Duration,
    /// For tests: as if the processor had no invariant counter.
    pub(crate) without_counter: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            dir: PathBuf::from("./debug_logs"),
            ring_total_bytes: 16 << 20,
            large_total_bytes: 4 << 20,
            spill_total_bytes: 1 << 20,
            always_wait_max: Duration::from_millis(1),
            drain_wait_max: None,
            segment_bytes: 64 << 20,
            record_bytes_max: 1 << 20,
            ring_storage: RingStorage::default(),
            durability: Durability::default(),
            writer_core: WriterCore::default(),
            conversion: Conversion::default(),
            close_deadline: Duration::from_secs(5),
            keep_segments: false,
            categories_off: Vec::new(),
            sampling: true,
            sampling_salt: 0,
            rules: CategoryRules::default(),
            stress: StressSettings::default(),
            session_bytes_max: 0,
            keep_free_bytes: None,
            redact: Rules::default(),
            segment_sink: SegmentSink::default(),
            sigbus_guard: false,
            live: false,
            line_sync: false,
            resource_interval: Duration::ZERO,
            without_counter: false,
        }
    }
}

/// Longest record that can be allowed.
const RECORD_BYTES_MAX_MAX: usize = 16 << 20;
/// Largest segment that can be asked for.
const SEGMENT_BYTES_MAX: usize = 1 << 30;
/// Largest budget for large records.
const LARGE_BYTES_MAX: usize = 1 << 30;
/// Longest wait that can be asked of a caller: far less than what `close()` waits for callers.
const ALWAYS_WAIT_MAX_MAX: Duration = Duration::from_millis(100);

/// Pauses between two syncs that can be asked for.
const DURABILITY_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);

impl Settings {
    /// Defaults, overridden by the environment. Recording is off unless `DEBUG_MODE` says so.
    pub(crate) fn from_env() -> Result<Self, Error> {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        }))
    }

    fn from_vars(vars: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut settings = Self {
            enabled: false,
            ..Self::default()
        };
        settings.stress.on = true;
        for (name, value) in vars {
            if name == "DEBUG_MODE" {
                settings.enabled = parse_bool(&name, &value)?;
            } else if name == "DEBUG_LOG_DIR" {
                if !value.is_empty() {
                    settings.dir = PathBuf::from(value);
                }
            } else if name == "STARTUP_TIMEOUT_S" {
                stress::parse_timeout(&mut settings.stress, &name, &value)?;
            } else if name.starts_with("STORMLOG_") && !is_service_link(&name) {
                settings.set(&name, &value)?;
            }
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        match name {
            "STORMLOG_RING_TOTAL_BYTES" => self.ring_total_bytes = parse_bytes(name, value)?,
            "STORMLOG_LARGE_TOTAL_BYTES" => self.large_total_bytes = parse_bytes(name, value)?,
            "STORMLOG_SPILL_TOTAL_BYTES" => self.spill_total_bytes = parse_bytes(name, value)?,
            "STORMLOG_ALWAYS_WAIT_MAX_US" => {
                let remedy = "give a number of microseconds, such as 1000";
                let us = value.trim().parse().map_err(|_| bad(name, value, remedy))?;
                self.always_wait_max = Duration::from_micros(us);
            }
            "STORMLOG_DRAIN_WAIT_MAX_MS" => self.drain_wait_max = Some(parse_ms(name, value, 250)?),
            "STORMLOG_SEGMENT_BYTES" => self.segment_bytes = parse_bytes(name, value)?,
            "STORMLOG_RECORD_BYTES_MAX" => self.record_bytes_max = parse_bytes(name, value)?,
            "STORMLOG_RING_STORAGE" => self.ring_storage = parse_ring_storage(name, value)?,
            "STORMLOG_DURABILITY" => self.durability = parse_durability(name, value)?,
            "STORMLOG_WRITER_CORE" => self.writer_core = parse_writer_core(name, value)?,
            "STORMLOG_CONVERSION" => self.conversion = parse_conversion(name, value)?,
            "STORMLOG_CLOSE_DEADLINE_MS" => self.close_deadline = parse_ms(name, value, 5000)?,
            "STORMLOG_KEEP_SEGMENTS" => self.keep_segments = parse_bool(name, value)?,
            "STORMLOG_CATEGORIES_OFF" => self.categories_off = parse_list(value),
            "STORMLOG_SAMPLING" => self.sampling = parse_bool(name, value)?,
            "STORMLOG_SAMPLING_SALT" => {
                let remedy = "give a whole number from 0 to 18446744073709551615";
                self.sampling_salt = value.trim().parse().map_err(|_| bad(name, value, remedy))?;
            }
            "STORMLOG_KEEP" => self.rules.parse_keep(name, value)?,
            "STORMLOG_SAMPLE_RATES" => self.rules.parse_sample_rates(name, value)?,
            "STORMLOG_RATE_LIMITS" => self.rules.parse_rate_limits(name, value)?,
            "STORMLOG_ON_CHANGE" => self.rules.on_change = parse_list(value),
            "STORMLOG_REDACT" => self.redact.on = parse_bool(name, value)?,
            "STORMLOG_REDACT_NAMES" => self.redact.names = parse_list(value),
            "STORMLOG_REDACT_PATTERNS" => {
                let patterns = value.split_ascii_whitespace();
                self.redact.patterns = patterns.map(str::to_owned).collect();
            }
            "STORMLOG_REDACT_KEEP" => self.redact.keep = parse_list(value),
            "STORMLOG_SESSION_BYTES_MAX" => {
                self.session_bytes_max = parse_bytes(name, value)? as u64;
            }
            "STORMLOG_KEEP_FREE_BYTES" => {
                self.keep_free_bytes = Some(parse_bytes(name, value)? as u64);
            }
            "STORMLOG_STRESS" => self.stress.on = parse_bool(name, value)?,
            "STORMLOG_STRESS_RULES" => self.stress.file = stress::parse_path(value),
            "STORMLOG_STRESS_OFF" => self.stress.rules_off = parse_list(value),
            "STORMLOG_STRESS_ON" => self.stress.rules_on = parse_list(value),
            "STORMLOG_SEGMENT_SINK" => self.segment_sink = SegmentSink::parse(name, value)?,
            "STORMLOG_SIGBUS_GUARD" => self.sigbus_guard = parse_bool(name, value)?,
            "STORMLOG_LIVE" => self.live = parse_bool(name, value)?,
            "STORMLOG_LINE_SYNC" => self.line_sync = parse_bool(name, value)?,
            "STORMLOG_RESOURCE_INTERVAL_S" => self.resource_interval = parse_seconds(name, value)?,
            _ => {
                return Err(bad(
                    name,
                    value,
                    "there is no such setting; docs/DEBUG_MODE.md lists them",
                ));
            }
        }
        Ok(())
    }

    /// Checks every value against its bounds, and the values against each other.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        check_range(
            "ring_total_bytes",
            self.ring_total_bytes,
            TOTAL_BYTES_MIN,
            TOTAL_BYTES_MAX,
        )?;
        check_range(
            "record_bytes_max",
            self.record_bytes_max,
            4096,
            RECORD_BYTES_MAX_MAX,
        )?;
        // One record of the greatest length always finds room.
        let least = self.record_bytes_max + self.record_bytes_max / 8 + (64 << 10);
        check_range(
            "large_total_bytes",
            self.large_total_bytes,
            least,
            LARGE_BYTES_MAX,
        )?;
        check_range(
            "spill_total_bytes",
            self.spill_total_bytes,
            SPILL_BYTES_MIN,
            SPILL_BYTES_MAX,
        )?;
        if self.always_wait_max > ALWAYS_WAIT_MAX_MAX {
            let value = format!("{} us", self.always_wait_max.as_micros());
            let remedy = format!("give 0 to {} us", ALWAYS_WAIT_MAX_MAX.as_micros());
            return Err(bad("always_wait_max", &value, &remedy));
        }
        self.check_drain_wait()?;
        if let Durability::Interval(pause) = self.durability
            && !DURABILITY_INTERVALS.contains(&pause)
        {
            let value = format!("interval:{}", pause.as_millis());
            return Err(bad("durability", &value, "give 10 to 3600000 ms"));
        }
        let least = segment_bytes_min(self.record_bytes_max);
        check_range(
            "segment_bytes",
            self.segment_bytes,
            least,
            SEGMENT_BYTES_MAX,
        )?;
        if !self.segment_bytes.is_multiple_of(SEGMENT_ALIGN) {
            let value = self.segment_bytes.to_string();
            return Err(bad("segment_bytes", &value, "give a multiple of 2MiB"));
        }
        for category in &self.categories_off {
            if !is_category_name(category) {
                let remedy = "a category has 1 to 64 characters of a-z, 0-9 and _";
                return Err(bad("categories_off", category, remedy));
            }
        }
        self.check_live()?;
        check_resource_interval(self.resource_interval)?;
        self.rules.validate()?;
        stress::validate(&self.stress)?;
        self.redact.check().map_err(|error| {
            let value = self.redact.to_json().to_string();
            bad("redact", &value, &error.to_string())
        })?;
        let least = 4 * segment_bytes_min(self.record_bytes_max) as u64;
        if self.session_bytes_max > 0 && self.session_bytes_max < least {
            let value = self.session_bytes_max.to_string();
            let remedy = format!("give 0 (no bound) or at least {least} bytes");
            return Err(bad("session_bytes_max", &value, &remedy));
        }
        Ok(())
    }

    /// The settings as `session_start` carries them.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "ring_total_bytes": self.ring_total_bytes,
            "large_total_bytes": self.large_total_bytes,
            "spill_total_bytes": self.spill_total_bytes,
            "always_wait_max_us": self.always_wait_max.as_micros() as u64,
            "drain_wait_max_ms": self.drain_wait_max.map(|wait| wait.as_millis() as u64),
            "segment_bytes": self.segment_bytes,
            "record_bytes_max": self.record_bytes_max,
            "ring_storage": self.ring_storage.name(),
            "durability": match self.durability {
                Durability::Off => "off".to_owned(),
                Durability::Interval(pause) => format!("interval:{}", pause.as_millis()),
                Durability::Segment => "segment".to_owned(),
            },
            "conversion": match self.conversion {
                Conversion::Wait => "wait",
                Conversion::Background => "background",
                Conversion::Later => "later",
            },
            "close_deadline_ms": self.close_deadline.as_millis() as u64,
            "keep_segments": self.keep_segments,
            "categories_off": self.categories_off,
            "sampling": self.sampling,
            "sampling_salt": self.sampling_salt,
            "keep": self.rules.keep_json(),
            "sample_rates": self.rules.sample_rates_json(),
            "rate_limits": self.rules.rate_limits_json(),
            "on_change": self.rules.on_change,
            "stress": self.stress.on,
            "stress_rules": stress::files_json(&self.stress),
            "stress_off": self.stress.rules_off,
            "stress_on": self.stress.rules_on,
            "startup_timeout_s": self.stress.startup_timeout.as_secs_f64(),
            "session_bytes_max": self.session_bytes_max,
            "keep_free_bytes": self.keep_free_bytes,
            "redact": self.redact.on,
            "redact_names": self.redact.names,
            "redact_patterns": self.redact.patterns,
            "redact_keep": self.redact.keep,
            "segment_sink": self.segment_sink.name(),
            "sigbus_guard": self.sigbus_guard,
            "live": self.live,
            "line_sync": self.line_sync,
            "resource_interval_s": self.resource_interval.as_secs_f64(),
        })
    }
}

fn bad(name: &str, value: &str, remedy: &str) -> Error {
    Error::Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::KeepClass;

    fn parse(vars: &[(&str, &str)]) -> Result<Settings, Error> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::from_vars(vars)
    }

    #[test]
    fn debug_mode_takes_every_spelling_of_both_old_loggers() {
        assert!(!parse(&[]).unwrap().enabled);
        for on in ["true", "True", "TRUE", "1", "yes", "on", " on "] {
            assert!(parse(&[("DEBUG_MODE", on)]).unwrap().enabled, "{on}");
        }
        for off in ["false", "False", "0", "no", "off", ""] {
            assert!(!parse(&[("DEBUG_MODE", off)]).unwrap().enabled, "{off}");
        }
        let error = parse(&[("DEBUG_MODE", "maybe")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "DEBUG_MODE=maybe: give true or false (also 1/0, yes/no, on/off)"
        );
    }

    /// A value can be as long as the environment, and was told whole, several times, escaped.
    #[test]
    fn of_a_long_value_the_start_is_told() {
        let long = "\u{1}".repeat(10_000);
        for name in [
            "DEBUG_MODE",
            "STORMLOG_REDACT_KEEP",
            "STORMLOG_REDACT_NAMES",
        ] {
            let settings = parse(&[(name, &*long)]);
            let result = settings.and_then(|settings| settings.validate());
            let said = result.unwrap_err().to_string();
            assert!(said.len() < 3000, "{name}: {} bytes", said.len());
            assert!(said.contains("...: "), "{said}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let bytes = |text| parse_bytes("x", text).ok();
        assert_eq!(bytes("1048576"), Some(1 << 20));
        assert_eq!(bytes("16MiB"), Some(16 << 20));
        assert_eq!(bytes("512 KiB"), Some(512 << 10));
        assert_eq!(bytes("1g"), Some(1 << 30));
        for wrong in [
            "",
            "MiB",
            "1.5MiB",
            "-1",
            "1TB",
            "99999999999999999999",
            "18446744073G",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one for each setting")]
    fn every_variable_reaches_its_setting() {
        let settings = parse(&[
            ("DEBUG_LOG_DIR", "/var/log/x"),
            ("STORMLOG_RING_TOTAL_BYTES", "1MiB"),
            ("STORMLOG_LARGE_TOTAL_BYTES", "2MiB"),
            ("STORMLOG_SPILL_TOTAL_BYTES", "8KiB"),
            ("STORMLOG_ALWAYS_WAIT_MAX_US", "250"),
            ("STORMLOG_DRAIN_WAIT_MAX_MS", "100"),
            ("STORMLOG_SEGMENT_BYTES", "8MiB"),
            ("STORMLOG_RECORD_BYTES_MAX", "64KiB"),
            ("STORMLOG_RING_STORAGE", "shm"),
            ("STORMLOG_DURABILITY", "interval:500"),
            ("STORMLOG_WRITER_CORE", "1"),
            ("STORMLOG_CONVERSION", "later"),
            ("STORMLOG_CLOSE_DEADLINE_MS", "250"),
            ("STORMLOG_KEEP_SEGMENTS", "true"),
            ("STORMLOG_CATEGORIES_OFF", "vpn, health"),
            ("STORMLOG_SAMPLING", "off"),
            ("STORMLOG_SAMPLING_SALT", "7"),
            ("STORMLOG_KEEP", "requests:always"),
            ("STORMLOG_SAMPLE_RATES", "health:50%"),
            ("STORMLOG_RATE_LIMITS", "vpn:10"),
            ("STORMLOG_ON_CHANGE", "vpn, health"),
            ("STORMLOG_SESSION_BYTES_MAX", "1GiB"),
            ("STORMLOG_KEEP_FREE_BYTES", "2GiB"),
            ("STORMLOG_REDACT", "off"),
            ("STORMLOG_REDACT_NAMES", "engine_pin, ace_secret_id"),
            ("STORMLOG_REDACT_PATTERNS", r"corp-[0-9]{1,4} x\sy"),
            ("STORMLOG_REDACT_KEEP", "psk,aws"),
            ("STORMLOG_STRESS", "on"),
            ("STORMLOG_STRESS_RULES", ""),
            ("STORMLOG_STRESS_OFF", "slow_query, slow_function"),
            ("STORMLOG_STRESS_ON", "slow_get_request"),
            ("STARTUP_TIMEOUT_S", "30"),
            ("STORMLOG_SEGMENT_SINK", "pwrite"),
            ("STORMLOG_SIGBUS_GUARD", "on"),
            ("STORMLOG_LIVE", "true"),
            ("STORMLOG_LINE_SYNC", "1"),
            ("STORMLOG_RESOURCE_INTERVAL_S", "60"),
            ("UNRELATED", "x"),
            ("STORMLOG_SERVICE_HOST", "10.0.0.1"),
            ("STORMLOG_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ])
        .unwrap();
        let expected = Settings {
            enabled: false,
            dir: PathBuf::from("/var/log/x"),
            ring_total_bytes: 1 << 20,
            large_total_bytes: 2 << 20,
            spill_total_bytes: 8 << 10,
            always_wait_max: Duration::from_micros(250),
            drain_wait_max: Some(Duration::from_millis(100)),
            segment_bytes: 8 << 20,
            record_bytes_max: 64 << 10,
            ring_storage: RingStorage::Shm,
            durability: Durability::Interval(Duration::from_millis(500)),
            writer_core: WriterCore::Core(1),
            conversion: Conversion::Later,
            close_deadline: Duration::from_millis(250),
            keep_segments: true,
            categories_off: vec!["vpn".to_owned(), "health".to_owned()],
            sampling: false,
            sampling_salt: 7,
            rules: CategoryRules {
                keep: vec![("requests".to_owned(), KeepClass::Always)],
                sample_rates: vec![("health".to_owned(), 0.5)],
                rate_limits: vec![(
                    "vpn".to_owned(),
                    RateLimit {
                        per_second: 10.0,
                        burst: 10,
                    },
                )],
                on_change: vec!["vpn".to_owned(), "health".to_owned()],
            },
            stress: StressSettings {
                on: true,
                file: None,
                startup_timeout: Duration::from_secs(30),
                rules_off: vec!["slow_query".to_owned(), "slow_function".to_owned()],
                rules_on: vec!["slow_get_request".to_owned()],
            },
            session_bytes_max: 1 << 30,
            keep_free_bytes: Some(2 << 30),
            redact: Rules {
                on: false,
                names: vec!["engine_pin".to_owned(), "ace_secret_id".to_owned()],
                patterns: vec!["corp-[0-9]{1,4}".to_owned(), r"x\sy".to_owned()],
                keep: vec!["psk".to_owned(), "aws".to_owned()],
            },
            segment_sink: SegmentSink::Pwrite,
            sigbus_guard: true,
            live: true,
            line_sync: true,
            resource_interval: Duration::from_secs(60),
            without_counter: false,
        };
        assert_eq!(settings, expected);
        settings.validate().unwrap();
        assert!(parse(&[("STORMLOG_RING_BYTES", "1")]).is_err());
        let alone = parse(&[("STORMLOG_LINE_SYNC", "1")]).unwrap();
        assert!(alone.validate().is_err(), "there are no lines to wait for");
    }

    #[test]
    fn durability_has_bounds() {
        let parse = |text| parse(&[("STORMLOG_DURABILITY", text)]);
        let given = |text| parse(text).unwrap().durability;
        assert_eq!(given("off"), Durability::Off);
        assert_eq!(given("segment"), Durability::Segment);
        for wrong in [
            "",
            "on",
            "interval",
            "interval:",
            "interval:x",
            "interval:-1",
            "1000",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let valid = |text| parse(text).unwrap().validate().is_ok();
        for text in ["interval:10", "interval:3600000"] {
            assert!(valid(text), "{text}");
        }
        for text in ["interval:0", "interval:9", "interval:3600001"] {
            assert!(!valid(text), "{text}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_named_with_a_remedy() {
        let wrong = |settings: Settings| settings.validate().unwrap_err().to_string();
        let defaults = Settings::default;
        let error = wrong(Settings {
            ring_total_bytes: 1,
            ..defaults()
        });
        assert_eq!(error, "ring_total_bytes=1: give 65536 to 4294967296 bytes");
        wrong(Settings {
            segment_bytes: 1 << 20,
            ..defaults()
        });
        wrong(Settings {
            segment_bytes: (64 << 20) + 1,
            ..defaults()
        });
        wrong(Settings {
            record_bytes_max: 1 << 30,
            ..defaults()
        });
        wrong(Settings {
            large_total_bytes: usize::MAX,
            ..defaults()
        });
        let error = wrong(Settings {
            spill_total_bytes: 4095,
            ..defaults()
        });
        assert_eq!(
            error,
            "spill_total_bytes=4095: give 4096 to 268435456 bytes"
        );
        let error = wrong(Settings {
            always_wait_max: Duration::from_millis(101),
            ..defaults()
        });
        assert_eq!(error, "always_wait_max=101000 us: give 0 to 100000 us");
        for drain_wait_max in [Duration::ZERO, Duration::from_millis(1001)] {
            let error = wrong(Settings {
                drain_wait_max: Some(drain_wait_max),
                ..defaults()
            });
            assert!(error.ends_with("give 1 to 1000 ms"), "{error}");
        }
        wrong(Settings {
            categories_off: vec!["a/b".to_owned()],
            ..defaults()
        });
    }
}
