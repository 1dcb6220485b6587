//! Drizzle's list of its files up to 0.x, `meta/_journal.json`. It gives the order of files whose names have no
//! number (`prefix: "none"`).

use serde::Deserialize;

use super::Dialect;
use super::faults::Faults;
use super::folder::Source;
use super::names;
use super::tool::Tool;

/// The folder of the list inside of a set.
pub const FOLDER: &str = "meta";
pub const FILE: &str = "_journal.json";
/// Path of the list inside of a set.
pub const PATH: &str = "meta/_journal.json";

/// The files that Drizzle lists, in its order.
#[derive(Debug)]
pub struct Journal(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// The file's name without `.sql`.
    tag: String,
    version: String,
    number: Vec<u64>,
}

/// The list as Drizzle writes it.
#[derive(Deserialize)]
struct Written {
    dialect: Option<String>,
    entries: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
struct WrittenEntry {
    tag: String,
}

impl Journal {
    /// Reads the list; none after a fault.
    pub fn read(bytes: &[u8], dialect: Dialect, faults: &mut Faults) -> Option<Self> {
        let written: Written = match serde_json::from_slice(bytes) {
            Ok(written) => written,
            Err(error) => {
                let why = format!("cannot be read ({error}): restore it");
                faults.at(PATH, error.line().max(1), Tool::Drizzle, why);
                return None;
            }
        };
        let expected = if dialect == Dialect::Sqlite { "sqlite" } else { "postgresql" };
        if let Some(dialect) = written.dialect.filter(|it| it != expected) {
            let why = format!(
                "the files are for `{dialect}`: this set needs those for `{expected}`; put them into another set"
            );
            faults.of_file(PATH, Tool::Drizzle, why);
        }
        // A name such as `2fa` has no number if the first one has none.
        let are_numbered = written.entries.first().is_some_and(|first| names::numbered(&first.tag).is_some());
        let entry = |(position, WrittenEntry { tag }): (u64, WrittenEntry)| {
            let numbered = names::numbered(&tag).filter(|_| are_numbered);
            let (version, number) = numbered.unwrap_or_else(|| (position.to_string(), vec![position]));
            Entry { tag, version, number }
        };
        Some(Self((0..).zip(written.entries).map(entry).collect()))
    }

    /// Version and number of a listed file.
    pub fn numbered(&self, file: &str) -> Option<(String, Vec<u64>)> {
        let entry = self.0.iter().find(|entry| file.strip_suffix(".sql") == Some(&entry.tag))?;
        Some((entry.version.clone(), entry.number.clone()))
    }

    /// Compares the list with the files.
    pub fn compare(&self, sources: &[Source], faults: &mut Faults) {
        for source in sources {
            if self.numbered(&source.file).is_none() {
                let why = format!("is missing in {PATH}, so Drizzle does not apply it: add or remove it");
                faults.of_file(&source.file, Tool::Drizzle, why);
            }
        }
        for Entry { tag, .. } in &self.0 {
            if !sources.iter().any(|source| source.file.strip_suffix(".sql") == Some(tag)) {
                let why = format!("lists {tag}.sql, which cannot be applied or is missing: restore the file");
                faults.of_file(PATH, Tool::Drizzle, why);
            }
        }
        for pair in self.0.windows(2) {
            let [before, after] = pair else { continue };
            if names::order(&before.number, &after.number).is_gt() {
                let why = format!(
                    "lists {} before {}, against their numbers: correct the numbers",
                    before.tag, after.tag
                );
                faults.of_file(PATH, Tool::Drizzle, why);
            }
        }
    }
}
