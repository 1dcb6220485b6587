//! Where the statements of a migration begin and end, without understanding them: texts, names and comments are passed
//! over as the database would. Finds what a migration must not say.

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite's.
    Sqlite,
    /// PostgreSQL's.
    Postgres,
}

/// How many words of a statement are looked at.
const OPENING: usize = 4;

/// A statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Its text, without the semicolon.
    pub text: &'a str,
    /// Its first words, in upper case; empty ones stand for quoted names and texts.
    pub words: Vec<String>,
}

/// The first statement that must not be in a migration: one that ends the transaction, or reaches beyond the database.
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
    // PostgreSQL itself refuses what cannot run in a transaction.
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

/// The statements, which end at semicolons outside of texts and comments.
pub fn split(sql: &str, dialect: Dialect) -> Vec<Statement<'_>> {
    let mut all = Vec::new();
    let (mut begin, mut at) = (0, 0);
    let mut words = Words::default();
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let step = Step::of(rest, dialect);
        match step {
            Step::Passed(length) => {
                words.finish();
                at += length;
            }
            Step::Quoted(length) => {
                words.quoted();
                at += length;
            }
            Step::Letter(c) => {
                words.push(c);
                at += c.len_utf8();
            }
            Step::End => {
                words.take(sql.get(begin..at), &mut all);
                at += 1;
                begin = at;
            }
        }
    }
    words.take(sql.get(begin..), &mut all);
    all
}

/// What stands at the beginning of a text.
enum Step {
    /// So many bytes that say nothing: white space, a comment, punctuation.
    Passed(usize),
    /// So many bytes of a text or a quoted name.
    Quoted(usize),
    /// Part of a word.
    Letter(char),
    /// The end of a statement.
    End,
}

impl Step {
    fn of(rest: &str, dialect: Dialect) -> Self {
        let first = rest.chars().next().unwrap_or(' ');
        let through = |mark: &str, from: usize| {
            let found = rest.get(from..).and_then(|inner| inner.find(mark));
            found.map_or(rest.len(), |at| from + at + mark.len())
        };
        match (first, dialect) {
            (';', _) => Self::End,
            // A doubled quote closes and opens again, which comes to the same.
            ('\'', _) => Self::Quoted(through("'", 1)),
            ('"', _) => Self::Quoted(through("\"", 1)),
            ('`', Dialect::Sqlite) => Self::Quoted(through("`", 1)),
            ('[', Dialect::Sqlite) => Self::Quoted(through("]", 1)),
            ('$', Dialect::Postgres) => match dollar_mark(rest) {
                Some(mark) => Self::Quoted(through(mark, mark.len())),
                None => Self::Passed(1),
            },
            ('e' | 'E', Dialect::Postgres) if rest[1..].starts_with('\'') => Self::Quoted(escaped(rest)),
            _ if rest.starts_with("--") => Self::Passed(through("\n", 2)),
            ('/', Dialect::Postgres) if rest.starts_with("/*") => Self::Passed(nested_comment(rest)),
            _ if rest.starts_with("/*") => Self::Passed(through("*/", 2)),
            (c, _) if c.is_alphanumeric() || c == '_' => Self::Letter(c),
            (c, _) => Self::Passed(c.len_utf8()),
        }
    }
}

/// `$$` or `$word$`, with which a text begins and ends.
fn dollar_mark(rest: &str) -> Option<&str> {
    let end = rest.get(1..)?.find('$')? + 1;
    let word = rest.get(1..end)?;
    let plain = !word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then(|| rest.get(..=end)).flatten()
}

/// Length of a text `E'…'`, in which a backslash escapes.
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

/// Length of a comment that may hold others.
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

/// The words of the statement that is being read.
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

    /// Ends a statement; one without words is none.
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
    fn what_would_leave_a_transaction_of_sqlite() {
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
    fn what_would_leave_a_transaction_of_postgresql() {
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
    fn one_by_one() {
        let sql = "-- no-transaction\nCREATE INDEX a ON t (x);\nDO $x$ SELECT 1; $x$ ;; SELECT ';' -- end\n";
        let texts: Vec<&str> = split(sql, Dialect::Postgres).into_iter().map(|s| s.text).collect();
        assert_eq!(
            texts,
            ["-- no-transaction\nCREATE INDEX a ON t (x)", "DO $x$ SELECT 1; $x$", "SELECT ';' -- end"]
        );
    }
}
