//! What roles may do with what stands in a schema.

use sqlx::PgConnection;
use tenantry_model::Failure;
use tenantry_model::suspension::Grade;

use super::failure::failure;
use super::migrate;
use super::name::Name;
use crate::tables::quoted;

/// What stands in a schema that rights are given on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Grantable {
    /// All there is. The server reads its whole catalogue for it, several times: little in a database of one tenant's own, and
    /// a hundred milliseconds among a thousand schemas.
    #[default]
    All,
    /// These, by name; functions with the types of their arguments as they are called in the schema.
    Named {
        /// Tables, views and the like.
        tables: Vec<String>,
        /// Sequences.
        sequences: Vec<String>,
        /// Functions and procedures.
        routines: Vec<String>,
    },
}

impl Grantable {
    /// What stands in a schema now, found by what depends on it.
    pub async fn of(connection: &mut PgConnection, schema: &str) -> Result<Self, Failure> {
        let rows: Vec<(String, String)> = sqlx::query_as(concat!(
            "SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, quote_ident(relname) FROM pg_class
             WHERE pg_class.oid ",
            in_schema!("pg_class"),
            " AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relname <> $2
               AND NOT EXISTS (SELECT FROM pg_depend own WHERE own.classid = 'pg_class'::regclass AND own.objid = pg_class.oid
                               AND own.deptype = 'i' AND own.refobjid = to_regclass(format('%I.%I', $1, $2)))
             UNION ALL
             SELECT 'routine', format('%I(%s)', proname, replace(pg_get_function_identity_arguments(pg_proc.oid), format('%I.', $1), ''))
             FROM pg_proc WHERE pg_proc.oid ",
            in_schema!("pg_proc"),
            " ORDER BY 1, 2"
        ))
        .bind(schema)
        .bind(migrate::TABLE)
        .fetch_all(connection)
        .await
        .map_err(failure)?;
        let named = |wanted: &str| {
            rows.iter().filter(|(kind, _)| kind == wanted).map(|(_, name)| name.clone()).collect()
        };
        Ok(Self::Named { tables: named("table"), sequences: named("sequence"), routines: named("routine") })
    }

    /// `ON` which tables, sequences and routines, as GRANT and REVOKE have it; none where there are none.
    fn on(&self, schema: &str) -> [Option<String>; 3] {
        let schema = quoted(schema);
        match self {
            Self::All => {
                ["TABLES", "SEQUENCES", "ROUTINES"].map(|all| Some(format!("ALL {all} IN SCHEMA {schema}")))
            }
            Self::Named { tables, sequences, routines } => {
                [("TABLE", tables), ("SEQUENCE", sequences), ("ROUTINE", routines)].map(|(kind, names)| {
                    let names: Vec<String> = names.iter().map(|name| format!("{schema}.{name}")).collect();
                    (!names.is_empty()).then(|| format!("{kind} {}", names.join(", ")))
                })
            }
        }
    }
}

/// Lets roles work with all rows of a schema's tables, and with nothing else in it.
pub fn grants(schema: &str, objects: &Grantable, roles: &[&Name]) -> String {
    let to = roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let own = migrate::table(schema);
    let [tables, sequences, routines] = objects.on(schema);
    let mut sql = format!("GRANT USAGE ON SCHEMA {} TO {to};", quoted(schema));
    if let Some(tables) = tables {
        sql.push_str(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {to};"));
    }
    if let Some(sequences) = sequences {
        sql.push_str(&format!("GRANT USAGE ON {sequences} TO {to};"));
    }
    if let Some(routines) = routines {
        sql.push_str(&format!(
            "REVOKE EXECUTE ON {routines} FROM PUBLIC; GRANT EXECUTE ON {routines} TO {to};"
        ));
    }
    sql.push_str(&format!("REVOKE ALL ON {own} FROM {to};"));
    sql
}

/// What a tenant's role may do in tables that are its own.
pub fn rights(schema: &str, objects: &Grantable, role: &Name, grade: Option<Grade>) -> String {
    // Types of arguments are called as they are in the schema.
    let mut sql = format!("SET LOCAL {};{}", migrate::search_path(schema), grants(schema, objects, &[role]));
    if grade.is_some() {
        let [tables, sequences, routines] = objects.on(schema);
        for (right, objects) in
            [("INSERT, UPDATE, DELETE", tables), ("USAGE", sequences), ("EXECUTE", routines)]
        {
            if let Some(objects) = objects {
                sql.push_str(&format!("REVOKE {right} ON {objects} FROM {role};"));
            }
        }
    }
    sql
}
