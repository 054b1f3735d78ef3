//! Values of settings as text.

use std::time::Duration;

use super::{Conversion, Durability, RingStorage, WriterCore, bad};
use crate::error::Error;

pub(super) fn parse_bool(name: &str, value: &str) -> Result<bool, Error> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err(bad(
            name,
            value,
            "give true or false (also 1/0, yes/no, on/off)",
        )),
    }
}

/// A number of milliseconds; `example` is one for the remedy.
pub(super) fn parse_ms(name: &str, value: &str, example: u32) -> Result<Duration, Error> {
    let remedy = format!("give a number of milliseconds, such as {example}");
    let ms = value
        .trim()
        .parse()
        .map_err(|_| bad(name, value, &remedy))?;
    Ok(Duration::from_millis(ms))
}

/// A number of bytes: `1048576`, `512KiB`, `16MiB`, `1GiB`.
pub(super) fn parse_bytes(name: &str, value: &str) -> Result<usize, Error> {
    let text = value.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kib" | "k" => Some(1 << 10),
        "mib" | "m" => Some(1 << 20),
        "gib" | "g" => Some(1 << 30),
        _ => None,
    };
    let number: Option<usize> = digits.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| {
            bad(
                name,
                value,
                "give a number of bytes, such as 1048576 or 16MiB",
            )
        })
}

/// Variables that Kubernetes sets for a service that is called stormlog.
pub(super) fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix("STORMLOG_").unwrap_or("");
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

/// A whole number of seconds.
pub(super) fn parse_seconds(name: &str, value: &str) -> Result<Duration, Error> {
    let seconds = value.trim().parse().map(Duration::from_secs);
    seconds.map_err(|_| bad(name, value, "give a number of seconds, such as 60"))
}

/// The longest time between two samples of resources.
const RESOURCE_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// The shortest.
const RESOURCE_INTERVAL_MIN: Duration = Duration::from_millis(100);

pub(super) fn check_resource_interval(interval: Duration) -> Result<(), Error> {
    if interval.is_zero() || (RESOURCE_INTERVAL_MIN..=RESOURCE_INTERVAL_MAX).contains(&interval) {
        return Ok(());
    }
    let value = format!("{} s", interval.as_secs_f64());
    let remedy = "give 0 (not at all) or 0.1 to 3600 s";
    Err(bad("resource_interval", &value, remedy))
}

/// Names with commas.
pub(super) fn parse_list(value: &str) -> Vec<String> {
    let names = value.split(',').map(str::trim);
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

pub(super) fn parse_ring_storage(name: &str, value: &str) -> Result<RingStorage, Error> {
    let all = [
        RingStorage::Auto,
        RingStorage::SessionDir,
        RingStorage::Shm,
        RingStorage::Anonymous,
    ];
    let found = all.into_iter().find(|one| one.name() == value.trim());
    found.ok_or_else(|| bad(name, value, "give auto, session_dir, shm or anonymous"))
}

pub(super) fn parse_durability(name: &str, value: &str) -> Result<Durability, Error> {
    let text = value.trim();
    let ms = text.strip_prefix("interval:").map(|ms| ms.trim().parse());
    match (text, ms) {
        ("off", _) => Ok(Durability::Off),
        ("segment", _) => Ok(Durability::Segment),
        (_, Some(Ok(ms))) => Ok(Durability::Interval(Duration::from_millis(ms))),
        _ => Err(bad(
            name,
            value,
            "give off, segment or interval: with milliseconds, such as interval:1000",
        )),
    }
}

pub(super) fn parse_writer_core(name: &str, value: &str) -> Result<WriterCore, Error> {
    match value.trim() {
        "auto" => Ok(WriterCore::Auto),
        "off" => Ok(WriterCore::Off),
        number => number
            .parse()
            .map(WriterCore::Core)
            .map_err(|_| bad(name, value, "give auto, off or the number of a core")),
    }
}

pub(super) fn parse_conversion(name: &str, value: &str) -> Result<Conversion, Error> {
    match value.trim() {
        "wait" => Ok(Conversion::Wait),
        "background" => Ok(Conversion::Background),
        "later" => Ok(Conversion::Later),
        _ => Err(bad(name, value, "give wait, background or later")),
    }
}
