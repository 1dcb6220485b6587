//! Schemas and databases that are ready before a tenant wants one: a role that may not log in, all tables, nobody's rows.
//! Each is a line in the list of homes, under a word of its own, so that nobody takes it for a tenant's. A claim makes the
//! line a tenant's in the transaction that renames what it leads to: a spare becomes one tenant's or stays a spare.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tenantry_model::id::ResourceId;
use tenantry_model::{Failure, FailureClass, Isolation};
use zeroize::Zeroizing;

use super::Postgres;
use super::credential::{Handed, Handout};
use super::directory::{Owner, State, record};
use super::failure::failure;
use super::migrate::recipe;
use super::name::Name;
use super::role;
use super::server::{Server, close, run};
use crate::refill::{Refill, Stock, Stop};
use crate::shape::Shape;
use tenantry_provider::passwords;

/// Whether a line leads to a spare that is complete and still what was made: role and thing carry its mark.
const WHOLE: &str = "completed IS NOT NULL
    AND claim = (SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = homes.name::name)
    AND claim = CASE isolation
        WHEN 'spare_schema' THEN (SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = homes.name::name)
        ELSE (SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = homes.name::name) END";

/// How a schema or a database is made for nobody.
#[async_trait]
pub trait Maker: Send + Sync + 'static {
    /// Makes it, with all tables and the rights of the role that has its name, and gives its shape.
    async fn make(
        &self,
        server: &Server,
        connection: &mut PgConnection,
        name: &Name,
        mark: &str,
    ) -> Result<Shape, Failure>;

    /// Drops it; absent is success.
    async fn discard(&self, connection: &mut PgConnection, name: &Name) -> Result<(), Failure>;
}

/// The spares of a provider, and the way to the task that makes them.
pub struct Spares {
    shelf: Arc<Shelf>,
    refill: Refill,
}

/// The spares on every server that the provider's tenants are on.
struct Shelf {
    postgres: Arc<Postgres>,
    isolation: Isolation,
    size: usize,
    maker: Box<dyn Maker>,
    /// Passwords of the spares that this process has made. To check a new one takes the server longer than all the rest of
    /// a claim; whoever does not know it, another process or this one after a restart, gives the role another.
    passwords: Mutex<HashMap<Name, Zeroizing<String>>>,
}

/// A line of the list.
struct Line {
    name: Name,
    mark: String,
    whole: bool,
}

impl Spares {
    /// So many on each server. Connects to nothing.
    pub fn new(postgres: Arc<Postgres>, isolation: Isolation, size: u16, maker: impl Maker) -> Self {
        let (size, passwords) = (size.into(), Mutex::default());
        let shelf = Shelf { postgres, isolation, size, maker: Box::new(maker), passwords };
        Self { shelf: Arc::new(shelf), refill: Refill::default() }
    }

    /// Makes what is missing and throws away what is too old, now and whenever it is asked for.
    pub fn start(&self) {
        self.refill.start(self.shelf.clone());
    }

    /// Has what was claimed replaced.
    pub fn ask(&self) {
        if self.shelf.size > 0 {
            self.refill.ask();
        }
    }

    /// Returns when everything is made that was asked for by now, or could not be.
    pub async fn refilled(&self) {
        self.refill.refilled().await;
    }

    /// Whether there is to be one at all.
    pub fn are_kept(&self) -> bool {
        self.shelf.size > 0
    }

    /// Makes a spare's line the tenant's, unfinished, with the shape that is recorded of it, and its role too. Answers the name
    /// that it had, and its password; the caller renames the rest in the same transaction. None: there is no spare.
    pub async fn claim(
        &self,
        transaction: &mut PgConnection,
        server: &Server,
        owner: &Owner,
        handout: &Handout,
    ) -> Result<Option<(Name, Handed)>, Failure> {
        // Nobody's is not claimed.
        let Some(new) = handout.password() else { return Ok(None) };
        // As a subquery it could be asked again for every line, and each time give another one.
        let sql = format!(
            "WITH one AS MATERIALIZED (
                 SELECT name AS spare FROM tenantry.homes WHERE isolation = $6 AND claim = $7 AND {WHOLE}
                 LIMIT 1 FOR UPDATE SKIP LOCKED)
             UPDATE tenantry.homes SET isolation = $1, tenant_id = $2, name = $3, claim = $4, resource_id = $5, completed = NULL
             FROM one WHERE isolation = $6 AND name = spare RETURNING spare"
        );
        let spare: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(owner.isolation.as_str())
            .bind(&owner.tenant)
            .bind(owner.name.as_str())
            .bind(&owner.claim)
            .bind(&owner.resource)
            .bind(self.shelf.list())
            .bind(self.shelf.mark(server))
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failure)?;
        let Some(spare) = spare else { return Ok(None) };
        let name = Name::new(&spare)?;
        let known = self.shelf.passwords.lock().remove(&name);
        let nothing = State::default();
        let (password, handed) = match known {
            Some(known) => (None, handout.with(known.to_string())?.handed(owner, &nothing)),
            None => (Some(new), handout.handed(owner, &nothing)),
        };
        let limit = self.shelf.postgres.config.connection_limit;
        let hand_over = role::hand_over(&name, &owner.name, &owner.claim, password, limit);
        run(transaction, format!("{hand_over}{}", owner.enlist(handed.made(), false))).await?;
        Ok(Some((name, handed)))
    }
}

/// What a claim gave. What it cannot give is made from nothing, unless the server may have given it.
pub fn claimed<T: Default>(tried: Result<T, Failure>) -> Result<T, Failure> {
    match tried {
        Err(failure) if failure.class != FailureClass::Unknown => {
            tracing::warn!(%failure, "a spare could not be claimed; the tenant's place is made from nothing");
            Ok(T::default())
        }
        other => other,
    }
}

#[async_trait]
impl Stock for Shelf {
    async fn fill(self: Arc<Self>, stop: &Stop) -> Result<(), Failure> {
        let mut filled = Ok(());
        for server in self.servers() {
            // One that cannot be reached does not keep the others from theirs.
            filled = self.fill_on(server, stop).await.map_err(|failure| server.named(failure)).and(filled);
        }
        // Without spares nobody waits for them; what is left of earlier ones goes another time.
        if self.size == 0 { Ok(()) } else { filled }
    }
}

impl Shelf {
    /// Where tenants are: databases are on the servers of their regions.
    fn servers(&self) -> Vec<&Arc<Server>> {
        match self.isolation {
            Isolation::Database => self.postgres.servers().collect(),
            Isolation::Pool | Isolation::Schema => vec![self.postgres.main()],
        }
    }

    /// Which list: not that of the tenants.
    fn list(&self) -> String {
        format!("spare_{}", self.isolation.as_str())
    }

    /// The mark of spares as they are made now. It names the main database, because a copy of that has the same list.
    fn mark(&self, server: &Server) -> String {
        format!("{}{}", ours(server), recipe(server.administrator(), &self.postgres.content.migrations))
    }

    async fn fill_on(&self, server: &Server, stop: &Stop) -> Result<(), Failure> {
        // Not from the connections that tenants' calls wait for.
        let mut connection = server.alone(&self.list()).await?;
        let mark = self.mark(server);
        let mut ready = 0;
        for line in self.lines(&mut connection).await? {
            if line.whole && line.mark == mark && ready < self.size {
                ready += 1;
            } else {
                self.discard(server, &mut connection, &line).await?;
            }
        }
        while ready < self.size && !stop.is_told() {
            self.add(server, &mut connection, &mark).await?;
            ready += 1;
        }
        close(connection).await
    }

    async fn lines(&self, connection: &mut PgConnection) -> Result<Vec<Line>, Failure> {
        let sql = format!(
            "SELECT name, claim, {WHOLE} AS whole FROM tenantry.homes WHERE isolation = $1 ORDER BY name"
        );
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(self.list()).fetch_all(connection).await;
        let line = |row: &sqlx::postgres::PgRow| {
            let whole: Option<bool> = row.get("whole");
            Ok(Line {
                name: Name::new(row.get("name"))?,
                mark: row.get("claim"),
                whole: whole.unwrap_or_default(),
            })
        };
        rows.map_err(failure)?.iter().map(line).collect()
    }

    /// Makes one. Its line is there before it, so that whatever a crash leaves is found.
    async fn add(&self, server: &Server, connection: &mut PgConnection, mark: &str) -> Result<(), Failure> {
        let name = Name::new(&format!("tenantry_spare_{}", ResourceId::new().suffix()))?;
        sqlx::query(
            "INSERT INTO tenantry.homes (isolation, tenant_id, name, claim, resource_id) VALUES ($1, $2, $2, $3, '')",
        )
        .bind(self.list())
        .bind(name.as_str())
        .bind(mark)
        .execute(&mut *connection)
        .await
        .map_err(failure)?;
        let password = Zeroizing::new(passwords::random());
        let role = role::create(&name, mark, None, 0, server.is_superuser().await?);
        let limit = self.postgres.config.connection_limit;
        run(connection, format!("{role}{}", role::prepare(&name, &password, limit))).await?;
        let shape = self.maker.make(server, connection, &name, mark).await?;
        run(connection, record(&shape)).await?;
        sqlx::query("UPDATE tenantry.homes SET schema = $3, completed = now()::text WHERE isolation = $1 AND name = $2")
            .bind(self.list())
            .bind(name.as_str())
            .bind(shape.fingerprint())
            .execute(connection)
            .await
            .map_err(failure)?;
        self.passwords.lock().insert(name, password);
        Ok(())
    }

    /// Takes one away, unless it is claimed meanwhile. From the first statement on nobody can.
    async fn discard(
        &self,
        server: &Server,
        connection: &mut PgConnection,
        line: &Line,
    ) -> Result<(), Failure> {
        let taken =
            sqlx::query("UPDATE tenantry.homes SET completed = NULL WHERE isolation = $1 AND name = $2")
                .bind(self.list())
                .bind(line.name.as_str())
                .execute(&mut *connection)
                .await
                .map_err(failure)?;
        self.passwords.lock().remove(&line.name);
        if taken.rows_affected() == 0 {
            return Ok(());
        }
        // What a copied list leads to belongs to the original.
        if line.mark.starts_with(&ours(server)) {
            self.maker.discard(connection, &line.name).await?;
            run(connection, format!("DROP ROLE IF EXISTS {}", line.name)).await?;
        }
        sqlx::query("DELETE FROM tenantry.homes WHERE isolation = $1 AND name = $2")
            .bind(self.list())
            .bind(line.name.as_str())
            .execute(connection)
            .await
            .map(drop)
            .map_err(failure)
    }
}

/// How the marks of this main database's spares begin.
fn ours(server: &Server) -> String {
    format!("tenantry: a spare of {}, ", server.database())
}
