//! The setting `drain_wait_max`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Durability, Settings, bad};
use crate::error::Error;

/// What the writer may wait between two looks at the rings.
const DRAIN_WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);

impl Settings {
    /// Longest wait of the writer. By default it is short where something depends on records that
    /// are in a segment: lines, the disk, or an end of the container or process that takes the
    /// rings with it.
    pub(crate) fn drain_wait_max(&self, rings_stay: bool) -> Duration {
        let hurries = self.live || self.durability != Durability::Off || !rings_stay;
        let default = Duration::from_millis(if hurries { 8 } else { 250 });
        self.drain_wait_max.unwrap_or(default)
    }

    pub(super) fn check_drain_wait(&self) -> Result<(), Error> {
        match self.drain_wait_max {
            Some(wait) if !DRAIN_WAITS.contains(&wait) => {
                let value = format!("{} us", wait.as_micros());
                Err(bad("drain_wait_max", &value, "give 1 to 1000 ms"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_waits_long_only_where_nothing_depends_on_segments() {
        let ms = Duration::from_millis;
        assert_eq!(Settings::default().drain_wait_max(true), ms(250));
        assert_eq!(Settings::default().drain_wait_max(false), ms(8));
        let live = Settings {
            live: true,
            ..Settings::default()
        };
        assert_eq!(live.drain_wait_max(true), ms(8));
        let durable = Settings {
            durability: Durability::Segment,
            ..Settings::default()
        };
        assert_eq!(durable.drain_wait_max(true), ms(8));
        let asked = Settings {
            drain_wait_max: Some(ms(30)),
            ..durable
        };
        assert_eq!(asked.drain_wait_max(false), ms(30));
    }
}
