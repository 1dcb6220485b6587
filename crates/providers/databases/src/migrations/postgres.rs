//! Splits PostgreSQL's SQL as psql does: tokens by a lexer of PostgreSQL's grammar, and a semicolon ends a
//! statement unless it stands in parentheses or in the body `BEGIN ATOMIC … END` of a routine
//! (psql's rule: <https://github.com/postgres/postgres/blob/master/src/fe_utils/psqlscan.l>). So statements that
//! a newer server or an extension understands are split correctly too.

use squawk_lexer::{LiteralKind, TokenKind, tokenize};

use super::statements::{Collector, Split};

/// Drizzle's end of a statement, a comment to PostgreSQL.
const BREAKPOINT: &str = "--> statement-breakpoint";

/// A token that is neither white space nor a comment.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    /// Offset in the text.
    pub at: usize,
}

impl Token<'_> {
    /// Whether this is this word, unquoted and in any case.
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Ident && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether this is one of these words.
    pub fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    /// Whether this names an object of this name, quoted or not.
    pub fn names(&self, name: &str) -> bool {
        let quoted =
            |text: &str| text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(name);
        match self.kind {
            TokenKind::QuotedIdent { uescape: true, .. } => self.text.get(2..).is_some_and(quoted),
            TokenKind::QuotedIdent { .. } => quoted(self.text),
            _ => self.is(name),
        }
    }

    /// The name of an object: folded to lower case, or without its quotes.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            TokenKind::Ident => Some(self.text.to_lowercase()),
            TokenKind::QuotedIdent { uescape: false, .. } => {
                let name = self.text.strip_prefix('"')?.strip_suffix('"')?;
                Some(name.replace("\"\"", "\""))
            }
            _ => None,
        }
    }

    /// The content of a text in single quotes without escapes, as written.
    pub fn plain_text(&self) -> Option<&str> {
        match self.kind {
            TokenKind::Literal { kind: LiteralKind::Str { terminated: true } } => {
                self.text.strip_prefix('\'')?.strip_suffix('\'')
            }
            _ => None,
        }
    }
}

/// The tokens of a text without white space and comments.
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut at = 0;
    let mut all = Vec::new();
    for token in tokenize(sql) {
        let begin = at;
        at += token.len as usize;
        if !matches!(
            token.kind,
            TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment { .. }
        ) {
            all.push(Token { kind: token.kind, text: sql.get(begin..at).unwrap_or_default(), at: begin });
        }
    }
    all
}

/// Splits a text into statements.
pub fn split(sql: &str) -> Split<'_> {
    let mut splitter =
        Splitter { sql, at: 0, parentheses: Vec::new(), blocks: Vec::new(), collector: Collector::new(sql) };
    while splitter.run() {}
    splitter.end_statement();
    splitter.collector.finish()
}

struct Splitter<'a> {
    sql: &'a str,
    at: usize,
    /// Offsets of the parentheses that are open.
    parentheses: Vec<usize>,
    /// Offsets of the `BEGIN` and `CASE` that are open in a routine's body.
    blocks: Vec<usize>,
    collector: Collector<'a>,
}

impl<'a> Splitter<'a> {
    /// Reads tokens until the end, or until something that is not SQL was skipped, after which the lexer
    /// begins anew: then true.
    fn run(&mut self) -> bool {
        for token in tokenize(self.rest()) {
            let begin = self.at;
            self.at += token.len as usize;
            let text = self.sql.get(begin..self.at).unwrap_or_default();
            match token.kind {
                TokenKind::Whitespace => {}
                TokenKind::LineComment if text.starts_with(BREAKPOINT) => self.end_statement(),
                TokenKind::LineComment => self.collector.comment(begin, self.at),
                TokenKind::BlockComment { terminated } => {
                    if !terminated {
                        self.collector.fault(begin, "a comment that begins here is not closed: add `*/`");
                    }
                }
                TokenKind::Semi if self.parentheses.is_empty() && self.blocks.is_empty() => {
                    let copies = copies_from_stdin(self.collector.text());
                    self.collector.end();
                    if copies {
                        self.data(begin);
                        return true;
                    }
                }
                TokenKind::Unknown if text == "\\" => {
                    self.meta_command(begin);
                    return true;
                }
                kind => self.token(kind, text, begin),
            }
        }
        false
    }

    fn rest(&self) -> &'a str {
        self.sql.get(self.at..).unwrap_or_default()
    }

    fn token(&mut self, kind: TokenKind, text: &str, begin: usize) {
        if !is_terminated(kind) {
            self.collector
                .fault(begin, "a text or name that begins here is not closed: add its closing quote");
        }
        match kind {
            TokenKind::Ident => {
                self.collector.word(text, begin, self.at);
                self.block(text, begin);
            }
            TokenKind::QuotedIdent { .. } => self.collector.word("", begin, self.at),
            TokenKind::Literal { kind: LiteralKind::Int { .. } | LiteralKind::Numeric { .. } } => {
                self.collector.word(text, begin, self.at);
            }
            TokenKind::Literal { .. } => self.collector.word("", begin, self.at),
            _ => {
                match kind {
                    TokenKind::OpenParen => self.parentheses.push(begin),
                    TokenKind::CloseParen => drop(self.parentheses.pop()),
                    _ => {}
                }
                self.collector.token(begin, self.at);
            }
        }
    }

    /// Follows `BEGIN`, `CASE` and `END` in a statement that creates a routine.
    fn block(&mut self, word: &str, begin: usize) {
        if !self.parentheses.is_empty() || !is_routine(self.collector.words()) {
            return;
        }
        if word.eq_ignore_ascii_case("begin") || !self.blocks.is_empty() && word.eq_ignore_ascii_case("case")
        {
            self.blocks.push(begin);
        } else if word.eq_ignore_ascii_case("end") {
            self.blocks.pop();
        }
    }

    fn end_statement(&mut self) {
        if let Some(at) = std::mem::take(&mut self.parentheses).first() {
            self.collector.fault(*at, "a parenthesis that opens here is not closed: add `)`");
        }
        if let Some(at) = std::mem::take(&mut self.blocks).first() {
            self.collector.fault(*at, "a body that begins here is not closed: add `END`");
        }
        self.collector.end();
    }

    /// Skips a line that is a command of psql.
    fn meta_command(&mut self, begin: usize) {
        let rest = self.sql.get(begin..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        self.at = begin + line.len();
        let command = line.split_whitespace().next().unwrap_or_default();
        // pg_dump writes these two around its output; a server never sees them.
        if self.collector.is_inside() || !matches!(command, "\\restrict" | "\\unrestrict") {
            let why = format!("`{command}` is a command of psql, which cannot run here: remove the line");
            self.collector.fault(begin, why);
        }
    }

    /// Reads the lines of data after a `COPY` whose semicolon is at `semicolon`.
    fn data(&mut self, semicolon: usize) {
        let rest = self.rest();
        let Some((_, data)) = rest.split_once('\n') else {
            self.at = self.sql.len();
            return self.collector.fault(semicolon, NO_END);
        };
        let begin = self.sql.len() - data.len();
        let mut length = 0;
        for line in data.split_inclusive('\n') {
            if line.trim_end_matches(['\n', '\r']) == "\\." {
                self.at = begin + length + line.len();
                return self.collector.data(data.get(..length).unwrap_or_default());
            }
            length += line.len();
        }
        self.at = self.sql.len();
        self.collector.fault(semicolon, NO_END);
    }
}

const NO_END: &str = "the data of COPY have no end: add the line `\\.`";

/// Whether a statement begins like one that creates a function or procedure.
fn is_routine(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let rest = match words.as_slice() {
        ["CREATE", "OR", "REPLACE", rest @ ..] | ["CREATE", rest @ ..] => rest,
        _ => return false,
    };
    matches!(rest, ["FUNCTION" | "PROCEDURE", ..])
}

/// Whether a statement is `COPY … FROM STDIN`.
fn copies_from_stdin(text: &str) -> bool {
    // Most statements are decided by their first letters.
    if !text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("copy")) {
        return false;
    }
    let tokens = tokens(text);
    tokens.first().is_some_and(|first| first.is("copy"))
        && tokens.windows(2).any(|pair| matches!(pair, [from, stdin] if from.is("from") && stdin.is("stdin")))
}

fn is_terminated(kind: TokenKind) -> bool {
    match kind {
        TokenKind::QuotedIdent { terminated, .. } => terminated,
        TokenKind::Literal { kind } => match kind {
            LiteralKind::Str { terminated }
            | LiteralKind::NationalStr { terminated }
            | LiteralKind::ByteStr { terminated }
            | LiteralKind::BitStr { terminated }
            | LiteralKind::DollarQuotedString { terminated }
            | LiteralKind::UnicodeEscStr { terminated }
            | LiteralKind::EscStr { terminated } => terminated,
            LiteralKind::Int { .. } | LiteralKind::Numeric { .. } => true,
        },
        _ => true,
    }
}
