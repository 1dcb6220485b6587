//! The files of a set of migrations: which there are, which tool's layout they have, and their text. A file
//! that would be a migration elsewhere and cannot be applied here is a fault.

use tenantry_model::{Failure, FailureClass};
use tenantry_provider::files::{Entry, Files};

use super::Dialect;
use super::encoding::decode;
use super::faults::Faults;
use super::flyway::{self, Naming};
use super::journal::{self, Journal};
use super::names::{self, Name, order};
use super::tool::Tool;

/// The file in each folder of Prisma and of Drizzle since 1.0.
const MIGRATION: &str = "migration.sql";
/// The reverse of a Prisma migration, which Prisma itself never applies.
const DOWN: &str = "down.sql";
/// Prisma's record of the database that its migrations are for.
const LOCK: &str = "migration_lock.toml";
/// Depth to which folders are searched for SQL files that no tool explains.
const DEPTH: usize = 8;

/// A file to apply.
pub struct Source {
    /// Path inside of the set.
    pub file: String,
    pub version: String,
    pub number: Vec<u64>,
    /// The tool that the file's name or its folder shows.
    pub tool: Tool,
    /// The text without a byte order mark, with line ends as `\n`.
    pub text: String,
}

/// Reads the files of a set, in the order of their numbers.
pub fn read(files: &Files, set: &str, dialect: Dialect, faults: &mut Faults) -> Result<Vec<Source>, Failure> {
    let mut folder = Folder { files, set, dialect, faults, sources: Vec::new(), downs: Vec::new() };
    folder.read_all()?;
    let Folder { faults, mut sources, downs, .. } = folder;
    for (file, number, tool) in downs {
        if !sources.iter().any(|source| order(&source.number, &number).is_eq()) {
            faults.of_file(
                &file,
                tool,
                "is a Down part without its Up part: restore the file with its number, or remove this one",
            );
        }
    }
    sources.sort_by(|a, b| order(&a.number, &b.number).then_with(|| a.file.cmp(&b.file)));
    for pair in sources.windows(2) {
        let [first, second] = pair else { continue };
        if order(&first.number, &second.number).is_eq() {
            let why = format!("has the number of {}: give it another one", first.file);
            faults.of_file(&second.file, second.tool, why);
        } else if in_folder(first) && in_folder(second) && first.file > second.file {
            let tool = second.tool;
            let why = format!(
                "is applied before {} by {}, which sorts names as texts: give both numbers the same length",
                first.file,
                tool.name()
            );
            faults.of_file(&second.file, tool, why);
        }
    }
    Ok(sources)
}

fn in_folder(source: &Source) -> bool {
    source.file.contains('/')
}

struct Folder<'a> {
    files: &'a Files,
    set: &'a str,
    dialect: Dialect,
    faults: &'a mut Faults,
    sources: Vec<Source>,
    /// Down files: path, number and tool.
    downs: Vec<(String, Vec<u64>, Tool)>,
}

impl Folder<'_> {
    fn read_all(&mut self) -> Result<(), Failure> {
        let entries = self.entries("")?;
        let (folders, names): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.is_folder);
        let journal = self.journal()?;
        let naming = self.naming(&names)?;
        let layout = self.layout(&folders)?;
        for Entry { name, .. } in names {
            if name == LOCK {
                self.check_lock()?;
                continue;
            }
            let listed = journal.as_ref().and_then(|journal| journal.numbered(&name));
            if let Some((version, number)) = listed {
                self.source(name, version, number, Tool::Drizzle)?;
                continue;
            }
            match names::parse(&name, &naming) {
                Ok(Name::Other) => {}
                Ok(Name::Down { number, tool }) => self.downs.push((name, number, tool)),
                Ok(Name::Up { version, number, tool }) => {
                    let tool = journal.as_ref().map_or(tool, |_| Tool::Drizzle);
                    if let Some(layout) = layout {
                        let why = format!(
                            "stands beside folders with {MIGRATION}: move it into one, or put the folders into another set"
                        );
                        self.faults.of_file(&name, layout, why);
                    }
                    self.source(name, version, number, tool)?;
                }
                Err((tool, why)) => self.faults.of_file(&name, tool, why),
            }
        }
        for Entry { name, .. } in &folders {
            self.subfolder(name, layout)?;
        }
        if let Some(journal) = journal {
            journal.compare(&self.sources, self.faults);
        }
        Ok(())
    }

    /// Prisma or Drizzle, if migrations are in folders.
    fn layout(&mut self, folders: &[Entry]) -> Result<Option<Tool>, Failure> {
        let mut layout = None;
        for Entry { name, .. } in folders {
            let inside = self.entries(name)?;
            let has = |file: &str| inside.iter().any(|entry| entry.name == file && !entry.is_folder);
            if has(MIGRATION) && has("snapshot.json") {
                return Ok(Some(Tool::Drizzle));
            }
            if has(MIGRATION) {
                layout = Some(Tool::Prisma);
            }
        }
        Ok(layout)
    }

    fn subfolder(&mut self, name: &str, layout: Option<Tool>) -> Result<(), Failure> {
        let inside = self.entries(name)?;
        let mut migrates = false;
        for Entry { name: file, is_folder } in inside {
            let path = format!("{name}/{file}");
            if is_folder {
                self.unexplained(&path, 1)?;
            } else if let (MIGRATION, Some(tool)) = (&*file, layout) {
                migrates = true;
                match names::numbered(name) {
                    Some((version, number)) => self.source(path, version, number, tool)?,
                    None => self.faults.of_file(
                        &path,
                        tool,
                        "its folder has no number that orders it: name it like `20260101120000_init`",
                    ),
                }
            } else if !(file == DOWN && layout.is_some()) {
                self.unexplained_file(&path, &file);
            }
        }
        if let (Some(tool), false, Some(_)) = (layout, migrates, names::numbered(name)) {
            let why = format!("has no {MIGRATION}: restore the file, or remove the folder");
            self.faults.of_file(&format!("{name}/"), tool, why);
        }
        Ok(())
    }

    /// Reports SQL files in a folder that no tool reads.
    fn unexplained(&mut self, folder: &str, depth: usize) -> Result<(), Failure> {
        for Entry { name, is_folder } in self.entries(folder)? {
            let path = format!("{folder}/{name}");
            if is_folder && depth < DEPTH {
                self.unexplained(&path, depth + 1)?;
            } else {
                self.unexplained_file(&path, &name);
            }
        }
        Ok(())
    }

    fn unexplained_file(&mut self, path: &str, name: &str) {
        let lower = name.to_lowercase();
        if [".sql", ".psql", ".pgsql", ".ddl", ".sql.gz"].iter().any(|ending| lower.ends_with(ending)) {
            let why = format!(
                "is in a folder, in which only Prisma and Drizzle have files, named {MIGRATION}: move it to the folder of the set"
            );
            self.faults.of_file(path, Tool::Plain, why);
        }
    }

    fn source(&mut self, file: String, version: String, number: Vec<u64>, tool: Tool) -> Result<(), Failure> {
        let Some(bytes) = self.bytes(&file, tool)? else { return Ok(()) };
        match decode(&bytes) {
            Ok(text) => self.sources.push(Source { file, version, number, tool, text }),
            Err((line, why)) => self.faults.at(&file, line, tool, why),
        }
        Ok(())
    }

    /// A file's bytes; none after a fault.
    fn bytes(&mut self, file: &str, tool: Tool) -> Result<Option<Vec<u8>>, Failure> {
        match self.files.bytes(&format!("{}/{file}", self.set)) {
            Ok(Some(bytes)) => return Ok(Some(bytes)),
            Ok(None) => self.faults.of_file(file, tool, "cannot be found: restore it, or correct the link"),
            Err(failure) if failure.class == FailureClass::Invalid => {
                let why =
                    "has other characters in its name than letters, digits, `.`, `_` and `-`: rename it";
                self.faults.of_file(file, tool, why);
            }
            Err(failure) => return Err(failure),
        }
        Ok(None)
    }

    /// The entries of a folder inside of the set, without hidden ones.
    fn entries(&self, folder: &str) -> Result<Vec<Entry>, Failure> {
        let path = if folder.is_empty() { self.set.to_owned() } else { format!("{}/{folder}", self.set) };
        let mut entries = self.files.entries(&path)?;
        entries.retain(|entry| !entry.name.starts_with('.'));
        Ok(entries)
    }

    /// Checks that Prisma wrote its files for this database.
    fn check_lock(&mut self) -> Result<(), Failure> {
        let Some(bytes) = self.bytes(LOCK, Tool::Prisma)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        let expected = if self.dialect == Dialect::Sqlite { "sqlite" } else { "postgresql" };
        for (line, text) in (1..).zip(text.lines()) {
            let Some((key, value)) = text.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            if key.trim() == "provider" && value != expected {
                let why = format!(
                    "the files are for `{value}`: this set needs those for `{expected}`; put them into another set"
                );
                self.faults.at(LOCK, line, Tool::Prisma, why);
            }
        }
        Ok(())
    }

    /// Drizzle's list of its files, if there is one.
    fn journal(&mut self) -> Result<Option<Journal>, Failure> {
        if !self.entries(journal::FOLDER)?.iter().any(|entry| entry.name == journal::FILE) {
            return Ok(None);
        }
        let bytes = self.bytes(journal::PATH, Tool::Drizzle)?;
        Ok(bytes.and_then(|bytes| Journal::read(&bytes, self.dialect, self.faults)))
    }

    /// Flyway's prefixes.
    fn naming(&mut self, names: &[Entry]) -> Result<Naming, Failure> {
        let mut naming = Naming::default();
        for file in flyway::CONFIGURATIONS.into_iter().filter(|file| names.iter().any(|it| it.name == *file))
        {
            let Some(bytes) = self.bytes(file, Tool::Flyway)? else { continue };
            for (line, why) in naming.configure(file, &String::from_utf8_lossy(&bytes)) {
                self.faults.at(file, line, Tool::Flyway, why);
            }
        }
        Ok(naming)
    }
}
