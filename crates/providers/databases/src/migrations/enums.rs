//! Values that later files add to an enum. In the transaction that adds a value, PostgreSQL before 17 lets no statement
//! use it, so where all files run in one transaction, the statement that creates the type creates the values too.

use std::collections::BTreeMap;

use super::Migration;
use super::postgres::{Token, tokens};

/// An enum that a file creates.
struct Enum {
    /// Number of the file, and of the statement in it.
    place: (usize, usize),
    /// The statement until its values.
    head: String,
    /// Values as written, in their order.
    values: Vec<String>,
    is_extended: bool,
}

/// The files with the same result, for one transaction.
pub fn for_one_transaction(migrations: &[Migration]) -> Vec<Migration> {
    let mut all = migrations.to_vec();
    let mut enums: BTreeMap<String, Enum> = BTreeMap::new();
    for (file, migration) in all.iter_mut().enumerate() {
        let mut kept = 0;
        migration.statements.retain(|statement| {
            let runs = !extends(statement.text(), (file, kept), &mut enums);
            kept += usize::from(runs);
            runs
        });
    }
    for Enum { place: (file, index), head, values, .. } in enums.into_values().filter(|it| it.is_extended) {
        let statement = all.get_mut(file).and_then(|migration| migration.statements.get_mut(index));
        if let Some(statement) = statement {
            statement.replace_end(head.len(), &format!("{})", values.join(", ")));
        }
    }
    all
}

/// Whether the statement adds a value to one of these enums. An enum that it creates is added to them.
fn extends(statement: &str, place: (usize, usize), enums: &mut BTreeMap<String, Enum>) -> bool {
    // Most statements are decided by their second word.
    if !statement.split_whitespace().nth(1).is_some_and(|word| word.eq_ignore_ascii_case("type")) {
        return false;
    }
    let tokens = tokens(statement);
    let [first, _, rest @ ..] = tokens.as_slice() else { return false };
    let end = rest.iter().position(|token| token.is_any(&["as", "add"])).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let Some(last) = name.last() else { return false };
    let key = match last.text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(quoted) => quoted.to_owned(),
        None => last.text.to_lowercase(),
    };
    match rest {
        [_, is_enum, open, values @ ..] if first.is("create") && is_enum.is("enum") => {
            let head = statement.get(..=open.at).unwrap_or_default().to_owned();
            let values = values.iter().filter(|token| token.plain_text().is_some());
            let values = values.map(|token| token.text.to_owned()).collect();
            enums.insert(key, Enum { place, head, values, is_extended: false });
            false
        }
        [_, value, added @ ..] if first.is("alter") && value.is("value") => {
            enums.get_mut(&key).is_some_and(|known| known.add(added))
        }
        _ => false,
    }
}

impl Enum {
    /// Adds the value of `[IF NOT EXISTS] 'new' [{ BEFORE | AFTER } 'other']`. False if this is something else.
    fn add(&mut self, added: &[Token<'_>]) -> bool {
        let added = match added {
            [r#if, not, exists, added @ ..] if r#if.is("if") && not.is("not") && exists.is("exists") => added,
            added => added,
        };
        let place = |other: &Token<'_>| self.values.iter().position(|value| value == other.text);
        let (new, at) = match added {
            [new] => (new, Some(self.values.len())),
            [new, before, other] if before.is("before") => (new, place(other)),
            [new, after, other] if after.is("after") => (new, place(other).map(|at| at + 1)),
            _ => return false,
        };
        let (Some(at), Some(_)) = (at, new.plain_text()) else { return false };
        if !self.values.iter().any(|value| value == new.text) {
            self.values.insert(at, new.text.to_owned());
            self.is_extended = true;
        }
        true
    }
}
