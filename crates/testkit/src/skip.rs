//! Skipped tests: reported with a reason and the command that installs what is missing, so that none counts
//! as passed.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Reports a skipped test. `TENANTRY_SKIP_FILE` names the file that the test run collects (one line each).
pub fn skip(suite: &str, reason: &str, command: &str) {
    eprintln!("SKIPPED {suite}: {reason}; to run it: {command}");
    let Some(path) = std::env::var_os("TENANTRY_SKIP_FILE") else { return };
    let line = format!("{suite}\t{reason}\t{command}\n");
    // One write of one line: tests of several processes append to the same file.
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot write the skip file {}: {error}", path.display());
    }
}
