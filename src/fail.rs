//! Named points at which a process kills itself, so that tests can end one between any two steps
//! of a protocol. Only in builds with the feature `failpoints`; elsewhere a point is nothing.
//!
//! `STORMLOG_FAIL_POINT=name:n` ends the process with SIGKILL when it passes the point for the
//! n-th time, `name` alone for the first time.

/// A point of this name. Names are unique.
#[cfg(feature = "failpoints")]
macro_rules! fail_point {
    ($name:literal) => {
        $crate::fail::pass($name)
    };
}

/// Nothing: there are no points in this build.
#[cfg(not(feature = "failpoints"))]
macro_rules! fail_point {
    ($name:literal) => {};
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::pass;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::process::{Signal, getpid, kill_process};

    /// Environment variable with the point and the number of the pass.
    const VARIABLE: &str = "STORMLOG_FAIL_POINT";

    struct Chosen {
        name: String,
        /// Passes that are left.
        left: AtomicU64,
    }

    impl Chosen {
        fn read() -> Option<Self> {
            let text = std::env::var(VARIABLE).ok()?;
            let (name, passes) = match text.split_once(':') {
                Some((name, passes)) => (name, passes.parse().ok()?),
                None => (text.as_str(), 1),
            };
            Some(Self {
                name: name.to_owned(),
                left: AtomicU64::new(passes),
            })
        }
    }

    /// Passes a point.
    #[inline(never)]
    pub(crate) fn pass(name: &str) {
        static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
        let Some(chosen) = CHOSEN.get_or_init(Chosen::read) else {
            return;
        };
        // Relaxed: a count alone. Nobody lives long after the last pass.
        if chosen.name == name && chosen.left.fetch_sub(1, Relaxed) == 1 {
            let killed = kill_process(getpid(), Signal::KILL);
            unreachable!("{killed:?}");
        }
    }
}
