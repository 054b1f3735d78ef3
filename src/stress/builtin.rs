//! The built-in rules: those of the two old loggers, and those of web applications.

use std::time::Duration;

use super::rule::{Below, Condition, Detail, Limit, Pattern, Rule, RuleSet, Severity, Test};

/// The default of `STARTUP_TIMEOUT_S`.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(25);

/// Names of a field with the time to the first byte, in the order of preference.
const FIRST_BYTE: [&str; 3] = ["ttfb_ms", "time_to_first_byte_ms", "first_byte_ms"];

impl Default for RuleSet {
    fn default() -> Self {
        Self::builtin(STARTUP_TIMEOUT)
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

/// Above `ms`, and not above `up_to`.
fn slow(fields: &[&str], limit: Duration, up_to: Option<Duration>) -> Condition {
    Condition::Threshold {
        fields: names(fields),
        limit: Limit::Time(limit),
        up_to: up_to.map(Limit::Time),
        clear: None,
        below: Below::No,
    }
}

fn slow_request(limit: Duration) -> Condition {
    let [a, b, c] = FIRST_BYTE;
    slow(&[a, b, c, "duration_ms"], limit, None)
}

fn percent(fields: &[&str], limit: f64, clear: f64) -> Condition {
    Condition::Threshold {
        fields: names(fields),
        limit: Limit::Number(limit),
        up_to: None,
        clear: Some(Limit::Number(clear)),
        below: Below::No,
    }
}

fn edge(field: &[&str], from: &[&str], to: &[&str], clear: &[&str]) -> Condition {
    Condition::Edge {
        fields: names(field),
        previous: None,
        from: patterns(from),
        to: patterns(to),
        clear: patterns(clear),
        from_unknown: false,
        or: Vec::new(),
    }
}

impl Rule {
    fn severe(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    fn only(mut self, field: &str, patterns: &[&str]) -> Self {
        self.tests.push(Test::new(field, patterns));
        self
    }

    fn unless(mut self, field: &str, patterns: &[&str]) -> Self {
        self.tests.push(Test::new(field, patterns).negated());
        self
    }

    fn says(mut self, description: &str) -> Self {
        description.clone_into(&mut self.description);
        self
    }

    fn per(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    fn off(mut self) -> Self {
        self.on = false;
        self
    }

    /// Details, as `name` or `name=field`.
    fn with(mut self, details: &[&str]) -> Self {
        self.details = details.iter().map(|detail| Detail::parse(detail)).collect();
        self
    }
}

impl Detail {
    /// `name`, or `name=field`.
    pub(super) fn parse(text: &str) -> Self {
        let (name, field) = text.split_once('=').unwrap_or((text, text));
        Self {
            name: name.trim().to_owned(),
            field: field.trim().to_owned(),
        }
    }
}

impl RuleSet {
    /// No rules.
    pub fn empty() -> Self {
        Self { rules: Vec::new() }
    }

    /// The built-in rules, for a service whose containers should start within `startup_timeout`
    /// (`STARTUP_TIMEOUT_S`).
    pub fn builtin(startup_timeout: Duration) -> Self {
        let mut rules = orchestrator(startup_timeout);
        rules.extend(proxy());
        rules.extend(application());
        Self { rules }
    }
}

fn orchestrator(startup_timeout: Duration) -> Vec<Rule> {
    use Severity::{Critical, Warning};
    let part = |percent: u32| startup_timeout * percent / 100;
    let start = |name: &str, operation: &str, limit| {
        Rule::new(name, "provisioning", slow(&["duration_ms"], limit, None))
            .only("operation", &[operation])
            .severe(Warning)
            .says("{operation} took {value}, more than {limit}")
            .with(&["container_id", "duration=duration_ms"])
    };
    let unhealthy = Condition::Ratio {
        part: "unhealthy".to_owned(),
        whole: names(&["total_engines", "total"]),
        limit: 0.3,
        clear: None,
    };
    let mut lost = edge(
        &["new_status", "status"],
        &["healthy", "healthy_no_healthcheck"],
        &["unhealthy", "not_running", "not_found", "error"],
        &[],
    );
    if let Condition::Edge { previous, .. } = &mut lost {
        *previous = Some("old_status".to_owned());
    }
    let mut opened = edge(&["state"], &["closed"], &["open"], &["closed"]);
    if let Condition::Edge { from_unknown, .. } = &mut opened {
        *from_unknown = true;
    }
    let mut reopened = edge(
        &["state"],
        &["half_open"],
        &["open"],
        &["closed", "half_open"],
    );
    if let Condition::Edge { or, .. } = &mut reopened {
        or.push(Test::new("reason", &["recovery_failed"]));
    }
    let unusual = Condition::Baseline {
        fields: names(&["duration_ms"]),
        quantile: 0.9,
        factor: 3.0,
        samples: 20,
        clear: None,
    };
    vec![
        start("slow_provisioning", "start_container_*", part(50)),
        start("slow_acestream_provisioning", "start_acestream_*", part(70)),
        Rule::new("unusual_provisioning", "provisioning", unusual)
            .only(
                "operation",
                &["start_container_success", "start_acestream_success"],
            )
            .says("{operation} took {value}, 3 times what most take")
            .with(&["operation", "container_id", "duration=duration_ms"]),
        Rule::new("high_unhealthy_engines", "health", unhealthy)
            .says("{unhealthy} engines are unhealthy")
            .with(&["unhealthy_count=unhealthy", "total=total_engines"]),
        Rule::new("vpn_disconnection", "vpn", lost)
            .only("operation", &["health_check", "transition"])
            .per("container_name")
            .severe(Critical)
            .says("the VPN is not healthy any more")
            .with(&["container_name", "old_status", "new_status=status"]),
        Rule::new("circuit_breaker_opened", "circuit_breaker", opened)
            .unless("reason", &["recovery_failed"])
            .per("operation_type")
            .severe(Critical)
            .says("the circuit breaker opened after {failure_count} failures")
            .with(&["operation_type", "failure_count"]),
        Rule::new("circuit_breaker_reopened", "circuit_breaker", reopened)
            .per("operation_type")
            .severe(Critical)
            .says("the attempt to recover failed")
            .with(&["operation_type", "failure_count", "reason"]),
    ]
}

fn proxy() -> Vec<Rule> {
    use Severity::{Critical, Warning};
    let minute = |counted, more_than| Condition::Rate {
        counted,
        more_than,
        span: Duration::from_secs(60),
        clear: None,
    };
    let five = Duration::from_secs(5);
    let breaker = ["*circuit_breaker*", "*circuit breaker*"];
    let breaker = Condition::Match {
        any: ["error", "code", "blocked_reason_code"]
            .map(|field| Test::new(field, &breaker))
            .into(),
    };
    let degraded = Condition::Match {
        any: vec![Test::new("status", &["degraded"])],
    };
    let selection = slow(&["duration_ms"], Duration::from_secs(2), None);
    vec![
        Rule::new("slow_request", "requests", slow_request(five))
            .says("Request took {value}")
            .with(&["path", "ace_id", "duration=duration_ms"]),
        Rule::new("slow_engine_selection", "engine_selection", selection)
            .says("Engine selection took {value}")
            .with(&["duration=duration_ms", "error"]),
        Rule::new("provisioning_circuit_breaker", "provisioning", breaker)
            .only("operation", &["provision_*"])
            .severe(Critical)
            .says("provisioning met an open circuit breaker")
            .with(&["attempt=retry_count", "error"]),
        Rule::new("orchestrator_degraded", "orchestrator_health", degraded)
            .says("the orchestrator is degraded")
            .with(&["blocked_reason", "engine_count"]),
        Rule::new(
            "high_slow_request_rate",
            "requests",
            minute(Some(Box::new(slow_request(five))), 10),
        )
        .severe(Warning)
        .says("{count} slow requests within {window}"),
        Rule::new(
            "high_provisioning_failure_rate",
            "provisioning",
            minute(
                Some(Box::new(Condition::Match {
                    any: vec![Test::new("success", &["false"])],
                })),
                5,
            ),
        )
        .severe(Critical)
        .says("{count} failures within {window}"),
    ]
}

fn application() -> Vec<Rule> {
    use Severity::Info;
    let ms = Duration::from_millis;
    let query = |name, limit, up_to| {
        Rule::new(name, "database", slow(&["duration_ms"], ms(limit), up_to))
            .says("the query took {value}")
            .with(&["operation", "query", "duration=duration_ms", "rows"])
    };
    let function = |name, limit, up_to| {
        Rule::new(
            name,
            "performance",
            slow(&["duration_ms"], ms(limit), up_to),
        )
        .says("{operation} took {value}")
        .with(&["operation", "duration=duration_ms"])
    };
    let request = |name, limit| {
        Rule::new(name, "requests", slow_request(ms(limit)))
            .says("{method} {path} took {value}")
            .with(&[
                "method",
                "path",
                "duration=duration_ms",
                "db_queries",
                "db_time_ms",
                "template_renders",
                "template_time_ms",
            ])
            .off()
    };
    vec![
        query("slow_query", 1000, None),
        query("slow_query_detailed", 500, Some(ms(1000))),
        query("slow_query_moderate", 100, Some(ms(500))).severe(Info),
        function("slow_function", 1000, None),
        function("slow_function_moderate", 100, Some(ms(1000))).severe(Info),
        Rule::new(
            "high_memory",
            "performance",
            percent(&["memory_percent", "mem_percent"], 70.0, 65.0),
        )
        .says("{value} % of the memory is in use")
        .with(&["memory_percent"]),
        Rule::new(
            "high_cpu",
            "performance",
            percent(&["cpu_percent"], 80.0, 70.0),
        )
        .says("{value} % of the processor is in use")
        .with(&["cpu_percent"]),
        request("slow_get_request", 500)
            .only("method", &["GET"])
            .unless("path", &["/static/*"]),
        request("slow_static_request", 100).only("path", &["/static/*"]),
        request("slow_other_request", 1000)
            .unless("method", &["GET"])
            .unless("path", &["/static/*"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rules_are_valid() {
        let set = RuleSet::default();
        set.validate().unwrap();
        assert_eq!(set.rules.len(), 23);
        assert!(RuleSet::builtin(Duration::from_nanos(1)).validate().is_ok());
    }
}
