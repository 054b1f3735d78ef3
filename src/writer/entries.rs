//! The registry in every segment: the entries that its records need come before them.

use super::segments::Segments;
use crate::segment::entry::ENTRY_ALIGN;
use crate::segment::layout::{BLOCK_REGISTRY, DATA_BYTES_MAX, block_bytes};
use crate::segment::writer::BlockInfo;

impl Segments {
    pub(super) fn collect_registry(&mut self) {
        if !self.cursor.is_current(&self.core.storage.registry) {
            let all = &mut self.registry;
            self.cursor.advance(&self.core.storage.registry, |entry| {
                all.extend_from_slice(entry);
            });
        }
    }

    /// Writes the entries that the current segment does not have yet. False when there is no
    /// room, or they cannot be written.
    pub(super) fn write_registry(&mut self) -> bool {
        while self.registry_in_segment < self.registry.len() {
            let rest = &self.registry[self.registry_in_segment..];
            let (bytes, entries) = leading_entries(rest);
            if block_bytes(bytes) + self.held_from_registry() > self.room() {
                return false;
            }
            let block = rest[..bytes].to_vec();
            if !self.append_registry_block(&block, entries) {
                return false;
            }
            fail_point!("roll.registry");
            self.registry_in_segment += bytes;
        }
        true
    }

    pub(super) fn append_registry_block(&mut self, entries: &[u8], count: u32) -> bool {
        let info = BlockInfo {
            kind: BLOCK_REGISTRY,
            records: count,
            ..BlockInfo::default()
        };
        self.append(info, entries)
    }
}

/// Length and number of the whole entries at the start of `entries` that fit into one block; one
/// at least.
fn leading_entries(entries: &[u8]) -> (usize, u32) {
    let (mut bytes, mut count) = (0, 0);
    while let Some(length) = entries
        .get(bytes..)
        .and_then(|rest| rest.first_chunk::<4>())
    {
        let length = (u32::from_le_bytes(*length) as usize).max(ENTRY_ALIGN);
        if count > 0 && bytes + length > DATA_BYTES_MAX {
            break;
        }
        bytes += length;
        count += 1;
    }
    (bytes, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::entry::Entry;

    #[test]
    fn registry_is_cut_into_blocks_between_entries() {
        let mut entries = Vec::new();
        for id in 0..3000 {
            Entry::Symbol(id, "a symbol of some length").append(&mut entries);
        }
        let (mut at, mut count) = (0, 0);
        while at < entries.len() {
            let (bytes, some) = leading_entries(&entries[at..]);
            assert!(bytes <= DATA_BYTES_MAX && some > 0);
            at += bytes;
            count += some;
        }
        assert_eq!((at, count), (entries.len(), 3000));
    }
}
