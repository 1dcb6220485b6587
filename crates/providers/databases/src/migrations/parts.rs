//! The Up parts of a file that has marks of a tool: comments that say which lines go up and which go down.
//! Only the Up parts run. A mark that its tool would reject, or that could be misread, is a fault.

use super::lookup;
use super::statements::{Dialect, split};
use super::tool::Tool;

/// What is applied of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Up<'a> {
    /// In the order of the file; one if it has no marks.
    pub parts: Vec<Part<'a>>,
    /// The tool whose marks the file has.
    pub tool: Option<Tool>,
    pub transaction: bool,
}

/// Lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub text: &'a str,
    /// Line of the file at which the text begins.
    pub line: usize,
}

/// What a line marks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Up { transaction: bool },
    Down,
    BlockBegin,
    BlockEnd,
    NoTransaction,
    Refused(String),
}

/// The Up parts; on failure the lines at fault.
pub fn up(text: &str) -> Result<Up<'_>, Vec<(usize, Tool, String)>> {
    let transaction = in_transaction(text);
    let mut marks = marks(text);
    // Prose such as "down migration: none" is a mark of node-pg-migrate, so marks of another tool decide.
    if marks.iter().any(|found| found.tool != Tool::NodePgMigrate) {
        marks.retain(|found| found.tool != Tool::NodePgMigrate);
    }
    let Some(tool) = marks.first().map(|found| found.tool) else {
        return Ok(Up { parts: vec![Part { text, line: 1 }], tool: None, transaction });
    };
    let mut parts = Parts { tool, ..Parts::default() };
    for found in marks {
        parts.read(found);
    }
    parts.finish(text, transaction)
}

/// A mark in the text.
struct MarkedLine {
    tool: Tool,
    mark: Mark,
    line: usize,
    /// Where its line begins and ends.
    begin: usize,
    end: usize,
}

fn marks(text: &str) -> Vec<MarkedLine> {
    let mut all = Vec::new();
    let mut begin = 0;
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        let end = begin + content.len();
        if let Some((tool, mark)) = mark(content.trim_end()) {
            all.push(MarkedLine { tool, mark, line, begin, end });
        }
        begin = end;
    }
    all
}

fn mark(line: &str) -> Option<(Tool, Mark)> {
    let comment = line.trim_start().strip_prefix("--")?;
    let indented = !line.starts_with("--");
    if comment.contains("+goose") {
        return Some((Tool::Goose, goose(line, indented)));
    }
    if comment.contains("+migrate") {
        return Some((Tool::SqlMigrate, sql_migrate(line)));
    }
    let comment = comment.trim_start();
    if let Some(options) = comment.strip_prefix("migrate:up") {
        return Some((Tool::Dbmate, dbmate(options, Mark::Up { transaction: !has_option(options) })));
    }
    if let Some(options) = comment.strip_prefix("migrate:down") {
        return Some((Tool::Dbmate, dbmate(options, Mark::Down)));
    }
    let comment = comment.trim_start_matches(|c: char| c == '-' || c.is_whitespace()).to_lowercase();
    let mut words = comment.split_whitespace();
    match (words.next()?, words.next()?) {
        ("up", second) if second.starts_with("migration") => {
            Some((Tool::NodePgMigrate, Mark::Up { transaction: true }))
        }
        ("down", second) if second.starts_with("migration") => Some((Tool::NodePgMigrate, Mark::Down)),
        _ => None,
    }
}

/// goose's rules: <https://github.com/pressly/goose/blob/main/internal/sqlparser/parser.go>
fn goose(line: &str, indented: bool) -> Mark {
    if indented {
        return Mark::Refused("a mark must begin its line: remove the space before it".to_owned());
    }
    let words = line.replace("--", "").replacen("+goose", "", 1);
    match &*words.trim().to_ascii_lowercase() {
        "up" => Mark::Up { transaction: true },
        "down" => Mark::Down,
        "statementbegin" => Mark::BlockBegin,
        "statementend" => Mark::BlockEnd,
        "no transaction" => Mark::NoTransaction,
        "envsub on" => Mark::Refused(
            "ENVSUB puts environment variables into the text, which is not supported: write the values"
                .to_owned(),
        ),
        // Nothing is substituted anyway.
        "envsub off" => Mark::Refused("ENVSUB is not supported: remove the line".to_owned()),
        other => Mark::Refused(format!("`{other}` is not a mark of goose: correct it")),
    }
}

/// sql-migrate's rules: <https://github.com/rubenv/sql-migrate/blob/master/sqlparse/sqlparse.go>
fn sql_migrate(line: &str) -> Mark {
    let Some(command) = line.strip_prefix("-- +migrate ") else {
        return Mark::Refused("sql-migrate does not see this mark: write it as `-- +migrate Up`".to_owned());
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["Up", options @ ..] => Mark::Up { transaction: !options.contains(&"notransaction") },
        ["Down", ..] => Mark::Down,
        ["StatementBegin"] => Mark::BlockBegin,
        ["StatementEnd"] => Mark::BlockEnd,
        _ => Mark::Refused(format!("`{}` is not a mark of sql-migrate: correct it", command.trim())),
    }
}

/// dbmate's rules: <https://github.com/amacneil/dbmate/blob/main/pkg/dbmate/migration.go>
fn dbmate(options: &str, mark: Mark) -> Mark {
    if options.is_empty() || options.starts_with(char::is_whitespace) {
        mark
    } else {
        Mark::Refused("dbmate does not see this mark: write `-- migrate:up` or `-- migrate:down`".to_owned())
    }
}

fn has_option(options: &str) -> bool {
    options.split_whitespace().any(|option| option == "transaction:false")
}

/// Which part the marks have led to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Before,
    Up,
    Down,
}

struct Parts {
    tool: Tool,
    at: At,
    /// Line of the open `StatementBegin`.
    block: Option<usize>,
    /// Where each Up part begins and ends, and its first line.
    ups: Vec<(usize, usize, usize)>,
    /// Where the first mark of an Up part begins.
    first_mark: usize,
    /// Option of the first Up part.
    transaction: bool,
    no_transaction: bool,
    faults: Vec<(usize, Tool, String)>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            tool: Tool::Plain,
            at: At::Before,
            block: None,
            ups: Vec::new(),
            first_mark: 0,
            transaction: true,
            no_transaction: false,
            faults: Vec::new(),
        }
    }
}

impl Parts {
    fn read(&mut self, MarkedLine { tool, mark, line, begin, end }: MarkedLine) {
        let mut fault = |text: String| self.faults.push((line, tool, text));
        if tool != self.tool {
            let first = self.tool.name();
            return fault(format!("the file has marks of {first} too: keep those of one tool"));
        }
        match mark {
            Mark::Refused(why) => fault(why),
            Mark::NoTransaction => self.no_transaction = true,
            Mark::Up { .. } | Mark::Down if self.block.is_some() => {
                fault("a part begins inside of a statement: write `StatementEnd` before it".to_owned());
                self.block = None;
            }
            Mark::Up { transaction } => {
                if self.at != At::Before && !self.tool.has_several_ups(self.at == At::Up) {
                    return fault("a second Up part: a file has one, so split the file".to_owned());
                }
                if self.ups.is_empty() {
                    (self.first_mark, self.transaction) = (begin, transaction);
                } else if self.tool == Tool::Dbmate && transaction != self.transaction {
                    // Tenantry applies a file as a whole.
                    return fault(
                        "an Up part with another `transaction` option than the first: split the file"
                            .to_owned(),
                    );
                }
                self.end_up(begin);
                self.at = At::Up;
                self.ups.push((end, usize::MAX, line + 1));
                self.no_transaction |= !transaction;
            }
            Mark::Down => match self.at {
                At::Up => {
                    self.end_up(begin);
                    self.at = At::Down;
                }
                At::Before => {
                    self.at = At::Down;
                    fault(
                        "a Down part without an Up part before it: mark the part that goes up, and put it first".to_owned(),
                    );
                }
                At::Down if self.tool == Tool::SqlMigrate => {}
                At::Down => fault("a second Down part: a file has one, so split the file".to_owned()),
            },
            Mark::BlockBegin => {
                if self.at == At::Before || self.block.is_some() {
                    fault(
                        "`StatementBegin` must stand in the Up or Down part, and not in another one"
                            .to_owned(),
                    );
                }
                self.block = Some(line);
            }
            Mark::BlockEnd => {
                if self.block.take().is_none() {
                    fault("`StatementEnd` without `StatementBegin`: add it, or remove this line".to_owned());
                }
            }
        }
    }

    fn finish(mut self, text: &str, transaction: bool) -> Result<Up<'_>, Vec<(usize, Tool, String)>> {
        if let Some(line) = self.block {
            let why = "`StatementBegin` without `StatementEnd`: add it after the statement".to_owned();
            self.faults.push((line, self.tool, why));
        }
        if self.ups.is_empty() {
            if self.faults.is_empty() {
                self.faults.push((
                    1,
                    self.tool,
                    "the file has no Up part: mark the part that goes up".to_owned(),
                ));
            }
            return Err(self.faults);
        }
        if let Some(line) = lookup::first_line(text.get(..self.first_mark).unwrap_or_default()) {
            self.faults.push((line, self.tool, lookup::WITHOUT_TABLE.to_owned()));
        }
        if let Some(line) = first_statement(text.get(..self.first_mark).unwrap_or_default()) {
            let why = "a statement before the Up part, which would not run: move it into the part".to_owned();
            self.faults.push((line, self.tool, why));
        }
        if !self.faults.is_empty() {
            return Err(self.faults);
        }
        let part = |(begin, end, line): &(usize, usize, usize)| {
            let text = text.get(*begin..(*end).min(text.len())).unwrap_or_default();
            Part { text, line: *line }
        };
        let parts = self.ups.iter().map(part).collect();
        Ok(Up { parts, tool: Some(self.tool), transaction: transaction && !self.no_transaction })
    }

    /// Ends the current Up part.
    fn end_up(&mut self, at: usize) {
        if let (At::Up, Some((_, end, _))) = (self.at, self.ups.last_mut()) {
            *end = at;
        }
    }
}

/// Line of the first statement.
fn first_statement(text: &str) -> Option<usize> {
    split(text, Dialect::Postgres).first().map(|statement| statement.line)
}

/// False if the file's leading comments carry sqlx's mark for files that run without a transaction.
fn in_transaction(text: &str) -> bool {
    let comments = text.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with("--"));
    !comments.map(|line| line.trim_start_matches('-').trim()).any(|comment| comment == "no-transaction")
}
