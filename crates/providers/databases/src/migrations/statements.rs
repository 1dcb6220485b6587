//! Splits a migration into statements without parsing them: skips texts, quoted names and comments as the
//! database does. Finds statements that a migration must not contain.

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

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Text without the semicolon.
    pub text: &'a str,
    /// First words in upper case; an empty word stands for a quoted name or text.
    pub words: Vec<String>,
}

/// The first forbidden word in a migration: a statement that ends the transaction or reaches beyond the
/// database.
pub fn forbidden(sql: &str, dialect: Dialect) -> Option<&'static str> {
    const SQLITE: &[&str] = &[
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT",
        "RELEASE",
        "ATTACH",
        "DETACH",
        "VACUUM",
        "PRAGMA",
    ];
    // PostgreSQL itself rejects statements that cannot run in a transaction.
    const POSTGRES: &[&str] =
        &["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE", "DISCARD", "LOAD"];
    let refused = if dialect == Dialect::Sqlite { SQLITE } else { POSTGRES };
    let mut in_trigger = false;
    for Statement { words, .. } in split(sql, dialect) {
        let first = words.first().map_or("", String::as_str);
        if in_trigger {
            in_trigger = first != "END";
        } else if dialect == Dialect::Sqlite
            && first == "CREATE"
            && words.iter().any(|word| word == "TRIGGER")
        {
            in_trigger = true;
        } else if let Some(found) = refused.iter().find(|word| **word == first) {
            return Some(found);
        }
    }
    None
}

/// Splits at semicolons outside of texts and comments.
pub fn split(sql: &str, dialect: Dialect) -> Vec<Statement<'_>> {
    let mut all = Vec::new();
    let (mut begin, mut at) = (0, 0);
    let mut words = Words::default();
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        match Token::of(rest, dialect) {
            Token::Skipped(length) => {
                words.finish();
                at += length;
            }
            Token::Quoted(length) => {
                words.quoted();
                at += length;
            }
            Token::Letter(c) => {
                words.push(c);
                at += c.len_utf8();
            }
            Token::End => {
                words.take(sql.get(begin..at), &mut all);
                at += 1;
                begin = at;
            }
        }
    }
    words.take(sql.get(begin..), &mut all);
    all
}

/// The next token of a text.
enum Token {
    /// This many bytes of white space, comment or punctuation.
    Skipped(usize),
    /// This many bytes of a text or quoted name.
    Quoted(usize),
    /// Part of a word.
    Letter(char),
    /// The end of a statement.
    End,
}

impl Token {
    fn of(rest: &str, dialect: Dialect) -> Self {
        let first = rest.chars().next().unwrap_or(' ');
        let through = |end: &str, from: usize| {
            let found = rest.get(from..).and_then(|inner| inner.find(end));
            found.map_or(rest.len(), |at| from + at + end.len())
        };
        match (first, dialect) {
            (';', _) => Self::End,
            // A doubled quote closes and opens again, which has the same effect.
            ('\'', _) => Self::Quoted(through("'", 1)),
            ('"', _) => Self::Quoted(through("\"", 1)),
            ('`', Dialect::Sqlite) => Self::Quoted(through("`", 1)),
            ('[', Dialect::Sqlite) => Self::Quoted(through("]", 1)),
            ('$', Dialect::Postgres) => match dollar_tag(rest) {
                Some(tag) => Self::Quoted(through(tag, tag.len())),
                None => Self::Skipped(1),
            },
            ('e' | 'E', Dialect::Postgres) if rest[1..].starts_with('\'') => Self::Quoted(escaped(rest)),
            _ if rest.starts_with("--") => Self::Skipped(through("\n", 2)),
            ('/', Dialect::Postgres) if rest.starts_with("/*") => Self::Skipped(nested_comment(rest)),
            _ if rest.starts_with("/*") => Self::Skipped(through("*/", 2)),
            (c, _) if c.is_alphanumeric() || c == '_' => Self::Letter(c),
            (c, _) => Self::Skipped(c.len_utf8()),
        }
    }
}

/// The tag `$$` or `$word$` that begins and ends a text.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = rest.get(1..)?.find('$')? + 1;
    let word = rest.get(1..end)?;
    let plain = !word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| rest.get(..=end)).flatten()
}

/// Length of a text `E'…'`, in which a backslash escapes the next character.
fn escaped(rest: &str) -> usize {
    let mut escaping = false;
    for (at, c) in rest.char_indices().skip(2) {
        match c {
            '\\' if !escaping => escaping = true,
            '\'' if !escaping => return at + 1,
            _ => escaping = false,
        }
    }
    rest.len()
}

/// Length of a comment that may contain comments.
fn nested_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(left) = rest.get(at..).filter(|left| !left.is_empty()) {
        if left.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if left.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += left.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The leading words of the current statement.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if self.done.len() < OPENING {
            self.word.extend(c.to_uppercase());
        }
    }

    fn finish(&mut self) {
        if !self.word.is_empty() && self.done.len() < OPENING {
            self.done.push(std::mem::take(&mut self.word));
        }
        self.word.clear();
    }

    fn quoted(&mut self) {
        self.finish();
        if self.done.len() < OPENING {
            self.done.push(String::new());
        }
    }

    /// Ends a statement; skips one without words.
    fn take<'a>(&mut self, text: Option<&'a str>, all: &mut Vec<Statement<'a>>) {
        self.finish();
        let words = std::mem::take(&mut self.done);
        if !words.is_empty() {
            all.push(Statement { text: text.unwrap_or_default().trim(), words });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_end_a_sqlite_transaction_are_found() {
        for (sql, word) in [
            ("CREATE TABLE a (x); commit; CREATE TABLE b (x);", "COMMIT"),
            ("/* x */ BEGIN IMMEDIATE;", "BEGIN"),
            ("SELECT 1;;\n-- note\n  End;", "END"),
            ("PRAGMA foreign_keys = 0", "PRAGMA"),
            ("ATTACH 'x' AS y;", "ATTACH"),
            ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END; ROLLBACK;", "ROLLBACK"),
            ("SELECT 'it''s'; SAVEPOINT s;", "SAVEPOINT"),
        ] {
            assert_eq!(forbidden(sql, Dialect::Sqlite), Some(word), "{sql}");
        }
        for sql in [
            "INSERT INTO a VALUES ('x; COMMIT;'); -- COMMIT;\n/* ; COMMIT; */ SELECT \";COMMIT\";",
            "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = CASE WHEN 1 THEN 2 END; SELECT 1; END;",
            "CREATE TABLE \"commit\" (\"end\" TEXT); SELECT 1;",
            "",
        ] {
            assert_eq!(forbidden(sql, Dialect::Sqlite), None, "{sql}");
        }
    }

    #[test]
    fn statements_that_end_a_postgresql_transaction_are_found() {
        for (sql, word) in [
            ("CREATE TABLE a (x int); commit; CREATE TABLE b (x int);", "COMMIT"),
            ("SELECT ARRAY[1, 2]; start transaction;", "START"),
            ("DO $$ BEGIN PERFORM 1; END $$; END;", "END"),
            ("SELECT E'it\\'s'; ROLLBACK", "ROLLBACK"),
            ("/* a /* b */ ; */ ABORT", "ABORT"),
        ] {
            assert_eq!(forbidden(sql, Dialect::Postgres), Some(word), "{sql}");
        }
        for sql in [
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN; COMMIT; RETURN 1; END; $body$;",
            "SELECT 'x; COMMIT;', E'\\'; COMMIT;'; -- ; COMMIT;\n/* /* ; */ COMMIT; */ SELECT \";COMMIT\";",
            "SELECT $1; VACUUM",
        ] {
            assert_eq!(forbidden(sql, Dialect::Postgres), None, "{sql}");
        }
    }

    #[test]
    fn statements_are_split_at_semicolons() {
        let sql = "-- no-transaction\nCREATE INDEX a ON t (x);\nDO $x$ SELECT 1; $x$ ;; SELECT ';' -- end\n";
        let texts: Vec<&str> = split(sql, Dialect::Postgres).into_iter().map(|s| s.text).collect();
        assert_eq!(
            texts,
            ["-- no-transaction\nCREATE INDEX a ON t (x)", "DO $x$ SELECT 1; $x$", "SELECT ';' -- end"]
        );
    }
}
