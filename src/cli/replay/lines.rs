//! Lines of a file, one at a time, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use super::parse::{BadLine, LINE_BYTES_MAX};

/// Size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 128 * 1024;
/// What some editors put at the start of a file; not part of its first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads lines that end with LF or CRLF; the last one may end with the file.
pub struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    /// Number of the line that was read last, from 1.
    number: u64,
    /// Bytes consumed so far.
    bytes: u64,
}

impl Lines {
    /// The lines of `path`; `-` is standard input.
    pub fn open(path: &Path) -> io::Result<Self> {
        let input: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path)?)
        };
        Ok(Self::new(input))
    }

    /// The lines of any reader.
    pub fn new(input: Box<dyn Read + Send>) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            number: 0,
            bytes: 0,
        }
    }

    /// Number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes consumed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the next line into `line`, without its line end. `None` at the end of the file.
    /// A line that is too long is passed over and reported as bad.
    pub fn next_into(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Result<(), BadLine>>> {
        line.clear();
        let mut too_long = false;
        let mut started = false;
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            // One byte more than allowed: it may be the CR of the line end.
            too_long |= line.len() + part.len() > LINE_BYTES_MAX + 1 + BYTE_ORDER_MARK.len();
            if !too_long {
                line.extend_from_slice(part);
            }
            let consumed = part.len() + usize::from(end.is_some());
            started |= consumed > 0;
            self.input.consume(consumed);
            self.bytes += consumed as u64;
            if end.is_some() || consumed == 0 {
                break;
            }
        }
        if !started {
            return Ok(None);
        }
        self.number += 1;
        if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        too_long |= line.len() > LINE_BYTES_MAX;
        Ok(Some(if too_long {
            Err(BadLine::TooLong)
        } else {
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes a few at a time, so that line ends fall on every place of a read.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(to.len());
            to[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    fn all(bytes: &[u8], step: usize) -> Vec<Result<String, BadLine>> {
        let mut lines = Lines::new(Box::new(Slow(bytes.to_vec(), step)));
        let mut line = Vec::new();
        let mut found = Vec::new();
        while let Some(result) = lines.next_into(&mut line).unwrap() {
            found.push(result.map(|()| String::from_utf8(line.clone()).unwrap()));
        }
        assert_eq!(lines.number(), found.len() as u64);
        assert_eq!(lines.bytes(), bytes.len() as u64);
        found
    }

    fn texts(bytes: &[u8], step: usize) -> Vec<String> {
        all(bytes, step).into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn line_ends_of_all_kinds() {
        for step in 1..12 {
            assert_eq!(
                texts(b"a\r\nbc\n\n d \nlast", step),
                ["a", "bc", "", " d ", "last"]
            );
            assert_eq!(texts(b"a\n", step), ["a"]);
            assert_eq!(texts(b"\n", step), [""]);
            assert_eq!(texts(b"", step), [""; 0]);
            assert_eq!(texts(b"\xef\xbb\xbf{}\r\n", step), ["{}"]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut bytes = b"first\n".to_vec();
        bytes.extend(vec![b'x'; LINE_BYTES_MAX]);
        bytes.extend(b"\r\n");
        bytes.extend(vec![b'y'; LINE_BYTES_MAX + 1]);
        bytes.extend(b"\n");
        bytes.extend(vec![b'z'; 3 * LINE_BYTES_MAX]);
        bytes.extend(b"\nlast");
        let found = all(&bytes, 100_000);
        assert_eq!(found.len(), 5);
        assert_eq!(found[1].as_ref().unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(found[2], Err(BadLine::TooLong));
        assert_eq!(found[3], Err(BadLine::TooLong));
        assert_eq!(found[4].as_deref(), Ok("last"));
    }
}
