//! Productions of code: functions, triggers, views, rules, policies, and blocks that run at once.

use super::known::{Column, Grammar};
use crate::postgres::Model;

/// A setting that makes a view read as its reader, which shared tables need.
const INVOKER: &str = " WITH (security_invoker = true)";

/// Triggers of shared tables that write another table. Excluded: an import into shared tables runs them for each row that it
/// loads, beside the rows that they wrote before.
const WRITING_TRIGGERS_IN_POOLS: bool = false;

pub fn function(g: &mut Grammar) -> Vec<String> {
    let (name, table) = (g.name("f"), g.table());
    let from = &table.name;
    let callable = g.number(6);
    let sql = match callable {
        0 => format!("CREATE FUNCTION {name}() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM {from}; $$"),
        1 => format!("CREATE OR REPLACE FUNCTION {name}() RETURNS bigint STABLE BEGIN ATOMIC SELECT CASE WHEN true THEN count(*) END FROM {from}; END"),
        2 => format!(
            "CREATE FUNCTION {name}() RETURNS SETOF text LANGUAGE plpgsql STABLE SET work_mem = '8MB' AS $body$
             DECLARE row record; BEGIN FOR row IN SELECT * FROM {from} LOOP RETURN NEXT row::text; END LOOP; END; $body$"
        ),
        3 => format!("CREATE FUNCTION {name}(a int, b text DEFAULT ';') RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN a + 1"),
        4 => format!("CREATE PROCEDURE {name}(INOUT a int) LANGUAGE plpgsql AS $$ BEGIN a := (SELECT count(*) FROM {from}); END $$"),
        _ => format!("CREATE FUNCTION {name}() RETURNS TABLE (n bigint) LANGUAGE sql SECURITY INVOKER AS 'SELECT count(*) FROM {}'", from.replace('\'', "''")),
    };
    if callable < 3 {
        g.functions.push(name);
    }
    let noise = g.noise();
    vec![format!("{noise}{sql}")]
}

pub fn trigger(g: &mut Grammar) -> Vec<String> {
    let (function, name, table) = (g.name("run"), g.name("on"), g.table());
    let on = &table.name;
    let kind = match g.number(6) {
        3 if g.is_shared() && !WRITING_TRIGGERS_IN_POOLS => 4,
        kind => kind,
    };
    let (body, when) = match kind {
        0 => ("RETURN NEW;".to_owned(), format!("BEFORE INSERT OR UPDATE ON {on} FOR EACH ROW")),
        1 => (
            match g.model {
                Model::Database => "PERFORM pg_notify('changed', TG_OP); RETURN NULL;".to_owned(),
                Model::Pool | Model::Schema => "PERFORM TG_OP; RETURN NULL;".to_owned(),
            },
            format!("AFTER INSERT ON {on} FOR EACH STATEMENT"),
        ),
        2 => (
            "PERFORM count(*) FROM fresh; RETURN NULL;".to_owned(),
            format!("AFTER INSERT ON {on} REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT"),
        ),
        3 => {
            let log = g.name("log");
            let sql = match g.is_shared() {
                true => format!(
                    "CREATE TABLE {log} (tenant_id text NOT NULL, id uuid DEFAULT gen_random_uuid(), what text, PRIMARY KEY (tenant_id, id))"
                ),
                false => format!("CREATE TABLE {log} (what text)"),
            };
            let insert = match g.is_shared() {
                true => {
                    format!("INSERT INTO {log} (tenant_id, what) VALUES (NEW.tenant_id, TG_OP); RETURN NULL;")
                }
                false => format!("INSERT INTO {log} VALUES (TG_OP); RETURN NULL;"),
            };
            let run = format!(
                "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN {insert} END $t$"
            );
            let when = format!(
                "CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON {on} FOR EACH ROW EXECUTE FUNCTION {function}()"
            );
            return vec![sql, run, when];
        }
        4 => (
            "RETURN NULL;".to_owned(),
            format!("AFTER INSERT ON {on} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW IS NOT NULL)"),
        ),
        _ => {
            ("RETURN coalesce(NEW, OLD);".to_owned(), format!("BEFORE UPDATE OR DELETE ON {on} FOR EACH ROW"))
        }
    };
    let constraint = if when.contains("DEFERRABLE") { "CONSTRAINT " } else { "" };
    let mut all = vec![
        format!("CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"),
        format!("CREATE {constraint}TRIGGER {name} {when} EXECUTE FUNCTION {function}()"),
    ];
    if g.percent(20) {
        let state = g.pick(&["DISABLE", "ENABLE ALWAYS", "ENABLE REPLICA", "ENABLE"]);
        all.push(format!("ALTER TABLE {on} {state} TRIGGER {name}"));
    }
    all
}

pub fn view(g: &mut Grammar) -> Vec<String> {
    let (name, table) = (g.name("v"), g.table());
    let options = if g.is_shared() || g.percent(30) { INVOKER } else { "" };
    let is_nested = g.percent(30);
    let from = match g.views.last() {
        Some(view) if is_nested => view.clone(),
        _ => table.name.clone(),
    };
    let sql = match g.number(5) {
        0 => format!("CREATE VIEW {name}{options} AS SELECT count(*) AS rows FROM {from}"),
        1 => format!("CREATE OR REPLACE VIEW {name} (row){options} AS SELECT x::text FROM {from} x"),
        2 => {
            format!("CREATE VIEW {name}{options} AS SELECT a.* FROM {from} a CROSS JOIN LATERAL (SELECT 1) b")
        }
        3 => format!(
            "CREATE RECURSIVE VIEW {name} (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM {name} WHERE n < 3"
        ),
        _ => format!("CREATE VIEW {name}{options} AS SELECT * FROM {from} WITH CHECK OPTION"),
    };
    let is_read = !sql.contains("RECURSIVE");
    let all = vec![match g.is_shared() && !is_read {
        true => format!("CREATE VIEW {name}{options} AS SELECT 1 AS n"),
        false => sql,
    }];
    if is_read {
        g.views.push(name);
    }
    all
}

/// Materialized views, rules, and policies: each isolation has other rules for them.
pub fn derived(g: &mut Grammar) -> Vec<String> {
    let (name, table) = (g.name("d"), g.table());
    let on = &table.name;
    if g.is_shared() {
        return vec![format!(
            "CREATE POLICY {name} ON {on} AS RESTRICTIVE FOR SELECT USING (tenant_id <> ';')"
        )];
    }
    match g.number(5) {
        0 => vec![
            format!("CREATE MATERIALIZED VIEW {name} AS SELECT count(*) AS rows FROM {on}"),
            format!("CREATE UNIQUE INDEX ON {name} (rows)"),
        ],
        1 => vec![format!("CREATE RULE {name} AS ON DELETE TO {on} DO ALSO NOTHING")],
        2 => {
            let log = g.name("log");
            vec![
                format!("CREATE TABLE {log} (what text)"),
                format!(
                    "CREATE RULE {name} AS ON INSERT TO {on} DO ALSO INSERT INTO {log} VALUES ('inserted')"
                ),
            ]
        }
        3 => vec![
            format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
            format!("CREATE POLICY {name} ON {on} USING (true) WITH CHECK (true)"),
        ],
        _ => vec![
            format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY"),
            format!("CREATE POLICY {name} ON {on} FOR SELECT USING (current_user <> 'x')"),
        ],
    }
}

/// Blocks that run at once, temporary tables, and objects that few schemas have.
pub fn block(g: &mut Grammar) -> Vec<String> {
    let (name, table) = (g.name("b"), g.table());
    let quoted = name.replace('\'', "''");
    let Some(Column { name: first, kind }) = table.columns.first() else { return Vec::new() };
    vec![match g.number(9) {
        0 => {
            let key =
                if g.is_shared() { "tenant_id text, id int, PRIMARY KEY (tenant_id, id)" } else { "id int" };
            format!(
                "DO $do$ BEGIN FOR n IN 1 .. 2 LOOP EXECUTE format('CREATE TABLE %I ({key})', '{quoted}' || n); END LOOP; END $do$"
            )
        }
        1 => "DO LANGUAGE plpgsql $$ BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END $$"
            .to_owned(),
        2 => format!("CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT * FROM {}", table.name),
        3 => format!("CREATE STATISTICS {name} ON (({first})), ((1)) FROM {}", table.name),
        4 => format!("CREATE AGGREGATE {name} (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')"),
        5 => format!("CREATE COLLATION {name} (provider = icu, locale = 'de-u-co-phonebk')"),
        6 => format!("CREATE TEXT SEARCH CONFIGURATION {name} (COPY = simple)"),
        7 => format!("SELECT '{quoted}'::text, $${first} {kind}$$"),
        _ => {
            format!("SET LOCAL check_function_bodies = off; COMMENT ON TABLE {} IS {}", table.name, g.text())
        }
    }]
}

/// Privileges that change nothing for other tenants.
pub fn grant(g: &mut Grammar) -> Vec<String> {
    let table = g.table().name;
    vec![match g.number(4) {
        0 => format!("GRANT SELECT ON {table} TO CURRENT_USER"),
        1 => format!("REVOKE ALL ON {table} FROM PUBLIC"),
        2 => match g.functions.first() {
            Some(function) => format!("REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC"),
            None => format!("COMMENT ON TABLE {table} IS NULL"),
        },
        _ => match g.sequences.first() {
            Some(sequence) => format!("REVOKE ALL ON SEQUENCE {sequence} FROM PUBLIC"),
            None => format!("ALTER TABLE {table} OWNER TO CURRENT_USER"),
        },
    }]
}
