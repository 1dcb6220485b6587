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

/// The enums that files create.
#[derive(Default)]
struct Enums {
    all: Vec<Enum>,
    /// The index of the enum that has this name now.
    named: BTreeMap<String, usize>,
}

/// The files with the same result, for one transaction.
pub fn for_one_transaction(migrations: &[Migration]) -> Vec<Migration> {
    let mut all = migrations.to_vec();
    let mut enums = Enums::default();
    for (file, migration) in all.iter_mut().enumerate() {
        let mut kept = 0;
        migration.statements.retain(|statement| {
            let runs = !enums.take(statement.text(), (file, kept));
            kept += usize::from(runs);
            runs
        });
    }
    for Enum { place: (file, index), head, values, .. } in enums.all.into_iter().filter(|it| it.is_extended) {
        let statement = all.get_mut(file).and_then(|migration| migration.statements.get_mut(index));
        if let Some(statement) = statement {
            statement.replace_end(head.len(), &format!("{})", values.join(", ")));
        }
    }
    all
}

/// A name without its schema, as the server compares it.
fn key(name: &Token<'_>) -> String {
    match name.text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(quoted) => quoted.to_owned(),
        None => name.text.to_lowercase(),
    }
}

impl Enums {
    /// Follows a statement. True if it adds a value to one of these enums, which is then created with the value.
    fn take(&mut self, statement: &str, place: (usize, usize)) -> bool {
        // Most statements are decided by their second word.
        if !statement.split_whitespace().nth(1).is_some_and(|word| word.eq_ignore_ascii_case("type")) {
            return false;
        }
        let tokens = tokens(statement);
        let [first, _, rest @ ..] = tokens.as_slice() else { return false };
        if first.is("drop") {
            rest.iter().for_each(|token| _ = self.named.remove(&key(token)));
            return false;
        }
        let end = rest.iter().position(|token| token.is_any(&["as", "add", "rename", "set"]));
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let Some(name) = name.last().map(key) else { return false };
        match rest {
            [_, is_enum, open, values @ ..] if first.is("create") && is_enum.is("enum") => {
                let head = statement.get(..=open.at).unwrap_or_default().to_owned();
                let values = values.iter().filter(|token| token.plain_text().is_some());
                let values = values.map(|token| token.text.to_owned()).collect();
                self.named.insert(name, self.all.len());
                self.all.push(Enum { place, head, values, is_extended: false });
                false
            }
            [add, value, added @ ..] if first.is("alter") && add.is("add") && value.is("value") => {
                let known = self.named.get(&name).and_then(|index| self.all.get_mut(*index));
                known.is_some_and(|known| known.add(added))
            }
            // Values that the server names otherwise, or a type in another schema, are left to the server.
            [change, what, new @ ..] if first.is("alter") && !change.is("add") => {
                let index = self.named.remove(&name);
                if let (true, [new], Some(index)) = (what.is("to"), new, index) {
                    self.named.insert(key(new), index);
                }
                false
            }
            _ => false,
        }
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
