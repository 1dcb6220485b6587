//! What Tenantry writes into tenants' tables: migrations, the rows of seeds, and the canary row. Reads the
//! product's files only; the caller passes the tables of its database.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tenantry_model::{Failure, FailureClass, TenantId, Timestamp};
use uuid::Uuid;

use crate::migrations::{Applied, Migration};
use crate::tables::{Catalogue, seed_of_lookup};
use tenantry_provider::data::Canary;
use tenantry_provider::files::Files;
pub use tenantry_provider::kinds::database::{DatabaseSettings as Settings, app};
use tenantry_provider::seeds::{Block, Languages, Seed};
use tenantry_provider::settings;
use tenantry_provider::verbs::{Context, Fault, Person, Spec, Tenant};

/// Name and owner tag of the tenant that holds the canary row. No planned name or owner tag looks like it.
const CANARY: &str = "canary";

/// One tenant's rows, ready to be written by `ensure`.
#[derive(Clone)]
pub struct Ensure {
    pub tenant: String,
    pub name: String,
    pub tag: String,
    pub resource: String,
    pub seed: Option<String>,
    /// Time of the attempt, recorded as the time of completion.
    pub at: String,
    /// What to insert, in this order, each with its rows: JSON arrays of the tenant's id and the columns' values,
    /// separated by commas.
    pub rows: Vec<(Arc<Insert>, String)>,
}

/// Table and columns of rows to insert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Insert {
    /// Table name.
    pub table: String,
    /// Column names, without `tenant_id`.
    pub columns: Vec<String>,
}

/// A set of migrations with the seeds that fit it.
pub struct Content {
    set: String,
    pub(crate) migrations: Vec<Migration>,
    /// The tables after all migrations, if they are known before a database is opened (SQLite).
    planned: Option<Catalogue>,
    files: Files,
    seeds: Mutex<HashMap<String, Arc<Languages<Prepared>>>>,
    canary: Prepared,
    pub(crate) canary_row: Canary,
}

/// A seed with the table and columns of each of its blocks.
struct Prepared {
    seed: Seed,
    inserts: Vec<Arc<Insert>>,
}

/// A seed's rows for one tenant, and the locale that was chosen.
#[derive(Default)]
struct Filled {
    locale: Option<String>,
    rows: Vec<(Arc<Insert>, String)>,
}

impl Prepared {
    fn new(seed: Seed) -> Self {
        let insert =
            |block: &Block| Arc::new(Insert { table: block.table.clone(), columns: block.columns.clone() });
        let inserts = seed.blocks.iter().map(insert).collect();
        Self { seed, inserts }
    }

    fn rows(&self, tenant: &Tenant) -> Result<Vec<(Arc<Insert>, String)>, Failure> {
        let blocks = self.inserts.iter().zip(&self.seed.blocks);
        blocks
            .map(|(insert, block)| {
                let mut rows = String::new();
                self.seed.render(block, tenant, &mut rows)?;
                Ok((insert.clone(), rows))
            })
            .collect()
    }
}

impl Content {
    /// Reads `canary.yaml` from the seeds. Returns an error if it is missing or does not fit the tables.
    pub fn load(
        set: &str,
        migrations: Vec<Migration>,
        planned: Option<Catalogue>,
        seeds: Option<&Path>,
    ) -> Result<Self, Failure> {
        let files = Files::seeds(seeds);
        // An operator's own folder of seeds replaces the shipped one as a whole, so it must bring a canary
        // row that fits the operator's tables.
        let text = files.read("canary.yaml")?.ok_or_else(|| {
            Failure::fatal("no_canary", "the folder of seeds has no canary.yaml: add one with one table and one row, whose id no tenant uses")
        })?;
        let canary = Seed::parse(CANARY, &text)
            .map_err(|why| Failure::fatal("bad_seed", format!("canary.yaml: {why}")))?;
        let canary_row = canary_row(&canary)?;
        let faults = unknown_columns(planned.as_ref(), &canary);
        if let Some(fault) = faults.first() {
            return Err(Failure::fatal("bad_seed", format!("canary.yaml: {fault}")));
        }
        let canary = Prepared::new(canary);
        Ok(Self {
            set: set.to_owned(),
            migrations,
            planned,
            files,
            seeds: Mutex::default(),
            canary,
            canary_row,
        })
    }

    /// Checks a step's settings beyond their JSON schema.
    pub fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let mut faults = Vec::new();
        if settings.migrations != self.set {
            let message = format!(
                "the provider applies the migration set `{}`: use that set, or another provider",
                self.set
            );
            faults.push(Fault { path: "migrations".to_owned(), message });
        }
        if let Some(Err(failure)) = settings.seed.map(|seed| self.rehearse_seed(&seed)) {
            faults.push(Fault { path: "seed".to_owned(), message: failure.message });
        }
        faults
    }

    /// Returns the rows that a spec asks for, and the resource's outputs; `isolation` is the provider's.
    pub fn plan(&self, context: &Context, spec: &Spec, isolation: &str) -> Result<(Ensure, Value), Failure> {
        let settings: Settings = settings::of(spec)?;
        let filled = self.fill(settings.seed.as_deref(), &spec.tenant)?;
        let work = Ensure {
            tenant: spec.tenant.id.to_string(),
            name: spec.name.clone(),
            tag: spec.claim.clone(),
            resource: spec.resource.to_string(),
            seed: settings.seed.clone(),
            at: context.now.to_string(),
            rows: filled.rows,
        };
        let outputs = json!({
            "database": spec.name,
            "isolation": isolation,
            "migrations": settings.migrations,
            "version": self.last_version(),
            "seed": settings.seed,
            "locale": filled.locale,
            "canary": { "table": self.canary_row.table, "id": self.canary_row.id },
            // The database itself stores rows in clear text, whatever encryption level the tenant's files
            // have.
            "encryption": "none",
        });
        Ok((work, outputs))
    }

    fn fill(&self, seed: Option<&str>, tenant: &Tenant) -> Result<Filled, Failure> {
        let Some(name) = seed else { return Ok(Filled::default()) };
        let languages = self.seed(name)?;
        let Some(prepared) = languages.pick(&tenant.locale) else { return Ok(Filled::default()) };
        Ok(Filled { locale: Some(prepared.seed.locale.clone()), rows: prepared.rows(tenant)? })
    }

    /// The tenant that holds the canary row.
    pub fn canary(&self) -> Result<Ensure, Failure> {
        let tenant = canary_tenant();
        Ok(Ensure {
            tenant: tenant.id.to_string(),
            name: CANARY.to_owned(),
            tag: CANARY.to_owned(),
            resource: CANARY.to_owned(),
            seed: None,
            at: Timestamp::now().to_string(),
            rows: self.canary.rows(&tenant)?,
        })
    }

    /// The tables after all migrations; empty if they are not known before a database is opened.
    pub fn planned(&self) -> &Catalogue {
        static UNKNOWN: Catalogue = Catalogue::new();
        self.planned.as_ref().unwrap_or(&UNKNOWN)
    }

    /// Version of the last migration.
    pub fn last_version(&self) -> &str {
        self.migrations.last().map_or("", |migration| &migration.version)
    }

    /// Returns a sentence if a database at this version lacks migrations.
    pub fn behind(&self, version: Option<&str>) -> Option<String> {
        let (last, none) = (self.last_version(), "nothing");
        let at = version.unwrap_or(none);
        (at != last).then(|| format!("it is at migration {at}, the last one is {last}"))
    }

    /// A sentence for each file of which a database has an earlier text than the folder.
    pub fn replaced(&self, applied: &[Applied]) -> Vec<String> {
        let earlier =
            self.migrations.iter().filter(|file| applied.iter().any(|applied| file.replaces(applied)));
        let named = earlier.map(|migration| {
            let (file, key, checksum) = (&migration.file, migration.key(), &migration.checksum);
            format!(
                "it has an earlier text of {file}, which the folder's replaces: make its tables equal to those of other tenants, and \
                 then set `checksum` of the key `{key}` in its `_migrations` to {checksum}"
            )
        });
        named.collect()
    }

    fn seed(&self, name: &str) -> Result<Arc<Languages<Prepared>>, Failure> {
        if let Some(seed) = self.seeds.lock().get(name) {
            return Ok(seed.clone());
        }
        let languages = Languages::load(&self.files, name)?;
        if let Some(fault) = languages.iter().find_map(|seed| {
            let fault = unknown_columns(self.planned.as_ref(), seed).into_iter().next()?;
            Some(format!("{name}/{}.yaml: {fault}", seed.locale))
        }) {
            return Err(Failure::invalid("bad_seed", fault));
        }
        let prepared = Arc::new(languages.map(Prepared::new));
        self.seeds.lock().insert(name.to_owned(), prepared.clone());
        Ok(prepared)
    }

    /// Reads a seed in every language and renders it for the canary's tenant, which finds errors in it.
    fn rehearse_seed(&self, name: &str) -> Result<(), Failure> {
        let languages = self.seed(name)?;
        let tenant = canary_tenant();
        languages.iter().try_for_each(|prepared| prepared.rows(&tenant).map(drop))
    }
}

/// Marks a failure as the seed's: the tables reject its rows, so a retry does not help.
pub fn seed_failure(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Invalid => Failure::invalid("bad_seed", failure.message),
        _ => failure,
    }
}

/// The canary's tenant. Its id lies before the id of any real tenant.
fn canary_tenant() -> Tenant {
    Tenant {
        id: TenantId::from_uuid(Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000)),
        slug: CANARY.to_owned(),
        name: CANARY.to_owned(),
        plan: String::new(),
        region: String::new(),
        locale: String::new(),
        admin: Person::default(),
    }
}

fn canary_row(seed: &Seed) -> Result<Canary, Failure> {
    let found = seed.first_row().and_then(|(table, row)| {
        let id = row.get("id")?.as_str()?.to_owned();
        Some(Canary { tenant: canary_tenant().id, table: table.to_owned(), id, row })
    });
    found.ok_or_else(|| {
        Failure::fatal("bad_seed", "canary.yaml: its first row must have a fixed text as `id`")
    })
}

/// Tables and columns that a seed names and the catalogue lacks; none if the catalogue is unknown.
fn unknown_columns(catalogue: Option<&Catalogue>, seed: &Seed) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(catalogue) = catalogue else { return faults };
    for block in &seed.blocks {
        let Some(table) = catalogue.tables.get(&block.table) else {
            faults.push(format!("the migrations create no table `{}`", block.table));
            continue;
        };
        if table.is_lookup {
            faults.push(seed_of_lookup(&block.table).message);
        }
        for column in &block.columns {
            if table.column(column).is_none_or(|column| column.generated) {
                faults.push(format!("table `{}` has no writable column `{column}`", block.table));
            }
        }
    }
    faults
}
