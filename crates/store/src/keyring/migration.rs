//! The keyring's migrations, in order. A migration that has been released never changes.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    boolean, text, text_null, timestamp_with_time_zone as at, timestamp_with_time_zone_null as at_null,
};

/// Brings a keyring up to date.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(First), Box::new(Journal)]
    }
    fn migration_table_name() -> sea_orm::DynIden {
        "keyring_migrations".into_iden()
    }
}

/// Migration 1. Frozen.
struct First;

impl MigrationName for First {
    fn name(&self) -> &str {
        "m0001_keyring"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let keys = Table::create()
            .table("tenant_keys")
            .col(text("tenant_id").primary_key())
            .col(text_null("wrapped"))
            .col(at("created_at"))
            .col(at_null("destroyed_at"))
            .take();
        let erasures = Table::create()
            .table("erasures")
            .col(text("tenant_id").primary_key())
            .col(text("requested_by"))
            .col(text("reason"))
            .col(at("at"))
            .take();
        let secrets = Table::create()
            .table("secrets")
            .col(text("name").primary_key())
            .col(text("wrapped"))
            .col(at("created_at"))
            .take();
        for table in [keys, erasures, secrets] {
            manager.create_table(table).await?;
        }
        Ok(())
    }
}

/// Migration 2: the journal is written before anything is deleted, when the key is still needed. Frozen.
struct Journal;

impl MigrationName for Journal {
    fn name(&self) -> &str {
        "m0002_journal"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Journal {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let kept = boolean("key_kept").default(false).take();
        manager.alter_table(Table::alter().table("erasures").add_column(kept).take()).await
    }
}
