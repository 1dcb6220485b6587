//! Exports a tenant's tables by COPY as CSV, parents before children, from one snapshot.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::TryStreamExt as _;
use tenantry_model::{Failure, Isolation, TenantId};
use tenantry_postgres::Error;

use super::large_objects::Owners;
use super::snapshot::Reader;
use super::{RowsConnection, exported, large_objects, listed, sequences, settings};
use crate::postgres::catalogue;
use crate::postgres::failure::failure;
use crate::postgres::name::Name;
use crate::postgres::relations::{Relation, Relations};
use crate::tables::{OWNER, Table};
use tenantry_provider::csv;
use tenantry_provider::transfer::{Content, Sink, Tally};
use tenantry_provider::verbs::Spec;

/// Exports the tenant's rows, sequences and large objects.
pub async fn rows(
    RowsConnection { connection, server, database, schema, path, isolation, .. }: &mut RowsConnection,
    spec: &Spec,
    sink: &mut dyn Sink,
) -> Result<Content, Failure> {
    let settings = settings(path);
    let mut reader = Reader::begin(connection, &settings).await?;
    let catalogue = catalogue::read_tables(reader.main(), schema, *isolation).await?;
    let relations = Relations::read(reader.main(), schema).await?;
    let parts: BTreeMap<&String, Vec<Relation>> =
        catalogue.tables.iter().map(|(name, table)| (name, relations.of(name, table))).collect();
    let sequences = match catalogue.is_whole {
        true => sequences::all(reader.main(), schema).await?,
        false => Vec::new(),
    };
    let locks = parts.values().flatten().map(|part| part.locks).sum::<usize>() + sequences.len();
    reader.prepare(locks, &settings, (server, database)).await?;
    let mut tally = Tally::default();
    // Parents before children.
    for name in catalogue.deletion_order.iter().rev().flatten() {
        let (Some(table), Some(parts)) = (catalogue.tables.get(name), parts.get(name)) else { continue };
        let export = TableExport { name, table, parts, is_whole: catalogue.is_whole };
        // Rows that shared tables do not export cannot count: an archive has one digest in all isolation models.
        let mut uncounted = Tally::default();
        let tally = if catalogue.lookups.contains(name) { &mut uncounted } else { &mut tally };
        export.run(&mut reader, spec.tenant.id, sink, tally).await?;
    }
    sequences::export(&mut reader, schema, &sequences, sink).await?;
    let owners = Owners { role: &Name::new(&spec.name)?, all: *isolation == Isolation::Database };
    large_objects::export(reader.main(), owners, sink, &mut tally).await?;
    reader.end().await?;
    Ok(tally.content())
}

/// One table to export.
struct TableExport<'a> {
    name: &'a str,
    table: &'a Table,
    /// Its parts in FROM.
    parts: &'a [Relation],
    /// Whether rows with another `tenant_id` are exported too.
    is_whole: bool,
}

impl TableExport<'_> {
    /// Rows with the tenant's own `tenant_id` are written without it, so that another tenant can load them.
    async fn run(
        &self,
        reader: &mut Reader<'_>,
        tenant: TenantId,
        sink: &mut dyn Sink,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let columns = exported(self.table);
        let own = self.table.owner.map(|owner| format!("{OWNER} = {}", owner.literal(tenant)));
        let some = own.as_ref().map(|own| format!("WHERE {own}")).unwrap_or_default();
        // A table without such columns is in the export if it has rows.
        if columns.is_empty() && !self.has_rows(reader, if self.is_whole { "" } else { &some }).await? {
            return Ok(());
        }
        let path = match &self.table.elsewhere {
            Some([schema, name]) => csv::path_in(schema, name),
            None => csv::path(self.name),
        };
        let mut out = csv::Table::at(sink, tally, self.name, path, columns.iter().copied());
        self.copy(reader, &columns, &some, None, &mut out).await?;
        if let Some(own) = own.filter(|_| self.is_whole) {
            let columns: Vec<&str> = std::iter::once(OWNER).chain(columns).collect();
            let others = format!("WHERE ({own}) IS NOT TRUE");
            self.copy(reader, &columns, &others, Some(&columns), &mut out).await?;
        }
        out.end().await
    }

    async fn has_rows(&self, reader: &mut Reader<'_>, condition: &str) -> Result<bool, Failure> {
        for Relation { from, locks } in self.parts {
            let any = format!("SELECT EXISTS (SELECT FROM {from} {condition})");
            if reader.session(*locks).await?.one::<bool>(&any, &[]).await.map_err(failure)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies the rows of all parts that meet the condition. The first row begins a file with the columns `anew`, if there
    /// are any.
    async fn copy(
        &self,
        reader: &mut Reader<'_>,
        columns: &[&str],
        condition: &str,
        mut anew: Option<&[&str]>,
        out: &mut csv::Table<'_>,
    ) -> Result<(), Failure> {
        for Relation { from, locks } in self.parts {
            let copy =
                format!("COPY (SELECT {} FROM {from} {condition}) TO STDOUT (FORMAT csv)", listed(columns));
            // PostgreSQL's protocol sends one row per message.
            let rows = reader.session(*locks).await?.copy_out(&copy).await.map_err(failure)?;
            let mut rows = pin!(rows.map_err(Error::from));
            while let Some(row) = rows.try_next().await.map_err(failure)? {
                if let Some(columns) = anew.take() {
                    out.continue_with(columns.iter().copied()).await?;
                }
                out.row(&row).await?;
            }
        }
        Ok(())
    }
}
