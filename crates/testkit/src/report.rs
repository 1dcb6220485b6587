//! Lines for the report that a full test run ends with: how many cases a suite has tried.

use std::io::Write;

/// Adds a line, if the run collects them; prints it in any case.
pub fn add(line: &str) {
    let line = format!("{line}\n");
    print!("{line}");
    let Some(path) = std::env::var_os("TENANTRY_REPORT_FILE") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    // One write of one line: tests of several processes append to the same file.
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("the report is lost: {error}");
    }
}
