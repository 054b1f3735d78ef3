//! The documents against the code: names, defaults and tables that would drift otherwise.
//!
//! `STORMLOG_BLESS=1 cargo test --test docs` writes the table of categories anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use stormlog::Session;
use stormlog::ledger::DROP_REASONS;
use stormlog::record::catalog::{orchestrator, proxy};
use stormlog::record::{CATEGORIES_BUILTIN, FieldDef, FieldKind, KeepClass, Record, SchemaDef};

/// `STORMLOG_` variables of the tests themselves.
const TEST_VARIABLES: [&str; 8] = [
    "STORMLOG_BLESS",
    "STORMLOG_SEED",
    "STORMLOG_SAMPLING_RUNS",
    "STORMLOG_ROUNDS",
    "STORMLOG_STALL_MS",
    "STORMLOG_SWEEP",
    "STORMLOG_MEMORY_MIB",
    "STORMLOG_MEMORY_GIB",
];

const TABLE_BEGIN: &str =
    "<!-- catalogue: written by STORMLOG_BLESS=1 cargo test --test docs -->\n";
const TABLE_END: &str = "<!-- end of catalogue -->";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every built-in record type, by module.
fn catalogue() -> [(&'static str, Vec<&'static SchemaDef>); 2] {
    fn schema<R: Record>(record: &R) -> &'static SchemaDef {
        record.schema()
    }
    let of_orchestrator = vec![
        schema(&orchestrator::Provisioning::default()),
        schema(&orchestrator::Health::default()),
        schema(&orchestrator::VpnCheck::default()),
        schema(&orchestrator::VpnChange::default()),
        schema(&orchestrator::Autoscaler::default()),
        schema(&orchestrator::CircuitBreaker::default()),
        schema(&orchestrator::Performance::default()),
        schema(&orchestrator::TimedOperation::default()),
        schema(&orchestrator::Stress::default()),
        schema(&orchestrator::Failure::default()),
    ];
    let of_proxy = vec![
        schema(&proxy::Request::default()),
        schema(&proxy::EngineSelection::default()),
        schema(&proxy::Provisioning::default()),
        schema(&proxy::OrchestratorHealth::default()),
        schema(&proxy::StreamEvent::default()),
        schema(&proxy::Disconnect::default()),
        schema(&proxy::Stress::default()),
        schema(&proxy::Failure::default()),
    ];
    [("orchestrator", of_orchestrator), ("proxy", of_proxy)]
}

/// A field as the page shows it: its name and what the line has for it.
fn field(field: &FieldDef) -> String {
    let kind = field.field_type;
    let shown = match kind.kind {
        FieldKind::Bool => "bool",
        FieldKind::F32 | FieldKind::F64 => "number",
        FieldKind::Symbol | FieldKind::ShortText | FieldKind::Text | FieldKind::LongText => "text",
        FieldKind::Json => "JSON",
        FieldKind::DurationMs if kind.decimals == 0 => "whole ms",
        FieldKind::DurationMs => "ms",
        _ => "integer",
    };
    let null = if kind.optional { " or null" } else { "" };
    format!("`{}` {shown}{null}", field.name)
}

fn table() -> String {
    let mut out = String::new();
    for (module, schemas) in catalogue() {
        let _ = writeln!(out, "\nRecords of `record::catalog::{module}`:\n");
        out.push_str("| category | type | keep | key | fields |\n|---|---|---|---|---|\n");
        for schema in schemas {
            let keep = match schema.keep {
                KeepClass::Always => "Always",
                KeepClass::Sampled => "Sampled",
            };
            let key = schema.key.map_or(String::new(), |key| {
                format!("`{}`", schema.fields[usize::from(key)].name)
            });
            let fields: Vec<String> = schema.fields.iter().map(field).collect();
            let (category, name) = (schema.category, schema.name);
            let fields = fields.join(", ");
            let _ = writeln!(
                out,
                "| `{category}` | `{name}` | {keep} | {key} | {fields} |"
            );
        }
    }
    out.push('\n');
    out
}

#[test]
fn the_table_of_categories_is_that_of_the_catalogue() {
    let page = read("docs/DEBUG_MODE.md");
    let begin = page.find(TABLE_BEGIN).expect("the mark of the table") + TABLE_BEGIN.len();
    let end = page.find(TABLE_END).expect("the mark of its end");
    let table = table();
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        let new = format!("{}{table}{}", &page[..begin], &page[end..]);
        std::fs::write(root().join("docs/DEBUG_MODE.md"), new).unwrap();
        return;
    }
    let lines = page[begin..end].lines().zip(table.lines());
    for (on_page, expected) in lines {
        assert_eq!(on_page, expected, "STORMLOG_BLESS=1 writes it anew");
    }
    assert_eq!(
        page[begin..end].len(),
        table.len(),
        "a row too many or too few"
    );
}

#[test]
fn no_record_type_of_the_catalogue_is_left_out() {
    for (module, schemas) in catalogue() {
        let source = read(&format!("src/record/catalog/{module}.rs"));
        let mut declared: Vec<&str> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub struct "))
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        let mut listed: Vec<&str> = schemas.iter().map(|schema| schema.name).collect();
        declared.sort_unstable();
        listed.sort_unstable();
        assert_eq!(
            declared, listed,
            "{module}: extend `catalogue` in tests/docs.rs"
        );
    }
    let page = read("docs/DEBUG_MODE.md");
    for category in CATEGORIES_BUILTIN {
        assert!(page.contains(&format!("`{category}`")), "{category}");
    }
}

/// Every `STORMLOG_` name in a text.
fn variables(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let found = text.match_indices("STORMLOG_").map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]
    });
    let mut found: Vec<&str> = found.filter(|name| *name != "STORMLOG_").collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The row of a variable in the table of settings.
fn row<'a>(page: &'a str, variable: &str) -> &'a str {
    let start = format!("| `{variable}` | ");
    let (settings, _) = page.split_once("\n## 2. ").expect("section 2");
    let row = settings.lines().find(|line| line.starts_with(&start));
    row.unwrap_or_else(|| panic!("docs/DEBUG_MODE.md has no row for {variable}"))
}

#[test]
fn every_variable_is_documented_and_no_other() {
    let page = read("docs/DEBUG_MODE.md");
    let config = read("src/config.rs");
    let (code, _) = config
        .split_once("#[cfg(test)]")
        .expect("the tests of config");
    let in_code = variables(code);
    assert!(in_code.len() >= 10, "{in_code:?}");
    for variable in &in_code {
        row(&page, variable);
    }
    for page in [
        "docs/DEBUG_MODE.md",
        "docs/DURABILITY.md",
        "docs/SAMPLING.md",
        "docs/SECURITY.md",
        "README.md",
        "docs/VERIFICATION.md",
    ] {
        for variable in variables(&read(page)) {
            let known = in_code.contains(&variable) || TEST_VARIABLES.contains(&variable);
            assert!(known, "{page}: there is no {variable}");
        }
    }
    row(&page, "DEBUG_MODE");
    row(&page, "DEBUG_LOG_DIR");
}

fn human(bytes: u64) -> String {
    assert_eq!(bytes % (1 << 20), 0, "the page would need another unit");
    format!("{} MiB", bytes >> 20)
}

/// Starts a session with default settings: what it says of itself is what the page must say.
#[test]
fn defaults_and_session_lines_are_documented() {
    let page = read("docs/DEBUG_MODE.md");
    let temp = tempfile::tempdir().unwrap();
    let session = Session::builder().dir(temp.path()).start().unwrap();
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    let file = report.files.iter().find(|file| file.category == "session");
    let text = std::fs::read_to_string(&file.unwrap().path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for line in &lines {
        for name in line.as_object().unwrap().keys() {
            assert!(
                page.contains(&format!("`{name}`")),
                "{name} of a session line"
            );
        }
    }
    for (name, value) in lines[0]["settings"].as_object().unwrap() {
        let variable = match name.as_str() {
            // A variable of the orchestrator itself.
            "startup_timeout_s" => "STARTUP_TIMEOUT_S".to_owned(),
            name => format!("STORMLOG_{}", name.to_uppercase()),
        };
        let row = row(&page, &variable);
        let default = row.split('|').nth(3).unwrap().trim().trim_matches('`');
        let expected = match value {
            serde_json::Value::Number(number) if name.ends_with("_bytes") => {
                human(number.as_u64().unwrap())
            }
            serde_json::Value::Number(number) if name == "record_bytes_max" => {
                human(number.as_u64().unwrap())
            }
            serde_json::Value::Number(wait) if name == "drain_wait_max_ms" => {
                // It depends on where the rings are.
                assert!(default.contains(&wait.to_string()), "{default}");
                continue;
            }
            serde_json::Value::Number(number) => number.to_string(),
            // A builder has them off, the environment on.
            serde_json::Value::Bool(false) if name == "stress" => "on".to_owned(),
            serde_json::Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
            serde_json::Value::Array(names) if names.is_empty() => "none".to_owned(),
            serde_json::Value::Object(rules) if rules.is_empty() => "none".to_owned(),
            serde_json::Value::Null => {
                assert_eq!(name, "keep_free_bytes", "no other default is computed");
                assert!(default.contains("1 GiB"), "{default}");
                continue;
            }
            serde_json::Value::String(text) => text.clone(),
            other => panic!("{name}: {other}"),
        };
        assert_eq!(default, expected, "{name}");
    }
}

#[test]
fn every_drop_reason_is_documented() {
    let page = read("docs/DEBUG_MODE.md");
    for reason in DROP_REASONS {
        assert!(
            page.contains(&format!("`{}`", reason.name())),
            "{}",
            reason.name()
        );
    }
}

#[test]
fn readme_names_the_two_commands_and_every_subcommand() {
    let readme = read("README.md");
    assert!(readme.contains("\ncargo run --release -- demo "));
    assert!(readme.contains("\ncargo test "));
    let cli = read("src/cli/mod.rs");
    let (_, commands) = cli.split_once("enum Command {").expect("the commands");
    let (commands, _) = commands.split_once('}').expect("their end");
    let mut count = 0;
    for command in commands
        .lines()
        .filter_map(|line| line.trim().split_once('('))
    {
        let name = command.0.to_lowercase();
        assert!(readme.contains(&format!("| `{name}` | ")), "{name}");
        assert!(
            readme.contains(&format!("`stormlog {name} ")),
            "example of {name}"
        );
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn links_lead_to_files() {
    let pages = [
        "README.md",
        "CHANGELOG.md",
        "docs/ARCHITECTURE.md",
        "docs/BENCHMARKS.md",
        "docs/DEBUG_MODE.md",
        "docs/DURABILITY.md",
        "docs/FORMAT.md",
        "docs/SAMPLING.md",
        "docs/SECURITY.md",
        "docs/VERIFICATION.md",
    ];
    for page in pages {
        let text = read(page);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            let path = Path::new(page).parent().unwrap().join(target);
            assert!(root().join(&path).exists(), "{page}: {target}");
        }
    }
}
