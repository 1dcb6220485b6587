//! A query: one SQL text for both databases, and a value for each `?` in it, in order.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use tenantry_model::{Datum, Timestamp};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::Stamp;
use super::table::Record;

/// A query and its values.
#[derive(Debug)]
pub struct Query {
    text: String,
    values: Vec<Parameter>,
    filtered: bool,
}

/// A value of a query.
pub enum Parameter {
    /// One value. A timestamp is given as text.
    One(Datum),
    /// A list of texts, for `IN ?`.
    List(Vec<String>),
}

/// Hides the value, because the driver logs parameters by their debug form.
impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Query {
    /// Starts a query with this text, which has no WHERE clause.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new(), filtered: false }
    }

    /// Starts a query that selects all columns of a table.
    pub fn of<R: Record>() -> Self {
        let columns: Vec<String> = R::COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
        Self::new(format!("SELECT {} FROM \"{}\"", columns.join(", "), R::TABLE))
    }

    /// Appends text, separated by a space.
    pub fn sql(mut self, text: &str) -> Self {
        self.text.push(' ');
        self.text.push_str(text);
        self
    }

    /// Appends the value of the next `?` in the text.
    pub fn value(mut self, value: impl Into<Parameter>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Adds a condition without a value to the WHERE clause.
    pub fn only(mut self, condition: &str) -> Self {
        self.text.push_str(if self.filtered { " AND " } else { " WHERE " });
        self.text.push_str(condition);
        self.filtered = true;
        self
    }

    /// Adds a condition with one value to the WHERE clause.
    pub fn filter(self, condition: &str, value: impl Into<Parameter>) -> Self {
        self.only(condition).value(value)
    }

    /// Adds a condition with one value to the WHERE clause, unless the value is none.
    pub fn filter_if(self, condition: &str, value: Option<impl Into<Parameter>>) -> Self {
        match value {
            Some(value) => self.filter(condition, value),
            None => self,
        }
    }

    /// Limits the number of rows.
    pub fn limit(self, rows: u64) -> Self {
        self.sql("LIMIT ?").value(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// Selects a page of a list, newest first: up to `limit` rows that are older than the row with the id `after`. Ids
    /// are ordered by creation, so rows that are added later do not shift the pages.
    pub fn newest(self, after: Option<&str>, limit: u64) -> Self {
        self.filter_if("id < ?", after).sql("ORDER BY id DESC").limit(limit)
    }

    /// Returns text and values.
    pub fn into_parts(self) -> (String, Vec<Parameter>) {
        (self.text, self.values)
    }
}

impl From<Datum> for Parameter {
    fn from(datum: Datum) -> Self {
        Self::One(datum)
    }
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Self::One(Datum::Text(text.into()))
    }
}

impl From<String> for Parameter {
    fn from(text: String) -> Self {
        Self::One(Datum::Text(text.into()))
    }
}

impl From<i64> for Parameter {
    fn from(number: i64) -> Self {
        Self::One(Datum::Int(number))
    }
}

impl From<Timestamp> for Parameter {
    fn from(at: Timestamp) -> Self {
        Self::One(Datum::Text(at.to_string().into()))
    }
}

impl From<Vec<String>> for Parameter {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

impl From<&[String]> for Parameter {
    fn from(list: &[String]) -> Self {
        Self::List(list.to_vec())
    }
}

/// Converts a value to a parameter of a SQLite statement.
pub fn to_sqlite(datum: &Datum) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match datum {
        Datum::Null => ValueRef::Null,
        Datum::Int(value) => ValueRef::Integer(*value),
        Datum::Bool(value) => ValueRef::Integer((*value).into()),
        Datum::Text(text) | Datum::Json(text) => ValueRef::Text(text.as_bytes()),
    })
}

impl rusqlite::ToSql for Parameter {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::One(datum) => to_sqlite(datum),
            Self::List(texts) => {
                ToSqlOutput::Owned(Value::Text(serde_json::Value::from(texts.as_slice()).to_string()))
            }
        })
    }
}

impl ToSql for Parameter {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let datum = match self {
            Self::List(texts) => return texts.to_sql(kind, out),
            Self::One(datum) => datum,
        };
        match (datum, kind) {
            (Datum::Null, _) => return Ok(IsNull::Yes),
            (Datum::Int(value), &Type::INT4) => out.put_i32(i32::try_from(*value)?),
            (Datum::Int(value), &Type::INT8) => out.put_i64(*value),
            (Datum::Bool(value), &Type::BOOL) => out.put_u8((*value).into()),
            (Datum::Text(text), &Type::TIMESTAMPTZ) => out.put_i64(Stamp(text.parse()?).to_postgres()),
            (Datum::Text(text), &Type::TEXT | &Type::VARCHAR | &Type::NAME) => out.put_slice(text.as_bytes()),
            _ => return Err(format!("the value does not have the type {kind}").into()),
        }
        Ok(IsNull::No)
    }

    /// Accepts every type; `to_sql` returns an error if the value does not fit.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
