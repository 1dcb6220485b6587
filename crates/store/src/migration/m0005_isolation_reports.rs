//! Migration 5: reports of the isolation check, as they were signed. Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{text, timestamp_with_time_zone as at};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut reports = Table::create();
        reports.table("isolation_reports");
        for column in [text("id"), text("report"), text("signature"), at("at")] {
            reports.col(column);
        }
        reports.primary_key(Index::create().col("id"));
        manager.create_table(reports).await
    }
}
