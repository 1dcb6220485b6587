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
    /// These, by name. What comes to stand there between the look and the statement is not among them.
    Named {
        /// Tables, views and the like.
        tables: Vec<String>,
        /// Sequences.
        sequences: Vec<String>,
        /// Functions and procedures.
        routines: Vec<Routine>,
    },
}

/// A function, an aggregate or a procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routine {
    name: String,
    /// Types of what goes in, each with its schema, whatever the search path is; one of the routine's own schema is `.type`.
    arguments: Vec<String>,
}

impl Routine {
    /// As it is called in this schema, which has the same types as the one that it was found in.
    fn of(&self, schema: &str) -> String {
        let arguments = self.arguments.iter().map(|argument| {
            let home = if argument.starts_with('.') { schema } else { "" };
            format!("IN {home}{argument}")
        });
        format!("{schema}.{}({})", self.name, arguments.collect::<Vec<_>>().join(", "))
    }
}

impl Grantable {
    /// What stands in a schema now, found by what depends on it.
    pub async fn of(connection: &mut PgConnection, schema: &str) -> Result<Self, Failure> {
        let rows: Vec<(String, String, Vec<String>)> = sqlx::query_as(concat!(
            "SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, quote_ident(relname), ARRAY[]::text[] FROM pg_class
             WHERE pg_class.oid ",
            in_schema!("pg_class"),
            " AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relname <> $2
               AND NOT EXISTS (SELECT FROM pg_depend own WHERE own.classid = 'pg_class'::regclass AND own.objid = pg_class.oid
                               AND own.deptype = 'i' AND own.refobjid = to_regclass(format('%I.%I', $1, $2)))
             UNION ALL
             SELECT 'routine', quote_ident(proname), ARRAY(
                 SELECT CASE WHEN typnamespace = pronamespace THEN '' ELSE quote_ident(nspname) END || '.' || quote_ident(typname)
                 FROM unnest(proargtypes) WITH ORDINALITY AS argument (kind, place)
                 JOIN pg_type ON pg_type.oid = kind JOIN pg_namespace ON pg_namespace.oid = typnamespace ORDER BY place)
             FROM pg_proc WHERE pg_proc.oid ",
            in_schema!("pg_proc"),
            " ORDER BY 1, 2"
        ))
        .bind(schema)
        .bind(migrate::TABLE)
        .fetch_all(connection)
        .await
        .map_err(failure)?;
        let (mut tables, mut sequences, mut routines) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, name, arguments) in rows {
            match &*kind {
                "table" => tables.push(name),
                "sequence" => sequences.push(name),
                _ => routines.push(Routine { name, arguments }),
            }
        }
        Ok(Self::Named { tables, sequences, routines })
    }

    /// `ON` which tables, sequences and routines, as GRANT and REVOKE have it; none where there are none.
    fn on(&self, schema: &str) -> [Option<String>; 3] {
        let schema = quoted(schema);
        match self {
            Self::All => {
                ["TABLES", "SEQUENCES", "ROUTINES"].map(|all| Some(format!("ALL {all} IN SCHEMA {schema}")))
            }
            Self::Named { tables, sequences, routines } => {
                let named = |names: &[String]| names.iter().map(|name| format!("{schema}.{name}")).collect();
                let routines = routines.iter().map(|routine| routine.of(&schema)).collect();
                [("TABLE", named(tables)), ("SEQUENCE", named(sequences)), ("ROUTINE", routines)].map(
                    |(kind, names): (_, Vec<String>)| {
                        (!names.is_empty()).then(|| format!("{kind} {}", names.join(", ")))
                    },
                )
            }
        }
    }
}

/// Lets roles work with all rows of a schema's tables, and with nothing else in it.
pub fn grants(schema: &str, objects: &Grantable, roles: &[&Name]) -> String {
    let to = roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (own, positions) = (migrate::table(schema), migrate::positions(schema));
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
    sql.push_str(&format!("REVOKE ALL ON {own} FROM {to}; REVOKE ALL ON SEQUENCE {positions} FROM {to};"));
    sql
}

/// What a tenant's role may do in tables that are its own.
pub fn rights(schema: &str, objects: &Grantable, role: &Name, grade: Option<Grade>) -> String {
    let mut sql = grants(schema, objects, &[role]);
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
