//! What roles may do with what stands in a schema. The server looks it up and names it in the same statement: for `ALL TABLES
//! IN SCHEMA` it reads its whole catalogue, which takes a hundred milliseconds among a thousand schemas.

use tenantry_model::suspension::Grade;

use super::migrate;
use super::name::Name;
use crate::tables::{literal, quoted};

/// Finds what stands in the schema `$1`, without the evidence of migrations and what numbers it: each by a name that means the
/// same whatever the search path is, routines with the types of what goes in.
const FOUND: &str = concat!(
    "SELECT string_agg(name, ', ') FILTER (WHERE relkind <> 'S'), string_agg(name, ', ') FILTER (WHERE relkind = 'S')
     INTO tables, sequences
     FROM (SELECT relkind, format('%I.%I', $1, relname) AS name FROM pg_class
           WHERE ",
    in_schema!(class "pg_class"),
    " AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relname <> $2
             AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'i'
                             AND refobjid = to_regclass(format('%I.%I', $1, $2)))) own;
     SELECT string_agg(format('%I.%I(%s)', $1, proname, arguments), ', ') INTO routines
     FROM pg_proc, LATERAL (
         SELECT string_agg(format('IN %I.%I', nspname, typname), ', ' ORDER BY place) AS arguments
         FROM unnest(proargtypes) WITH ORDINALITY AS argument (kind, place)
         JOIN pg_type ON pg_type.oid = kind JOIN pg_namespace ON pg_namespace.oid = typnamespace) own
     WHERE ",
    in_schema!(proc "pg_proc"),
    ";"
);

/// Lets roles work with all rows of a schema's tables, and with nothing else in it.
pub fn grants(schema: &str, roles: &[&Name]) -> String {
    let to = roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let tables = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO {to}");
    let sequences = format!("GRANT USAGE ON SEQUENCE %s TO {to}");
    let routines =
        format!("REVOKE EXECUTE ON ROUTINE %1$s FROM PUBLIC; GRANT EXECUTE ON ROUTINE %1$s TO {to}");
    in_one(schema, &to, [tables, sequences, routines])
}

/// What a tenant's role may do in tables that are its own.
pub fn rights(schema: &str, role: &Name, grade: Option<Grade>) -> String {
    if grade.is_none() {
        return grants(schema, &[role]);
    }
    let tables = format!(
        "GRANT SELECT ON TABLE %1$s TO {role}; REVOKE INSERT, UPDATE, DELETE ON TABLE %1$s FROM {role}"
    );
    let sequences = format!("REVOKE USAGE ON SEQUENCE %s FROM {role}");
    let routines = format!("REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC, {role}");
    in_one(schema, &role.to_string(), [tables, sequences, routines])
}

/// The statement that gives these rights on tables, sequences and routines, where there are any.
fn in_one(schema: &str, roles: &str, statements: [String; 3]) -> String {
    let mut body = FOUND.replace("$1", &literal(schema)).replace("$2", &literal(migrate::TABLE));
    for (found, statement) in ["tables", "sequences", "routines"].into_iter().zip(statements) {
        let statement = literal(&statement);
        body.push_str(&format!("IF {found} <> '' THEN EXECUTE format({statement}, {found}); END IF;"));
    }
    let body = literal(&format!("DECLARE tables text; sequences text; routines text; BEGIN {body} END"));
    let (schema, own, positions) = (quoted(schema), migrate::table(schema), migrate::positions(schema));
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO {roles}; DO {body};
         REVOKE ALL ON {own} FROM {roles}; REVOKE ALL ON SEQUENCE {positions} FROM {roles};"
    )
}
