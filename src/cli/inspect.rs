//! `stormlog inspect`: what is in segments.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::{Output, Status, human};
use crate::convert::rfc3339;
use crate::record::KeepClass;
use crate::segment::files::SessionFiles;
use crate::segment::layout::{BLOCK_DATA, BLOCK_LARGE, BLOCK_REGISTRY};
use crate::segment::reader::End;
use crate::segment::registry::{Registry, Schema, SchemaField};
use crate::segment::survey::{SegmentSurvey, Survey};

const EXAMPLES: &str = "\
Examples:
  stormlog inspect ./debug_logs                  every session that still has segments
  stormlog inspect 000001.seg --blocks           every block of one segment
  stormlog inspect ./debug_logs --json | jq .schemas

Exit code: 0 nothing wrong, 1 damage was found, 2 could not run.";

/// Show what segments hold: headers, schemas, blocks, counts, clock points, damage.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A log directory, a session directory or a segment.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print JSON, one line per session.
    #[arg(long)]
    json: bool,
    /// List every block.
    #[arg(long)]
    blocks: bool,
}

/// Runs the command.
///
/// # Errors
/// When there is no session, or it cannot be read.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let (sessions, unreadable) = SessionFiles::find_all(&[&args.path])?;
    let mut status = human::report_unreadable(&unreadable);
    for session in sessions {
        let survey = Survey::new(&session, args.blocks)?;
        if !survey.faults.is_empty() || survey.damaged_blocks > 0 {
            status = Status::Faults;
        }
        if args.json {
            writeln!(
                output,
                "{}",
                human::json_line(&to_json(&session, &survey, args.blocks))
            )?;
        } else {
            print(output, &session, &survey)?;
            print_registry(output, &survey)?;
            print_end(output, &survey)?;
        }
    }
    Ok(status)
}

fn print(output: &mut Output, session: &SessionFiles, survey: &Survey) -> anyhow::Result<()> {
    writeln!(output, "Session {}", session.session_id)?;
    if let Some(segment) = survey.segments.first() {
        let header = &segment.header.file;
        let (major, minor) = (header.version_major, header.version_minor);
        writeln!(output, "  started      {}", rfc3339(header.start_utc_ns))?;
        writeln!(output, "  nonce        {}", hex(&session.nonce))?;
        writeln!(
            output,
            "  format       {major}.{minor}, program {}",
            segment.header.program
        )?;
        writeln!(output, "  process      {}", header.pid)?;
        let rate = human::count(header.ticks_per_second);
        writeln!(
            output,
            "  clock        kind {}, {rate} ticks/s",
            header.clock_kind
        )?;
    }
    if survey.spilled > 0 {
        writeln!(output, "  spilled      {}", human::count(survey.spilled))?;
    }
    if let Some((_, first, last)) = survey.span() {
        let (from, to) = (first.elapsed_ns as f64 / 1e9, last.elapsed_ns as f64 / 1e9);
        writeln!(output, "  records      from {from:.3} s to {to:.3} s")?;
    }
    let mut table = human::Table::new(&[">segment", ">bytes", ">blocks", ">records", "end"]);
    for segment in &survey.segments {
        table.row([
            segment.header.file.segment.to_string(),
            human::bytes(segment.bytes),
            human::count(segment.blocks),
            human::count(segment.records),
            describe_end(segment),
        ]);
    }
    writeln!(output, "{table}")?;
    Ok(())
}

fn print_registry(output: &mut Output, survey: &Survey) -> anyhow::Result<()> {
    let registry = &survey.registry;
    for schema in registry.schemas() {
        let category = registry.category(schema.category).unwrap_or("?");
        let records = survey.by_schema.get(&schema.id).copied().unwrap_or(0);
        let fields = schema.fields.iter().map(describe_field);
        let (id, name, keep) = (schema.id, human::plain(&schema.name), keep_name(schema));
        let records = human::counted(records, "record");
        writeln!(
            output,
            "  schema {id}: {category}/{name}, {keep}, {records}"
        )?;
        if !schema.fields.is_empty() {
            writeln!(output, "{}", human::wrapped(fields))?;
        }
    }
    let estimated = survey.estimated();
    for (category, records) in survey.by_category() {
        let sum = estimated.get(&category).map_or(0, |sum| sum.round() as u64);
        let count = human::count(records);
        write!(output, "  {category:<24} {count:>14} records")?;
        if sum != records {
            write!(output, ", estimated {}", human::count(sum))?;
        }
        writeln!(output)?;
    }
    for (category, pressure) in pressures(registry) {
        let changes = human::counted(pressure.changes, "change");
        let (k, weight) = (pressure.highest_k, 1 << pressure.highest_k);
        writeln!(
            output,
            "  pressure of {category}: {changes}, highest {k} (weight {weight})"
        )?;
    }
    if registry.pressures_left_out > 0 {
        let count = human::count(registry.pressures_left_out);
        writeln!(output, "  {count} further changes of pressure")?;
    }
    let symbols = human::counted(registry.symbols().count() as u64, "symbol");
    let points = human::counted(registry.clock_points.len() as u64, "clock point");
    let producers = human::counted(registry.producers.len() as u64, "producer");
    writeln!(output, "  {symbols}, {points}, {producers}")?;
    Ok(())
}

fn print_end(output: &mut Output, survey: &Survey) -> anyhow::Result<()> {
    if !survey.block_list.is_empty() {
        let mut table = human::Table::new(&[
            ">segment",
            ">offset",
            ">sequence",
            "kind",
            ">producer",
            ">records",
            ">bytes",
            ">position",
        ]);
        for (segment, offset, block) in &survey.block_list {
            let segment = survey.segments.get(*segment);
            let segment = segment.map_or(0, |segment| segment.header.file.segment);
            table.row([
                segment.to_string(),
                offset.to_string(),
                block.sequence.to_string(),
                kind_name(block.kind).to_owned(),
                block.ring.to_string(),
                block.records.to_string(),
                block.payload_bytes.to_string(),
                block.first_pos.to_string(),
            ]);
        }
        writeln!(output, "{table}")?;
    }
    if survey.damaged_blocks > 0 {
        let count = survey.damaged_blocks;
        writeln!(
            output,
            "fault: {count} blocks have records that cannot be read"
        )?;
    }
    for fault in &survey.faults {
        writeln!(output, "fault: {}", human::plain(fault))?;
    }
    Ok(())
}

/// The pressure of one category in short.
#[derive(Default)]
struct Pressure {
    /// Changes that the registry keeps.
    changes: u64,
    highest_k: u8,
}

/// By category name; by number where it has none.
fn pressures(registry: &Registry) -> BTreeMap<String, Pressure> {
    let name = |id: u8| {
        let name = registry.category(id).map(str::to_owned);
        name.unwrap_or_else(|| format!("?{id}"))
    };
    let mut pressures = BTreeMap::<String, Pressure>::new();
    for (id, k) in registry.highest_pressures() {
        let pressure = pressures.entry(name(id)).or_default();
        pressure.highest_k = pressure.highest_k.max(k);
    }
    for (id, _) in registry.pressures() {
        pressures.entry(name(id)).or_default().changes += 1;
    }
    pressures
}

fn pressure_json(registry: &Registry) -> Json {
    let pressures = pressures(registry).into_iter();
    let pairs = pressures.map(|(category, pressure)| {
        let (changes, highest) = (pressure.changes, pressure.highest_k);
        (category, json!({"changes": changes, "highest_k": highest}))
    });
    Json::Object(pairs.collect())
}

fn to_json(session: &SessionFiles, survey: &Survey, blocks: bool) -> Json {
    let registry = &survey.registry;
    let schemas = registry.schemas().map(|schema| {
        json!({
            "id": schema.id,
            "category": registry.category(schema.category),
            "name": schema.name,
            "keep": keep_name(schema),
            "key": schema.key.and_then(|key| schema.fields.get(usize::from(key))).map(|f| &f.name),
            "fixed_bytes": schema.fixed_bytes,
            "records": survey.by_schema.get(&schema.id).copied().unwrap_or(0),
            "fields": schema.fields.iter().map(field_json).collect::<Json>(),
        })
    });
    let points = registry.clock_points.values();
    let points =
        points.map(|p| json!({"ticks": p.ticks, "utc_ns": p.utc_ns, "mono_ns": p.mono_ns}));
    let mut out = json!({
        "session_id": session.session_id,
        "nonce": hex(&session.nonce),
        "segments": survey.segments.iter().map(segment_json).collect::<Json>(),
        "schemas": schemas.collect::<Json>(),
        "categories": survey.by_category(),
        "estimated": human::estimates_json(&survey.estimated()),
        "pressure": pressure_json(registry),
        "pressure_left_out": registry.pressures_left_out,
        "symbols": registry.symbols().count(),
        "clock_points": points.collect::<Json>(),
        "producers": registry.producers.iter().map(|(ring, producer)| {
            json!({"ring": ring, "thread": producer.thread, "name": producer.name})
        }).collect::<Json>(),
        "spilled": survey.spilled,
        "damaged_blocks": survey.damaged_blocks,
        "faults": survey.faults,
    });
    if blocks {
        let list = survey.block_list.iter().map(|(segment, offset, block)| {
            let segment = survey.segments.get(*segment);
            json!({
                "segment": segment.map(|segment| segment.header.file.segment),
                "offset": offset,
                "sequence": block.sequence,
                "kind": kind_name(block.kind),
                "ring": block.ring,
                "records": block.records,
                "payload_bytes": block.payload_bytes,
                "first_pos": block.first_pos,
                "next_pos": block.next_pos,
                "min_ticks": block.min_ticks,
                "max_ticks": block.max_ticks,
            })
        });
        out["blocks"] = list.collect();
    }
    out
}

fn segment_json(segment: &SegmentSurvey) -> Json {
    let header = &segment.header.file;
    json!({
        "number": header.segment,
        "path": segment.path.display().to_string(),
        "version": format!("{}.{}", header.version_major, header.version_minor),
        "program": segment.header.program,
        "pid": header.pid,
        "clock_kind": header.clock_kind,
        "ticks_per_second": header.ticks_per_second,
        "started_at": rfc3339(header.start_utc_ns),
        "bytes": segment.bytes,
        "blocks": segment.blocks,
        "records": segment.records,
        "sealed": matches!(segment.end, End::Sealed(_)),
        "end": describe_end(segment),
    })
}

fn field_json(field: &SchemaField) -> Json {
    json!({
        "name": field.name,
        "type": format!("{:?}", field.field_type.kind),
        "optional": field.field_type.optional,
        "decimals": field.field_type.decimals,
        "offset": field.offset,
        "bytes_max": field.field_type.bytes_max,
    })
}

fn describe_field(field: &SchemaField) -> String {
    let optional = if field.field_type.optional { "?" } else { "" };
    format!(
        "{}: {:?}{optional}",
        human::plain(&field.name),
        field.field_type.kind
    )
}

fn describe_end(segment: &SegmentSurvey) -> String {
    match &segment.end {
        End::Sealed(seal) if seal.last => "sealed, last".to_owned(),
        End::Sealed(_) => "sealed, another follows".to_owned(),
        End::Open { offset } => format!("open at byte {offset}"),
        End::Damaged { offset, what, .. } => format!("damaged at byte {offset}: {what}"),
    }
}

fn keep_name(schema: &Schema) -> &'static str {
    match schema.keep {
        KeepClass::Always => "always",
        KeepClass::Sampled => "sampled",
    }
}

fn kind_name(kind: u16) -> &'static str {
    match kind {
        BLOCK_DATA => "data",
        BLOCK_REGISTRY => "registry",
        BLOCK_LARGE => "large",
        _ => "?",
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    digits.collect()
}
