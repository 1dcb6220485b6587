//! Writes data to stdout: a table for people, or the API's response as JSON or YAML, unchanged.

use std::io::Write;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::yaml;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// Writes data to stdout.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Format.
    pub format: Format,
}

/// A column: its heading and the JSON pointer of its value in an entry.
pub type Column = (&'static str, &'static str);

impl Output {
    /// Creates an output with this format.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Writes a list of objects, one row each.
    pub fn list(&self, entries: &[Value], columns: &[Column]) -> Result<()> {
        if self.format != Format::Table {
            return self.value(&Value::from(entries.to_vec()));
        }
        let mut table = plain_table();
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        for entry in entries {
            table.add_row(columns.iter().map(|(_, at)| cell(entry.pointer(at).unwrap_or(&Value::Null))));
        }
        self.text(&trimmed(&table))
    }

    /// Writes one object, one row per field; fields that are null are left out.
    pub fn one(&self, value: &Value) -> Result<()> {
        if self.format != Format::Table {
            return self.value(value);
        }
        let mut table = plain_table();
        for (key, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            table.add_row([key.clone(), cell(value)]);
        }
        self.text(&trimmed(&table))
    }

    /// Writes a value as JSON, or as YAML for the other formats.
    pub fn value(&self, value: &Value) -> Result<()> {
        match self.format {
            Format::Json => self.text(&serde_json::to_string_pretty(value)?),
            Format::Table | Format::Yaml => self.text(&yaml::document(value)?),
        }
    }

    /// Writes text and a line break. A reader that has closed the pipe is not an error.
    pub fn text(&self, text: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Renders a table without the padding at both ends of its lines.
fn trimmed(table: &Table) -> String {
    table
        .lines()
        .map(|line| {
            line.trim_end().strip_prefix(' ').map(str::to_owned).unwrap_or(line.trim_end().to_owned())
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Array(entries) => entries.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_render_nested_values() {
        assert_eq!(cell(&json!(null)), "-");
        assert_eq!(cell(&json!(["a", "b"])), "a,b");
        assert_eq!(cell(&json!({ "a": 1, "b": [true] })), "a=1 b=true");
    }
}
