//! Describes the registry's tables for the writer and for generic reads: names, types, nullability, primary
//! key. The macro `table!` declares each table once, as a struct with one field per column. Reads rows, and
//! builds writes without executing them.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_model::{Columns, Datum, Write};

use super::ReadError;
use super::failed::Failed;
use super::query::{Parameter, Query};
use super::reads::Reads;
use super::row::{FromRow, Kind, Row};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Name of the column.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Kind,
    /// Whether it accepts NULL.
    pub nullable: bool,
}

/// A struct that holds one row of a table, with one field per column.
pub trait Record: FromRow {
    /// Name of the table.
    const TABLE: &'static str;
    /// Columns of the table, in the order of the fields.
    const COLUMNS: &'static [Column];
    /// Names of the primary key's columns, in key order.
    const KEY: &'static [&'static str];

    /// Returns the row's values by column name, for a [`Write`].
    fn columns(&self) -> Columns;
}

/// Returns a row's values by column name, for a [`Write`].
pub fn columns_of<R: Record>(row: &R) -> Columns {
    row.columns()
}

/// Returns the write that inserts a row unless its key exists.
pub fn insert_absent<R: Record>(row: &R) -> Write {
    Write::insert_absent(R::TABLE, row.columns())
}

/// Returns the write that inserts a row or updates the existing one.
pub fn upsert<R: Record>(row: &R) -> Write {
    Write::upsert(R::TABLE, row.columns())
}

/// Returns the write that deletes the row with this row's primary key.
pub fn delete<R: Record>(row: &R) -> Write {
    let (row, mut key) = (row.columns(), Columns::default());
    for name in R::KEY {
        key.put(name, row.get(name).cloned().unwrap_or(Datum::Null));
    }
    Write::delete(R::TABLE, key)
}

/// Declares a row and its table: `table! { /// Doc. Model = "name" (key, …) { /// Doc. field: Type, … } }`. A
/// field whose column has a name that Rust reserves gives that name separately: `kind as "type": String`.
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
                // `0..` never ends, so the default is never used.
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

/// A table. A column's number is its index in `columns`.
#[derive(Debug)]
pub struct Table {
    /// Name of the table.
    pub name: &'static str,
    /// Columns of the table.
    pub columns: &'static [Column],
    /// Numbers of the primary key's columns, in key order.
    pub key: Vec<usize>,
}

/// The values of a primary key.
pub type Key = Vec<Datum>;
/// Rows, and the primary key of the last one; no key if there are no rows.
pub type Page = (Vec<Columns>, Option<Key>);

impl Table {
    /// The table that a record declares.
    pub fn of<R: Record>() -> Self {
        const { assert!(R::COLUMNS.len() <= ColumnSet::MOST, "a set of columns has no room for so many") }
        let number = |name: &&str| R::COLUMNS.iter().position(|column| column.name == *name);
        Self { name: R::TABLE, columns: R::COLUMNS, key: R::KEY.iter().filter_map(number).collect() }
    }

    /// Number of the column with this name; none if the table has no such column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Names of the primary key's columns, quoted and separated by commas.
    pub fn key_names(&self) -> String {
        let names: Vec<String> = self.key.iter().map(|i| format!("\"{}\"", self.columns[*i].name)).collect();
        names.join(", ")
    }

    fn query(&self) -> Query {
        let columns: Vec<String> = self.columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
        Query::new(format!("SELECT {} FROM \"{}\"", columns.join(", "), self.name))
    }

    /// Reads the rows with these column values, in key order, as JSON objects. Returns an error for an
    /// unknown column, an array, an object, or a number that is no 64-bit integer.
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

    /// Reads up to `limit` rows in key order, starting after the row with the primary key `after`.
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

/// A set of columns of one table, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnSet(u128);

impl ColumnSet {
    /// Most columns of a table.
    pub const MOST: usize = 128;

    /// The first `count` columns of a table.
    pub fn first(count: usize) -> Self {
        let mut set = Self::default();
        (0..count).for_each(|column| set.add(column));
        set
    }

    /// Adds the column with this number.
    pub fn add(&mut self, column: usize) {
        self.0 |= 1 << column;
    }

    /// Whether the set has no columns.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Numbers of the columns, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MOST).filter(move |column| self.0 >> column & 1 == 1)
    }
}

/// The tables of one database.
#[derive(Debug)]
pub struct Schema(pub Vec<Table>);

impl Schema {
    /// The table with this name, and its number; none if the database has no such table.
    pub fn table(&self, name: &str) -> Option<(u8, &Table)> {
        (0u8..).zip(&self.0).find(|(_, table)| table.name == name)
    }

    /// The table with this number, which [`Self::table`] has returned.
    pub fn at(&self, number: u8) -> &Table {
        &self.0[usize::from(number)]
    }

    /// Whether each column accepts NULL, by table and column name.
    pub fn describe(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, bool>> {
        let columns =
            |table: &Table| table.columns.iter().map(|column| (column.name, column.nullable)).collect();
        self.0.iter().map(|table| (table.name, columns(table))).collect()
    }
}
