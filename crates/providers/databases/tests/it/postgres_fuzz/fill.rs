//! Rows for tables of any form. Every value of a row follows from the row's number and its column's type, so that keys
//! are unique and foreign keys find their rows.

use std::ops::RangeInclusive;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// Whose rows are written.
pub struct Rows<'a> {
    /// Schema of the tables.
    pub schema: &'a str,
    /// Id of the tenant, and whether its rows share tables with others'.
    pub tenant: &'a str,
    pub is_shared: bool,
    /// Part of every text.
    pub word: &'a str,
}

const COLUMNS: &str = "
    SELECT relname::text AS tab, attname::text AS col, typtype::text AS form,
           CASE WHEN attname IS NOT NULL THEN format_type(coalesce(nullif(typbasetype, 0), pg_type.oid), NULL) END AS kind,
           (SELECT enumlabel::text FROM pg_enum WHERE enumtypid = pg_type.oid ORDER BY enumsortorder DESC LIMIT 1) AS label
    FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a'
    LEFT JOIN pg_type ON pg_type.oid = atttypid
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> '_migrations'
    ORDER BY pg_class.oid, attnum";

impl Rows<'_> {
    /// Writes rows of these numbers into every table, as far as its constraints allow; returns how many. `catalogue` is
    /// a session of an administrator.
    pub async fn write(
        &self,
        catalogue: &mut PgConnection,
        session: &mut PgConnection,
        numbers: RangeInclusive<u32>,
    ) -> Result<usize, String> {
        let columns = sqlx::query(COLUMNS).bind(self.schema).fetch_all(catalogue).await;
        let columns = columns.map_err(|error| format!("the columns cannot be read: {error}"))?;
        let mut written = 0;
        for number in numbers {
            let mut inserts: Vec<(String, Vec<String>, Vec<String>)> = Vec::new();
            for row in &columns {
                let table: String = row.get("tab");
                if inserts.last().is_none_or(|(last, ..)| *last != table) {
                    inserts.push((table, Vec::new(), Vec::new()));
                }
                let Some((_, names, values)) = inserts.last_mut() else { continue };
                let Some(name) = row.get::<Option<String>, _>("col") else { continue };
                let value = self.value(&name, row, number);
                names.push(quoted(&name));
                values.push(value);
            }
            let inserts = inserts.into_iter().map(|(table, names, values)| {
                let table = format!("{}.{}", quoted(self.schema), quoted(&table));
                match names.is_empty() {
                    true => format!("INSERT INTO {table} DEFAULT VALUES"),
                    false => {
                        format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "))
                    }
                }
            });
            written += write_all(session, inserts.collect()).await?;
        }
        Ok(written)
    }

    fn value(&self, column: &str, row: &sqlx::postgres::PgRow, n: u32) -> String {
        let Self { tenant, is_shared, word, .. } = self;
        let [form, kind, label] =
            ["form", "kind", "label"].map(|name| row.get::<Option<String>, _>(name).unwrap_or_default());
        if column == "tenant_id" && (*is_shared || kind == "text" && !n.is_multiple_of(2)) {
            return literal(tenant);
        }
        let text = match (&*form, &*kind) {
            ("e", _) => label,
            ("c", _) => format!("({n},\"a;b\"\"{n}\")"),
            (_, "boolean") => n.is_multiple_of(2).to_string(),
            (_, "uuid") => format!("00000000-0000-4000-8000-00000000000{n}"),
            (_, "timestamp with time zone" | "date") => format!("2026-01-0{n}"),
            (_, "time without time zone") => format!("0{n}:00"),
            (_, "interval") => format!("{n} days"),
            (_, "json" | "jsonb") => format!("{{\"word\": \"{word}\", \"n\": {n}}}"),
            (_, "bytea") => format!("\\x00{n}f"),
            (_, "integer[]") => format!("{{{n},NULL}}"),
            (_, "text[]") => format!("{{\"{word},{n}\",NULL,\"\\\"\"}}"),
            (_, "int4range") => format!("[{n}0,{n}5)"),
            (_, "tstzrange") => format!("[2026-01-0{n},)"),
            (_, "inet") => format!("10.0.0.{n}"),
            (_, "point") => format!("({n},-{n})"),
            (_, "tsvector") => format!("{word} {n}"),
            // Types of extensions, which have the prefix of their schema or none.
            (_, kind) if kind.ends_with("hstore") => format!("word=>\"{word} {n}\""),
            (_, kind) if kind.ends_with("ltree") => format!("{word}.n{n}"),
            (_, kind) if kind.ends_with("ltree[]") => format!("{{{word}.n{n},a.b}}"),
            (_, kind) if kind.ends_with("citext") => format!("{word} {n}\\."),
            (_, "text" | "character varying" | "character" | "name") => format!("{word} {n}\\."),
            _ => n.to_string(),
        };
        literal(&text)
    }
}

/// Runs the statements in one transaction, those that fail again after the others: rows may refer to each other.
async fn write_all(session: &mut PgConnection, statements: Vec<String>) -> Result<usize, String> {
    let all = statements.len();
    let mut left = statements.clone();
    run(session, "BEGIN").await?;
    for _ in 0..3 {
        let before = left.len();
        let mut failed = Vec::new();
        for sql in left {
            if run(session, &format!("SAVEPOINT one; {sql}; RELEASE one")).await.is_err() {
                run(session, "ROLLBACK TO one").await?;
                failed.push(sql);
            }
        }
        left = failed;
        if left.is_empty() || left.len() == before {
            break;
        }
    }
    if run(session, "COMMIT").await.is_ok() {
        return Ok(all - left.len());
    }
    let mut written = 0;
    for sql in statements {
        written += usize::from(run(session, &sql).await.is_ok());
    }
    Ok(written)
}

/// Runs statements; a failure is a text. A session that is lost is one too.
pub async fn run(session: &mut PgConnection, sql: &str) -> Result<(), String> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(session).await;
    done.map(drop).map_err(|error| format!("{error}"))
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn literal(text: &str) -> String {
    let quote = if text.contains('\\') { "E" } else { "" };
    format!("{quote}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
