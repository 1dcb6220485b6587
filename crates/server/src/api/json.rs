//! Parses JSON from untrusted clients. Rejects duplicate keys, which two parsers could read differently, and
//! deep nesting. Errors give the position and never quote the input.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting; far below what would exhaust a thread's stack.
const MAX_DEPTH: u8 = 32;

/// A syntax error and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Reason, without quoting the input.
    pub reason: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the body is not valid JSON: {}, at line {}, column {}",
            self.reason, self.line, self.column
        )
    }
}

/// Parses a JSON text.
pub fn parse(bytes: &[u8]) -> Result<Value, Malformed> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| at(bytes, error.valid_up_to(), "it is not UTF-8"))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        let message = error.to_string();
        let reason = message.split(" at line ").next().unwrap_or("syntax error").to_owned();
        Malformed { line: error.line(), column: error.column(), reason }
    })
}

fn at(bytes: &[u8], position: usize, reason: &str) -> Malformed {
    let before = &bytes[..position.min(bytes.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    Malformed { line, column: before.len() - line_start + 1, reason: reason.to_owned() }
}

/// Deserializes a value that is nested this deep.
#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH {
            Ok(Self { depth: self.depth + 1 })
        } else {
            Err(E::custom(format_args!("it is nested deeper than {MAX_DEPTH} levels")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom("duplicate key in an object"));
            }
            object.insert(name, map.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,true,null,"ü\u0041"],"b":{"c":{}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(b" 7 ").unwrap(), json!(7));
    }

    #[test]
    fn errors_have_a_position_and_never_quote_the_input() {
        let cases: [(&[u8], usize, usize); 8] = [
            (b"", 1, 0),
            (b"{\"hunter2\": }", 1, 13),
            (b"{\n \"a\": 1,\n \"a\": 2}", 3, 4),
            (b"{\"a\": \"hunter2", 1, 14),
            (b"[1] hunter2", 1, 5),
            (b"{\"a\": 1e999}", 1, 11),
            (b"\"\xff\"", 1, 2),
            (b"{\n\"a\": \"\xc3\x28\"}", 2, 7),
        ];
        for (bytes, line, column) in cases {
            let error = parse(bytes).unwrap_err();
            assert_eq!(
                (error.line, error.column),
                (line, column),
                "{:?}: {error}",
                String::from_utf8_lossy(bytes)
            );
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn nesting_is_limited() {
        let deep = |n| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&deep(32)).is_ok());
        assert!(parse(&deep(33)).unwrap_err().reason.contains("deeper than 32"));
        assert!(parse(&deep(500_000)).is_err());
    }
}
