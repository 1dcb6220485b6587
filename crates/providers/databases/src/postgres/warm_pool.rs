//! The warm pool on PostgreSQL: schemas and databases that are created in advance, with a role that cannot
//! log in, all tables and no rows. Each is a row in `tenantry.homes` under an isolation of its own
//! (`spare_…`), so it never counts as a tenant's. A claim turns that row into the tenant's in the transaction
//! that renames role and schema or database.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, FailureClass, Isolation};
use tenantry_postgres::{Row, Session};
use zeroize::Zeroizing;

use super::Postgres;
use super::credential::{IssuedPassword, PasswordRequest};
use super::directory::{Owner, TenantState, record_shape};
use super::failure::failure;
use super::migrate::recipe;
use super::name::Name;
use super::role;
use super::server::{Server, run};
use crate::shape::Shape;
use crate::warm_task::{Fill, StopSignal, WarmTask};
use tenantry_provider::passwords;

/// SQL condition that a warm schema or database is complete and that it and its role still carry the recorded
/// owner tag.
const WHOLE: &str = "completed IS NOT NULL
    AND claim = (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = homes.name::name)
    AND claim = CASE isolation
        WHEN 'spare_schema' THEN (SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = homes.name::name)
        ELSE (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = homes.name::name) END";

/// Creates and drops warm schemas or databases.
#[async_trait]
pub trait WarmFactory: Send + Sync + 'static {
    /// Creates it with all tables and the privileges of the role of the same name. Returns its definition.
    async fn make(
        &self,
        server: &Server,
        connection: &mut Session,
        name: &Name,
        tag: &str,
    ) -> Result<Shape, Failure>;

    /// Drops it; absent is success.
    async fn discard(&self, server: &Server, connection: &mut Session, name: &Name) -> Result<(), Failure>;
}

/// A provider's warm pools and the task that fills them.
pub struct WarmPool {
    pools: Arc<PoolOnServers>,
    task: WarmTask,
}

/// Warm pools on every server of the provider, and what it takes to fill them.
struct PoolOnServers {
    postgres: Arc<Postgres>,
    isolation: Isolation,
    size: usize,
    factory: Box<dyn WarmFactory>,
    /// Passwords of the warm roles that this process has created. Hashing a password takes longer than the
    /// rest of a claim; a claim without a known one, after a restart or from another process, sets a new
    /// password.
    passwords: Mutex<HashMap<Name, Zeroizing<String>>>,
}

/// A warm schema or database in `tenantry.homes`.
struct WarmEntry {
    name: Name,
    tag: String,
    whole: bool,
}

impl WarmPool {
    /// A warm pool of `size` on each server. Does not connect.
    pub fn new(postgres: Arc<Postgres>, isolation: Isolation, size: u16, factory: impl WarmFactory) -> Self {
        let (size, passwords) = (size.into(), Mutex::default());
        let pools = PoolOnServers { postgres, isolation, size, factory: Box::new(factory), passwords };
        Self { pools: Arc::new(pools), task: WarmTask::default() }
    }

    /// Starts the task that discards outdated entries and creates missing ones.
    pub fn start(&self) {
        self.task.start(self.pools.clone());
    }

    /// Requests a fill, which replaces what was claimed.
    pub fn request_fill(&self) {
        if self.pools.size > 0 {
            self.task.request();
        }
    }

    /// Returns when the fills requested so far are finished, whether they succeeded or not.
    pub async fn filled(&self) {
        self.task.finished().await;
    }

    /// Whether the pool is enabled.
    pub fn is_enabled(&self) -> bool {
        self.pools.size > 0
    }

    /// Claims a warm schema or database: turns its row into the tenant's, not yet complete, and renames its
    /// role. Returns its former name and the tenant's password; the caller renames the rest in the same
    /// transaction. None: the pool is empty.
    pub async fn claim(
        &self,
        transaction: &mut Session,
        server: &Server,
        owner: &Owner,
        request: &PasswordRequest,
    ) -> Result<Option<(Name, IssuedPassword)>, Failure> {
        // The canary's role has no password, so it never claims.
        let Some(new) = request.password() else { return Ok(None) };
        // MATERIALIZED: a plain subquery could run once per row and choose another one each time.
        let sql = format!(
            "WITH one AS MATERIALIZED (
                 SELECT name AS warm FROM tenantry.homes WHERE isolation = $6 AND claim = $7 AND {WHOLE}
                 LIMIT 1 FOR UPDATE SKIP LOCKED)
             UPDATE tenantry.homes SET isolation = $1, tenant_id = $2, name = $3, claim = $4, resource_id = $5, completed = NULL
             FROM one WHERE isolation = $6 AND name = warm RETURNING warm"
        );
        let warm: Option<String> = transaction
            .first(
                &sql,
                &[
                    &owner.isolation.as_str(),
                    &owner.tenant,
                    &owner.name.as_str(),
                    &owner.tag,
                    &owner.resource,
                    &self.pools.list(),
                    &self.pools.tag(server),
                ],
            )
            .await
            .map_err(failure)?;
        let Some(warm) = warm else { return Ok(None) };
        let name = Name::new(&warm)?;
        let known = self.pools.passwords.lock().remove(&name);
        let nothing = TenantState::default();
        let (password, issued) = match known {
            Some(known) => (None, request.with(known.to_string())?.issue(owner, &nothing)),
            None => (Some(new), request.issue(owner, &nothing)),
        };
        let limit = self.pools.postgres.config.connection_limit;
        let hand_over = role::hand_over(&name, &owner.name, &owner.tag, password, limit);
        run(transaction, format!("{hand_over}{}", owner.enlist(issued.new_password(), false))).await?;
        Ok(Some((name, issued)))
    }
}

/// Returns what a claim gave. A failed claim falls back to creation on demand, unless the claim may have been
/// committed.
pub fn or_on_demand<T: Default>(tried: Result<T, Failure>) -> Result<T, Failure> {
    match tried {
        Err(failure) if failure.class != FailureClass::Unknown => {
            tracing::warn!(%failure, "warm claim failed; the schema or database is created on demand");
            Ok(T::default())
        }
        other => other,
    }
}

#[async_trait]
impl Fill for PoolOnServers {
    async fn fill(self: Arc<Self>, stop: &StopSignal) -> Result<(), Failure> {
        let mut filled = Ok(());
        for server in self.servers() {
            // An unreachable server does not keep the others from being filled.
            filled = self.fill_on(server, stop).await.map_err(|failure| server.named(failure)).and(filled);
        }
        // A disabled pool only discards leftovers; failures to do so can wait.
        if self.size == 0 { Ok(()) } else { filled }
    }
}

impl PoolOnServers {
    /// Servers with tenants of this isolation.
    fn servers(&self) -> Vec<&Arc<Server>> {
        match self.isolation {
            Isolation::Database => self.postgres.servers().collect(),
            Isolation::Pool | Isolation::Schema => vec![self.postgres.main()],
        }
    }

    /// The isolation under which warm entries are listed, and the name of the lock to fill them.
    fn list(&self) -> String {
        format!("spare_{}", self.isolation.as_str())
    }

    /// Owner tag of entries that are current. It names the main database, because a copy of that database has
    /// the same list.
    fn tag(&self, server: &Server) -> String {
        format!("{}{}", tag_prefix(server), recipe(server.administrator(), &self.postgres.content.migrations))
    }

    async fn fill_on(&self, server: &Server, stop: &StopSignal) -> Result<(), Failure> {
        // Not from the pool, whose connections serve tenants' calls.
        let mut connection = server.connect_with_lock(&self.list()).await?;
        let tag = self.tag(server);
        let mut ready = 0;
        for entry in self.entries(&mut connection).await? {
            if entry.whole && entry.tag == tag && ready < self.size {
                ready += 1;
            } else {
                self.discard(server, &mut connection, &entry).await?;
            }
        }
        while ready < self.size && !stop.is_set() {
            self.create_one(server, &mut connection, &tag).await?;
            ready += 1;
        }
        connection.close().await;
        Ok(())
    }

    async fn entries(&self, connection: &mut Session) -> Result<Vec<WarmEntry>, Failure> {
        let sql = format!(
            "SELECT name, claim, {WHOLE} AS whole FROM tenantry.homes WHERE isolation = $1 ORDER BY name"
        );
        let rows = connection.rows(&sql, &[&self.list()]).await;
        let entry = |row: &Row| {
            let whole: Option<bool> = row.get("whole");
            Ok(WarmEntry {
                name: Name::new(row.get("name"))?,
                tag: row.get("claim"),
                whole: whole.unwrap_or_default(),
            })
        };
        rows.map_err(failure)?.iter().map(entry).collect()
    }

    /// Creates one. Its row comes first, so that whatever a crash leaves is found.
    async fn create_one(&self, server: &Server, connection: &mut Session, tag: &str) -> Result<(), Failure> {
        let name = Name::new(&format!("tenantry_spare_{}", ResourceId::new().suffix()))?;
        connection.execute(
            "INSERT INTO tenantry.homes (isolation, tenant_id, name, claim, resource_id) VALUES ($1, $2, $2, $3, '')",
            &[&self.list(), &name.as_str(), &tag],
        )
        .await
        .map_err(failure)?;
        let password = Zeroizing::new(passwords::random());
        let role = role::create(&name, tag, None, 0, server.memberships().await?);
        let limit = self.postgres.config.connection_limit;
        run(connection, format!("{role}{}", role::prepare(&name, &password, limit))).await?;
        let shape = self.factory.make(server, connection, &name, tag).await?;
        run(connection, record_shape(&shape)).await?;
        connection.execute(
            "UPDATE tenantry.homes SET schema = $3, completed = now()::text WHERE isolation = $1 AND name = $2",
            &[&self.list(), &name.as_str(), &shape.fingerprint()],
        )
        .await
        .map_err(failure)?;
        self.passwords.lock().insert(name, password);
        Ok(())
    }

    /// Discards one unless it was claimed. From the first statement on it cannot be.
    async fn discard(
        &self,
        server: &Server,
        connection: &mut Session,
        entry: &WarmEntry,
    ) -> Result<(), Failure> {
        let taken = connection
            .execute(
                "UPDATE tenantry.homes SET completed = NULL WHERE isolation = $1 AND name = $2",
                &[&self.list(), &entry.name.as_str()],
            )
            .await
            .map_err(failure)?;
        self.passwords.lock().remove(&entry.name);
        if taken == 0 {
            return Ok(());
        }
        // In a copied main database the row refers to objects of the original.
        if entry.tag.starts_with(&tag_prefix(server)) {
            self.factory.discard(server, connection, &entry.name).await?;
            run(connection, format!("DROP ROLE IF EXISTS {}", entry.name)).await?;
        }
        connection
            .execute(
                "DELETE FROM tenantry.homes WHERE isolation = $1 AND name = $2",
                &[&self.list(), &entry.name.as_str()],
            )
            .await
            .map(drop)
            .map_err(failure)
    }
}

/// Prefix of the owner tags of this main database's entries.
fn tag_prefix(server: &Server) -> String {
    format!("tenantry: a spare of {}, ", server.database())
}
