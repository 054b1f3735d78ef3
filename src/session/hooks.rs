//! What only tests do to a session.

use super::Session;

impl Session {
    /// For tests: makes the writer rest between two passes, and returns when it does. Until
    /// [`resume_writer`](Self::resume_writer) or a close it drains nothing.
    #[doc(hidden)]
    pub fn pause_writer(&self) {
        if let Some(live) = &self.live {
            live.control.pause(|| live.core.wake.unpark());
        }
    }

    /// For tests: ends [`pause_writer`](Self::pause_writer).
    #[doc(hidden)]
    pub fn resume_writer(&self) {
        if let Some(live) = &self.live {
            live.control.resume(|| live.core.wake.unpark());
        }
    }
}
