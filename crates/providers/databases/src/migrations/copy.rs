//! Turns `COPY … FROM stdin` with its lines of data, as in a dump, into one INSERT: the text format of
//! <https://www.postgresql.org/docs/current/sql-copy.html>.

use std::fmt::Write as _;

use super::postgres::tokens;

/// The INSERT with the same rows; none without rows. An error says what to do.
pub fn insert(copy: &str, data: &str) -> Result<Option<String>, String> {
    let tokens = tokens(copy);
    let [.., from, stdin] = tokens.as_slice() else { return Err(OPTIONS.to_owned()) };
    if !from.is("from") || !stdin.is("stdin") {
        return Err(OPTIONS.to_owned());
    }
    let target = tokens.get(1).and_then(|name| copy.get(name.at..from.at)).unwrap_or_default().trim();
    let mut sql = format!("INSERT INTO {target} OVERRIDING SYSTEM VALUE VALUES");
    for (row, line) in data.lines().enumerate() {
        sql.push_str(if row == 0 { "\n(" } else { ",\n(" });
        for (column, field) in line.split('\t').enumerate() {
            let comma = if column == 0 { "" } else { ", " };
            if field == "\\N" {
                let _ = write!(sql, "{comma}NULL");
            } else {
                let value = unescaped(field).ok_or("a row of COPY is not UTF-8: dump it with `--inserts`")?;
                let _ = write!(sql, "{comma}'{}'", value.replace('\'', "''"));
            }
        }
        sql.push(')');
    }
    Ok((!data.is_empty()).then_some(sql))
}

const OPTIONS: &str = "COPY with options cannot be read: dump the table with `--inserts`, or write INSERT";

/// A field without its escapes.
fn unescaped(field: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let Some((escape, after)) = rest.split_first() else { break };
        rest = after;
        let byte = match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => number(&mut rest, 16, 2, 0),
            b'0'..=b'7' => number(&mut rest, 8, 2, u32::from(escape - b'0')),
            other => *other,
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// Reads up to this many digits more.
fn number(rest: &mut &[u8], base: u32, digits: usize, mut value: u32) -> u8 {
    for _ in 0..digits {
        let Some((digit, after)) = rest.split_first() else { break };
        let Some(digit) = char::from(*digit).to_digit(base) else { break };
        value = value * base + digit;
        *rest = after;
    }
    (value & 0xFF) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_one_insert() {
        let data = "1\tit's\t\\N\n2\ta\\tb\\\\c\\nd\\x41\\101\\q\t\n";
        let sql = insert("COPY public.t (id, \"a b\", n) FROM stdin", data).unwrap().unwrap();
        let expected = "INSERT INTO public.t (id, \"a b\", n) OVERRIDING SYSTEM VALUE VALUES\n('1', 'it''s', NULL),\n\
                        ('2', 'a\tb\\c\ndAAq', '')";
        assert_eq!(sql, expected);
        assert_eq!(insert("COPY t FROM STDIN", "").unwrap(), None);
        assert!(insert("COPY t FROM stdin WITH (FORMAT csv)", "1\n").unwrap_err().contains("--inserts"));
        assert!(insert("COPY t FROM stdin", "\\xff\n").unwrap_err().contains("UTF-8"));
        assert!(insert("COPY", "").is_err());
    }
}
