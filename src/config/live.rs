//! The settings `live` and `line_sync`.

use super::{Settings, bad};
use crate::error::Error;

impl Settings {
    pub(super) fn check_live(&self) -> Result<(), Error> {
        if self.line_sync && !self.live {
            let remedy = "a push can wait for its line only where live is on";
            return Err(bad("line_sync", "true", remedy));
        }
        Ok(())
    }
}
