//! Settings without a session, for tests and fuzzing.

use super::Settings;
use crate::error::Error;

/// The settings that these environment variables give, as `session_start` carries them. For tests
/// and fuzzing: `Session::builder_from_env` does the same with those of the process.
///
/// # Errors
/// [`Error::Setting`].
#[doc(hidden)]
pub fn check_settings(
    vars: impl Iterator<Item = (String, String)>,
) -> Result<serde_json::Value, Error> {
    let settings = Settings::from_vars(vars)?;
    settings.validate()?;
    Ok(settings.to_json())
}
