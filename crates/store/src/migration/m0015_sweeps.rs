//! Migration 15: what a sweep looks for is found by index, so that it does not read the whole fleet every hour. Frozen.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}

const INDEXES: [&str; 3] = [
    "CREATE INDEX tenants_fenced ON tenants (id) WHERE denied = fenced",
    "CREATE INDEX resources_renewal ON resources ((outputs ->> 'renew_at'), id)
        WHERE kind = 'certificate' AND state = 'present'",
    "CREATE INDEX resources_database ON resources (provider, id) WHERE kind = 'database' AND state = 'present'",
];
