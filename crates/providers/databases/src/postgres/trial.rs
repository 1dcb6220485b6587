//! Tries migration files before any tenant sees them: runs all of them in one transaction, collects the faults of
//! every file, and rolls back. A file must not create or change anything outside of the tenant's schema, and the
//! tables must keep the rules of the isolation.

use std::collections::BTreeSet;

use tenantry_model::{Failure, FailureClass, Isolation};
use tenantry_postgres::Session;

use super::catalogue;
use super::failure::failure;
use super::migrate::{pending, search_path};
use super::server::run;
use crate::migrations::{self, Migration};
use crate::tables::quoted;

/// Objects outside of a schema that the transaction has created or changed.
const EFFECTS: &str = include_str!("effects.sql");
/// Schema in which files are tried; it exists in the transaction only.
const SCRATCH: &str = "tenantry_trial";

/// How the files of an isolation are tried.
#[derive(Clone, Copy)]
pub struct Trial {
    isolation: Isolation,
    /// Finds objects that bypass the policies of shared tables, in the schema `$1`.
    bypasses: Option<&'static str>,
}

impl Trial {
    /// For shared tables, schemas or databases. `bypasses` is a query that returns a sentence for each object in the
    /// schema `$1` that bypasses the policies of shared tables.
    pub const fn new(isolation: Isolation, bypasses: Option<&'static str>) -> Self {
        Self { isolation, bypasses }
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
        let mut transaction = connection.begin().await.map_err(failure)?;
        let faults = self.faults(&mut transaction, schema, migrations).await;
        transaction.rollback().await.map_err(failure)?;
        match faults? {
            faults if faults.is_empty() => Ok(()),
            faults => Err(Failure::fatal("bad_migration", faults.join("; "))),
        }
    }

    async fn faults(
        self,
        transaction: &mut Session,
        schema: &str,
        migrations: &[Migration],
    ) -> Result<Vec<String>, Failure> {
        let whole = self.isolation == Isolation::Database;
        let schema = if whole { schema } else { SCRATCH };
        if !whole {
            run(transaction, format!("CREATE SCHEMA {}", quoted(schema))).await?;
        }
        let mut known: BTreeSet<String> = self.found(transaction, schema, whole).await?.into_iter().collect();
        let (mut faults, mut broken) = (Vec::new(), None::<(&str, String)>);
        for migration in migrations {
            let file = &migration.file;
            if let Err(failure) = attempt(transaction, schema, migration).await {
                match failure.class {
                    FailureClass::Retryable | FailureClass::Unknown => return Err(failure),
                    // The files after it may depend on it.
                    FailureClass::Invalid | FailureClass::Fatal => {
                        faults.push(migrations::bad(migration, None, failure).message);
                        break;
                    }
                }
            }
            for fault in self.found(transaction, schema, whole).await? {
                if known.insert(fault.clone()) {
                    faults.push(format!("{file}: {fault}"));
                }
            }
            // A later file may correct the tables that an earlier one has created.
            broken = match rules(transaction, schema, self.isolation).await? {
                None => None,
                Some(fault) => match broken {
                    Some((file, known)) if known == fault => Some((file, known)),
                    _ => Some((file.as_str(), fault)),
                },
            };
        }
        faults.extend(broken.map(|(file, fault)| format!("{file}: {fault}")));
        Ok(faults)
    }

    /// Sentences about objects outside of the schema, and about those that bypass policies.
    async fn found(
        self,
        transaction: &mut Session,
        schema: &str,
        whole: bool,
    ) -> Result<Vec<String>, Failure> {
        let outside: Vec<String> = transaction.all(EFFECTS, &[&schema, &whole]).await.map_err(failure)?;
        let mut found: Vec<String> = outside
            .into_iter()
            .map(|object| {
                format!(
                    "creates or changes {object}, which is outside of the tenant's schema: leave the schema's name out, or remove the statement"
                )
            })
            .collect();
        if let Some(bypasses) = self.bypasses {
            found.extend(bypasses_in(transaction, bypasses, schema).await?);
        }
        Ok(found)
    }
}

/// A sentence for each object in the schema that bypasses the policies of shared tables.
pub async fn bypasses_in(
    connection: &mut Session,
    bypasses: &str,
    schema: &str,
) -> Result<Vec<String>, Failure> {
    connection.all(bypasses, &[&schema]).await.map_err(failure)
}

/// How the tables break the rules of their isolation.
async fn rules(
    transaction: &mut Session,
    schema: &str,
    isolation: Isolation,
) -> Result<Option<String>, Failure> {
    match catalogue::read(transaction, schema, isolation).await {
        Ok(_) => Ok(None),
        Err(failure) => match failure.class {
            FailureClass::Retryable | FailureClass::Unknown => Err(failure),
            FailureClass::Invalid | FailureClass::Fatal => Ok(Some(failure.message)),
        },
    }
}

/// Runs a file; an error undoes it alone.
async fn attempt(transaction: &mut Session, schema: &str, migration: &Migration) -> Result<(), Failure> {
    run(transaction, format!("SAVEPOINT file; SET LOCAL {}", search_path(schema))).await?;
    let mut tried = Ok(());
    for statement in &migration.statements {
        let sql = statement.sql(schema);
        let sql = if migration.transaction { Some(sql.into_owned()) } else { in_transaction(&sql) };
        if let (Ok(()), Some(sql)) = (&tried, sql) {
            let ran = run(transaction, sql).await;
            tried = ran.map_err(|failure| migrations::bad(migration, Some(statement.line), failure));
        }
    }
    if tried.is_err() {
        run(transaction, "ROLLBACK TO file".to_owned()).await?;
    }
    tried
}

/// The statement in a form that can run in a transaction: without CONCURRENTLY; none for VACUUM.
fn in_transaction(statement: &str) -> Option<String> {
    let mut words: Vec<&str> = statement.split_inclusive(char::is_whitespace).collect();
    if words.first().is_some_and(|word| word.trim().eq_ignore_ascii_case("vacuum")) {
        return None;
    }
    if let Some(at) = words.iter().take(6).position(|word| word.trim().eq_ignore_ascii_case("concurrently")) {
        words.remove(at);
    }
    Some(words.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_run_in_a_transaction() {
        for (statement, tried) in [
            ("CREATE INDEX CONCURRENTLY i ON t (a)", Some("CREATE INDEX i ON t (a)")),
            (
                "create unique index\nconcurrently if not exists i ON t (a)",
                Some("create unique index\nif not exists i ON t (a)"),
            ),
            ("ALTER TABLE t DETACH PARTITION p", Some("ALTER TABLE t DETACH PARTITION p")),
            ("VACUUM t", None),
        ] {
            assert_eq!(in_transaction(statement).as_deref(), tried);
        }
    }
}
