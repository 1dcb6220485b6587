//! `cargo xtask tidy`: the rules of this repository that no compiler checks. Every finding names the place,
//! the rule and the fix. A rule is a pure function from the text of files to findings, with a test that
//! shows it firing; only this file reads the disk.

mod arrows;
mod code;
mod packages;
mod rust;
mod text;

use std::path::Path;
use std::process::{ExitCode, Stdio};

use crate::{Error, cargo, phase, usage};

/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 2] = ["target", ".git"];

/// A text file of the repository.
struct File {
    /// Relative to the root, with `/` between the parts.
    path: String,
    text: String,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    rule: &'static str,
    fix: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, fix: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, fix: fix.into() }
    }
}

/// Entry point of the command.
pub fn run(arguments: &[String]) -> Result<ExitCode, Error> {
    if !arguments.is_empty() {
        return Err(usage("tidy takes no arguments"));
    }
    Ok(if phase::run("tidy", check) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// True when no rule is broken; prints what is.
pub fn check() -> Result<bool, String> {
    let mut files = Vec::new();
    read_folder(Path::new("."), &mut files)?;
    let mut findings = findings(&files);
    findings.extend(packages::check(&package_tree()?));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{}:{}: {}; {}", finding.path, finding.line, finding.rule, finding.fix);
    }
    println!("    {} files, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

fn findings(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        .flat_map(|file| [text::check(file), code::check(file), arrows::check(file)])
        .flatten()
        .collect()
}

/// Collects text files; what is not UTF-8 is no text, and links are followed by nobody.
fn read_folder(folder: &Path, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut entries =
        std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        let path = entry.path();
        if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            read_folder(&path, files)?;
        } else if kind.is_file() {
            // A file that went away in between, such as an editor's, is none of ours.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let path = path.to_string_lossy().trim_start_matches("./").to_owned();
            files.push(File { path, text });
        }
    }
    Ok(())
}

/// Every package that a build of this workspace compiles, one per line. Cargo.lock would be the wrong
/// place to look: it also lists optional packages that no build takes.
fn package_tree() -> Result<String, String> {
    let tree = ["tree", "--workspace", "--quiet", "--prefix", "none", "--format", "{p}"];
    let output = cargo::command(&tree)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run cargo tree: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
impl File {
    /// A file for a test of a rule.
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// `line: rule` of each finding, for the tests of the rules.
#[cfg(test)]
fn short(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
}

#[cfg(test)]
mod tests {
    use super::{File, findings, short};

    #[test]
    fn a_tidy_file_breaks_no_rule() {
        let text = "//! Owns one thing.\n\n/// Says it.\nfn say() -> &'static str {\n    \"it\"\n}\n";
        assert_eq!(short(&findings(&[File::new("crates/model/src/say.rs", text)])), [""; 0]);
    }

    #[test]
    fn every_family_of_rules_is_asked() {
        let files = [
            File::new("crates/model/src/helpers.rs", "//! Owns.\nfn f() {} \nfn g() { unsafe {} }\n"),
            File::new("crates/model/Cargo.toml", "[dependencies]\ntenantry-engine.workspace = true\n"),
        ];
        assert_eq!(findings(&files).len(), 4);
    }
}
