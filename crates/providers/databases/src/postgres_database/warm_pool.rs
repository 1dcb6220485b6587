//! Creates and drops warm databases: copies of the template with the privileges of a role that cannot log in.

use std::sync::Arc;

use async_trait::async_trait;
use tenantry_model::Failure;
use tenantry_postgres::Session;

use super::client::{self, SCHEMA, copy};
use super::dropping::drop_database;
use super::template;
use crate::postgres::{Name, Postgres, Server, WarmFactory, rights, run, shape, with_keepalive};
use crate::shape::Shape;

/// Creates and drops warm databases.
pub struct WarmDatabases(pub Arc<Postgres>);

#[async_trait]
impl WarmFactory for WarmDatabases {
    async fn make(
        &self,
        server: &Server,
        connection: &mut Session,
        name: &Name,
        tag: &str,
    ) -> Result<Shape, Failure> {
        let template = with_keepalive(connection, template::ready(server, &self.0)).await?;
        copy(connection, &template, name).await?;
        run(connection, client::tag(name, name, tag)).await?;
        let mut inside = server.connect_to(name).await?;
        run(&mut inside, rights(SCHEMA, name, None)).await?;
        let shape = shape(&mut inside, SCHEMA, None).await?;
        inside.close().await;
        Ok(shape)
    }

    async fn discard(&self, server: &Server, connection: &mut Session, name: &Name) -> Result<(), Failure> {
        drop_database(server, connection, name).await
    }
}
