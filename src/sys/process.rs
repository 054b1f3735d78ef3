//! What identifies this process and machine in a file header.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Identity of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Random, one per session.
    pub(crate) nonce: [u8; 16],
    /// Of this boot of the machine; zero when unknown.
    pub(crate) boot_id: [u8; 16],
    /// Process id as the process sees it.
    pub(crate) pid: u64,
    /// Inode of the pid namespace; 0 when unknown.
    pub(crate) pid_namespace: u64,
    /// Start of the process in clock ticks since boot; 0 when unknown.
    pub(crate) process_start: u64,
}

impl Identity {
    /// The identity of this process with a fresh nonce.
    pub(crate) fn read() -> Self {
        Self {
            nonce: random_16(),
            boot_id: boot_id().unwrap_or([0; 16]),
            pid: u64::from(std::process::id()),
            pid_namespace: std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino()),
            process_start: process_start(Path::new("/proc/self/stat")).unwrap_or(0),
        }
    }
}

/// Random bytes of the kernel; where it has none to give, the hasher's random state.
fn random_16() -> [u8; 16] {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    if !cfg!(miri) && rustix::rand::getrandom(&mut bytes, flags) == Ok(16) {
        return bytes;
    }
    let half = || {
        RandomState::new()
            .hash_one(std::process::id())
            .to_le_bytes()
    };
    bytes[..8].copy_from_slice(&half());
    bytes[8..].copy_from_slice(&half());
    bytes
}

/// The boot of this machine; `None` when unknown.
pub(crate) fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// Field 22 of `stat`. The name of the process (field 2) may contain anything but ends with the
/// last parenthesis.
fn process_start(stat: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(stat).ok()?;
    let after_name = &text[text.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Name of this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Makes sleeps of the calling thread end when they should: the kernel may else let each last
/// 50 us longer, in which a burst fills a good part of a ring.
pub(crate) fn precise_timers() {
    // A kernel that refuses leaves the sleeps as long as they were.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).ok();
}

/// Processor time of the calling thread so far.
pub(crate) fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

/// Processor time of all threads of this process so far.
pub(crate) fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    // Only a time below zero is none.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readings_differ_in_the_nonce_only() {
        let (a, b) = (Identity::read(), Identity::read());
        assert_ne!(a.nonce, b.nonce);
        assert_eq!(
            Identity {
                nonce: [0; 16],
                ..a
            },
            Identity {
                nonce: [0; 16],
                ..b
            }
        );
    }
}
