//! Records of the session about its own sampling, in category `stress`.

use crate::record::{DurationMs, Json, ShortText, Text};

crate::record! {
    /// Sampling has begun.
    pub(crate) struct SamplingStarted in "stress" keep Always {
        /// `sampling_started`.
        event_type: ShortText,
        /// `warning`.
        severity: ShortText,
        /// A sentence for people.
        description: Text,
        /// `ring_fill`, `drain_lag`, `no_segment` or `disk`.
        cause: ShortText,
        /// Highest pressure of a category.
        pressure: u8,
    }
}

crate::record! {
    /// Sampling has ended.
    pub(crate) struct SamplingEnded in "stress" keep Always {
        /// `sampling_ended`.
        event_type: ShortText,
        /// `info`.
        severity: ShortText,
        /// A sentence for people.
        description: Text,
        /// From the first pressure to the last.
        duration_ms: DurationMs<2>,
        /// Highest pressure that a category had.
        pressure: u8,
        /// Records offered during the episode.
        offered: u64,
        /// Of these, left out.
        sampled_out: u64,
        /// Of these, dropped for any reason.
        dropped: u64,
        /// The same per category.
        categories: Option<Json>,
    }
}
