//! The options that say what is kept out of lines.

use crate::redact::Rules;

/// Options of the commands that make lines, or compare them.
#[derive(Debug, clap::Args)]
pub struct Redaction {
    /// Keep secrets out of the lines, also of a session that was recorded without this.
    #[arg(long, overrides_with = "no_redact")]
    redact: bool,
    /// Write every value as it was recorded.
    #[arg(long)]
    no_redact: bool,
    /// A further name of fields with secrets; can be given more than once.
    #[arg(long, value_name = "NAME")]
    redact_name: Vec<String>,
    /// A further regular expression for secrets in texts; can be given more than once.
    #[arg(long, value_name = "REGEX")]
    redact_pattern: Vec<String>,
    /// A built-in name or look that is no secret here; can be given more than once.
    #[arg(long, value_name = "NAME")]
    redact_keep: Vec<String>,
}

impl Redaction {
    /// What is to be added to the rules of each session; `None` when nothing is.
    ///
    /// # Errors
    /// When a name or a pattern is not one.
    pub fn rules(&self) -> anyhow::Result<Option<Rules>> {
        let rules = Rules {
            on: !self.no_redact,
            names: self.redact_name.clone(),
            patterns: self.redact_pattern.clone(),
            keep: self.redact_keep.clone(),
        };
        rules.check()?;
        let asked = self.redact || rules != Rules::default();
        Ok(asked.then_some(rules))
    }
}
