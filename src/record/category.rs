//! Categories named at run time: open records without a schema of their own.

use super::schema::{
    KeepClass, SchemaDef, categories_full, category_id, category_name, is_category_name, schema,
    schemas_end,
};

/// A category for open records, whose values are all extra fields.
///
/// Copy it and keep it: looking it up by name is cold.
#[derive(Clone, Copy, Debug)]
pub struct Category {
    schema: &'static SchemaDef,
}

/// Categories whose open records, and whose built-in record types, are `Always`.
pub const CATEGORIES_ALWAYS: [&str; 3] = ["session", "stress", "errors"];

static CUSTOM: SchemaDef = SchemaDef::new("custom", "custom", KeepClass::Sampled, &[], 0, None);

impl Category {
    /// The category `name`. Stays in memory until the process ends; for names, not for data.
    ///
    /// `None` when `name` is not `[a-z0-9_]{1,64}` or the process has no ids left: use
    /// [`Category::custom`] then and keep the name in a field.
    pub fn named(name: &str) -> Option<Self> {
        if !is_category_name(name) {
            return None;
        }
        let known = (1..schemas_end()).filter_map(schema);
        let open = known
            .into_iter()
            .find(|def| def.is_open() && def.category == name);
        if open.is_none() && category_id(name).is_none() && categories_full() {
            return None;
        }
        let schema = open.unwrap_or_else(|| {
            let name: &'static str = String::leak(name.to_owned());
            let always = CATEGORIES_ALWAYS.contains(&name);
            let keep = if always {
                KeepClass::Always
            } else {
                KeepClass::Sampled
            };
            Box::leak(Box::new(SchemaDef::new(name, name, keep, &[], 0, None)))
        });
        let ids = schema.ids()?;
        debug_assert_eq!(category_name(ids.category), Some(name));
        Some(Self { schema })
    }

    /// The category `custom`, which always exists.
    pub fn custom() -> Self {
        Self { schema: &CUSTOM }
    }

    /// Its name.
    #[expect(clippy::misnamed_getters, reason = "the schema's own name is the same")]
    pub fn name(self) -> &'static str {
        self.schema.category
    }

    /// The schema without fields behind it.
    pub(crate) fn schema(self) -> &'static SchemaDef {
        self.schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_category() {
        let a = Category::named("category_test").unwrap();
        let b = Category::named("category_test").unwrap();
        assert!(std::ptr::eq(a.schema(), b.schema()));
        assert_eq!(a.name(), "category_test");
        assert!(Category::named("x/../../e").is_none());
        assert_eq!(
            Category::named("errors").unwrap().schema().keep,
            KeepClass::Always
        );
        assert_eq!(Category::named("custom").unwrap().name(), "custom");
    }
}
