//! Counting the lines of a file: each is parsed, whoever wrote it.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_core::de::{IgnoredAny, MapAccess, Visitor};
use serde_core::{Deserialize, Deserializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::durations::Told;
use crate::cli::places::open_lines;
use crate::convert::parse_ledger;
use crate::ledger::Ledger;

/// The longest line that is read: a record of 16 MiB, every byte of it escaped.
const LINE_BYTES_MAX: u64 = 128 << 20;
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Sentences about one file.
const FAULTS_MAX: usize = 4;

/// What is in a file.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Lines, also bad ones.
    pub lines: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The ledger of the last `session_end`.
    pub ledger: Option<Ledger>,
    /// The durations that it tells.
    pub durations: Told,
    /// What is wrong, as the rest of a sentence that starts with the path.
    pub faults: Vec<String>,
    faults_more: u64,
}

impl Counted {
    /// Reads the file of session `id`; `tick` is told of bytes that were read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path, id: &str, tick: &dyn Fn(u64)) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, open_lines(path)?);
        let mut counted = Self::default();
        let quoted = format!("\"{id}\"");
        let (mut line, mut elapsed) = (Vec::new(), f64::NEG_INFINITY);
        loop {
            line.clear();
            let limit = LINE_BYTES_MAX;
            let bytes = (&mut reader).take(limit).read_until(b'\n', &mut line)?;
            if bytes == 0 {
                break;
            }
            counted.lines += 1;
            counted.bytes += bytes as u64;
            tick(bytes as u64);
            let Some(text) = line.strip_suffix(b"\n") else {
                counted.fault(format_args!("is not ended by a line feed"));
                if bytes as u64 == limit {
                    counted.bytes += skip_line(&mut reader)?;
                }
                continue;
            };
            counted.line(text, &quoted, &mut elapsed);
        }
        if counted.faults_more > 0 {
            let more = counted.faults_more;
            counted.faults.push(format!("{more} more lines are wrong"));
        }
        Ok(counted)
    }

    fn line(&mut self, text: &[u8], quoted_id: &str, elapsed: &mut f64) {
        let parsed = std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned());
        let parsed = parsed.and_then(|text| {
            let parsed: Result<Line<'_>, _> = serde_json::from_str(text);
            parsed.map_err(|error| format!("is no JSON object: {error}"))
        });
        let line = match parsed {
            Ok(line) => line,
            Err(what) => return self.fault(format_args!("{what}")),
        };
        if line.session_id != Some(quoted_id) {
            self.fault(format_args!("is of another session"));
        }
        match line.elapsed.and_then(|text| text.parse::<f64>().ok()) {
            None => self.fault(format_args!("has no elapsed_seconds")),
            Some(now) if now < *elapsed => {
                self.fault(format_args!("has elapsed_seconds {now}, after {elapsed}"));
            }
            Some(now) => *elapsed = now,
        }
        if line.event == Some("\"durations\"")
            && let Ok(json) = serde_json::from_slice(text)
        {
            self.durations.line(&json);
        }
        if line.event == Some("\"session_end\"") {
            let json = line.ledger.and_then(|text| serde_json::from_str(text).ok());
            self.end(&json.unwrap_or(Json::Null));
        }
    }

    fn end(&mut self, json: &Json) {
        if self.ledger.is_some() {
            self.fault(format_args!("is a second session_end"));
        }
        let Some(ledger) = parse_ledger(json) else {
            return self.fault(format_args!("is a session_end without a ledger"));
        };
        for (name, counts) in json.as_object().into_iter().flatten() {
            let pending = counts.get("pending").and_then(Json::as_u64);
            if let Some(pending) = pending.filter(|pending| *pending > 0) {
                self.fault(format_args!(
                    "counts {pending} records of {name} as pending"
                ));
            }
        }
        self.ledger = Some(ledger);
    }

    /// Something is wrong with the line that was counted last.
    fn fault(&mut self, what: fmt::Arguments<'_>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(format!("line {} {what}", self.lines));
        } else {
            self.faults_more += 1;
        }
    }
}

/// Reads to the end of the line; returns the bytes.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let rest = reader.fill_buf()?;
        let end = rest.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(rest.len(), |end| end + 1);
        reader.consume(count);
        skipped += count as u64;
        if end.is_some() || count == 0 {
            return Ok(skipped);
        }
    }
}

/// The texts of the values that are looked at.
#[derive(Default)]
struct Line<'a> {
    session_id: Option<&'a str>,
    elapsed: Option<&'a str>,
    event: Option<&'a str>,
    ledger: Option<&'a str>,
}

/// A name that is looked for, or another.
enum Key {
    SessionId,
    Elapsed,
    Event,
    Ledger,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "session_id" => Key::SessionId,
                    "elapsed_seconds" => Key::Elapsed,
                    "event" => Key::Event,
                    "ledger" => Key::Ledger,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let mut line = Line::default();
                while let Some(key) = map.next_key()? {
                    let place = match key {
                        Key::SessionId => &mut line.session_id,
                        Key::Elapsed => &mut line.elapsed,
                        Key::Event => &mut line.event,
                        Key::Ledger => &mut line.ledger,
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *place = Some(map.next_value::<&RawValue>()?.get());
                }
                Ok(line)
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "20261121_101112";

    fn read(text: &str) -> Counted {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Counted::read(file.path(), ID, &|_| ()).unwrap()
    }

    fn line(rest: &str) -> String {
        format!("{{\"session_id\":\"{ID}\",\"timestamp\":\"x\",{rest}}}\n")
    }

    #[test]
    fn good_lines_are_counted() {
        let text = line("\"elapsed_seconds\":0.1,\"event\":7") + &line("\"elapsed_seconds\":0.1");
        let counted = read(&text);
        assert_eq!((counted.lines, counted.bytes), (2, text.len() as u64));
        assert_eq!(counted.faults, Vec::<String>::new());
        assert_eq!(read("").lines, 0);
    }

    #[test]
    fn each_fault_of_a_line_is_told_with_its_number() {
        for (text, says) in [
            (
                line("\"elapsed_seconds\":0.1").replace("1112", "1113"),
                "another session",
            ),
            (line("\"elapsed_seconds\":\"0.1\""), "no elapsed_seconds"),
            (line("\"a\":1"), "no elapsed_seconds"),
            (
                line("\"elapsed_seconds\":0.1").replace('\n', ""),
                "not ended",
            ),
            ("{]\n".to_owned(), "no JSON object"),
            ("7\n".to_owned(), "no JSON object"),
            ("\n".to_owned(), "no JSON object"),
        ] {
            let counted = read(&(line("\"elapsed_seconds\":0") + &text));
            assert_eq!(counted.lines, 2);
            let fault = counted.faults.join(" ");
            assert!(
                fault.starts_with("line 2 ") && fault.contains(says),
                "{fault}"
            );
        }
        let falling = line("\"elapsed_seconds\":0.2") + &line("\"elapsed_seconds\":0.1");
        assert_eq!(
            read(&falling).faults,
            ["line 2 has elapsed_seconds 0.1, after 0.2"]
        );
        assert_eq!(read(&"x\n".repeat(9)).faults.len(), FAULTS_MAX + 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\"\xff\"\n").unwrap();
        let counted = Counted::read(file.path(), ID, &|_| ()).unwrap();
        assert_eq!(counted.faults, ["line 1 is not UTF-8"]);
    }

    #[test]
    fn the_ledger_is_that_of_session_end() {
        let end = |ledger: &str| {
            line(&format!(
                "\"elapsed_seconds\":1,\"event\":\"session_end\",\"ledger\":{ledger}"
            ))
        };
        let counted = read(&end(
            "{\"vpn\":{\"offered\":3,\"written\":3,\"pending\":0}}",
        ));
        assert_eq!(counted.ledger.unwrap().categories["vpn"].written(), 3);
        let pending = read(&end(
            "{\"vpn\":{\"offered\":3,\"written\":3,\"pending\":1}}",
        ));
        assert_eq!(
            pending.faults,
            ["line 1 counts 1 records of vpn as pending"]
        );
        assert_eq!(
            read(&end("7")).faults,
            ["line 1 is a session_end without a ledger"]
        );
        let twice = read(&end("{}").repeat(2));
        assert_eq!(twice.faults, ["line 2 is a second session_end"]);
    }
}
