//! SQL that grants and revokes privileges on a schema's objects. The server looks the objects up by
//! dependency and names them in the same statement: `ALL TABLES IN SCHEMA` reads the whole catalogue, which
//! takes a hundred milliseconds among a thousand schemas.

use tenantry_model::suspension::SuspensionMode;

use super::migrate;
use super::name::Name;
use crate::tables::{literal, quoted};

/// Finds the tables, sequences and routines in the schema `home`, one of the tenant's, without the table of applied migrations and
/// its sequence, and without objects of extensions. Names are qualified, so that they mean the same under any
/// search path; routines have their argument types. Most schemas have no routine, and planning that query takes
/// as long as finding all tables, so existence is checked first.
const FIND_OBJECTS: &str = "
    SELECT string_agg(name, ', ') FILTER (WHERE relkind <> 'S'), string_agg(name, ', ') FILTER (WHERE relkind = 'S')
    INTO tables, sequences
    FROM (SELECT relkind, format('%s.%I', home::regnamespace, relname) AS name
          FROM pg_depend JOIN pg_class ON pg_class.oid = objid AND relnamespace = refobjid
          WHERE refclassid = 'pg_namespace'::regclass AND refobjid = home AND classid = 'pg_class'::regclass
            AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relname NOT IN (EVIDENCE) PARTITIONS
            AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')) own;
    IF EXISTS (SELECT FROM pg_depend
               WHERE refclassid = 'pg_namespace'::regclass AND refobjid = home AND classid = 'pg_proc'::regclass) THEN
        SELECT string_agg(format('%s.%I(%s)', home::regnamespace, proname, arguments), ', ') INTO routines
        FROM pg_depend JOIN pg_proc ON pg_proc.oid = objid AND pronamespace = refobjid, LATERAL (
            SELECT string_agg(format('IN %I.%I', nspname, typname), ', ' ORDER BY place) AS arguments
            FROM unnest(proargtypes) WITH ORDINALITY AS argument (kind, place)
            JOIN pg_type ON pg_type.oid = kind JOIN pg_namespace ON pg_namespace.oid = typnamespace) own
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = home AND classid = 'pg_proc'::regclass
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e');
    END IF;";

/// Statements for tables, sequences and routines (`%1$s`) and roles (`%2$s`).
type Statements = [&'static str; 3];

/// Privileges to read and write all rows.
const READ_WRITE: Statements = [
    "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %1$s TO %2$s",
    "GRANT USAGE ON SEQUENCE %1$s TO %2$s",
    "REVOKE EXECUTE ON ROUTINE %1$s FROM PUBLIC; GRANT EXECUTE ON ROUTINE %1$s TO %2$s",
];

/// Privileges to read rows.
const READ_ONLY: Statements = [
    "GRANT SELECT ON TABLE %1$s TO %2$s; REVOKE INSERT, UPDATE, DELETE ON TABLE %1$s FROM %2$s",
    "REVOKE USAGE ON SEQUENCE %1$s FROM %2$s",
    "REVOKE EXECUTE ON ROUTINE %1$s FROM PUBLIC, %2$s",
];

/// Not partitions, which have no policies of their own, and neither lookup tables nor their sequences.
const TENANT_TABLES: &str = "AND NOT relispartition AND pg_class.oid NOT IN (
    SELECT polrelid FROM pg_policy WHERE polname = 'tenantry_lookup'
    UNION ALL SELECT part.objid FROM pg_policy JOIN pg_depend part ON part.refclassid = 'pg_class'::regclass AND part.refobjid = polrelid
              WHERE polname = 'tenantry_lookup' AND part.classid = 'pg_class'::regclass)";

/// Lets roles read and write the rows of shared tables, which the policies of these tables admit, and read those of these
/// lookup tables, and nothing else in their schema.
pub fn grants<'a>(schema: &str, roles: &[&Name], lookups: impl Iterator<Item = &'a String>) -> String {
    let roles = roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut sql = apply(schema, &roles, &READ_WRITE, TENANT_TABLES);
    for table in lookups {
        let table = format!("{}.{}", quoted(schema), quoted(table));
        sql.push_str(&format!("REVOKE ALL ON {table} FROM {roles}; GRANT SELECT ON {table} TO {roles};"));
    }
    sql
}

/// A tenant role's privileges on tables of its own: read-only while a fence denies anything.
pub fn rights(schema: &str, role: &Name, mode: Option<SuspensionMode>) -> String {
    apply(schema, &role.to_string(), if mode.is_none() { &READ_WRITE } else { &READ_ONLY }, "")
}

/// The statement that applies these privileges to the objects that exist; `condition` selects among the tables.
fn apply(schema: &str, roles: &str, statements: &Statements, condition: &str) -> String {
    let (home, own, positions) = (literal(schema), migrate::table(schema), migrate::positions(schema));
    let evidence = [migrate::TABLE, migrate::POSITIONS].map(literal).join(", ");
    let mut body = FIND_OBJECTS.replace("EVIDENCE", &evidence).replace("PARTITIONS", condition);
    for (found, statement) in ["tables", "sequences", "routines"].into_iter().zip(statements) {
        let [statement, to] = [statement, roles].map(literal);
        body.push_str(&format!("IF {found} <> '' THEN EXECUTE format({statement}, {found}, {to}); END IF;"));
    }
    let found = "tables text; sequences text; routines text;";
    let (schemas, to) = (own_schemas!().replace("$1", &home), literal(roles));
    let body = literal(&format!(
        "DECLARE home oid; {found} BEGIN FOR home IN {schemas} LOOP
             EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', home::regnamespace, {to}); routines := NULL; {body}
         END LOOP; END"
    ));
    format!(
        "DO {body};
         REVOKE ALL ON {own} FROM {roles}; REVOKE ALL ON SEQUENCE {positions} FROM {roles};"
    )
}
