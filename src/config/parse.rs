//! Values of variables that several settings have.

use super::bad;
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
