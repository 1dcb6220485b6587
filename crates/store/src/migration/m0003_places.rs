//! Migration 3: places, by which resources are reserved (S4.24, S4.50-52). Frozen.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, text_null, timestamp_with_time_zone_null as at_null};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut places = Table::create();
        places.table("places");
        for column in [
            text("region"),
            text("kind"),
            big_integer("place"),
            text_null("tenant_id"),
            at_null("reserved_until"),
        ] {
            places.col(column);
        }
        places.primary_key(Index::create().col("region").col("kind").col("place"));
        manager.create_table(places).await?;
        let by_tenant = "CREATE INDEX places_tenant ON places (tenant_id) WHERE tenant_id IS NOT NULL";
        manager.get_connection().execute_unprepared(by_tenant).await?;
        Ok(())
    }
}
