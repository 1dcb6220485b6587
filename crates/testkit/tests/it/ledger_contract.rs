//! The ledger's contract suite accepts the ledger in memory and rejects ledgers with one fault each.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tenantry_engine::memory::MemoryLedger;
use tenantry_engine::{Commit, CommitError, Ledger, Run, Signal, Step, Waiting};
use tenantry_model::id::OperationId;
use tenantry_model::{Write, write::Change};
use tenantry_testkit::ledger_contract::{Subject, check};

/// Fault of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    ForgetsEffects,
    ForgetsChildren,
    ForgetsSignals,
    KeepsAppliedSignals,
    ReversesSignals,
    AcceptsEverySignal,
    WritesEveryStep,
    WritesNoStep,
    TruncatesTimes,
    IgnoresTheVersion,
    IgnoresTheEpoch,
    KeepsTheEpoch,
    RefusesWithAnotherError,
    LeavesEffectsOfRefused,
    ListsEverything,
    ListsWithoutSignals,
    NotesAnything,
    ForgetsNotes,
}

struct Faulty(MemoryLedger<Write>, Fault);

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.1 == fault
    }
    async fn stored(&self, id: OperationId) -> Option<Run> {
        self.0.load(id).await.ok().flatten().map(|(run, _)| run)
    }
}

#[async_trait]
impl Ledger<Write> for Faulty {
    async fn begin_epoch(&self) -> Result<i64, CommitError> {
        let epoch = self.0.begin_epoch().await?;
        Ok(if self.is(Fault::KeepsTheEpoch) { 1 } else { epoch })
    }
    async fn epoch(&self) -> Result<i64, CommitError> {
        self.0.epoch().await
    }
    async fn load(&self, id: OperationId) -> Result<Option<(Run, Vec<Signal>)>, CommitError> {
        let mut found = self.0.load(id).await?;
        if let Some((run, signals)) = &mut found {
            if self.is(Fault::ReversesSignals) {
                signals.reverse();
            }
            if self.is(Fault::TruncatesTimes) {
                let micros = run.operation.created_at.micros();
                run.operation.created_at = tenantry_model::Timestamp::from_micros(micros / 1_000 * 1_000);
            }
        }
        Ok(found)
    }
    async fn commit(&self, mut commit: Commit<Write>) -> Result<(), CommitError> {
        let mut run = Run::clone(&commit.run);
        let stored = self.stored(run.operation.id).await;
        match (self.1, &stored) {
            (Fault::ForgetsEffects, _) => commit.effects.clear(),
            (Fault::ForgetsChildren, _) => commit.children.clear(),
            (Fault::ForgetsSignals, _) => commit.signals.clear(),
            (Fault::KeepsAppliedSignals, _) => commit.applied.clear(),
            (Fault::WritesEveryStep, _) => {
                commit.changed_steps = run.steps.iter().map(|s| s.key.clone()).collect()
            }
            (Fault::WritesNoStep, Some(_)) => commit.changed_steps.clear(),
            (Fault::IgnoresTheVersion, Some(stored)) => run.operation.version = stored.operation.version + 1,
            (Fault::IgnoresTheEpoch, Some(stored)) => {
                commit.expected_epoch = stored.operation.epoch;
                run.operation.epoch = i64::MAX;
            }
            _ => {}
        }
        commit.run = run.into();
        let effects = commit.effects.clone();
        let result = self.0.commit(commit).await;
        if result.is_err()
            && self.is(Fault::LeavesEffectsOfRefused)
            && let Some(mut run) = stored
        {
            let expected_epoch = run.operation.epoch;
            run.operation.version += 1;
            let again = Commit {
                run: run.into(),
                expected_epoch,
                changed_steps: vec![],
                applied: vec![],
                children: vec![],
                signals: vec![],
                effects,
            };
            self.0.commit(again).await?;
        }
        result.map_err(|error| {
            if self.is(Fault::RefusesWithAnotherError) {
                CommitError::Unavailable(error.to_string())
            } else {
                error
            }
        })
    }
    async fn unfinished(&self) -> Result<Vec<Waiting>, CommitError> {
        let mut list = self.0.unfinished().await?;
        if self.is(Fault::ListsEverything) {
            let all = self.0.runs().into_iter().map(|run| Waiting {
                id: run.operation.id,
                idle: run.operation.idle,
                wake_at: run.operation.wake_at,
                signalled: false,
            });
            list = all.collect();
        }
        if self.is(Fault::ListsWithoutSignals) {
            list.iter_mut().for_each(|waiting| waiting.signalled = false);
        }
        Ok(list)
    }
    async fn signal(
        &self,
        id: OperationId,
        signal: Signal,
        effects: Vec<Write>,
    ) -> Result<bool, CommitError> {
        Ok(self.0.signal(id, signal, effects).await? || self.is(Fault::AcceptsEverySignal))
    }
    async fn note(&self, id: OperationId, epoch: i64, step: &Step) -> Result<(), CommitError> {
        match self.1 {
            Fault::ForgetsNotes => self.0.note(id, epoch, &Step { note: None, ..step.clone() }).await,
            Fault::NotesAnything => self.0.note(id, epoch, step).await.or(Ok(())),
            _ => self.0.note(id, epoch, step).await,
        }
    }
}

impl Subject for Faulty {
    fn ledger(&self) -> &dyn Ledger<Write> {
        self
    }
    async fn events(&self, tenant: &str) -> BTreeSet<String> {
        let rows = self.0.effects().into_iter().filter_map(|write| match write.change {
            Change::Insert { row, .. } if row.get("tenant_id")?.text() == Some(tenant) => {
                Some(row.get("id")?.text()?.to_owned())
            }
            _ => None,
        });
        rows.collect()
    }
}

#[tokio::test]
async fn accepts_the_ledger_in_memory() {
    check(&Faulty(MemoryLedger::default(), Fault::None)).await;
}

#[tokio::test]
async fn rejects_each_faulty_ledger() {
    for fault in [
        Fault::ForgetsEffects,
        Fault::ForgetsChildren,
        Fault::ForgetsSignals,
        Fault::KeepsAppliedSignals,
        Fault::ReversesSignals,
        Fault::AcceptsEverySignal,
        Fault::WritesEveryStep,
        Fault::WritesNoStep,
        Fault::TruncatesTimes,
        Fault::IgnoresTheVersion,
        Fault::IgnoresTheEpoch,
        Fault::KeepsTheEpoch,
        Fault::RefusesWithAnotherError,
        Fault::LeavesEffectsOfRefused,
        Fault::ListsEverything,
        Fault::ListsWithoutSignals,
        Fault::NotesAnything,
        Fault::ForgetsNotes,
    ] {
        let suite = tokio::spawn(async move { check(&Faulty(MemoryLedger::default(), fault)).await });
        assert!(suite.await.is_err(), "accepts a ledger that {fault:?}");
    }
}
