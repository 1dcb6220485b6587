//! Writes the files of a case as one of the migration tools does, with Down parts that must not run.

use std::path::Path;

use super::case::File;

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Plain,
    /// With a byte order mark and lines that end as on Windows.
    Windows,
    UpDown,
    Dbmate,
    Flyway,
    Goose,
    SqlMigrate,
    NodePgMigrate,
    Prisma,
    Drizzle,
}

/// Would lose rows.
const DOWN: &str = "DROP TABLE t CASCADE;\n";

impl Tool {
    pub const ALL: [Self; 10] = [
        Self::Plain,
        Self::Windows,
        Self::UpDown,
        Self::Dbmate,
        Self::Flyway,
        Self::Goose,
        Self::SqlMigrate,
        Self::NodePgMigrate,
        Self::Prisma,
        Self::Drizzle,
    ];

    /// Path of a file, by its number.
    pub fn name(self, number: usize, transaction: bool) -> String {
        let n = number + 1;
        let stem = if transaction { "step" } else { "index" };
        match self {
            Self::Plain | Self::Windows => format!("{n}_{stem}.sql"),
            Self::UpDown => format!("{n}_{stem}.up.sql"),
            Self::Flyway => format!("V{n}__{stem}.sql"),
            Self::Dbmate | Self::Goose | Self::SqlMigrate => format!("202601010000{n:02}_{stem}.sql"),
            Self::NodePgMigrate => format!("17000000000{n:02}_{stem}.sql"),
            Self::Prisma => format!("202601010000{n:02}_{stem}/migration.sql"),
            Self::Drizzle => format!("{number:04}_{stem}.sql"),
        }
    }

    /// Writes the first `count` files into the folder of a set.
    pub fn write(self, folder: &Path, files: &[File], count: usize) {
        let put = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        let mut tags = Vec::new();
        for (number, file) in files.iter().take(count).enumerate() {
            let name = self.name(number, file.transaction);
            put(&name, &self.text(file));
            match self {
                Self::UpDown => put(&name.replace(".up.", ".down."), DOWN),
                Self::Flyway => put(&name.replacen('V', "U", 1), DOWN),
                Self::Prisma => put(&name.replace("migration.sql", "down.sql"), DOWN),
                Self::Drizzle => tags.push(format!("{{\"tag\": \"{}\"}}", name.trim_end_matches(".sql"))),
                _ => {}
            }
        }
        match self {
            Self::Prisma => put("migration_lock.toml", "provider = \"postgresql\"\n"),
            Self::Drizzle => {
                let journal = format!("{{\"dialect\": \"postgresql\", \"entries\": [{}]}}", tags.join(", "));
                put("meta/_journal.json", &journal);
            }
            _ => {}
        }
    }

    fn text(self, file: &File) -> String {
        let (begin, end) = match self {
            Self::Goose => ("-- +goose StatementBegin\n", "-- +goose StatementEnd\n"),
            Self::SqlMigrate => ("-- +migrate StatementBegin\n", "-- +migrate StatementEnd\n"),
            _ => ("", ""),
        };
        let mut body = String::new();
        for statement in &file.statements {
            // The data of COPY end themselves.
            let semicolon = if statement.ends_with("\\.\n") { "" } else { ";\n" };
            let is_code = statement.contains('$') || statement.contains("ATOMIC");
            let (begin, end) = if is_code { (begin, end) } else { ("", "") };
            body.push_str(&format!("{begin}{statement}{semicolon}{end}"));
            if self == Self::Drizzle {
                body.push_str("--> statement-breakpoint\n");
            }
        }
        let outside = !file.transaction;
        let plain = if outside { "-- no-transaction\n" } else { "" };
        match self {
            Self::Plain => format!("{plain}{body}"),
            Self::Windows => format!("\u{feff}{plain}{body}").replace('\n', "\r\n"),
            Self::UpDown | Self::Flyway | Self::Prisma => body,
            Self::Drizzle => format!("{plain}{body}"),
            Self::Dbmate => {
                let option = if outside { " transaction:false" } else { "" };
                format!("-- migrate:up{option}\n{body}\n-- migrate:down\n{DOWN}")
            }
            Self::Goose => {
                let option = if outside { "-- +goose NO TRANSACTION\n" } else { "" };
                format!("{option}-- +goose Up\n{body}\n-- +goose Down\n{DOWN}")
            }
            Self::SqlMigrate => {
                let option = if outside { " notransaction" } else { "" };
                format!("-- +migrate Up{option}\n{body}\n-- +migrate Down\n{DOWN}")
            }
            Self::NodePgMigrate => format!("{plain}-- Up Migration\n{body}\n-- Down Migration\n{DOWN}"),
        }
    }
}
