//! Rule for error codes: each code that a failure or an error is made with stands in the list of
//! `crates/model/src/error_code.rs`, and so has a class, a status and a page.

use std::collections::HashSet;

use super::rust::{is_test, split};
use super::{File, Finding};

/// The list of codes.
const LIST: &str = "crates/model/src/error_code.rs";

/// Calls whose first string is an error code.
const CALLS: [&str; 8] = [
    "Failure::new(",
    "Failure::retryable(",
    "Failure::unknown(",
    "Failure::invalid(",
    "Failure::fatal(",
    "Error::new(",
    "Error::conflict(",
    "Error::invalid(",
];

/// Checks all sources against the list; without a list there is nothing to check.
pub fn check(files: &[File]) -> Vec<Finding> {
    let Some(list) = files.iter().find(|file| file.path == LIST) else { return Vec::new() };
    let list = split(&list.text);
    let known: HashSet<&str> = list.strings.iter().map(|(_, string)| string.as_str()).collect();
    let sources = files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with(".rs"));
    let sources = sources.filter(|file| !is_test(&file.path) && !file.path.starts_with("crates/bench/"));
    sources.flat_map(|file| unlisted(file, &known)).collect()
}

/// Codes of a file that are not listed.
fn unlisted(file: &File, known: &HashSet<&str>) -> Vec<Finding> {
    let source = split(&file.text);
    let tests = source.first_test_line();
    // In the code, each string literal is a pair of quotes.
    let quotes: Vec<usize> = source.code.match_indices('"').map(|(at, _)| at).collect();
    let literals = source.strings.iter().zip(quotes.chunks_exact(2));
    literals
        .filter(|((line, code), ends)| {
            let is_code = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            *line < tests
                && !code.is_empty()
                && code.chars().all(is_code)
                && is_argument(&source.code[..ends[0]])
                && !known.contains(code.as_str())
        })
        .map(|((line, code), _)| {
            let fix = format!("add `{code}` to {LIST}, or use a code that is there");
            Finding::new(&file.path, *line, "an error code that is not listed", fix)
        })
        .collect()
}

/// True when a literal behind this code is the code of a failure or an error: at most a class stands between.
fn is_argument(before: &str) -> bool {
    CALLS.iter().any(|call| {
        before.rfind(call).is_some_and(|at| {
            // `FieldError::new` takes a path, not a code.
            if before[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                return false;
            }
            let between = &before[at + call.len()..];
            between.matches(',').count() <= 1
                && between.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_:,".contains(c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::check;

    fn found(code: &str) -> Vec<String> {
        let list = File::new(super::LIST, "//! Lists.\nconst A: &str = \"busy\";\n");
        let source = File::new("crates/store/src/a.rs", &format!("//! Owns.\n{code}\n"));
        short(&check(&[list, source]))
    }

    #[test]
    fn refuses_codes_that_are_not_listed() {
        for code in [
            "let a = Failure::fatal(\"bussy\", \"x\");",
            "let a = Error::new(ErrorKind::Conflict, \"bussy\", \"x\");",
            "let a = Error::conflict(\n    \"bussy\", x);",
        ] {
            assert_eq!(found(code).len(), 1, "{code}");
        }
    }

    #[test]
    fn accepts_listed_codes_and_other_strings() {
        for code in [
            "let a = Failure::retryable(\"busy\", \"later\");",
            "let a = Failure::new(class, code, \"text\".len());",
            "let a = Error::not_found(\"operation\");",
            "let a = FieldError::new(\"slug\", \"is taken\");",
            "#[cfg(test)]\nmod tests { fn a() { Failure::fatal(\"x\", \"\"); } }",
        ] {
            assert!(found(code).is_empty(), "{code}");
        }
    }
}
