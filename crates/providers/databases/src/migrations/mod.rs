//! Reads migration files: which there are, their order, and the statements of each with their lines. The files
//! are those of the tools in [`Tool`]; only what migrates up runs. Whatever cannot be read or applied is a fault
//! that names file, line and tool, and a set with a fault is rejected as a whole, with all its faults. The
//! providers apply the files, each in one transaction unless it is marked otherwise.

mod concurrent;
mod copy;
mod encoding;
mod enums;
mod extensions;
mod faults;
mod flyway;
mod folder;
mod journal;
mod lookup;
mod names;
mod parts;
mod postgres;
mod public;
mod rules;
mod script;
mod sqlite;
mod statements;
#[cfg(test)]
mod tests;
mod tool;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tenantry_model::{Failure, FailureClass};
use tenantry_provider::files::Files;

pub use concurrent::{in_transaction, is_concurrent};
pub(crate) use enums::for_one_transaction;
pub use extensions::{Allowed, DEFAULT as DEFAULT_EXTENSIONS, Extension, SCHEMA as EXTENSIONS, shared_fault};
pub(crate) use faults::Faults;
use folder::Source;
pub(crate) use lookup::is_marked;
pub(crate) use postgres::{Token, tokens};
pub use public::{Members, PublicSchema};
use script::Script;
pub use script::Statement;
pub(crate) use squawk_lexer::TokenKind;
pub use statements::Dialect;
pub(crate) use statements::split;
pub use tool::Tool;

/// Beginning of a line that names the checksum of an earlier text of the file.
const REPLACES: &str = "-- replaces: ";

/// One migration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Number, part by part (`1.2` is `[1, 2]`); files are applied in this order.
    pub number: Vec<u64>,
    /// The number as written in the file name.
    pub version: String,
    /// File name; inside of its folder, where a tool gives each migration a folder.
    pub file: String,
    /// What runs, in this order.
    pub statements: Vec<Statement>,
    /// The extensions that it needs in its database.
    pub extensions: Vec<Extension>,
    /// Whether the file is applied in one transaction. If not, each statement takes effect alone, and all of
    /// them may run again after a crash.
    pub transaction: bool,
    /// SHA-256 of the file with line ends as `\n`, in hexadecimal.
    pub checksum: String,
    /// Checksums of earlier texts of the file: where one of them was applied, the file counts as applied.
    pub replaces: Vec<String>,
}

impl Migration {
    /// Line of the last statement.
    pub fn last_line(&self) -> usize {
        self.statements.last().map_or(1, |statement| statement.line)
    }

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

    /// Whether a database that has applied a text of this checksum has applied the file.
    fn counts_as(&self, checksum: &str) -> bool {
        self.checksum == checksum || self.replaces.iter().any(|replaced| replaced == checksum)
    }

    /// Whether this is the record of an earlier text of the file.
    pub fn replaces(&self, applied: &Applied) -> bool {
        self.key() == applied.key && self.replaces.contains(&applied.checksum)
    }
}

/// A database's record of an applied file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// [`Migration::key`].
    pub key: String,
    /// The number as written in its file name then.
    pub version: String,
    /// File name when it was applied.
    pub file: String,
    /// Checksum when it was applied.
    pub checksum: String,
}

/// The migrations that a database lacks, in their order. Returns an error unless the applied files, oldest
/// first, are the beginning of the set.
pub fn pending<'a>(migrations: &'a [Migration], applied: &[Applied]) -> Result<&'a [Migration], Failure> {
    for (index, Applied { key, file, checksum, .. }) in applied.iter().enumerate() {
        let fault = |why: String| Err(Failure::fatal("migration_changed", why));
        match migrations.get(index) {
            Some(expected) if expected.key() == *key && expected.counts_as(checksum) => {}
            Some(expected) if expected.key() == *key => {
                return fault(format!(
                    "{0} was changed after it was applied: restore its text, whose SHA-256 is {checksum}, and put the change into a \
                     new file. Or, if it corrects a text that other tenants reject, add the line `{REPLACES}{checksum}` to it: \
                     tenants that have the earlier text keep what it made",
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

/// Code of a failure that names a file.
const BAD: &str = "bad_migration";

/// Adds the file's name, and the line if it is known, to a failure that does not name it yet. One that a retry cannot heal is
/// the file's fault.
pub fn bad(migration: &Migration, line: Option<usize>, failure: Failure) -> Failure {
    if failure.code == BAD || failure.message.starts_with(&format!("{}:", migration.file)) {
        return failure;
    }
    let message = match line {
        Some(line) => format!("{}:{line}: {}", migration.file, failure.message),
        None => format!("{}: {}", migration.file, failure.message),
    };
    match failure.class {
        FailureClass::Retryable | FailureClass::Unknown => Failure { message, ..failure },
        FailureClass::Invalid | FailureClass::Fatal => Failure::fatal(BAD, message),
    }
}

/// What an operator decides about the names in files.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What happens to names that are qualified with `public`.
    pub public: PublicSchema,
    /// The extensions that files may name.
    pub extensions: Allowed,
}

/// All migrations of a set, in the order of application. A set with a fault is rejected, with all its faults.
pub fn load(files: &Files, set: &str, dialect: Dialect, policy: &Policy) -> Result<Vec<Migration>, Failure> {
    let mut faults = Faults::default();
    let sources = folder::read(files, set, dialect, &mut faults)?;
    let mut all: Vec<Migration> = Vec::new();
    let mut of_set: Option<Tool> = None;
    for source in sources {
        let Script { statements, extensions, transaction, tool } =
            script::read(&source, dialect, policy, &mut faults);
        // Files without marks fit every tool.
        if !matches!(tool, Tool::Plain | Tool::PgDump) {
            let first = *of_set.get_or_insert(tool);
            if first != tool {
                let why = format!("the set has files of {} too: keep those of one tool", first.name());
                faults.of_file(&source.file, tool, why);
            }
        }
        let Source { file, version, number, text, .. } = source;
        let checksum = hex::encode(Sha256::digest(text.as_bytes()));
        let replaces = text.lines().filter_map(|line| line.trim().strip_prefix(REPLACES));
        let replaces = replaces.map(|checksum| checksum.trim().to_owned()).collect();
        all.push(Migration {
            number,
            version,
            file,
            statements,
            extensions,
            transaction,
            checksum,
            replaces,
        });
    }
    faults.into_result(set)?;
    let mut own = BTreeSet::new();
    all.iter_mut().flat_map(|it| &mut it.statements).for_each(|statement| statement.find_own_names(&mut own));
    if all.is_empty() {
        return Err(Failure::fatal(
            BAD,
            format!("the set `{set}` has no migrations: add one, or choose another set"),
        ));
    }
    Ok(all)
}
