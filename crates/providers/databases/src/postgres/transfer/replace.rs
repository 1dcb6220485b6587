//! Replaces a tenant's rows by those that a load has put into temporary tables.

use tenantry_model::{Failure, TenantId};
use tenantry_postgres::Session;

use super::paused::Paused;
use super::{listed, references};
use crate::postgres::failure::failure;
use crate::postgres::relations::{qualified, relation};
use crate::postgres::replica;
use crate::postgres::server::run;
use crate::tables::{Catalogue, OWNER, Table, in_parentheses, quoted};
use tenantry_provider::transfer::bad_archive;

/// Rows of a table in a temporary table, with the columns that the archive has.
pub struct Staged<'a> {
    pub name: String,
    pub table: &'a Table,
    pub columns: Vec<String>,
    /// Name of the temporary table.
    pub copy: String,
}

impl Staged<'_> {
    /// The statement that creates the temporary table.
    pub fn create(&self, schema: &str) -> String {
        let Self { name, table, columns, copy } = self;
        let columns = listed(columns);
        format!(
            "CREATE TEMP TABLE {copy} ON COMMIT DROP AS SELECT {columns} FROM {} WITH NO DATA",
            qualified(schema, name, table)
        )
    }

    /// Returns an error unless the lookup table has all of these rows.
    async fn require_known(&self, connection: &mut Session, schema: &str) -> Result<(), Failure> {
        let sql = format!(
            "SELECT EXISTS (SELECT to_jsonb(given.*) FROM pg_temp.{} given
                            EXCEPT SELECT to_jsonb(known.*) FROM (SELECT {} FROM {}) known)",
            self.copy,
            listed(&self.columns),
            qualified(schema, &self.name, self.table)
        );
        match connection.one(&sql, &[]).await.map_err(failure)? {
            false => Ok(()),
            true => Err(bad_archive(format!(
                "table `{}` is marked `tenantry: lookup` and lacks rows of the archive: insert them in a migration",
                self.name
            ))),
        }
    }

    /// The statement that moves the rows into their table, as this tenant's.
    fn insert(&self, schema: &str, tenant: TenantId) -> String {
        let owner = self.table.owner.filter(|_| !self.columns.iter().any(|column| column == OWNER));
        let owner = owner.map(|owner| (quoted(OWNER), owner.literal(tenant)));
        let same = self.columns.iter().map(|column| (quoted(column), quoted(column)));
        let (columns, values): (Vec<String>, Vec<String>) = owner.into_iter().chain(same).unzip();
        format!(
            "INSERT INTO {} {} OVERRIDING SYSTEM VALUE SELECT {} FROM pg_temp.{}",
            qualified(schema, &self.name, self.table),
            in_parentheses(&columns),
            values.join(", "),
            self.copy
        )
    }
}

/// Replaces the tenant's rows. Triggers and rules of the tables do not run, because the rows have been through them; in
/// shared tables, they run if the server does not let the administrator pause them, or a table has a deferrable key.
/// Keys and constraints are checked before this ends. A table that archives of shared tables do not have keeps its rows if
/// this one does not have it.
pub async fn replace(
    connection: &mut Session,
    catalogue: &Catalogue,
    staged: &[Staged<'_>],
    schema: &str,
    tenant: TenantId,
) -> Result<(), Failure> {
    for staged in staged.iter().filter(|staged| staged.table.is_lookup) {
        staged.require_known(connection, schema).await?;
    }
    let is_kept =
        |name: &String| catalogue.lookups.contains(name) && !staged.iter().any(|staged| staged.name == *name);
    let paused = match catalogue.is_whole {
        true => Paused::in_tables(connection, schema).await?,
        false => Paused::default(),
    };
    let mut all = paused.pause;
    for group in &catalogue.deletion_order {
        let delete = |name: &String| {
            let table = catalogue.tables.get(name)?;
            let own = table.owner.filter(|_| !catalogue.is_whole);
            let own = own.map(|owner| format!("WHERE {OWNER} = {}", owner.literal(tenant)));
            Some(format!("DELETE FROM {} {}", relation(schema, name, table), own.unwrap_or_default()))
        };
        all.push_str(&together(group.iter().filter(|name| !is_kept(name)).filter_map(delete).collect()));
    }
    for group in catalogue.deletion_order.iter().rev() {
        let of_group = staged.iter().filter(|staged| group.contains(&staged.name));
        all.push_str(&together(of_group.map(|staged| staged.insert(schema, tenant)).collect()));
    }
    if catalogue.is_whole {
        // A table with deferred checks cannot be altered.
        all.push_str("SET CONSTRAINTS ALL IMMEDIATE;");
    }
    all.push_str(&paused.restore);
    let is_replica = !catalogue.is_whole
        && should_pause_triggers(connection, schema).await?
        && replica::pause(connection).await?;
    run(connection, all).await?;
    if is_replica {
        replica::resume(connection).await?;
        references::check(connection, catalogue, schema, tenant).await?;
    }
    Ok(())
}

/// Whether tables have triggers that run on INSERT or DELETE, and no deferrable key: a trigger checks such a key.
async fn should_pause_triggers(connection: &mut Session, schema: &str) -> Result<bool, Failure> {
    connection
        .one(
            concat!(
                "SELECT EXISTS (SELECT FROM pg_class JOIN pg_trigger ON tgrelid = pg_class.oid
                 WHERE NOT tgisinternal AND tgtype & 12 <> 0 AND tgenabled <> 'D' AND ",
                in_schemas!(class "pg_class"),
                ") AND NOT EXISTS (SELECT FROM pg_class JOIN pg_constraint ON conrelid = pg_class.oid
                 WHERE condeferrable AND contype IN ('p', 'u', 'x') AND ",
                in_schemas!(class "pg_class"),
                ")"
            ),
            &[&schema],
        )
        .await
        .map_err(failure)
}

/// Makes one statement of several, after which the foreign keys of all of them are checked at once.
fn together(mut statements: Vec<String>) -> String {
    match statements.len() {
        0 => String::new(),
        1 => format!("{};", statements.remove(0)),
        _ => {
            let parts =
                statements.iter().enumerate().map(|(number, sql)| format!("part_{number} AS ({sql})"));
            format!("WITH {} SELECT;", parts.collect::<Vec<_>>().join(", "))
        }
    }
}
