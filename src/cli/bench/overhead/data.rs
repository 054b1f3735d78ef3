//! What was measured: every run of every side, as it can be kept in a file and judged again.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value as Json, json};

use super::said::{Said, said_from};

/// Name of the form of the file; another form has another name.
const FORM: &str = "stormlog-overhead-1";

/// Wall time and processor time, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub wall_ns: u64,
    pub cpu_ns: u64,
}

/// What is told apart from what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Without and with recording.
    Recording,
    /// Twice the same, without recording: there must be no effect.
    Same,
    /// Without recording, and with this much more work, parts per million.
    Burn(u32),
}

/// One run of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub side: usize,
    /// The whole process.
    pub process: Times,
    pub said: Said,
}

impl Sample {
    /// The steady part if it is known, else the whole process.
    pub fn steady(&self) -> Times {
        let window = self.said.window.map(|window| window.times);
        window.unwrap_or(self.process)
    }

    /// Records that were offered in it.
    pub fn steady_records(&self) -> u64 {
        let records = self.said.window.and_then(|window| window.records);
        records.unwrap_or(self.said.records)
    }
}

/// Everything of one comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// What runs, for people.
    pub workload: String,
    pub kind: Kind,
    /// Names of the sides; the first is the one that others are compared with.
    pub sides: Vec<String>,
    /// The arguments of the workload: more runs are of the same only if these are equal.
    pub settings: Map<String, Json>,
    /// Each has every side twice, in an order and back: `A B B A`.
    pub blocks: Vec<Vec<Sample>>,
    /// Numbers of blocks at which a verdict was given.
    pub looks: Vec<u64>,
}

impl Data {
    /// The number of pairs: two in each block.
    pub fn pairs(&self) -> u64 {
        2 * self.blocks.len() as u64
    }

    /// The number of the look that a verdict on this data is, and whether it is a new one.
    pub fn look(&self) -> (u64, bool) {
        let count = self.blocks.len() as u64;
        let known = self.looks.iter().position(|looked| *looked == count);
        match known {
            Some(index) => (index as u64 + 1, false),
            None => (self.looks.len() as u64 + 1, true),
        }
    }

    pub fn to_json(&self) -> Json {
        let blocks: Vec<Vec<Json>> = self
            .blocks
            .iter()
            .map(|block| block.iter().map(sample_json).collect())
            .collect();
        let kind = match self.kind {
            Kind::Recording => json!("recording"),
            Kind::Same => json!("same"),
            Kind::Burn(ppm) => json!({ "burn_ppm": ppm }),
        };
        json!({
            "form": FORM,
            "workload": self.workload,
            "kind": kind,
            "sides": self.sides,
            "settings": self.settings,
            "looks": self.looks,
            "blocks": blocks,
        })
    }

    /// # Errors
    /// When it has another form.
    pub fn from_json(json: &Json) -> Result<Self> {
        ensure!(json["form"] == FORM, "its form is not {FORM}");
        let text = |json: &Json| json.as_str().map(str::to_owned).context("no text");
        let list = |name: &str| {
            let found = json[name].as_array();
            found.with_context(|| format!("{name} is no list"))
        };
        let kind = match (&json["kind"], json["kind"]["burn_ppm"].as_u64()) {
            (Json::String(kind), _) if kind == "recording" => Kind::Recording,
            (Json::String(kind), _) if kind == "same" => Kind::Same,
            (_, Some(ppm)) => Kind::Burn(u32::try_from(ppm)?),
            (other, _) => return Err(anyhow!("the kind {other} is not known")),
        };
        let sides: Vec<String> = list("sides")?.iter().map(text).collect::<Result<_>>()?;
        let looks = list("looks")?.iter().map(number).collect::<Result<_>>()?;
        let blocks: Vec<Vec<Sample>> = list("blocks")?
            .iter()
            .map(|block| block_from(block, sides.len()))
            .collect::<Result<_>>()?;
        Ok(Self {
            workload: text(&json["workload"]).context("workload")?,
            kind,
            sides,
            settings: json["settings"].as_object().cloned().unwrap_or_default(),
            blocks,
            looks,
        })
    }

    /// Reads a file that [`Data::write`] wrote.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot read the pairs in {}", path.display());
        let text = std::fs::read(path).with_context(what)?;
        let json: Json = serde_json::from_slice(&text).with_context(what)?;
        Self::from_json(&json).with_context(what)
    }

    /// Writes the file anew; a reader sees the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let mut name = path.file_name().with_context(what)?.to_owned();
        name.push(".tmp");
        let new = path.with_file_name(name);
        std::fs::write(&new, format!("{}\n", self.to_json())).with_context(what)?;
        std::fs::rename(&new, path).with_context(what)
    }
}

fn block_from(json: &Json, sides: usize) -> Result<Vec<Sample>> {
    let samples = json.as_array().context("a block is no list")?;
    let samples: Vec<_> = samples.iter().map(sample_from).collect::<Result<_>>()?;
    for side in 0..sides {
        let count = samples.iter().filter(|sample| sample.side == side).count();
        ensure!(count == 2, "a block has {count} runs of side {side}, not 2");
    }
    ensure!(samples.len() == 2 * sides, "a block has runs of no side");
    Ok(samples)
}

pub fn number(json: &Json) -> Result<u64> {
    json.as_u64()
        .with_context(|| format!("{json} is no whole number"))
}

fn times_json(times: Times) -> Json {
    json!({ "wall_ns": times.wall_ns, "cpu_ns": times.cpu_ns })
}

/// Times are divided by each other, so none may be 0.
pub fn times_from(json: &Json) -> Result<Times> {
    let time = |name: &str| match number(&json[name]).with_context(|| name.to_owned())? {
        0 => Err(anyhow!("{name} is 0")),
        time => Ok(time),
    };
    Ok(Times {
        wall_ns: time("wall_ns")?,
        cpu_ns: time("cpu_ns")?,
    })
}

fn sample_json(sample: &Sample) -> Json {
    let said = &sample.said;
    let mut json = times_json(sample.process);
    json["side"] = sample.side.into();
    for (name, value) in [
        ("units", said.units),
        ("records", said.records),
        ("written", said.written),
        ("burned", said.burned),
    ] {
        if value > 0 {
            json[name] = value.into();
        }
    }
    if let Some(window) = said.window {
        json["window"] = times_json(window.times);
        if let Some(records) = window.records {
            json["window"]["records"] = records.into();
        }
    }
    if let Some([p50, p99, p999]) = said.latency {
        json["latency_ns"] = json!({ "p50": p50, "p99": p99, "p999": p999 });
    }
    json
}

fn sample_from(json: &Json) -> Result<Sample> {
    Ok(Sample {
        side: number(&json["side"])? as usize,
        process: times_from(json)?,
        said: said_from(json)?,
    })
}

#[cfg(test)]
pub mod tests {
    use super::super::said::Window;
    use super::*;

    /// Blocks of off, on and a third side, whose processor times are as wanted.
    pub fn synthetic(kind: Kind, blocks: &[[f64; 2]]) -> Data {
        let sample = |side: usize, factor: f64| Sample {
            side,
            process: Times {
                wall_ns: (5e8 * factor) as u64,
                cpu_ns: (1e9 * factor) as u64,
            },
            said: Said {
                units: 1_000_000,
                records: if side == 1 { 1_000_000 } else { 0 },
                written: if side == 1 { 1_000_000 } else { 0 },
                window: Some(Window {
                    times: Times {
                        wall_ns: (4e8 * factor) as u64,
                        cpu_ns: (8e8 * factor) as u64,
                    },
                    records: (side == 1).then_some(800_000),
                }),
                latency: Some([100, 200, 300]),
                burned: 0,
            },
        };
        let blocks = blocks.iter().map(|[off, on]| {
            [(0, *off), (1, *on), (1, *on), (0, *off)]
                .map(|(side, factor)| sample(side, factor))
                .to_vec()
        });
        Data {
            workload: "made up".to_owned(),
            kind,
            sides: vec!["off".to_owned(), "stormlog".to_owned()],
            settings: Map::new(),
            blocks: blocks.collect(),
            looks: Vec::new(),
        }
    }

    #[test]
    fn data_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.json");
        for kind in [Kind::Recording, Kind::Same, Kind::Burn(20_000)] {
            let mut data = synthetic(kind, &[[1.0, 1.1], [1.0, 1.2]]);
            data.looks = vec![1, 2];
            data.settings.insert("rate".to_owned(), 5.into());
            data.write(&path).unwrap();
            assert_eq!(Data::read(&path).unwrap(), data);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    type Change = fn(&mut Json);

    #[test]
    fn files_that_would_mislead_are_refused() {
        let good = synthetic(Kind::Recording, &[[1.0, 1.1]]).to_json();
        Data::from_json(&good).unwrap();
        let broken: [(&str, Change); 7] = [
            ("its form", |json| json["form"] = "x".into()),
            ("the kind", |json| json["kind"] = "x".into()),
            ("runs of side", |json| {
                json["blocks"][0].as_array_mut().unwrap().pop();
            }),
            ("cpu_ns is 0", |json| {
                json["blocks"][0][0]["cpu_ns"] = 0.into();
            }),
            ("window", |json| {
                json["blocks"][0][0]["window"]["wall_ns"] = "x".into();
            }),
            ("window: records", |json| {
                json["blocks"][0][1]["window"]["records"] = "x".into();
            }),
            ("looks is no list", |json| json["looks"] = 1.into()),
        ];
        for (message, change) in broken {
            let mut json = good.clone();
            change(&mut json);
            let error = format!("{:#}", Data::from_json(&json).unwrap_err());
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    #[test]
    fn looks_are_counted_by_what_was_looked_at() {
        let mut data = synthetic(Kind::Recording, &[[1.0, 1.1], [1.0, 1.2]]);
        assert_eq!(data.look(), (1, true));
        data.looks = vec![1];
        assert_eq!(data.look(), (2, true));
        data.looks = vec![1, 2];
        assert_eq!(
            data.look(),
            (2, false),
            "the same data again is no new look"
        );
        assert_eq!(data.pairs(), 4);
    }
}
