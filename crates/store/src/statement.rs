//! SQL texts of the writer's statements. One statement changes many rows of one table, and stays prepared. On
//! PostgreSQL the rows are sent as one array per column, so the text depends only on the shape of the change. On
//! SQLite each value is a parameter of a VALUES list, so the text depends on the number of rows as well.
//!
//! Table and column names come from the entities, never from input; they are quoted nevertheless.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::dialect::Dialect;
use super::row::Kind;
use super::table::{ColumnSet, Schema, Table};

/// The effect of a statement on its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Inserts the rows; a duplicate unique value is an error.
    Insert,
    /// Inserts the rows that violate no unique index, and returns their keys.
    InsertGuard,
    /// Inserts the rows whose primary key does not exist yet; ignores the others.
    InsertAbsent,
    /// Inserts each row, or updates the row with its primary key.
    Upsert,
    /// Updates rows. With compared columns, updates only the rows that match, and returns their keys.
    Update,
    /// Changes nothing; returns the keys of the rows whose compared columns match.
    Check,
    /// Deletes the rows with these key values.
    Delete,
}

/// The shape of a change: everything except the values. Changes of one shape share a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Number of the table in its schema.
    pub table: u8,
    /// Effect on the rows.
    pub verb: Verb,
    /// Columns that select the row.
    pub key: ColumnSet,
    /// Columns whose present values must equal given ones.
    pub expect: ColumnSet,
    /// Columns that are written.
    pub set: ColumnSet,
    /// Whether the column `version` is increased by one.
    pub bump: bool,
}

impl Shape {
    /// Numbers of the columns that a row has parameters for, in the order of the parameters.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.key.iter().chain(self.expect.iter()).chain(self.set.iter())
    }

    /// Whether the statement returns the keys of the rows that it inserted, updated or found.
    pub fn returns_keys(&self) -> bool {
        matches!(self.verb, Verb::InsertGuard | Verb::Check)
            || self.verb == Verb::Update && !self.expect.is_empty()
    }
}

/// Use of a parameter: it selects the row (`Key`), is compared (`Expect`), or is written (`Set`).
#[derive(Clone, Copy)]
enum Role {
    Key,
    Expect,
    Set,
}

impl Role {
    /// First letter of the parameter's column name in `r`; the column's number follows.
    const fn letter(self) -> char {
        match self {
            Self::Key => 'k',
            Self::Expect => 'e',
            Self::Set => 's',
        }
    }
}

/// Separates the columns of a composite key in its text form.
pub const KEY_SEPARATOR: char = '\u{1f}';

/// The statements of one database. Each text is generated once.
pub struct Statements {
    /// Tables of the database.
    pub schema: &'static Schema,
    dialect: Dialect,
    texts: HashMap<(Shape, usize), Arc<str>>,
}

impl Statements {
    /// Creates an empty cache.
    pub fn new(schema: &'static Schema, dialect: Dialect) -> Self {
        Self { schema, dialect, texts: HashMap::new() }
    }

    /// Returns the statement of a shape. `rows` is the number of rows on SQLite, and 0 on PostgreSQL.
    pub fn text(&mut self, shape: Shape, rows: usize) -> Arc<str> {
        let make = || statement(self.schema, shape, self.dialect, rows).into();
        Arc::clone(self.texts.entry((shape, rows)).or_insert_with(make))
    }
}

/// Generates the statement of a shape. `rows` counts on SQLite only.
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

/// Generates one statement. The statement's parameters form a table `r`, the changed table is `t`.
struct Text<'a> {
    table: &'a Table,
    shape: Shape,
    dialect: Dialect,
}

impl Text<'_> {
    fn insert(&self, conflict: &str) -> String {
        let columns = join(self.shape.set.iter().map(|i| self.name(i)));
        let values = join(self.shape.set.iter().map(|i| self.value(Role::Set, i)));
        // Without the WHERE, SQLite parses `ON CONFLICT` as the condition of a join.
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
        // The lock keeps the condition true until the transaction ends. SQLite needs none, as it has one writer.
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

    /// FROM item with the parameters as the table `r`, one row per changed row.
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

    /// SQLite's common table expression `r`, which precedes the statement.
    fn values(&self, rows: usize) -> String {
        let row = format!("({})", join(self.shape.columns().map(|_| "?".to_owned())));
        format!("WITH r({}) AS (VALUES {}) ", self.names(), join((0..rows).map(|_| row.clone())))
    }

    /// Column names of `r`, separated by commas.
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
                // The unary plus stops SQLite from using an index on this column instead of the key's.
                (Dialect::Sqlite, false) => format!("+t.{name} = {value}"),
                (Dialect::Sqlite, true) => format!("+t.{name} IS {value}"),
                (Dialect::Postgres, false) => format!("t.{name} = {value}"),
                (Dialect::Postgres, true) => format!("t.{name} IS NOT DISTINCT FROM {value}"),
            }
        });
        key.chain(expect).collect::<Vec<_>>().join(" AND ")
    }

    /// Expression for the primary key as one text, its columns joined by [`KEY_SEPARATOR`].
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
