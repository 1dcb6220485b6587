//! A query: its text, the same for both databases, and the values of its `?` in their order.

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
    /// One value. An instant is its text.
    One(Datum),
    /// A list of texts, for `IN ?`.
    List(Vec<String>),
}

/// The driver writes values into its log.
impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Query {
    /// From its beginning, without conditions.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new(), filtered: false }
    }

    /// All columns of a table.
    pub fn of<R: Record>() -> Self {
        let columns: Vec<String> = R::COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
        Self::new(format!("SELECT {} FROM \"{}\"", columns.join(", "), R::TABLE))
    }

    /// Adds text after the conditions.
    pub fn sql(mut self, text: &str) -> Self {
        self.text.push(' ');
        self.text.push_str(text);
        self
    }

    /// Adds a value for a `?` of the text.
    pub fn value(mut self, value: impl Into<Parameter>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Only rows that meet this condition, which has no values.
    pub fn only(mut self, condition: &str) -> Self {
        self.text.push_str(if self.filtered { " AND " } else { " WHERE " });
        self.text.push_str(condition);
        self.filtered = true;
        self
    }

    /// Only rows that meet this condition, which has one value.
    pub fn filter(self, condition: &str, value: impl Into<Parameter>) -> Self {
        self.only(condition).value(value)
    }

    /// The same, if there is a value.
    pub fn filter_if(self, condition: &str, value: Option<impl Into<Parameter>>) -> Self {
        match value {
            Some(value) => self.filter(condition, value),
            None => self,
        }
    }

    /// Up to so many rows.
    pub fn limit(self, rows: u64) -> Self {
        self.sql("LIMIT ?").value(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// A page of a list by id, newest first, from the row after this id on. Ids are ordered by creation, so a page stays
    /// right while rows are added.
    pub fn newest(self, after: Option<&str>, limit: u64) -> Self {
        self.filter_if("id < ?", after).sql("ORDER BY id DESC").limit(limit)
    }

    /// Text and values.
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

/// A value as SQLite takes it.
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
            _ => return Err(format!("the value is none of {kind}").into()),
        }
        Ok(IsNull::No)
    }

    /// Whether a value fits its column is known only when it is sent.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
