//! `Stamp`: a `Timestamp` as a column. PostgreSQL keeps `timestamptz`; SQLite keeps the 27-character text.
//!
//! As a bound parameter a stamp would be rendered differently by SQLite's driver, so no query binds one:
//! rows are written by the writer (as text, both databases), and pages and ranges go by id or sequence.

use std::ops::Deref;

use sea_orm::sea_query::{ArrayType, Nullable, ValueType, ValueTypeErr};
use sea_orm::{ColIdx, ColumnType, QueryResult, TryGetError, TryGetable, Value};
use serde::{Deserialize, Serialize};
use tenantry_model::Timestamp;

/// An instant in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(pub Timestamp);

impl Deref for Stamp {
    type Target = Timestamp;
    fn deref(&self) -> &Timestamp {
        &self.0
    }
}

impl From<Timestamp> for Stamp {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Stamp> for Timestamp {
    fn from(stamp: Stamp) -> Self {
        stamp.0
    }
}

impl From<Stamp> for Value {
    fn from(stamp: Stamp) -> Self {
        Value::ChronoDateTimeUtc(Some(stamp.0.to_chrono()))
    }
}

impl Nullable for Stamp {
    fn null() -> Value {
        Value::ChronoDateTimeUtc(None)
    }
}

impl ValueType for Stamp {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        match value {
            Value::ChronoDateTimeUtc(Some(at)) => Ok(Self(at.into())),
            _ => Err(ValueTypeErr),
        }
    }
    fn type_name() -> String {
        "Stamp".to_owned()
    }
    fn array_type() -> ArrayType {
        ArrayType::ChronoDateTimeUtc
    }
    fn column_type() -> ColumnType {
        ColumnType::TimestampWithTimeZone
    }
}

impl TryGetable for Stamp {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        row.try_get_by_nullable::<chrono::DateTime<chrono::Utc>, I>(index).map(|at| Self(at.into()))
    }
}
