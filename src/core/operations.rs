//! Duration aggregates by name.

use super::Core;
use crate::durations::Durations;
use crate::record::{OPERATION_TEXT, schema, symbol_text};

impl Core {
    /// Durations per operation, of all records that were offered: exact after close, else a
    /// snapshot that may be torn by pushes meanwhile. Ordered by category, record
    /// type and operation.
    pub(crate) fn durations(&self) -> Vec<Durations> {
        let sums = self.storage.aggregates.read().into_iter();
        let mut all: Vec<Durations> = sums
            .map(|(key, histogram)| {
                let key = key.unwrap_or(0);
                let (schema_id, operation) = ((key >> 32) as u16, key as u32);
                let def = schema(schema_id);
                let name = symbol_text(operation);
                Durations {
                    category: def.map(|def| def.category.to_owned()),
                    record: def.map(|def| def.name.to_owned()),
                    operation: name.map(str::to_owned),
                    other: key == 0 || operation == OPERATION_TEXT,
                    histogram,
                }
            })
            .collect();
        all.sort_by(|a, b| a.name().cmp(&b.name()));
        all
    }
}
