//! Migration 11: tenants that are clones of others. Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tenants = Table::alter();
        tenants.table("tenants").add_column(text_null("cloned_from"));
        manager.alter_table(tenants).await
    }
}
