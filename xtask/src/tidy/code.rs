//! Rules for one Rust file: it opens with its job, stays short, and holds no `unsafe`, no unfinished code and
//! no ignored test.

use super::rust::{has_word, split};
use super::{File, Finding};

/// Lines of the longest file.
const MAX_LINES: usize = 600;

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    if !file.path.ends_with(".rs") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut find = |line: usize, rule, fix: &str| findings.push(Finding::new(&file.path, line, rule, fix));
    if !file.text.starts_with("//!") {
        find(1, "no opening //!", "state the file's one job in 1 to 6 lines");
    }
    if file.text.lines().count() > MAX_LINES {
        find(MAX_LINES + 1, "more than 600 lines", "split the file by subject");
    }
    let source = split(&file.text);
    for (line, code) in (1..).zip(source.code.lines()) {
        if has_word(code, "unsafe") {
            find(line, "unsafe code", "find a safe way, or a library that has one");
        }
        if has_word(code, "todo!(") || has_word(code, "unimplemented!(") {
            find(line, "unfinished code", "finish it or leave it out");
        }
        if code.contains("#[ignore") {
            find(
                line,
                "an ignored test",
                "run it, or record a skip with its reason (tenantry_testkit::skip)",
            );
        }
    }
    for (line, comment) in &source.comments {
        if has_word(comment, "FIXME") || has_word(comment, "TODO") {
            find(*line, "a note of unfinished work", "finish it, or open an issue");
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::check;

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check(&File::new(path, &format!("//! Owns.\n{text}\n"))))
    }

    const PATH: &str = "crates/server/src/a.rs";

    #[test]
    fn wants_an_opening_comment() {
        assert_eq!(short(&check(&File::new(PATH, "// Owns.\n"))), ["1: no opening //!"]);
        assert_eq!(short(&check(&File::new(PATH, ""))), ["1: no opening //!"]);
        assert!(check(&File::new("a.sql", "")).is_empty());
    }

    #[test]
    fn wants_short_files() {
        assert_eq!(found(PATH, &"\n".repeat(599)), ["601: more than 600 lines"]);
        assert!(found(PATH, &"\n".repeat(598)).is_empty());
    }

    #[test]
    fn refuses_unsafe_but_not_the_lint_about_it() {
        assert_eq!(found(PATH, "fn f() { unsafe { g() } }"), ["2: unsafe code"]);
        assert!(found(PATH, "#![forbid(unsafe_code)] // unsafe\nconst A: &str = \"unsafe\";").is_empty());
    }

    #[test]
    fn refuses_unfinished_code() {
        assert_eq!(found(PATH, "fn f() { todo!() }"), ["2: unfinished code"]);
        assert_eq!(found(PATH, "\nfn f() { unimplemented!(\"x\") }"), ["3: unfinished code"]);
        assert_eq!(found(PATH, "/* FIXME */"), ["2: a note of unfinished work"]);
        assert_eq!(found(PATH, "// TODO: more"), ["2: a note of unfinished work"]);
        assert_eq!(found(PATH, "#[ignore = \"slow\"]"), ["2: an ignored test"]);
        assert!(found(PATH, "const WORDS: [&str; 2] = [\"todo!(\", \"FIXME\"];").is_empty());
    }
}
