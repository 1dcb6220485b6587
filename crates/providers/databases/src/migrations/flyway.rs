//! Names of Flyway's files: `V1.2__text.sql`, what else Flyway reads, and the prefixes that a `flyway.conf` or
//! `flyway.toml` beside the files sets.

use super::names::Name;
use super::tool::Tool;

/// The configuration files that are read.
pub const CONFIGURATIONS: [&str; 2] = ["flyway.conf", "flyway.toml"];

/// How a set names its files.
#[derive(Debug, PartialEq, Eq)]
pub struct Naming {
    versioned: String,
    undo: String,
    repeatable: String,
    baseline: String,
    separator: String,
}

impl Default for Naming {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            versioned: text("V"),
            undo: text("U"),
            repeatable: text("R"),
            baseline: text("B"),
            separator: text("__"),
        }
    }
}

impl Naming {
    /// Takes the names from a configuration file; returns the lines that name files which are not read.
    pub fn configure(&mut self, text: &str) -> Vec<(usize, String)> {
        let mut faults = Vec::new();
        for (line, content) in (1..).zip(text.lines().map(str::trim)) {
            let Some((key, value)) = content.split_once('=') else { continue };
            let key = key.trim().trim_start_matches("flyway.");
            let value = value.trim();
            match key {
                "sqlMigrationPrefix" => self.versioned = unquoted(value),
                "undoSqlMigrationPrefix" => self.undo = unquoted(value),
                "repeatableSqlMigrationPrefix" => self.repeatable = unquoted(value),
                "baselineMigrationPrefix" => self.baseline = unquoted(value),
                "sqlMigrationSeparator" => self.separator = unquoted(value),
                "sqlMigrationSuffixes" => {
                    let list = value.trim_start_matches('[').trim_end_matches(']');
                    if list.split(',').map(|one| unquoted(one.trim())).any(|one| one != ".sql") {
                        let why = "only files that end in `.sql` are read: rename them, and remove the line";
                        faults.push((line, why.to_owned()));
                    }
                }
                _ => {}
            }
        }
        faults
    }

    /// What a name without `.sql` means; none if it is not Flyway's.
    pub fn read(&self, stem: &str) -> Option<Result<Name, String>> {
        let tool = Tool::Flyway;
        if let Some(number) = self.version(&self.undo, stem) {
            return Some(number.map(|(_, number)| Name::Down { number, tool }));
        }
        if let Some(number) = self.version(&self.versioned, stem) {
            return Some(number.map(|(version, number)| Name::Up { version, number, tool }));
        }
        if stem.contains(&self.separator) && self.version(&self.baseline, stem).is_some() {
            return Some(Err(
                "is a baseline, which replaces other files: keep the versioned files instead".to_owned()
            ));
        }
        if stem.strip_prefix(&*self.repeatable).is_some_and(|rest| rest.starts_with(&*self.separator)) {
            return Some(Err("is repeatable, which is not supported: write a numbered migration".to_owned()));
        }
        is_callback(stem)
            .then(|| Err("is a callback, which does not run here: write a numbered migration".to_owned()))
    }

    /// Version and number after a prefix; without a prefix only where the separator follows.
    fn version(&self, prefix: &str, stem: &str) -> Option<Result<(String, Vec<u64>), String>> {
        let rest = stem.strip_prefix(prefix)?;
        if !rest.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let split = rest.split_once(&*self.separator);
        if prefix.is_empty() && split.is_none() {
            return None;
        }
        let version = split.map_or(rest, |(version, _)| version);
        let number: Option<Vec<u64>> = version.split(['.', '_']).map(|part| part.parse().ok()).collect();
        let why =
            || format!("has no number that orders it: name it like `{prefix}1{}init.sql`", self.separator);
        Some(number.map(|number| (version.replace('_', "."), number)).ok_or_else(why))
    }
}

/// A value of either format: `D`, or `"D" # a comment`.
fn unquoted(value: &str) -> String {
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
    let text = quote.and_then(|quote| value.get(1..)?.split(quote).next());
    text.unwrap_or(value).to_owned()
}

/// Flyway's callbacks: an event, optionally with `__text`.
fn is_callback(stem: &str) -> bool {
    let event = stem.split("__").next().unwrap_or(stem);
    let after =
        |word: &str| event.strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_uppercase));
    after("before") || after("after") || event == "createSchema"
}
