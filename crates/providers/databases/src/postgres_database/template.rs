//! The template database, which tenants' databases are copied from: all migrations, no rows. Created once per
//! server, administrator and set of migrations, under a draft name and then renamed, so a database of its
//! final name is complete.

use sha2::{Digest, Sha256};
use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::ISOLATION;
use super::client::SCHEMA;
use super::dropping::drop_database;
use crate::postgres::{
    InstallIn, Name, Postgres, Server, Target, Trial, failure, install_extensions, is_duplicate, recipe, run,
    with_keepalive,
};
use crate::tables::literal;

/// Owner tag of every template.
const OWNER_TAG: &str = "tenantry: a template of tenants' databases";

/// The template on this server; creates it if it is missing.
pub async fn ready(server: &Server, postgres: &Postgres) -> Result<Name, Failure> {
    let migrations = &postgres.content.migrations;
    let digest = recipe(server.administrator(), migrations);
    let name = Name::new(&format!("tenantry_template_{digest}"))?;
    let mut lock = server.lock("template").await?;
    if exists(&mut lock, &name).await? {
        return Ok(name);
    }
    // Another main database of the same server may create the same template now.
    let own = hex::encode(Sha256::digest(server.database()));
    let draft = Name::new(&format!("tenantry_draft_{digest}_{}", own.get(..12).unwrap_or_default()))?;
    drop_database(server, &mut lock, &draft).await?;
    run(&mut lock, format!("CREATE DATABASE {draft} TEMPLATE template0")).await?;
    let mut inside = server.connect_to(&draft).await?;
    run(&mut inside, format!("REVOKE ALL ON SCHEMA {SCHEMA} FROM PUBLIC")).await?;
    let made = async {
        let extensions = install_extensions(&mut inside, migrations, InstallIn::OfTenant).await?;
        Trial::new(ISOLATION, &postgres.set(), &extensions, None)
            .run(&mut inside, SCHEMA, migrations)
            .await?;
        Target::of_one(SCHEMA, ISOLATION, &extensions).migrate(&mut inside, migrations).await
    };
    let made = with_keepalive(&mut lock, made).await;
    inside.close().await;
    if let Err(failure) = made {
        // If this fails too, the next attempt with these files drops it.
        let _ = drop_database(server, &mut lock, &draft).await;
        return Err(failure);
    }
    let tag = literal(OWNER_TAG);
    run(
        &mut lock,
        format!(
            "REVOKE ALL ON DATABASE {draft} FROM PUBLIC; COMMENT ON DATABASE {draft} IS {tag};
             ALTER DATABASE {draft} IS_TEMPLATE true ALLOW_CONNECTIONS false"
        ),
    )
    .await?;
    if !rename(&mut lock, &draft, &name).await? {
        drop_database(server, &mut lock, &draft).await?;
        exists(&mut lock, &name).await?;
    }
    Ok(name)
}

/// Renames a draft. False: the name is taken.
async fn rename(connection: &mut Session, draft: &Name, name: &Name) -> Result<bool, Failure> {
    let sql = format!("ALTER DATABASE {draft} RENAME TO {name}");
    match connection.run(&sql).await {
        Err(error) if is_duplicate(&error) => Ok(false),
        renamed => renamed.map(|_| true).map_err(failure),
    }
}

/// Whether the template exists. A database of its name with another owner tag is a failure.
async fn exists(connection: &mut Session, name: &Name) -> Result<bool, Failure> {
    let tag: Option<String> = connection
        .first(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1",
            &[&name.as_str()],
        )
        .await
        .map_err(failure)?;
    match tag {
        Some(tag) if tag != OWNER_TAG => {
            let name = name.as_str();
            Err(Failure::fatal(
                "name_taken",
                format!(
                    "the database {name} carries another owner tag and was not touched; remove or rename it"
                ),
            ))
        }
        tag => Ok(tag.is_some()),
    }
}
