//! A write to one row of the registry, as data: what to change, and what must hold for it to be allowed.
//!
//! Steps and use cases say what they want written; the store alone turns it into SQL, many at a time.

use crate::columns::Columns;

/// One change of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The table's name.
    pub table: &'static str,
    /// The change.
    pub change: Change,
}

/// What to do with the row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new row. `unique` says that a conflict can happen and must reject the whole unit of work; without it the
    /// key is fresh and a conflict is a defect.
    Insert {
        /// The row.
        row: Columns,
        /// Whether this is a guard.
        unique: bool,
    },
    /// A new row unless one with this key is there: for things that a repeated step must not overwrite.
    InsertAbsent {
        /// The row.
        row: Columns,
    },
    /// A new row, or these columns of the one that is there.
    Upsert {
        /// The row.
        row: Columns,
    },
    /// Some columns of the row with this key. If `expect` is not empty, every column in it must have this value
    /// now, else the whole unit of work is rejected.
    Update {
        /// The primary key.
        key: Columns,
        /// Compare-and-set condition.
        expect: Columns,
        /// New values.
        set: Columns,
        /// Raise the row's `version` by one.
        bump: bool,
    },
    /// The row with this key, or nothing.
    Delete {
        /// The primary key, or the leading part of it.
        key: Columns,
    },
}

impl Write {
    /// A row with a fresh key.
    pub fn insert(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::Insert { row, unique: false } }
    }
    /// A row whose unique columns may be taken: rejects the unit of work if they are.
    pub fn insert_unique(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::Insert { row, unique: true } }
    }
    /// A row unless it is there.
    pub fn insert_absent(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::InsertAbsent { row } }
    }
    /// A row, new or replaced.
    pub fn upsert(table: &'static str, row: Columns) -> Self {
        Self { table, change: Change::Upsert { row } }
    }
    /// Columns of a row.
    pub fn update(table: &'static str, key: Columns, set: Columns) -> Self {
        Self { table, change: Change::Update { key, expect: Columns::default(), set, bump: false } }
    }
    /// Columns of a row if it is as expected; raises its `version`.
    pub fn compare_and_set(table: &'static str, key: Columns, expect: Columns, set: Columns) -> Self {
        Self { table, change: Change::Update { key, expect, set, bump: true } }
    }
    /// Columns of a row without a `version`, if it is as expected.
    pub fn update_if(table: &'static str, key: Columns, expect: Columns, set: Columns) -> Self {
        Self { table, change: Change::Update { key, expect, set, bump: false } }
    }
    /// No row.
    pub fn delete(table: &'static str, key: Columns) -> Self {
        Self { table, change: Change::Delete { key } }
    }
    /// Whether this write can reject its unit of work.
    pub fn is_guard(&self) -> bool {
        match &self.change {
            Change::Insert { unique, .. } => *unique,
            Change::Update { expect, .. } => !expect.is_empty(),
            Change::InsertAbsent { .. } | Change::Upsert { .. } | Change::Delete { .. } => false,
        }
    }
}
