//! What the database providers on PostgreSQL share: servers, names, roles, the list of tenants, migrations, and one
//! tenant's rows. A provider decides what a tenant is there: rows, a schema or a database.

mod catalogue;
mod config;
mod credential;
mod directory;
mod failure;
mod fence;
mod home;
pub(crate) mod isolation;
mod migrate;
mod name;
pub(crate) mod portable;
mod role;
mod rows;
mod server;
mod spare;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::{Failure, Isolation};

pub(crate) use catalogue::{holds, read as read_catalogue, shape};
pub use config::Config;
pub(crate) use credential::{Handout, Secret, forget};
pub(crate) use directory::{Found, Owner, State, mark_of_schema, name_of, names_of, recorded};
pub(crate) use failure::{failure, is_duplicate};
pub(crate) use fence::{denies, fence, rights};
pub(crate) use home::{Seen, bring_up, grants, lost_rights, name_taken, observed, seed};
pub(crate) use migrate::{Target, baseline, recipe, search_path};
pub(crate) use name::Name;
pub(crate) use role::shut_out;
pub(crate) use rows::{Home, Scoped, count_all, delete_all, no_such_tenant};
pub(crate) use server::{Server, begin, close, make, meanwhile, run, take_time};
pub(crate) use spare::{Maker, Spares, claimed};

use crate::content::{Content, Ensure};
use crate::fence::Order;
use crate::files::Files;
use crate::lanes::Lanes;
use crate::migrations::{self, Dialect};
use crate::verbs::{Context, Spec};

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
        let server = |url: &String, pooler| Server::new(url, pooler, config.connections).map(Arc::new);
        let main = server(&config.url, config.pooler.as_deref())?;
        let clusters = config
            .clusters
            .iter()
            .map(|(region, url)| Ok((region.clone(), server(url, None)?)))
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

    /// All servers, the main one first.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        std::iter::once(&self.main).chain(self.clusters.values())
    }

    /// What a spec asks for: who it is for, and what is to be written.
    pub(crate) fn plan(
        &self,
        context: &Context,
        spec: &Spec,
        isolation: Isolation,
    ) -> Result<(Owner, Ensure, Value), Failure> {
        let (work, outputs) = self.content.plan(context, spec, isolation.as_str())?;
        Ok((Owner::of(isolation, Name::new(&spec.name)?, &work), work, outputs))
    }

    /// Who a spec is for.
    pub(crate) fn owner(&self, spec: &Spec, isolation: Isolation) -> Result<Owner, Failure> {
        Ok(Owner {
            isolation,
            tenant: spec.tenant.id.to_string(),
            name: Name::new(&spec.name)?,
            claim: spec.claim.clone(),
            resource: spec.resource.to_string(),
        })
    }

    /// Whose fence an order is about.
    pub(crate) fn fenced(&self, order: &Order, isolation: Isolation) -> Result<Owner, Failure> {
        Ok(Owner {
            isolation,
            tenant: order.tenant.to_string(),
            name: Name::new(&order.name)?,
            claim: order.claim.clone(),
            resource: order.resource.to_string(),
        })
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
            Found::Ours(state) if state.thing => Ok(()),
            _ => Err(no_such_tenant()),
        }
    }

    /// The canary as a tenant of its own. Its name is another one for every main database of a server, because roles are
    /// the whole server's.
    pub(crate) fn canary(&self, server: &Server, isolation: Isolation) -> Result<(Owner, Ensure), Failure> {
        let work = self.content.canary()?;
        let digest = hex::encode(Sha256::digest(format!("{isolation:?} {}", server.database())));
        let name = format!("tenantry_canary_{}", digest.get(..16).unwrap_or_default());
        Ok((Owner::of(isolation, Name::new(&name)?, &work), work))
    }
}

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
        json!({ "database": database, "schema": schema, "role": role.as_str(), "host": host, "port": port });
    if let (Some(outputs), Value::Object(place)) = (outputs.as_object_mut(), place) {
        outputs.extend(place);
    }
    outputs
}
