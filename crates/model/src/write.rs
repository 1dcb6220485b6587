//! A write to one row of the registry, as data: the change and its condition. Use cases and steps create
//! writes; the store executes them as SQL in batches.

use crate::columns::Columns;

/// One change of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The table's name.
    pub table: &'static str,
    /// The change.
    pub change: Change,
}

/// Kind of change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new row. With `unique`, a conflict rejects the write batch; otherwise the key is new and a conflict
    /// is a defect.
    Insert {
        /// The row.
        row: Columns,
        /// True for a guard.
        unique: bool,
    },
    /// A new row unless one with this key exists, for rows that a repeated step must not overwrite.
    InsertAbsent {
        /// The row.
        row: Columns,
    },
    /// A new row, or these columns of the existing one.
    Upsert {
        /// The row.
        row: Columns,
    },
    /// New values for columns of the row with this key. A row that does not match `expect` rejects the write
    /// batch.
    Update {
        /// The primary key.
        key: Columns,
        /// Compare-and-set condition.
        expect: Columns,
        /// New values.
        set: Columns,
        /// Increments the row's `version`.
        bump: bool,
    },
    /// Deletes the row with this key, if it exists.
    Delete {
        /// The primary key, or its leading columns.
        key: Columns,
    },
}

impl Write {
    /// Inserts a row with a new key.
    pub fn insert(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::Insert { row, unique: false } }
    }
    /// Inserts a row; rejects the write batch when a unique column is taken.
    pub fn insert_unique(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::Insert { row, unique: true } }
    }
    /// Inserts a row unless its key exists.
    pub fn insert_absent(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::InsertAbsent { row } }
    }
    /// Inserts a row or updates the existing one.
    pub fn upsert(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::Upsert { row } }
    }
    /// Updates columns of a row.
    pub fn update(table: &'static str, key: Columns, set: Columns) -> Self {
        Self { table, change: Change::Update { key, expect: Columns::default(), set, bump: false } }
    }
    /// Updates columns of a row that matches `expect`, and increments its `version`.
    pub fn compare_and_set(table: &'static str, key: Columns, expect: Columns, set: Columns) -> Self {
        Self { table, change: Change::Update { key, expect, set, bump: true } }
    }
    /// Updates columns of a row that matches `expect` and has no `version`.
    pub fn update_if(table: &'static str, key: Columns, expect: Columns, set: Columns) -> Self {
        Self { table, change: Change::Update { key, expect, set, bump: false } }
    }
    /// Deletes a row.
    pub fn delete(table: &'static str, key: Columns) -> Self {
        Self { table, change: Change::Delete { key } }
    }
    /// True when this write can reject its write batch.
    pub fn is_guard(&self) -> bool {
        match &self.change {
            Change::Insert { unique, .. } => *unique,
            Change::Update { expect, .. } => !expect.is_empty(),
            Change::InsertAbsent { .. } | Change::Upsert { .. } | Change::Delete { .. } => false,
        }
    }
}
