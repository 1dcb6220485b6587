//! Creates and drops warm schemas: file by file, because no tenant waits for them.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::ISOLATION;
use crate::postgres::{
    Name, Postgres, Server, Target, WarmFactory, create_objects, drop_tables_in_batches,
    require_no_dependents, rights, run,
};
use crate::shape::Shape;
use crate::tables::literal;

/// Creates and drops warm schemas.
pub struct WarmSchemas(pub Arc<Postgres>);

#[async_trait]
impl WarmFactory for WarmSchemas {
    async fn make(
        &self,
        _: &Server,
        connection: &mut Session,
        name: &Name,
        tag: &str,
    ) -> Result<Shape, Failure> {
        let (tag, extensions) = (literal(tag), self.0.extensions().await?);
        create_objects(connection, format!("CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {tag};"))
            .await?;
        let target = Target::of_one(name.as_str(), ISOLATION, &extensions);
        let migrated = target.migrate(connection, &self.0.content.migrations).await?;
        run(connection, rights(name.as_str(), name, None)).await?;
        Ok(migrated.catalogue.shape)
    }

    async fn discard(&self, server: &Server, connection: &mut Session, name: &Name) -> Result<(), Failure> {
        require_no_dependents(connection, name.as_str()).await?;
        drop_tables_in_batches(server, connection, name.as_str()).await?;
        run(connection, format!("DROP SCHEMA IF EXISTS {name} CASCADE")).await
    }
}
