//! The faults that are injected while customers work, drawn by weight: processes are killed and halted, connections cut,
//! slowed down and terminated, the disk is full, and tenants attack through their own database logins.

mod hostile;

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::draw::Draw;
use crate::fleet::Fleet;
use crate::installation::{Installation, OWN_SESSIONS, own};
use crate::tally::Tally;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Halt,
    Cut,
    Slow,
    Terminate,
    FullDisk,
    Hostile,
}

const WEIGHTS: [(Fault, u32); 7] = [
    (Fault::Kill, 4),
    (Fault::Halt, 3),
    (Fault::Cut, 4),
    (Fault::Slow, 3),
    (Fault::Terminate, 5),
    (Fault::FullDisk, 2),
    (Fault::Hostile, 12),
];
/// What the gates are in front of.
const GATES: [&str; 3] = ["the first replica's registry", "the second replica's registry", "tenants"];

/// Injects faults.
pub struct Injector {
    pub installation: Arc<Installation>,
    pub fleet: Arc<Fleet>,
    pub tally: Arc<Tally>,
    /// Host and port of PostgreSQL.
    pub server: String,
}

impl Injector {
    /// Injects drawn faults, one after the other, until `stopped`, and undoes each.
    pub async fn go_on(&self, mut draw: Draw, stopped: impl Fn() -> bool) {
        loop {
            let (fault, pause, mut choices) =
                (draw.weighted(&WEIGHTS), draw.millis(100..2_000), draw.branch());
            tokio::time::sleep(pause).await;
            if stopped() {
                return;
            }
            if let Some(what) = self.inject(fault, &mut choices).await {
                self.tally.fault(&what);
            }
        }
    }

    /// Injects a fault and undoes it; returns what it was, if it was possible.
    async fn inject(&self, fault: Fault, draw: &mut Draw) -> Option<String> {
        let replicas = &self.installation.replicas;
        let replica = &replicas[usize::from(draw.percent(50))];
        Some(match fault {
            Fault::Kill => {
                replica.signal(Signal::KILL);
                "kill -9 of a replica".to_owned()
            }
            Fault::Halt => {
                replica.signal(Signal::STOP);
                tokio::time::sleep(draw.millis(200..6_000)).await;
                replica.signal(Signal::CONT);
                "SIGSTOP and SIGCONT of a replica".to_owned()
            }
            Fault::Cut => {
                let gate = draw.one(&[0, 1, 2])?;
                self.installation.gates[gate].close();
                tokio::time::sleep(draw.millis(100..5_000)).await;
                self.installation.gates[gate].open();
                format!("connections cut: {}", GATES[gate])
            }
            Fault::Slow => {
                let gate = draw.one(&[0, 1, 2])?;
                self.installation.gates[gate].slow(draw.millis(5..300));
                tokio::time::sleep(draw.millis(500..6_000)).await;
                self.installation.gates[gate].slow(Duration::ZERO);
                format!("connections slow: {}", GATES[gate])
            }
            Fault::Terminate => {
                let part = draw.one(&[1, 2, 5])?;
                self.terminate(part).await.ok()?;
                "pg_terminate_backend".to_owned()
            }
            Fault::FullDisk => {
                let disk = self.installation.disk.as_ref()?;
                disk.fill();
                tokio::time::sleep(draw.millis(200..4_000)).await;
                disk.make_room();
                "full disk (tmpfs) of archives, buckets, mails".to_owned()
            }
            Fault::Hostile => return self.attack(draw).await,
        })
    }

    /// Ends every session of the installation whose process id is divisible by `part`.
    async fn terminate(&self, part: u32) -> sqlx::Result<()> {
        let urls = [&self.installation.registry, &self.installation.keyring, &self.installation.tenants];
        let names = urls.map(|url| format!("'{}'", url.rsplit('/').next().unwrap_or_default()));
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname IN ({}) AND application_name <> '{OWN_SESSIONS}' AND pid % {part} = 0",
            names.join(", ")
        );
        let mut connection = PgConnection::connect(&own(&self.installation.registry)).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        connection.close().await
    }
}
