//! Migration 10: the tenants of a plan are found by plan, so that a list of them does not read the whole fleet. Frozen.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(INDEX).await.map(drop)
    }
}

const INDEX: &str = "CREATE INDEX tenants_plan ON tenants (plan, id)";
