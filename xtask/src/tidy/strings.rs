//! Rule for kinds of operations and steps: only the registry in `operations/` decides by them, so no other
//! module of the control plane compares a string with one.

use super::rust::{is_test, split};
use super::{File, Finding};

/// The crate that is checked, and its folder that knows the kinds.
const ROOT: &str = "crates/control/src/";
const REGISTRY: &str = "crates/control/src/operations/";

/// Kinds of operations, steps and actions.
const KINDS: [&str; 29] = [
    "activate",
    "archive",
    "await_notice",
    "backup",
    "certify",
    "certify_rest",
    "clone",
    "destroy_key",
    "discard_archives",
    "drain",
    "erase",
    "export",
    "hold",
    "import",
    "load",
    "offboard",
    "onboard",
    "rehearse",
    "remove",
    "repair",
    "reserve",
    "restore",
    "rotate_credentials",
    "scan",
    "scan_registry",
    "scan_rest",
    "settle",
    "smoke_test",
    "stand_down",
];

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    let checked =
        file.path.starts_with(ROOT) && !file.path.starts_with(REGISTRY) && file.path.ends_with(".rs");
    if !checked || is_test(&file.path) {
        return Vec::new();
    }
    let source = split(&file.text);
    let tests = source.first_test_line();
    // In the code, each string literal is a pair of quotes.
    let quotes: Vec<usize> = source.code.match_indices('"').map(|(at, _)| at).collect();
    let literals = source.strings.iter().zip(quotes.chunks_exact(2));
    literals
        .filter(|((line, string), _)| *line < tests && KINDS.contains(&string.as_str()))
        .filter(|(_, ends)| is_compared(&source.code[..ends[0]], &source.code[ends[1] + 1..]))
        .map(|((line, string), _)| {
            let fix =
                format!("ask the registry of operations what `{string}` does, by a method of its trait");
            Finding::new(&file.path, *line, "a decision by the name of a kind", fix)
        })
        .collect()
}

/// True when a literal between these two pieces of code is compared with something or is a pattern.
fn is_compared(before: &str, after: &str) -> bool {
    let before = before.trim_end();
    let after = after.trim_start();
    let operator = ["==", "!=", "|"].iter().any(|operator| before.ends_with(operator));
    let pattern = ["==", "!=", "=>", "|", ")=>", "if "].iter().any(|operator| after.starts_with(operator));
    let tuple = after.split("=>").next().is_some_and(|rest| {
        rest.starts_with([',', ')'])
            && after.contains("=>")
            && !rest.contains([';', '{', '}'])
            && rest.matches(')').count() == rest.matches('(').count() + 1
    });
    let listed = after.trim_start_matches([',', '"', ' ', '\n']).strip_prefix(']');
    let contained = listed.is_some_and(|rest| rest.trim_start().starts_with(".contains("));
    let macro_call = before.rfind("matches!(").is_some_and(|at| {
        let arguments = &before[at + "matches!".len()..];
        arguments.matches('(').count() > arguments.matches(')').count()
    });
    let argument = before.ends_with(".contains(&") || before.ends_with(".eq(");
    operator || pattern || tuple || contained || macro_call || argument
}

#[cfg(test)]
mod tests {
    use super::super::{File, short};
    use super::check;

    fn found(path: &str, text: &str) -> Vec<String> {
        short(&check(&File::new(path, &format!("//! Owns.\n{text}\n"))))
    }

    const PATH: &str = "crates/control/src/events.rs";

    #[test]
    fn refuses_comparisons_with_kinds() {
        for code in [
            "let a = kind == \"repair\";",
            "let a = \"repair\" != kind;",
            "match kind { \"clone\" => 1, _ => 2 }",
            "match kind { \"x\" | \"clone\" => 1, _ => 2 }",
            "match pair { (\"load\", Verb::Do) => 1, _ => 2 }",
            "let a = matches!(step.kind.as_str(), \"erase\");",
            "let a = [\"reserve\", \"x\"].contains(&kind);",
            "let a = kinds.contains(&\"reserve\");",
        ] {
            assert_eq!(found(PATH, code), ["2: a decision by the name of a kind"], "{code}");
            assert!(found("crates/control/src/operations/registry.rs", code).is_empty(), "{code}");
            assert!(found("crates/server/src/events.rs", code).is_empty(), "{code}");
            assert!(found("crates/control/src/archive/tests.rs", code).is_empty(), "{code}");
            assert!(found(PATH, &format!("#[cfg(test)]\nmod tests {{ {code} }}")).is_empty(), "{code}");
        }
    }

    #[test]
    fn accepts_kinds_as_values_and_other_strings() {
        for code in [
            "const KIND: &str = \"repair\";",
            "match purpose { Purpose::Export => \"export\", Purpose::Backup => \"backup\" }",
            "start(\"clone\", 3);",
            "let a = kind == \"tenant.repaired\";",
        ] {
            assert!(found(PATH, code).is_empty(), "{code}");
        }
    }
}
