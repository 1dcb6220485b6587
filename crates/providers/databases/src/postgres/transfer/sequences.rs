//! Positions of a tenant's sequences: exported as a file, and set again after a load. They do not count for the digest
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
/// The columns if a sequence is not in the main schema.
const WITH_SCHEMA: [&str; 4] = ["schema", COLUMNS[0], COLUMNS[1], COLUMNS[2]];

/// A sequence of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence {
    /// Its schema, unless that is the main one.
    schema: Option<String>,
    name: String,
}

/// Position of a sequence.
pub struct Position {
    sequence: Sequence,
    last: i64,
    is_called: bool,
}

/// Exports the positions of these sequences, if there are any; `schema` is the main one.
pub async fn export(
    reader: &mut Reader<'_>,
    schema: &str,
    sequences: &[Sequence],
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    if sequences.is_empty() {
        return Ok(());
    }
    // Earlier releases read files without schemas only.
    let is_plain = sequences.iter().all(|sequence| sequence.schema.is_none());
    let mut file = if is_plain { csv::line(COLUMNS.map(Some)) } else { csv::line(WITH_SCHEMA.map(Some)) };
    for some in sequences.chunks(AT_ONCE) {
        let read = |(number, sequence): (usize, &Sequence)| {
            format!("SELECT {number} AS number, last_value, is_called FROM {}", sequence.qualified(schema))
        };
        let all: Vec<String> = some.iter().enumerate().map(read).collect();
        let session = reader.session(some.len()).await?;
        let rows = session.rows(&format!("{} ORDER BY 1", all.join(" UNION ALL ")), &[]).await;
        for (sequence, row) in some.iter().zip(rows.map_err(failure)?) {
            let last = row.get::<_, i64>("last_value").to_string();
            let is_called = if row.get("is_called") { "true" } else { "false" };
            let place = (!is_plain).then_some(sequence.schema.as_deref());
            file.extend(csv::line(place.into_iter().chain([&*sequence.name, &*last, is_called].map(Some))));
        }
    }
    sink.file(FILE, file.len() as u64, &mut &*file).await
}

/// Reads the file.
pub async fn read(bytes: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<Position>, Failure> {
    let bad = || bad_archive(format!("`{FILE}` is not a list of sequences"));
    let header = csv::header(bytes).await?;
    let has_schema = header == WITH_SCHEMA;
    if !has_schema && header != COLUMNS {
        return Err(bad());
    }
    let mut positions = Vec::new();
    while let Some(row) = csv::read(bytes).await? {
        let mut fields: Vec<Option<String>> = row.into_iter().map(Field::text).collect();
        let schema = if has_schema && !fields.is_empty() { fields.remove(0) } else { None };
        let fields: Option<Vec<String>> = fields.into_iter().collect();
        let fields: Option<[String; 3]> = fields.and_then(|fields| fields.try_into().ok());
        let [name, last, is_called] = fields.ok_or_else(bad)?;
        let sequence = Sequence { schema, name };
        let position =
            || Some(Position { sequence, last: last.parse().ok()?, is_called: is_called.parse().ok()? });
        positions.push(position().ok_or_else(bad)?);
    }
    Ok(positions)
}

/// Sets the positions. A sequence without one, because the archive comes from shared tables or is older than the
/// sequence, is raised to the greatest number that its column has.
pub async fn set(connection: &mut Session, schema: &str, positions: &[Position]) -> Result<(), Failure> {
    let known: BTreeSet<Sequence> = all(connection, schema).await?.into_iter().collect();
    let mut sql = String::new();
    for Position { sequence, last, is_called } in positions {
        if !known.contains(sequence) {
            let Sequence { schema, name } = sequence;
            let place = schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
            let why = format!("the database has no sequence `{place}{name}`: apply its migrations first");
            return Err(bad_archive(why));
        }
        sql.push_str(&format!("SELECT setval({}, {last}, {is_called});", sequence.regclass(schema)));
    }
    for row in connection.rows(NUMBERED, &[&schema]).await.map_err(failure)? {
        let sequence = Sequence { schema: row.get("place"), name: row.get("sequence") };
        if positions.iter().all(|position| position.sequence != sequence) {
            sql.push_str(&sequence.raise(schema, row.get("tab"), row.get("col")));
        }
    }
    run(connection, sql).await
}

/// Sequences that number a column of whole numbers, with table and column. They are in the table's schema.
const NUMBERED: &str = concat!(
    "SELECT nullif(nspname, $1)::text AS place, own.relname::text AS sequence, format('%I.%I', nspname, t.relname) AS tab, attname::text AS col
     FROM pg_class own JOIN pg_namespace n ON n.oid = own.relnamespace
     JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = own.oid AND d.refclassid = 'pg_class'::regclass
                      AND d.deptype IN ('a', 'i')
     JOIN pg_class t ON t.oid = d.refobjid JOIN pg_attribute ON attrelid = t.oid AND attnum = d.refobjsubid
     WHERE own.relkind = 'S' AND atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
       AND t.relnamespace = own.relnamespace AND own.relname <> '_migrations_position_seq' AND ",
    in_schemas!(class "own")
);

impl Sequence {
    /// Its name in SQL; `main` is the main schema.
    fn qualified(&self, main: &str) -> String {
        format!("{}.{}", quoted(self.schema.as_deref().unwrap_or(main)), quoted(&self.name))
    }

    /// It as a value of type `regclass`.
    fn regclass(&self, main: &str) -> String {
        format!("{}::regclass", literal(&self.qualified(main)))
    }

    /// The statement that raises it, or lowers one that counts down, so that it returns no number that a row has. `table` is
    /// a name in SQL.
    fn raise(&self, main: &str, table: &str, column: &str) -> String {
        let (name, sequence, column) = (self.qualified(main), self.regclass(main), quoted(column));
        format!(
            "SELECT setval({sequence}, edge, true) FROM pg_sequence, {name} present,
             LATERAL (SELECT CASE WHEN seqincrement > 0 THEN least(max({column}), seqmax) ELSE greatest(min({column}), seqmin) END::bigint AS edge
                      FROM {table}) numbers
             WHERE seqrelid = {sequence} AND CASE WHEN seqincrement > 0 THEN edge >= last_value ELSE edge <= last_value END;"
        )
    }
}

/// The sequences of a main schema and of those beside it, without that of the table of applied migrations.
pub async fn all(connection: &mut Session, schema: &str) -> Result<Vec<Sequence>, Failure> {
    let sql = concat!(
        "SELECT nullif(nspname, $1)::text, relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
         WHERE ",
        in_schemas!(class "pg_class"),
        " AND relkind = 'S' AND relname <> $2 ORDER BY 1 NULLS FIRST, 2"
    );
    let found = connection.pairs(sql, &[&schema, &POSITIONS]).await.map_err(failure)?;
    Ok(found.into_iter().map(|(schema, name)| Sequence { schema, name }).collect())
}
