//! Records of the proxy: the categories of its old Go logger.
//!
//! Durations are whole milliseconds, cut; a text that is absent is empty, not null.

use crate::record::{DurationMs, ShortText, Symbol, Text};

crate::record! {
    /// A request that ended: with streaming, at the end of the playback.
    pub struct Request in "requests" keep Sampled key ace_id {
        /// HTTP method.
        method: Symbol,
        /// Path without the query.
        path: Text,
        /// Time from the request to its end.
        duration_ms: DurationMs<0>,
        /// HTTP status.
        status_code: i32,
        /// The content, `{id: <40 hexadecimal digits>}`.
        ace_id: ShortText,
    }
}

crate::record! {
    /// An engine was chosen for a request.
    pub struct EngineSelection in "engine_selection" keep Sampled key container_id {
        /// `select_best_engine`.
        operation: Symbol,
        /// Host of the engine.
        selected_host: Symbol,
        /// Its port.
        selected_port: i32,
        /// Its container, 64 hexadecimal digits.
        container_id: ShortText,
        /// Time the choice took.
        duration_ms: DurationMs<0>,
        /// Why there is none; empty when there is.
        error: Text,
    }
}

crate::record! {
    /// The orchestrator was asked for another engine.
    pub struct Provisioning in "provisioning" keep Sampled {
        /// `provision_success`, `provision_attempt_failed`, `provision_failed`,
        /// `provision_failed_permanent`.
        operation: Symbol,
        /// Time until the answer.
        duration_ms: DurationMs<0>,
        /// Whether there is an engine now.
        success: bool,
        /// Why there is none; empty when there is.
        error: Text,
        /// Attempts before this one.
        retry_count: i32,
    }
}

crate::record! {
    /// A poll of the orchestrator, every 30 seconds.
    pub struct OrchestratorHealth in "orchestrator_health" keep Sampled {
        /// `healthy`, `degraded` and so on.
        status: Symbol,
        /// Whether it can start engines.
        can_provision: bool,
        /// Why not; empty when it can.
        blocked_reason: Text,
        /// The same as a code.
        blocked_reason_code: Symbol,
        /// When it expects to be able again; 0 when it is.
        recovery_eta_seconds: i64,
        /// State of the VPN.
        vpn_connected: bool,
        /// Places for streams.
        capacity_total: i64,
        /// Places taken; can exceed the total while engines go away.
        capacity_used: i64,
        /// Places free.
        capacity_available: i64,
    }
}

crate::record! {
    /// A stream started or ended.
    pub struct StreamEvent in "streams" keep Sampled key stream_id {
        /// `stream_started`, `stream_ended`.
        event_type: Symbol,
        /// Content and playback, `<40 hexadecimal digits>|<32 hexadecimal digits>`.
        stream_id: ShortText,
        /// Container of the engine; empty in `stream_ended`.
        engine_id: ShortText,
        /// Time the engine took to start it.
        duration_ms: DurationMs<0>,
    }
}

crate::record! {
    /// A client left a stream, or was dropped from it.
    pub struct Disconnect in "disconnects" keep Sampled key stream_id {
        /// The stream.
        stream_id: ShortText,
        /// The content.
        ace_id: ShortText,
        /// One of eleven codes.
        reason: Symbol,
        /// The error, if there was one.
        error: Text,
        /// Bytes sent to the client.
        bytes_copied: i64,
        /// How long the client was there.
        duration_ms: DurationMs<0>,
        /// A sentence for people.
        detailed_reason: Text,
        /// Host of the engine.
        engine_host: Symbol,
        /// Its port.
        engine_port: i32,
        /// Its container.
        container_id: ShortText,
    }
}

crate::record! {
    /// The system is under stress. Never sampled.
    pub struct Stress in "stress" keep Always {
        /// `slow_request`, `orchestrator_degraded`, `provisioning_circuit_breaker` and so on.
        event_type: Symbol,
        /// `warning`, `critical`.
        severity: Symbol,
        /// A sentence for people.
        description: Text,
    }
}

crate::record! {
    /// An error. Never sampled.
    pub struct Failure in "errors" keep Always {
        /// Where it happened.
        component: Symbol,
        /// What was being done.
        operation: Symbol,
        /// Type of the error.
        error_type: Symbol,
        /// Its message.
        error_message: Text,
    }
}
