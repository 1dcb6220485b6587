//! The registry's migrations, in order. A migration that has been released never changes: a later one corrects it.
//!
//! Migrations describe tables as they were on their day and so never use the entities, which describe them today.

mod m0001_registry;
mod m0002_by_tenant;
mod m0003_places;
mod m0004_suspensions;
mod m0005_isolation_reports;
mod m0006_fences;
mod m0007_archives;
mod m0008_leaving;
mod m0010_tenants_plan;
mod m0011_clones;
mod m0012_rotations;
mod m0014_clones_of;
mod m0015_sweeps;

use sea_orm_migration::prelude::*;

/// Brings a registry up to date.
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_registry::Migration),
            Box::new(m0002_by_tenant::Migration),
            Box::new(m0003_places::Migration),
            Box::new(m0004_suspensions::Migration),
            Box::new(m0005_isolation_reports::Migration),
            Box::new(m0006_fences::Migration),
            Box::new(m0007_archives::Migration),
            Box::new(m0008_leaving::Migration),
            Box::new(m0010_tenants_plan::Migration),
            Box::new(m0011_clones::Migration),
            Box::new(m0012_rotations::Migration),
            Box::new(m0014_clones_of::Migration),
            Box::new(m0015_sweeps::Migration),
        ]
    }
}
