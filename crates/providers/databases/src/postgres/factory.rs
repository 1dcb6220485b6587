//! How a server makes the three providers on PostgreSQL: one table of the configuration for all of them.

use std::sync::Arc;

use serde_json::{Value, json};
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::settings;
use tenantry_provider::verbs::{Fault, Kind, Provider};

use super::{Config, Postgres};
use crate::migrations::Allowed;
use crate::postgres_database::DatabasePostgresDatabase;
use crate::postgres_pool::DatabasePostgresPool;
use crate::postgres_schema::DatabasePostgresSchema;

const POOL: &str = "_pool";
const SCHEMA: &str = "_schema";
const DATABASE: &str = "_database";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: "postgres",
    kind: Kind::Database,
    about: "Tenants' databases on PostgreSQL 15 or newer. With this table, steps that name no provider get NAME_pool, \
            NAME_schema or NAME_database; without it there are none of these",
    parts: &[POOL, SCHEMA, DATABASE],
    always: false,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "migrations": context.migrations, "seeds": context.seeds }),
    check,
    build: |context, config| {
        Box::pin(async move {
            let postgres = Postgres::beside(&context.own_databases, factory::config(config)?)?;
            let name = |part: &str| format!("{}{part}", context.name);
            let pool = DatabasePostgresPool::new(postgres.clone()).named(&name(POOL));
            let schema = DatabasePostgresSchema::new(postgres.clone()).named(&name(SCHEMA));
            let database = DatabasePostgresDatabase::new(postgres).named(&name(DATABASE));
            let providers: Vec<Arc<dyn Provider>> =
                vec![Arc::new(pool), Arc::new(schema), Arc::new(database)];
            Ok(providers)
        })
    },
};

/// The extensions, and the URLs, whose passwords no message may quote.
fn check(config: &Value) -> Vec<Fault> {
    let extensions = config.get("extensions").and_then(Value::as_array).into_iter().flatten();
    let extensions: Vec<String> = extensions.filter_map(Value::as_str).map(str::to_owned).collect();
    let refused = Allowed::new(&extensions).err();
    let refused = refused.map(|message| Fault { path: "extensions".to_owned(), message });

    let clusters = config.get("clusters").and_then(Value::as_object).into_iter().flatten();
    let clusters = clusters.map(|(region, cluster)| (format!("clusters.{region}."), cluster));
    let servers = std::iter::once((String::new(), config)).chain(clusters);
    let wrong = |url: &str| !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let urls = servers
        .filter(|(_, server)| server.get("url").and_then(Value::as_str).is_some_and(wrong))
        .map(|(at, _)| Fault { path: format!("{at}url"), message: "must begin with postgres://".to_owned() });
    urls.chain(refused).collect()
}
