//! The database that tenants' databases are copies of: all migrations, nobody's rows. Made once per server and set of
//! migrations, aside and then renamed, so that whatever has its name is complete.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tenantry_model::Failure;

use super::client::{SCHEMA, drop_database};
use crate::database_postgres::{Name, Server, Target, close, failure, is_duplicate, meanwhile, recipe, run};
use crate::migrations::Migration;
use crate::tables::literal;

/// The mark of every template.
const MARK: &str = "tenantry: a template of tenants' databases";

/// The template on this server; makes it if it is missing.
pub async fn ready(server: &Server, migrations: &[Migration]) -> Result<Name, Failure> {
    let digest = recipe(server.administrator(), migrations);
    let name = Name::new(&format!("tenantry_template_{digest}"))?;
    let mut turn = server.turn("template").await?;
    if there(&mut turn, &name).await? {
        return Ok(name);
    }
    // Another main database on the same server may make the same template now.
    let own = hex::encode(Sha256::digest(server.database()));
    let draft = Name::new(&format!("tenantry_draft_{digest}_{}", own.get(..12).unwrap_or_default()))?;
    drop_database(&mut turn, &draft).await?;
    run(&mut turn, format!("CREATE DATABASE {draft} TEMPLATE template0")).await?;
    let mut inside = server.connect_to(&draft).await?;
    run(&mut inside, format!("REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC")).await?;
    let target = Target::of_one(SCHEMA);
    meanwhile(&mut turn, target.migrate(&mut inside, migrations)).await?;
    close(inside).await?;
    let mark = literal(MARK);
    run(
        &mut turn,
        format!(
            "REVOKE ALL ON DATABASE {draft} FROM PUBLIC; COMMENT ON DATABASE {draft} IS {mark};
             ALTER DATABASE {draft} IS_TEMPLATE true ALLOW_CONNECTIONS false"
        ),
    )
    .await?;
    if !rename(&mut turn, &draft, &name).await? {
        drop_database(&mut turn, &draft).await?;
        there(&mut turn, &name).await?;
    }
    Ok(name)
}

/// Gives a draft its name. False: something has the name.
async fn rename(connection: &mut PgConnection, draft: &Name, name: &Name) -> Result<bool, Failure> {
    let sql = format!("ALTER DATABASE {draft} RENAME TO {name}");
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await {
        Err(error) if is_duplicate(&error) => Ok(false),
        renamed => renamed.map(|_| true).map_err(failure),
    }
}

/// Whether it is there. A database of its name that is no template of ours is a failure.
async fn there(connection: &mut PgConnection, name: &Name) -> Result<bool, Failure> {
    let mark: Option<String> = sqlx::query_scalar(
        "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1",
    )
    .bind(name.as_str())
    .fetch_optional(connection)
    .await
    .map_err(failure)?;
    match mark {
        Some(mark) if mark != MARK => {
            let name = name.as_str();
            Err(Failure::fatal("name_taken", format!("the database {name} is not ours; it was not touched")))
        }
        mark => Ok(mark.is_some()),
    }
}
