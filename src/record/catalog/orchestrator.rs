//! Records of the orchestrator: the categories of its old Python logger.
//!
//! Durations are milliseconds with two digits, half to even; what was not measured is null.

use crate::record::{DurationMs, LongText, ShortText, Symbol, Text};

crate::record! {
    /// A step of starting or stopping a container.
    pub struct Provisioning in "provisioning" keep Sampled key container_id {
        /// `start_container_begin`, `start_acestream_success` and so on.
        operation: Symbol,
        /// 64 hexadecimal digits; null before the container exists.
        container_id: Option<ShortText>,
        /// Time since the begin; null in the begin line.
        duration_ms: Option<DurationMs<2>>,
        /// Whether it worked; true in the begin line.
        success: bool,
        /// Why it did not work.
        error: Option<Text>,
    }
}

crate::record! {
    /// A check of a component or container.
    pub struct Health in "health" keep Sampled key container_id {
        /// What was checked.
        component: Symbol,
        /// The container, where it is one.
        container_id: Option<ShortText>,
        /// `completed`, `error`, `unknown` and so on.
        status: Symbol,
        /// Time the check took.
        duration_ms: Option<DurationMs<2>>,
        /// Why the check failed.
        error: Option<Text>,
    }
}

crate::record! {
    /// A periodic check of the VPN: frequent, alike, may be sampled.
    pub struct VpnCheck in "vpn" keep Sampled {
        /// `health_check`.
        operation: Symbol,
        /// `healthy`, `unhealthy`, `starting`, `not_running`, `not_found`, `error`,
        /// `healthy_no_healthcheck`.
        status: Symbol,
        /// Time the check took.
        duration_ms: Option<DurationMs<2>>,
    }
}

crate::record! {
    /// A change at the VPN: transition, restart of engines, new forwarded port. Never sampled.
    pub struct VpnChange in "vpn" keep Always {
        /// `transition`, `restart_engines`, `port_change_detected` and so on.
        operation: Symbol,
        /// State after the change, or `triggered`, `skipped`.
        status: Symbol,
        /// Time it took.
        duration_ms: Option<DurationMs<2>>,
    }
}

crate::record! {
    /// A decision about the number of replicas.
    pub struct Autoscaler in "autoscaler" keep Sampled {
        /// What was decided.
        operation: Symbol,
        /// Replicas that run.
        current_replicas: i64,
        /// Replicas that should run.
        target_replicas: Option<i64>,
    }
}

crate::record! {
    /// A circuit breaker opened, closed or probed. Never sampled.
    pub struct CircuitBreaker in "circuit_breaker" keep Always {
        /// What the breaker protects.
        operation_type: Symbol,
        /// `open`, `half_open`, `closed`.
        state: Symbol,
        /// Failures in a row.
        failure_count: i64,
    }
}

crate::record! {
    /// The duration of an operation.
    pub struct Performance in "performance" keep Sampled {
        /// What was done.
        operation: Symbol,
        /// Time it took.
        duration_ms: Option<DurationMs<2>>,
        /// Whether it took longer than it should.
        threshold_exceeded: bool,
    }
}

crate::record! {
    /// The duration and outcome of a function that is timed as a whole.
    pub struct TimedOperation in "performance" keep Sampled {
        /// Name of the function, or the name given for it.
        operation: Symbol,
        /// Time it took.
        duration_ms: Option<DurationMs<2>>,
        /// Always false: such a timing has no threshold.
        threshold_exceeded: bool,
        /// Whether it returned normally.
        success: bool,
        /// What it raised.
        error: Option<Text>,
        /// The category that was asked for.
        category: Symbol,
    }
}

crate::record! {
    /// The system is under stress. Never sampled.
    pub struct Stress in "stress" keep Always {
        /// `slow_provisioning`, `high_unhealthy_engines`, `vpn_disconnection` and so on.
        event_type: Symbol,
        /// `warning`, `critical`.
        severity: Symbol,
        /// A sentence for people.
        description: Text,
    }
}

crate::record! {
    /// An exception. Never sampled.
    pub struct Failure in "errors" keep Always {
        /// Where it happened.
        component: Symbol,
        /// What was being done.
        operation: Option<Symbol>,
        /// Class of the exception.
        error_type: Symbol,
        /// Its message.
        error_message: Text,
        /// The formatted traceback.
        traceback: Option<LongText>,
    }
}
