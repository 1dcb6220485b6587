//! The text of the writer's statements. One statement changes any number of rows of one table: the rows are its only
//! parameter, a JSON array, so its text depends on the shape of the change alone and stays prepared.
//!
//! Names come from the entities, never from input; they are quoted all the same.

use std::fmt::Write as _;

use super::table::{Kind, Schema, Table};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite: a file, one process.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// What a statement does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Inserts; a taken unique value is an error.
    Insert,
    /// Inserts those rows that conflict with nothing, and returns their keys.
    InsertGuard,
    /// Inserts rows whose key is free.
    InsertAbsent,
    /// Inserts, or updates the row of that key.
    Upsert,
    /// Updates; with a condition, returns the keys of the rows that met it.
    Update,
    /// Changes nothing; returns the keys of the rows that meet the condition.
    Check,
    /// Deletes.
    Delete,
}

/// The shape of a change: everything but the values. Sets of columns are bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Number of the table in its schema.
    pub table: u8,
    /// What to do.
    pub verb: Verb,
    /// Columns that choose the row.
    pub key: u32,
    /// Columns that are compared.
    pub expect: u32,
    /// Columns that are written.
    pub set: u32,
    /// Whether `version` is raised.
    pub bump: bool,
}

impl Shape {
    /// Whether the statement returns the keys of the rows that passed.
    pub fn returns_keys(&self) -> bool {
        matches!(self.verb, Verb::InsertGuard | Verb::Check) || self.verb == Verb::Update && self.expect != 0
    }
}

/// Where a value stands in a row of the parameter.
#[derive(Clone, Copy)]
pub enum Role {
    /// Chooses the row.
    Key,
    /// Is compared.
    Expect,
    /// Is written.
    Set,
}

impl Role {
    /// The letter before the column's number in the parameter.
    pub const fn letter(self) -> char {
        match self {
            Self::Key => 'k',
            Self::Expect => 'e',
            Self::Set => 's',
        }
    }
}

/// Separates the columns of a composite key where it travels as one text.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// The statement for a shape.
pub fn statement(schema: &Schema, shape: Shape, dialect: Dialect) -> String {
    let text = Text { table: schema.at(shape.table), shape, dialect };
    match shape.verb {
        Verb::Insert => text.insert(""),
        Verb::InsertGuard => text.insert(&format!(" ON CONFLICT DO NOTHING RETURNING {}", text.key_text(""))),
        Verb::InsertAbsent => text.insert(&format!(" ON CONFLICT ({}) DO NOTHING", text.key_columns())),
        Verb::Upsert => text.upsert(),
        Verb::Update => text.update(),
        Verb::Check => text.check(),
        Verb::Delete => text.delete(),
    }
}

struct Text<'a> {
    table: &'a Table,
    shape: Shape,
    dialect: Dialect,
}

impl Text<'_> {
    fn insert(&self, conflict: &str) -> String {
        let columns = join(bits(self.shape.set).map(|i| self.name(i)));
        let values = join(bits(self.shape.set).map(|i| self.value(Role::Set, i)));
        // SQLite reads `ON` after a bare FROM as a join's condition, hence the WHERE.
        format!(
            "INSERT INTO \"{}\" ({columns}) SELECT {values} FROM {} WHERE true{conflict}",
            self.table.name,
            self.rows()
        )
    }

    fn upsert(&self) -> String {
        let others = bits(self.shape.set).filter(|i| !self.table.key.contains(i));
        let set = join(others.map(|i| format!("{0} = excluded.{0}", self.name(i))));
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        self.insert(&format!(" ON CONFLICT ({}) DO {action}", self.key_columns()))
    }

    fn update(&self) -> String {
        let mut set: Vec<String> = bits(self.shape.set)
            .map(|i| format!("{} = {}", self.name(i), self.value(Role::Set, i)))
            .collect();
        if self.shape.bump {
            set.push("\"version\" = t.\"version\" + 1".to_owned());
        }
        let mut text = format!(
            "UPDATE \"{}\" AS t SET {} FROM {} WHERE {}",
            self.table.name,
            set.join(", "),
            self.rows(),
            self.condition()
        );
        if self.shape.returns_keys() {
            let _ = write!(text, " RETURNING {}", self.key_text(""));
        }
        text
    }

    fn check(&self) -> String {
        // The lock keeps the condition true until the transaction ends; SQLite has one writer anyway.
        let lock = if self.dialect == Dialect::Postgres { " FOR SHARE OF t" } else { "" };
        format!(
            "SELECT {} FROM {} JOIN \"{}\" AS t ON {}{lock}",
            self.key_text("t."),
            self.rows(),
            self.table.name,
            self.condition()
        )
    }

    fn delete(&self) -> String {
        let columns = join(bits(self.shape.key).map(|i| self.name(i)));
        let values = join(bits(self.shape.key).map(|i| self.value(Role::Key, i)));
        format!(
            "DELETE FROM \"{}\" WHERE ({columns}) IN (SELECT {values} FROM {})",
            self.table.name,
            self.rows()
        )
    }

    /// The rows of the parameter as a table `r`.
    fn rows(&self) -> String {
        match self.dialect {
            Dialect::Sqlite => "json_each(?1) AS r".to_owned(),
            Dialect::Postgres => {
                let columns = [
                    (Role::Key, self.shape.key),
                    (Role::Expect, self.shape.expect),
                    (Role::Set, self.shape.set),
                ];
                let columns = columns.into_iter().flat_map(|(role, set)| {
                    bits(set).map(move |i| format!("{}{i} {}", role.letter(), self.postgres_type(i)))
                });
                format!("json_to_recordset($1::json) AS r({})", join(columns))
            }
        }
    }

    fn value(&self, role: Role, i: usize) -> String {
        let (letter, column) = (role.letter(), &self.table.columns[i]);
        // JSON null in a column that may be null is NULL; in one that may not, it is the JSON value null.
        match (self.dialect, column.kind, column.nullable) {
            (Dialect::Sqlite, Kind::Json, true) => format!("nullif(r.value->'{letter}{i}', 'null')"),
            (Dialect::Sqlite, Kind::Json, false) => format!("r.value->'{letter}{i}'"),
            (Dialect::Sqlite, ..) => format!("r.value->>'{letter}{i}'"),
            (Dialect::Postgres, Kind::Json, false) => format!("coalesce(r.{letter}{i}, 'null'::jsonb)"),
            (Dialect::Postgres, ..) => format!("r.{letter}{i}"),
        }
    }

    fn condition(&self) -> String {
        let key =
            bits(self.shape.key).map(|i| format!("t.{} = ({})", self.name(i), self.value(Role::Key, i)));
        let expect = bits(self.shape.expect).map(|i| {
            let same = match (self.table.columns[i].nullable, self.dialect) {
                (false, _) => "=",
                (true, Dialect::Sqlite) => "IS",
                (true, Dialect::Postgres) => "IS NOT DISTINCT FROM",
            };
            format!("t.{} {same} ({})", self.name(i), self.value(Role::Expect, i))
        });
        key.chain(expect).collect::<Vec<_>>().join(" AND ")
    }

    /// The primary key as one text.
    fn key_text(&self, prefix: &str) -> String {
        let separator = match self.dialect {
            Dialect::Sqlite => format!(" || char({}) || ", u32::from(KEY_SEPARATOR)),
            Dialect::Postgres => format!(" || chr({}) || ", u32::from(KEY_SEPARATOR)),
        };
        let columns = self.table.key.iter().map(|i| match self.table.columns[*i].kind {
            Kind::Text => format!("{prefix}{}", self.name(*i)),
            _ => format!("CAST({prefix}{} AS text)", self.name(*i)),
        });
        columns.collect::<Vec<_>>().join(&separator)
    }

    fn key_columns(&self) -> String {
        join(self.table.key.iter().map(|i| self.name(*i)))
    }

    fn name(&self, i: usize) -> String {
        format!("\"{}\"", self.table.columns[i].name)
    }

    fn postgres_type(&self, i: usize) -> &'static str {
        match self.table.columns[i].kind {
            Kind::Text => "text",
            Kind::Int => "integer",
            Kind::BigInt => "bigint",
            Kind::Bool => "boolean",
            Kind::Json => "jsonb",
            Kind::Time => "timestamptz",
        }
    }
}

fn bits(set: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |i| set >> i & 1 == 1)
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
