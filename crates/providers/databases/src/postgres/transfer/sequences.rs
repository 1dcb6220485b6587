//! Positions of a schema's sequences: exported as a file, and set again after a load. They do not count for the digest
//! of the content.

use std::collections::BTreeSet;

use tenantry_model::Failure;
use tenantry_postgres::Session;
use tokio::io::AsyncBufRead;

use super::snapshot::Reader;
use crate::postgres::failure::failure;
use crate::postgres::migrate::POSITIONS;
use crate::postgres::relations::AT_ONCE;
use crate::postgres::server::run;
use crate::tables::{literal, quoted};
use tenantry_provider::csv::{self, Field};
use tenantry_provider::transfer::{Sink, bad_archive};

/// Path of the file. No table's file has such a path.
pub const FILE: &str = "sequences.csv";
const COLUMNS: [&str; 3] = ["sequence", "last_value", "is_called"];

/// Position of a sequence.
pub struct Position {
    name: String,
    last: i64,
    is_called: bool,
}

/// Exports the positions of these sequences of a schema, if there are any.
pub async fn export(
    reader: &mut Reader<'_>,
    schema: &str,
    names: &[String],
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut file = csv::line(COLUMNS.map(Some));
    for names in names.chunks(AT_ONCE) {
        let read = |name: &String| {
            let from = format!("{}.{}", quoted(schema), quoted(name));
            format!("SELECT {} AS name, last_value, is_called FROM {from}", literal(name))
        };
        let all: Vec<String> = names.iter().map(read).collect();
        let session = reader.session(names.len()).await?;
        for row in session.rows(&all.join(" UNION ALL "), &[]).await.map_err(failure)? {
            let (name, last): (String, i64) = (row.get("name"), row.get("last_value"));
            let is_called = if row.get("is_called") { "true" } else { "false" };
            file.extend(csv::line([Some(&*name), Some(&*last.to_string()), Some(is_called)]));
        }
    }
    sink.file(FILE, file.len() as u64, &mut &*file).await
}

/// Reads the file.
pub async fn read(bytes: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<Position>, Failure> {
    let bad = || bad_archive(format!("`{FILE}` is not a list of sequences"));
    if csv::header(bytes).await? != COLUMNS {
        return Err(bad());
    }
    let mut positions = Vec::new();
    while let Some(row) = csv::read(bytes).await? {
        let fields: Option<Vec<String>> = row.into_iter().map(Field::text).collect();
        let fields: Option<[String; 3]> = fields.and_then(|fields| fields.try_into().ok());
        let [name, last, is_called] = fields.ok_or_else(bad)?;
        let position =
            || Some(Position { name, last: last.parse().ok()?, is_called: is_called.parse().ok()? });
        positions.push(position().ok_or_else(bad)?);
    }
    Ok(positions)
}

/// Sets the positions. A sequence without one, because the archive comes from shared tables or is older than the
/// sequence, is raised to the greatest number that its column has.
pub async fn set(connection: &mut Session, schema: &str, positions: &[Position]) -> Result<(), Failure> {
    let names: BTreeSet<String> = names(connection, schema).await?.into_iter().collect();
    let mut all = String::new();
    for Position { name, last, is_called } in positions {
        if !names.contains(name) {
            let why = format!("the database has no sequence `{name}`: apply its migrations first");
            return Err(bad_archive(why));
        }
        all.push_str(&format!("SELECT setval({}, {last}, {is_called});", of(schema, name)));
    }
    for row in connection.rows(NUMBERED, &[&schema]).await.map_err(failure)? {
        let [name, table, column]: [String; 3] = ["sequence", "tab", "col"].map(|part| row.get(part));
        if positions.iter().all(|position| position.name != name) {
            all.push_str(&raise(schema, &name, &table, &column));
        }
    }
    run(connection, all).await
}

/// Sequences that number a column of whole numbers, with table and column.
const NUMBERED: &str = concat!(
    "SELECT own.relname::text AS sequence, t.relname::text AS tab, attname::text AS col
     FROM pg_class own
     JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = own.oid AND d.refclassid = 'pg_class'::regclass
                      AND d.deptype IN ('a', 'i')
     JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute ON attrelid = t.oid AND attnum = d.refobjsubid
     WHERE own.relkind = 'S' AND atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
       AND t.relnamespace = own.relnamespace AND own.relname <> '_migrations_position_seq' AND ",
    in_schema!(class "own")
);

/// Raises a sequence, or lowers one that counts down, so that it returns no number that a row has.
fn raise(schema: &str, name: &str, table: &str, column: &str) -> String {
    let (sequence, column) = (of(schema, name), quoted(column));
    let [name, table] = [name, table].map(|name| format!("{}.{}", quoted(schema), quoted(name)));
    format!(
        "SELECT setval({sequence}, edge, true) FROM pg_sequence, {name} present,
         LATERAL (SELECT CASE WHEN seqincrement > 0 THEN least(max({column}), seqmax) ELSE greatest(min({column}), seqmin) END::bigint AS edge
                  FROM {table}) numbers
         WHERE seqrelid = {sequence} AND CASE WHEN seqincrement > 0 THEN edge >= last_value ELSE edge <= last_value END;"
    )
}

/// A sequence as a value of type `regclass`.
fn of(schema: &str, name: &str) -> String {
    format!("{}::regclass", literal(&format!("{}.{}", quoted(schema), quoted(name))))
}

/// The sequences of a schema, without that of the table of applied migrations.
pub async fn names(connection: &mut Session, schema: &str) -> Result<Vec<String>, Failure> {
    let sql = concat!(
        "SELECT relname::text FROM pg_class WHERE ",
        in_schema!(class "pg_class"),
        " AND relkind = 'S' AND relname <> $2 ORDER BY 1"
    );
    connection.all(sql, &[&schema, &POSITIONS]).await.map_err(failure)
}
