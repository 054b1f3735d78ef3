//! How much space the session may still take: `session_bytes_max` and `keep_free_bytes`.
//!
//! Segments and the JSON Lines that they will become count together, because both exist for a
//! moment at the end.

use crate::segment::prepare::SEGMENT_ALIGN;

/// Bounds on the space of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceBounds {
    /// Bytes of the whole session; 0 = no bound.
    pub(crate) session_bytes_max: u64,
    /// Bytes that stay free; `None` = as the size of the file system says.
    pub(crate) keep_free_bytes: Option<u64>,
}

/// The file system and the session in it, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    /// Free bytes and size of the file system.
    pub(crate) free: u64,
    pub(crate) total: u64,
    /// Bytes of the segments, reserved ones too.
    pub(crate) segments: u64,
    /// Bytes of records in them.
    pub(crate) recorded: u64,
    /// Estimated bytes of JSON Lines of these records.
    pub(crate) lines: u64,
}

/// Estimated bytes of lines per byte of records, as long as nothing is recorded.
const LINES_PER_BYTE: f64 = 6.0;

impl SpaceBounds {
    /// The bytes that stay free on a file system of `total` bytes.
    pub(crate) fn keep_free(&self, total: u64) -> u64 {
        let default = (total / 20).max(1 << 30).min(total / 2);
        self.keep_free_bytes.unwrap_or(default)
    }

    /// Bytes that segments may still take.
    pub(crate) fn left(&self, space: &Space) -> u64 {
        let free = space.free.saturating_sub(self.keep_free(space.total));
        let bound = match self.session_bytes_max {
            0 => u64::MAX,
            max => max.saturating_sub(space.segments),
        };
        let left = free.min(bound).saturating_sub(space.lines);
        let ratio = match space.recorded {
            0 => LINES_PER_BYTE,
            recorded => space.lines as f64 / recorded as f64,
        };
        // Every byte of a segment brings its lines with it.
        (left as f64 / (1.0 + ratio)) as u64
    }

    /// Why a segment of `bytes` bytes may not be made, if it may not.
    pub(crate) fn refuses(&self, space: &Space, bytes: usize) -> Option<String> {
        (self.left(space) < bytes as u64).then(|| self.sentence(space))
    }

    /// Which of the two bounds is the tighter one, for messages.
    pub(crate) fn sentence(&self, space: &Space) -> String {
        let keep_free = self.keep_free(space.total);
        if self.session_bytes_max > 0
            && self.session_bytes_max.saturating_sub(space.segments)
                < space.free.saturating_sub(keep_free)
        {
            format!(
                "the session has reached session_bytes_max ({}, lines included)",
                self.session_bytes_max
            )
        } else {
            format!(
                "{} bytes are free, of which keep_free_bytes ({keep_free}) and the lines of this \
                 session ({}) are spoken for",
                space.free, space.lines
            )
        }
    }
}

/// The pressure that the disk asks for while `left` bytes are left and the next segment wants
/// `wanted`.
pub(crate) fn disk_pressure(left: u64, wanted: usize) -> u8 {
    match left / (wanted as u64).max(1) {
        0 => 4,
        1 => 3,
        2..=3 => 2,
        4..=7 => 1,
        _ => 0,
    }
}

/// The length of the next segment when `wanted` is asked for and `left` is left: at most half of
/// what is left, at least `least`; `None` when that is too much.
pub(crate) fn segment_bytes(left: u64, wanted: usize, least: usize) -> Option<usize> {
    let half = (left / 2).min(wanted as u64) as usize / SEGMENT_ALIGN * SEGMENT_ALIGN;
    let bytes = half.max(least.min(wanted));
    (bytes as u64 <= left).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn bounds(session_bytes_max: u64, keep_free_bytes: Option<u64>) -> SpaceBounds {
        SpaceBounds {
            session_bytes_max,
            keep_free_bytes,
        }
    }

    #[test]
    fn default_keeps_a_gib_or_a_twentieth_but_never_all() {
        let keep = |total| bounds(0, None).keep_free(total);
        assert_eq!(keep(100 << 30), 5 << 30);
        assert_eq!(keep(10 << 30), 1 << 30);
        assert_eq!(keep(64 * MIB), 32 * MIB);
        assert_eq!(bounds(0, Some(7)).keep_free(100 << 30), 7);
    }

    #[test]
    fn lines_count_too() {
        let space = Space {
            free: 100 * MIB,
            total: 200 * MIB,
            segments: 10 * MIB,
            recorded: 10 * MIB,
            lines: 40 * MIB,
        };
        // 100 - 20 free - 40 for the lines = 40, of which a fifth is for segments.
        assert_eq!(bounds(0, Some(20 * MIB)).left(&space), 8 * MIB);
        // 90 - 10 segments - 40 = 40, the same.
        assert_eq!(bounds(90 * MIB, Some(0)).left(&space), 8 * MIB);
        assert_eq!(bounds(40 * MIB, Some(0)).left(&space), 0);
        assert_eq!(bounds(0, Some(60 * MIB)).left(&space), 0);
        let fresh = Space {
            free: 70 * MIB,
            ..Space::default()
        };
        assert_eq!(bounds(0, Some(0)).left(&fresh), 10 * MIB);
        assert!(bounds(40 * MIB, Some(0)).sentence(&space).contains("max"));
        assert!(bounds(0, None).sentence(&space).contains("keep_free"));
    }

    #[test]
    fn segments_shrink_before_they_end() {
        let least = 4 << 20;
        let bytes = |left: u64| segment_bytes(left * MIB, 64 << 20, least);
        assert_eq!(bytes(1000), Some(64 << 20));
        assert_eq!(bytes(100), Some(50 << 20));
        assert_eq!(bytes(5), Some(4 << 20));
        assert_eq!(bytes(3), None);
        let pressures = [1000, 400, 200, 80, 10].map(|left| disk_pressure(left * MIB, 64 << 20));
        assert_eq!(pressures, [0, 1, 2, 3, 4]);
    }
}
