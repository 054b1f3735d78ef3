//! Runs a process and tells what it took: the kernel's own account, from `wait4`.
#![expect(unsafe_code, reason = "`wait4` has no safe interface here")]

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use super::data::Times;

/// Runs `command` to its end. The processor time is that of all its threads, and of the processes
/// that it started and waited for, from the first instruction to the last.
///
/// # Errors
/// When it cannot be started, or not be waited for.
pub fn run(command: &mut Command) -> io::Result<(ExitStatus, Times)> {
    let begin = Instant::now();
    let child = command.spawn()?;
    let (status, cpu_ns) = wait(child.id().cast_signed())?;
    let wall_ns = begin.elapsed().as_nanos() as u64;
    Ok((status, Times { wall_ns, cpu_ns }))
}

fn wait(pid: libc::pid_t) -> io::Result<(ExitStatus, u64)> {
    let mut status = 0;
    // SAFETY: `rusage` is numbers only, for which zero bytes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals of the right types that live through the call.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let nanos = |time: libc::timeval| {
        let micros = time.tv_sec * 1_000_000 + time.tv_usec;
        u64::try_from(micros).unwrap_or(0) * 1_000
    };
    let cpu_ns = nanos(usage.ru_utime) + nanos(usage.ru_stime);
    Ok((ExitStatus::from_raw(status), cpu_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_status_and_its_time() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 7",
        ]);
        let (status, times) = run(&mut command).unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(times.cpu_ns > 0 && times.wall_ns > 0, "{times:?}");
        assert!(run(&mut Command::new("/nowhere/to/be/found")).is_err());
    }

    #[test]
    fn what_a_process_waited_for_counts() {
        let loops = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let (_, alone) = run(Command::new("true").arg("x")).unwrap();
        // The shell in the middle does nothing itself.
        let (_, times) =
            run(Command::new("sh").args(["-c", &format!("sh -c '{loops}'; :")])).unwrap();
        assert!(times.cpu_ns > 2 * alone.cpu_ns, "{times:?}, {alone:?}");
    }
}
