//! Schemas that nobody has yet: made file by file, because nobody waits.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgConnection;
use tenantry_model::Failure;

use crate::database_postgres::{Maker, Name, Postgres, Server, Target, make, rights, run};
use crate::shape::Shape;
use crate::tables::literal;

/// Makes them.
pub struct SpareSchema(pub Arc<Postgres>);

#[async_trait]
impl Maker for SpareSchema {
    async fn make(
        &self,
        _: &Server,
        connection: &mut PgConnection,
        name: &Name,
        mark: &str,
    ) -> Result<Shape, Failure> {
        let mark = literal(mark);
        make(connection, format!("CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {mark};")).await?;
        let target = Target::of_one(name.as_str());
        let migrated = target.migrate(connection, &self.0.content.migrations).await?;
        run(connection, rights(name.as_str(), name, None)).await?;
        Ok(migrated.catalogue.shape)
    }

    async fn discard(&self, connection: &mut PgConnection, name: &Name) -> Result<(), Failure> {
        run(connection, format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await
    }
}
