//! How streams end, in the words of the proxy.

use crate::record::Name;
use crate::symbol;

/// How a playback ends.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// In `stream_ended`.
    pub reason: Name<'static>,
    /// Code in `disconnects`.
    pub code: Name<'static>,
    /// HTTP status of the request.
    pub status: i32,
    /// In `disconnects`; empty for the normal end.
    pub error: &'static str,
    /// A sentence in `disconnects`.
    pub detail: &'static str,
}

/// The client left: the normal end.
pub fn handler_exit() -> Ending {
    Ending {
        reason: symbol!("handler_exit"),
        code: symbol!("client_disconnected"),
        status: 200,
        error: "",
        detail: "the client closed the connection while the stream was running",
    }
}

/// The engine gave no data.
pub fn fetch_failed() -> Ending {
    Ending {
        reason: symbol!("fetch_stream_failed"),
        code: symbol!("fetch_failed"),
        status: 500,
        error: "the engine closed the stream before its first byte arrived",
        detail: "fetching the stream from the engine failed",
    }
}

/// The engine did not start.
pub fn start_failed() -> Ending {
    Ending {
        reason: symbol!("start_stream_failed"),
        code: symbol!("start_failed"),
        status: 500,
        error: "the engine did not find a peer that has the content within its time limit",
        detail: "the engine did not start the stream",
    }
}
