//! Migration 8: certificates of deletion; operations that end a tenant begin beside the one that they take over from;
//! what has run out is found by its time. Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, timestamp_with_time_zone as at};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut certificates = Table::create();
        certificates.table("certificates");
        for column in [
            text("id"),
            big_integer("seq"),
            text("tenant_id"),
            text("certificate"),
            text("signature"),
            text("hash"),
            at("at"),
        ] {
            certificates.col(column);
        }
        certificates.primary_key(Index::create().col("id"));
        manager.create_table(certificates).await?;
        for statement in STATEMENTS {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

const STATEMENTS: &[&str] = &[
    "CREATE UNIQUE INDEX certificates_seq ON certificates (seq)",
    "CREATE INDEX certificates_tenant ON certificates (tenant_id)",
    "CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at)",
    "CREATE INDEX sign_in_codes_expires ON sign_in_codes (expires_at)",
    "DROP INDEX operations_one_unfinished",
    "CREATE UNIQUE INDEX operations_one_unfinished ON operations
        (tenant_id, (CASE kind WHEN 'erase' THEN 2 WHEN 'offboard' THEN 1 ELSE 0 END))
        WHERE parent_id IS NULL AND state NOT IN ('succeeded', 'rolled_back', 'cancelled')",
];
