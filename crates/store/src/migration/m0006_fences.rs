//! Migration 6: what fences are to deny, and what they do. Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["denied", "fenced"] {
            let mut tenants = Table::alter();
            tenants.table("tenants").add_column(text_null(column));
            manager.alter_table(tenants).await?;
        }
        manager.get_connection().execute_unprepared(UNFENCED).await.map(drop)
    }
}

const UNFENCED: &str = "CREATE INDEX tenants_unfenced ON tenants (id) WHERE denied IS DISTINCT FROM fenced";
