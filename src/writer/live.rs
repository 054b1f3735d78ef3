//! What the writer tells the thread that appends lines while the session records.

use super::Writer;

impl Writer {
    /// Tells how many blocks there are; `begun`: the counter when the last pass began.
    pub(super) fn tell_live(&self, begun: u64) {
        if let Some(live) = &self.core.live {
            live.tell(self.segments.sequence, (!self.stalled).then_some(begun));
        }
    }
}
