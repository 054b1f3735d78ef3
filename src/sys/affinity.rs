//! Pinning the writer to a core.

use crate::config::WriterCore;

/// Pins the calling thread as asked and says in a few words what it did, for `session_start`.
pub(crate) fn pin(wanted: WriterCore) -> String {
    let allowed = match core_affinity::get_core_ids() {
        Some(cores) if !cores.is_empty() && !cfg!(miri) => cores,
        _ => return "not pinned: the cores of this process are not known".to_owned(),
    };
    let core = match wanted {
        WriterCore::Off => return "not pinned: switched off".to_owned(),
        WriterCore::Auto if allowed.len() < 2 => {
            return "not pinned: the process has one core only".to_owned();
        }
        WriterCore::Auto => allowed.last(),
        WriterCore::Core(id) => allowed.iter().find(|core| core.id == id),
    };
    match core {
        Some(core) if core_affinity::set_for_current(*core) => format!("core {}", core.id),
        Some(core) => format!("not pinned: the kernel refused core {}", core.id),
        None => format!("not pinned: this process may not use the core asked for ({wanted:?})"),
    }
}
