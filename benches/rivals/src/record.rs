//! The record that every logger gets: operation, 12-byte id, u16, f64 and bool ("record A" of
//! docs/BENCHMARKS.md), and the check that a line of text holds one.

/// The operation of every record. Loggers that can intern it do.
pub const OPERATION: &str = "start_container";

/// Records differ with this period; a power of two, and few enough to stay in the first cache.
const VARIANTS: usize = 256;

/// Beginning of every id; the rest are digits.
const ID_PREFIX: &str = "ct-";
const ID_BYTES: usize = 12;

/// Record A.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// [`OPERATION`].
    pub operation: &'static str,
    /// Twelve bytes, another one in each variant.
    pub id: &'static str,
    /// A port.
    pub port: u16,
    /// A duration in ms; three decimals that are exact in binary, so that every logger that prints
    /// the shortest text prints the same one.
    pub value: f64,
    /// Whether it went well.
    pub ok: bool,
}

/// All records, made before anything is measured.
pub struct Records {
    all: Vec<Record>,
}

impl Records {
    /// Leaks the ids: once per process.
    pub fn new() -> Self {
        let record = |index: usize| {
            let mix = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let id = format!("{ID_PREFIX}{index:09}");
            assert_eq!(id.len(), ID_BYTES);
            Record {
                operation: OPERATION,
                id: id.leak(),
                port: 1024 + (mix >> 52) as u16,
                value: (mix >> 32 & 0xffff) as f64 + 0.125,
                ok: mix & 1 == 0,
            }
        };
        let all = (0..VARIANTS).map(record).collect();
        Self { all }
    }

    /// The record that is logged as number `number`.
    #[inline(always)]
    pub fn get(&self, number: usize) -> &Record {
        &self.all[number % VARIANTS]
    }
}

/// Finds records in lines, whatever stands around their values.
pub struct Matcher {
    operation: memchr::memmem::Finder<'static>,
    id: memchr::memmem::Finder<'static>,
    /// Port, value and flag of each record as text.
    texts: Vec<[Vec<u8>; 3]>,
}

impl Matcher {
    /// For the records of [`Records::new`].
    pub fn new() -> Self {
        let texts = |record: &Record| {
            let texts = [
                record.port.to_string(),
                record.value.to_string(),
                record.ok.to_string(),
            ];
            texts.map(String::into_bytes)
        };
        Self {
            operation: memchr::memmem::Finder::new(OPERATION),
            id: memchr::memmem::Finder::new(ID_PREFIX),
            texts: Records::new().all.iter().map(texts).collect(),
        }
    }

    /// Whether the line holds all five values of one record.
    pub fn is_record(&self, line: &[u8]) -> bool {
        self.operation.find(line).is_some() && self.values(line).is_some()
    }

    fn values(&self, line: &[u8]) -> Option<()> {
        let digits = self.id.find(line)? + ID_PREFIX.len();
        let digits = line.get(digits..digits + ID_BYTES - ID_PREFIX.len())?;
        let index: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let texts = self.texts.get(index)?;
        let all = texts
            .iter()
            .all(|text| memchr::memmem::find(line, text).is_some());
        all.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_all_values_of_one_record_counts_and_no_other() {
        let matcher = Matcher::new();
        let records = Records::new();
        let record = records.get(300);
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = record;
        let line = format!("{{\"op\":\"{operation}\",\"id\":\"{id}\",{port},{value},{ok}}}");
        assert!(matcher.is_record(line.as_bytes()));
        let other = records.get(7);
        assert_ne!((other.port, other.value), (*port, *value));
        for (from, to) in [
            (*operation, "stop"),
            (id, other.id),
            (&port.to_string(), "1"),
            (&value.to_string(), "2"),
            (&ok.to_string(), "maybe"),
        ] {
            assert!(
                !matcher.is_record(line.replace(from, to).as_bytes()),
                "{from} {to}"
            );
        }
    }
}
