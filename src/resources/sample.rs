//! One look at everything.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::cgroup::{Limits, limits};
use super::read;
use crate::record::{Extra, Value};
use crate::sys::clock::monotonic_ns;
use crate::sys::process::process_cpu;

/// The most fields that a sample has.
pub(super) const FIELDS_MAX: usize = 19;

/// Looks, and remembers what the next look needs.
#[derive(Debug)]
pub(super) struct Reader {
    /// `/`, but in tests.
    root: PathBuf,
    /// The log directory.
    dir: PathBuf,
    cores: usize,
    /// Processor time of the process, and when, ns.
    before: (Duration, u64),
}

/// What was seen; `None` where it could not be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sample {
    rss_bytes: Option<u64>,
    memory_percent: Option<f64>,
    cpu_percent: Option<f64>,
    cpu_cores: Option<f64>,
    cpu_seconds: Option<f64>,
    threads: Option<u64>,
    open_files: Option<u64>,
    open_files_max: Option<u64>,
    connections: Option<u64>,
    disk_free_bytes: Option<u64>,
    disk_total_bytes: Option<u64>,
    /// Of cpu, memory, io: some, full.
    pressure: [[Option<f64>; 2]; 3],
    limits: Limits,
}

impl Reader {
    pub(super) fn new(root: PathBuf, dir: PathBuf) -> Self {
        Self {
            root,
            dir,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            before: (process_cpu(), monotonic_ns()),
        }
    }

    pub(super) fn sample(&mut self) -> Sample {
        let own = self.root.join("proc/self");
        let read = |name: &str| read::text(&own.join(name));
        let limits = limits(&self.root);
        let mut sample = Sample {
            limits,
            ..Sample::default()
        };
        let pages = read("statm").and_then(|text| read::resident_pages(&text));
        sample.rss_bytes = pages.map(|pages| pages * rustix::param::page_size() as u64);
        let meminfo = read::text(&self.root.join("proc/meminfo"));
        let total = meminfo.and_then(|text| read::memory_total(&text));
        let most = limits.memory_max.into_iter().chain(total).min();
        sample.memory_percent = sample
            .rss_bytes
            .zip(most)
            .map(|(rss, most)| part(rss, most));
        self.cpu(&mut sample);
        sample.threads = read("stat").and_then(|text| read::threads(&text));
        if let Some(files) = read::open_files(&own.join("fd")) {
            sample.open_files = Some(files.count);
            let table =
                |name: &str| read(name).map(|text| read::established(&text, &files.sockets));
            // A machine without IPv6 has no such table.
            sample.connections =
                table("net/tcp").map(|count| count + table("net/tcp6").unwrap_or(0));
        }
        sample.open_files_max = getrlimit(Resource::Nofile).current;
        if let Ok(space) = rustix::fs::statvfs(&self.dir) {
            sample.disk_free_bytes = Some(space.f_bavail.saturating_mul(space.f_frsize));
            sample.disk_total_bytes = Some(space.f_blocks.saturating_mul(space.f_frsize));
        }
        sample.pressure = ["cpu", "memory", "io"].map(|name| {
            let text = read::text(&self.root.join("proc/pressure").join(name));
            text.map_or([None; 2], |text| read::pressure(&text))
        });
        sample
    }

    /// Processor time since the sample before.
    fn cpu(&mut self, sample: &mut Sample) {
        let now = (process_cpu(), monotonic_ns());
        let (used, passed) = (now.0.saturating_sub(self.before.0), now.1 - self.before.1);
        self.before = now;
        sample.cpu_seconds = Some(now.0.as_secs_f64());
        if passed > 0 {
            let cores = used.as_nanos() as f64 / passed as f64;
            let most = sample.limits.cores.unwrap_or(self.cores as f64);
            sample.cpu_cores = Some(round(cores, 1e4));
            sample.cpu_percent = Some(round(100.0 * cores / most.min(self.cores as f64), 1e2));
        }
    }
}

/// Percent, with two decimals.
fn part(of: u64, most: u64) -> f64 {
    round(100.0 * of as f64 / most.max(1) as f64, 1e2)
}

fn round(number: f64, scale: f64) -> f64 {
    (number * scale).round() / scale
}

impl Sample {
    /// The fields that are known.
    pub(super) fn fields<'a>(&self, room: &'a mut [Extra<'a>; FIELDS_MAX]) -> &'a [Extra<'a>] {
        let [cpu, memory, io] = self.pressure;
        let all: [(&str, Value<'_>); FIELDS_MAX] = [
            ("rss_bytes", self.rss_bytes.into()),
            ("memory_percent", self.memory_percent.into()),
            ("cpu_percent", self.cpu_percent.into()),
            ("cpu_cores", self.cpu_cores.into()),
            ("cpu_seconds", self.cpu_seconds.into()),
            ("threads", self.threads.into()),
            ("open_files", self.open_files.into()),
            ("open_files_max", self.open_files_max.into()),
            ("connections", self.connections.into()),
            ("disk_free_bytes", self.disk_free_bytes.into()),
            ("disk_total_bytes", self.disk_total_bytes.into()),
            ("pressure_cpu_some", cpu[0].into()),
            ("pressure_memory_some", memory[0].into()),
            ("pressure_memory_full", memory[1].into()),
            ("pressure_io_some", io[0].into()),
            ("pressure_io_full", io[1].into()),
            ("cgroup_memory_max_bytes", self.limits.memory_max.into()),
            ("cgroup_memory_used_bytes", self.limits.memory_used.into()),
            ("cgroup_cpu_cores", self.limits.cores.into()),
        ];
        let known = all.into_iter().filter(|(_, value)| *value != Value::Null);
        let mut count = 0;
        for ((name, value), place) in known.zip(room.iter_mut()) {
            *place = Extra::new(name, value);
            count += 1;
        }
        &room[..count]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn names(sample: &Sample) -> Vec<&'static str> {
        let mut room = [Extra::default(); FIELDS_MAX];
        // The names are literals.
        let fields = sample.fields(&mut room);
        fields
            .iter()
            .map(|field| -> &'static str { String::leak(field.key.text().to_owned()) })
            .collect()
    }

    #[test]
    fn this_process_is_seen() {
        let mut reader = Reader::new(PathBuf::from("/"), std::env::temp_dir());
        let sample = reader.sample();
        assert!(sample.rss_bytes > Some(1 << 20), "{sample:?}");
        assert!(
            sample.threads >= Some(1) && sample.open_files >= Some(3),
            "{sample:?}"
        );
        assert!(
            sample.disk_total_bytes >= sample.disk_free_bytes,
            "{sample:?}"
        );
        let percent = sample.memory_percent.unwrap();
        assert!(percent > 0.0 && percent <= 100.0, "{sample:?}");
        assert!(names(&sample).starts_with(&["rss_bytes", "memory_percent", "cpu_percent"]));
    }

    #[test]
    fn processor_time_is_that_since_the_sample_before() {
        let mut reader = Reader::new(PathBuf::from("/"), std::env::temp_dir());
        let second = 1_000_000_000;
        let before = (process_cpu(), monotonic_ns());
        let half = before.0 / 2;
        reader.before = (half, before.1 - second);
        let cores = reader.sample().cpu_cores.unwrap();
        let after = (process_cpu(), monotonic_ns());
        let least =
            before.0.saturating_sub(half).as_nanos() as f64 / (after.1 - before.1 + second) as f64;
        let most = after.0.saturating_sub(half).as_nanos() as f64 / second as f64;
        let rounding = 1e-4;
        assert!(cores >= least - rounding, "{cores}, {least}");
        assert!(cores <= most + rounding, "{cores}, {most}");
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let nowhere = PathBuf::from("/no such root");
        let mut reader = Reader::new(nowhere.clone(), nowhere);
        let seen = names(&reader.sample());
        let from_calls = ["cpu_percent", "cpu_cores", "cpu_seconds", "open_files_max"];
        assert!(
            seen.iter().all(|name| from_calls.contains(name)),
            "{seen:?}"
        );
    }
}
