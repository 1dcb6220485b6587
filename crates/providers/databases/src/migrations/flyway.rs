//! Names of Flyway's files: `V1.2__text.sql`, what else Flyway reads, and the prefixes that a `flyway.conf` or
//! `flyway.toml` beside the files sets.

use serde::Deserialize;

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

/// What a configuration file may set.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    sql_migration_prefix: Option<String>,
    undo_sql_migration_prefix: Option<String>,
    repeatable_sql_migration_prefix: Option<String>,
    baseline_migration_prefix: Option<String>,
    sql_migration_separator: Option<String>,
    sql_migration_suffixes: Option<Vec<String>>,
}

/// A `flyway.toml`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Toml {
    flyway: Settings,
}

impl Settings {
    /// Reads one of [`CONFIGURATIONS`]; an error comes with the line, from 1.
    fn read(file: &str, text: &str) -> Result<Self, (usize, String)> {
        if file.ends_with(".conf") {
            return Ok(Self::of_properties(text));
        }
        toml::from_str(text).map(|Toml { flyway }| flyway).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            (before.matches('\n').count() + 1, format!("cannot be read as TOML: {}", error.message()))
        })
    }

    /// Reads lines such as `flyway.sqlMigrationPrefix=D`.
    fn of_properties(text: &str) -> Self {
        let mut settings = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            let text = Some(value.to_owned());
            match key.trim().trim_start_matches("flyway.") {
                "sqlMigrationPrefix" => settings.sql_migration_prefix = text,
                "undoSqlMigrationPrefix" => settings.undo_sql_migration_prefix = text,
                "repeatableSqlMigrationPrefix" => settings.repeatable_sql_migration_prefix = text,
                "baselineMigrationPrefix" => settings.baseline_migration_prefix = text,
                "sqlMigrationSeparator" => settings.sql_migration_separator = text,
                "sqlMigrationSuffixes" => {
                    let list = value.split(',').map(|suffix| suffix.trim().to_owned());
                    settings.sql_migration_suffixes = Some(list.collect());
                }
                _ => {}
            }
        }
        settings
    }
}

impl Naming {
    /// Takes the names from a configuration file; returns its faults with their lines, from 1.
    pub fn configure(&mut self, file: &str, text: &str) -> Vec<(usize, String)> {
        let given = match Settings::read(file, text) {
            Ok(given) => given,
            Err(fault) => return vec![fault],
        };
        let mut faults = Vec::new();
        let mut fault = |setting: &str, why: &str| {
            let line = text.lines().position(|line| line.contains(setting)).unwrap_or_default() + 1;
            faults.push((line, why.to_owned()));
        };
        if given.sql_migration_suffixes.iter().flatten().any(|suffix| suffix != ".sql") {
            let why = "only files that end in `.sql` are read: rename them, and remove the line";
            fault("sqlMigrationSuffixes", why);
        }
        for (setting, value) in [
            ("undoSqlMigrationPrefix", &given.undo_sql_migration_prefix),
            ("sqlMigrationSeparator", &given.sql_migration_separator),
        ] {
            if value.as_deref() == Some("") {
                fault(setting, "must not be empty: Undo files and versions could not be told apart");
            }
        }
        for (name, given) in [
            (&mut self.versioned, given.sql_migration_prefix),
            (&mut self.undo, given.undo_sql_migration_prefix),
            (&mut self.repeatable, given.repeatable_sql_migration_prefix),
            (&mut self.baseline, given.baseline_migration_prefix),
            (&mut self.separator, given.sql_migration_separator),
        ] {
            *name = given.unwrap_or_else(|| std::mem::take(name));
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

/// Flyway's callbacks: an event, optionally with `__text`.
fn is_callback(stem: &str) -> bool {
    let event = stem.split("__").next().unwrap_or(stem);
    let after =
        |word: &str| event.strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_uppercase));
    after("before") || after("after") || event == "createSchema"
}
