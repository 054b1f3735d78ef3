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
    /// Bytes of the smallest segment, which is also the length of the reserve.
    pub(crate) segment_bytes_min: usize,
}

/// The file system and the session in it, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    /// Free bytes and size of the file system; a size of 0 says that it does not know.
    pub(crate) free: u64,
    pub(crate) total: u64,
    /// Bytes of the segments, the reserve too.
    pub(crate) segments: u64,
    /// Bytes of the reserve, used or not; 0 while there is none.
    pub(crate) reserve: u64,
    /// Bytes of records in the segments.
    pub(crate) recorded: u64,
    /// Estimated bytes of JSON Lines of these records.
    pub(crate) lines: u64,
    /// The same of `Always` records alone.
    pub(crate) always_recorded: u64,
    pub(crate) always_lines: u64,
    /// Bytes of lines that are in files already, and of the files that will be written anew.
    pub(crate) live: u64,
    pub(crate) again: u64,
}

/// Bytes of lines per byte of records, and of `Always` records, as long as little is recorded.
const LINES_PER_BYTE: f64 = 6.0;
const ALWAYS_LINES_PER_BYTE: f64 = 3.0;
/// Little: until about so many bytes the figures above outweigh those of the session.
const LITTLE_BYTES: f64 = 65_536.0;
/// A session that has less than this for lines starts at its bound.
const LINES_LEAST: u64 = 1 << 20;

fn ratio(recorded: u64, lines: u64, before: f64) -> f64 {
    (lines as f64 + before * LITTLE_BYTES) / (recorded as f64 + LITTLE_BYTES)
}

impl Space {
    /// Bytes of lines that a byte of records brings.
    fn ratio(&self) -> f64 {
        ratio(self.recorded, self.lines, LINES_PER_BYTE)
    }
}

impl SpaceBounds {
    /// The bytes that stay free on a file system of `total` bytes.
    pub(crate) fn keep_free(&self, total: u64) -> u64 {
        let default = (total / 20).max(1 << 30).min(total / 2);
        self.keep_free_bytes.unwrap_or(default)
    }

    /// Bytes beyond the segments that there are: by the file system, and by the session.
    fn rooms(&self, space: &Space) -> (u64, u64) {
        let free = match space.total {
            0 => u64::MAX,
            // Lines that are there have taken their space already; a file that is written anew
            // takes as much again until the old one goes.
            total => (space.free.saturating_sub(self.keep_free(total)))
                .saturating_add(space.live)
                .saturating_sub(space.again),
        };
        let session = match self.session_bytes_max {
            0 => u64::MAX,
            max => max
                .saturating_sub(space.segments)
                .saturating_sub(space.again),
        };
        (free, session)
    }

    /// Bytes that lines may have in all before normal records are shed. The reserve is left out,
    /// and as much as its records will take as lines, but not more than half of everything.
    pub(crate) fn lines_max(&self, space: &Space) -> u64 {
        let (free, session) = self.rooms(space);
        let room = free.min(session);
        if room == u64::MAX {
            return u64::MAX;
        }
        let reserve = self.segment_bytes_min as u64;
        let room = room.saturating_sub(reserve.saturating_sub(space.reserve));
        let ratio = ratio(
            space.always_recorded,
            space.always_lines,
            ALWAYS_LINES_PER_BYTE,
        );
        room - ((reserve as f64 * ratio) as u64).min(room / 2)
    }

    /// Bytes that new segments and their lines may take together.
    pub(crate) fn left(&self, space: &Space) -> u64 {
        let max = self.lines_max(space);
        if max == u64::MAX {
            return max;
        }
        // What is not filled yet will bring its lines too.
        let unfilled = space
            .segments
            .saturating_sub(space.reserve)
            .saturating_sub(space.recorded);
        let coming = (unfilled as f64 * space.ratio()) as u64;
        max.saturating_sub(space.lines).saturating_sub(coming)
    }

    /// Whether a reserve may be made.
    pub(crate) fn allows_reserve(&self, space: &Space) -> bool {
        let (free, session) = self.rooms(space);
        free.min(session).saturating_sub(space.lines) >= self.segment_bytes_min as u64
    }

    /// Why a session that has its first segment is at its bound, if it is.
    pub(crate) fn tight(&self, space: &Space) -> Option<String> {
        (self.lines_max(space) < LINES_LEAST).then(|| self.sentence(space))
    }

    /// The pressure that the disk asks for when the next segment wants `wanted` bytes: there is
    /// little left for such segments, and little of what there was.
    pub(crate) fn pressure(&self, space: &Space, wanted: usize) -> u8 {
        let max = self.lines_max(space);
        if max == u64::MAX {
            return 0;
        }
        let left = max.saturating_sub(space.lines) as f64;
        let segments = left / (1.0 + space.ratio()) / (wanted as f64).max(1.0);
        let part = left / (max as f64).max(1.0);
        // 0 from `enough` on, then one more for each half of it.
        let steps = |value: f64, enough: f64| {
            (1..=4)
                .take_while(|k| value < enough / f64::from(1 << (k - 1)))
                .count()
        };
        steps(segments, 8.0).min(steps(part, 0.5)) as u8
    }

    /// The length of the next segment when `wanted` is asked for: with its lines at most half of
    /// what is left. The smallest is made as long as there is as much again for lines. `None`
    /// when that is too much.
    pub(crate) fn segment_bytes(&self, space: &Space, wanted: usize) -> Option<usize> {
        let left = self.left(space);
        let half = (left as f64 / (1.0 + space.ratio()) / 2.0).min(wanted as f64) as usize;
        let least = self.segment_bytes_min.min(wanted);
        let bytes = (half / SEGMENT_ALIGN * SEGMENT_ALIGN).max(least);
        (2 * bytes as u64 <= left).then_some(bytes)
    }

    /// Which of the two bounds is the tighter one, for messages: what to do about it. Always the
    /// same words, so that it is said once.
    pub(crate) fn sentence(&self, space: &Space) -> String {
        let (free, session) = self.rooms(space);
        if session < free {
            format!(
                "session_bytes_max ({} bytes, lines included) is reached: raise it, or begin a new \
                 session",
                self.session_bytes_max
            )
        } else {
            let keep_free = self.keep_free(space.total);
            format!(
                "the file system has no more than keep_free_bytes ({keep_free}) and what this \
                 session needs for its lines: free space there, or lower keep_free_bytes"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LEAST: usize = 4 << 20;

    fn bounds(session_bytes_max: u64, keep_free_bytes: Option<u64>) -> SpaceBounds {
        SpaceBounds {
            session_bytes_max,
            keep_free_bytes,
            segment_bytes_min: LEAST,
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

    fn space() -> Space {
        Space {
            free: 100 * MIB,
            total: 200 * MIB,
            segments: 14 * MIB,
            reserve: 4 * MIB,
            recorded: 10 * MIB,
            lines: 40 * MIB,
            always_recorded: 1000 * MIB,
            always_lines: 2000 * MIB,
            ..Space::default()
        }
    }

    #[test]
    fn lines_that_are_in_files_count_once() {
        let before = space();
        // Of the 40 MiB of lines 30 are on the disk now, which has as much less.
        let live = Space {
            free: before.free - 30 * MIB,
            live: 30 * MIB,
            ..before
        };
        for bounds in [bounds(0, Some(20 * MIB)), bounds(94 * MIB, Some(0))] {
            assert_eq!(bounds.left(&live), bounds.left(&before));
            let again = Space {
                again: 10 * MIB,
                ..live
            };
            assert_eq!(bounds.left(&again), bounds.left(&before) - 10 * MIB);
        }
        let unknown = Space {
            total: 0,
            again: 10 * MIB,
            ..live
        };
        assert_eq!(bounds(0, None).left(&unknown), u64::MAX);
    }

    #[test]
    fn lines_and_the_reserve_count_too() {
        let space = space();
        // 100 - 20 free - 8 for the lines of the reserve.
        let near = |a: u64, b: u64| a.abs_diff(b) < MIB / 8;
        assert!(near(bounds(0, Some(20 * MIB)).lines_max(&space), 72 * MIB));
        assert!(near(bounds(0, Some(20 * MIB)).left(&space), 32 * MIB));
        // 94 - 14 segments, the same.
        assert!(near(bounds(94 * MIB, Some(0)).left(&space), 32 * MIB));
        assert_eq!(bounds(40 * MIB, Some(0)).left(&space), 0);
        assert_eq!(bounds(0, Some(60 * MIB)).left(&space), 0);
        // A reserve that is not there yet, and a segment that is not filled.
        let bare = Space {
            reserve: 0,
            segments: 10 * MIB,
            ..space
        };
        assert!(near(bounds(0, Some(20 * MIB)).left(&bare), 28 * MIB));
        let unfilled = Space {
            segments: 16 * MIB,
            ..space
        };
        assert!(near(bounds(0, Some(20 * MIB)).left(&unfilled), 24 * MIB));
        // No bound, and a file system that does not know its size.
        let unknown = Space {
            free: 0,
            total: 0,
            ..space
        };
        assert_eq!(bounds(0, None).left(&unknown), u64::MAX);
        assert_eq!(bounds(0, None).tight(&unknown), None);
        assert!(bounds(40 * MIB, Some(0)).sentence(&space).contains("max"));
        assert!(bounds(0, None).sentence(&space).contains("keep_free"));
    }

    #[test]
    fn segments_shrink_before_they_end() {
        let wanted = 64 << 20;
        let at = |left: u64| Space {
            free: left * MIB + 8 * MIB + 40 * MIB,
            ..space()
        };
        let bounds = bounds(0, Some(0));
        let bytes = |left| {
            bounds
                .segment_bytes(&at(left), wanted)
                .map(|bytes| bytes >> 20)
        };
        // Of each 5 bytes one is for the segment.
        assert_eq!(bytes(1000), Some(64));
        assert_eq!(bytes(205), Some(20));
        assert_eq!(bytes(9), Some(4));
        assert_eq!(bytes(7), None);
        // 40 MiB of lines are there: at 50 more than half of all is left.
        let pressures = [50, 30, 10, 4, 1].map(|left| bounds.pressure(&at(left), wanted));
        assert_eq!(pressures, [0, 1, 2, 3, 4]);
        let much = Space {
            lines: 4 * at(3000).lines,
            ..at(300_000)
        };
        assert_eq!(bounds.pressure(&much, wanted), 0);
    }

    #[test]
    fn a_session_on_a_small_file_system_records_and_at_its_bound_does_not() {
        let fresh = |free: u64| Space {
            free: free * MIB,
            total: 64 * MIB,
            segments: 4 * MIB,
            ..Space::default()
        };
        assert_eq!(bounds(0, None).tight(&fresh(60)), None);
        assert!(bounds(0, None).tight(&fresh(37)).is_some());
        assert_eq!(bounds(16 * MIB, Some(0)).tight(&fresh(60)), None);
        assert!(bounds(0, None).allows_reserve(&fresh(36)));
        assert!(!bounds(0, None).allows_reserve(&fresh(35)));
    }
}
