//! Migration 7: archives of what tenants have, by tenant and by age. Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, json_binary, json_binary_null, text, timestamp_with_time_zone as at,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut archives = Table::create();
        archives.table("archives");
        for column in [
            text("id"),
            text("tenant_id"),
            text("operation_id"),
            text("purpose"),
            big_integer("size"),
            text("sha256"),
            json_binary("content"),
            json_binary_null("verified"),
            at("created_at"),
            at("expires_at"),
        ] {
            archives.col(column);
        }
        archives.primary_key(Index::create().col("id"));
        manager.create_table(archives).await?;
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}

const INDEXES: &[&str] = &[
    "CREATE INDEX archives_tenant ON archives (tenant_id, id)",
    "CREATE INDEX archives_expiry ON archives (expires_at)",
];
