//! Files of `/proc` and `/sys`, as far as they can be read.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest file that is read: the table of connections of a busy machine.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Descriptors that are looked at, at most.
const FILES_MAX: usize = 1 << 16;

/// The whole file; `None` when it cannot be read, is longer, or is no text.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    ((read as u64) < FILE_BYTES_MAX).then_some(text)
}

/// A file with one number.
pub(super) fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// `statm`: resident pages.
pub(super) fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `stat`: the number of threads, field 20. The name (field 2) may contain anything but ends with
/// the last parenthesis.
pub(super) fn threads(stat: &str) -> Option<u64> {
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_ascii_whitespace().nth(17)?.parse().ok()
}

/// `meminfo`: the memory of the machine in bytes.
pub(super) fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// A file of `/proc/pressure`: percent of the last 10 s in which some, and all, waited.
pub(super) fn pressure(text: &str) -> [Option<f64>; 2] {
    ["some", "full"].map(|kind| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        let mut parts = line.split_ascii_whitespace();
        let average = parts.find_map(|part| part.strip_prefix("avg10="))?;
        average
            .parse()
            .ok()
            .filter(|percent: &f64| percent.is_finite())
    })
}

/// Descriptors of the process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OpenFiles {
    pub(super) count: u64,
    /// Inodes of those that are sockets.
    pub(super) sockets: HashSet<u64>,
}

/// What `/proc/self/fd` holds.
pub(super) fn open_files(dir: &Path) -> Option<OpenFiles> {
    let mut files = OpenFiles::default();
    for entry in std::fs::read_dir(dir).ok()?.take(FILES_MAX) {
        // One that was closed meanwhile has no target.
        let Ok(target) = entry.and_then(|entry| std::fs::read_link(entry.path())) else {
            continue;
        };
        files.count += 1;
        let socket: Option<u64> = target.to_str().and_then(|target| {
            let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        });
        files.sockets.extend(socket);
    }
    // The directory itself was open.
    files.count = files.count.saturating_sub(1);
    Some(files)
}

/// Connections of a table of `/proc/net` that are established, of these sockets.
pub(super) fn established(table: &str, sockets: &HashSet<u64>) -> u64 {
    let is_ours = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        let state = fields.nth(3);
        let inode = fields.nth(5).and_then(|inode| inode.parse().ok());
        state == Some("01") && inode.is_some_and(|inode| sockets.contains(&inode))
    };
    table.lines().skip(1).filter(is_ours).count() as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_understood() {
        assert_eq!(resident_pages("5000 1234 300 1 0 400 0\n"), Some(1234));
        assert_eq!(resident_pages("5000"), None);
        let stat = "7 (a) b ) (c) S 1 7 7 0 -1 4194304 1 0 0 0 11 12 0 0 20 0 9 0 100 1 2";
        assert_eq!(threads(stat), Some(9));
        assert_eq!(threads("7 (a) S 1"), None);
        assert_eq!(threads(""), None);
        let meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\n";
        assert_eq!(memory_total(meminfo), Some(16 << 20));
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\n\
                    full avg10=0.25 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(pressure(text), [Some(1.5), Some(0.25)]);
        assert_eq!(pressure("some avg10=NaN\n"), [None, None]);
        assert_eq!(pressure(""), [None, None]);
    }

    #[test]
    fn connections_are_those_of_own_sockets_that_are_established() {
        let line = |state: &str, inode: u64| {
            format!(
                "   0: 0100007F:1F90 0100007F:C350 {state} 00000000:00000000 00:00000000 00000000 \
                 1000        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
            )
        };
        let table = format!(
            "  sl  local_address rem_address   st ...\n{}{}{}\nhalf a li",
            line("01", 41),
            line("0A", 41),
            line("01", 42)
        );
        let sockets = HashSet::from([41, 43]);
        assert_eq!(established(&table, &sockets), 1);
        assert_eq!(established("", &sockets), 0);
    }

    #[test]
    fn this_process_has_files_and_a_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _server = listener.accept().unwrap();
        let files = open_files(Path::new("/proc/self/fd")).unwrap();
        assert!(files.count >= 3 && files.sockets.len() >= 3, "{files:?}");
        let table = text(Path::new("/proc/self/net/tcp")).unwrap();
        assert!(established(&table, &files.sockets) >= 2);
        assert_eq!(text(Path::new("/proc/self/no such file")), None);
    }
}
