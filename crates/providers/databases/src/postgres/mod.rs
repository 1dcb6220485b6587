//! What the three PostgreSQL providers share: servers, names, roles, the list of tenants, migrations, and
//! access to one tenant's rows. Each provider decides whether a tenant is a set of rows, a schema or a
//! database.

/// SQL of the schemas that hold a tenant's objects. That is the schema of this name; and beside `public`, which is the main
/// schema of a database of the tenant's own, all others of the database's owner, except those of PostgreSQL and of extensions.
macro_rules! own_schemas {
    () => {
        own_schemas!("$1")
    };
    ($main:literal) => {
        concat!(
            "SELECT oid FROM pg_namespace WHERE nspname = ",
            $main,
            " UNION ALL SELECT oid FROM pg_namespace other
              WHERE ",
            $main,
            " = 'public' AND nspname NOT IN ('public', 'information_schema', 'extensions') AND NOT nspname ^@ 'pg_'
                AND nspowner = (SELECT datdba FROM pg_database WHERE datname = current_database())
                AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_namespace'::regclass AND objid = other.oid AND deptype = 'e')"
        )
    };
}

/// SQL condition that an object of `pg_class` or `pg_proc`, under this alias, is in one of the schemas of the main schema
/// `$1`. It goes through the dependencies on the schemas, because neither catalogue has an index by schema and both are
/// long on a server with many of them. Dependencies alone are not enough: a tenant's temporary function whose default
/// names another schema depends on that schema without being in it. Objects of extensions are left out.
macro_rules! in_schemas {
    (class $alias:literal) => {
        in_schemas!("pg_class", $alias, "relnamespace")
    };
    (proc $alias:literal) => {
        in_schemas!("pg_proc", $alias, "pronamespace")
    };
    ($catalogue:literal, $alias:literal, $namespace:literal) => {
        concat!(
            "((",
            $alias,
            ".oid, ",
            $alias,
            ".",
            $namespace,
            ") IN (SELECT objid, refobjid FROM pg_depend
                 WHERE refclassid = 'pg_namespace'::regclass AND classid = '",
            $catalogue,
            "'::regclass
                   AND refobjid = ANY (ARRAY(",
            own_schemas!(),
            ")))
              AND NOT EXISTS (SELECT FROM pg_depend WHERE deptype = 'e' AND classid = '",
            $catalogue,
            "'::regclass AND objid = ",
            $alias,
            ".oid))"
        )
    };
}

/// SQL of the name of an object of `pg_class` or `pg_proc`, under this alias: with its schema before it, unless that is the
/// main schema `$1`.
macro_rules! name_of {
    (class $alias:literal) => {
        name_of!($alias, "relname", "relnamespace")
    };
    (proc $alias:literal) => {
        name_of!($alias, "proname", "pronamespace")
    };
    ($alias:literal, $name:literal, $namespace:literal) => {
        concat!(
            "(SELECT CASE WHEN nspname = $1 THEN ",
            $alias,
            ".",
            $name,
            "::text ELSE concat(nspname, '.', ",
            $alias,
            ".",
            $name,
            ") END FROM pg_namespace place WHERE place.oid = ",
            $alias,
            ".",
            $namespace,
            ")"
        )
    };
}

mod administrator;
mod blockers;
mod catalogue;
mod config;
mod credential;
mod dependents;
mod directory;
mod extensions;
mod factory;
mod failure;
mod fence;
pub(crate) mod isolation;
mod location;
mod logins;
mod migrate;
mod name;
pub(crate) mod own_databases;
mod own_table;
mod owned;
mod per_server;
mod prepared;
mod protection;
mod relations;
pub(crate) mod replica;
mod rights;
mod role;
mod rotation;
mod rows;
mod seed;
mod server;
mod shape;
pub(crate) mod transfer;
mod trial;
mod warm_pool;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Isolation, Write};
use tenantry_postgres::{Server as Address, Session};

pub(crate) use blockers::{drop_unblocked, unblocked, watch};
pub(crate) use catalogue::{LOOKUP_POLICY, holds, inspect as inspect_catalogue, read as read_catalogue};
pub use config::{Cluster, Config, PgNotify};
pub(crate) use credential::{IssuedPassword, PasswordRequest, forget};
pub(crate) use dependents::require_none as require_no_dependents;
pub(crate) use directory::{Owner, TenantState, name_of, names_of, recorded_shape, schema_tag};
pub(crate) use extensions::{Extensions, InstallIn, extend_paths, install as install_extensions};
pub use factory::FACTORY;
pub(crate) use failure::{failure, is_duplicate};
pub(crate) use fence::{denies, fence};
pub(crate) use location::{
    ObservedSchema, RemovalCounts, drop_tables_in_batches, name_taken, observed, privilege_differences,
    update_schema,
};
pub(crate) use migrate::{TABLE as MIGRATIONS, Target, baseline, keeps_replaced, mark, recipe};
pub(crate) use name::Name;
pub(crate) use per_server::PerServer;
pub(crate) use prepared::roll_back_in;
pub(crate) use protection::Protection;
pub(crate) use rights::{grants, rights};
pub(crate) use role::Memberships;
use rotation::Path;
pub(crate) use rows::{LocateRows, PostgresRows, count_all, delete_all, no_such_tenant};
pub(crate) use seed::seed;
pub(crate) use server::{Server, begin, create_objects, lift_timeout, run, with_keepalive};
pub(crate) use shape::shape;
pub(crate) use trial::Trial;
pub(crate) use warm_pool::{WarmFactory, WarmPool, or_on_demand};

use crate::content::{Content, Ensure};
use crate::migrations::{self, Allowed, Dialect, Policy};
use tenantry_provider::factory::OwnDatabases;
use tenantry_provider::fence::Order;
use tenantry_provider::files::Files;
use tenantry_provider::resource_locks::ResourceLocks;
use tenantry_provider::rotate::{Former, Retirement, Rotated};
use tenantry_provider::verbs::{Context, Ownership, Rows, Spec};

/// The configured servers, and the content of tenants' tables. All PostgreSQL providers of a process share
/// it.
pub struct Postgres {
    pub(crate) config: Config,
    pub(crate) content: Content,
    pub(crate) locks: ResourceLocks,
    extensions: PerServer<Arc<Extensions>>,
    /// The registry and the keyring, as far as they are on PostgreSQL.
    own: Vec<Address>,
    own_closed: PerServer<()>,
    main: Arc<Server>,
    clusters: BTreeMap<String, Arc<Server>>,
}

impl Postgres {
    /// Servers without regard to the registry and the keyring: see [`Postgres::beside`].
    pub fn new(config: Config) -> Result<Arc<Self>, Failure> {
        Self::beside(&OwnDatabases::default(), config)
    }

    /// Reads migrations and seeds. Returns an error if they or the URLs are invalid. Creates no tenants on a server whose
    /// logins may connect to one of `own`. Does not connect.
    pub fn beside(own: &OwnDatabases, config: Config) -> Result<Arc<Self>, Failure> {
        let set = set_name(&config);
        let files = Files::migrations(config.migrations.as_deref());
        let extensions = Allowed::new(&config.extensions)
            .map_err(|why| Failure::invalid("bad_settings", format!("`extensions`: {why}")))?;
        let policy = Policy { public: config.public_schema, extensions };
        let migrations = migrations::load(&files, &set, Dialect::Postgres, &policy)?;
        own_table::check(&migrations)?;
        let content = Content::load(&config.set, migrations, None, config.seeds.as_deref())?;
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
        Ok(Arc::new(Self {
            config,
            content,
            locks: ResourceLocks::default(),
            extensions: PerServer::default(),
            own: own_databases::addresses(own)?,
            own_closed: PerServer::default(),
            main,
            clusters,
        }))
    }

    /// Checks that tenants may be created on this server: the administrator's rights if it has none yet, and that tenants'
    /// logins cannot connect to the registry and the keyring. An attempt that fails has created nothing.
    pub(crate) async fn admit(&self, server: &Server, isolation: Isolation) -> Result<(), Failure> {
        let admitted = async {
            if server.is_set_up().await? {
                return self.own_closed.get_or_init(server, self.require_own_closed(server)).await;
            }
            server.require(isolation, &self.config.app_role, 0).await?;
            self.require_own_closed(server).await
        };
        admitted.await.map_err(Failure::untouched)
    }

    /// What closes the registry and the keyring to the logins of this session's server, if they are open to them.
    pub(crate) async fn own_open(&self, connection: &mut Session) -> Result<Vec<String>, Failure> {
        own_databases::open_to_tenants(connection, &self.own).await
    }

    async fn require_own_closed(&self, server: &Server) -> Result<(), Failure> {
        if self.own.is_empty() {
            return Ok(());
        }
        let mut connection = server.connect().await?;
        own_databases::require_closed(&mut connection, &self.own).await?;
        connection.close().await;
        Ok(())
    }

    /// Checks that this server answers and admits tenants of this isolation. Changes nothing.
    pub(crate) async fn probe(&self, server: &Server, isolation: Isolation) -> Result<(), Failure> {
        server.probe(isolation, &self.config).await?;
        self.require_own_closed(server).await
    }

    /// Name of the set of migrations.
    pub(crate) fn set(&self) -> String {
        set_name(&self.config)
    }

    /// The main server, which holds shared tables and schemas.
    pub(crate) fn main(&self) -> &Arc<Server> {
        &self.main
    }

    /// The server of a region's tenant databases.
    pub(crate) fn of_region(&self, region: &str) -> &Arc<Server> {
        self.clusters.get(region).unwrap_or(&self.main)
    }

    /// All servers, the main one first, each once.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        let mut seen = BTreeSet::new();
        let all = std::iter::once(&self.main).chain(self.clusters.values());
        all.filter(move |server| seen.insert(server.id()))
    }

    /// The extensions of the main database; installs those that the migrations name when first called. Takes a connection,
    /// so call it without holding one.
    pub(crate) async fn extensions(&self) -> Result<Arc<Extensions>, Failure> {
        let migrations = &self.content.migrations;
        if migrations.iter().all(|migration| migration.extensions.is_empty()) {
            return Ok(Arc::default());
        }
        let installed = async {
            let mut lock = self.main.lock(extensions::LOCK).await?;
            install_extensions(&mut lock, migrations, InstallIn::Main).await.map(Arc::new)
        };
        self.extensions.get_or_init(&self.main, installed).await
    }

    /// Which of a tenant's logins do not find the extensions of the main database, a sentence for each.
    pub(crate) async fn paths_of(
        &self,
        connection: &mut Session,
        owner: &Owner,
        state: &TenantState,
    ) -> Result<Vec<String>, Failure> {
        let extensions = Extensions::of_main(connection, &self.content.migrations).await?;
        extensions.not_found_by(connection, self.main.database(), owner.existing(state)).await
    }

    /// The search path of what exists in this schema of the main database. Installs nothing.
    pub(crate) async fn main_path(&self, connection: &mut Session, schema: &str) -> Result<String, Failure> {
        let extensions = Extensions::of_main(connection, &self.content.migrations).await?;
        Ok(extensions.search_path(schema))
    }

    /// The owner that a spec describes, the rows to write, and the planned outputs.
    pub(crate) fn plan(
        &self,
        context: &Context,
        spec: &Spec,
        isolation: Isolation,
    ) -> Result<(Owner, Ensure, Value), Failure> {
        let (work, outputs) = self.content.plan(context, spec, isolation.as_str())?;
        Ok((Owner::of(isolation, &spec.name, &work)?, work, outputs))
    }

    /// The owner that a spec describes.
    pub(crate) fn owner(&self, spec: &Spec, isolation: Isolation) -> Result<Owner, Failure> {
        let (tenant, resource) = (spec.tenant.id.to_string(), spec.resource.to_string());
        Owner::new(isolation, tenant, &spec.name, &spec.claim, resource)
    }

    /// The owner whose fence an order changes.
    pub(crate) fn owner_of_order(&self, order: &Order, isolation: Isolation) -> Result<Owner, Failure> {
        let (tenant, resource) = (order.tenant.to_string(), order.resource.to_string());
        Owner::new(isolation, tenant, &order.name, &order.claim, resource)
    }

    /// Gives a spec's tenant a new database password. `path` is the logins' search path in a database, if they have one.
    pub(crate) async fn rotate(
        &self,
        server: &Server,
        (context, spec): (&Context, &Spec),
        isolation: Isolation,
        path: Path<'_>,
        former: Former,
    ) -> Result<Rotated, Failure> {
        let (owner, request) =
            (self.owner(spec, isolation)?, PasswordRequest::for_spec(context, spec).await?);
        let _lock = self.locks.lock(spec.resource).await;
        let limit = self.config.connection_limit;
        let issued = rotation::rotate(server, &owner, &request, limit, path, former).await?;
        let older: &[&Name] = match former {
            Former::Stays => &[&issued.login],
            Former::Ends => &[&owner.name, &owner.second],
        };
        let mut writes = forget(&*context.rows, spec.tenant.id, older, Some(request.operation())).await?;
        let outputs = Map::from_iter([(ROLE.to_owned(), json!(issued.login.as_str()))]);
        writes.extend(issued.writes(context, spec));
        Ok(Rotated { outputs, writes })
    }

    /// Revokes the former password that a retirement names.
    pub(crate) async fn retire(
        &self,
        server: &Server,
        rows: &dyn Rows,
        retirement: &Retirement,
        isolation: Isolation,
    ) -> Result<Vec<Write>, Failure> {
        let Retirement { tenant, resource, name, claim, rotation, .. } = retirement;
        let owner = Owner::new(isolation, tenant.to_string(), name, claim, resource.to_string())?;
        let _lock = self.locks.lock(*resource).await;
        match rotation::retire(server, &owner, *rotation).await? {
            Some(former) => forget(rows, *tenant, &[&former], None).await,
            None => Ok(Vec::new()),
        }
    }

    /// Returns an error unless the spec's resource exists, is complete and carries its owner tag.
    pub(crate) async fn require_complete(
        &self,
        server: &Server,
        spec: &Spec,
        isolation: Isolation,
    ) -> Result<(), Failure> {
        let owner = self.owner(spec, isolation)?;
        let mut connection = server.connection().await?;
        match owner.inspect(&mut connection).await? {
            Ownership::Own(state) if state.thing && state.completed.is_some() => Ok(()),
            _ => Err(no_such_tenant()),
        }
    }

    /// The owner and rows of the canary row. Its name depends on the main database, because roles belong to
    /// the whole server.
    pub(crate) fn canary(&self, server: &Server, isolation: Isolation) -> Result<(Owner, Ensure), Failure> {
        let work = self.content.canary()?;
        let digest = hex::encode(Sha256::digest(format!("{isolation:?} {}", server.database())));
        let name = format!("tenantry_canary_{}", digest.get(..16).unwrap_or_default());
        Ok((Owner::of(isolation, &name, &work)?, work))
    }
}

fn set_name(config: &Config) -> String {
    format!("postgres/{}", config.set)
}

/// The output that names the login role with the newest password.
const ROLE: &str = "role";

/// Adds the location of a tenant's rows to a resource's outputs.
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
