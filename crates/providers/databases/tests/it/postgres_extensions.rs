//! Extensions that migrations name: installed once in a database, where every tenant's SQL finds them, and kept when a
//! tenant is removed.

use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use tenantry_databases::migrations::PublicSchema;
use tenantry_databases::postgres::Config;
use tenantry_model::FailureClass::Fatal;
use tenantry_provider::rotate::Former;
use tenantry_provider::transfer::Content;
use tenantry_provider::{Observed, Outcome, Spec};
use tenantry_testkit::database::on_server;

use crate::contract::transfer::Export;
use crate::postgres::{Fixture, MODELS, Model, connect, ensured, log_in, refused, try_provider};
use crate::postgres_administrator::as_superuser;
use crate::postgres_drift::differs;
use crate::postgres_failures::{Folder, TABLE, bare, is};
use crate::postgres_warm_pool::filled;

/// SQLSTATE of a violated exclusion constraint.
const OVERLAP: &str = "23P01";

const PLAIN: &str = "
    CREATE EXTENSION btree_gist;
    CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
    COMMENT ON EXTENSION citext IS 'data type for case-insensitive character strings';
    CREATE EXTENSION IF NOT EXISTS hstore WITH VERSION '1.8' CASCADE;
    CREATE EXTENSION pg_trgm;
    CREATE EXTENSION pgcrypto SCHEMA extensions;
    CREATE EXTENSION \"uuid-ossp\";
    CREATE TABLE bookings (
        tenant_id text NOT NULL, id uuid DEFAULT uuid_generate_v4(), room integer NOT NULL, during int4range NOT NULL,
        email citext NOT NULL DEFAULT 'Zoe@example.com', tags hstore NOT NULL DEFAULT 'a=>1',
        secret text NOT NULL DEFAULT encode(extensions.digest('x', 'sha256'), 'hex'),
        PRIMARY KEY (tenant_id, id),
        CONSTRAINT no_overlap EXCLUDE USING gist (tenant_id WITH =, room WITH =, during WITH &&));
    CREATE INDEX bookings_email ON bookings USING gin (email gin_trgm_ops);
    CREATE VIEW found WITH (security_invoker = true) AS SELECT email FROM bookings WHERE email = 'zoe@EXAMPLE.com' AND tags ? 'a';";

/// In the style of pg_dump, from a database with extensions in `public`.
const DUMPED: &str = "SELECT pg_catalog.set_config('search_path', '', false);
    CREATE SCHEMA IF NOT EXISTS extensions;
    CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;
    CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
    CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;
    CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
    CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA public;
    CREATE TABLE public.bookings (
        tenant_id text NOT NULL, id uuid DEFAULT public.uuid_generate_v4() NOT NULL, room integer NOT NULL, during int4range NOT NULL,
        email public.citext DEFAULT 'Zoe@example.com'::public.citext NOT NULL, tags public.hstore DEFAULT '\"a\"=>\"1\"'::public.hstore NOT NULL);
    ALTER TABLE ONLY public.bookings ADD CONSTRAINT bookings_pkey PRIMARY KEY (tenant_id, id);
    ALTER TABLE ONLY public.bookings ADD CONSTRAINT no_overlap EXCLUDE USING gist (tenant_id WITH =, room WITH =, during WITH &&);
    CREATE INDEX bookings_email ON public.bookings USING gin (email public.gin_trgm_ops);
    CREATE TABLE public.similarity (tenant_id text NOT NULL, id integer NOT NULL);
    ALTER TABLE ONLY public.similarity ADD CONSTRAINT similarity_pkey PRIMARY KEY (tenant_id, id);
    CREATE VIEW public.found WITH (security_invoker='true') AS SELECT bookings.email FROM public.bookings
        WHERE ((bookings.email OPERATOR(public.=) 'zoe@EXAMPLE.com'::public.citext) AND (bookings.tags OPERATOR(public.?) 'a'::text));
    SET search_path TO \"$user\", public, extensions;";

/// Fixtures of a model as a superuser and as an administrator with few privileges.
async fn both(model: Model, folder: &Folder) -> Vec<Fixture> {
    let mut all = Vec::new();
    for fixture in [Fixture::of(model).await, Fixture::with_plain_administrator(model).await] {
        let Some(mut fixture) = fixture else { continue };
        fixture.reconfigure(|config| {
            config.migrations = Some(folder.path().to_owned());
            config.seeds = Some(folder.path().to_owned());
            config.public_schema = PublicSchema::Rewrite;
        });
        all.push(fixture);
    }
    all
}

fn booking(spec: &Spec, room: u32) -> String {
    format!("INSERT INTO bookings (tenant_id, room, during) VALUES ('{}', {room}, '[1,5)')", spec.tenant.id)
}

async fn text(connection: &mut PgConnection, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap()
}

/// Schemas of the extensions in the tenant's database, except those of PostgreSQL itself.
async fn places(fixture: &Fixture, spec: &Spec) -> String {
    let url = match fixture.model {
        Model::Database => on_server(fixture.url(), &spec.name),
        _ => fixture.url().to_owned(),
    };
    let sql = "SELECT coalesce(string_agg(format('%s in %s', extname, extnamespace::regnamespace), ', ' ORDER BY extname), '')
               FROM pg_extension WHERE extname IN ('btree_gist', 'citext')";
    text(&mut connect(&url).await, sql).await
}

async fn export(fixture: &Fixture, spec: &Spec) -> (Export, Content) {
    let mut export = Export::default();
    let transfer = fixture.provider.transfer().unwrap();
    let content = transfer.export(&fixture.world.context(), spec, &mut export).await.unwrap();
    (export, content)
}

async fn must_be_healthy(fixture: &Fixture, spec: &Spec) {
    let seen = fixture.provider.observe(&fixture.world.context(), spec).await.unwrap();
    assert!(seen.is_healthy(), "{:?}: {seen:?}", fixture.model);
}

/// The first tenant is removed; the others keep their constraints, whose operators are an extension's.
#[tokio::test]
async fn all_tenants_use_extensions_and_none_owns_them() {
    for (model, file) in MODELS.into_iter().flat_map(|model| [(model, PLAIN), (model, DUMPED)]) {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", file)]);
        for fixture in both(model, &folder).await {
            if model == Model::Schema {
                filled(&fixture, 2).await;
            }
            let tenants = [bare(), bare(), bare()];
            let mut made = Vec::new();
            for spec in &tenants {
                made.push(ensured(&fixture, spec).await);
            }
            let [one, two, three] = &tenants;
            for (spec, made) in tenants.iter().zip(&made).take(2) {
                let mut session = log_in(&fixture, spec, &made.outputs).await.unwrap();
                session.execute(AssertSqlSafe(booking(spec, 1))).await.unwrap();
                refused(&mut session, &booking(spec, 1), OVERLAP).await;
                assert_eq!(text(&mut session, "SELECT email::text FROM found").await, "Zoe@example.com");
                assert_eq!(text(&mut session, "SELECT similarity('a', 'a')::text").await, "1");
                refused(&mut session, "CREATE TABLE extensions.t (a int)", "42501").await;
            }
            assert_eq!(places(&fixture, one).await, "btree_gist in extensions, citext in extensions");
            let (archive, content) = export(&fixture, two).await;
            let transfer = fixture.provider.transfer().unwrap();
            transfer.load(&fixture.world.context(), three, &mut archive.source()).await.unwrap();
            assert_eq!(export(&fixture, three).await.1, content, "{model:?}");
            let check = fixture.provider.isolation().unwrap();
            let cells = check.check(&[one.tenant.id, two.tenant.id]).await.unwrap().cells;
            let leak = cells.iter().find(|cell| cell.outcome == Outcome::Leak);
            assert!(leak.is_none(), "{model:?}: {leak:?}");

            fixture.provider.remove(&fixture.world.context(), one).await.unwrap();
            must_be_healthy(&fixture, two).await;
            let mut session = log_in(&fixture, two, &made[1].outputs).await.unwrap();
            refused(&mut session, &booking(two, 1), OVERLAP).await;
        }
    }
}

/// The first tenants are there, with rows, when a file names an extension.
#[tokio::test]
async fn a_later_file_may_be_the_first_to_name_an_extension() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE)]);
        for mut fixture in both(model, &folder).await {
            let tenants = [bare(), bare()];
            let made = [ensured(&fixture, &tenants[0]).await, ensured(&fixture, &tenants[1]).await];
            let other = rotated(&fixture, &tenants[1]).await;
            assert_eq!(paths(&fixture, &tenants).await, ["", "", ""], "{model:?}: nothing to find");
            folder.migration("2_b.sql", PLAIN);
            fixture.reconfigure(|_| {});
            for spec in &tenants {
                ensured(&fixture, spec).await;
                must_be_healthy(&fixture, spec).await;
                if model == Model::Pool {
                    // All tenants' logins find what is in the shared tables now.
                    assert_eq!(paths(&fixture, &tenants).await, ["extensions"; 3]);
                }
            }
            assert_eq!(paths(&fixture, &tenants).await, ["extensions"; 3], "{model:?}");
            for (spec, outputs) in tenants.iter().zip([&made[0].outputs, &other]) {
                let mut session = log_in(&fixture, spec, outputs).await.unwrap();
                session.execute(AssertSqlSafe(booking(spec, 1))).await.unwrap();
                assert_eq!(text(&mut session, "SELECT email::text FROM found").await, "Zoe@example.com");
            }
        }
    }
}

/// Rotates a tenant's password; returns the outputs with its second login.
async fn rotated(fixture: &Fixture, spec: &Spec) -> Value {
    let rotate = fixture.provider.rotate().unwrap();
    let made = rotate.rotate(&fixture.world.context(), spec, Former::Stays).await.unwrap();
    fixture.world.registry.apply(&made.writes);
    let mut outputs = ensured(fixture, spec).await.outputs;
    outputs.as_object_mut().unwrap().extend(made.outputs);
    outputs
}

/// What the search path of each login of these tenants names between its tables and `pg_temp`.
async fn paths(fixture: &Fixture, tenants: &[Spec]) -> Vec<String> {
    let claims: Vec<String> = tenants.iter().map(|spec| format!("'{}'", spec.claim)).collect();
    let sql = format!(
        "SELECT coalesce((SELECT array_to_string((string_to_array(substr(setting, 13), ', '))[2:cardinality(string_to_array(setting, ', ')) - 1], ', ')
                          FROM pg_db_role_setting, unnest(setconfig) setting WHERE setrole = r.oid AND setting ^@ 'search_path='), '')
         FROM pg_roles r WHERE shobj_description(oid, 'pg_authid') IN ({}) ORDER BY rolname",
        claims.join(", ")
    );
    fixture.sql(&sql).await.iter().map(|row| row.get(0)).collect()
}

/// An earlier version gave it a search path without extensions.
#[tokio::test]
async fn a_login_that_does_not_find_extensions_is_reported_and_repaired() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", PLAIN)]);
        for fixture in both(model, &folder).await {
            let tenants = [bare(), bare()];
            let made = [ensured(&fixture, &tenants[0]).await, ensured(&fixture, &tenants[1]).await];
            let (spec, role) = (&tenants[0], made[0].outputs["role"].as_str().unwrap());
            let database = made[0].outputs["database"].as_str().unwrap();
            for change in ["RESET search_path", "SET search_path = x, pg_temp"] {
                fixture.sql(&format!("ALTER ROLE \"{role}\" IN DATABASE \"{database}\" {change}")).await;
                let said = differs(&*fixture.provider, &fixture, spec).await;
                let name = if role.contains('-') { format!("\"{role}\"") } else { role.to_owned() };
                let expected = format!(
                    "the search path of its login role {name} does not name extensions, the place of extensions"
                );
                assert_eq!(said, [expected], "{model:?}: {change}");
                must_be_healthy(&fixture, &tenants[1]).await;
                ensured(&fixture, spec).await;
                must_be_healthy(&fixture, spec).await;
                let mut session = log_in(&fixture, spec, &made[0].outputs).await.unwrap();
                assert_eq!(text(&mut session, "SELECT similarity('a', 'a')::text").await, "1");
            }
        }
    }
}

/// An operator has moved the extension into the first tenant's schema.
#[tokio::test]
async fn an_extension_in_a_tenants_schema_stops_its_removal_and_new_tenants() {
    let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", PLAIN)]);
    let Some(fixture) = folder.fixture(Model::Schema).await else { return };
    let [one, two] = [bare(), bare()];
    ensured(&fixture, &one).await;
    let made = ensured(&fixture, &two).await;
    let name = &one.name;
    fixture.sql(&format!("ALTER EXTENSION btree_gist SET SCHEMA \"{name}\"")).await;
    let refused_one = fixture.another().ensure(&fixture.world.context(), &bare()).await.unwrap_err();
    is(&refused_one, Fatal, "bad_schema");
    let how = "run ALTER EXTENSION \"btree_gist\" SET SCHEMA extensions";
    assert!(refused_one.message.contains(how), "{refused_one}");
    let kept = fixture.provider.remove(&fixture.world.context(), &one).await.unwrap_err();
    is(&kept, Fatal, "has_dependents");
    for object in ["extension btree_gist", "no_overlap on"] {
        assert!(kept.message.contains(object), "{kept}");
    }
    fixture.sql(how.trim_start_matches("run ")).await;
    fixture.provider.remove(&fixture.world.context(), &one).await.unwrap();
    let mut session = log_in(&fixture, &two, &made.outputs).await.unwrap();
    session.execute(AssertSqlSafe(booking(&two, 1))).await.unwrap();
    refused(&mut session, &booking(&two, 1), OVERLAP).await;
}

/// Extensions that would reveal something to other tenants of a database.
#[tokio::test]
async fn some_extensions_need_a_database_of_the_tenants_own() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", "SELECT 1;\nCREATE EXTENSION lo;")]);
        for mut fixture in [Fixture::of(model).await, Fixture::with_plain_administrator(model).await] {
            let Some(fixture) = &mut fixture else { continue };
            let config = |config: &mut Config| {
                config.migrations = Some(folder.path().to_owned());
                config.seeds = Some(folder.path().to_owned());
            };
            let mut unlisted = fixture.config();
            config(&mut unlisted);
            let unlisted = try_provider(model, unlisted).err().unwrap();
            assert!(unlisted.message.contains("2_b.sql:2: the extension `lo` is not allowed"), "{unlisted}");
            fixture.reconfigure(|it| {
                config(it);
                it.extensions.push("lo".to_owned());
            });
            let made = fixture.provider.ensure(&fixture.world.context(), &bare()).await;
            match (model, made) {
                (Model::Database, made) => drop(made.unwrap()),
                (_, Ok(_)) => panic!("{model:?}: accepted"),
                (_, Err(failure)) => {
                    is(&failure, Fatal, "bad_migration");
                    let expected = "2_b.sql:2: the extension `lo` needs a database of the tenant's own";
                    assert!(failure.message.contains(expected), "{failure}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_listed_extension_that_the_server_lacks_is_named_by_the_doctor() {
    for model in MODELS {
        let Some(mut fixture) = Fixture::of(model).await else { return };
        fixture.provider.probe().await.unwrap();
        fixture.reconfigure(|config| config.extensions.extend(["plpgsql", "nothing"].map(str::to_owned)));
        let failure = fixture.provider.probe().await.unwrap_err();
        let expected = "`extensions` lists what the server does not have: nothing; install";
        assert!(failure.message.contains(expected), "{model:?}: {failure}");
        ensured(&fixture, &bare()).await;
    }
}

/// On managed servers the provider has often installed extensions in `public`.
#[tokio::test]
async fn an_extension_that_is_installed_elsewhere_stays_there() {
    for model in [Model::Pool, Model::Schema] {
        for file in [PLAIN, DUMPED] {
            let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", file)]);
            for fixture in both(model, &folder).await {
                fixture.sql("CREATE EXTENSION citext SCHEMA public").await;
                as_superuser(&fixture, "GRANT CREATE ON SCHEMA public TO PUBLIC").await;
                let spec = bare();
                let open = fixture.provider.ensure(&fixture.world.context(), &spec).await.unwrap_err();
                is(&open, Fatal, "isolation_broken");
                assert!(
                    open.message.contains("run REVOKE CREATE ON SCHEMA \"public\" FROM PUBLIC"),
                    "{open}"
                );
                as_superuser(&fixture, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
                let made = ensured(&fixture, &spec).await;
                assert_eq!(places(&fixture, &spec).await, "btree_gist in extensions, citext in public");
                let mut session = log_in(&fixture, &spec, &made.outputs).await.unwrap();
                session.execute(AssertSqlSafe(booking(&spec, 1))).await.unwrap();
                assert_eq!(text(&mut session, "SELECT email::text FROM found").await, "Zoe@example.com");
                let row = json!({ "room": 2, "during": "[1,2)", "email": "other" });
                let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
                let row = rows.insert("bookings", row.as_object().unwrap().clone()).await.unwrap();
                assert_eq!(row["email"], "other");
                must_be_healthy(&fixture, &spec).await;
            }
        }
    }
}

#[tokio::test]
async fn processes_that_install_extensions_at_once_do_not_collide() {
    for model in MODELS {
        let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", PLAIN)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let processes = [fixture.another(), fixture.another(), fixture.another()];
        let specs = [bare(), bare(), bare()];
        let context = fixture.world.context();
        let made = processes.iter().zip(&specs).map(|(process, spec)| process.ensure(&context, spec));
        for made in join_all(made).await {
            made.unwrap();
        }
        for spec in &specs {
            must_be_healthy(&fixture, spec).await;
        }
    }
}

/// The schema of a tenant that objects of others depend on is not dropped, and nothing of it.
#[tokio::test]
async fn a_removal_that_would_take_along_objects_of_others_is_refused() {
    let folder = Folder::new(&[("1_a.sql", TABLE)]);
    let Some(fixture) = folder.fixture(Model::Schema).await else { return };
    let [one, two] = [bare(), bare()];
    ensured(&fixture, &one).await;
    ensured(&fixture, &two).await;
    let (of_one, of_two) = (&one.name, &two.name);
    for sql in [
        "CREATE SCHEMA reports".to_owned(),
        format!("CREATE VIEW reports.all_rows AS SELECT * FROM \"{of_one}\".t"),
        format!("ALTER TABLE \"{of_two}\".t ADD COLUMN other \"{of_one}\".t"),
        format!(
            "CREATE FUNCTION \"{of_one}\".f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        ),
        format!("CREATE TRIGGER theirs BEFORE INSERT ON \"{of_two}\".t EXECUTE FUNCTION \"{of_one}\".f()"),
    ] {
        fixture.sql(&sql).await;
    }
    let failure = fixture.provider.remove(&fixture.world.context(), &one).await.unwrap_err();
    is(&failure, Fatal, "has_dependents");
    let expected = format!(
        "too: table column \"{of_two}\".t.other, trigger theirs on \"{of_two}\".t, view reports.all_rows; drop, change"
    );
    assert!(failure.message.contains(&expected), "{failure}");
    assert_eq!(
        fixture.sql(&format!("SELECT FROM \"{of_one}\".t")).await.len(),
        0,
        "its table is still there"
    );
    fixture.sql("DROP SCHEMA reports CASCADE").await;
    fixture.sql(&format!("ALTER TABLE \"{of_two}\".t DROP COLUMN other")).await;
    fixture.sql(&format!("DROP TRIGGER theirs ON \"{of_two}\".t")).await;
    fixture.provider.remove(&fixture.world.context(), &one).await.unwrap();
    let seen = fixture.provider.observe(&fixture.world.context(), &one).await.unwrap();
    assert!(matches!(seen, Observed::Absent), "{seen:?}");
}

/// Only the statement `CREATE EXTENSION` is read, not code that runs it or changes an extension.
#[tokio::test]
async fn extensions_that_code_changes_are_rejected() {
    for model in MODELS {
        for (code, line, object) in [
            ("DO $$ BEGIN CREATE EXTENSION citext; END $$;", 1, "extension citext"),
            (
                "DO $$ BEGIN BEGIN CREATE EXTENSION citext; EXCEPTION WHEN others THEN NULL; END; END $$;",
                1,
                "extension citext",
            ),
            (
                "CREATE EXTENSION seg;\nDO $$ BEGIN EXECUTE format('ALTER EXTENSION seg SET SCHEMA %I', current_schema()); END $$;",
                2,
                "extension seg",
            ),
            (
                "CREATE EXTENSION seg;\nDO $$ BEGIN ALTER EXTENSION seg ADD TABLE t; END $$;",
                2,
                "extension seg",
            ),
            (
                "CREATE EXTENSION seg;\nDO $$ BEGIN ALTER EXTENSION seg DROP FUNCTION extensions.seg_center(extensions.seg); END $$;",
                2,
                "extension seg",
            ),
            (
                "CREATE EXTENSION seg;\nDO $$ BEGIN DROP EXTENSION seg; END $$;",
                2,
                "an object that existed before, by dropping it",
            ),
            (
                "CREATE EXTENSION pgcrypto;\nCREATE OR REPLACE FUNCTION extensions.digest(text, text) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';",
                2,
                "function extensions.digest(pg_catalog.text,pg_catalog.text)",
            ),
        ] {
            let folder = Folder::new(&[("1_a.sql", TABLE), ("2_b.sql", code)]);
            let Some(fixture) = folder.fixture(model).await else { return };
            let failure = fixture.provider.ensure(&fixture.world.context(), &bare()).await.unwrap_err();
            is(&failure, Fatal, "bad_migration");
            let expected = format!("2_b.sql:{line}: creates or changes {object}");
            assert!(failure.message.contains(&expected), "{model:?}: {code}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let folder = Folder::new(&[("1_a.sql", TABLE)]);
    let Some(mut fixture) = Fixture::with_plain_administrator(Model::Schema).await else { return };
    fixture.reconfigure(|config| {
        config.migrations = Some(folder.path().to_owned());
        config.seeds = Some(folder.path().to_owned());
        config.extensions.extend(["earthdistance", "nothing"].map(str::to_owned));
    });
    let [database, administrator] = {
        let row = &fixture.sql("SELECT current_database()::text, current_user::text").await[0];
        [row.get::<String, _>(0), row.get(1)]
    };
    for (sql, code, expected) in [
        (
            "CREATE EXTENSION nothing;",
            "bad_migration",
            "2_b.sql:1: the server does not have the extension `nothing`".to_owned(),
        ),
        ("CREATE EXTENSION citext VERSION '0.1';", "bad_migration", "`citext` in the version 0.1".to_owned()),
        (
            "CREATE EXTENSION cube;\nCREATE EXTENSION earthdistance CASCADE;",
            "not_allowed",
            format!(
                "2_b.sql:2: the administrator may not create the extension `earthdistance`: a superuser must run \
                     `CREATE EXTENSION IF NOT EXISTS \"earthdistance\" SCHEMA extensions` in the database {database}"
            ),
        ),
        (
            "CREATE EXTENSION citext;",
            "not_allowed",
            format!("run GRANT CREATE ON DATABASE {database} TO {administrator}"),
        ),
    ] {
        if sql.ends_with("citext;") {
            as_superuser(&fixture, "REVOKE CREATE ON DATABASE MAIN FROM ADMIN").await;
        }
        folder.migration("2_b.sql", sql);
        let failure = fixture.another().ensure(&fixture.world.context(), &bare()).await.unwrap_err();
        is(&failure, Fatal, code);
        assert!(failure.message.contains(&expected), "{failure}");
    }
}
