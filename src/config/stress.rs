//! Settings of stress rules.

use std::path::PathBuf;
use std::time::Duration;

use super::bad;
use crate::error::Error;
use crate::stress::StressSettings;

/// Longest time that a container may have to start.
const STARTUP_TIMEOUT_MAX: f64 = 86_400.0;
const REMEDY: &str = "give a number of seconds above 0, at most 86400, such as 25";

/// `25`, `0.5`; nothing means the default.
pub(super) fn parse_timeout(
    settings: &mut StressSettings,
    name: &str,
    value: &str,
) -> Result<(), Error> {
    let text = value.trim();
    if text.is_empty() {
        return Ok(());
    }
    let seconds: f64 = text.parse().map_err(|_| bad(name, value, REMEDY))?;
    settings.startup_timeout = seconds_of(seconds).ok_or_else(|| bad(name, value, REMEDY))?;
    Ok(())
}

fn seconds_of(seconds: f64) -> Option<Duration> {
    let good = seconds > 0.0 && seconds <= STARTUP_TIMEOUT_MAX;
    good.then(|| Duration::from_secs_f64(seconds))
        .filter(|timeout| !timeout.is_zero())
}

/// Nothing means no file.
pub(super) fn parse_path(value: &str) -> Option<PathBuf> {
    (!value.trim().is_empty()).then(|| PathBuf::from(value))
}

/// As `session_start` has it: no file, or one.
pub(super) fn files_json(settings: &StressSettings) -> Vec<String> {
    let file = settings.file.iter();
    file.map(|file| file.display().to_string()).collect()
}

pub(super) fn validate(settings: &StressSettings) -> Result<(), Error> {
    let seconds = settings.startup_timeout.as_secs_f64();
    if seconds_of(seconds).is_none() {
        return Err(bad("startup_timeout", &seconds.to_string(), REMEDY));
    }
    settings.rules().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_a_number_of_seconds() {
        let mut settings = StressSettings::default();
        parse_timeout(&mut settings, "STARTUP_TIMEOUT_S", " 12.5 ").unwrap();
        assert_eq!(settings.startup_timeout, Duration::from_millis(12_500));
        parse_timeout(&mut settings, "STARTUP_TIMEOUT_S", "").unwrap();
        assert_eq!(settings.startup_timeout, Duration::from_millis(12_500));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "25s", "1e-12"] {
            let error = parse_timeout(&mut settings, "STARTUP_TIMEOUT_S", wrong).unwrap_err();
            let expected = format!("STARTUP_TIMEOUT_S={wrong}: {REMEDY}");
            assert_eq!(error.to_string(), expected);
        }
        settings.startup_timeout = Duration::ZERO;
        assert!(validate(&settings).is_err());
    }
}
