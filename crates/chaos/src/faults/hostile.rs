//! Tenants that attack the others through their own database logins, which accept any SQL.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::Injector;
use crate::draw::Draw;
use crate::fleet::Tenant;

/// Most sessions of one flood; a login may have fewer.
const FLOOD: usize = 24;

/// An attack: its name, and the statements of its session.
const ATTACKS: [(&str, &[&str]); 9] = [
    ("a lock on its tables", &["BEGIN", "LOCK TABLE projects IN ACCESS EXCLUSIVE MODE"]),
    ("a lock on every row", &["BEGIN", "SELECT * FROM projects FOR UPDATE"]),
    ("an idle transaction", &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT * FROM projects"]),
    ("advisory locks", &["SELECT pg_advisory_lock(n) FROM generate_series(-500, 500) n"]),
    (
        "a flood of notifications",
        &["SELECT pg_notify('tenantry', repeat('x', 7000)) FROM generate_series(1, 2000)"],
    ),
    ("a long query", &["SELECT count(*) FROM generate_series(1, 100000000)"]),
    ("temporary tables", &["CREATE TEMPORARY TABLE big AS SELECT * FROM generate_series(1, 100000)"]),
    ("a COPY without data", &["BEGIN", "COPY projects FROM STDIN"]),
    (
        "a transaction of many inserts",
        &[
            "BEGIN",
            "INSERT INTO projects (tenant_id, id, name) SELECT current_setting('tenantry.tenant', true), 'x' || n, 'x' FROM generate_series(1, 5000) n",
        ],
    ),
];

impl Injector {
    /// A drawn tenant attacks for a while; none if no tenant has a login.
    pub(super) async fn attack(&self, draw: &mut Draw) -> Option<String> {
        let tenant = self.fleet.one(draw, |tenant| tenant.login.is_some())?;
        let (attack, time) = (draw.one(&ATTACKS)?, draw.millis(200..5_000));
        if draw.percent(15) {
            self.flood(&tenant, time).await;
            return Some("hostile tenant: a flood of connections".to_owned());
        }
        let (name, statements) = attack;
        self.hold(&tenant, statements, time).await;
        Some(format!("hostile tenant: {name}"))
    }

    /// Runs statements in one session, and keeps it open without a further word.
    async fn hold(&self, tenant: &Tenant, statements: &[&'static str], time: Duration) {
        let attack = async {
            let mut session = PgConnection::connect(&self.login(tenant)).await?;
            for &statement in statements {
                if statement.starts_with("COPY") {
                    let _copy = session.copy_in_raw(statement).await?;
                    std::future::pending::<()>().await;
                }
                session.execute(AssertSqlSafe(statement)).await?;
            }
            std::future::pending::<sqlx::Result<()>>().await
        };
        // What the server refuses is no attack, and the time is waited for all the same.
        let ended = tokio::time::timeout(time, async {
            let _ = attack.await;
            std::future::pending::<()>().await
        });
        let _ = ended.await;
    }

    /// Opens as many sessions as it gets.
    async fn flood(&self, tenant: &Tenant, time: Duration) {
        let mut sessions = Vec::new();
        for _ in 0..FLOOD {
            if let Ok(session) = PgConnection::connect(&self.login(tenant)).await {
                sessions.push(session);
            }
        }
        tokio::time::sleep(time).await;
    }

    fn login(&self, tenant: &Tenant) -> String {
        let login = tenant.login.as_deref().unwrap_or_default();
        format!("postgres://{}", login.replace("SERVER", &self.server))
    }
}
