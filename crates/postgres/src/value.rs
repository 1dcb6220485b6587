//! Values of parameters with the type that the server is told. Told types make overloaded functions unambiguous
//! and a statement the same through every pooler.

use serde_json::Value as Json;
use tokio_postgres::types::{ToSql, Type};

/// A value of a parameter.
pub trait Value: Sync {
    /// The value and its type.
    fn typed(&self) -> (&(dyn ToSql + Sync), Type);
}

macro_rules! values {
    ($($rust:ty => $sql:ident),+) => {
        $(impl Value for $rust {
            fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
                (self, Type::$sql)
            }
        })+
    };
}

values! {
    &str => TEXT, String => TEXT, Option<&str> => TEXT, bool => BOOL, i32 => INT4, i64 => INT8, Json => JSONB,
    &[&str] => TEXT_ARRAY, &[String] => TEXT_ARRAY, Vec<&str> => TEXT_ARRAY, Vec<String> => TEXT_ARRAY
}
