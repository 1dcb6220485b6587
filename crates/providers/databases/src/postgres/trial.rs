//! Tries migration files before any tenant sees them: runs all of them in one transaction, collects the faults of
//! every file, and rolls back. A file must not create or change anything outside of the tenant's schema, and the
//! tables must keep the rules of the isolation. Each fault is named with the file and the line that causes it.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_model::{Failure, FailureClass, Isolation};
use tenantry_postgres::Session;

use super::catalogue;
use super::config::PgNotify;
use super::extensions::Extensions;
use super::failure::{failure, run_statement};
use super::migrate::{END_FILE, pending, runnable};
use super::protection::Protection;
use super::server::run;
use crate::migrations::{
    self, Faults, Migration, Statement, Tool, for_one_transaction, in_transaction, is_concurrent,
};
use crate::tables::quoted;

/// Objects outside of a tenant's schemas that the transaction has created or changed. In this query and the following ones
/// OWN_SCHEMAS stands for the schemas of the main schema `$1`.
const EFFECTS: &str = include_str!("effects.sql");
/// Tables outside of these schemas that the transaction has written, with the number of changed rows, which a rollback to a
/// savepoint does not reduce. What has changed no row is found by its lock: a later tenant may have such rows.
const CHANGED_ROWS: &str = "
    SELECT DISTINCT format('rows of table %I.%I', nspname, relname), '0' FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    JOIN pg_namespace n ON n.oid = relnamespace
    WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock' AND relkind IN ('r', 'p')
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND nspname NOT IN ('pg_catalog', 'pg_toast') AND NOT nspname ^@ 'pg_temp_' AND n.oid NOT IN (OWN_SCHEMAS)
    UNION ALL SELECT format('rows of table %I.%I', schemaname, relname), (n_tup_ins + n_tup_upd + n_tup_del)::text FROM pg_stat_xact_all_tables
    WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname NOT IN ('pg_catalog', 'pg_toast')
      AND NOT schemaname ^@ 'pg_temp_' AND NOT EXISTS (SELECT FROM pg_class WHERE oid = relid AND relnamespace IN (OWN_SCHEMAS))";
/// What opens the schemas of one tenant to others, or others to the tenant.
const OPENINGS: &str = include_str!("openings.sql");
const NOT_CONCURRENTLY: &str = "PostgreSQL does not create or drop an index of a partitioned table concurrently: leave CONCURRENTLY out; shared tables are partitioned where the provider's setting `partitions` says so";
/// Schema in which files are tried; it exists in the transaction only.
const SCRATCH: &str = "tenantry_trial";

/// Functions of the schema `$1` that call `pg_notify` or NOTIFY: LISTEN needs no privilege.
const NOTIFIERS: &str = concat!(
    "SELECT format('function `%s` calls pg_notify or NOTIFY, which reaches the logins of all tenants of the database: remove the call, or set `pg_notify = \"allow\"` in the provider''s configuration if its payload says nothing about a tenant', proname)
     FROM pg_proc WHERE prokind <> 'a' AND concat(prosrc, pg_get_function_sqlbody(oid)) ~* '\\mpg_notify\\M|(^|[;''\"]|\\m(begin|then|else|loop|do))\\s*notify\\s' AND ",
    in_schemas!(proc "pg_proc")
);

/// Objects of these schemas that a statement has given to another role: it may do with them what it likes, and keys and
/// triggers check with its rights. Objects of extensions have the owner that the extension gives them.
const GIVEN_AWAY: &str = "
    SELECT format('%s belongs to the role `%s`, and not to the administrator: leave OWNER TO out',
                  (pg_identify_object(class, object, 0)).identity, pg_get_userbyid(owner))
    FROM (SELECT 'pg_class'::regclass, oid, relowner FROM pg_class WHERE relnamespace IN (OWN_SCHEMAS) AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
          UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc WHERE pronamespace IN (OWN_SCHEMAS)
          UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type WHERE typnamespace IN (OWN_SCHEMAS) AND typrelid = 0 AND typelem = 0
         ) own (class, object, owner)
    WHERE owner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = object AND deptype = 'e')
    ORDER BY 1";

/// How the files of an isolation are tried.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    isolation: Isolation,
    /// Name of the set, for messages.
    set: &'a str,
    /// The extensions of the database.
    extensions: &'a Extensions,
    /// What keeps tenants apart in the tables; none if they belong to one tenant.
    protection: Option<&'a dyn Protection>,
    /// Whether functions that call `pg_notify` are faults.
    rejects_notify: bool,
}

/// Rules that the statements so far violate, a sentence each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Violations {
    /// Objects outside of the schema, and those that bypass policies. A later statement that removes them does not
    /// excuse them.
    objects: BTreeSet<String>,
    /// Tables that break the rules of their isolation, and what could stop a removal. A later file may correct them.
    tables: BTreeSet<String>,
}

impl<'a> Trial<'a> {
    /// For shared tables, schemas or databases.
    pub const fn new(
        isolation: Isolation,
        set: &'a str,
        extensions: &'a Extensions,
        protection: Option<&'a dyn Protection>,
    ) -> Self {
        Self { isolation, set, extensions, protection, rejects_notify: false }
    }

    /// With this rule for functions that call `pg_notify`. In a database of its own a tenant hears only itself.
    pub fn with_pg_notify(self, rule: PgNotify) -> Self {
        let shared = self.isolation != Isolation::Database;
        Self { rejects_notify: shared && rule == PgNotify::Reject, ..self }
    }

    /// Tries all files if one of them is not applied to this schema yet. A failure of code `bad_migration` names every
    /// fault. The caller holds the schema's lock.
    pub async fn run(
        self,
        connection: &mut Session,
        schema: &str,
        migrations: &[Migration],
    ) -> Result<(), Failure> {
        if pending(connection, schema, migrations).await?.is_empty() {
            return Ok(());
        }
        // Counts of earlier transactions of this session would count as the files' own.
        run(connection, "SELECT pg_stat_force_next_flush()".to_owned()).await?;
        let mut transaction = connection.begin().await.map_err(failure)?;
        let faults = self.faults(&mut transaction, schema, &for_one_transaction(migrations)).await;
        transaction.rollback().await.map_err(failure)?;
        faults?.into_result(self.set)
    }

    async fn faults(
        self,
        transaction: &mut Session,
        schema: &str,
        migrations: &[Migration],
    ) -> Result<Faults, Failure> {
        let whole = self.isolation == Isolation::Database;
        let schema = if whole { schema } else { SCRATCH };
        if !whole {
            run(transaction, format!("CREATE SCHEMA {}", quoted(schema))).await?;
        }
        let mut faults = Faults::default();
        let mut known = self.found(transaction, schema).await?;
        // The place at which each table began to break the rules.
        let mut broken: BTreeMap<String, (&str, Option<usize>)> = BTreeMap::new();
        for migration in migrations {
            let file = &*migration.file;
            if let Err((line, failure)) = self.attempt(transaction, schema, migration).await {
                match failure.class {
                    FailureClass::Retryable | FailureClass::Unknown => {
                        return Err(migrations::bad(migration, Some(line), failure));
                    }
                    // The files after it may depend on it.
                    FailureClass::Invalid | FailureClass::Fatal => {
                        faults.add(file, Some(line), Tool::Plain, failure.message);
                        break;
                    }
                }
            }
            let found = self.found(transaction, schema).await?;
            let is_new = |fault: &&String| !known.objects.contains(*fault) && !known.tables.contains(*fault);
            let any = found.objects.iter().chain(&found.tables).any(|fault| is_new(&fault));
            let lines = match any {
                true => self.lines(transaction, schema, migration, &known).await?,
                false => BTreeMap::new(),
            };
            for fault in found.objects.iter().filter(is_new) {
                faults.add(file, lines.get(fault).copied(), Tool::Plain, fault.clone());
            }
            broken.retain(|fault, _| found.tables.contains(fault));
            for fault in found.tables.iter().filter(is_new) {
                broken.insert(fault.clone(), (file, lines.get(fault).copied()));
            }
            known.objects.extend(found.objects);
            known.tables = found.tables;
        }
        for (fault, (file, line)) in broken {
            faults.add(file, line, Tool::Plain, fault);
        }
        Ok(faults)
    }

    /// Runs a file again, statement by statement, to find the line after which each fault is there. The file has just
    /// run, and its savepoint exists.
    async fn lines(
        self,
        transaction: &mut Session,
        schema: &str,
        migration: &Migration,
        before: &Violations,
    ) -> Result<BTreeMap<String, usize>, Failure> {
        let mut lines = BTreeMap::new();
        let mut last: BTreeSet<String> = before.objects.union(&before.tables).cloned().collect();
        let path = self.extensions.search_path(schema);
        run(transaction, format!("ROLLBACK TO file; SET LOCAL {path}")).await?;
        let mut rows = changed_rows(transaction, schema).await?;
        last.extend(rows.keys().cloned());
        for statement in &migration.statements {
            if let Some(sql) = self.tried(migration, statement, schema) {
                run(transaction, sql).await?;
            }
            let found = self.found(transaction, schema).await?;
            let now: BTreeSet<String> = found.objects.union(&found.tables).cloned().collect();
            lines.extend(now.difference(&last).map(|fault| (fault.clone(), statement.line)));
            last = now;
            let changed = changed_rows(transaction, schema).await?;
            let more = changed.iter().filter(|(fault, count)| rows.get(*fault) != Some(*count));
            for (fault, _) in more {
                lines.entry(fault.clone()).or_insert(statement.line);
            }
            rows = changed;
        }
        run(transaction, END_FILE.to_owned()).await?;
        Ok(lines)
    }

    /// Runs a file after a savepoint `file`; an error undoes the file alone and names the line.
    async fn attempt(
        self,
        transaction: &mut Session,
        schema: &str,
        migration: &Migration,
    ) -> Result<(), (usize, Failure)> {
        let at = |line| move |failure| (line, failure);
        let path = self.extensions.search_path(schema);
        run(transaction, format!("SAVEPOINT file; SET LOCAL {path}")).await.map_err(at(1))?;
        for statement in &migration.statements {
            let Some(sql) = self.tried(migration, statement, schema) else { continue };
            let here = at(statement.line);
            let is_concurrent = !migration.transaction && is_concurrent(statement.text());
            let before = partitioned_indexes(transaction, schema, is_concurrent).await.map_err(here)?;
            if let Err((failure, line)) = run_statement(transaction, &sql).await {
                run(transaction, "ROLLBACK TO file".to_owned()).await.map_err(here)?;
                return Err((statement.line + line, failure));
            }
            if before != partitioned_indexes(transaction, schema, is_concurrent).await.map_err(here)? {
                run(transaction, "ROLLBACK TO file".to_owned()).await.map_err(here)?;
                return Err(here(Failure::fatal("bad_schema", NOT_CONCURRENTLY)));
            }
        }
        if let Err(failure) = run(transaction, END_FILE.to_owned()).await {
            run(transaction, "ROLLBACK TO file".to_owned()).await.map_err(at(1))?;
            return Err((migration.last_line(), failure));
        }
        Ok(())
    }

    /// A statement of a file as it can run in a transaction, if it can.
    fn tried(self, migration: &Migration, statement: &Statement, schema: &str) -> Option<String> {
        let sql = runnable(statement, schema, self.extensions, self.protection);
        if migration.transaction { Some(sql) } else { in_transaction(&sql) }
    }

    async fn found(self, transaction: &mut Session, schema: &str) -> Result<Violations, Failure> {
        let whole = self.isolation == Isolation::Database;
        let outside: Vec<String> =
            transaction.all(&of_own_schemas(EFFECTS), &[&schema, &whole]).await.map_err(failure)?;
        let mut objects: BTreeSet<String> = outside.iter().map(|object| is_outside(object)).collect();
        objects.extend(changed_rows(transaction, schema).await?.into_keys());
        objects.extend(sentences(transaction, GIVEN_AWAY, schema).await?);
        let (_, mut tables) = catalogue::inspect(transaction, schema, self.isolation).await?;
        if let Some(protection) = self.protection {
            objects.extend(protection.bypasses(transaction, schema).await?);
            tables.extend(protection.vetoes(transaction, schema).await?);
        } else {
            objects.extend(sentences(transaction, OPENINGS, schema).await?);
        }
        if self.rejects_notify {
            objects.extend(sentences(transaction, NOTIFIERS, schema).await?);
        }
        Ok(Violations { objects, tables: tables.into_iter().collect() })
    }
}

fn is_outside(object: &str) -> String {
    let or = match object.starts_with("schema ") {
        true => {
            "remove the statement, or use the isolation `database`, in which a tenant may have several schemas"
        }
        false => "leave the schema's name out, or remove the statement",
    };
    format!("creates or changes {object}, which is outside of the tenant's schema: {or}")
}

/// A query with the condition that an object is in one of a tenant's schemas.
fn of_own_schemas(query: &str) -> String {
    query.replace("OWN_SCHEMAS", own_schemas!())
}

/// A sentence for each table outside of the schema whose rows the transaction has changed, with the number of changes.
async fn changed_rows(transaction: &mut Session, schema: &str) -> Result<BTreeMap<String, String>, Failure> {
    let changed: Vec<(String, String)> =
        transaction.pairs(&of_own_schemas(CHANGED_ROWS), &[&schema]).await.map_err(failure)?;
    Ok(changed.into_iter().map(|(object, count)| (is_outside(&object), count)).collect())
}

/// The sentences that a query about a schema returns.
async fn sentences(connection: &mut Session, query: &str, schema: &str) -> Result<Vec<String>, Failure> {
    connection.all(&of_own_schemas(query), &[&schema]).await.map_err(failure)
}

/// The number of indexes of partitioned tables; 0 unless `is_asked`.
async fn partitioned_indexes(connection: &mut Session, schema: &str, is_asked: bool) -> Result<i64, Failure> {
    if !is_asked {
        return Ok(0);
    }
    let count = "SELECT count(*) FROM pg_class WHERE relkind = 'I' AND relnamespace IN (OWN_SCHEMAS)";
    connection.one(&of_own_schemas(count), &[&schema]).await.map_err(failure)
}
