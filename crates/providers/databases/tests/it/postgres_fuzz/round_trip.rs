//! What must hold for every case: the set is refused with file and line and leaves nothing, or three tenants are created,
//! filled, exported, loaded, compared, fenced and removed, and none of it reads, changes or loses a neighbour's row.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use tempfile::TempDir;
use tenantry_model::suspension::SuspensionMode;
use tenantry_model::{Failure, FailureClass};
use tenantry_provider::transfer::Nowhere;
use tenantry_provider::{Ensured, Outcome, Spec};
use tenantry_testkit::TestDatabase;
use tenantry_testkit::database::{admin, on_server};

use super::case::Case;
use super::fill::{Rows, literal, quoted, run};
use super::watch::{difference, dump, objects, observe};
use crate::contract::transfer::Export;
use crate::postgres::{Fixture, Model, connect, log_in, plain, try_provider};
use crate::postgres_failures::bare;
use crate::postgres_fences::order;
use crate::postgres_probes::probes::{Own, Probes};

/// The schemas that migrations have created in a tenant's database.
const FURTHER: &str = "SELECT nspname::text FROM pg_namespace WHERE nspname NOT IN ('public', 'information_schema', 'extensions') AND NOT nspname ^@ 'pg_'";

/// How a case ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The set was refused, with this message.
    Refused(String),
    /// The round trip held, with this many rows.
    Held(usize),
}

/// What the test keeps during a case.
pub struct Lab<'a> {
    pub case: &'a Case,
    pub fixture: Fixture,
    /// A superuser's session in the main database.
    pub superuser: PgConnection,
    folder: TempDir,
}

/// A tenant of a case.
pub struct Tenant {
    pub spec: Spec,
    pub outputs: serde_json::Value,
    word: &'static str,
}

impl Tenant {
    pub fn id(&self) -> String {
        self.spec.tenant.id.to_string()
    }
}

/// Runs a case; the error says what did not hold.
pub async fn hold(case: &Case) -> Result<Ending, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().to_owned();
    std::fs::write(path.join("canary.yaml"), "[{table: t, rows: [{id: canary, n: 1}]}]").unwrap();
    let first = case.files.len() - case.later;
    case.tool.write(&path.join("postgres/app"), &case.files, first);
    let attributes = if case.superuser { "SUPERUSER" } else { plain(case.model) };
    let database = TestDatabase::postgres().await.expect("a server");
    let made = Fixture::with_administrator(database, case.model, attributes, |config| {
        config.migrations = Some(path.clone());
        config.seeds = Some(path.clone());
        config.partitions = case.partitions;
    });
    let fixture = match made.await {
        Ok(fixture) => fixture,
        Err(failure) => return refusal(case, &failure),
    };
    let name = fixture.url().rsplit('/').next().unwrap_or_default().to_owned();
    let url = on_server(&admin().expect("a server"), &name);
    let mut superuser = connect(&url).await;
    let owner = format!("admin_{name}");
    run(&mut superuser, &format!("CREATE SCHEMA beside AUTHORIZATION {owner}; SET ROLE {owner}; CREATE TABLE beside.beside (a int); INSERT INTO beside.beside VALUES (1); RESET ROLE")).await?;
    let mut lab = Lab { case, fixture, superuser, folder };
    let held = lab.hold().await;
    drop(lab);
    discard(&owner).await;
    held
}

/// Removes what outlives the main database of a case: the administrator with its template databases.
async fn discard(administrator: &str) {
    let mut session = connect(&admin().expect("a server")).await;
    let databases =
        "SELECT datname::text FROM pg_database JOIN pg_roles r ON r.oid = datdba WHERE rolname::text = $1";
    let databases: Vec<String> =
        sqlx::query_scalar(databases).bind(administrator).fetch_all(&mut session).await.unwrap();
    for database in databases {
        let database = quoted(&database);
        let _ = run(&mut session, &format!("ALTER DATABASE {database} IS_TEMPLATE false")).await;
        let _ = run(&mut session, &format!("DROP DATABASE {database} WITH (FORCE)")).await;
    }
    let _ = run(&mut session, &format!("DROP ROLE {}", quoted(administrator))).await;
}

/// Whether a failure is a refusal that names file and line.
fn refusal(case: &Case, failure: &Failure) -> Result<Ending, String> {
    let refused = matches!(failure.class, FailureClass::Fatal | FailureClass::Invalid)
        && failure.code == "bad_migration";
    let ending = || Ok(Ending::Refused(failure.message.clone()));
    if !refused {
        return Err(format!("neither held nor refused: {:?} {failure}", failure.class));
    }
    let names = case.files.iter().enumerate().map(|(number, file)| case.tool.name(number, file.transaction));
    let lines: Vec<bool> = names.flat_map(|name| has_lines(&failure.message, &format!("{name}:"))).collect();
    match !lines.is_empty() && lines.iter().all(|has_line| *has_line) {
        true => ending(),
        false => Err(format!("refused without file and line: {}", failure.message)),
    }
}

/// For each naming of a file in a message, whether a line follows.
fn has_lines(message: &str, file: &str) -> Vec<bool> {
    message.split(file).skip(1).map(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).collect()
}

impl Lab<'_> {
    fn schema(&self, spec: &Spec) -> String {
        match self.case.model {
            Model::Pool => "tenantry_pool".to_owned(),
            Model::Schema => spec.name.clone(),
            Model::Database => "public".to_owned(),
        }
    }

    fn is_shared(&self) -> bool {
        self.case.model == Model::Pool
    }

    /// A superuser's session in the database of a tenant's rows.
    async fn inside(&self, spec: &Spec) -> PgConnection {
        let main = self.fixture.url().rsplit('/').next().unwrap_or_default();
        let name = if self.case.model == Model::Database { &*spec.name } else { main };
        connect(&on_server(&admin().expect("a server"), name)).await
    }

    pub async fn log_in(&self, tenant: &Tenant) -> Result<PgConnection, String> {
        let session = log_in(&self.fixture, &tenant.spec, &tenant.outputs).await;
        session.map_err(|error| format!("a tenant cannot log in: {error}"))
    }

    async fn ensure(&self, spec: &Spec) -> Result<serde_json::Value, Failure> {
        let made = self.fixture.provider.ensure(&self.fixture.world.context(), spec).await;
        made.map(|Ensured { outputs, writes }| {
            self.fixture.world.registry.apply(&writes);
            outputs
        })
    }

    async fn tenant(&self, word: &'static str) -> Result<Tenant, Failure> {
        let mut spec = bare();
        spec.name = spec.name.replace('-', "_");
        let outputs = self.ensure(&spec).await?;
        Ok(Tenant { spec, outputs, word })
    }

    /// Writes rows as the tenant; in tables of its own, one of an administrator as well.
    async fn fill(&self, tenant: &Tenant, first: u32, last: u32) -> Result<usize, String> {
        let (schema, id) = (self.schema(&tenant.spec), tenant.id());
        let rows = Rows { schema: &schema, tenant: &id, is_shared: self.is_shared(), word: tenant.word };
        let (mut catalogue, mut session) = (self.inside(&tenant.spec).await, self.log_in(tenant).await?);
        let mut written = rows.write(&mut catalogue, &mut session, first..=last).await?;
        if !self.is_shared() {
            let mut administrator = self.inside(&tenant.spec).await;
            run(&mut administrator, &format!("SET search_path = {}", quoted(&schema))).await?;
            written += rows.write(&mut catalogue, &mut administrator, last + 1..=last + 1).await?;
            refresh(&mut administrator).await?;
        }
        if self.case.model == Model::Database {
            let object = format!("SELECT lo_from_bytea(0, {})", literal(tenant.word));
            run(&mut session, &object).await?;
        }
        Ok(written)
    }

    async fn dump(&self, tenant: &Tenant) -> Result<BTreeMap<String, String>, String> {
        let mut session = self.inside(&tenant.spec).await;
        dump(&mut session, &self.schema(&tenant.spec), &tenant.id(), self.is_shared()).await
    }

    async fn observe(&self, tenant: &Tenant) -> Result<BTreeMap<String, String>, String> {
        let (mut administrator, mut session) = (self.inside(&tenant.spec).await, self.log_in(tenant).await?);
        observe(&mut administrator, &mut session).await
    }

    async fn objects(&mut self, specs: &[&Spec]) -> Result<Vec<String>, String> {
        let main = self.fixture.url().rsplit('/').next().unwrap_or_default();
        let names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
        objects(&mut self.superuser, &format!("admin_{main}"), &names).await
    }

    async fn hold(&mut self) -> Result<Ending, String> {
        let victim = match self.tenant("victim").await {
            Ok(tenant) => tenant,
            Err(failure) => {
                let ending = refusal(self.case, &failure)?;
                let left = self.objects(&[]).await?;
                let left: Vec<String> = left.into_iter().filter(|it| !is_beginning(it)).collect();
                return match left.is_empty() {
                    true => Ok(ending),
                    false => Err(format!("a refused set leaves: {left:?}, {failure}")),
                };
            }
        };
        let subject = self.tenant("subject").await.map_err(|it| format!("the second tenant: {it}"))?;
        let mut rows = self.fill(&subject, 1, 2).await?;
        let ending = self.later(&victim, &subject).await?;
        let before = self.objects(&[&subject.spec]).await?;
        rows += self.round_trip(&victim, &subject).await?;
        let after = self.objects(&[&subject.spec]).await?;
        let is_odd = |object: &&String| !before.contains(object) || object.contains(&subject.spec.name);
        if let Some(odd) = after.iter().find(is_odd) {
            return Err(format!("a removal leaves {odd}"));
        }
        self.remove(&victim).await?;
        Ok(if matches!(ending, Ending::Refused(_)) { ending } else { Ending::Held(rows) })
    }

    /// Adds the last files, and updates both tenants.
    async fn later(&mut self, victim: &Tenant, subject: &Tenant) -> Result<Ending, String> {
        self.case.tool.write(
            &self.folder.path().join("postgres/app"),
            &self.case.files,
            self.case.files.len(),
        );
        if self.case.later == 0 {
            return Ok(Ending::Held(0));
        }
        self.fill(victim, 1, 1).await?;
        let before = [self.dump(victim).await?, self.dump(subject).await?];
        let objects = self.objects(&[]).await?;
        let refused = match try_provider(self.case.model, self.fixture.config()) {
            Err(failure) => Some(failure),
            Ok(provider) => {
                let former = std::mem::replace(&mut self.fixture.provider, provider);
                match self.ensure(&subject.spec).await {
                    Ok(_) => {
                        let again = self.ensure(&victim.spec).await;
                        again.map_err(|it| {
                            format!("files that one tenant accepts, another one refuses: {it}")
                        })?;
                        None
                    }
                    Err(failure) => {
                        self.fixture.provider = former;
                        Some(failure)
                    }
                }
            }
        };
        let Some(failure) = refused else { return Ok(Ending::Held(0)) };
        let ending = refusal(self.case, &failure)?;
        let after = [self.dump(victim).await?, self.dump(subject).await?];
        for (before, after) in before.iter().zip(&after) {
            if let Some(difference) = difference(before, after) {
                return Err(format!("refused files change rows: {difference}, {failure}"));
            }
        }
        let left = self.objects(&[]).await?;
        // Files that only the rows of this tenant contradict have a template, for other tenants.
        let template = |it: &&String| it.starts_with("database tenantry_template_");
        match left
            .iter()
            .find(|it| !objects.contains(it) && !template(it))
            .or_else(|| objects.iter().find(|it| !left.contains(it)))
        {
            Some(odd) => Err(format!("refused files leave or take objects: {odd}, {failure}")),
            None => Ok(ending),
        }
    }

    async fn round_trip(&mut self, victim: &Tenant, subject: &Tenant) -> Result<usize, String> {
        let before = self.observe(subject).await?;
        let mut rows = self.fill(victim, 2, 4).await?;
        let of_victim = self.dump(victim).await?;
        self.unseen(&before, subject, "rows of another tenant are seen").await?;
        let ids = [victim.spec.tenant.id, subject.spec.tenant.id];
        let cells = self.fixture.provider.isolation().expect("a check").check(&ids).await;
        let cells = cells.map_err(|it| format!("the isolation check: {it}"))?.cells;
        if let Some(cell) = cells.iter().find(|cell| cell.outcome == Outcome::Leak) {
            return Err(format!("the isolation check: {}: {:?}", cell.what, cell.found));
        }
        self.probe(victim, subject).await?;
        rows += self.transfer(subject).await?;
        self.same(victim, &of_victim, "transfers").await?;
        self.fence(subject).await?;
        self.attack(subject).await?;
        self.same(victim, &of_victim, "another tenant's statements").await?;
        let observed = self.fixture.provider.observe(&self.fixture.world.context(), &subject.spec).await;
        let observed = observed.map_err(|it| format!("observing: {it}"))?;
        if !observed.is_healthy() {
            return Err(format!("a new tenant has drifted: {observed:?}"));
        }
        let objects = "SELECT lo_from_bytea(0, 'x'); CREATE TEMP TABLE held (a int)";
        let mut session = self.log_in(subject).await?;
        run(&mut session, objects).await?;
        self.remove(subject).await?;
        self.same(victim, &of_victim, "another tenant's removal").await?;
        if self.fill(victim, 5, 5).await? == 0 {
            return Err("a tenant cannot write after another one's removal".to_owned());
        }
        Ok(rows)
    }

    /// The login reaches no object of the database that is not its own.
    async fn probe(&self, victim: &Tenant, subject: &Tenant) -> Result<(), String> {
        let id = subject.id();
        let (mut superuser, mut session) = (self.inside(&subject.spec).await, self.log_in(subject).await?);
        let mut schemas = vec![self.schema(&subject.spec)];
        if self.case.model == Model::Database {
            let further: Vec<String> = sqlx::query_scalar(FURTHER).fetch_all(&mut superuser).await.unwrap();
            schemas.extend(further);
        }
        let own = Own {
            schemas: &schemas,
            shared: Some(&*id).filter(|_| self.is_shared()),
            role: &subject.spec.name,
        };
        let mut others = vec![victim.spec.name.clone()];
        // Only shared tables have a role of applications.
        others.extend(own.shared.map(|_| self.fixture.app_role().to_owned()));
        let probes =
            Probes { superuser: &mut superuser, session: &mut session, own, others: &others, only: "" };
        match probes.run().await.found {
            found if found.is_empty() => Ok(()),
            found => Err(format!("a login reaches what is not its own: {found:?}")),
        }
    }

    /// What a tenant sees does not depend on other tenants' rows.
    async fn unseen(
        &self,
        before: &BTreeMap<String, String>,
        tenant: &Tenant,
        what: &str,
    ) -> Result<(), String> {
        match difference(before, &self.observe(tenant).await?) {
            Some(difference) => Err(format!("{what}: {difference}")),
            None => Ok(()),
        }
    }

    async fn same(
        &self,
        tenant: &Tenant,
        before: &BTreeMap<String, String>,
        what: &str,
    ) -> Result<(), String> {
        match difference(before, &self.dump(tenant).await?) {
            Some(difference) => Err(format!("{what} change a neighbour's rows: {difference}")),
            None => Ok(()),
        }
    }

    /// Exports a tenant, loads it into another one and into itself after its rows have changed.
    async fn transfer(&self, subject: &Tenant) -> Result<usize, String> {
        let other = self.tenant("other").await.map_err(|it| format!("the third tenant: {it}"))?;
        let rows = self.fill(&other, 1, 3).await?;
        let (context, transfer) =
            (self.fixture.world.context(), self.fixture.provider.transfer().expect("transfer"));
        let mut export = Export::default();
        let content = transfer.export(&context, &subject.spec, &mut export).await;
        let content = content.map_err(|it| format!("the export: {it}"))?;
        let before = self.dump(subject).await?;
        self.fill(subject, 4, 4).await?;
        for (tenant, what) in [(&other, "the import"), (subject, "the restore")] {
            let load = transfer.load(&context, &tenant.spec, &mut export.source()).await;
            let writes = load.map_err(|it| format!("{what}: {it}"))?;
            self.fixture.world.registry.apply(&writes);
            if let Some(difference) = difference(&before, &self.dump(tenant).await?) {
                return Err(format!("{what} is not the same: {difference}"));
            }
            let again = transfer.export(&context, &tenant.spec, &mut Nowhere).await;
            let again = again.map_err(|it| format!("an export after {what}: {it}"))?;
            if again != content {
                return Err(format!("the content after {what}: {content:?} became {again:?}"));
            }
        }
        self.remove(&other).await?;
        Ok(rows)
    }

    /// A tenant that may not write changes nothing, and can again afterwards.
    async fn fence(&self, subject: &Tenant) -> Result<(), String> {
        let fence = self.fixture.provider.fence().expect("fences");
        let set = async |mode, version| {
            fence.fence(&order(&subject.spec, mode, version)).await.map_err(|it| format!("the fence: {it}"))
        };
        let before = self.dump(subject).await?;
        set(Some(SuspensionMode::ReadOnly), 1).await?;
        self.attack(subject).await?;
        if let Some(difference) = difference(&before, &self.dump(subject).await?) {
            return Err(format!("a suspended tenant writes: {difference}"));
        }
        set(Some(SuspensionMode::NoLogin), 2).await?;
        if self.log_in(subject).await.is_ok() {
            return Err("a suspended tenant logs in".to_owned());
        }
        set(None, 3).await
    }

    /// Every statement that could change or delete rows, by the tenant's login, on every relation of the database.
    async fn attack(&self, subject: &Tenant) -> Result<(), String> {
        let mut session = self.log_in(subject).await?;
        let mut administrator = self.inside(&subject.spec).await;
        let relations = "SELECT format('%I.%I', nspname, relname), (SELECT quote_ident(attname) FROM pg_attribute
                              WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum DESC LIMIT 1)
             FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
             WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_' ORDER BY c.oid DESC";
        let relations: Vec<(String, Option<String>)> = sqlx::query_as(relations)
            .fetch_all(&mut administrator)
            .await
            .map_err(|error| error.to_string())?;
        for (relation, column) in relations {
            let update = column.map(|it| format!("UPDATE {relation} SET {it} = {it}"));
            let truncate = format!("TRUNCATE {relation} CASCADE");
            for sql in update.into_iter().chain([truncate, format!("DELETE FROM {relation}")]) {
                // Most are denied.
                let _ = run(&mut session, &sql).await;
            }
        }
        Ok(())
    }

    async fn remove(&self, tenant: &Tenant) -> Result<(), String> {
        let removed = self.fixture.provider.remove(&self.fixture.world.context(), &tenant.spec).await;
        let removed = removed.map_err(|it| format!("the removal: {it}"))?;
        self.fixture.world.registry.apply(&removed.writes);
        if self.is_shared() {
            let left = self.dump(tenant).await?;
            if let Some((table, rows)) = left.iter().find(|(_, rows)| !rows.is_empty()) {
                return Err(format!("a removal leaves rows in {table}: {rows}"));
            }
        }
        Ok(())
    }
}

/// Computes the materialized views of the search path again, as an import does.
async fn refresh(administrator: &mut PgConnection) -> Result<(), String> {
    let refresh = "DO $$ DECLARE view text; BEGIN
        FOR view IN SELECT oid::regclass FROM pg_class WHERE relkind = 'm' AND relnamespace = current_schema()::regnamespace ORDER BY oid
        LOOP EXECUTE 'REFRESH MATERIALIZED VIEW ' || view; END LOOP; END $$";
    run(administrator, refresh).await
}

/// Whether an object is there before the first tenant.
fn is_beginning(object: &str) -> bool {
    object.starts_with("beside (1)") || object == "extension plpgsql in pg_catalog"
}
