//! Writes YAML that every parser reads alike: a text that YAML 1.1 or 1.2 reads as a boolean, a number, a date or null is
//! quoted.

use anyhow::Result;
use serde::Serialize;
use yaml_serde::Value;

/// Words that YAML 1.1 does not read as texts.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// The document of a value, without a line break at its end.
pub fn document(value: &impl Serialize) -> Result<String> {
    let mut text = String::new();
    block(&yaml_serde::to_value(value)?, 0, &mut text);
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Writes the lines of a value, each with this indentation.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Mapping(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                out.extend(std::iter::repeat_n(' ', indent));
                out.push_str(&scalar(key));
                out.push(':');
                match value {
                    Value::Mapping(fields) if !fields.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    Value::Sequence(entries) if !entries.is_empty() => {
                        out.push('\n');
                        block(value, indent, out);
                    }
                    value => {
                        out.push(' ');
                        out.push_str(&scalar(value));
                        out.push('\n');
                    }
                }
            }
        }
        Value::Sequence(entries) if !entries.is_empty() => {
            for entry in entries {
                out.extend(std::iter::repeat_n(' ', indent));
                out.push_str("- ");
                let mut lines = String::new();
                block(entry, indent + 2, &mut lines);
                out.push_str(lines.trim_start());
            }
        }
        value => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

/// A value that needs one line.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if is_plain(text) => text.clone(),
        // The escapes of JSON are escapes of YAML too.
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Sequence(_) => "[]".to_owned(),
        Value::Mapping(_) => "{}".to_owned(),
        Value::Tagged(tagged) => scalar(&tagged.value),
    }
}

/// Whether a text needs no quotes: it begins with a letter, has nothing that could be syntax, and is not a word with a
/// meaning.
fn is_plain(text: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || " _-./@+=(),;".contains(c);
    text.starts_with(char::is_alphabetic)
        && !text.ends_with(' ')
        && text.chars().all(inside)
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_with_a_meaning_are_quoted() {
        for word in [
            "No",
            "on",
            "y",
            "NULL",
            "~",
            "",
            "1e3",
            "0o7",
            "1:30",
            "2026-11-30",
            ".inf",
            "a: b",
            "a #b",
            "- a",
            "a\nb",
            " a",
        ] {
            let text = document(&json!({ "k": word })).unwrap();
            assert_eq!(text, format!("k: {}", json!(word)));
            assert_eq!(document(&json!({ word: 1 })).unwrap(), format!("{}: 1", json!(word)));
        }
        assert_eq!(
            document(&json!({ "state": "succeeded", "of": 1, "b": true })).unwrap(),
            "b: true\nof: 1\nstate: succeeded"
        );
    }

    #[test]
    fn a_parser_reads_the_same_values() {
        let value = json!({
            "empty": [{}, [], null], "deep": [[1, ["no"]], { "a": { "b": ["x", { "c": "y" }] } }], "on": { "off": -1.5 },
            "text": "Zoë says \"yes\",\n# twice\t\\ ", "list": [{ "a": 1, "b": { "c": [] } }, { "a": 2 }],
        });
        for value in [value, json!([]), json!({}), json!("no"), json!(["a", [["b"]]])] {
            let text = document(&value).unwrap();
            let back: serde_json::Value =
                yaml_serde::from_str(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
            assert_eq!(back, value, "{text}");
        }
    }
}
