//! Rules for Rust files: they open with what they own, stay short, leave nothing half done, and keep SQL in
//! the few folders that own a database.

use super::rust::{Source, split};
use super::{File, Finding};

/// Past this many lines a file has more than one subject.
const LONGEST: usize = 600;

/// Where SQL may be written, besides tests.
const SQL_FOLDERS: [&str; 6] = [
    "crates/store/src",
    "crates/providers/databases/src",
    "crates/providers/builtin/src/bucket_folder/index.rs",
    "crates/bench/",
    "crates/testkit/",
    "xtask/",
];

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    if !file.path.ends_with(".rs") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut find = |line: usize, rule, fix: &str| findings.push(Finding::new(&file.path, line, rule, fix));
    if !file.text.starts_with("//!") {
        find(1, "no opening //!", "say in 2 to 6 lines what the file owns and what it refuses");
    }
    if file.text.lines().count() > LONGEST {
        find(LONGEST + 1, "more than 600 lines", "split the file by subject");
    }
    let source = split(&file.text);
    for (line, code) in (1..).zip(source.code.lines()) {
        if has_word(code, "unsafe") {
            find(line, "unsafe code", "find a safe way, or a library that has one");
        }
        if has_word(code, "todo!(") || has_word(code, "unimplemented!(") {
            find(line, "half-done code", "finish it or leave it out");
        }
        if code.contains("#[ignore") {
            find(line, "an ignored test", "let it run, or let it skip itself with its reason");
        }
    }
    for (line, comment) in &source.comments {
        if has_word(comment, "FIXME") || has_word(comment, "TODO") {
            find(*line, "a note of something undone", "do it, or open an issue");
        }
    }
    if !SQL_FOLDERS.iter().any(|folder| file.path.starts_with(folder)) && !is_test(&file.path) {
        let tests = first_test_line(&source);
        for (line, string) in &source.strings {
            if *line < tests && is_sql(string) {
                let fix = "move it to crates/store or \
                           crates/providers/databases";
                find(*line, "SQL outside the stores", fix);
            }
        }
    }
    findings
}

/// The word with no letter, digit or underscore at either side; a side that is punctuation needs none.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].ends_with(is_part);
        let after = word.ends_with(is_part) && text[at + word.len()..].starts_with(is_part);
        !before && !after
    })
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "benches")
}

/// The line where the tests of the file itself begin; they stand at its end.
fn first_test_line(source: &Source) -> usize {
    let mut lines = (1..).zip(source.code.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let module = lines.peek().is_some_and(|(_, next)| next.trim_start().starts_with("mod "));
        if line.trim() == "#[cfg(test)]" && module {
            return number;
        }
    }
    usize::MAX
}

/// Whether a string literal opens like a statement. A lone word, such as a method name, is none.
fn is_sql(string: &str) -> bool {
    let words: Vec<&str> = string.split(|c: char| c.is_whitespace() || c == '\\').collect();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (Some("SELECT"), Some(_)) => true,
        (Some("INSERT"), Some(second)) => matches!(second, "INTO" | "OR"),
        (Some("DELETE"), Some(second)) => second == "FROM",
        (Some("UPDATE"), Some(_)) => words.any(|word| word == "SET"),
        (Some("CREATE" | "ALTER" | "DROP"), Some(second)) => {
            matches!(second, "TABLE" | "INDEX" | "UNIQUE" | "SCHEMA" | "DATABASE" | "ROLE" | "TRIGGER")
        }
        _ => false,
    }
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
    fn refuses_what_is_half_done() {
        assert_eq!(found(PATH, "fn f() { todo!() }"), ["2: half-done code"]);
        assert_eq!(found(PATH, "\nfn f() { unimplemented!(\"x\") }"), ["3: half-done code"]);
        assert_eq!(found(PATH, "/* FIXME */"), ["2: a note of something undone"]);
        assert_eq!(found(PATH, "// TODO: more"), ["2: a note of something undone"]);
        assert_eq!(found(PATH, "#[ignore = \"slow\"]"), ["2: an ignored test"]);
        assert!(found(PATH, "const WORDS: [&str; 2] = [\"todo!(\", \"FIXME\"];").is_empty());
    }

    #[test]
    fn keeps_sql_in_the_stores() {
        let statements = [
            "\"SELECT 1\"",
            "r#\"\n    INSERT INTO a VALUES (1)\"#",
            "\"INSERT OR IGNORE INTO a\"",
            "\"\\\n    UPDATE a SET b = 1\"",
            "\"DELETE FROM a\"",
            "\"CREATE TABLE a (b)\"",
        ];
        for statement in statements {
            let code = format!("const A: &str = {statement};");
            assert_eq!(found(PATH, &code), ["2: SQL outside the stores"], "{statement}");
            for allowed in [
                "crates/store/src/read.rs",
                "crates/store/src/keyring.rs",
                "crates/providers/databases/src/ensure.rs",
                "crates/server/tests/it/api.rs",
                "crates/bench/src/main.rs",
            ] {
                assert!(found(allowed, &code).is_empty(), "{allowed}");
            }
            assert!(found(PATH, &format!("#[cfg(test)]\nmod tests {{\n    {code}\n}}")).is_empty());
        }
    }

    #[test]
    fn english_and_methods_are_no_sql() {
        for text in
            ["\"DELETE\"", "\"UPDATE the plan\"", "\"Select one\"", "\"SELECT\"", "\"CREATE a tenant\""]
        {
            assert!(found(PATH, &format!("const A: &str = {text};")).is_empty(), "{text}");
        }
    }
}
