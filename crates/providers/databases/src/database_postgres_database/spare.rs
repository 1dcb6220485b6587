//! Databases that nobody has yet: copies of the template with the rights of a role that nobody logs in with.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgConnection;
use tenantry_model::Failure;

use super::client::{self, SCHEMA, copy, drop_database};
use super::template;
use crate::database_postgres::{Maker, Name, Postgres, Server, close, meanwhile, rights, run, shape};
use crate::shape::Shape;

/// Makes them.
pub struct SpareDatabase(pub Arc<Postgres>);

#[async_trait]
impl Maker for SpareDatabase {
    async fn make(
        &self,
        server: &Server,
        connection: &mut PgConnection,
        name: &Name,
        mark: &str,
    ) -> Result<Shape, Failure> {
        let template = meanwhile(connection, template::ready(server, &self.0.content.migrations)).await?;
        copy(connection, &template, name).await?;
        run(connection, client::mark(name, name, mark)).await?;
        let mut inside = server.connect_to(name).await?;
        run(&mut inside, rights(SCHEMA, name, None)).await?;
        let shape = shape(&mut inside, SCHEMA).await?;
        close(inside).await?;
        Ok(shape)
    }

    async fn discard(&self, connection: &mut PgConnection, name: &Name) -> Result<(), Failure> {
        drop_database(connection, name).await
    }
}
