//! Migration 14: the clones of a tenant are found by it, so that an end does not read the whole fleet. Frozen.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(INDEX).await.map(drop)
    }
}

const INDEX: &str = "CREATE INDEX tenants_cloned_from ON tenants (cloned_from) WHERE cloned_from IS NOT NULL";
