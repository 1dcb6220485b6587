//! Rules for every text file: its name, its white space, and no path or registry of one machine.

use super::{File, Finding};

/// Names that do not state what a file owns.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];

/// Files written by hand; snapshots keep the white space of a program's output.
const WRITTEN: [&str; 10] = [".rs", ".toml", ".yaml", ".yml", ".sql", ".sh", ".js", ".css", ".html", ".md"];

/// Folders of one machine; each counts when a path continues behind it.
const MACHINE_FOLDERS: [&str; 3] = ["/work", "/root", "/home"];

/// Settings that point a package manager at another registry.
const REGISTRY_SETTINGS: [&str; 8] = [
    "index-url",
    "INDEX_URL",
    "find-links",
    "replace-with",
    "GOPROXY",
    "registry=http",
    "registry = \"http",
    "NPM_CONFIG_REGISTRY",
];

/// The only source of packages in Cargo.lock.
const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, rule, fix: &str| findings.push(Finding::new(&file.path, line, rule, fix));
    for part in file.path.split('/') {
        if EMPTY_NAMES.contains(&part.split('.').next().unwrap_or(part)) {
            find(1, "a name without a meaning", "name the file or folder after what it owns");
        }
    }
    let written = WRITTEN.iter().any(|ending| file.path.ends_with(ending));
    let rust = file.path.ends_with(".rs");
    for (line, text) in (1..).zip(file.text.lines()) {
        if written && text.ends_with([' ', '\t']) {
            find(line, "white space at the end of a line", "delete it");
        }
        if rust && text.contains('\t') {
            find(line, "a tab in Rust", "indent by spaces, and write \\t in a string");
        }
        if MACHINE_FOLDERS.iter().any(|folder| names_folder(text, folder)) {
            find(
                line,
                "a path of one machine",
                "use a path relative to the repository or a temporary folder",
            );
        }
        // This file names the settings itself.
        if file.path != "xtask/src/tidy/text.rs" && REGISTRY_SETTINGS.iter().any(|it| text.contains(it)) {
            find(
                line,
                "a package registry of one machine",
                "leave the choice of a mirror to the machine that builds",
            );
        }
        if file.path == "Cargo.lock" && text.starts_with("source = ") && text != CRATES_IO {
            find(line, "a package that is not from crates.io", "depend on a published version");
        }
    }
    findings
}

/// True when the line contains an absolute path below `folder`.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let begins = !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}~*".contains(c));
        let mut behind = line[at + folder.len()..].chars();
        let goes_on = behind.next() == Some('/')
            && (folder != "/home" || behind.next().is_some_and(|c| c.is_ascii_lowercase()));
        begins && goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::{REGISTRY_SETTINGS, check};

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check(&File::new(path, text)))
    }

    #[test]
    fn refuses_names_without_a_meaning() {
        for path in ["crates/model/src/utils.rs", "crates/x/common/mod.rs", "docs/misc.md", "a/helper/b.sql"]
        {
            assert_eq!(found(path, ""), ["1: a name without a meaning"], "{path}");
        }
        assert!(found("crates/model/src/utility_bill.rs", "").is_empty());
    }

    #[test]
    fn refuses_white_space_at_line_ends_and_tabs_in_rust() {
        let end = "white space at the end of a line";
        assert_eq!(found("a.rs", "ok\nno \n"), [format!("2: {end}")]);
        assert_eq!(found("a.yaml", "no\t\n"), [format!("1: {end}")]);
        assert!(found("a.snap", "no \n").is_empty());
        assert_eq!(found("a.rs", "ok\n\tno\n"), ["2: a tab in Rust"]);
        assert!(found("Makefile", "\tok\n").is_empty());
    }

    #[test]
    fn refuses_paths_of_one_machine() {
        for folder in ["/work", "/root", "/home"] {
            let path = format!("let p = \"{folder}/me/x\";");
            assert_eq!(found("a.md", &path), ["1: a path of one machine"], "{folder}");
            assert!(found("a.md", &format!("https://example.com/see{folder}/me")).is_empty(), "{folder}");
            assert!(found("a.md", &format!("{folder}ing")).is_empty(), "{folder}");
        }
    }

    #[test]
    fn refuses_registries_of_one_machine() {
        for setting in REGISTRY_SETTINGS {
            assert_eq!(found("pip.conf", setting), ["1: a package registry of one machine"], "{setting}");
        }
        let lock = "name = \"a\"\nsource = \"registry+https://mirror.example/index\"\n";
        assert_eq!(found("Cargo.lock", lock), ["2: a package that is not from crates.io"]);
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert!(found("Cargo.lock", lock).is_empty());
    }
}
