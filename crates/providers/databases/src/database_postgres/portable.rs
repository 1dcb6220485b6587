//! One tenant's rows out of a schema and back into one, by COPY as CSV. Out: what one snapshot sees. Back: the rows come to
//! stand in temporary tables first, and then take the others' place in the same transaction. All of it as the
//! administrator, by the tenant's id: a tenant that is fenced off is entitled to its rows too.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tenantry_model::{Failure, FailureClass, Write};
use tokio::io::{AsyncReadExt as _, BufReader};

use super::catalogue;
use super::failure::failure;
use super::migrate::search_path;
use super::server::{close, run, take_turn};
use crate::tables::{Catalogue, OWNER, literal, quoted};
use tenantry_provider::csv;
use tenantry_provider::portable::{Content, Sink, Source, Tally, bad_archive, broken};
use tenantry_provider::verbs::Spec;

/// The word for the files of PostgreSQL's tables.
pub const FORM: &str = "postgres_tables";
/// Bytes that go to the server at a time.
const CHUNK: usize = 64 << 10;

/// What every transaction begins with: it may take long, between statements too, and writes times and numbers in one way.
fn settings(schema: &str) -> String {
    format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL timezone = 'UTC';
         SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1;
         SET LOCAL bytea_output = 'hex'; SET LOCAL {}",
        search_path(schema)
    )
}

/// Where a tenant's rows are.
pub struct Inside {
    /// To their database; it is good for nothing else.
    pub connection: PgConnection,
    /// Their schema.
    pub schema: String,
    /// If other tenants' rows are there too: the word of the turn that their removal takes.
    pub shared: Option<String>,
}

/// Hands out the tenant's rows.
pub async fn export(mut inside: Inside, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
    let Inside { connection, schema, .. } = &mut inside;
    let content = export_rows(connection, schema, &spec.tenant.id.to_string(), sink).await?;
    close(inside.connection).await?;
    Ok(content)
}

/// Puts the source's rows in the place of the tenant's. The registry has nothing to write for that.
pub async fn load(mut inside: Inside, spec: &Spec, source: &mut dyn Source) -> Result<Vec<Write>, Failure> {
    load_rows(&mut inside, &spec.tenant.id.to_string(), source).await?;
    close(inside.connection).await?;
    Ok(Vec::new())
}

async fn export_rows(
    connection: &mut PgConnection,
    schema: &str,
    tenant: &str,
    sink: &mut dyn Sink,
) -> Result<Content, Failure> {
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}", settings(schema));
    run(connection, begin).await?;
    let catalogue = catalogue::read(connection, schema).await?;
    let given = Given::read(connection, schema, &catalogue).await?;
    let mut tally = Tally::default();
    // Parents before what belongs to them.
    for table in catalogue.deletion_order.iter().rev() {
        let columns = given.columns(table);
        // Of rows that are nothing but their owner's there is nothing to take along.
        if columns.is_empty() {
            continue;
        }
        let mut out = csv::Table::new(sink, &mut tally, table, columns.iter().copied());
        let copy = format!(
            "COPY (SELECT {} FROM {}.{} WHERE {OWNER} = {}) TO STDOUT (FORMAT csv)",
            listed(&columns),
            quoted(schema),
            quoted(table),
            literal(tenant)
        );
        // One message is one row, says the protocol.
        let mut rows = connection.copy_out_raw(&copy).await.map_err(failure)?;
        while let Some(row) = rows.try_next().await.map_err(failure)? {
            out.row(&row).await?;
        }
        drop(rows);
        out.end().await?;
    }
    run(connection, "COMMIT".to_owned()).await?;
    Ok(tally.content())
}

async fn load_rows(
    Inside { connection, schema, shared }: &mut Inside,
    tenant: &str,
    source: &mut dyn Source,
) -> Result<(), Failure> {
    run(connection, format!("BEGIN; {}", settings(schema))).await?;
    let catalogue = catalogue::read(connection, schema).await?;
    let given = Given::read(connection, schema, &catalogue).await?;
    let mut staged = BTreeMap::new();
    while let Some(mut file) = source.next().await? {
        let table = csv::table_of(&file.path)?;
        let mut bytes = BufReader::with_capacity(CHUNK, &mut file.bytes);
        let header = csv::header(&mut bytes).await?;
        if !catalogue.tables.contains_key(&table) {
            return Err(bad_archive(format!("there is no table `{table}` here: apply its migrations first")));
        }
        let known = given.columns(&table);
        if let Some(unknown) = header.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(bad_archive(format!("table `{table}` has no column `{unknown}` here")));
        }
        let columns = listed(&header.iter().map(String::as_str).collect::<Vec<_>>());
        match staged.get(&table) {
            Some(before) if *before == columns => {}
            Some(_) => {
                return Err(bad_archive(format!("the files of table `{table}` differ in their columns")));
            }
            None => {
                let made = format!(
                    "CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {columns} FROM {}.{} WITH NO DATA",
                    quoted(&table),
                    quoted(schema),
                    quoted(&table)
                );
                run(connection, made).await?;
                staged.insert(table.clone(), columns.clone());
            }
        }
        let copy = format!("COPY pg_temp.{} ({columns}) FROM STDIN (FORMAT csv)", quoted(&table));
        let mut into = connection.copy_in_raw(&copy).await.map_err(failure)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match bytes.read(&mut chunk).await.map_err(|error| broken(&error))? {
                0 => break,
                length => drop(into.send(chunk.get(..length).unwrap_or_default()).await.map_err(failure)?),
            }
        }
        into.finish().await.map_err(|error| unfit(failure(error)))?;
    }
    replace(connection, &catalogue, &staged, schema, tenant).await.map_err(unfit)?;
    // Where a sequence is everybody's, no tenant's numbers may use it up.
    for (table, column) in given.numbered.iter().filter(|_| shared.is_none()) {
        let name = format!("{}.{}", quoted(schema), quoted(table));
        let sequence = format!("pg_get_serial_sequence({}, {})", literal(&name), literal(column));
        // Numbers that came with the rows are not given out again.
        let raise = format!(
            "SELECT setval({sequence}, greatest((SELECT max({}) FROM {name}), nextval({sequence})))",
            quoted(column)
        );
        run(connection, raise).await?;
    }
    if let Some(word) = shared {
        // A removal does not see rows that are not committed, and nothing goes with their tables. So a commit that is lost on
        // its way, because its process died, comes before a removal's turn or after nothing at all.
        take_turn(connection, word).await?;
    }
    run(connection, "COMMIT".to_owned()).await.map_err(unfit)
}

async fn replace(
    connection: &mut PgConnection,
    catalogue: &Catalogue,
    staged: &BTreeMap<String, String>,
    schema: &str,
    tenant: &str,
) -> Result<(), Failure> {
    let (schema, tenant) = (quoted(schema), literal(tenant));
    let mut all = String::new();
    for table in &catalogue.deletion_order {
        all.push_str(&format!("DELETE FROM {schema}.{} WHERE {OWNER} = {tenant};", quoted(table)));
    }
    for table in catalogue.deletion_order.iter().rev() {
        let Some(columns) = staged.get(table) else { continue };
        all.push_str(&format!(
            "INSERT INTO {schema}.{} ({OWNER}, {columns}) OVERRIDING SYSTEM VALUE SELECT {tenant}, {columns} FROM pg_temp.{};",
            quoted(table),
            quoted(table)
        ));
    }
    run(connection, all).await
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn unfit(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Invalid | FailureClass::Fatal => {
            bad_archive(format!("the rows do not fit the tables here: {}", failure.message))
        }
        _ => failure,
    }
}

/// Which columns can be given. Numbers that the server gives by itself are among them: rows keep theirs.
struct Given {
    tables: BTreeMap<String, Vec<String>>,
    /// Those that a sequence fills in, with their tables.
    numbered: BTreeSet<(String, String)>,
}

impl Given {
    async fn read(
        connection: &mut PgConnection,
        schema: &str,
        catalogue: &Catalogue,
    ) -> Result<Self, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT relname::text AS name, attname::text AS col,
                    pg_get_serial_sequence(format('%I.%I', $1, relname), attname) IS NOT NULL AS numbered
             FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
             WHERE ",
            in_schema!(class "pg_class"),
            " AND relkind IN ('r', 'p')
               AND attgenerated = '' AND attname <> $2 ORDER BY relname, attnum"
        ));
        let rows: Vec<PgRow> =
            rows.bind(schema).bind(OWNER).persistent(false).fetch_all(connection).await.map_err(failure)?;
        let mut given = Self { tables: BTreeMap::new(), numbered: BTreeSet::new() };
        for row in rows {
            let (table, column): (String, String) = (row.get("name"), row.get("col"));
            if !catalogue.tables.contains_key(&table) {
                continue;
            }
            if row.get("numbered") {
                given.numbered.insert((table.clone(), column.clone()));
            }
            given.tables.entry(table).or_default().push(column);
        }
        Ok(given)
    }

    fn columns(&self, table: &str) -> Vec<&str> {
        self.tables.get(table).map(|columns| columns.iter().map(String::as_str).collect()).unwrap_or_default()
    }
}
