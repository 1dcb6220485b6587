//! SQL of the limit: plain VALUES for a few rows, and for many rows the fastest form of the database.

use crate::sample::{Column, Kind};
use crate::sandbox::Store;
use crate::script::{Shape, Verb};

/// Most rows of a PostgreSQL statement with one parameter per value; more rows are sent as one array per
/// column.
pub const FEW: usize = 8;

/// The statement for this number of rows.
pub fn statement(shape: &Shape, store: Store, rows: usize) -> String {
    let table = &shape.table;
    let name = |column: &Column| format!("\"{}\"", column.name);
    let (keys, set) = shape.columns.split_at(shape.keys);
    let source = source(shape, store, rows);
    match (shape.verb, rows) {
        (Verb::Insert, _) => {
            let columns = join(set.iter().map(name));
            format!("INSERT INTO \"{table}\" ({columns}) {source}")
        }
        (Verb::Update, 1) => {
            let assign = |n: usize, column| format!("{} = {}", name(column), value(column, store, n));
            let set = join(set.iter().enumerate().map(|(n, column)| assign(keys.len() + n, column)));
            let keys: Vec<String> = keys.iter().enumerate().map(|(n, column)| assign(n, column)).collect();
            format!("UPDATE \"{table}\" SET {set} WHERE {}", keys.join(" AND "))
        }
        (Verb::Update, _) => {
            let assign = |n: usize, column| format!("{} = r.c{n}", name(column));
            let set = join(set.iter().enumerate().map(|(n, column)| assign(keys.len() + n, column)));
            let keys: Vec<String> =
                keys.iter().enumerate().map(|(n, column)| format!("t.{}", assign(n, column))).collect();
            let names = join((0..shape.columns.len()).map(|n| format!("c{n}")));
            let keys = keys.join(" AND ");
            match store {
                Store::Sqlite => {
                    format!(
                        "WITH r({names}) AS ({source}) UPDATE \"{table}\" AS t SET {set} FROM r WHERE {keys}"
                    )
                }
                Store::Postgres => {
                    format!("UPDATE \"{table}\" AS t SET {set} FROM ({source}) AS r({names}) WHERE {keys}")
                }
            }
        }
        (Verb::Delete, _) => {
            format!("DELETE FROM \"{table}\" WHERE ({}) IN ({source})", join(keys.iter().map(name)))
        }
    }
}

/// The rows as a query.
fn source(shape: &Shape, store: Store, rows: usize) -> String {
    let width = shape.columns.len();
    let columns = || shape.columns.iter().enumerate();
    if store == Store::Postgres && rows > FEW {
        let arrays = join(columns().map(|(n, column)| format!("${}::{}[]", n + 1, carrier(column.kind))));
        let names = join((0..width).map(|n| format!("a{n}")));
        let values = join(columns().map(|(n, column)| cast(&format!("a{n}"), column.kind).to_owned()));
        return format!("SELECT {values} FROM unnest({arrays}) AS u({names})");
    }
    let row = |row: usize| {
        let values = columns().map(|(n, column)| value(column, store, row * width + n));
        format!("({})", join(values))
    };
    format!("VALUES {}", join((0..rows).map(row)))
}

/// The parameter with this number, counted from 0, cast to its column's type.
fn value(column: &Column, store: Store, n: usize) -> String {
    match store {
        Store::Sqlite => format!("?{}", n + 1),
        Store::Postgres => cast(&format!("${}::{}", n + 1, carrier(column.kind)), column.kind),
    }
}

/// The PostgreSQL type of a parameter.
fn carrier(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint",
        Kind::Bool => "boolean",
        Kind::Text | Kind::Json | Kind::Time => "text",
    }
}

fn cast(value: &str, kind: Kind) -> String {
    match kind {
        Kind::Json => format!("{value}::jsonb"),
        Kind::Time => format!("{value}::timestamptz"),
        Kind::Text | Kind::Int | Kind::Bool => value.to_owned(),
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
