//! Removes values from the texts of an error: a row's values are personal data, and a statement may hold a password.
//! Names of tables, columns and other objects stay.

use squawk_lexer::{TokenKind, tokenize};

/// Stands for what was removed.
const HIDDEN: &str = "…";
/// Between the columns of a detail and the values that they have.
const COLUMNS_END: &str = ")=(";

/// A statement on one line, without comments and with every literal replaced. Function bodies are literals as well.
pub fn statement(sql: &str) -> String {
    let (mut at, mut text) = (0, String::new());
    for token in tokenize(sql) {
        let begin = at;
        at += token.len as usize;
        match token.kind {
            TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment { .. } => {
                if !text.is_empty() && !text.ends_with(' ') {
                    text.push(' ');
                }
            }
            TokenKind::Literal { .. } | TokenKind::Unknown => text.push_str(HIDDEN),
            _ => text.push_str(sql.get(begin..at).unwrap_or_default()),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Splits a text at the semicolons between its statements.
pub fn statements(sql: &str) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut begin, mut depth, mut found) = (0, 0, 0_u32, Vec::new());
    for token in tokenize(sql) {
        match token.kind {
            TokenKind::OpenParen => depth += 1,
            TokenKind::CloseParen => depth = depth.saturating_sub(1),
            TokenKind::Semi if depth == 0 => {
                found.push(begin..at);
                begin = at + token.len as usize;
            }
            _ => {}
        }
        at += token.len as usize;
    }
    found.push(begin..sql.len());
    found.retain(|range| sql.get(range.clone()).is_some_and(|text| !text.trim().is_empty()));
    found
}

/// A message whose quoted parts, numbers and addresses may be values: what stands between the first and the last
/// quotation mark is removed, since a value may contain some itself, and so is every word that begins with a digit or has an `@`.
pub fn values(message: &str) -> String {
    let quoted = message.find('"').zip(message.rfind('"')).filter(|(first, last)| first < last);
    let message = match quoted {
        Some((first, last)) => format!("{}\"{HIDDEN}{}", &message[..first], &message[last..]),
        None => message.to_owned(),
    };
    let is_value = |word: &str| {
        word.contains('@')
            || word.trim_start_matches(['(', '-', '\'']).starts_with(|c: char| c.is_ascii_digit())
    };
    message.split(' ').map(|word| if is_value(word) { HIDDEN } else { word }).collect::<Vec<_>>().join(" ")
}

/// A message about the syntax of a statement, which may quote a literal of it.
pub fn token(message: &str) -> String {
    let Some((before, rest)) = message.split_once(" at or near \"") else { return values(message) };
    let token = rest.strip_suffix('"').unwrap_or(rest);
    let is_word = |text: &str| {
        text.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let is_sign = token.len() <= 3 && token.chars().all(|c| c.is_ascii_punctuation() && c != '\'');
    let shown = if is_word(token) || is_sign { token } else { HIDDEN };
    format!("{before} at or near \"{shown}\"")
}

/// The detail of a violated key without the values: `Key (a, b)=(1, 2) already exists` becomes `Key (a, b) already
/// exists`. None for a detail in another form, such as that of a server in another language: it may hold a row.
pub fn key_detail(detail: &str) -> Option<String> {
    let (columns, tail) = match detail.strip_prefix("Partition key of the failing row contains ") {
        Some(rest) => (rest.split_once(") = (")?.0, ""),
        None => {
            let (columns, rest) = detail.strip_prefix("Key ")?.split_once(COLUMNS_END)?;
            (columns, rest.rsplit_once(')')?.1)
        }
    };
    let begin = detail.find(" (")?;
    Some(format!("{} {columns}){tail}", detail.get(..begin)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_no_literals() {
        for (sql, expected) in [
            (
                "INSERT INTO t (a) VALUES ('x@y', 'it''s', E'\\'', 5, -1.5e3)",
                "INSERT INTO t (a) VALUES (…, …, …, …, -…)",
            ),
            (
                "ALTER ROLE \"R 1\"\n  PASSWORD 'SCRAM-SHA-256$4096' -- secret",
                "ALTER ROLE \"R 1\" PASSWORD …",
            ),
            ("DO $body$ SELECT 'secret' $body$", "DO …"),
            ("SELECT U&'secret', X'1F', $1 /* secret */", "SELECT …, …, $1"),
            ("SELECT 'secret that does not end", "SELECT …"),
        ] {
            assert_eq!(statement(sql), expected);
        }
    }

    #[test]
    fn statements_end_at_semicolons() {
        let sql = "SELECT ';'; CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);;";
        let all: Vec<&str> = statements(sql).into_iter().map(|range| sql[range].trim()).collect();
        assert_eq!(all, ["SELECT ';'", "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)"]);
    }

    #[test]
    fn messages_have_no_values() {
        for (message, expected) in [
            (
                "invalid input syntax for type integer: \"a\" secret \"b\"",
                "invalid input syntax for type integer: \"…\"",
            ),
            (
                "value too long for type character varying(10)",
                "value too long for type character varying(10)",
            ),
            (
                "invalid byte sequence for encoding \"UTF8\": 0xff",
                "invalid byte sequence for encoding \"…\": …",
            ),
            ("ann@example.com has 3 open orders", "… has … open orders"),
        ] {
            assert_eq!(values(message), expected);
        }
        for (message, expected) in [
            ("syntax error at or near \"TABEL\"", "syntax error at or near \"TABEL\""),
            ("syntax error at or near \")\"", "syntax error at or near \")\""),
            ("syntax error at or near \"'secret'\"", "syntax error at or near \"…\""),
            (
                "unterminated quoted string at or near \"'secret",
                "unterminated quoted string at or near \"…\"",
            ),
            ("syntax error in tsquery: \"secret\"", "syntax error in tsquery: \"…\""),
        ] {
            assert_eq!(token(message), expected);
        }
    }

    #[test]
    fn details_of_keys_name_columns_only() {
        for (detail, expected) in [
            ("Key (email)=(x@y) already exists.", Some("Key (email) already exists.")),
            (
                "Key (a, lower(b))=(1, x) already exists. (y) already exists.",
                Some("Key (a, lower(b)) already exists."),
            ),
            ("Key (a)=(x) is not present in table \"t\".", Some("Key (a) is not present in table \"t\".")),
            ("Key (r)=([1,2)) conflicts with existing key (r)=([1,3)).", Some("Key (r).")),
            (
                "Partition key of the failing row contains (a, b) = (1, x).",
                Some("Partition key of the failing row contains (a, b)"),
            ),
            ("Failing row contains (x).", None),
            ("Schlüssel »(a)=(x)« existiert bereits.", None),
        ] {
            assert_eq!(key_detail(detail).as_deref(), expected);
        }
    }
}
