//! The text of the writer's statements. One statement changes many rows of one table, and stays prepared: on
//! PostgreSQL the rows come as one array per column, so the text depends on the shape of the change alone; on SQLite
//! they come one by one as parameters of a VALUES list, so it also depends on how many there are.
//!
//! Names come from the entities, never from input; they are quoted all the same.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::dialect::Dialect;
use super::row::Kind;
use super::table::{ColumnSet, Schema, Table};

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

/// The shape of a change: everything but the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Number of the table in its schema.
    pub table: u8,
    /// What to do.
    pub verb: Verb,
    /// Columns that choose the row.
    pub key: ColumnSet,
    /// Columns that are compared.
    pub expect: ColumnSet,
    /// Columns that are written.
    pub set: ColumnSet,
    /// Whether `version` is raised.
    pub bump: bool,
}

impl Shape {
    /// The columns of a row's parameters, in order.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.key.iter().chain(self.expect.iter()).chain(self.set.iter())
    }

    /// Whether the statement returns the keys of the rows that passed.
    pub fn returns_keys(&self) -> bool {
        matches!(self.verb, Verb::InsertGuard | Verb::Check)
            || self.verb == Verb::Update && !self.expect.is_empty()
    }
}

/// Where a value stands among a row's parameters: it chooses the row, is compared, or is written.
#[derive(Clone, Copy)]
enum Role {
    Key,
    Expect,
    Set,
}

impl Role {
    /// The letter before the column's number.
    const fn letter(self) -> char {
        match self {
            Self::Key => 'k',
            Self::Expect => 'e',
            Self::Set => 's',
        }
    }
}

/// Separates the columns of a composite key where it travels as one text.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// The statements of one database, each text made once.
pub struct Statements {
    /// Its tables.
    pub schema: &'static Schema,
    dialect: Dialect,
    texts: HashMap<(Shape, usize), Arc<str>>,
}

impl Statements {
    /// None yet.
    pub fn new(schema: &'static Schema, dialect: Dialect) -> Self {
        Self { schema, dialect, texts: HashMap::new() }
    }

    /// The statement of a shape; on SQLite, for this many rows.
    pub fn text(&mut self, shape: Shape, rows: usize) -> Arc<str> {
        let make = || statement(self.schema, shape, self.dialect, rows).into();
        Arc::clone(self.texts.entry((shape, rows)).or_insert_with(make))
    }
}

/// The statement for a shape; on SQLite, for this many rows.
fn statement(schema: &Schema, shape: Shape, dialect: Dialect, rows: usize) -> String {
    let text = Text { table: schema.at(shape.table), shape, dialect };
    let statement = match shape.verb {
        Verb::Insert => text.insert(""),
        Verb::InsertGuard => text.insert(&format!(" ON CONFLICT DO NOTHING RETURNING {}", text.key_text(""))),
        Verb::InsertAbsent => text.insert(&format!(" ON CONFLICT ({}) DO NOTHING", text.key_columns())),
        Verb::Upsert => text.upsert(),
        Verb::Update => text.update(),
        Verb::Check => text.check(),
        Verb::Delete => text.delete(),
    };
    match dialect {
        Dialect::Sqlite => format!("{}{statement}", text.values(rows)),
        Dialect::Postgres => statement,
    }
}

struct Text<'a> {
    table: &'a Table,
    shape: Shape,
    dialect: Dialect,
}

impl Text<'_> {
    fn insert(&self, conflict: &str) -> String {
        let columns = join(self.shape.set.iter().map(|i| self.name(i)));
        let values = join(self.shape.set.iter().map(|i| self.value(Role::Set, i)));
        // SQLite reads `ON` after a bare FROM as a join's condition, hence the WHERE.
        format!(
            "INSERT INTO \"{}\" ({columns}) SELECT {values} FROM {} WHERE true{conflict}",
            self.table.name,
            self.rows()
        )
    }

    fn upsert(&self) -> String {
        let others = self.shape.set.iter().filter(|i| !self.table.key.contains(i));
        let set = join(others.map(|i| format!("{0} = excluded.{0}", self.name(i))));
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        self.insert(&format!(" ON CONFLICT ({}) DO {action}", self.key_columns()))
    }

    fn update(&self) -> String {
        let mut set: Vec<String> = self
            .shape
            .set
            .iter()
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
            "SELECT {} FROM {} CROSS JOIN \"{}\" AS t WHERE {}{lock}",
            self.key_text("t."),
            self.rows(),
            self.table.name,
            self.condition()
        )
    }

    fn delete(&self) -> String {
        let columns = join(self.shape.key.iter().map(|i| self.name(i)));
        let values = join(self.shape.key.iter().map(|i| self.value(Role::Key, i)));
        format!(
            "DELETE FROM \"{}\" WHERE ({columns}) IN (SELECT {values} FROM {})",
            self.table.name,
            self.rows()
        )
    }

    /// The rows as a table `r`.
    fn rows(&self) -> String {
        match self.dialect {
            Dialect::Sqlite => "r".to_owned(),
            Dialect::Postgres => {
                let arrays = self.shape.columns().zip(1..).map(|(i, n)| match self.table.columns[i].kind {
                    Kind::Int | Kind::BigInt => format!("${n}::bigint[]"),
                    Kind::Bool => format!("${n}::boolean[]"),
                    Kind::Text | Kind::Json | Kind::Time => format!("${n}::text[]"),
                });
                format!("unnest({}) AS r({})", join(arrays), self.names())
            }
        }
    }

    /// SQLite's table `r`.
    fn values(&self, rows: usize) -> String {
        let row = format!("({})", join(self.shape.columns().map(|_| "?".to_owned())));
        format!("WITH r({}) AS (VALUES {}) ", self.names(), join((0..rows).map(|_| row.clone())))
    }

    /// The names of `r`'s columns.
    fn names(&self) -> String {
        let Shape { key, expect, set, .. } = self.shape;
        let roles = [(Role::Key, key), (Role::Expect, expect), (Role::Set, set)];
        join(
            roles
                .into_iter()
                .flat_map(|(role, set)| set.iter().map(move |i| format!("{}{i}", role.letter()))),
        )
    }

    fn value(&self, role: Role, i: usize) -> String {
        let letter = role.letter();
        match (self.dialect, self.table.columns[i].kind) {
            (Dialect::Postgres, Kind::Json) => format!("r.{letter}{i}::jsonb"),
            (Dialect::Postgres, Kind::Time) => format!("r.{letter}{i}::timestamptz"),
            _ => format!("r.{letter}{i}"),
        }
    }

    fn condition(&self) -> String {
        let key =
            self.shape.key.iter().map(|i| format!("t.{} = ({})", self.name(i), self.value(Role::Key, i)));
        let expect = self.shape.expect.iter().map(|i| {
            let (name, value) = (self.name(i), self.value(Role::Expect, i));
            match (self.dialect, self.table.columns[i].nullable) {
                // The plus keeps SQLite from searching by this column instead of the key.
                (Dialect::Sqlite, false) => format!("+t.{name} = {value}"),
                (Dialect::Sqlite, true) => format!("+t.{name} IS {value}"),
                (Dialect::Postgres, false) => format!("t.{name} = {value}"),
                (Dialect::Postgres, true) => format!("t.{name} IS NOT DISTINCT FROM {value}"),
            }
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
        self.table.key_names()
    }

    fn name(&self, i: usize) -> String {
        format!("\"{}\"", self.table.columns[i].name)
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
