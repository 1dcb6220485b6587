//! What the database providers on PostgreSQL share: servers, names, roles, the list of tenants, migrations, and one
//! tenant's rows. A provider decides what a tenant is there: rows, a schema or a database.

/// The condition that what this name stands for, of `pg_class` or `pg_proc`, is in the schema `$1`. It is found by what depends on the
/// schema, because there is no index by schema and among many of them a catalogue is long. Not everything that depends
/// on a schema is in it: a tenant's temporary function whose default names another's schema does, too.
macro_rules! in_schema {
    (class $alias:literal) => {
        in_schema!("pg_class", $alias, "relnamespace")
    };
    (proc $alias:literal) => {
        in_schema!("pg_proc", $alias, "pronamespace")
    };
    ($catalogue:literal, $alias:literal, $namespace:literal) => {
        concat!(
            "(",
            $alias,
            ".oid, ",
            $alias,
            ".",
            $namespace,
            ") IN (SELECT objid, refobjid FROM pg_depend
                 WHERE refclassid = 'pg_namespace'::regclass AND classid = '",
            $catalogue,
            "'::regclass
                   AND refobjid = (SELECT oid FROM pg_namespace WHERE nspname = $1))"
        )
    };
}

mod catalogue;
mod config;
mod credential;
mod directory;
mod factory;
mod failure;
mod fence;
mod home;
pub(crate) mod isolation;
mod logins;
mod made;
mod migrate;
mod name;
pub(crate) mod portable;
mod rights;
mod role;
mod rotation;
mod rows;
mod server;
mod spare;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Isolation, Write};

pub(crate) use catalogue::{holds, read as read_catalogue, shape};
pub use config::{Cluster, Config};
pub(crate) use credential::{Handed, Handout, forget};
pub(crate) use directory::{Found, Owner, State, mark_of_schema, name_of, names_of, recorded};
pub use factory::FACTORY;
pub(crate) use failure::{failure, is_duplicate};
pub(crate) use fence::{denies, fence};
pub(crate) use home::{Removal, Seen, bring_up, lost_rights, name_taken, observed, seed, unhindered};
pub(crate) use made::Made;
pub(crate) use migrate::{Target, baseline, recipe, search_path};
pub(crate) use name::Name;
pub(crate) use rights::{grants, rights};
use rotation::Tables;
pub(crate) use rows::{Home, Scoped, count_all, delete_all, no_such_tenant};
pub(crate) use server::{Server, begin, close, make, meanwhile, run, take_time};
pub(crate) use spare::{Maker, Spares, claimed};

use crate::content::{Content, Ensure};
use crate::migrations::{self, Dialect};
use tenantry_provider::fence::Order;
use tenantry_provider::files::Files;
use tenantry_provider::lanes::Lanes;
use tenantry_provider::rotate::{Former, Retirement, Rotated};
use tenantry_provider::verbs::{Context, Rows, Spec};

/// Servers, and what goes into tenants' tables on them. The providers of one process share it.
pub struct Postgres {
    pub(crate) config: Config,
    pub(crate) content: Content,
    pub(crate) lanes: Lanes,
    main: Arc<Server>,
    clusters: BTreeMap<String, Arc<Server>>,
}

impl Postgres {
    /// Reads the migrations; fails if they, or the URLs, cannot be understood. Connects to nothing.
    pub fn new(config: Config) -> Result<Arc<Self>, Failure> {
        let set = format!("postgres/{}", config.set);
        let migrations =
            migrations::load(&Files::migrations(config.migrations.as_deref()), &set, Dialect::Postgres)?;
        let content =
            Content::load(&config.set, migrations, None, config.seeds.as_deref(), rows::insert_statement)?;
        Name::new(&config.app_role)
            .map_err(|failure| Failure::invalid("bad_name", format!("`app_role`: {}", failure.message)))?;
        let server = |path: &str, url: &str, pooler: &Option<String>| {
            Server::new(path, url, pooler.as_deref(), config.connections).map(Arc::new)
        };
        let main = server("", &config.url, &config.pooler)?;
        let clusters = config
            .clusters
            .iter()
            .map(|(region, it)| {
                Ok((region.clone(), server(&format!("clusters.{region}."), &it.url, &it.pooler)?))
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Arc::new(Self { config, content, lanes: Lanes::default(), main, clusters }))
    }

    /// The server of what tenants share.
    pub(crate) fn main(&self) -> &Arc<Server> {
        &self.main
    }

    /// The server of a region's databases.
    pub(crate) fn of_region(&self, region: &str) -> &Arc<Server> {
        self.clusters.get(region).unwrap_or(&self.main)
    }

    /// All servers, the main one first; one that several regions share, once.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        let mut seen = BTreeSet::new();
        let all = std::iter::once(&self.main).chain(self.clusters.values());
        all.filter(move |server| seen.insert(server.place()))
    }

    /// What a spec asks for: who it is for, and what is to be written.
    pub(crate) fn plan(
        &self,
        context: &Context,
        spec: &Spec,
        isolation: Isolation,
    ) -> Result<(Owner, Ensure, Value), Failure> {
        let (work, outputs) = self.content.plan(context, spec, isolation.as_str())?;
        Ok((Owner::of(isolation, &spec.name, &work)?, work, outputs))
    }

    /// Who a spec is for.
    pub(crate) fn owner(&self, spec: &Spec, isolation: Isolation) -> Result<Owner, Failure> {
        let (tenant, resource) = (spec.tenant.id.to_string(), spec.resource.to_string());
        Owner::new(isolation, tenant, &spec.name, &spec.claim, resource)
    }

    /// Whose fence an order is about.
    pub(crate) fn fenced(&self, order: &Order, isolation: Isolation) -> Result<Owner, Failure> {
        let (tenant, resource) = (order.tenant.to_string(), order.resource.to_string());
        Owner::new(isolation, tenant, &order.name, &order.claim, resource)
    }

    /// Rotates the password of a spec's logins, which have to be told of their tables if those are named.
    pub(crate) async fn rotate(
        &self,
        server: &Server,
        (context, spec): (&Context, &Spec),
        isolation: Isolation,
        tables: Tables<'_>,
        former: Former,
    ) -> Result<Rotated, Failure> {
        let (owner, handout) = (self.owner(spec, isolation)?, Handout::of(context, spec).await?);
        let _turn = self.lanes.turn(spec.resource).await;
        let limit = self.config.connection_limit;
        let handed = rotation::rotate(server, &owner, &handout, limit, tables, former).await?;
        let older: &[&Name] = match former {
            Former::Stays => &[&handed.login],
            Former::Ends => &[&owner.name, &owner.second],
        };
        let mut writes = forget(&*context.rows, spec.tenant.id, older, Some(handout.operation())).await?;
        let outputs = Map::from_iter([(ROLE.to_owned(), json!(handed.login.as_str()))]);
        writes.extend(handed.writes(context, spec));
        Ok(Rotated { outputs, writes })
    }

    /// Ends the former password that a retirement is about.
    pub(crate) async fn retire(
        &self,
        server: &Server,
        rows: &dyn Rows,
        retirement: &Retirement,
        isolation: Isolation,
    ) -> Result<Vec<Write>, Failure> {
        let Retirement { tenant, resource, name, claim, rotation, .. } = retirement;
        let owner = Owner::new(isolation, tenant.to_string(), name, claim, resource.to_string())?;
        let _turn = self.lanes.turn(*resource).await;
        match rotation::retire(server, &owner, *rotation).await? {
            Some(former) => forget(rows, *tenant, &[&former], None).await,
            None => Ok(Vec::new()),
        }
    }

    /// Fails unless what the spec asks for is there and its own.
    pub(crate) async fn must_stand(
        &self,
        server: &Server,
        spec: &Spec,
        isolation: Isolation,
    ) -> Result<(), Failure> {
        let owner = self.owner(spec, isolation)?;
        let mut connection = server.connection().await?;
        match owner.look(&mut connection).await? {
            Found::Ours(state) if state.thing && state.completed.is_some() => Ok(()),
            _ => Err(no_such_tenant()),
        }
    }

    /// The canary as a tenant of its own. Its name is another one for every main database of a server, because roles are
    /// the whole server's.
    pub(crate) fn canary(&self, server: &Server, isolation: Isolation) -> Result<(Owner, Ensure), Failure> {
        let work = self.content.canary()?;
        let digest = hex::encode(Sha256::digest(format!("{isolation:?} {}", server.database())));
        let name = format!("tenantry_canary_{}", digest.get(..16).unwrap_or_default());
        Ok((Owner::of(isolation, &name, &work)?, work))
    }
}

/// The output that names the login role with the newest password.
const ROLE: &str = "role";

/// What people may know of where a tenant's rows are, over what every provider says.
pub(crate) fn outputs(
    mut outputs: Value,
    server: &Server,
    database: &str,
    schema: &str,
    role: &Name,
) -> Value {
    let (host, port) = server.address();
    let place =
        json!({ "database": database, "schema": schema, ROLE: role.as_str(), "host": host, "port": port });
    if let (Some(outputs), Value::Object(place)) = (outputs.as_object_mut(), place) {
        outputs.extend(place);
    }
    outputs
}
