//! What a file's name says: its number, its tool, and whether it is a Down part or nothing that can run.

use std::cmp::Ordering;

use super::flyway::Naming;
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

/// Rails' dump, which is applied before all numbered files.
const STRUCTURE: &str = "structure";

/// Reads the name of a file in a folder of migrations, in which Flyway names its files like this.
pub fn parse(file: &str, flyway: &Naming) -> Result<Name, (Tool, String)> {
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
    if let Some(name) = flyway.read(stem) {
        return name.map_err(|why| (Tool::Flyway, why));
    }
    if stem == STRUCTURE {
        return Ok(Name::Up { version: "0".to_owned(), number: vec![0], tool: Tool::Plain });
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

fn no_number(stem: &str) -> (Tool, String) {
    let why = match stem {
        "schema" => {
            "has no number that orders it: a migration is applied once, so name it `0001_schema.sql` and put later changes into files of their own"
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
        version_of(file, &Naming::default())
    }

    fn version_of(file: &str, flyway: &Naming) -> String {
        match parse(file, flyway) {
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
            ("structure.sql", "0"),
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
            ("schema.sql", "later changes"),
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
    #[test]
    fn names_with_configured_prefixes_are_read() {
        let configured = |file: &str, text: &str| {
            let mut flyway = Naming::default();
            assert_eq!(flyway.configure(file, text), [], "{text}");
            flyway
        };
        let conf = "# names\nflyway.sqlMigrationPrefix=Change-\nflyway.undoSqlMigrationPrefix = Back-\nflyway.sqlMigrationSeparator=--\nflyway.sqlMigrationSuffixes=.sql";
        let toml = "[flyway]\nsqlMigrationPrefix = \"Change-\" # names\nundoSqlMigrationPrefix = 'Back-'\nsqlMigrationSeparator = \"--\"\nsqlMigrationSuffixes = [\".sql\"]";
        for (file, text) in [("flyway.conf", conf), ("flyway.toml", toml)] {
            let flyway = configured(file, text);
            for (file, expected) in [
                ("Change-1_2--a__b.sql", "1.2 Flyway"),
                ("Back-1.2--a.sql", "down [1, 2]"),
                ("R--views.sql", "Flyway: is repeatable, which is not supported: write a numbered migration"),
                ("Change-x--a.sql", "has no number"),
                ("V1__a.sql", "has no number"),
            ] {
                assert!(
                    version_of(file, &flyway).contains(expected),
                    "{file}: {}",
                    version_of(file, &flyway)
                );
            }
        }
        let bare = configured("flyway.conf", "flyway.sqlMigrationPrefix=");
        assert_eq!(version_of("1.2__a.sql", &bare), "1.2 Flyway");
        assert_eq!(version_of("0003_a.sql", &bare), "0003");
    }
}
