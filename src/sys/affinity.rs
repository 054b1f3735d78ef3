//! Where and when the writer runs: pinned to a core, and soon after it wakes up.

#![expect(unsafe_code, reason = "turns of the scheduler have no safe interface")]

use std::io;
use std::mem::zeroed;

use crate::config::WriterCore;

/// Pins the calling thread as asked and says in a few words what it did, for `session_start`.
pub(crate) fn pin(wanted: WriterCore) -> String {
    let allowed = match core_affinity::get_core_ids() {
        Some(cores) if !cores.is_empty() && !cfg!(miri) => cores,
        _ => return "not pinned: the cores of this process are not known".to_owned(),
    };
    let core = match wanted {
        WriterCore::Off => return "not pinned: switched off".to_owned(),
        WriterCore::Auto if allowed.len() < 2 => {
            return "not pinned: the process has one core only".to_owned();
        }
        WriterCore::Auto => allowed.last(),
        WriterCore::Core(id) => allowed.iter().find(|core| core.id == id),
    };
    match core {
        Some(core) if core_affinity::set_for_current(*core) => format!("core {}", core.id),
        Some(core) => format!("not pinned: the kernel refused core {}", core.id),
        None => format!("not pinned: this process may not use the core asked for ({wanted:?})"),
    }
}

/// The shortest turn that the kernel grants, ns.
const TURN_NS: u64 = 100_000;

/// Asks the scheduler for short turns of the calling thread. Its part of the processor is the same,
/// but when it wakes up on a core that is busy its turn comes before that of threads with longer
/// ones (Linux 6.12 and later), instead of after the rest of theirs, some milliseconds in which
/// producers fill a good part of a ring.
pub(crate) fn take_short_turns() {
    // Older kernels know no such turns, and a sandbox may refuse: the writer comes later then.
    short_turns().ok();
}

fn short_turns() -> io::Result<()> {
    let mut attributes = scheduling()?;
    // A turn means something else under a policy of real time, which needs none of this.
    if attributes.sched_policy == libc::SCHED_OTHER as u32 {
        attributes.sched_runtime = TURN_NS;
        // SAFETY: the kernel reads `size` bytes of the structure.
        let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// How the calling thread is scheduled.
fn scheduling() -> io::Result<libc::sched_attr> {
    let bytes = size_of::<libc::sched_attr>();
    // SAFETY: a structure of integers, for which zeros are values.
    let mut attributes: libc::sched_attr = unsafe { zeroed() };
    // SAFETY: the kernel writes `bytes` bytes at most, which is the size of the structure.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    if result == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn turns_become_short_and_nothing_else_changes() {
        let before = match scheduling() {
            Ok(before) => before,
            Err(error) => return println!("skipped: this machine does not tell: {error}"),
        };
        if let Err(error) = short_turns() {
            return println!("skipped: this machine refuses: {error}");
        }
        let after = scheduling().unwrap();
        assert_eq!(after.sched_policy, before.sched_policy);
        assert_eq!(after.sched_nice, before.sched_nice);
        // A kernel that knows no turns tells of none.
        let told = before.sched_policy == libc::SCHED_OTHER as u32 && before.sched_runtime > 0;
        let expected = if told { TURN_NS } else { before.sched_runtime };
        assert_eq!(after.sched_runtime, expected);
    }
}
