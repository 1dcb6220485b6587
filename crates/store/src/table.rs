//! What the writer and generic reads know of a table: names, types, nullability, key. Each table says it once, as a
//! struct with its columns (`table!`).

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_model::{Columns, Datum, Write};

use super::ReadError;
use super::failed::Failed;
use super::query::{Parameter, Query};
use super::reads::Reads;
use super::row::{FromRow, Kind, Row};

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
}

/// A struct that is a row of a table, one field a column.
pub trait Record: FromRow {
    /// The table's name.
    const TABLE: &'static str;
    /// Its columns.
    const COLUMNS: &'static [Column];
    /// The columns of its primary key, in key order.
    const KEY: &'static [&'static str];

    /// The row, ready to be written.
    fn columns(&self) -> Columns;
}

/// A row's columns, ready to be written.
pub fn columns_of<R: Record>(row: &R) -> Columns {
    row.columns()
}

/// Inserts a row unless its key exists.
pub fn insert_absent<R: Record>(row: &R) -> Write {
    Write::insert_absent(R::TABLE, row.columns())
}

/// Inserts a row or updates the existing one.
pub fn upsert<R: Record>(row: &R) -> Write {
    Write::upsert(R::TABLE, row.columns())
}

/// Deletes a row.
pub fn delete<R: Record>(row: &R) -> Write {
    let (row, mut key) = (row.columns(), Columns::default());
    for name in R::KEY {
        key.put(name, row.get(name).cloned().unwrap_or(Datum::Null));
    }
    Write::delete(R::TABLE, key)
}

/// Declares a row and its table: `table! { /// Doc. Model = "name" (key, …) { /// Doc. field: Type, … } }`. A field that
/// is no word of Rust's says its column: `kind as "type": String`.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $model:ident = $table:literal ($($key:literal),+)
        { $($(#[$field_doc:meta])* $field:ident $(as $column:literal)?: $type:ty,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct $model {
            $($(#[$field_doc])* $(#[serde(rename = $column)])? pub $field: $type,)+
        }

        impl $crate::row::FromRow for $model {
            fn from_row(row: &$crate::row::Row<'_>) -> Result<Self, $crate::failed::Failed> {
                let mut columns = 0..;
                // There is always a next number.
                let mut next = || columns.next().unwrap_or_default();
                Ok(Self { $($field: row.get(next())?,)+ })
            }
        }

        impl $crate::table::Record for $model {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [$crate::table::Column] = &[$(
                $crate::table::Column {
                    name: $crate::table::table!(@name $field $($column)?),
                    kind: <$type as $crate::row::Field>::KIND,
                    nullable: <$type as $crate::row::Field>::NULLABLE,
                },
            )+];
            const KEY: &'static [&'static str] = &[$($key),+];

            fn columns(&self) -> tenantry_model::Columns {
                let mut columns = tenantry_model::Columns::default();
                $(columns.put(
                    $crate::table::table!(@name $field $($column)?),
                    $crate::row::Field::datum(&self.$field),
                );)+
                columns
            }
        }
    };
    (@name $field:ident $column:literal) => { $column };
    (@name $field:ident) => { stringify!($field) };
}
pub(crate) use table;

/// A table. Its columns are known by their numbers.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
    /// The primary key, as numbers of columns, in key order.
    pub key: Vec<usize>,
}

/// The values of a primary key.
pub type Key = Vec<Datum>;
/// Rows, and the key of the last one.
pub type Page = (Vec<Columns>, Option<Key>);

impl Table {
    /// The table of a record.
    pub fn of<R: Record>() -> Self {
        const { assert!(R::COLUMNS.len() <= ColumnSet::MOST, "a set of columns has no room for so many") }
        let number = |name: &&str| R::COLUMNS.iter().position(|column| column.name == *name);
        Self { name: R::TABLE, columns: R::COLUMNS, key: R::KEY.iter().filter_map(number).collect() }
    }

    /// The number of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The names of the primary key, quoted.
    pub fn key_names(&self) -> String {
        let names: Vec<String> = self.key.iter().map(|i| format!("\"{}\"", self.columns[*i].name)).collect();
        names.join(", ")
    }

    fn query(&self) -> Query {
        let columns: Vec<String> = self.columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
        Query::new(format!("SELECT {} FROM \"{}\"", columns.join(", "), self.name))
    }

    /// Rows with these column values, in key order, as JSON objects.
    pub async fn find(
        &self,
        reads: &Reads,
        equal: &[(&'static str, Value)],
    ) -> Result<Vec<Value>, ReadError> {
        let mut query = self.query();
        for (name, value) in equal {
            let unfit = || ReadError(format!("column {name} cannot be asked for like this"));
            self.column(name).ok_or_else(unfit)?;
            let condition = format!("\"{name}\" = ?");
            query = match value {
                Value::Null => query.only(&format!("\"{name}\" IS NULL")),
                Value::Bool(value) => query.filter(&condition, Datum::Bool(*value)),
                Value::String(value) => query.filter(&condition, value.as_str()),
                Value::Number(value) => query.filter(&condition, value.as_i64().ok_or_else(unfit)?),
                Value::Array(_) | Value::Object(_) => return Err(unfit()),
            };
        }
        let rows = self.rows(reads, query.sql(&format!("ORDER BY {}", self.key_names()))).await?;
        Ok(rows.into_iter().map(|row| Value::Object(row.to_json())).collect())
    }

    /// Up to so many rows in key order, those after this key; with the key of the last one.
    pub async fn page(&self, reads: &Reads, after: Option<Key>, limit: u64) -> Result<Page, ReadError> {
        let names = self.key_names();
        let mut query = self.query();
        if let Some(after) = after {
            let places = vec!["?"; after.len()].join(", ");
            query = query.only(&format!("({names}) > ({places})"));
            query = after.into_iter().map(Parameter::One).fold(query, Query::value);
        }
        let rows = self.rows(reads, query.sql(&format!("ORDER BY {names}")).limit(limit)).await?;
        let key = |row: &Columns| {
            let value = |i: &usize| row.get(self.columns[*i].name).cloned().unwrap_or(Datum::Null);
            self.key.iter().map(value).collect()
        };
        let last = rows.last().map(key);
        Ok((rows, last))
    }

    async fn rows(&self, reads: &Reads, query: Query) -> Result<Vec<Columns>, ReadError> {
        let columns = self.columns;
        reads.map(query, move |row| read(columns, row)).await
    }
}

fn read(columns: &'static [Column], row: &Row<'_>) -> Result<Columns, Failed> {
    let mut read = Columns::default();
    for (n, column) in columns.iter().enumerate() {
        read.put(column.name, row.datum(n, column.kind)?);
    }
    Ok(read)
}

/// A set of a table's columns, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnSet(u128);

impl ColumnSet {
    /// Most columns of a table.
    pub const MOST: usize = 128;

    /// The first so many.
    pub fn first(count: usize) -> Self {
        let mut set = Self::default();
        (0..count).for_each(|column| set.add(column));
        set
    }

    /// Adds a column.
    pub fn add(&mut self, column: usize) {
        self.0 |= 1 << column;
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The columns, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MOST).filter(move |column| self.0 >> column & 1 == 1)
    }
}

/// The tables of one database.
#[derive(Debug)]
pub struct Schema(pub Vec<Table>);

impl Schema {
    /// The table of this name and its number.
    pub fn table(&self, name: &str) -> Option<(u8, &Table)> {
        (0u8..).zip(&self.0).find(|(_, table)| table.name == name)
    }

    /// The table of this number.
    pub fn at(&self, number: u8) -> &Table {
        &self.0[usize::from(number)]
    }

    /// The tables by name, each with its columns and whether they may be null.
    pub fn describe(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, bool>> {
        let columns =
            |table: &Table| table.columns.iter().map(|column| (column.name, column.nullable)).collect();
        self.0.iter().map(|table| (table.name, columns(table))).collect()
    }
}
