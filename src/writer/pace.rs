//! What the writer does between two blocks of a long pass: it lets the controller look, and in a
//! demo it is as slow as it was told to be.

use std::time::{Duration, Instant};

use super::Writer;

/// A sleep that took too long is made up for, up to this much.
const SLACK: Duration = Duration::from_millis(2);

/// Holds a limit of bytes per second.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the bytes so far would have been taken at the limit.
    until: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            until: Instant::now(),
        }
    }

    /// How long to sleep after `bytes` were taken at `now`.
    fn wait(&mut self, bytes: usize, bytes_per_second: u64, now: Instant) -> Duration {
        let took = Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        self.until = self.until.max(earliest) + took;
        self.until.saturating_duration_since(now)
    }
}

impl Writer {
    /// After a block of `bytes` from a ring. A pass over full rings onto a slow disk may take
    /// longer than the time in which the controller has to answer.
    pub(super) fn between_blocks(&mut self, bytes: usize) {
        if let Some(limit) = self.control.limit() {
            let wait = self.pace.wait(bytes, limit.get(), Instant::now());
            if !wait.is_zero() {
                std::thread::sleep(wait);
            }
        }
        if self.balance.is_due() {
            self.look();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_over_sleeps_that_are_too_long() {
        let mut pace = Pace::new();
        let start = pace.until + Duration::from_secs(1);
        let ms = Duration::from_millis;
        // 1000 bytes per second; the slack of 2 ms is there from the start.
        assert_eq!(pace.wait(12, 1000, start), ms(10));
        assert_eq!(pace.wait(5, 1000, start + ms(11)), ms(4));
        // Woken up 1 ms late, as much less is slept.
        assert_eq!(pace.wait(5, 1000, start + ms(16)), ms(4));
        // A long absence gives no more than the slack.
        assert_eq!(pace.wait(5, 1000, start + ms(900)), ms(3));
    }
}
