//! The ids of a schema as a push needs them.

use super::schema::{CATEGORIES_MAX, SCHEMAS_MAX};

/// The ids of a schema and its category in one word: schema id (0 = none yet) in the upper 12 bits,
/// category id in bits 7 to 14. The place of a gate is one shift away, that of counters two masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedIds(u32);

const SCHEMA_SHIFT: u32 = 20;
const CATEGORY_SHIFT: u32 = 7;
const _: () = assert!(SCHEMAS_MAX == 1 << (u32::BITS - SCHEMA_SHIFT));
const _: () = assert!(CATEGORIES_MAX << CATEGORY_SHIFT <= 1 << SCHEMA_SHIFT);

impl PackedIds {
    pub(super) fn new(schema: u32, category: u8) -> Self {
        Self(schema << SCHEMA_SHIFT | u32::from(category) << CATEGORY_SHIFT)
    }

    #[inline(always)]
    pub(super) fn from_word(word: u32) -> Self {
        Self(word)
    }

    pub(super) fn word(self) -> u32 {
        self.0
    }

    /// Id of the schema; 0 = none yet.
    #[inline(always)]
    pub(crate) fn schema(self) -> u16 {
        (self.0 >> SCHEMA_SHIFT) as u16
    }

    /// The category in groups of 16: group, and number within it. Not by way of
    /// [`category`](Self::category), which would cost three instructions more.
    #[inline(always)]
    pub(crate) fn category_of_16(self) -> (usize, usize) {
        let (group, number) = (self.0 >> (CATEGORY_SHIFT + 4), self.0 >> CATEGORY_SHIFT);
        (group as usize % 16, number as usize % 16)
    }

    /// Id of the category.
    #[inline(always)]
    pub(crate) fn category(self) -> u8 {
        (self.0 >> CATEGORY_SHIFT) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_ids_hold_both() {
        let schemas = [0, 1, SCHEMAS_MAX as u32 - 1];
        let categories = [0, 1, 15, 16, u8::MAX];
        for (schema, category) in schemas.iter().flat_map(|s| categories.map(|c| (*s, c))) {
            let ids = PackedIds::new(schema, category);
            assert_eq!(
                (u32::from(ids.schema()), ids.category()),
                (schema, category)
            );
            let (group, number) = ids.category_of_16();
            assert_eq!(group * 16 + number, usize::from(category));
        }
    }
}
