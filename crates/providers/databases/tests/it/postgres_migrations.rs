//! Migration files of other tools on PostgreSQL: only what migrates up runs, names in `public` go to the tenant's
//! schema if configured, and a failure names the line.

use sqlx::Row as _;
use tenantry_databases::migrations::PublicSchema;
use tenantry_model::FailureClass::Fatal;
use tenantry_provider::Spec;

use crate::postgres::{Fixture, MODELS, Model};
use crate::postgres_failures::{Folder, is};
use crate::world::spec;

/// In the style of goose. It creates the table of the canary row.
const GOOSE: &str = "-- +goose Up
CREATE TABLE t (tenant_id text NOT NULL, id text NOT NULL, n integer, PRIMARY KEY (tenant_id, id));
CREATE TABLE kept (tenant_id text NOT NULL, id text NOT NULL, PRIMARY KEY (tenant_id, id));

-- +goose Down
DROP TABLE kept;
";

/// In the style of drizzle-kit and pg_dump.
const QUALIFIED: &str = "SELECT pg_catalog.set_config('search_path', '', false);
CREATE TYPE \"public\".\"mood\" AS ENUM('good', 'bad');--> statement-breakpoint
CREATE TABLE IF NOT EXISTS public.t (tenant_id text NOT NULL, id text NOT NULL, n integer, mood public.mood, PRIMARY KEY (tenant_id, id));
CREATE SEQUENCE public.t_n_seq OWNED BY public.t.n;
ALTER TABLE ONLY public.t ALTER COLUMN n SET DEFAULT nextval('public.t_n_seq'::regclass);
COPY public.t (tenant_id, id, n, mood) FROM stdin;
ten_x\tit's\t\\N\tbad
\\.
";

fn bare() -> Spec {
    spec(serde_json::json!({}))
}

/// The schema of the tenant's tables in the main database.
fn schema(fixture: &Fixture, spec: &Spec) -> String {
    match fixture.model {
        Model::Pool => "tenantry_pool".to_owned(),
        _ => spec.name.clone(),
    }
}

async fn tables(fixture: &Fixture, schema: &str) -> Vec<String> {
    let sql = format!("SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' ORDER BY 1");
    fixture.sql(&sql).await.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_down_part_of_a_goose_file_does_not_run() {
    for model in [Model::Pool, Model::Schema] {
        let folder = Folder::new(&[("00001_init.sql", GOOSE)]);
        let Some(fixture) = folder.fixture(model).await else { return };
        let spec = bare();
        fixture.ensure(&spec).await;
        assert_eq!(
            tables(&fixture, &schema(&fixture, &spec)).await,
            ["_migrations", "kept", "t"],
            "{model:?}"
        );
    }
}

#[tokio::test]
async fn qualified_names_are_rejected_or_refer_to_the_tenant() {
    for model in MODELS {
        let folder = Folder::new(&[("0001_init.sql", QUALIFIED)]);
        let Some(fixture) = Fixture::with(model, |config| {
            config.migrations = Some(folder.path().to_owned());
            config.seeds = Some(folder.path().to_owned());
            config.public_schema = PublicSchema::Rewrite;
        })
        .await
        else {
            return;
        };
        // The second tenant gets its own tables too.
        for _ in 0..2 {
            let spec = bare();
            fixture.ensure(&spec).await;
            if model == Model::Database {
                let rows = fixture.provider.data().unwrap().scoped(spec.tenant.id);
                assert!(rows.get("t", "x").await.unwrap().is_none());
                continue;
            }
            let schema = schema(&fixture, &spec);
            assert_eq!(tables(&fixture, &schema).await, ["_migrations", "t"], "{model:?}");
            let sql = format!("SELECT id, n, mood::text FROM \"{schema}\".t WHERE tenant_id = 'ten_x'");
            let row = &fixture.sql(&sql).await[0];
            let read: (String, Option<i32>, String) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(read, ("it's".to_owned(), None, "bad".to_owned()));
            assert!(tables(&fixture, "public").await.is_empty(), "{model:?}");
        }
    }
}

#[tokio::test]
async fn a_failure_names_the_line_and_the_statement_without_its_values() {
    let late = "-- +goose Up\nALTER TABLE t ADD COLUMN m integer;\n\n/* the\n   fault */ ALTER TABLE missing\n  ADD COLUMN m text DEFAULT 'secret';\n";
    // The server tells the place inside of the statement.
    let inside = "-- +goose Up\nCREATE INDEX i ON t (tenant_id,\n  n)\n  WHERE missing = 'secret';\n";
    for (second, words) in [
        (
            late,
            [
                "00002_more.sql:5: PostgreSQL rejected",
                "SQLSTATE 42P01",
                "statement: ALTER TABLE missing ADD COLUMN m text DEFAULT …",
            ],
        ),
        (
            inside,
            [
                "00002_more.sql:4: PostgreSQL rejected",
                "SQLSTATE 42703",
                "statement: CREATE INDEX i ON t (tenant_id, n) WHERE missing = …",
            ],
        ),
    ] {
        for model in MODELS {
            let folder = Folder::new(&[("00001_init.sql", GOOSE), ("00002_more.sql", second)]);
            let Some(fixture) = folder.fixture(model).await else { return };
            let failure = fixture.provider.ensure(&fixture.world.context(), &bare()).await.unwrap_err();
            is(&failure, Fatal, "bad_migration");
            for word in words {
                assert!(failure.message.contains(word), "{model:?}: {failure}");
            }
            assert!(!failure.message.contains("secret"), "{failure}");
        }
    }
}
