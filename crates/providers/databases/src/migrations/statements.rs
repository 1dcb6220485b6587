//! Splits a text into statements, each with its line.

use super::{lookup, postgres, sqlite};

/// SQL dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// Number of leading words that are kept of a statement.
const OPENING: usize = 4;

/// One statement of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Line of its first word; the text's first line is 1.
    pub line: usize,
    /// Text without the semicolon and without comments before and after it.
    pub text: &'a str,
    /// First words in upper case; an empty word stands for a quoted name or text.
    pub words: Vec<String>,
    /// The lines of data after `COPY … FROM stdin`.
    pub data: Option<&'a str>,
    /// Line of the mark of tables that all tenants share, if one stands before the statement.
    pub mark: Option<usize>,
}

impl Piece<'_> {
    /// Whether the statement begins with these words.
    pub fn begins(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(own, word)| own == word)
    }

    /// Line of an offset in the text.
    pub fn line_at(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or_default();
        self.line + before.bytes().filter(|byte| *byte == b'\n').count()
    }
}

/// The result of splitting.
#[derive(Debug, Default)]
pub struct Split<'a> {
    pub statements: Vec<Piece<'a>>,
    /// Lines at which the text cannot be read, and why.
    pub faults: Vec<(usize, String)>,
}

/// Splits at the semicolons that end a statement.
pub fn split_all(sql: &str, dialect: Dialect) -> Split<'_> {
    match dialect {
        Dialect::Sqlite => sqlite::split(sql),
        Dialect::Postgres => postgres::split(sql),
    }
}

/// The statements of a text that is known to be readable.
pub fn split(sql: &str, dialect: Dialect) -> Vec<Piece<'_>> {
    split_all(sql, dialect).statements
}

/// Collects statements while a dialect's lexer goes through a text.
pub struct Collector<'a> {
    sql: &'a str,
    /// Offsets of the line ends.
    line_ends: Vec<usize>,
    /// Where the current statement's first token begins and its last one ends.
    range: Option<(usize, usize)>,
    words: Vec<String>,
    /// Line of a mark that no statement has followed yet.
    mark: Option<usize>,
    split: Split<'a>,
}

impl<'a> Collector<'a> {
    pub fn new(sql: &'a str) -> Self {
        let line_ends =
            sql.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { sql, line_ends, range: None, words: Vec::new(), mark: None, split: Split::default() }
    }

    /// Whether a statement has begun.
    pub fn is_inside(&self) -> bool {
        self.range.is_some()
    }

    /// Offset of the current statement.
    pub fn begin(&self) -> usize {
        self.range.map_or(0, |(begin, _)| begin)
    }

    /// First words of the current statement.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The current statement's text so far.
    pub fn text(&self) -> &'a str {
        self.range.and_then(|(begin, end)| self.sql.get(begin..end)).unwrap_or_default()
    }

    /// Adds a token that is neither white space nor a comment.
    pub fn token(&mut self, begin: usize, end: usize) {
        self.range = Some((self.range.map_or(begin, |(begin, _)| begin), end));
    }

    /// Adds a token that is a word, or a quoted name or text, for which `word` is empty.
    pub fn word(&mut self, word: &str, begin: usize, end: usize) {
        self.token(begin, end);
        if self.words.len() < OPENING {
            self.words.push(word.to_uppercase());
        }
    }

    /// Reads a line comment. A mark belongs to the statement after it.
    pub fn comment(&mut self, begin: usize, end: usize) {
        let Some(mark) = lookup::mark(self.sql.get(begin..end).unwrap_or_default()) else { return };
        let before = self.sql.get(..begin).unwrap_or_default();
        let own_line = before.rsplit('\n').next().unwrap_or_default().trim().is_empty();
        match mark {
            Err(why) => self.fault(begin, why),
            Ok(()) if self.is_inside() || self.mark.is_some() || !own_line => {
                self.fault(begin, lookup::WITHOUT_TABLE);
            }
            Ok(()) => self.mark = Some(self.line(begin)),
        }
    }

    /// Ends the current statement; an empty one is dropped.
    pub fn end(&mut self) {
        let words = std::mem::take(&mut self.words);
        let text = self.text();
        if let Some((begin, _)) = self.range.take() {
            let mark = self.mark.take();
            self.split.statements.push(Piece { line: self.line(begin), text, words, data: None, mark });
        }
    }

    /// Adds the data of the statement that has just ended.
    pub fn data(&mut self, data: &'a str) {
        if let Some(last) = self.split.statements.last_mut() {
            last.data = Some(data);
        }
    }

    pub fn fault(&mut self, at: usize, why: impl Into<String>) {
        let line = self.line(at);
        self.split.faults.push((line, why.into()));
    }

    pub fn finish(mut self) -> Split<'a> {
        self.end();
        if let Some(line) = self.mark {
            self.split.faults.push((line, lookup::WITHOUT_TABLE.to_owned()));
        }
        self.split
    }

    fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < at)
    }
}
