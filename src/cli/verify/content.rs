//! The lines that segments give, against those that are in the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use crate::cli::places::open_lines;
use crate::convert::LineSink;
use crate::error::Error;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Takes the lines of a conversion and compares them.
#[derive(Debug, Default)]
pub struct Comparison {
    files: BTreeMap<String, Compared>,
}

#[derive(Debug)]
struct Compared {
    reader: BufReader<File>,
    path: PathBuf,
    /// Bytes that were equal.
    equal: u64,
    differs: bool,
}

impl Comparison {
    /// With the files of these categories.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn open(lines: &BTreeMap<String, PathBuf>) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        for (category, path) in lines {
            let file = open_lines(path).map_err(|source| failed(path, source))?;
            let compared = Compared {
                reader: BufReader::with_capacity(BUFFER_BYTES, file),
                path: path.clone(),
                equal: 0,
                differs: false,
            };
            files.insert(category.clone(), compared);
        }
        Ok(Self { files })
    }

    /// The byte from which on the file of this category is not what its segments give.
    pub fn differs_at(&self, category: &str) -> Option<u64> {
        let compared = self.files.get(category)?;
        compared.differs.then_some(compared.equal)
    }
}

fn failed(path: &std::path::Path, source: std::io::Error) -> Error {
    Error::Io {
        what: "cannot read",
        path: path.to_owned(),
        source,
    }
}

impl LineSink for Comparison {
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error> {
        let Some(file) = self.files.get_mut(category).filter(|file| !file.differs) else {
            return Ok(());
        };
        let mut place = [0; 4096];
        for expected in lines.chunks(place.len()) {
            let found = &mut place[..expected.len()];
            let mut count = 0;
            while count < found.len() {
                match file.reader.read(&mut found[count..]) {
                    Ok(0) => break,
                    Ok(more) => count += more,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(&file.path, error)),
                }
            }
            let pairs = expected.iter().zip(&found[..count]);
            let equal = pairs.take_while(|(a, b)| a == b).count();
            file.equal += equal as u64;
            if equal < expected.len() {
                file.differs = true;
                return Ok(());
            }
        }
        Ok(())
    }
}
