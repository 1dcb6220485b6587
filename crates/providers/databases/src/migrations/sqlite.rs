//! Splits SQLite's SQL by the rule of `sqlite3_complete`: a semicolon ends a statement, and one that creates a
//! trigger ends at `; END;` (<https://www.sqlite.org/c3ref/complete.html>).

use super::statements::{Collector, Split};

/// Splits a text into statements.
pub fn split(sql: &str) -> Split<'_> {
    let mut collector = Collector::new(sql);
    let (mut at, mut last) = (0, [Last::Other; 2]);
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let (token, length) = token(rest);
        let end = at + length;
        let now = match token {
            Token::Space => {
                if rest.starts_with("--") {
                    collector.comment(at, end);
                }
                at = end;
                continue;
            }
            Token::OpenComment | Token::OpenQuote => {
                let why = match token {
                    Token::OpenComment => "a comment that begins here is not closed: add `*/`",
                    _ => "a text or name that begins here is not closed: add its closing quote",
                };
                collector.fault(at, why);
                collector.token(at, end);
                Last::Other
            }
            Token::Semicolon if !is_trigger(collector.words()) || last == [Last::Semicolon, Last::End] => {
                collector.end();
                at = end;
                last = [Last::Other; 2];
                continue;
            }
            Token::Semicolon => {
                collector.token(at, end);
                Last::Semicolon
            }
            Token::Word => {
                let word = sql.get(at..end).unwrap_or_default();
                collector.word(word, at, end);
                if word.eq_ignore_ascii_case("end") { Last::End } else { Last::Other }
            }
            Token::Quoted => {
                collector.word("", at, end);
                Last::Other
            }
            Token::Sign => {
                collector.token(at, end);
                Last::Other
            }
        };
        last = [last[1], now];
        at = end;
    }
    if is_trigger(collector.words()) && last != [Last::Semicolon, Last::End] {
        let begin = collector.begin();
        collector.fault(begin, "the trigger's body is not closed: add `END;`");
    }
    collector.finish()
}

/// Offset of the parenthesis that opens the columns of a CREATE TABLE; none if it has `AS SELECT` instead.
pub fn first_parenthesis(sql: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = sql.get(at..).filter(|rest| !rest.is_empty())?;
        let (token, length) = token(rest);
        match token {
            Token::Sign if rest.starts_with('(') => return Some(at),
            Token::Word if rest.get(..length)?.eq_ignore_ascii_case("as") => return None,
            _ => at += length,
        }
    }
}

/// The tokens that decide about the end of a trigger.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Semicolon,
    End,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// White space or a comment.
    Space,
    OpenComment,
    Word,
    /// A text or quoted name.
    Quoted,
    OpenQuote,
    Semicolon,
    Sign,
}

/// The first token of a text, and its length in bytes.
fn token(rest: &str) -> (Token, usize) {
    let first = rest.chars().next().unwrap_or(' ');
    let quoted = |end: char| match rest.get(1..).and_then(|inner| inner.find(end)) {
        // A doubled quote closes and opens again, which has the same effect.
        Some(at) => (Token::Quoted, at + 2),
        None => (Token::OpenQuote, rest.len()),
    };
    let while_ = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
    match first {
        ';' => (Token::Semicolon, 1),
        '\'' | '"' | '`' => quoted(first),
        '[' => quoted(']'),
        _ if rest.starts_with("--") => (Token::Space, rest.find('\n').unwrap_or(rest.len())),
        _ if rest.starts_with("/*") => match rest.get(2..).and_then(|inner| inner.find("*/")) {
            Some(at) => (Token::Space, at + 4),
            None => (Token::OpenComment, rest.len()),
        },
        c if is_letter(c) => (Token::Word, while_(is_letter)),
        c if c.is_whitespace() => (Token::Space, while_(char::is_whitespace)),
        c => (Token::Sign, c.len_utf8()),
    }
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_trigger(words: &[String]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words.as_slice(), ["CREATE", "TRIGGER", ..] | ["CREATE", "TEMP" | "TEMPORARY", "TRIGGER", ..])
}
