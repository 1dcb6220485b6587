//! What a file's name says: its number, its tool, and whether it is a Down part or nothing that can run.

use std::cmp::Ordering;

use super::tool::Tool;

/// What a name means.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A file to apply.
    Up { version: String, number: Vec<u64>, tool: Tool },
    /// The file that reverses the one with this number.
    Down { number: Vec<u64>, tool: Tool },
    /// No migration.
    Other,
}

/// Endings of programs and definitions that tools run as migrations besides SQL files.
const PROGRAMS: [&str; 16] = [
    ".go", ".js", ".ts", ".mjs", ".cjs", ".mts", ".cts", ".py", ".rb", ".java", ".kt", ".class", ".json",
    ".xml", ".yaml", ".yml",
];

/// Reads the name of a file in a folder of migrations.
pub fn parse(file: &str) -> Result<Name, (Tool, String)> {
    let lower = file.to_lowercase();
    let Some(stem) = file.strip_suffix(".sql") else {
        return match other(file, &lower) {
            Some(fault) => Err(fault),
            None => Ok(Name::Other),
        };
    };
    if let Some(rest) = stem.strip_suffix(".down") {
        let (_, number) = numbered(rest).ok_or_else(|| no_number(rest))?;
        return Ok(Name::Down { number, tool: Tool::UpDown });
    }
    if let Some(flyway) = flyway(stem) {
        return flyway.map_err(|why| (Tool::Flyway, why));
    }
    let (stem, tool) = match stem.strip_suffix(".up") {
        Some(stem) => (stem, Tool::UpDown),
        None => (stem, Tool::Plain),
    };
    let (version, number) = numbered(stem).ok_or_else(|| no_number(stem))?;
    Ok(Name::Up { version, number, tool })
}

/// Version and number at the beginning of a name such as `0001_init` or `20260101-init`.
pub fn numbered(stem: &str) -> Option<(String, Vec<u64>)> {
    let end = stem.find(|c: char| !c.is_ascii_digit()).unwrap_or(stem.len());
    let (digits, rest) = stem.split_at(end);
    let separated = rest.chars().next().is_none_or(|c| c.is_alphabetic() || matches!(c, '_' | '-'));
    let number = digits.parse().ok().filter(|_| separated)?;
    Some((digits.to_owned(), vec![number]))
}

/// Compares numbers part by part; a missing part counts as zero, so `1` equals `1.0`.
pub fn order(a: &[u64], b: &[u64]) -> Ordering {
    let parts = a.len().max(b.len());
    (0..parts)
        .map(|i| a.get(i).unwrap_or(&0).cmp(b.get(i).unwrap_or(&0)))
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// A name of Flyway: `V1.2__text`, `U1.2__text`, `R__text`, `B1__text` or a callback.
fn flyway(stem: &str) -> Option<Result<Name, String>> {
    let (prefix, rest) = (stem.get(..1)?, stem.get(1..)?);
    let digit = rest.starts_with(|c: char| c.is_ascii_digit());
    Some(match (prefix, digit) {
        ("V" | "U", true) => {
            let version = rest.split_once("__").map_or(rest, |(version, _)| version);
            let number: Option<Vec<u64>> = version.split(['.', '_']).map(|part| part.parse().ok()).collect();
            match number {
                Some(number) if prefix == "U" => Ok(Name::Down { number, tool: Tool::Flyway }),
                Some(number) => {
                    Ok(Name::Up { version: version.replace('_', "."), number, tool: Tool::Flyway })
                }
                None => Err("has no number that orders it: name it like `V1__init.sql`".to_owned()),
            }
        }
        ("B", true) if rest.contains("__") => {
            Err("is a baseline, which replaces other files: keep the versioned files instead".to_owned())
        }
        ("R", false) if rest.starts_with("__") => {
            Err("is repeatable, which is not supported: write a numbered migration".to_owned())
        }
        _ if is_callback(stem) => {
            Err("is a callback, which does not run here: write a numbered migration".to_owned())
        }
        _ => return None,
    })
}

/// Flyway's callbacks: an event, optionally with `__text`.
fn is_callback(stem: &str) -> bool {
    let event = stem.split("__").next().unwrap_or(stem);
    let after =
        |word: &str| event.strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_uppercase));
    after("before") || after("after") || event == "createSchema"
}

fn no_number(stem: &str) -> (Tool, String) {
    let why = match stem {
        "structure" | "schema" => {
            "has no number that orders it: a migration is applied once, so name it `0001_structure.sql` and put later changes into files of their own"
        }
        _ => "has no number that orders it: name it like `0001_init.sql`",
    };
    (Tool::Plain, why.to_owned())
}

/// The fault of a file that does not end in `.sql` but would be a migration elsewhere.
fn other(file: &str, lower: &str) -> Option<(Tool, String)> {
    if lower.ends_with(".sql.conf") {
        return Some((
            Tool::Flyway,
            "configures one script, which is not supported: remove the file".to_owned(),
        ));
    }
    if [".sql", ".sql.gz", ".psql", ".pgsql", ".ddl"].iter().any(|ending| lower.ends_with(ending)) {
        return Some((Tool::Plain, "is not read: name it like `0001_init.sql`, in small letters".to_owned()));
    }
    let is_program = PROGRAMS.iter().any(|ending| lower.ends_with(ending));
    let is_numbered = file.starts_with(|c: char| c.is_ascii_digit())
        || file.starts_with(['V', 'U', 'R', 'B']) && file.contains("__");
    if !is_program || !is_numbered || lower.ends_with("_test.go") {
        return None;
    }
    let tool = match lower.rsplit('.').next() {
        Some("go") => Tool::Goose,
        Some("java" | "kt" | "class") => Tool::Flyway,
        Some("js" | "ts" | "mjs" | "cjs" | "mts" | "cts") => Tool::NodePgMigrate,
        _ => Tool::Plain,
    };
    Some((tool, "is a migration that is not SQL, which cannot run here: write its SQL instead".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(file: &str) -> String {
        match parse(file) {
            Ok(Name::Up { version, tool, .. }) => format!("{version} {}", tool.name()).trim().to_owned(),
            Ok(Name::Down { number, .. }) => format!("down {number:?}"),
            Ok(Name::Other) => String::new(),
            Err((tool, why)) => format!("{}: {why}", tool.name()),
        }
    }

    #[test]
    fn names_of_all_tools_are_read() {
        for (file, expected) in [
            ("0001_init.sql", "0001"),
            ("7.sql", "7"),
            ("20260101120000_a.sql", "20260101120000"),
            ("20260101120000-a.sql", "20260101120000"),
            ("0001init.sql", "0001"),
            ("1_a.up.sql", "1 golang-migrate or sqlx"),
            ("1_a.down.sql", "down [1]"),
            ("V1_9__b.sql", "1.9 Flyway"),
            ("V1.10__c.sql", "1.10 Flyway"),
            ("U1.10__c.sql", "down [1, 10]"),
            ("README.md", ""),
            ("docs.json", ""),
            ("00002_rename_test.go", ""),
            (".0001_init.sql.swp", ""),
        ] {
            assert_eq!(version(file), expected, "{file}");
        }
    }

    #[test]
    fn names_that_cannot_run_are_refused() {
        for (file, expected) in [
            ("init.sql", "no number"),
            ("Users__a.sql", "no number"),
            ("1.2_a.sql", "no number"),
            ("99999999999999999999_a.sql", "no number"),
            ("structure.sql", "later changes"),
            ("R__views.sql", "Flyway: is repeatable"),
            ("B3__base.sql", "Flyway: is a baseline"),
            ("V1.x__a.sql", "Flyway: has no number"),
            ("beforeMigrate.sql", "Flyway: is a callback"),
            ("afterEachMigrate__grant.sql", "Flyway: is a callback"),
            ("V1__a.sql.conf", "Flyway: configures"),
            ("V2__a.java", "Flyway: is a migration that is not SQL"),
            ("00002_rename.go", "goose: is a migration that is not SQL"),
            ("1700000000000_a.js", "node-pg-migrate: is a migration that is not SQL"),
            ("0001_INIT.SQL", "small letters"),
            ("0001_init.sql.gz", "small letters"),
        ] {
            assert!(version(file).contains(expected), "{file}: {}", version(file));
        }
    }
}
