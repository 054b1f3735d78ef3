//! What a command says about its own run.

use anyhow::{Context, Result};
use serde_json::Value as Json;

use super::data::{Times, number, times_from};

/// What a command says about its own run, in a line `{"bench":{..}}` on its standard output. All
/// of it may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Said {
    /// Units of work (requests, jobs) that it did.
    pub units: u64,
    /// Records that it offered, and those that were written.
    pub records: u64,
    pub written: u64,
    /// Units of work that it was asked to burn.
    pub burned: u64,
    /// The steady part of the run, without start and end.
    pub window: Option<Window>,
    /// Times of units, ns: p50, p99, p99.9.
    pub latency: Option<[u64; 3]>,
}

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub times: Times,
    /// Records that were offered in it; all of the run, if the command does not tell.
    pub records: Option<u64>,
}

/// What a command said of itself.
///
/// # Errors
/// When something in it is no number, or a time is 0.
pub fn said_from(json: &Json) -> Result<Said> {
    let optional = |name: &str| match &json[name] {
        Json::Null => Ok(0),
        value => number(value).with_context(|| name.to_owned()),
    };
    let window = match &json["window"] {
        Json::Null => None,
        window => Some(window_from(window).context("window")?),
    };
    let latency = match &json["latency_ns"] {
        Json::Null => None,
        latency => {
            let time = |name: &str| number(&latency[name]).context("latency_ns");
            Some([time("p50")?, time("p99")?, time("p999")?])
        }
    };
    Ok(Said {
        units: optional("units")?,
        records: optional("records")?,
        written: optional("written")?,
        burned: optional("burned")?,
        window,
        latency,
    })
}

fn window_from(json: &Json) -> Result<Window> {
    let records = match &json["records"] {
        Json::Null => None,
        records => Some(number(records).context("records")?),
    };
    Ok(Window {
        times: times_from(json)?,
        records,
    })
}

/// The line of a command about itself: the last one of that form in its standard output.
///
/// # Errors
/// When there is such a line and it has a fault.
pub fn said_in(output: &str) -> Result<Said> {
    let mut lines = output.lines().rev();
    let Some(line) = lines.find(|line| line.starts_with("{\"bench\":")) else {
        return Ok(Said::default());
    };
    let parsed = serde_json::from_str::<Json>(line).map_err(anyhow::Error::from);
    let said = parsed.and_then(|json| said_from(&json["bench"]));
    said.with_context(|| format!("the command said {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_say_something_of_itself() {
        assert_eq!(said_in("hello\n").unwrap(), Said::default());
        let said = said_in("a\n{\"bench\":{\"units\":1}}\n{\"bench\":{\"units\":7}}\nb\n");
        assert_eq!(said.unwrap().units, 7);
        assert!(said_in("{\"bench\":{\"units\":-7}}").is_err());
        assert!(said_in("{\"bench\":").is_err());
    }
}
