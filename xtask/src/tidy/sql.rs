//! Rule for SQL: only the crates that own a database contain statements.

use super::rust::{is_test, split};
use super::{File, Finding};

/// Folders and files that may contain SQL, besides tests.
const ALLOWED: [&str; 9] = [
    "crates/store/",
    "crates/postgres/",
    "crates/sqlite/",
    "crates/providers/databases/",
    // The index of a bucket is a SQLite file.
    "crates/providers/builtin/src/bucket_folder/index.rs",
    "crates/testkit/",
    "crates/bench/",
    "crates/chaos/",
    "xtask/",
];

/// Checks one file.
pub fn check(file: &File) -> Vec<Finding> {
    let allowed = ALLOWED.iter().any(|prefix| file.path.starts_with(prefix)) || is_test(&file.path);
    if !file.path.ends_with(".rs") || allowed {
        return Vec::new();
    }
    let source = split(&file.text);
    let tests = source.first_test_line();
    let statements = source.strings.iter().filter(|(line, string)| *line < tests && is_statement(string));
    let fix = "move it to crates/store or crates/providers/databases";
    statements
        .map(|(line, _)| Finding::new(&file.path, *line, "SQL outside the database crates", fix))
        .collect()
}

/// True when a string literal begins like a statement. A single word, such as an HTTP method, does not count.
fn is_statement(string: &str) -> bool {
    let words = string.split(|c: char| c.is_whitespace() || c == '\\');
    let mut words = words.filter(|word| !word.is_empty());
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
    fn refuses_statements_outside_the_database_crates() {
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
            for refused in [PATH, "crates/control/src/tenants.rs", "crates/providers/builtin/src/dns/zone.rs"]
            {
                assert_eq!(
                    found(refused, &code),
                    ["2: SQL outside the database crates"],
                    "{refused} {statement}"
                );
            }
            for allowed in [
                "crates/store/src/tenants.rs",
                "crates/providers/databases/src/postgres/ensure.rs",
                "crates/server/tests/it/api.rs",
                "crates/bench/src/main.rs",
            ] {
                assert!(found(allowed, &code).is_empty(), "{allowed}");
            }
            assert!(found(PATH, &format!("#[cfg(test)]\nmod tests {{\n    {code}\n}}")).is_empty());
        }
    }

    #[test]
    fn accepts_english_and_http_methods() {
        for text in
            ["\"DELETE\"", "\"UPDATE the plan\"", "\"Select one\"", "\"SELECT\"", "\"CREATE a tenant\""]
        {
            assert!(found(PATH, &format!("const A: &str = {text};")).is_empty(), "{text}");
        }
    }
}
