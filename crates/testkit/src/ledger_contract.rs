//! Contract suite that every implementation of [`Ledger`] must pass. It uses the ledger only through this
//! trait, and reads committed effects through [`Subject::events`].

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_engine::{
    Commit, CommitError, Ledger, Mode, OnFailure, Operation, OperationState, Policy, Run, Signal, SignalKind,
    Step, StepState, Wait,
};
use tenantry_model::id::{EventId, OperationId, SignalId};
use tenantry_model::{Failure, TenantId, Timestamp, Write, columns};

/// The ledger under test, and access to the rows that its commits write.
#[allow(async_fn_in_trait)]
pub trait Subject {
    /// The ledger.
    fn ledger(&self) -> &dyn Ledger<Write>;
    /// Ids of the `events` rows of a tenant that were committed as effects.
    async fn events(&self, tenant: &str) -> BTreeSet<String>;
}

/// Runs the suite. Panics at the first violation.
pub async fn check(subject: &impl Subject) {
    stores_every_field(subject).await;
    writes_only_changed_steps(subject).await;
    a_stale_version_is_refused(subject).await;
    a_stale_epoch_is_refused(subject).await;
    one_unfinished_operation_per_subject(subject).await;
    commits_are_atomic(subject).await;
    one_of_two_concurrent_commits_succeeds(subject).await;
    signals_are_ordered_and_applied_once(subject).await;
    unfinished_are_listed(subject).await;
    notes_need_a_running_step(subject).await;
}

async fn stores_every_field(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let full = full_run(epoch);
    ledger.commit(new(full.clone())).await.expect("a new run");
    assert_eq!(load(ledger, &full).await, full, "a run with every field set");

    let bare = bare_run(epoch);
    ledger.commit(new(bare.clone())).await.expect("a new run");
    assert_eq!(load(ledger, &bare).await, bare, "a run with every optional field empty");

    let mut changed = bare;
    changed.operation = Operation {
        id: changed.operation.id,
        subject: changed.operation.subject,
        version: 2,
        ..full.operation
    };
    changed.operation.kind = "onboard".to_owned();
    changed.operation.parent = None;
    changed.operation.input = json!(null);
    changed.operation.created_at = at(0);
    changed.operation.expected_by = None;
    let step = &full.steps[0];
    let kept = changed.steps[0].clone();
    changed.steps[0] = Step {
        key: kept.key,
        position: kept.position,
        kind: kept.kind,
        provider: kept.provider,
        needs: kept.needs,
        policy: kept.policy,
        input: kept.input,
        ..step.clone()
    };
    ledger.commit(change(changed.clone(), &["plain"])).await.expect("a change");
    assert_eq!(load(ledger, &changed).await, changed, "a change of every field that can change");
    let missing = ledger.load(OperationId::new()).await.expect("an answer");
    assert!(missing.is_none(), "an operation that does not exist");
}

async fn writes_only_changed_steps(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let mut run = bare_run(epoch);
    ledger.commit(new(run.clone())).await.expect("a new run");
    let before = run.clone();
    run.operation.version = 2;
    run.steps[0].state = StepState::Running;
    run.steps[1].state = StepState::Failed;
    ledger.commit(change(run.clone(), &["plain"])).await.expect("a change");
    let after = load(ledger, &run).await;
    assert_eq!(after.steps[0].state, StepState::Running);
    assert_eq!(after.steps[1], before.steps[1], "a step that is not in `changed_steps`");
}

async fn a_stale_version_is_refused(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let mut run = bare_run(epoch);
    run.operation.version = 2;
    stale(ledger.commit(change(run.clone(), &[])).await, "a change of an operation that does not exist");
    run.operation.version = 1;
    ledger.commit(new(run.clone())).await.expect("a new run");
    stale(ledger.commit(new(run.clone())).await, "the same operation created twice");
    for version in [3, 1, 0] {
        run.operation.version = version;
        run.operation.state = OperationState::Paused;
        stale(ledger.commit(change(run.clone(), &[])).await, "a change that does not follow");
    }
    assert_eq!(load(ledger, &run).await.operation.state, OperationState::Running);
}

async fn a_stale_epoch_is_refused(subject: &impl Subject) {
    let ledger = subject.ledger();
    let old = ledger.begin_epoch().await.expect("an epoch");
    let mut run = bare_run(old);
    ledger.commit(new(run.clone())).await.expect("a new run");
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    assert!(epoch > old, "each executor has a higher epoch");

    run.operation.version = 2;
    stale(ledger.commit(change(run.clone(), &[])).await, "a change by an executor that was replaced");
    stale(ledger.commit(new(bare_run(old))).await, "a new operation by an executor that was replaced");
    let note = ledger.note(run.operation.id, old, &running(&run)).await;
    stale(note, "a note by an executor that was replaced");

    run.operation.epoch = epoch;
    stale(
        ledger.commit(Commit { expected_epoch: epoch, ..change(run.clone(), &[]) }).await,
        "a claim that read another epoch",
    );
    ledger.commit(Commit { expected_epoch: old, ..change(run.clone(), &[]) }).await.expect("a claim");
    assert_eq!(load(ledger, &run).await.operation.epoch, epoch);
}

async fn one_unfinished_operation_per_subject(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let mut first = bare_run(epoch);
    ledger.commit(new(first.clone())).await.expect("a new run");
    let mut second = bare_run(epoch);
    second.operation.subject.clone_from(&first.operation.subject);
    conflict(ledger.commit(new(second.clone())).await, "operations");
    assert!(
        ledger.load(second.operation.id).await.expect("an answer").is_none(),
        "a refused commit wrote an operation"
    );
    let mut child = second.clone();
    child.operation.id = OperationId::new();
    child.operation.parent = Some(first.operation.id);
    ledger.commit(new(child)).await.expect("a child does not count");
    first.operation.version = 2;
    first.operation.state = OperationState::RolledBack;
    ledger.commit(change(first, &[])).await.expect("the end");
    ledger.commit(new(second)).await.expect("a second one after the end of the first");
}

async fn commits_are_atomic(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let mut run = bare_run(epoch);
    let tenant = run.operation.subject.clone();
    let signal = signal(SignalKind::Pause);
    ledger.commit(new(run.clone())).await.expect("a new run");
    ledger.signal(run.operation.id, signal.clone(), vec![]).await.expect("a signal");

    let mut child = bare_run(epoch);
    child.operation.subject.clone_from(&tenant);
    child.operation.parent = Some(run.operation.id);
    let (first, second) = (event(&tenant), event(&tenant));
    run.operation.version = 2;
    run.steps[0].state = StepState::Running;
    let whole = |run: &Run| Commit {
        applied: vec![signal.id],
        children: vec![child.clone()],
        signals: vec![(child.operation.id, self::signal(SignalKind::ChildFinished))],
        effects: vec![first.1.clone(), second.1.clone()],
        ..change(run.clone(), &["plain"])
    };
    let mut late = run.clone();
    late.operation.version = 5;
    stale(ledger.commit(whole(&late)).await, "a change that does not follow");
    let (stored, signals) = ledger.load(run.operation.id).await.expect("an answer").expect("the run");
    assert_eq!(stored.steps[0].state, StepState::Pending, "a refused commit changed a step");
    assert_eq!(signals, std::slice::from_ref(&signal), "a refused commit applied a signal");
    assert!(
        ledger.load(child.operation.id).await.expect("an answer").is_none(),
        "a refused commit created a child"
    );
    assert!(subject.events(&tenant).await.is_empty(), "a refused commit wrote its effects");

    ledger.commit(whole(&run)).await.expect("the change");
    let (stored, signals) = ledger.load(run.operation.id).await.expect("an answer").expect("the run");
    assert_eq!(stored, run);
    assert!(signals.is_empty(), "an applied signal is still pending");
    let (stored, signals) = ledger.load(child.operation.id).await.expect("an answer").expect("the child");
    assert_eq!(stored, child);
    assert_eq!(signals.len(), 1, "a signal to another operation");
    assert_eq!(subject.events(&tenant).await, BTreeSet::from([first.0, second.0]));
}

async fn one_of_two_concurrent_commits_succeeds(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    for _ in 0..20 {
        let mut run = bare_run(epoch);
        let tenant = run.operation.subject.clone();
        ledger.commit(new(run.clone())).await.expect("a new run");
        run.operation.version = 2;
        let effects = [event(&tenant), event(&tenant)];
        let [a, b] =
            effects.clone().map(|(_, effect)| Commit { effects: vec![effect], ..change(run.clone(), &[]) });
        let (a, b) = tokio::join!(ledger.commit(a), ledger.commit(b));
        let winner = if a.is_ok() { 0 } else { 1 };
        assert_ne!(a.is_ok(), b.is_ok(), "two commits of one version: {a:?}, {b:?}");
        stale(if winner == 0 { b } else { a }, "the second of two concurrent commits");
        assert_eq!(subject.events(&tenant).await, BTreeSet::from([effects[winner].0.clone()]));
    }
}

async fn signals_are_ordered_and_applied_once(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let mut run = bare_run(epoch);
    let tenant = run.operation.subject.clone();
    let id = run.operation.id;
    ledger.commit(new(run.clone())).await.expect("a new run");
    let kinds = [
        SignalKind::Pause,
        SignalKind::Skip {
            step: "plain".to_owned(), reason: "it is broken “für immer” 🦀".to_owned()
        },
        SignalKind::Resume,
        SignalKind::Approve { step: "plain".to_owned() },
        SignalKind::Reject { step: "plain".to_owned(), reason: "too large".to_owned() },
        SignalKind::Retry,
        SignalKind::Cancel,
        SignalKind::ChildFinished,
    ];
    let signals = kinds.map(signal);
    let effect = event(&tenant);
    for (n, signal) in signals.iter().enumerate() {
        let effects = if n == 0 { vec![effect.1.clone()] } else { vec![] };
        assert!(ledger.signal(id, signal.clone(), effects).await.expect("a signal"));
    }
    assert_eq!(subject.events(&tenant).await, BTreeSet::from([effect.0]), "effects of a signal");
    let (stored, waiting) = ledger.load(id).await.expect("an answer").expect("the run");
    assert_eq!(stored, run, "a signal changes nothing else");
    assert_eq!(waiting, signals);
    run.operation.version = 2;
    let applied = signals[..3].iter().map(|signal| signal.id).collect();
    ledger.commit(Commit { applied, ..change(run, &[]) }).await.expect("a change");
    let (_, waiting) = ledger.load(id).await.expect("an answer").expect("the run");
    assert_eq!(waiting, signals[3..]);
    let unknown = ledger.signal(OperationId::new(), signal(SignalKind::Pause), vec![]).await;
    assert!(!unknown.expect("an answer"), "a signal to an operation that does not exist");
}

async fn unfinished_are_listed(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let states = [
        OperationState::Running,
        OperationState::Paused,
        OperationState::RollingBack,
        OperationState::NeedsAttention,
        OperationState::Succeeded,
        OperationState::RolledBack,
        OperationState::Cancelled,
    ];
    let mut ids = Vec::new();
    for (n, state) in states.into_iter().enumerate() {
        let mut run = bare_run(epoch);
        run.operation.state = state;
        run.operation.idle = n % 2 == 0;
        run.operation.wake_at = (n % 2 == 0).then(|| at(n as i64));
        ids.push(run.operation.id);
        ledger.commit(new(run)).await.expect("a new run");
    }
    for id in [ids[1], ids[5]] {
        ledger.signal(id, signal(SignalKind::Cancel), vec![]).await.expect("a signal");
    }
    let listed = ledger.unfinished().await.expect("a list");
    assert!(listed.is_sorted_by_key(|waiting| waiting.id), "by id");
    let listed: Vec<_> = listed.into_iter().filter(|waiting| ids.contains(&waiting.id)).collect();
    let expected = [0, 1, 2, 3, 5];
    assert_eq!(
        listed.iter().map(|w| w.id).collect::<Vec<_>>(),
        expected.map(|n: usize| ids[n]),
        "unfinished or signalled"
    );
    for (waiting, n) in listed.iter().zip(expected) {
        assert_eq!(waiting.idle, n % 2 == 0);
        assert_eq!(waiting.wake_at, (n % 2 == 0).then(|| at(n as i64)));
        assert_eq!(waiting.signalled, n == 1 || n == 5);
    }
}

async fn notes_need_a_running_step(subject: &impl Subject) {
    let ledger = subject.ledger();
    let epoch = ledger.begin_epoch().await.expect("an epoch");
    let mut run = bare_run(epoch);
    let id = run.operation.id;
    ledger.commit(new(run.clone())).await.expect("a new run");
    let mut noted = running(&run);
    noted.note = Some(json!({ "pgid": 4711, "started": "ünïx" }));
    stale(ledger.note(id, epoch, &noted).await, "a note on a step that does not run");
    for state in [StepState::Running, StepState::Undoing] {
        run.operation.version += 1;
        run.steps[0].state = state;
        ledger.commit(change(run.clone(), &["plain"])).await.expect("a change");
        noted.state = state;
        ledger.note(id, epoch, &noted).await.expect("a note");
        let stored = load(ledger, &run).await;
        assert_eq!(stored.steps[0].note, noted.note);
        assert_eq!(stored.operation, run.operation, "a note changes nothing else");
    }
    stale(ledger.note(OperationId::new(), epoch, &noted).await, "a note on nothing");
}

/// The commit that creates an operation with all of its steps.
fn new(run: Run) -> Commit<Write> {
    let changed_steps = run.steps.iter().map(|step| step.key.clone()).collect();
    Commit {
        expected_epoch: run.operation.epoch,
        changed_steps,
        run: run.into(),
        applied: vec![],
        children: vec![],
        signals: vec![],
        effects: vec![],
    }
}

/// The commit that changes an operation and these of its steps.
fn change(run: Run, changed: &[&str]) -> Commit<Write> {
    let changed_steps = changed.iter().map(|key| (*key).to_owned()).collect();
    Commit { changed_steps, ..new(run) }
}

fn signal(kind: SignalKind) -> Signal {
    Signal { id: SignalId::new(), kind, by: "key_caller".to_owned(), at: at(7) }
}

/// An effect, and the id of its event.
fn event(tenant: &str) -> (String, Write) {
    let id = EventId::new().to_string();
    let row = columns! { "id": id, "seq": (), "tenant_id": tenant, "type": "test", "data": json!({}), "sealed": (),
    "operation_id": (), "at": at(0) };
    (id, Write::insert("events", row))
}

/// The first step of a run, as if it were running.
fn running(run: &Run) -> Step {
    Step { state: StepState::Running, ..run.steps[0].clone() }
}

async fn load(ledger: &dyn Ledger<Write>, run: &Run) -> Run {
    ledger.load(run.operation.id).await.expect("an answer").expect("the run").0
}

/// Panics unless the commit was rejected as stale.
fn stale(result: Result<(), CommitError>, what: &str) {
    assert!(matches!(result, Err(CommitError::Stale)), "{what}: {result:?} instead of Stale");
}

/// Panics unless the commit was rejected because a row of this table conflicts.
fn conflict(result: Result<(), CommitError>, where_: &str) {
    match result {
        Err(CommitError::Conflict { table }) => assert_eq!(table, where_),
        other => panic!("{other:?} instead of a conflict in {where_}"),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_795_000_000_000_001 + seconds * 1_000_000)
}

/// A running operation with two pending steps; all optional fields are empty.
fn bare_run(epoch: i64) -> Run {
    let step = |key: &str, position| Step {
        key: key.to_owned(),
        position,
        kind: "database".to_owned(),
        provider: "sqlite".to_owned(),
        needs: vec![],
        policy: Policy::default(),
        input: Value::Null,
        state: StepState::Pending,
        attempts: 0,
        interruptions: 0,
        failing_since: None,
        due_at: None,
        started_at: None,
        finished_at: None,
        output: Value::Null,
        error: None,
        uncertain: false,
        note: None,
        child: None,
    };
    let operation = Operation {
        id: OperationId::new(),
        subject: TenantId::new().to_string(),
        kind: "onboard".to_owned(),
        parent: None,
        state: OperationState::Running,
        version: 1,
        epoch,
        input: Value::Null,
        error: None,
        error_step: None,
        cancelled: false,
        created_at: at(0),
        updated_at: at(0),
        finished_at: None,
        expected_by: None,
        stuck: false,
        wake_at: None,
        idle: false,
    };
    // Plan order differs from the order of names.
    Run { operation, steps: vec![step("plain", 0), step("another", 1)] }
}

/// The same with a value in every field of the operation and of its first step.
fn full_run(epoch: i64) -> Run {
    let odd = json!({
        "text": "Zoë “quotes” \\ / \t\n 🦀 \u{7f} ' ; -- '' $1 ?1",
        "nested": { "a": [1, -2, 2.5, 1e-7, i64::MAX, i64::MIN, null, true, [], {}], "": { "$.x": "" } },
        "null": null,
        "no": false,
    });
    let failure =
        Failure::unknown("timeout", "no answer: „später“").after(Duration::from_millis(1_500)).wrong_answer();
    let mut run = bare_run(epoch);
    let operation = &mut run.operation;
    operation.kind = "change plan".to_owned();
    operation.parent = Some(OperationId::new());
    operation.state = OperationState::NeedsAttention;
    operation.input = odd.clone();
    operation.error = Some(failure.clone());
    operation.error_step = Some("plain".to_owned());
    operation.cancelled = true;
    operation.updated_at = at(1);
    operation.finished_at = Some(at(2));
    operation.expected_by = Some(at(3));
    operation.stuck = true;
    operation.wake_at = Some(Timestamp::from_micros(0));
    operation.idle = true;
    let step = &mut run.steps[0];
    step.needs = vec!["another".to_owned(), "tür".to_owned()];
    step.policy = Policy {
        timeout_ms: 1,
        max_retries: 7,
        retry_for_ms: Some(8),
        backoff_ms: 2,
        backoff_cap_ms: 3,
        on_failure: OnFailure::Park,
        mode: Mode::Detached,
        wait: Some(Wait::Timer(9)),
        in_flight_ms: 4,
    };
    step.input = json!("a bare text");
    step.state = StepState::UndoFailed;
    step.attempts = 3;
    step.interruptions = 2;
    step.failing_since = Some(at(7));
    step.due_at = Some(at(4));
    step.started_at = Some(at(5));
    step.finished_at = Some(at(6));
    step.output = odd.clone();
    step.error = Some(failure);
    step.uncertain = true;
    step.note = Some(odd);
    step.child = Some(OperationId::new());
    run.steps[1].output = json!([]);
    run
}
