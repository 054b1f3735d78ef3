//! One thing that happens in the generated traffic: a catalog record that owns its texts.

use std::time::Duration;

use crate::record::catalog::{orchestrator, proxy};
use crate::record::{Extra, Name, Record, Value};
use crate::{Log, Outcome, symbol};

/// The most extra fields that one event has.
pub const EXTRAS_MAX: usize = 8;

/// Header, count of extra fields and padding of a record are shorter.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// What stands beside the texts of an extra field is shorter.
const EXTRA_OVERHEAD_BYTES: usize = 16;

/// Which program logs the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The Python service that starts engines.
    Orchestrator,
    /// The Go service that clients talk to.
    Proxy,
}

/// One event at its virtual time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Time since the start of the traffic.
    pub at: Duration,
    /// Who logs it.
    pub side: Side,
    /// The task or goroutine: events of one lane stay on one thread, in order.
    pub lane: u32,
    /// The record.
    pub payload: Payload,
    /// Its extra fields.
    pub extras: Extras,
}

/// Extra fields that own their texts.
pub type Extras = Vec<(Name<'static>, Owned)>;

/// Value of an extra field.
#[derive(Clone, Debug, PartialEq)]
pub enum Owned {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// JSON text.
    Json(String),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Flag(flag) => Value::Bool(*flag),
            Self::Int(int) => Value::I64(*int),
            Self::Float(float) => Value::F64(*float),
            Self::Text(text) => Value::Text(text),
            Self::Json(json) => Value::Json(json),
        }
    }
}

impl From<&str> for Owned {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Owned {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Owned {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Owned {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<f64> for Owned {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl Event {
    /// At most so many bytes does the event take in a ring.
    pub fn ring_bytes_max(&self) -> usize {
        let extras = self.extras.iter().map(|(key, owned)| {
            let key = match key {
                Name::Text(text) => text.len(),
                Name::Symbol(_) => 0,
            };
            let value = match owned {
                Owned::Text(text) | Owned::Json(text) => text.len(),
                Owned::Flag(_) | Owned::Int(_) | Owned::Float(_) => 0,
            };
            EXTRA_OVERHEAD_BYTES + key + value
        });
        RECORD_OVERHEAD_BYTES + self.payload.bytes() + extras.sum::<usize>()
    }

    /// The extra fields in `space`.
    pub fn extras<'s, 'e: 's>(&'e self, space: &'s mut [Extra<'e>; EXTRAS_MAX]) -> &'s [Extra<'e>] {
        for (place, (key, owned)) in space.iter_mut().zip(&self.extras) {
            *place = Extra::new(*key, owned.value());
        }
        &space[..self.extras.len().min(EXTRAS_MAX)]
    }
}

/// The severity of a stress event, in the word that both services use.
pub fn severity(critical: bool) -> Name<'static> {
    if critical {
        symbol!("critical")
    } else {
        symbol!("warning")
    }
}

/// What the owner of a field value lends to a record.
trait Lend {
    type Lent<'a>
    where
        Self: 'a;
    fn lend(&self) -> Self::Lent<'_>;
}

impl Lend for String {
    type Lent<'a> = &'a str;
    fn lend(&self) -> &str {
        self
    }
}

impl Lend for Option<String> {
    type Lent<'a> = Option<&'a str>;
    fn lend(&self) -> Option<&str> {
        self.as_deref()
    }
}

macro_rules! lend_copies {
    ($($type:ty),*) => {$(
        impl Lend for $type {
            type Lent<'a> = $type;
            fn lend(&self) -> $type {
                *self
            }
        }
    )*};
}

lend_copies!(Name<'static>, Duration, Option<Duration>, bool, i32, i64);

/// Declares [`Payload`]: for each record the same fields with owned texts.
macro_rules! payloads {
    ($($variant:ident = $side:ident :: $record:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        /// A catalog record that owns its texts; the fields are those of the record.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Payload {
            $(
                #[doc = concat!("[`", stringify!($side), "::", stringify!($record), "`]")]
                $variant { $(#[doc = "As in the record."] $field: $type),* },
            )*
        }

        impl Payload {
            /// Pushes the record.
            #[inline]
            pub fn push(&self, log: &Log, extras: &[Extra<'_>]) -> Outcome {
                match self {
                    $(Self::$variant { $($field),* } => {
                        log.push_with(&$side::$record { $($field: $field.lend()),* }, extras)
                    })*
                }
            }

            /// Bytes of the record without its header and extra fields.
            pub fn bytes(&self) -> usize {
                match self {
                    $(Self::$variant { $($field),* } => {
                        let record = $side::$record { $($field: $field.lend()),* };
                        size_of_val(&record.fixed(usize::MAX)) + record.variable_bytes(usize::MAX)
                    })*
                }
            }

            /// Category of the record.
            #[cfg(test)]
            pub fn category(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $side::$record::default().schema().category,)*
                }
            }
        }
    };
}

payloads! {
    Provisioning = orchestrator::Provisioning {
        operation: Name<'static>,
        container_id: Option<String>,
        duration_ms: Option<Duration>,
        success: bool,
        error: Option<String>,
    }
    Health = orchestrator::Health {
        component: Name<'static>,
        container_id: Option<String>,
        status: Name<'static>,
        duration_ms: Option<Duration>,
        error: Option<String>,
    }
    VpnCheck = orchestrator::VpnCheck {
        operation: Name<'static>,
        status: Name<'static>,
        duration_ms: Option<Duration>,
    }
    VpnChange = orchestrator::VpnChange {
        operation: Name<'static>,
        status: Name<'static>,
        duration_ms: Option<Duration>,
    }
    CircuitBreaker = orchestrator::CircuitBreaker {
        operation_type: Name<'static>,
        state: Name<'static>,
        failure_count: i64,
    }
    Stress = orchestrator::Stress {
        event_type: Name<'static>,
        severity: Name<'static>,
        description: String,
    }
    ProxyRequest = proxy::Request {
        method: Name<'static>,
        path: String,
        duration_ms: Duration,
        status_code: i32,
        ace_id: String,
    }
    ProxySelection = proxy::EngineSelection {
        operation: Name<'static>,
        selected_host: Name<'static>,
        selected_port: i32,
        container_id: String,
        duration_ms: Duration,
        error: String,
    }
    ProxyProvisioning = proxy::Provisioning {
        operation: Name<'static>,
        duration_ms: Duration,
        success: bool,
        error: String,
        retry_count: i32,
    }
    ProxyPoll = proxy::OrchestratorHealth {
        status: Name<'static>,
        can_provision: bool,
        blocked_reason: String,
        blocked_reason_code: Name<'static>,
        recovery_eta_seconds: i64,
        vpn_connected: bool,
        capacity_total: i64,
        capacity_used: i64,
        capacity_available: i64,
    }
    ProxyStream = proxy::StreamEvent {
        event_type: Name<'static>,
        stream_id: String,
        engine_id: String,
        duration_ms: Duration,
    }
    ProxyDisconnect = proxy::Disconnect {
        stream_id: String,
        ace_id: String,
        reason: Name<'static>,
        error: String,
        bytes_copied: i64,
        duration_ms: Duration,
        detailed_reason: String,
        engine_host: Name<'static>,
        engine_port: i32,
        container_id: String,
    }
    ProxyStress = proxy::Stress {
        event_type: Name<'static>,
        severity: Name<'static>,
        description: String,
    }
}
