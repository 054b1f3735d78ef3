//! Schemas: the fixed layout of one record type, and the process-wide ids of schemas and
//! categories.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::intern::StaticSlot;
use super::packed::PackedIds;

/// How many schemas one process can have, the padding id 0 among them.
pub const SCHEMAS_MAX: usize = 4096;
/// How many categories one process can have.
pub const CATEGORIES_MAX: usize = 256;
/// The longest category name in bytes.
pub const CATEGORY_BYTES_MAX: usize = 64;

/// Categories with a fixed id, so that their counters share the first pages of every ring.
pub const CATEGORIES_BUILTIN: [&str; 16] = [
    "session",
    "custom",
    "stress",
    "errors",
    "provisioning",
    "health",
    "vpn",
    "autoscaler",
    "circuit_breaker",
    "performance",
    "requests",
    "engine_selection",
    "orchestrator_health",
    "streams",
    "disconnects",
    "database",
];
/// Id of `session`: start and end markers.
pub const CATEGORY_SESSION: u8 = 0;
/// Id of `custom`: where records of a category go that could not get an id of its own.
pub const CATEGORY_CUSTOM: u8 = 1;

/// Whether a record may be left out under pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeepClass {
    /// May be sampled under pressure; dropped (and counted) when its ring is full.
    Sampled = 0,
    /// Never sampled; may use the headroom of the ring, which normal records may not.
    Always = 1,
}

/// The type of a field as the registry names it. FORMAT.md section 6.2 lists slots and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldKind {
    /// Unsigned, 1 byte.
    U8 = 1,
    /// Unsigned, 2 bytes.
    U16 = 2,
    /// Unsigned, 4 bytes.
    U32 = 3,
    /// Unsigned, 8 bytes.
    U64 = 4,
    /// Signed, 1 byte.
    I8 = 5,
    /// Signed, 2 bytes.
    I16 = 6,
    /// Signed, 4 bytes.
    I32 = 7,
    /// Signed, 8 bytes.
    I64 = 8,
    /// IEEE 754, 4 bytes.
    F32 = 9,
    /// IEEE 754, 8 bytes.
    F64 = 10,
    /// 1 byte: 0 false, 1 true, 2 null.
    Bool = 11,
    /// 4 bytes: 0 null, a symbol id, or the top bit and the length of an inline text.
    Symbol = 12,
    /// 1-byte length; the bytes lie in the variable area.
    ShortText = 13,
    /// 2-byte length; the bytes lie in the variable area.
    Text = 14,
    /// 4-byte length; the bytes lie in the variable area.
    LongText = 15,
    /// 4-byte length; the bytes are a JSON value.
    Json = 16,
    /// Nanoseconds, 8 bytes unsigned; written as milliseconds.
    DurationMs = 17,
}

impl FieldKind {
    /// The kind with this number in a file.
    pub const fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::U8,
            2 => Self::U16,
            3 => Self::U32,
            4 => Self::U64,
            5 => Self::I8,
            6 => Self::I16,
            7 => Self::I32,
            8 => Self::I64,
            9 => Self::F32,
            10 => Self::F64,
            11 => Self::Bool,
            12 => Self::Symbol,
            13 => Self::ShortText,
            14 => Self::Text,
            15 => Self::LongText,
            16 => Self::Json,
            17 => Self::DurationMs,
            _ => return None,
        })
    }

    /// Bytes of the slot in the fixed part. An optional integer has one byte more, before it.
    pub const fn slot_bytes(self, optional: bool) -> usize {
        let bytes = match self {
            Self::U8 | Self::I8 | Self::Bool | Self::ShortText => 1,
            Self::U16 | Self::I16 | Self::Text => 2,
            Self::U32 | Self::I32 | Self::F32 | Self::Symbol | Self::LongText | Self::Json => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::DurationMs => 8,
        };
        bytes + (optional && self.is_integer()) as usize
    }

    /// Whether the kind is a duration.
    pub const fn is_duration(self) -> bool {
        matches!(self, Self::DurationMs)
    }

    /// Whether the kind is a symbol.
    pub const fn is_symbol(self) -> bool {
        matches!(self, Self::Symbol)
    }

    /// Whether the kind is one of the integers.
    pub const fn is_integer(self) -> bool {
        (self as u8) <= (Self::I64 as u8)
    }
}

/// Type of a field with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldType {
    /// What the slot holds.
    pub kind: FieldKind,
    /// Whether null is a value.
    pub optional: bool,
    /// Digits after the point of a duration, 0..=6; 0 = whole milliseconds, cut like Go's.
    pub decimals: u8,
    /// The longest text in bytes; 0 where the kind has no variable part.
    pub bytes_max: u32,
}

/// One field of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDef {
    /// Name in the JSON line.
    pub name: &'static str,
    /// Type of the slot.
    pub field_type: FieldType,
    /// Offset of the slot in the fixed part, in bytes.
    pub offset: u16,
}

/// A schema as [`record!`](crate::record!) declares it.
#[derive(Debug)]
pub struct SchemaDef {
    /// Name of the record type.
    pub name: &'static str,
    /// Category, `[a-z0-9_]{1,64}`.
    pub category: &'static str,
    /// Whether records may be sampled.
    pub keep: KeepClass,
    /// Fields in the order of the JSON line.
    pub fields: &'static [FieldDef],
    /// Length of the fixed part in bytes.
    pub fixed_bytes: u16,
    /// Index of the field that correlates records of one operation.
    pub key: Option<u16>,
    /// [`PackedIds`].
    ids: AtomicU32,
}

/// Ids that only `session` and `custom` may use, without which a session could not even say that
/// ids ran out.
const SCHEMAS_KEPT_BACK: usize = 16;

/// Process-wide ids of a schema and its category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds {
    /// 1..[`SCHEMAS_MAX`].
    pub schema: u16,
    /// Index of the category.
    pub category: u8,
}

static SCHEMAS: [StaticSlot<SchemaDef>; SCHEMAS_MAX] = [const { StaticSlot::new() }; SCHEMAS_MAX];
static SCHEMAS_NEXT: AtomicU32 = AtomicU32::new(1);
static CATEGORIES: [StaticSlot<&'static str>; CATEGORIES_MAX] =
    [const { StaticSlot::new() }; CATEGORIES_MAX];

impl SchemaDef {
    /// A schema without ids. Checked when it is evaluated in a constant.
    ///
    /// # Panics
    /// When the category name is not `[a-z0-9_]{1,64}`, a field name is empty or stands twice, or
    /// the slots do not lie one behind the other in `fixed_bytes`.
    pub const fn new(
        name: &'static str,
        category: &'static str,
        keep: KeepClass,
        fields: &'static [FieldDef],
        fixed_bytes: usize,
        key: Option<u16>,
    ) -> Self {
        assert!(
            is_category_name(category),
            "a category name has 1 to 64 characters of a-z, 0-9 and _"
        );
        assert!(fields.len() <= 255, "a schema has at most 255 fields");
        assert!(fixed_bytes <= 8192, "the fixed part is at most 8 KiB");
        let mut index = 0;
        let mut offset = 0;
        while index < fields.len() {
            let field = &fields[index];
            assert!(
                !field.name.is_empty() && field.name.len() <= 255,
                "1 to 255 bytes of name"
            );
            assert!(
                field.field_type.decimals <= 6,
                "a duration has 0 to 6 decimals"
            );
            assert!(
                field.offset as usize == offset,
                "slots lie one behind the other"
            );
            offset += field.field_type.kind.slot_bytes(field.field_type.optional);
            let mut other = 0;
            while other < index {
                assert!(
                    !same_text(field.name, fields[other].name),
                    "a field name stands twice"
                );
                other += 1;
            }
            index += 1;
        }
        assert!(offset == fixed_bytes, "the slots fill the fixed part");
        if let Some(key) = key {
            assert!(
                (key as usize) < fields.len(),
                "the key is a field of the schema"
            );
        }
        Self {
            name,
            category,
            keep,
            fields,
            fixed_bytes: fixed_bytes as u16,
            key,
            ids: AtomicU32::new(0),
        }
    }

    /// Whether the schema has no fields: all values of its records are extra fields.
    pub const fn is_open(&self) -> bool {
        self.fields.is_empty()
    }

    /// The ids; the first call of the process assigns them. `None` when the process has used up
    /// its schema or category ids.
    #[inline]
    pub fn ids(&'static self) -> Option<SchemaIds> {
        // Relaxed: the ids alone; whoever needs the definition goes through `schema`, which
        // publishes it.
        match self.ids.load(Relaxed) {
            0 => self.assign(),
            ids => Some(unpack(PackedIds::from_word(ids))),
        }
    }

    /// The ids without assigning any. One load.
    #[inline(always)]
    pub(crate) fn packed_ids(&self) -> PackedIds {
        PackedIds::from_word(self.ids.load(Relaxed))
    }

    #[cold]
    fn assign(&'static self) -> Option<SchemaIds> {
        let category = category_intern(&self.category)?;
        let kept_back = if category <= CATEGORY_CUSTOM {
            0
        } else {
            SCHEMAS_KEPT_BACK
        };
        let end = (SCHEMAS_MAX - kept_back) as u32;
        // Relaxed: a ticket counter. Two threads that race on one schema waste one id.
        let schema = SCHEMAS_NEXT
            .fetch_update(Relaxed, Relaxed, |next| (next < end).then_some(next + 1))
            .ok()?;
        SCHEMAS[schema as usize].set(self);
        let ids = PackedIds::new(schema, category);
        match self.ids.compare_exchange(0, ids.word(), Relaxed, Relaxed) {
            Ok(_) => Some(unpack(ids)),
            Err(first) => Some(unpack(PackedIds::from_word(first))),
        }
    }
}

fn unpack(ids: PackedIds) -> SchemaIds {
    SchemaIds {
        schema: ids.schema(),
        category: ids.category(),
    }
}

/// The schema with this id in this process.
pub fn schema(id: u16) -> Option<&'static SchemaDef> {
    SCHEMAS.get(id as usize)?.get()
}

/// How many schema ids were handed out: ids are below this.
pub fn schemas_end() -> u16 {
    SCHEMAS_NEXT.load(Relaxed).min(SCHEMAS_MAX as u32) as u16
}

/// The name of a category of this process.
pub fn category_name(id: u8) -> Option<&'static str> {
    match CATEGORIES_BUILTIN.get(id as usize) {
        Some(name) => Some(name),
        None => CATEGORIES[id as usize].get().copied(),
    }
}

/// The id of a category name, if it has one.
pub fn category_id(name: &str) -> Option<u8> {
    (0..=u8::MAX)
        .map_while(|id| Some((id, category_name(id)?)))
        .find(|(_, n)| *n == name)
        .map(|c| c.0)
}

/// Gives a category an id. `None` when all are taken.
fn category_intern(name: &'static &'static str) -> Option<u8> {
    if let Some(id) = category_id(name) {
        return Some(id);
    }
    (CATEGORIES_BUILTIN.len()..CATEGORIES_MAX)
        .find(|index| CATEGORIES[*index].set(name) == name)
        .map(|index| index as u8)
}

/// Whether every category id is taken.
pub(crate) fn categories_full() -> bool {
    CATEGORIES[CATEGORIES_MAX - 1].get().is_some()
}

/// Whether `name` can be a category: `[a-z0-9_]{1,64}`. Such a name is safe as a part of a file
/// name.
pub const fn is_category_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        index += 1;
    }
    !bytes.is_empty() && bytes.len() <= CATEGORY_BYTES_MAX
}

pub(super) const fn same_text(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn category_names_cannot_be_paths() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "a-b",
            "x/../../e",
            "a\0",
            &"a".repeat(65),
        ] {
            assert!(!is_category_name(name), "{name:?}");
        }
        assert!(is_category_name("vpn_2"));
        assert!(is_category_name(&"a".repeat(64)));
    }

    #[test]
    fn ids_are_given_once() {
        static A: SchemaDef = SchemaDef::new("a", "schema_test", KeepClass::Sampled, &[], 0, None);
        static B: SchemaDef = SchemaDef::new("b", "schema_test", KeepClass::Sampled, &[], 0, None);
        let a = A.ids().unwrap();
        let b = B.ids().unwrap();
        assert_eq!(A.ids(), Some(a));
        assert_ne!(a.schema, b.schema);
        assert_eq!(a.category, b.category);
        assert_eq!(category_name(a.category), Some("schema_test"));
        assert_eq!(schema(b.schema).unwrap().name, "b");
    }

    #[test]
    fn built_in_categories_have_fixed_ids() {
        assert_eq!(category_id("session"), Some(CATEGORY_SESSION));
        assert_eq!(category_id("custom"), Some(CATEGORY_CUSTOM));
        assert_eq!(category_name(15), Some("database"));
    }
}
