//! Write batches: rows that are written together or not at all, and their preparation for the writer. Pure,
//! no I/O.
//!
//! The caller's task prepares a batch: it checks names and types, replaces names by numbers, and orders
//! writes to the same row. The writer then only sends the values.

use std::hash::{DefaultHasher, Hash, Hasher};

use tenantry_model::write::Change;
use tenantry_model::{Columns, Datum, Write};

use super::row::Kind;
use super::statement::{KEY_SEPARATOR, Shape, Verb};
use super::table::{Column, ColumnSet, Schema, Table};

/// Writes that are committed together or not at all.
///
/// Guards (`Write::is_guard`) see the rows as they were before this batch's effects, except where both name the same
/// row: then the order of the writes holds.
#[derive(Debug, Default)]
pub struct WriteBatch {
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// Epoch of the executor that commits; rejected as stale if the registry has a newer one. None: not checked.
    pub epoch: Option<i64>,
}

impl WriteBatch {
    /// A batch of these writes without an epoch.
    pub fn new(writes: Vec<Write>) -> Self {
        Self { writes, epoch: None }
    }
}

/// Error of a commit. The batch was not written, except perhaps after [`Rejected::Unavailable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A unique value is taken.
    #[error("conflict in {table}")]
    Conflict {
        /// Table that has the value.
        table: &'static str,
    },
    /// A row is not as expected, or a newer executor has taken over (table `leader`).
    #[error("{table} {key} has changed since it was read")]
    Stale {
        /// Table of the row.
        table: &'static str,
        /// Primary key of the row.
        key: String,
    },
    /// The batch or its values do not fit the schema: a defect of the caller.
    #[error("the rows for table {table} do not fit the schema")]
    Invalid {
        /// Table of the rows.
        table: &'static str,
        /// Reason. It may quote values, so the error's text leaves it out.
        message: String,
    },
    /// The database does not answer, or cannot write (disk full …). The batch may or may not have been written.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
}

/// The prepared change of one row. The writer combines changes of the same shape into one statement.
#[derive(Debug)]
pub(super) struct Item {
    pub shape: Shape,
    /// Order within the batch: items that may touch the same row have ascending waves, and are written in
    /// this order.
    pub wave: u16,
    /// Values for the statement: those of the key, the compared and the written columns, each group by column
    /// number.
    pub cells: Vec<Datum>,
    /// Hash of table and key. A collision only delays a write.
    pub row: u64,
    /// The key as the statement returns it; empty if the statement returns no keys.
    pub key: String,
    /// Whether the key is complete. A deletion may give only the leading columns, and then deletes all rows
    /// with them.
    pub one_row: bool,
}

/// A prepared batch.
#[derive(Debug)]
pub(super) struct Prepared {
    pub items: Vec<Item>,
    pub epoch: Option<i64>,
    /// Approximate size of the values, in bytes.
    pub bytes: usize,
    /// Whether it must be committed without other batches, because it deletes rows by an incomplete key.
    pub alone: bool,
    /// Whether it inserts events or audit records, which the sealer numbers after the commit.
    pub facts: bool,
}

impl Prepared {
    /// Prepares a batch. Returns an error for unknown names, values of another type and incomplete keys.
    pub fn new(schema: &'static Schema, batch: WriteBatch) -> Result<Self, Rejected> {
        let items = Vec::with_capacity(batch.writes.len());
        let mut prepared = Self { items, epoch: batch.epoch, bytes: 0, alone: false, facts: false };
        for write in batch.writes {
            prepared.push(schema, write)?;
        }
        Ok(prepared)
    }

    fn push(&mut self, schema: &'static Schema, write: Write) -> Result<(), Rejected> {
        let unknown = Rejected::Invalid { table: write.table, message: "no such table".to_owned() };
        let (number, table) = schema.table(write.table).ok_or(unknown)?;
        let key = match &write.change {
            Change::Insert { row: key, .. }
            | Change::InsertAbsent { row: key }
            | Change::Upsert { row: key }
            | Change::Update { key, .. }
            | Change::Delete { key } => key,
        };
        let one_row = table.key.iter().all(|i| key.get(table.columns[*i].name).is_some());
        let keyless = key.is_empty();
        let key = key_text(table, key);
        let mut cells = Cells { table, cells: Vec::new(), bytes: 0 };
        let shape = |verb, key, expect, set, bump| Shape { table: number, verb, key, expect, set, bump };
        let none = ColumnSet::default();
        let shape = match write.change {
            Change::Insert { row, unique } => {
                let verb = if unique { Verb::InsertGuard } else { Verb::Insert };
                shape(verb, none, none, cells.add(row)?, false)
            }
            Change::InsertAbsent { row } => shape(Verb::InsertAbsent, none, none, cells.add(row)?, false),
            Change::Upsert { row } => shape(Verb::Upsert, none, none, cells.add(row)?, false),
            Change::Update { key, expect, set, bump } => {
                let columns = (cells.add(key)?, cells.add(expect)?, cells.add(set)?);
                let verb = if columns.2.is_empty() && !bump { Verb::Check } else { Verb::Update };
                shape(verb, columns.0, columns.1, columns.2, bump)
            }
            Change::Delete { key } => shape(Verb::Delete, cells.add(key)?, none, none, false),
        };
        if keyless || !one_row && shape.verb != Verb::Delete {
            return Err(Rejected::Invalid { table: table.name, message: "the key is incomplete".to_owned() });
        }
        let row = row_hash(number, &key);
        let wave = self.wave(number, row, one_row);
        self.alone |= !one_row;
        self.facts |= shape.verb == Verb::Insert && table.column("seq").is_some();
        self.bytes += cells.bytes;
        let key = if shape.returns_keys() { key } else { String::new() };
        self.items.push(Item { shape, wave, cells: cells.cells, row, key, one_row });
        Ok(())
    }

    /// The lowest wave above those of all items that may touch the same row.
    fn wave(&self, table: u8, row: u64, one_row: bool) -> u16 {
        let before = self
            .items
            .iter()
            .filter(|item| item.row == row || item.shape.table == table && !(one_row && item.one_row));
        before.map(|item| item.wave.saturating_add(1)).max().unwrap_or(0)
    }
}

fn row_hash(table: u8, key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (table, key).hash(&mut hasher);
    hasher.finish()
}

fn key_text(table: &Table, row: &Columns) -> String {
    let mut text = String::new();
    for (n, i) in table.key.iter().enumerate() {
        if n > 0 {
            text.push(KEY_SEPARATOR);
        }
        match row.get(table.columns[*i].name) {
            Some(Datum::Int(value)) => text.push_str(&value.to_string()),
            Some(Datum::Bool(value)) => text.push_str(&value.to_string()),
            Some(Datum::Text(value) | Datum::Json(value)) => text.push_str(value),
            Some(Datum::Null) | None => {}
        }
    }
    text
}

/// The values of one row for a statement, and their approximate size in bytes.
struct Cells {
    table: &'static Table,
    cells: Vec<Datum>,
    bytes: usize,
}

impl Cells {
    /// Adds values in the order of the table's columns; returns the set of their columns.
    fn add(&mut self, row: Columns) -> Result<ColumnSet, Rejected> {
        let mut set = ColumnSet::default();
        let mut found = Vec::with_capacity(row.len());
        for (name, datum) in row {
            let invalid = |message| Rejected::Invalid { table: self.table.name, message };
            let i = self.table.column(name).ok_or_else(|| invalid(format!("no column {name}")))?;
            let cell = cell(&self.table.columns[i], datum)
                .map_err(|datum| invalid(format!("{name} cannot be {}", datum.to_json())))?;
            set.add(i);
            self.bytes += cell.text().map_or(8, str::len);
            found.push((i, cell));
        }
        found.sort_unstable_by_key(|(i, _)| *i);
        self.cells.extend(found.into_iter().map(|(_, cell)| cell));
        Ok(set)
    }
}

/// Converts a value to its column's type; returns the value as the error if the types differ.
fn cell(column: &Column, datum: Datum) -> Result<Datum, Datum> {
    Ok(match (column.kind, datum) {
        // In a column that may not be NULL, JSON null is the JSON value null.
        (Kind::Json, Datum::Null) if !column.nullable => Datum::Json("null".into()),
        (_, Datum::Null) => Datum::Null,
        (Kind::Json, Datum::Json(text)) => Datum::Json(text),
        (Kind::Json, datum) => Datum::Json(datum.to_json().to_string().into()),
        (Kind::Text, Datum::Text(text)) => Datum::Text(text),
        // Only timestamps of this length sort as text in the order of time.
        (Kind::Time, Datum::Text(text)) if text.len() == 27 && text.ends_with('Z') => Datum::Text(text),
        (Kind::Int, Datum::Int(value)) if i32::try_from(value).is_ok() => Datum::Int(value),
        (Kind::BigInt, Datum::Int(value)) => Datum::Int(value),
        (Kind::Bool, Datum::Bool(value)) => Datum::Bool(value),
        (_, datum) => return Err(datum),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        let column = |kind| Column { name: "n", kind, nullable: false };
        let large = i64::from(i32::MAX) + 1;
        assert!(cell(&column(Kind::Int), Datum::Int(large)).is_err());
        assert!(cell(&column(Kind::Int), Datum::Int(large - 1)).is_ok());
        assert!(cell(&column(Kind::BigInt), Datum::Int(large)).is_ok());
    }
}
