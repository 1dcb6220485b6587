//! Columns of a row by name with their values, in the form that a database stores: scalars, and JSON as text.

use std::sync::Arc;

use serde::ser::{Error as _, Impossible, Serialize, Serializer};
use serde_json::{Map, Value};

/// A column's value. A JSON column accepts every variant.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text, an id, an enum variant or an instant.
    Text(Arc<str>),
    /// An array, an object or a fraction, as JSON text.
    Json(Arc<str>),
}

/// Columns of a row, each at most once. An absent column gets its default (insert) or keeps its value
/// (update).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns(Vec<(&'static str, Datum)>);

/// A value that no column can store: a map with keys other than text, or a number beyond 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

/// Columns by name: `columns! { "id": id, "state": "active", "finished_at": () }`. A value is any
/// serializable expression, taken by reference; `()` is NULL.
#[macro_export]
macro_rules! columns {
    ($($name:literal : $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut columns = $crate::Columns::default();
        $(columns.set($name, &$value);)*
        columns
    }};
}

impl Datum {
    /// The column value of a serializable value.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, Unfit> {
        match value.serialize(Scalar) {
            Err(_) => serde_json::to_string(value).map(|text| Self::Json(text.into())).map_err(Unfit::custom),
            datum => datum,
        }
    }

    /// The number, if it is a whole number.
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    /// The truth value, if it is one.
    pub fn bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The text of a text or JSON value.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) | Self::Json(text) = self { Some(text) } else { None }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::from(*value),
            Self::Text(text) => Value::from(&**text),
            Self::Json(text) => serde_json::from_str(text).unwrap_or_default(),
        }
    }
}

impl Columns {
    /// One column.
    pub fn one(name: &'static str, value: &(impl Serialize + ?Sized)) -> Self {
        let mut columns = Self::default();
        columns.set(name, value);
        columns
    }

    /// Sets a column; a value that cannot be serialized becomes NULL.
    pub fn set(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.put(name, Datum::of(value).unwrap_or(Datum::Null));
    }

    /// Sets a column to a column value.
    pub fn put(&mut self, name: &'static str, datum: Datum) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = datum,
            None => self.0.push((name, datum)),
        }
    }

    /// Sets each of these columns.
    pub fn extend(&mut self, others: Self) {
        others.into_iter().for_each(|(name, datum)| self.put(name, datum));
    }

    /// A column's value.
    pub fn get(&self, name: &str) -> Option<&Datum> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, datum)| datum)
    }

    /// The columns, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Datum)> {
        self.0.iter().map(|(name, datum)| (*name, datum))
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without columns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The columns as a JSON object.
    pub fn to_json(&self) -> Map<String, Value> {
        self.iter().map(|(name, datum)| (name.to_owned(), datum.to_json())).collect()
    }
}

impl IntoIterator for Columns {
    type Item = (&'static str, Datum);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl serde::ser::Error for Unfit {
    fn custom<T: std::fmt::Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

/// Serializes scalars; returns an error for compound values.
struct Scalar;

/// The error of `Scalar` for a compound value.
fn compound<T>() -> Result<T, Unfit> {
    Err(Unfit(String::new()))
}

macro_rules! numbers {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<Datum, Unfit> {
            i64::try_from(value).map(Datum::Int).map_err(Unfit::custom)
        }
    )*};
}

impl Serializer for Scalar {
    type Ok = Datum;
    type Error = Unfit;
    type SerializeSeq = Impossible<Datum, Unfit>;
    type SerializeTuple = Impossible<Datum, Unfit>;
    type SerializeTupleStruct = Impossible<Datum, Unfit>;
    type SerializeTupleVariant = Impossible<Datum, Unfit>;
    type SerializeMap = Impossible<Datum, Unfit>;
    type SerializeStruct = Impossible<Datum, Unfit>;
    type SerializeStructVariant = Impossible<Datum, Unfit>;

    numbers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    numbers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);

    fn serialize_bool(self, value: bool) -> Result<Datum, Unfit> {
        Ok(Datum::Bool(value))
    }
    fn serialize_char(self, value: char) -> Result<Datum, Unfit> {
        Ok(Datum::Text(value.to_string().into()))
    }
    fn serialize_str(self, value: &str) -> Result<Datum, Unfit> {
        Ok(Datum::Text(value.into()))
    }
    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<Datum, Unfit> {
        Ok(Datum::Text(value.to_string().into()))
    }
    fn serialize_none(self) -> Result<Datum, Unfit> {
        Ok(Datum::Null)
    }
    fn serialize_unit(self) -> Result<Datum, Unfit> {
        Ok(Datum::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Datum, Unfit> {
        value.serialize(self)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Datum, Unfit> {
        value.serialize(self)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, word: &'static str) -> Result<Datum, Unfit> {
        Ok(Datum::Text(word.into()))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Datum, Unfit> {
        Ok(Datum::Null)
    }
    fn serialize_f32(self, _: f32) -> Result<Datum, Unfit> {
        compound()
    }
    fn serialize_f64(self, _: f64) -> Result<Datum, Unfit> {
        compound()
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Datum, Unfit> {
        compound()
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Datum, Unfit> {
        compound()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Unfit> {
        compound()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unfit> {
        compound()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Unfit> {
        compound()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unfit> {
        compound()
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unfit> {
        compound()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Unfit> {
        compound()
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unfit> {
        compound()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Timestamp;
    use crate::id::EventId;

    #[test]
    fn values_keep_their_json_form() {
        let id = EventId::new();
        let cases: [(Datum, Value); 9] = [
            (Datum::of(&id).unwrap(), json!(id)),
            (Datum::of(&Timestamp::from_micros(5)).unwrap(), json!(Timestamp::from_micros(5))),
            (Datum::of(&Some("x")).unwrap(), json!("x")),
            (Datum::of(&None::<i64>).unwrap(), Value::Null),
            (Datum::of(&()).unwrap(), Value::Null),
            (Datum::of(&-7_i32).unwrap(), json!(-7)),
            (Datum::of(&u64::MAX).unwrap(), json!(u64::MAX)),
            (Datum::of(&json!({ "a": [1, null] })).unwrap(), json!({ "a": [1, null] })),
            (Datum::of(&json!(0.5)).unwrap(), json!(0.5)),
        ];
        for (datum, value) in cases {
            assert_eq!(datum.to_json(), value);
        }
        assert_eq!(Datum::of("text"), Ok(Datum::Text("text".into())));
        assert_eq!(Datum::of(&json!("text")), Ok(Datum::Text("text".into())));
    }

    #[test]
    fn setting_a_column_twice_replaces_it() {
        let mut row = columns! { "id": "a", "n": 1 };
        row.set("n", &2);
        assert_eq!(row, columns! { "id": "a", "n": 2 });
        assert_eq!((row.len(), row.get("n"), row.get("x")), (2, Some(&Datum::Int(2)), None));
        assert_eq!(Value::Object(row.to_json()), json!({ "id": "a", "n": 2 }));
    }
}
