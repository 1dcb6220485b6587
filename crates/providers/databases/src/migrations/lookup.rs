//! The mark of lookup tables: the comment line `-- tenantry: lookup` before CREATE TABLE. In a pool such a table has no
//! `tenant_id`, its rows come from migrations, and tenants read it only.

use std::borrow::Cow;

use squawk_lexer::TokenKind;

use super::postgres::{Token, tokens};
use super::statements::Dialect;
use super::{sqlite, statements::Piece};

/// The mark as a SQLite table keeps it, at the beginning of its columns: SQLite stores the text of CREATE TABLE.
const SQLITE_MARK: &str = "/* tenantry: lookup */";

/// A table that a statement creates and a mark precedes.
pub struct Marked<'a> {
    /// The table's name as the statement writes it, without its schema.
    pub name: String,
    /// The statement as it runs.
    pub sql: Cow<'a, str>,
}

/// What a line comment says to Tenantry: `Ok` is the mark, `Err` another word. None: it is an ordinary comment.
pub fn mark(comment: &str) -> Option<Result<(), String>> {
    let words = comment.trim_start_matches('-').trim();
    let prefix = words.get(.."tenantry:".len())?;
    if !prefix.eq_ignore_ascii_case("tenantry:") {
        return None;
    }
    let word = words.get(prefix.len()..)?.trim();
    let unknown =
        || format!("`tenantry: {word}` is not a mark: write `-- tenantry: lookup`, or remove the line");
    Some(if word.eq_ignore_ascii_case("lookup") { Ok(()) } else { Err(unknown()) })
}

/// Line of the first mark in a text that does not run.
pub fn first_line(text: &str) -> Option<usize> {
    (1..)
        .zip(text.lines())
        .find(|(_, line)| line.trim_start().starts_with("--") && mark(line.trim_start()).is_some())
        .map(|(line, _)| line)
}

/// Why a mark is at fault that no CREATE TABLE follows.
pub const WITHOUT_TABLE: &str =
    "the mark `tenantry: lookup` stands before no CREATE TABLE: move it to the line before one, or remove it";

/// The table that a marked statement creates; on failure what to do.
pub fn table<'a>(piece: &Piece<'a>, dialect: Dialect) -> Result<Marked<'a>, String> {
    let sql = piece.text;
    let all = tokens(sql);
    let mut rest = all.as_slice();
    let mut skip = |words: &[&str]| match rest {
        [first, after @ ..] if first.is_any(words) => {
            rest = after;
            true
        }
        _ => false,
    };
    if !skip(&["create"]) {
        return Err(WITHOUT_TABLE.to_owned());
    }
    skip(&["global", "local"]);
    let is_temporary = skip(&["temp", "temporary"]);
    skip(&["unlogged"]);
    if !skip(&["table"]) {
        return Err(WITHOUT_TABLE.to_owned());
    }
    if is_temporary {
        return Err("the mark `tenantry: lookup` stands before a temporary table: remove it".to_owned());
    }
    if skip(&["if"]) {
        skip(&["not"]);
        skip(&["exists"]);
    }
    let (name, after) = last_name(rest).ok_or(WITHOUT_TABLE)?;
    match dialect {
        Dialect::Postgres if matches!(after, [partition, of, ..] if partition.is("partition") && of.is("of")) => {
            Err("the mark `tenantry: lookup` stands before a partition: mark its table".to_owned())
        }
        Dialect::Postgres => Ok(Marked { name: name.text.to_owned(), sql: Cow::Borrowed(sql) }),
        Dialect::Sqlite => {
            let columns = sqlite::first_parenthesis(sql).ok_or_else(|| {
                "a marked table needs its columns in CREATE TABLE: write them instead of AS SELECT".to_owned()
            })?;
            let mut marked = sql.to_owned();
            marked.insert_str(columns + 1, SQLITE_MARK);
            Ok(Marked { name: name.text.to_owned(), sql: Cow::Owned(marked) })
        }
    }
}

/// The last part of a name that schemas may qualify, and what follows it.
fn last_name<'a, 't>(mut rest: &'t [Token<'a>]) -> Option<(&'t Token<'a>, &'t [Token<'a>])> {
    loop {
        let (name, after) = rest.split_first()?;
        match after {
            [dot, after @ ..] if dot.kind == TokenKind::Dot => rest = after,
            _ => return Some((name, after)),
        }
    }
}

/// Whether SQLite's text of a table has the mark.
pub fn is_marked(sql: &str) -> bool {
    let columns = sqlite::first_parenthesis(sql).and_then(|at| sql.get(at + 1..));
    columns.is_some_and(|columns| columns.starts_with(SQLITE_MARK))
}
