//! The check `systemd` of `cargo xtask test`: systemd finds no fault in the unit of `tenantry serve`, and few rights that
//! it leaves to the server. Needs no running systemd, and the server need not be installed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::cargo;

/// The unit.
const UNIT: &str = "packaging/systemd/tenantry.service";
/// The first systemd that checks a unit which is not loaded.
const OLDEST: u32 = 250;
/// The program of the unit, and one of every machine with systemd: `verify` rejects a program that does not exist.
const PROGRAM: &str = "ExecStart=/usr/local/bin/tenantry ";
const PRESENT_PROGRAM: &str = "ExecStart=/bin/sh ";

/// Checks the unit; true when systemd accepts it.
pub fn check() -> Result<bool, String> {
    let unit = std::fs::read_to_string(UNIT).map_err(|error| format!("cannot read {UNIT}: {error}"))?;
    let copy = write_copy(&with_present_program(&unit)?)?;
    // Without `--recursive-errors` a misspelt key is a warning, and no failure.
    let valid = accepts(analyze("verify").args(["--man=no", "--recursive-errors=no"]).arg(copy))?;
    // The exposure that systemd computes is 0 for no rights and 100 for all.
    let restricted = accepts(analyze("security").args(["--offline=true", "--threshold=20", UNIT]))?;
    Ok(valid && restricted)
}

/// Why this machine cannot check the unit; none if it can.
pub fn missing() -> Option<String> {
    let output = Command::new("systemd-analyze").arg("--version").stdin(Stdio::null()).output();
    match output.ok().and_then(|output| version(&String::from_utf8_lossy(&output.stdout))) {
        None => Some("systemd-analyze is not installed".to_owned()),
        Some(found) if found < OLDEST => {
            Some(format!("systemd {OLDEST} or later is needed, and this machine has {found}"))
        }
        Some(_) => None,
    }
}

/// `252` of `systemd 252 (252.38-1~deb12u1)`.
fn version(text: &str) -> Option<u32> {
    let version = text.strip_prefix("systemd ")?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// The unit with a program that exists on this machine.
fn with_present_program(unit: &str) -> Result<String, String> {
    if unit.contains(PROGRAM) {
        Ok(unit.replacen(PROGRAM, PRESENT_PROGRAM, 1))
    } else {
        Err(format!("{UNIT} has no line that begins with `{PROGRAM}`"))
    }
}

/// Writes a unit of the same name into the target folder.
fn write_copy(unit: &str) -> Result<PathBuf, String> {
    let folder = cargo::target_directory().join("xtask-systemd");
    let file = folder.join("tenantry.service");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&file, unit))
        .map(|()| file)
        .map_err(|error| format!("cannot write to {}: {error}", folder.display()))
}

fn analyze(command: &str) -> Command {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args([command, "--no-pager"]).stdin(Stdio::null());
    analyze
}

/// Runs a command, and prints its output if it fails; true when it succeeds.
fn accepts(command: &mut Command) -> Result<bool, String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !output.status.success() {
        for text in [&output.stdout, &output.stderr] {
            print!("{}", String::from_utf8_lossy(text));
        }
    }
    Ok(output.status.success())
}

#[cfg(test)]
mod tests {
    use super::{PROGRAM, version, with_present_program};

    #[test]
    fn reads_the_version_of_systemd() {
        assert_eq!(version("systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT\n"), Some(252));
        assert_eq!(version("systemd 249\n"), Some(249));
        assert_eq!(version("systemd-analyze: command not found"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_copy_differs_in_its_program_only() {
        let unit = format!("[Service]\nUser=tenantry\n{PROGRAM}serve\nUMask=0077\n");
        let copy = "[Service]\nUser=tenantry\nExecStart=/bin/sh serve\nUMask=0077\n";
        assert_eq!(with_present_program(&unit).unwrap(), copy);
        assert!(with_present_program("[Service]\nExecStart=/usr/bin/other\n").is_err());
    }
}
