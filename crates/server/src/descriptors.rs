//! File descriptors of the process: raises their limit, and says how many of them connections may have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that connections leave for databases, tenants' files and commands.
const KEPT: usize = 512;

/// Raises the soft limit of open files to the hard limit. Returns the most connections that leave enough descriptors for
/// everything else, each of which may have a file open besides; at least one.
pub fn raise() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit = raised;
    }
    let most = limit.current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    (most.saturating_sub(KEPT.min(most / 2)) / 2).max(1)
}
