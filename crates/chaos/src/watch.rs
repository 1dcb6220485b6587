//! Looks at the registry while the run goes on, and compares each look with the one before: the plan of an operation never
//! changes, a step that is done never runs again, and the epoch never falls.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::installation::own;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// All steps, of operations of tenants that are not being deleted: a deletion removes words from their plans. A step's plan
/// is its hash, without what an attempt adds before it begins.
const STEPS: &str = "SELECT s.operation_id || ' ' || s.key, s.state, s.attempts,
        md5(concat_ws('|', s.kind, s.provider, s.position, s.needs, s.policy)) AS plan,
        coalesce(s.finished_at::text, '')
    FROM steps s JOIN operations o ON o.id = s.operation_id JOIN tenants t ON t.id = o.tenant_id
    WHERE t.status NOT IN ('deprovisioning', 'deprovisioned')";

/// What is known of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    state: String,
    attempts: i32,
    plan: String,
    finished_at: String,
}

/// The registry so far.
#[derive(Default)]
pub struct Watch {
    steps: Mutex<BTreeMap<String, Step>>,
    epoch: Mutex<i64>,
    breaches: Mutex<Vec<(&'static str, String)>>,
    looks: Mutex<u32>,
}

impl Watch {
    /// Looks at the registry again and again, until `stopped`.
    pub async fn go_on(&self, registry: &str, stopped: impl Fn() -> bool) {
        while !stopped() {
            // A look that fails is left out; the next one compares with the last that did not.
            let _ = self.look(registry).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Invariants that were broken, with what was seen.
    pub fn breaches(&self) -> Vec<(&'static str, String)> {
        self.breaches.lock().clone()
    }

    /// Number of looks.
    pub fn looks(&self) -> u32 {
        *self.looks.lock()
    }

    /// One look.
    pub async fn look(&self, registry: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&own(registry)).await?;
        let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM leader").fetch_one(&mut connection).await?;
        let rows = sqlx::query(STEPS).fetch_all(&mut connection).await?;
        connection.close().await?;
        let before = std::mem::replace(&mut *self.epoch.lock(), epoch);
        if epoch < before {
            self.breach(EPOCH, format!("{before} became {epoch}"));
        }
        let mut steps = self.steps.lock();
        for row in rows {
            let (step, now) = (
                row.try_get::<String, _>(0)?,
                Step {
                    state: row.try_get(1)?,
                    attempts: row.try_get(2)?,
                    plan: row.try_get(3)?,
                    finished_at: row.try_get(4)?,
                },
            );
            if let Some(before) = steps.get(&step) {
                if before.plan != now.plan {
                    self.breach(PLAN, step.clone());
                }
                let undone = now.state.starts_with("undo") || now.state.starts_with("undoing");
                if before.state == "done" && *before != now && !undone {
                    self.breach(DONE, format!("{step}: {before:?} became {now:?}"));
                }
            }
            steps.insert(step, now);
        }
        *self.looks.lock() += 1;
        Ok(())
    }

    fn breach(&self, invariant: &'static str, what: String) {
        self.breaches.lock().push((invariant, what));
    }
}

/// Names of the invariants that are checked here.
pub const PLAN: &str = "the_plan_never_changes";
pub const DONE: &str = "a_done_step_never_runs_again";
pub const EPOCH: &str = "the_epoch_never_falls";
