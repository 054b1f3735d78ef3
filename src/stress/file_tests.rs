//! Files of rules: what they say, and what is told of those that are wrong.

use std::time::Duration;

use super::super::file_values::parse_time;
use super::super::rule::{Limit, Severity, Test};
use super::*;

const EXAMPLE: &str = r#"
[[rule]]
name = "slow_request"
threshold = { field = ["ttfb_ms", "duration_ms"], above = "0.25s", clear = "200ms" }
cooldown = "10s"
burst = 1

[[rule]]
name = "slow_query"
on = false

[[rule]]
name = "queue_too_long"
category = "queues"
severity = "critical"
where = { queue = ["mail", "pay*"], state = "!paused" }
threshold = { field = "waiting", above = 1_000, clear = 500.5 }
key = "queue"
description = "{queue} has {value} waiting"
details = ["queue", "count=waiting"]

[[rule]]
name = "many_timeouts"
category = "calls"
rate = { more_than = 3, window = "1m", match = { error = "*timeout*" } }
"#;

fn parse(text: &str) -> Result<RuleSet, String> {
    parse_rules(text).map_err(|error| error.to_string())
}

#[test]
fn a_file_adds_rules_and_changes_others() {
    let set = parse(EXAMPLE).unwrap();
    assert_eq!(set.rules.len(), RuleSet::default().rules.len() + 2);
    let rule = |name: &str| set.rules.iter().find(|rule| rule.name == name).unwrap();
    let request = rule("slow_request");
    assert_eq!(
        (request.cooldown, request.burst),
        (Duration::from_secs(10), 1)
    );
    assert_eq!(request.category, "requests");
    assert!(matches!(
        &request.condition,
        Condition::Threshold { limit: Limit::Time(limit), .. }
            if *limit == Duration::from_millis(250)
    ));
    assert!(!rule("slow_query").on);
    let queue = rule("queue_too_long");
    assert_eq!(queue.severity, Severity::Critical);
    assert_eq!(queue.tests[1], Test::new("state", &["paused"]).negated());
    assert_eq!(queue.details[1], Detail::parse("count=waiting"));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let name = "[[rule]]\nname = \"a\"\ncategory = \"vpn\"\n";
    for (text, expected) in [
        (
            "[[rule]]\nname = \"a\"",
            "rules: line 1: rule a: there is no such built-in rule",
        ),
        (
            "\n[[rule]]\nname = 3",
            "rules: line 3: give a text in quotes",
        ),
        ("rule = 1", "rules: line 1: write [[rule]] before each rule"),
        (
            "[rules]\n",
            "rules: line 1: rules: there is only [[rule]] here",
        ),
        ("\n\nname = ", "rules: line 3: "),
        (
            &format!("{name}threshold = {{ field = \"x\", above = 1 }}\nsevrity = \"info\""),
            "rules: line 5: sevrity: a rule has name",
        ),
        (
            &format!("{name}threshold = {{ field = \"x\" }}"),
            "rules: line 4: a threshold has either above or below",
        ),
        (
            &format!("{name}threshold = {{ field = \"x_ms\", above = \"5 parsecs\" }}"),
            "rules: line 4: give a duration",
        ),
        (
            &format!("{name}rate = {{ more_than = 999, window = \"1m\" }}"),
            "rules: line 1: rule a: more_than: 1 to 255",
        ),
        (
            &format!("{name}rate = {{ more_than = 9, window = \"1m\" }}\nratio = {{}}"),
            "rules: line ",
        ),
        (
            &format!("{name}match = {{ a = [\"!b\", \"c\"] }}"),
            "rules: line 4: either all texts begin with !",
        ),
        (
            &format!("{name}match = {{ a = [\"b\", \"*.m3u8\"] }}"),
            "rules: line 4: a text is x, x* (its beginning) or *x* (any part)",
        ),
        (
            &format!("{name}match = {{ a = [] }}"),
            "rules: line 4: give at least one text",
        ),
        (
            &format!(
                "{name}rate = {{ more_than = 9, window = \"1m\", match = {{ a = \"b\" }}, \
                 threshold = {{ field = \"x\", above = 1 }} }}"
            ),
            "rules: line 4: a rate counts a threshold or a match, not both",
        ),
        (
            "[[rule]]\nname = \"vpn_disconnection\"\nepisode = \"record\"",
            "rules: line 1: rule vpn_disconnection: episode: only a threshold",
        ),
    ] {
        let error = parse(text).unwrap_err();
        let expected = format!("stress_rules={expected}");
        assert!(error.starts_with(&expected), "{text:?}: {error}");
    }
}

#[test]
fn durations_are_exact() {
    for (text, ns) in [
        ("12.5s", 12_500_000_000),
        ("12.500000001s", 12_500_000_001),
        ("1ns", 1),
        ("0.5ms", 500_000),
        ("1m", 60_000_000_000),
        ("1.5 h", 5_400_000_000_000),
    ] {
        assert_eq!(parse_time(text), Some(Duration::from_nanos(ns)), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "-1s",
        "1e3s",
        "99999h",
        "1.s.s",
        "1,5s",
        "9999999999999999999h",
    ] {
        assert_eq!(parse_time(text), None, "{text}");
    }
}

#[test]
fn only_plain_short_files_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let mut set = RuleSet::default();
    let path = temp.path().join("rules.toml");
    let error = set.add_file(&path).unwrap_err().to_string();
    assert!(error.contains("rules.toml: cannot read it: "), "{error}");
    std::fs::write(&path, EXAMPLE).unwrap();
    set.add_file(&path).unwrap();
    assert_eq!(set, parse(EXAMPLE).unwrap());
    for device in ["/dev/zero", "/dev/null"] {
        let error = set.add_file(Path::new(device)).unwrap_err().to_string();
        assert!(error.ends_with("give the path of a plain file"), "{error}");
    }
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    let error = set.add_file(&path).unwrap_err().to_string();
    assert!(error.ends_with("at most 256 KiB"), "{error}");
    std::fs::write(&path, b"\xff").unwrap();
    let error = set.add_file(&path).unwrap_err().to_string();
    assert!(error.ends_with("is UTF-8"), "{error}");
}
