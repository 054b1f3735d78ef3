//! Built-in record types: what the first two users of the recorder log.
//!
//! Field names and their order are those of the lines that the old loggers wrote, so that scripts
//! which read them go on working. The two programs use the same names for different records
//! (`Provisioning`, `Stress`, `Failure`); the modules keep them apart.
//!
//! | category | [`orchestrator`] | [`proxy`] |
//! |---|---|---|
//! | `provisioning` | `Provisioning` | `Provisioning` |
//! | `health` | `Health` | |
//! | `vpn` | `VpnCheck`, `VpnChange` (Always) | |
//! | `autoscaler` | `Autoscaler` | |
//! | `circuit_breaker` | `CircuitBreaker` (Always) | |
//! | `performance` | `Performance`, `TimedOperation` | |
//! | `requests` | | `Request` |
//! | `engine_selection` | | `EngineSelection` |
//! | `orchestrator_health` | | `OrchestratorHealth` |
//! | `streams` | | `StreamEvent` |
//! | `disconnects` | | `Disconnect` |
//! | `stress` | `Stress` (Always) | `Stress` (Always) |
//! | `errors` | `Failure` (Always) | `Failure` (Always) |
//!
//! Types without a note are `Sampled`. What a call adds beyond these fields (`**kw`, details,
//! context) goes to the extra fields of [`Log::push_with`](crate::Log::push_with) and follows in
//! the line. `session` lines are written by the engine itself.

pub mod orchestrator;
pub mod proxy;

#[cfg(test)]
mod tests {
    use crate::record::{FieldKind, KeepClass, Record};

    /// Category, keep class, key and field names, as one comparable line.
    fn shape(record: &impl Record) -> String {
        let schema = record.schema();
        let names: Vec<_> = schema.fields.iter().map(|field| field.name).collect();
        let key = schema.key.map_or("-", |key| names[usize::from(key)]);
        let keep = match schema.keep {
            KeepClass::Sampled => "sampled",
            KeepClass::Always => "always",
        };
        format!("{} {keep} {key}: {}", schema.category, names.join(" "))
    }

    /// Digits of every duration of the record.
    fn decimals(record: &impl Record) -> Vec<u8> {
        let fields = record.schema().fields.iter();
        fields
            .filter(|field| field.field_type.kind == FieldKind::DurationMs)
            .map(|field| field.field_type.decimals)
            .collect()
    }

    #[test]
    fn orchestrator_fields_are_those_of_the_old_lines() {
        use super::orchestrator::*;
        assert_eq!(
            shape(&Provisioning::default()),
            "provisioning sampled container_id: operation container_id duration_ms success error"
        );
        assert_eq!(
            shape(&Health::default()),
            "health sampled container_id: component container_id status duration_ms error"
        );
        assert_eq!(
            shape(&VpnCheck::default()),
            "vpn sampled -: operation status duration_ms"
        );
        assert_eq!(
            shape(&VpnChange::default()),
            "vpn always -: operation status duration_ms"
        );
        assert_eq!(
            shape(&Autoscaler::default()),
            "autoscaler sampled -: operation current_replicas target_replicas"
        );
        assert_eq!(
            shape(&CircuitBreaker::default()),
            "circuit_breaker always -: operation_type state failure_count"
        );
        assert_eq!(
            shape(&Performance::default()),
            "performance sampled -: operation duration_ms threshold_exceeded"
        );
        assert_eq!(
            shape(&TimedOperation::default()),
            "performance sampled -: operation duration_ms threshold_exceeded success error category"
        );
        assert_eq!(
            shape(&Stress::default()),
            "stress always -: event_type severity description"
        );
        assert_eq!(
            shape(&Failure::default()),
            "errors always -: component operation error_type error_message traceback"
        );
    }

    #[test]
    fn proxy_fields_are_those_of_the_old_lines() {
        use super::proxy::*;
        assert_eq!(
            shape(&Request::default()),
            "requests sampled ace_id: method path duration_ms status_code ace_id"
        );
        assert_eq!(
            shape(&EngineSelection::default()),
            "engine_selection sampled container_id: operation selected_host selected_port \
             container_id duration_ms error"
        );
        assert_eq!(
            shape(&Provisioning::default()),
            "provisioning sampled -: operation duration_ms success error retry_count"
        );
        assert_eq!(
            shape(&OrchestratorHealth::default()),
            "orchestrator_health sampled -: status can_provision blocked_reason \
             blocked_reason_code recovery_eta_seconds vpn_connected capacity_total capacity_used \
             capacity_available"
        );
        assert_eq!(
            shape(&StreamEvent::default()),
            "streams sampled stream_id: event_type stream_id engine_id duration_ms"
        );
        assert_eq!(
            shape(&Disconnect::default()),
            "disconnects sampled stream_id: stream_id ace_id reason error bytes_copied \
             duration_ms detailed_reason engine_host engine_port container_id"
        );
        assert_eq!(
            shape(&Stress::default()),
            "stress always -: event_type severity description"
        );
        assert_eq!(
            shape(&Failure::default()),
            "errors always -: component operation error_type error_message"
        );
    }

    #[test]
    fn durations_have_two_digits_at_the_orchestrator_and_none_at_the_proxy() {
        use super::{orchestrator, proxy};
        assert_eq!(decimals(&orchestrator::Provisioning::default()), [2]);
        assert_eq!(decimals(&orchestrator::Health::default()), [2]);
        assert_eq!(decimals(&orchestrator::VpnCheck::default()), [2]);
        assert_eq!(decimals(&orchestrator::VpnChange::default()), [2]);
        assert_eq!(decimals(&orchestrator::Performance::default()), [2]);
        assert_eq!(decimals(&orchestrator::TimedOperation::default()), [2]);
        assert_eq!(decimals(&proxy::Request::default()), [0]);
        assert_eq!(decimals(&proxy::EngineSelection::default()), [0]);
        assert_eq!(decimals(&proxy::Provisioning::default()), [0]);
        assert_eq!(decimals(&proxy::StreamEvent::default()), [0]);
        assert_eq!(decimals(&proxy::Disconnect::default()), [0]);
    }

    #[test]
    fn every_category_has_a_fixed_id() {
        use super::{orchestrator, proxy};
        use crate::record::CATEGORIES_BUILTIN;
        let used = [
            orchestrator::Autoscaler::default().schema().category,
            orchestrator::CircuitBreaker::default().schema().category,
            orchestrator::Performance::default().schema().category,
            orchestrator::VpnCheck::default().schema().category,
            orchestrator::Health::default().schema().category,
            proxy::Provisioning::default().schema().category,
            proxy::Request::default().schema().category,
            proxy::EngineSelection::default().schema().category,
            proxy::OrchestratorHealth::default().schema().category,
            proxy::StreamEvent::default().schema().category,
            proxy::Disconnect::default().schema().category,
            proxy::Stress::default().schema().category,
            proxy::Failure::default().schema().category,
        ];
        for category in used {
            assert!(CATEGORIES_BUILTIN.contains(&category), "{category}");
        }
    }
}
