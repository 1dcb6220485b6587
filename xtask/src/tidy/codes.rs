//! Rule for error codes: each code that a failure or an error is made with stands in the list of
//! `crates/model/src/error_code.rs`, and so has a class, a status and a page.

use std::collections::HashSet;

use super::rust::{is_test, split};
use super::{File, Finding};

/// The list of codes.
const LIST: &str = "crates/model/src/error_code.rs";

/// Folders whose errors are answers to requests.
const REQUESTS: [&str; 2] = ["crates/control/src/", "crates/server/src/"];

/// Calls whose first string is an error code.
const CALLS: [&str; 5] =
    ["Failure::new(", "Failure::retryable(", "Failure::unknown(", "Failure::invalid(", "Failure::fatal("];

/// Checks all sources against the list; without a list there is nothing to check.
pub fn check(files: &[File]) -> Vec<Finding> {
    let Some(list_file) = files.iter().find(|file| file.path == LIST) else { return Vec::new() };
    let list = split(&list_file.text);
    let known: HashSet<&str> = list.strings.iter().map(|(_, string)| string.as_str()).collect();
    let sources = files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with(".rs"));
    let sources = sources.filter(|file| !is_test(&file.path) && !file.path.starts_with("crates/bench/"));
    let sources: Vec<&File> = sources.filter(|file| file.path != LIST).collect();
    let mut findings: Vec<Finding> = sources.iter().flat_map(|file| unlisted(file, &known)).collect();
    // Each code's word is the first string of its entry; the other two are sentences. Control and server use the variant.
    let words = list.strings.iter().filter(|(line, word)| *line < list.first_test_line() && is_code(word));
    let is_used = |word: &str| {
        let [word, variant] = [format!("\"{word}\""), format!("ErrorCode::{}", variant(word))];
        sources.iter().any(|file| file.text.contains(&word) || has_name(&file.text, &variant))
    };
    let unused = words.filter(|(_, word)| !is_used(word));
    findings.extend(without_status(&list_file.text, &sources));
    findings.extend(unused.map(|(line, word)| {
        let fix = format!("use `{word}` or take it out, with its page");
        Finding::new(LIST, *line, "an error code that nothing uses", fix)
    }));
    findings
}

/// Whether a text has this name, and not as the beginning of a longer one.
fn has_name(text: &str, name: &str) -> bool {
    let mut ends = text.match_indices(name).map(|(at, _)| at + name.len());
    ends.any(|end| !text[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Variants that requests use although the list gives them no status: `codes` writes `_` for those that only operations have.
fn without_status(list: &str, sources: &[&File]) -> Vec<Finding> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, _, _, status) = (words.next()?, words.next()?, words.next()?, words.next()?);
        (status == "_").then(|| name.to_owned())
    };
    let names = list.lines().filter_map(entry);
    let requests = |file: &&&File| REQUESTS.iter().any(|folder| file.path.starts_with(folder));
    let used = |name: &String| {
        let name = format!("ErrorCode::{name}");
        sources.iter().filter(requests).any(|file| has_name(&file.text, &name))
    };
    let without = names.filter(used);
    without
        .map(|name| {
            Finding::new(LIST, 1, "a request's error without a status", format!("give {name} a status"))
        })
        .collect()
}

/// The variant of a code, `SlugTaken` for `slug_taken`.
fn variant(word: &str) -> String {
    let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
    word.split('_').filter(|part| !part.is_empty()).map(capital).collect()
}

/// Whether a string has the form of a code.
fn is_code(string: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !string.is_empty() && string.chars().all(allowed)
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
            *line < tests
                && is_code(code)
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
        let code = format!("const BUSY: &str = \"busy\";\n{code}");
        let list = File::new(super::LIST, "//! Lists.\nconst A: &str = \"busy\";\n");
        let source = File::new("crates/store/src/a.rs", &format!("//! Owns.\n{code}\n"));
        short(&check(&[list, source]))
    }

    #[test]
    fn refuses_codes_that_are_not_listed() {
        for code in [
            "let a = Failure::fatal(\"bussy\", \"x\");",
            "let a = Failure::new(\n    FailureClass::Fatal, \"bussy\", x);",
        ] {
            assert_eq!(found(code).len(), 1, "{code}");
        }
    }

    #[test]
    fn refuses_a_listed_code_that_nothing_uses() {
        let list = File::new(super::LIST, "//! Lists.\nconst A: &str = \"busy\";\n");
        let other = File::new("crates/store/src/a.rs", "//! Owns.\n");
        let user = File::new("crates/store/src/a.rs", "//! Owns.\nconst A: ErrorCode = ErrorCode::Busy;\n");
        assert!(check(&[File::new(super::LIST, &list.text), user]).is_empty());
        let longer =
            File::new("crates/store/src/a.rs", "//! Owns.\nconst A: ErrorCode = ErrorCode::BusyNow;\n");
        assert_eq!(check(&[File::new(super::LIST, &list.text), longer]).len(), 1);
        assert_eq!(short(&check(&[list, other])), ["2: an error code that nothing uses"]);
    }

    #[test]
    fn refuses_a_request_whose_code_has_no_status() {
        let found = |status: &str| {
            let list = format!(
                "//! Lists.\ncodes! {{\n    Busy \"busy\" Retryable {status} \"It works.\"\n        \"Wait.\"\n}}\n"
            );
            let user = "//! Owns.\nconst A: ErrorCode = ErrorCode::Busy;\n";
            short(&check(&[File::new(super::LIST, &list), File::new("crates/server/src/a.rs", user)]))
        };
        assert_eq!(found("_"), ["1: a request's error without a status"]);
        assert!(found("503").is_empty());
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
