//! What a ring storage in a file tells to another process: counters of the producers, and how
//! full the rings are. FORMAT.md section 7; nothing is taken from the data of the rings.
//!
//! The file is read with `pread` while threads write to it, and its bytes are not trusted: every
//! position is bounded by the length of the file, the number of reads by the number of rings and
//! pages that a storage can have. A count is as it was at some instant of the reading; the kernel
//! does not promise to copy its eight bytes at once, so a look may show one that is just changing
//! wrongly, and the next one shows it right.

use std::path::Path;

use crate::error::{Error, IoContext};
use crate::ledger::{Account, COUNTERS};
use crate::record::CATEGORIES_MAX;
use crate::segment::header::{SegmentHeader, parse_header};
use crate::segment::layout::{
    COUNTER_PAGE_BYTES, FILE_HEADER_BYTES, FILE_RINGS, GEOMETRY_OFFSET, RING_MAGIC, RING_OVERHEAD,
    RINGS_MAX, RingGeometry, RingHead, SHARED_COUNTERS_OFFSET, ring_capacities,
};
use crate::segment::registry::Registry;
use crate::segment::source::Source;

/// Categories of one counter page.
const PAGE_CATEGORIES: usize = 16;
/// Groups of categories, each with a page.
const GROUPS: usize = CATEGORIES_MAX / PAGE_CATEGORIES;
const ACCOUNT_BYTES: usize = COUNTERS * 8;
/// No storage has more counter pages.
const PAGES_MAX: u64 = 4096;
/// The longest registry that is read.
pub(crate) const REGISTRY_BYTES_MAX: u64 = 16 << 20;
/// Logarithms of the capacities that a ring can have.
const CAPACITY_LOGS: std::ops::RangeInclusive<u32> = 12..=26;
/// `state` of a ring that a thread owns.
const ACTIVE: u32 = 1;

const _: () = assert!(PAGE_CATEGORIES * ACCOUNT_BYTES == COUNTER_PAGE_BYTES);

/// How full one ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFill {
    /// Id of the producer.
    pub ring_id: u32,
    /// Committed bytes that are not yet in a segment.
    pub waiting_bytes: u64,
    /// Bytes that fit.
    pub capacity_bytes: u64,
}

/// The producers' side of a session.
#[derive(Clone, Debug)]
pub struct Rings {
    /// Session id, `YYYYMMDD_HHMMSS`.
    pub session_id: String,
    /// Identity of the session.
    pub nonce: [u8; 16],
    /// Counts of the producers by category id; `written` is not among them.
    pub accounts: Vec<Account>,
    /// Rings that were ever used.
    pub used: u32,
    /// Rings that a thread owns.
    pub active: u32,
    /// Committed bytes in all rings that are not yet in a segment.
    pub waiting_bytes: u64,
    /// The ring with the largest part of it waiting; `None` when no ring was used.
    pub fullest: Option<RingFill>,
    /// What is wrong with the file, as sentences.
    pub faults: Vec<String>,
    /// Where the parts of the file lie.
    pub(crate) geometry: RingGeometry,
    /// Offset and header of each ring that was used.
    pub(crate) heads: Vec<(u64, RingHead)>,
}

impl Rings {
    /// Reads the counters and the headers of all rings. `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is no ring storage, or does not say where its parts lie;
    /// [`Error::Io`].
    pub fn read(source: &(impl Source + ?Sized), path: &Path) -> Result<Self, Error> {
        let mut reader = Reader::new(source, path)?;
        let mut rings = reader.open()?;
        for group in 0..GROUPS {
            let offset = page_offset(SHARED_COUNTERS_OFFSET as u64, group as u64);
            reader.add_page(offset, group, &mut rings.accounts)?;
        }
        rings.walk(&mut reader)?;
        if reader.cut {
            let fault = "the file is shorter than it says: the counts are not complete";
            rings.faults.push(format!("{}: {fault}", path.display()));
        }
        Ok(rings)
    }

    /// The registry that the threads of the session share: names of categories, schemas.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn registry(
        &self,
        source: &(impl Source + ?Sized),
        path: &Path,
    ) -> Result<Registry, Error> {
        let mut reader = Reader::new(source, path)?;
        let bytes = self.geometry.registry_bytes.min(REGISTRY_BYTES_MAX);
        let bytes = bytes.min(reader.end.saturating_sub(self.geometry.registry_offset));
        let mut place = vec![0; bytes as usize];
        let mut registry = Registry::default();
        if reader.fill(self.geometry.registry_offset, &mut place)? {
            registry.add_block(&place);
        }
        Ok(registry)
    }

    /// Goes through the rings. They lie one behind the other, and each says how long it is as
    /// soon as it is used. Threads take rings and describe them in any order: where rings have no
    /// description yet, the next one that has one is where the division of the storage has it.
    fn walk(&mut self, reader: &mut Reader<'_, impl Source + ?Sized>) -> Result<(), Error> {
        let start = self.geometry.rings_offset;
        let end = start.saturating_add(self.geometry.ring_total_bytes);
        reader.cut |= end > reader.end;
        let end = end.min(reader.end);
        let mut pages = vec![false; self.geometry.pages_count as usize];
        let (mut offset, mut index) = (start, 0);
        let mut planned = planned(start, self.geometry.ring_total_bytes);
        while (index as usize) < RINGS_MAX {
            let mut found = reader
                .ring_at(offset, index, end)?
                .map(|head| (offset, head));
            while found.is_none()
                && let Some((at, number)) = planned.next()
            {
                if number >= index && at >= offset {
                    found = reader.ring_at(at, number, end)?.map(|head| (at, head));
                }
            }
            let Some((at, head)) = found else {
                break;
            };
            self.add_ring(reader, at, &head, &mut pages)?;
            offset = ring_end(at, head.capacity);
            index = head.index.saturating_add(1);
        }
        Ok(())
    }

    fn add_ring(
        &mut self,
        reader: &mut Reader<'_, impl Source + ?Sized>,
        offset: u64,
        head: &RingHead,
        pages: &mut [bool],
    ) -> Result<(), Error> {
        self.used = self.used.saturating_add(1);
        self.heads.push((offset, *head));
        self.active = self.active.saturating_add(u32::from(head.state == ACTIVE));
        let waiting_bytes = head.write_pos.saturating_sub(head.read_pos);
        let fill = RingFill {
            ring_id: head.ring_id,
            // More than fits is read when one of the two was read later.
            waiting_bytes: waiting_bytes.min(head.capacity),
            capacity_bytes: head.capacity,
        };
        self.waiting_bytes = self.waiting_bytes.saturating_add(fill.waiting_bytes);
        let fuller = self.fullest.is_none_or(|other| other.is_below(&fill));
        if fuller {
            self.fullest = Some(fill);
        }
        let counters = offset.saturating_add(size_of::<RingHead>() as u64);
        reader.add_page(counters, 0, &mut self.accounts)?;
        for (group, page) in head.pages.iter().enumerate().skip(1) {
            let Some(index) = page.checked_sub(1) else {
                continue;
            };
            // A page belongs to one ring.
            match pages.get_mut(index as usize) {
                Some(taken) if !*taken => *taken = true,
                _ => {
                    let ring = head.index;
                    let fault = format!("ring {ring} names a counter page that is not its own");
                    self.faults
                        .push(format!("{}: {fault}", reader.path.display()));
                    continue;
                }
            }
            let offset = page_offset(self.geometry.pages_offset, index.into());
            reader.add_page(offset, group, &mut self.accounts)?;
        }
        Ok(())
    }
}

impl RingFill {
    /// Part of the ring that is waiting, from 0 to 1.
    pub fn part(&self) -> f64 {
        self.waiting_bytes as f64 / self.capacity_bytes.max(1) as f64
    }

    fn is_below(&self, other: &Self) -> bool {
        let product = |a: u64, b: u64| u128::from(a).saturating_mul(u128::from(b));
        product(self.waiting_bytes, other.capacity_bytes)
            < product(other.waiting_bytes, self.capacity_bytes)
    }
}

fn page_offset(area: u64, index: u64) -> u64 {
    area.saturating_add(index.saturating_mul(COUNTER_PAGE_BYTES as u64))
}

/// Where the rings of a storage lie, and their indices.
fn planned(start: u64, total: u64) -> impl Iterator<Item = (u64, u32)> {
    let capacities = ring_capacities(usize::try_from(total).unwrap_or(usize::MAX));
    let starts = capacities.into_iter().scan(start, |next, capacity| {
        let at = *next;
        *next = ring_end(at, capacity as u64);
        Some(at)
    });
    starts.zip(0..)
}

fn ring_end(offset: u64, capacity: u64) -> u64 {
    offset
        .saturating_add(RING_OVERHEAD as u64)
        .saturating_add(capacity)
}

/// Reads parts of the file.
struct Reader<'a, S: ?Sized> {
    source: &'a S,
    path: &'a Path,
    /// Length of the file.
    end: u64,
    /// Something lay behind the end.
    cut: bool,
}

impl<'a, S: Source + ?Sized> Reader<'a, S> {
    fn new(source: &'a S, path: &'a Path) -> Result<Self, Error> {
        let end = source
            .byte_count()
            .io_context("cannot read the length of", path)?;
        Ok(Self {
            source,
            path,
            end,
            cut: false,
        })
    }

    /// Header and geometry; no counts yet.
    fn open(&mut self) -> Result<Rings, Error> {
        let corrupt = |offset: usize, what: &str| Error::Corrupt {
            path: self.path.to_owned(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let mut head = [0; FILE_HEADER_BYTES + size_of::<RingGeometry>()];
        let count = self
            .source
            .read_at(0, &mut head)
            .io_context("cannot read", self.path)?;
        let head = head.get(..count).unwrap_or_default();
        let (header, geometry) = head
            .split_at_checked(GEOMETRY_OFFSET)
            .ok_or_else(|| corrupt(0, "too short for a ring storage"))?;
        let SegmentHeader {
            file, session_id, ..
        } = parse_header(header, FILE_RINGS).map_err(|what| corrupt(0, &what))?;
        let geometry: RingGeometry = bytemuck::try_pod_read_unaligned(geometry)
            .map_err(|_| corrupt(GEOMETRY_OFFSET, "the file ends before its geometry"))?;
        if geometry.pages_count > PAGES_MAX || geometry.rings_offset < file_start() {
            let what = "what it says of its parts cannot be";
            return Err(corrupt(GEOMETRY_OFFSET, what));
        }
        Ok(Rings {
            session_id,
            nonce: file.nonce,
            accounts: vec![Account::default(); CATEGORIES_MAX],
            used: 0,
            active: 0,
            waiting_bytes: 0,
            fullest: None,
            faults: Vec::new(),
            geometry,
            heads: Vec::new(),
        })
    }

    /// The header of the ring at `offset`, when it describes itself as ring `index`.
    fn ring_at(&mut self, offset: u64, index: u32, end: u64) -> Result<Option<RingHead>, Error> {
        if ring_end(offset, 0) > end {
            return Ok(None);
        }
        let mut place = [0; size_of::<RingHead>()];
        if !self.fill(offset, &mut place)? {
            return Ok(None);
        }
        let head: Option<RingHead> = bytemuck::try_pod_read_unaligned(&place).ok();
        Ok(head.filter(|head| {
            let whole = ring_end(offset, head.capacity) <= end;
            let capacity = CAPACITY_LOGS.contains(&head.capacity.checked_ilog2().unwrap_or(0));
            let capacity = capacity && head.capacity.is_power_of_two();
            head.magic == RING_MAGIC && head.index == index && capacity && whole
        }))
    }

    /// Adds the counts of the page at `offset`.
    fn add_page(
        &mut self,
        offset: u64,
        group: usize,
        accounts: &mut [Account],
    ) -> Result<(), Error> {
        let mut place = [0; COUNTER_PAGE_BYTES];
        if !self.fill(offset, &mut place)? {
            return Ok(());
        }
        let accounts = accounts.chunks_exact_mut(PAGE_CATEGORIES).nth(group);
        let counts = place.chunks_exact(ACCOUNT_BYTES);
        for (account, bytes) in accounts.unwrap_or_default().iter_mut().zip(counts) {
            if let Ok(counters) = bytemuck::try_pod_read_unaligned(bytes) {
                account.add(&Account { counters });
            }
        }
        Ok(())
    }

    /// Fills `place` from `offset`; false when the file ends before.
    fn fill(&mut self, offset: u64, place: &mut [u8]) -> Result<bool, Error> {
        let fits = offset
            .checked_add(place.len() as u64)
            .is_some_and(|end| end <= self.end);
        let mut whole = fits;
        if fits {
            let count = self.source.read_at(offset, place);
            whole = count.io_context("cannot read", self.path)? == place.len();
        }
        self.cut |= !whole;
        Ok(whole)
    }
}

/// Where the first part behind the shared counters can start.
fn file_start() -> u64 {
    page_offset(SHARED_COUNTERS_OFFSET as u64, GROUPS as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::OFFERED;
    use crate::segment::layout::{FILE_MAGIC, FileHeader, VERSION_MAJOR};

    #[test]
    fn the_part_that_waits_is_between_none_and_all() {
        let percent = |waiting_bytes, capacity_bytes| {
            let fill = RingFill {
                ring_id: 1,
                waiting_bytes,
                capacity_bytes,
            };
            fill.part() * 100.0
        };
        for (waiting, capacity, expected) in [(0, 4096, 0), (1024, 4096, 25), (4096, 4096, 100)] {
            assert_eq!(percent(waiting, capacity).round() as u64, expected);
        }
        assert!(percent(0, 0).is_finite());
    }

    /// Threads without a ring count there, in every category.
    #[test]
    fn the_shared_counters_of_all_categories_are_read() {
        let header = FileHeader {
            magic: FILE_MAGIC,
            version_major: VERSION_MAJOR,
            header_bytes: FILE_HEADER_BYTES as u32,
            file_kind: FILE_RINGS,
            session: *b"20261121_101112\0",
            ..bytemuck::Zeroable::zeroed()
        };
        let geometry = RingGeometry {
            rings_offset: (SHARED_COUNTERS_OFFSET + CATEGORIES_MAX * ACCOUNT_BYTES) as u64,
            ..RingGeometry::default()
        };
        let mut file = [
            bytemuck::bytes_of(&header.with_crc()),
            bytemuck::bytes_of(&geometry),
        ]
        .concat();
        file.resize(SHARED_COUNTERS_OFFSET, 0);
        for id in 0..CATEGORIES_MAX as u64 {
            let mut counters = [0; COUNTERS];
            counters[OFFERED] = 1000 + id;
            file.extend_from_slice(bytemuck::cast_slice(&counters));
        }
        let rings = Rings::read(file.as_slice(), Path::new("rings")).unwrap();
        let offered = rings.accounts.iter().map(|it| it.counters[OFFERED]);
        assert!(offered.eq(1000..1000 + CATEGORIES_MAX as u64));
        assert!(rings.faults.is_empty(), "{:?}", rings.faults);
        // Parts that would lie among the counters.
        let geometry = RingGeometry {
            rings_offset: geometry.rings_offset - 8,
            ..geometry
        };
        file[GEOMETRY_OFFSET..][..size_of::<RingGeometry>()]
            .copy_from_slice(bytemuck::bytes_of(&geometry));
        assert!(Rings::read(file.as_slice(), Path::new("rings")).is_err());
    }
}
