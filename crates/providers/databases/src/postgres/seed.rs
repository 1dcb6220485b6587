//! Writes a tenant's first rows into its tables.

use std::collections::BTreeMap;

use tenantry_model::{Failure, FailureClass, TenantId};
use tenantry_postgres::Session;

use super::catalogue::LOOKUP_POLICY;
use super::failure::failure;
use super::server::run;
use crate::content::{Ensure, Insert};
use crate::tables::{OWNER, OwnerType, literal, quoted, seed_of_lookup};

/// Writes a tenant's first rows into the tables of this schema, with this search path. Existing rows stay.
pub async fn seed(transaction: &mut Session, schema: &str, path: &str, work: &Ensure) -> Result<(), Failure> {
    if work.rows.is_empty() {
        return Ok(());
    }
    run(transaction, format!("SET LOCAL {path}")).await?;
    let targets = targets(transaction, schema, work).await?;
    let tenant: Result<TenantId, _> = work.tenant.parse();
    let tenant = tenant.map_err(|why| Failure::invalid("bad_seed", format!("{}: {why}", work.tenant)))?;
    for (insert, rows) in &work.rows {
        let default = Target::default();
        let target = targets.get(&insert.table).unwrap_or(&default);
        if target.is_lookup {
            return Err(seed_of_lookup(&insert.table));
        }
        let inserted = transaction.execute(&target.statement(insert, tenant), &[&format!("[{rows}]")]).await;
        inserted.map_err(|error| match failure(error) {
            // The tables reject the rows because the seed does not fit them: a retry does not help.
            wrong if matches!(wrong.class, FailureClass::Invalid | FailureClass::Fatal) => {
                let seed = work.seed.as_deref().unwrap_or("canary.yaml");
                Failure::invalid("bad_seed", format!("{seed}: table `{}`: {}", insert.table, wrong.message))
            }
            other => other,
        })?;
    }
    Ok(())
}

/// What decides how rows are inserted into a table.
#[derive(Default)]
struct Target {
    /// The table's name in SQL; none if there is no such table.
    relation: Option<String>,
    /// The type of its `tenant_id`, if Tenantry fills it.
    owner: Option<OwnerType>,
    present: Present,
    /// Whether all tenants read its rows.
    is_lookup: bool,
}

/// How a row that exists already is found.
#[derive(Default)]
enum Present {
    /// By any of the table's keys.
    AnyKey,
    /// By the key of this name, because ON CONFLICT does not take the table's deferrable keys.
    Key(String),
    /// By its values.
    #[default]
    Values,
}

/// The tables that get rows, by name.
async fn targets(
    transaction: &mut Session,
    schema: &str,
    work: &Ensure,
) -> Result<BTreeMap<String, Target>, Failure> {
    let names: Vec<&str> = work.rows.iter().map(|(insert, _)| insert.table.as_str()).collect();
    let rows = transaction
        .rows(
            "SELECT DISTINCT name, place::regclass::text AS relation, EXISTS (SELECT FROM pg_index WHERE indrelid = place AND indisunique)
                                   AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = place AND NOT indimmediate) AS any_key,
                    (SELECT conname::text FROM pg_constraint WHERE conrelid = place AND contype IN ('p', 'u') AND NOT condeferrable
                     ORDER BY contype, conname LIMIT 1) AS key,
                    (SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = place AND attname = $3 AND NOT attisdropped) AS owner,
                    $1 = 'tenantry_pool' AND EXISTS (SELECT FROM pg_policy WHERE polrelid = place AND polname = $4) AS is_lookup
             FROM unnest($2::text[]) name, coalesce(
                 to_regclass(format('%I.%I', $1, name)),
                 CASE WHEN $1 = 'public' AND name LIKE '_%._%'
                      THEN to_regclass(format('%I.%I', split_part(name, '.', 1), substr(name, strpos(name, '.') + 1))) END) place",
            &[&schema, &names.as_slice(), &OWNER, &LOOKUP_POLICY],
        )
        .await
        .map_err(failure)?;
    let targets = rows.iter().map(|row| {
        let owner = row.get::<_, Option<&str>>("owner").and_then(OwnerType::of);
        let present = match (row.get("any_key"), row.get("key")) {
            (true, _) => Present::AnyKey,
            (false, Some(key)) => Present::Key(key),
            (false, None) => Present::Values,
        };
        let (relation, is_lookup) = (row.get("relation"), row.get("is_lookup"));
        (row.get("name"), Target { relation, owner, present, is_lookup })
    });
    Ok(targets.collect())
}

impl Target {
    /// The statement that inserts rows of a seed: its parameter is a JSON array of them, whose values the table's types
    /// parse.
    fn statement(&self, Insert { table, columns }: &Insert, tenant: TenantId) -> String {
        let all = self.owner.map(|_| OWNER).into_iter().chain(columns.iter().map(String::as_str));
        let all: Vec<&str> = all.collect();
        let names = all.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let values = all.iter().map(|name| format!("given.{}", quoted(name))).collect::<Vec<_>>().join(", ");
        let keys = columns.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
        let owner = self.owner.map(|owner| {
            format!(" || jsonb_build_object({}, {}::text)", literal(OWNER), literal(&owner.value(tenant)))
        });
        let table = self.relation.clone().unwrap_or_else(|| quoted(table));
        let unless_present = match &self.present {
            Present::AnyKey => "ON CONFLICT DO NOTHING".to_owned(),
            Present::Key(key) => format!("ON CONFLICT ON CONSTRAINT {} DO NOTHING", quoted(key)),
            Present::Values => format!(
                "WHERE NOT EXISTS (SELECT FROM {table} present WHERE to_jsonb(present.*) @> jsonb_strip_nulls(to_jsonb(given.*)))"
            ),
        };
        format!(
            "INSERT INTO {table} ({names}) SELECT {values} FROM jsonb_array_elements($1::jsonb) AS seed(cells),
             LATERAL (SELECT jsonb_object_agg(name, cells -> place::int) FROM unnest(ARRAY[{keys}]::text[]) WITH ORDINALITY AS name(name, place)) AS cell(cells_by_name),
             LATERAL jsonb_populate_record(NULL::{table}, coalesce(cells_by_name, '{{}}'){}) AS given
             {unless_present}",
            owner.unwrap_or_default(),
        )
    }
}
