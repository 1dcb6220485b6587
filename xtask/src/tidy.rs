//! `cargo xtask tidy`: the rules of this repository that no compiler checks. Each finding names the place,
//! the rule and the fix. A rule is a pure function from the text of files to findings, with a test that shows
//! it firing; only this file reads the disk.

mod allowance;
mod arrows;
mod code;
mod codes;
mod cycles;
mod handle;
mod packages;
mod rust;
mod sql;
mod strings;
mod text;
mod words;

use std::path::Path;
use std::process::{ExitCode, Stdio};

use self::allowance::Allowances;
use crate::{Error, cargo, phase, usage};

/// Folders that no rule reads; `.git` is a file in a second work tree.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// A text file of the repository.
struct File {
    /// Relative to the root, with `/` between the parts.
    path: String,
    text: String,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let passed = match arguments {
        [] => phase::run("tidy", check),
        [option] if option == "--lower" => phase::run("tidy --lower", lower),
        _ => return Err(usage("tidy takes --lower, or no argument")),
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints every broken rule; true when there is none.
pub fn check() -> Result<bool, String> {
    let files = read_all()?;
    let (mut findings, _) = findings(&files, &package_tree()?);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{}:{}: {}; {}", finding.path, finding.line, finding.rule, finding.fix);
    }
    println!("    {} files, {} findings", files.len(), findings.len());
    Ok(findings.is_empty())
}

/// Lowers each allowance to the number of findings.
fn lower() -> Result<bool, String> {
    let (_, allowances) = findings(&read_all()?, &package_tree()?);
    let written = std::fs::write(allowance::FILE, allowances.lowered());
    written.map(|()| true).map_err(|error| format!("cannot write {}: {error}", allowance::FILE))
}

/// The findings of every rule that are not allowed, and the allowances with what they cover.
fn findings(files: &[File], package_tree: &str) -> (Vec<Finding>, Allowances) {
    let each = |rule: fn(&File) -> Vec<Finding>| files.iter().flat_map(rule).collect::<Vec<_>>();
    let mut findings = [text::check, code::check].map(each).concat();
    findings.extend(packages::check(package_tree));
    findings.extend(codes::check(files));
    let mut allowances = Allowances::read(files);
    for (rule, found) in [
        ("arrows", each(arrows::check)),
        ("words", each(words::check)),
        ("sql", each(sql::check)),
        ("kinds", each(strings::check)),
        ("handle", each(handle::check)),
        ("modules", cycles::modules(files)),
        ("cycles", cycles::cycles(files)),
        ("layers", cycles::layers(files)),
        ("duplicates", packages::duplicates(package_tree)),
    ] {
        findings.extend(allowances.apply(rule, found));
    }
    findings.extend(allowances.check());
    (findings, allowances)
}

fn read_all() -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    read_folder(Path::new("."), &mut files)?;
    Ok(files)
}

/// Collects the UTF-8 files below a folder; links are not followed.
fn read_folder(folder: &Path, files: &mut Vec<File>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut entries =
        std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        let path = entry.path();
        if SKIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if kind.is_dir() {
            read_folder(&path, files)?;
        } else if kind.is_file() {
            // An editor may have removed its temporary file in between.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let path = path.to_string_lossy().trim_start_matches("./").to_owned();
            files.push(File { path, text });
        }
    }
    Ok(())
}

/// Every package that a build of this workspace compiles, one per line. Cargo.lock also lists optional
/// packages that no build takes.
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

    const TIDY: &str = "//! Owns one thing.\n\n/// Says it.\nfn say() -> &'static str {\n    \"it\"\n}\n";

    #[test]
    fn a_tidy_file_breaks_no_rule() {
        let (found, _) = findings(&[File::new("crates/model/src/say.rs", TIDY)], "serde v1.0.0\n");
        assert_eq!(short(&found), [""; 0]);
    }

    #[test]
    fn every_rule_is_asked() {
        let control = |name: &str, text: &str| File::new(&format!("crates/control/src/{name}"), text);
        let mut files = vec![
            File::new("crates/model/src/helpers.rs", "//! Owns.\nfn f() {} \nfn g() { unsafe {} }\n"),
            File::new("crates/model/Cargo.toml", "[dependencies]\ntenantry-engine.workspace = true\n"),
            File::new("a.md", &format!("{}body knows\n", "No")),
            control("operations/mod.rs", "//! Owns.\nuse crate::resource;\n"),
            control("resource/mod.rs", "//! Owns.\nuse crate::operations;\n"),
            control("sql.rs", "//! Owns.\nconst A: &str = \"SELECT 1\";\n"),
            control("kind.rs", "//! Owns.\nfn f(kind: &str) -> bool { kind == \"repair\" }\n"),
            control("handle.rs", "//! Owns.\nuse tenantry_provider::Provider;\n"),
        ];
        files.extend((10..21).map(|number| control(&format!("m{number}.rs"), "//! Owns.\n")));
        let (found, _) = findings(&files, "ring v0.17.14\na v1.0.0\na v2.0.0\n");
        let mut rules: Vec<&str> = found.iter().map(|finding| finding.rule).collect();
        rules.sort_unstable();
        assert_eq!(
            rules,
            [
                "SQL outside the database crates",
                "a decision by the name of a kind",
                "a forbidden dependency",
                "a name without a meaning",
                "a package in several versions",
                "a provider without its handle",
                "a second TLS crypto library",
                "a word that this tree does not use",
                "an import against the layers",
                "an import cycle",
                "an import cycle",
                "too many modules at the root",
                "unsafe code",
                "white space at the end of a line",
            ]
        );
    }
}
