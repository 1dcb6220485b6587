//! Rows as the two databases give them, and the types that their columns are read as.

use serde_json::Value;
use tenantry_model::Datum;

use super::Stamp;
use super::failed::Failed;

/// How a column's values travel and are kept.
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
    /// An instant.
    Time,
}

/// A type that a column is read as.
pub trait Field: rusqlite::types::FromSql + tokio_postgres::types::FromSqlOwned + Send + 'static {
    /// How its values are kept.
    const KIND: Kind;
    /// Whether the column may be null.
    const NULLABLE: bool = false;

    /// The value as the writer takes it.
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

/// A row of one of the databases.
pub enum Row<'a> {
    /// Of SQLite.
    Sqlite(&'a rusqlite::Row<'a>),
    /// Of PostgreSQL.
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    /// The value of a column, by its place in the query.
    pub fn get<T: Field>(&self, column: usize) -> Result<T, Failed> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// The same of a column of this kind, as the writer takes it.
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

/// What a row is read as: its columns in the order of the query.
pub trait FromRow: Sized + Send + 'static {
    /// Reads it.
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
