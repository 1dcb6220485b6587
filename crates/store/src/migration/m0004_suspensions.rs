//! Migration 4: why tenants are suspended (S0.11, S1.29-32). Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::json_binary;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tenants = Table::alter();
        tenants.table("tenants").add_column(json_binary("suspensions").default("{}"));
        manager.alter_table(tenants).await
    }
}
