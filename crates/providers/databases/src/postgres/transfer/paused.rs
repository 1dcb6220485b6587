//! What a load pauses in a tenant's schemas: triggers and rules, which would change or log rows that are loaded as they were,
//! constraints that are `NOT VALID`, which older rows need not keep, and replica identities that allow no DELETE.

use tenantry_model::Failure;
use tenantry_postgres::Session;

use crate::postgres::failure::failure;

/// Statements to pause all of this and to restore it as it was, in one transaction.
#[derive(Default)]
pub struct Paused {
    /// Pauses it.
    pub pause: String,
    /// Restores it.
    pub restore: String,
}

impl Paused {
    /// Reads what there is to pause in the tables of a schema and of those beside it.
    pub async fn in_tables(connection: &mut Session, schema: &str) -> Result<Self, Failure> {
        Self::read(connection, schema, &[TRIGGERS, CONSTRAINTS, HEIRS, REPLICA_IDENTITIES]).await
    }

    /// Reads what there is to pause in the types of these schemas: before rows are staged, which have them too.
    pub async fn in_types(connection: &mut Session, schema: &str) -> Result<Self, Failure> {
        Self::read(connection, schema, &[DOMAINS]).await
    }

    async fn read(connection: &mut Session, schema: &str, finders: &[&str]) -> Result<Self, Failure> {
        let mut paused = Self::default();
        for find in finders {
            let found: Vec<(String, String)> = connection.pairs(find, &[&schema]).await.map_err(failure)?;
            for (pause, restore) in found {
                paused.pause.push_str(&pause);
                paused.restore.push_str(&restore);
            }
        }
        Ok(paused)
    }
}

/// Constraints of domains that are not valid.
const DOMAINS: &str = concat!(
    "SELECT format('ALTER DOMAIN %I.%I DROP CONSTRAINT %I;', nspname, typname, conname),
            format('ALTER DOMAIN %I.%I ADD CONSTRAINT %I %s;', nspname, typname, conname, pg_get_constraintdef(c.oid))
     FROM pg_constraint c JOIN pg_type t ON t.oid = contypid JOIN pg_namespace n ON n.oid = typnamespace
     WHERE NOT convalidated AND contype = 'c' AND n.oid IN (",
    own_schemas!(),
    ")"
);

/// Triggers and rules that run in ordinary sessions. ONLY, because each partition has its own triggers, and one of them
/// may be disabled.
const TRIGGERS: &str = concat!(
    "SELECT format('ALTER TABLE ONLY %s.%I DISABLE %s %I;', relnamespace::regnamespace, relname, kind, name),
            format('ALTER TABLE ONLY %s.%I ENABLE %s %s %I;', relnamespace::regnamespace, relname, CASE state WHEN 'A' THEN 'ALWAYS' ELSE '' END, kind, name)
     FROM pg_class JOIN (SELECT tgrelid AS oid, 'TRIGGER' AS kind, tgname AS name, tgenabled AS state FROM pg_trigger WHERE NOT tgisinternal
                         UNION ALL SELECT ev_class, 'RULE', rulename, ev_enabled FROM pg_rewrite WHERE ev_type <> '1') own USING (oid)
     WHERE relkind IN ('r', 'p') AND state IN ('O', 'A') AND ",
    in_schemas!(class "pg_class")
);

/// Constraints that are not valid. Those of children follow their table's.
const CONSTRAINTS: &str = concat!(
    "SELECT format('ALTER TABLE %s.%I DROP CONSTRAINT %I;', relnamespace::regnamespace, relname, conname),
            format('ALTER TABLE %s.%I ADD CONSTRAINT %I %s;', relnamespace::regnamespace, relname, conname, pg_get_constraintdef(c.oid))
     FROM pg_class JOIN pg_constraint c ON conrelid = pg_class.oid
     WHERE NOT convalidated AND contype IN ('c', 'f', 'n') AND coninhcount = 0 AND conparentid = 0 AND ",
    in_schemas!(class "pg_class")
);

/// Valid constraints of tables that inherit one that is not valid: when that is restored, theirs are not valid either.
const HEIRS: &str = concat!(
    "SELECT '', format('ALTER TABLE %s.%I VALIDATE CONSTRAINT %I;', relnamespace::regnamespace, relname, c.conname)
     FROM pg_class JOIN pg_constraint c ON conrelid = pg_class.oid
     WHERE convalidated AND contype IN ('c', 'n') AND coninhcount > 0
       AND EXISTS (SELECT FROM pg_inherits JOIN pg_constraint p ON p.conrelid = inhparent
                   WHERE inhrelid = pg_class.oid AND p.conname = c.conname AND NOT p.convalidated) AND ",
    in_schemas!(class "pg_class")
);

/// Tables without a replica identity: while a publication has them and publishes deletes, their rows cannot be deleted.
const REPLICA_IDENTITIES: &str = concat!(
    "SELECT format('ALTER TABLE ONLY %s.%I REPLICA IDENTITY FULL;', relnamespace::regnamespace, relname),
            format('ALTER TABLE ONLY %s.%I REPLICA IDENTITY %s;', relnamespace::regnamespace, relname, CASE relreplident WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END)
     FROM pg_class WHERE relkind IN ('r', 'p') AND EXISTS (SELECT FROM pg_publication WHERE pubdelete)
       AND (relreplident = 'n' OR relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary AND indimmediate)) AND ",
    in_schemas!(class "pg_class")
);
