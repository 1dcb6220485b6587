//! Migration 12: former secrets that are good for a while, by tenant and by their end. Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{text, timestamp_with_time_zone as at};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut rotations = Table::create();
        rotations.table("rotations");
        for column in [text("operation_id"), text("resource_id"), text("tenant_id"), at("until")] {
            rotations.col(column);
        }
        rotations.primary_key(Index::create().col("operation_id").col("resource_id"));
        manager.create_table(rotations).await?;
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}

const INDEXES: &[&str] = &[
    "CREATE INDEX rotations_tenant ON rotations (tenant_id)",
    "CREATE INDEX rotations_resource ON rotations (resource_id)",
    "CREATE INDEX rotations_until ON rotations (until)",
];
