//! Rows of query results, the same for both databases, and the Rust types that columns are read as.

use serde_json::Value;
use tenantry_model::Datum;

use super::Stamp;
use super::failed::Failed;

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    BigInt,
    /// Boolean.
    Bool,
    /// JSON of any shape.
    Json,
    /// Timestamp in UTC, with microseconds.
    Time,
}

/// A Rust type that a column can be read as.
pub trait Field: rusqlite::types::FromSql + tokio_postgres::types::FromSqlOwned + Send + 'static {
    /// Type of the column.
    const KIND: Kind;
    /// Whether the column may be NULL.
    const NULLABLE: bool = false;

    /// Converts the value to the form that the writer accepts.
    fn datum(&self) -> Datum;
}

macro_rules! fields {
    ($($type:ty: $kind:ident, $value:ident => $datum:expr;)*) => {$(
        impl Field for $type {
            const KIND: Kind = Kind::$kind;
            fn datum(&self) -> Datum {
                let $value = self;
                $datum
            }
        }
    )*};
}

fields! {
    String: Text, text => Datum::Text(text.as_str().into());
    i32: Int, number => Datum::Int((*number).into());
    i64: BigInt, number => Datum::Int(*number);
    bool: Bool, value => Datum::Bool(*value);
    Value: Json, value => Datum::Json(value.to_string().into());
    Stamp: Time, at => Datum::Text(at.0.to_string().into());
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;
    fn datum(&self) -> Datum {
        self.as_ref().map_or(Datum::Null, Field::datum)
    }
}

/// A row of a query result.
pub enum Row<'a> {
    /// From SQLite.
    Sqlite(&'a rusqlite::Row<'a>),
    /// From PostgreSQL.
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// Returns the value of a column; `column` is its index in the query, from 0 on. Returns an error if the value has
    /// another type.
    pub fn get<T: Field>(&self, column: usize) -> Result<T, Failed> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// Returns the value of a column of this type in the form that the writer accepts.
    pub fn datum(&self, column: usize, kind: Kind) -> Result<Datum, Failed> {
        Ok(match kind {
            Kind::Text => self.get::<Option<String>>(column)?.datum(),
            Kind::Int => self.get::<Option<i32>>(column)?.datum(),
            Kind::BigInt => self.get::<Option<i64>>(column)?.datum(),
            Kind::Bool => self.get::<Option<bool>>(column)?.datum(),
            Kind::Json => self.get::<Option<Value>>(column)?.datum(),
            Kind::Time => self.get::<Option<Stamp>>(column)?.datum(),
        })
    }
}

/// A Rust type that a whole row can be read as, from its columns in the order of the query.
pub trait FromRow: Sized + Send + 'static {
    /// Reads a row. Returns an error if a column has another type.
    fn from_row(row: &Row<'_>) -> Result<Self, Failed>;
}

macro_rules! tuples {
    ($(($($name:ident $column:literal),+))*) => {$(
        impl<$($name: Field),+> FromRow for ($($name,)+) {
            fn from_row(row: &Row<'_>) -> Result<Self, Failed> {
                Ok(($(row.get::<$name>($column)?,)+))
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8)
}
