//! Which rules a session has.

use std::path::PathBuf;
use std::time::Duration;

use super::builtin::STARTUP_TIMEOUT;
use super::check::RuleError;
use super::rule::RuleSet;
use crate::error::Error;

/// The settings of stress rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StressSettings {
    /// Whether there are any.
    pub(crate) on: bool,
    /// A file with further rules, or changes of built-in ones.
    pub(crate) file: Option<PathBuf>,
    /// What the rules for starts of containers are parts of.
    pub(crate) startup_timeout: Duration,
    /// Names of rules that are switched off.
    pub(crate) rules_off: Vec<String>,
    /// Names of rules that are switched on.
    pub(crate) rules_on: Vec<String>,
}

impl Default for StressSettings {
    fn default() -> Self {
        Self {
            on: false,
            file: None,
            startup_timeout: STARTUP_TIMEOUT,
            rules_off: Vec::new(),
            rules_on: Vec::new(),
        }
    }
}

impl StressSettings {
    /// The rules; `None` when there are to be none.
    pub(crate) fn rules(&self) -> Result<Option<RuleSet>, Error> {
        if !self.on {
            return Ok(None);
        }
        let mut set = RuleSet::builtin(self.startup_timeout);
        if let Some(file) = &self.file {
            set.add_file(file)?;
        }
        for (names, on) in [(&self.rules_off, false), (&self.rules_on, true)] {
            for name in names {
                let rule = set.rules.iter_mut().find(|rule| rule.name == *name);
                let Some(rule) = rule else {
                    return Err(no_such_rule(on, name));
                };
                rule.on = on;
            }
        }
        set.validate().map_err(|error| self.refuse(&error))?;
        // The bounds of categories are known when the rules are put together.
        super::compile::compile(&set).map_err(|error| self.refuse(&error))?;
        Ok(Some(set))
    }
}

impl StressSettings {
    /// A rule that cannot be, as an error.
    pub(crate) fn refuse(&self, error: &RuleError) -> Error {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        Error::Setting {
            name: "stress_rules".to_owned(),
            value: file.unwrap_or_else(|| error.rule.clone()),
            remedy: error.to_string(),
        }
    }
}

fn no_such_rule(on: bool, name: &str) -> Error {
    let setting = if on { "stress_on" } else { "stress_off" };
    Error::Setting {
        name: setting.to_owned(),
        value: name.to_owned(),
        remedy: "there is no such rule; docs/DEBUG_MODE.md lists the built-in ones".to_owned(),
    }
}

#[cfg(not(feature = "rules"))]
impl RuleSet {
    /// Adds the rules of a TOML file.
    ///
    /// # Errors
    /// Always: this build cannot read TOML.
    pub fn add_file(&mut self, path: &std::path::Path) -> Result<(), Error> {
        Err(Error::Setting {
            name: "stress_rules".to_owned(),
            value: path.display().to_string(),
            remedy: "this build cannot read files of rules: build it with the feature `rules`"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_switched_by_name() {
        let settings = StressSettings {
            on: true,
            rules_off: vec!["slow_query".to_owned()],
            rules_on: vec!["slow_get_request".to_owned()],
            ..StressSettings::default()
        };
        let set = settings.rules().unwrap().unwrap();
        let on = |name: &str| set.rules.iter().any(|rule| rule.name == name && rule.on);
        assert!(!on("slow_query") && on("slow_get_request") && !on("slow_static_request"));
        assert_eq!(StressSettings::default().rules().unwrap(), None);
        let unknown = StressSettings {
            rules_off: vec!["slow_qery".to_owned()],
            ..settings
        };
        let error = unknown.rules().unwrap_err().to_string();
        assert!(
            error.starts_with("stress_off=slow_qery: there is no such rule"),
            "{error}"
        );
    }

    #[cfg(not(feature = "rules"))]
    #[test]
    fn a_lean_build_says_what_it_needs() {
        let settings = StressSettings {
            on: true,
            file: Some("rules.toml".into()),
            ..StressSettings::default()
        };
        let error = settings.rules().unwrap_err().to_string();
        assert!(
            error.ends_with("build it with the feature `rules`"),
            "{error}"
        );
    }
}
