//! Reads migration files: which there are, their order, and their content. Understands the file names of
//! sqlx, dbmate, golang-migrate and Flyway. The providers apply them, each file in one transaction, so a file
//! that would end its transaction is rejected. A file that needs to run outside a transaction begins with `--
//! no-transaction`.

mod statements;

use std::cmp::Ordering;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tenantry_model::{Failure, FailureClass};

pub use statements::Dialect;
pub(crate) use statements::split;
use tenantry_provider::files::Files;

/// One migration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Number, part by part (`1.2` is `[1, 2]`); files are applied in this order.
    pub number: Vec<u64>,
    /// The number as written in the file name.
    pub version: String,
    /// File name.
    pub file: String,
    /// The SQL that is executed.
    pub sql: String,
    /// Whether the file is applied in one transaction. If not, each statement takes effect alone, and all of
    /// them may run again after a crash.
    pub transaction: bool,
    /// SHA-256 of the file with line ends as `\n`, in hexadecimal.
    pub checksum: String,
}

impl Migration {
    /// The number without leading zeros, so a file renamed from `1_x.sql` to `0001_x.sql` stays the same
    /// migration.
    pub fn key(&self) -> String {
        let mut key = String::new();
        for part in &self.number {
            if !key.is_empty() {
                key.push('.');
            }
            let _ = write!(key, "{part}");
        }
        key
    }

    /// The single statements.
    pub fn statements(&self, dialect: Dialect) -> Vec<&str> {
        statements::split(&self.sql, dialect).into_iter().map(|statement| statement.text).collect()
    }
}

/// A database's record of an applied file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// [`Migration::key`].
    pub key: String,
    /// File name when it was applied.
    pub file: String,
    /// Checksum when it was applied.
    pub checksum: String,
}

/// The migrations that a database lacks, in their order. Returns an error unless the applied files, oldest
/// first, are the beginning of the set.
pub fn pending<'a>(migrations: &'a [Migration], applied: &[Applied]) -> Result<&'a [Migration], Failure> {
    for (index, Applied { key, file, checksum }) in applied.iter().enumerate() {
        let fault = |why: String| Err(Failure::fatal("migration_changed", why));
        match migrations.get(index) {
            Some(expected) if expected.key() == *key && expected.checksum == *checksum => {}
            Some(expected) if expected.key() == *key => {
                return fault(format!(
                    "{} was changed after it was applied: restore its text, and put the change into a new file",
                    expected.file
                ));
            }
            Some(expected) if !migrations.iter().any(|m| m.key() == *key) => {
                return fault(format!(
                    "{file} is applied but missing in the folder, which has {} in its place: restore the file",
                    expected.file
                ));
            }
            Some(expected) => {
                return fault(format!(
                    "{} comes before {file}, which is already applied: give it a higher number",
                    expected.file
                ));
            }
            None => {
                return fault(format!(
                    "{file} is applied but missing in the folder: it belongs to a newer release; run that release or restore the file"
                ));
            }
        }
    }
    Ok(migrations.get(applied.len()..).unwrap_or_default())
}

/// Adds the file's name to a failure that only a change of the file can fix.
pub fn bad(migration: &Migration, failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Retryable | FailureClass::Unknown => failure,
        FailureClass::Invalid | FailureClass::Fatal => {
            Failure::fatal("bad_migration", format!("{}: {}", migration.file, failure.message))
        }
    }
}

/// All migrations of a set, in the order of application. Skips files that are not SQL and the down files of
/// other tools; any other file that cannot be understood is an error that names it.
pub fn load(files: &Files, set: &str, dialect: Dialect) -> Result<Vec<Migration>, Failure> {
    let mut found: Vec<Migration> = Vec::new();
    for file in files.list(set)? {
        let Some((version, number)) = parse_name(&file)? else { continue };
        let text = files
            .read(&format!("{set}/{file}"))?
            .ok_or_else(|| fault(&file, "was removed while it was read: start again"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
        let checksum = hex::encode(Sha256::digest(text.as_bytes()));
        let sql = up_part(&text).to_owned();
        // No SQLite statement needs to run outside a transaction.
        let transaction = dialect == Dialect::Sqlite || in_transaction(&text);
        if let Some(word) = statements::forbidden(&sql, dialect) {
            return Err(fault(
                &file,
                format!(
                    "contains {word}: a migration must not end or leave its transaction; remove the statement"
                ),
            ));
        }
        found.push(Migration { number, version, file, sql, transaction, checksum });
    }
    found.sort_by(|a, b| order(&a.number, &b.number).then_with(|| a.file.cmp(&b.file)));
    if let Some(pair) =
        found.windows(2).find(|pair| order(&pair[0].number, &pair[1].number) == Ordering::Equal)
    {
        return Err(fault(&pair[1].file, format!("has the number of {}: give it another one", pair[0].file)));
    }
    if found.is_empty() {
        return Err(Failure::fatal(
            "bad_migration",
            format!("the set `{set}` has no migrations: add one, or choose another set"),
        ));
    }
    Ok(found)
}

fn fault(file: &str, why: impl std::fmt::Display) -> Failure {
    Failure::fatal("bad_migration", format!("{file} {why}"))
}

/// Compares numbers part by part; a missing part counts as zero, so `1` equals `1.0`.
fn order(a: &[u64], b: &[u64]) -> Ordering {
    let parts = a.len().max(b.len());
    (0..parts)
        .map(|i| a.get(i).unwrap_or(&0).cmp(b.get(i).unwrap_or(&0)))
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Version and number of a file name; none if the file is to be skipped.
fn parse_name(file: &str) -> Result<Option<(String, Vec<u64>)>, Failure> {
    let Some(stem) = file.strip_suffix(".sql") else { return Ok(None) };
    if stem.ends_with(".down") {
        return Ok(None);
    }
    let stem = stem.strip_suffix(".up").unwrap_or(stem);
    let numbered = stem.strip_prefix('V').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let (version, flyway) = match (numbered, stem.split_once("__")) {
        (Some(rest), _) => (rest.split_once("__").map_or(rest, |(version, _)| version), true),
        (None, Some((prefix, _))) if prefix.starts_with('U') => return Ok(None),
        (None, Some(("R", _))) => {
            return Err(fault(file, "is repeatable, which is not supported: write a numbered migration"));
        }
        _ => (stem.split_once('_').map_or(stem, |(version, _)| version), false),
    };
    let number: Option<Vec<u64>> = if flyway {
        version.split(['.', '_']).map(|part| part.parse().ok()).collect()
    } else {
        version.parse().ok().map(|n| vec![n])
    };
    match number {
        Some(number) => Ok(Some((version.replace('_', "."), number))),
        None => Err(fault(file, "has no number that orders it: name it like `0001_init.sql`")),
    }
}

/// False if the file's leading comments carry sqlx's or dbmate's mark for files that run without a
/// transaction.
fn in_transaction(text: &str) -> bool {
    let comments = text.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with("--"));
    !comments.map(|line| line.trim_start_matches('-').trim()).any(|comment| {
        comment == "no-transaction"
            || comment.starts_with("migrate:up") && comment.contains("transaction:false")
    })
}

/// The part of a file that migrates up: dbmate keeps both directions in one file.
fn up_part(text: &str) -> &str {
    let mark = |line: &str, word: &str| {
        line.trim_start().strip_prefix("--").is_some_and(|rest| rest.trim_start().starts_with(word))
    };
    let (mut start, mut end, mut at) = (0, text.len(), 0);
    for line in text.split_inclusive('\n') {
        if mark(line, "migrate:up") {
            start = at + line.len();
        } else if mark(line, "migrate:down") {
            end = at;
            break;
        }
        at += line.len();
    }
    text.get(start..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join("app").join(name), text).unwrap();
        }
        let files = Files::Folder(dir.path().to_owned());
        (dir, files)
    }

    fn versions(names: &[&str]) -> Result<Vec<String>, String> {
        let files: Vec<_> = names.iter().map(|name| (*name, "SELECT 1;")).collect();
        let (_dir, files) = folder(&files);
        load(&files, "app", Dialect::Sqlite)
            .map(|all| all.into_iter().map(|m| m.version).collect())
            .map_err(|f| f.message)
    }

    #[test]
    fn file_names_of_four_tools_are_ordered() {
        assert_eq!(versions(&["0002_b.sql", "0001_a.sql", "README.md"]).unwrap(), ["0001", "0002"]);
        assert_eq!(
            versions(&["1_a.up.sql", "1_a.down.sql", "10_c.up.sql", "2_b.up.sql"]).unwrap(),
            ["1", "2", "10"]
        );
        assert_eq!(versions(&["20260101120000_a.sql"]).unwrap(), ["20260101120000"]);
        assert_eq!(
            versions(&["V1.10__c.sql", "V1_9__b.sql", "V1__a.sql", "U1__a.sql"]).unwrap(),
            ["1", "1.9", "1.10"]
        );
    }

    #[test]
    fn file_names_without_an_order_are_rejected() {
        assert!(versions(&["init.sql"]).unwrap_err().contains("init.sql"));
        assert!(versions(&["R__views.sql"]).unwrap_err().contains("repeatable"));
        assert!(versions(&["1_a.sql", "0001_b.sql"]).unwrap_err().contains("has the number of"));
        assert!(versions(&["V1__a.sql", "V1.0__b.sql"]).unwrap_err().contains("has the number of"));
        assert!(versions(&[]).unwrap_err().contains("no migration"));
    }

    #[test]
    fn checksum_ignores_line_ends() {
        let (_a, unix) = folder(&[("1_a.sql", "SELECT 1;\nSELECT 2;\n")]);
        let (_b, windows) = folder(&[("1_a.sql", "\u{feff}SELECT 1;\r\nSELECT 2;\r\n")]);
        let (_c, other) = folder(&[("1_a.sql", "SELECT 1;\nSELECT 3;\n")]);
        let sum = |files| load(files, "app", Dialect::Sqlite).unwrap()[0].checksum.clone();
        assert_eq!(sum(&unix), sum(&windows));
        assert_ne!(sum(&unix), sum(&other));
    }

    #[test]
    fn dbmate_down_part_is_skipped() {
        let text = "-- migrate:up\nCREATE TABLE a (x);\n-- migrate:down\nDROP TABLE a;\n";
        assert_eq!(up_part(text), "CREATE TABLE a (x);\n");
        assert_eq!(up_part("CREATE TABLE a (x);"), "CREATE TABLE a (x);");
    }

    #[test]
    fn no_transaction_marks_are_recognised() {
        for (text, transaction) in [
            ("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);", false),
            ("-- of 2026\n\n--no-transaction\nSELECT 1;", false),
            ("-- migrate:up transaction:false\nVACUUM;\n-- migrate:down\n", false),
            ("SELECT 1;\n-- no-transaction\n", true),
            ("-- no-transaction-like words\nSELECT 1;", true),
            ("-- migrate:up\nSELECT 1;", true),
        ] {
            assert_eq!(in_transaction(text), transaction, "{text}");
        }
    }

    #[test]
    fn applied_files_must_not_change() {
        let (_dir, files) = folder(&[("1_a.sql", "SELECT 1;"), ("2_b.sql", "SELECT 2;")]);
        let all = load(&files, "app", Dialect::Postgres).unwrap();
        let applied = |of: &[&Migration]| -> Vec<Applied> {
            let one =
                |m: &&Migration| Applied { key: m.key(), file: m.file.clone(), checksum: m.checksum.clone() };
            of.iter().map(one).collect()
        };
        assert_eq!(pending(&all, &[]).unwrap(), all);
        assert_eq!(pending(&all, &applied(&[&all[0]])).unwrap(), &all[1..]);
        assert!(pending(&all, &applied(&[&all[0], &all[1]])).unwrap().is_empty());
        let changed = Migration { checksum: "x".to_owned(), ..all[0].clone() };
        for (folder, there, why) in [
            (&all[..], applied(&[&changed]), "1_a.sql was changed"),
            (&all[1..], applied(&[&all[0]]), "1_a.sql is applied but missing"),
            (&all[..], applied(&[&all[1]]), "1_a.sql comes before 2_b.sql"),
            (&all[..1], applied(&[&all[0], &all[1]]), "belongs to a newer release"),
        ] {
            let failure = pending(folder, &there).unwrap_err();
            assert_eq!(failure.code, "migration_changed");
            assert!(failure.message.contains(why), "{failure}");
        }
    }
}
