//! The faults of a set of migrations, collected over all files and reported in one failure.

use std::fmt::Write as _;

use tenantry_model::Failure;

use super::tool::Tool;

/// Maximum number of faults that a message lists; the rest is counted.
const LISTED: usize = 50;

/// What is wrong with a set of migrations.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

#[derive(Debug)]
struct Fault {
    file: String,
    /// None: the file as a whole.
    line: Option<usize>,
    text: String,
}

impl Faults {
    /// Adds a fault of a file as a whole, such as its name.
    pub fn of_file(&mut self, file: &str, tool: Tool, text: impl Into<String>) {
        self.add(file, None, tool, text);
    }

    /// Adds a fault at a line; the first line is 1.
    pub fn at(&mut self, file: &str, line: usize, tool: Tool, text: impl Into<String>) {
        self.add(file, Some(line), tool, text);
    }

    /// Adds a fault at a line, or of a file as a whole.
    pub fn add(&mut self, file: &str, line: Option<usize>, tool: Tool, text: impl Into<String>) {
        self.0.push(Fault { file: file.to_owned(), line, text: with_tool(tool, text.into()) });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The failure that lists them, by file and line; `Ok` if there are none.
    pub fn into_result(mut self, set: &str) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        self.0.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let lines = self.0.iter().take(LISTED).map(|Fault { file, line, text }| match line {
            Some(line) => format!("{file}:{line}: {text}"),
            None => format!("{file}: {text}"),
        });
        let lines: Vec<String> = lines.collect();
        let mut message = match lines.as_slice() {
            [one] => one.clone(),
            _ => format!("the set `{set}` has {} faults:\n{}", self.0.len(), lines.join("\n")),
        };
        if self.0.len() > LISTED {
            let _ = write!(message, "\nand {} more", self.0.len() - LISTED);
        }
        Err(Failure::fatal("bad_migration", message))
    }
}

fn with_tool(tool: Tool, text: String) -> String {
    match tool.name() {
        "" => text,
        name => format!("{name}: {text}"),
    }
}
