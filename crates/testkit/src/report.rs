//! Lines for the report at the end of a full test run, such as the number of cases of a suite.

use std::io::Write;

/// Prints a line, and appends it to the report if `TENANTRY_REPORT_FILE` is set.
pub fn add(line: &str) {
    let line = format!("{line}\n");
    print!("{line}");
    let Some(path) = std::env::var_os("TENANTRY_REPORT_FILE") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    // One write of one line: tests of several processes append to the same file.
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot write the report: {error}");
    }
}
