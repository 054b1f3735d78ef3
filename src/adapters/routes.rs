//! Which category a target belongs to.

use crate::record::Category;

/// Targets and the categories of their records.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    /// Longer targets first.
    by_target: Vec<(String, Category)>,
    errors: Category,
}

/// Built in: whose records have a category of their own.
const KNOWN: [(&str, &str); 2] = [("tower_http", "requests"), ("sqlx", "database")];

impl Routes {
    pub(super) fn new() -> Self {
        let mut routes = Self {
            by_target: Vec::new(),
            errors: named("errors"),
        };
        for (target, category) in KNOWN {
            routes.add(target, named(category));
        }
        routes
    }

    /// From now on, of a target that is `target` or lies below it.
    pub(super) fn add(&mut self, target: &str, category: Category) {
        self.by_target.retain(|(known, _)| known != target);
        self.by_target.push((target.to_owned(), category));
        self.by_target
            .sort_by_key(|(known, _)| usize::MAX - known.len());
    }

    /// The category of a record. Errors are in `errors`, whatever their target: nothing there is
    /// ever left out.
    pub(super) fn of(&self, target: &str, is_error: bool) -> Category {
        if is_error {
            return self.errors;
        }
        let is_below = |known: &str| {
            let rest = target.strip_prefix(known);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let found = self.by_target.iter().find(|(known, _)| is_below(known));
        found.map_or_else(Category::custom, |(_, category)| *category)
    }
}

/// A built-in category.
fn named(name: &str) -> Category {
    Category::named(name).unwrap_or_else(Category::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_lead_to_categories() {
        let mut routes = Routes::new();
        routes.add("app", named("streams"));
        routes.add("app::vpn", named("vpn"));
        routes.add("app::vpn", named("health"));
        let name = |target, is_error| routes.of(target, is_error).name();
        assert_eq!(name("tower_http::trace::on_response", false), "requests");
        assert_eq!(name("sqlx::query", false), "database");
        assert_eq!(name("sqlx", false), "database");
        assert_eq!(name("sqlx_like", false), "custom");
        assert_eq!(name("sqlx::query", true), "errors");
        assert_eq!(name("app::vpn::check", false), "health");
        assert_eq!(name("app::vpns", false), "streams");
        assert_eq!(name("", false), "custom");
    }
}
