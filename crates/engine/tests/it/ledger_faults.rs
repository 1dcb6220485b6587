//! Errors of the ledger: conflicting effects, a replaced executor, a database that does not answer.

use serde_json::json;
use tenantry_engine::{CommitError, Direction, Ledger, SignalKind};
use tenantry_testkit::crash_ledger::{Fault, Faults};

use crate::plan::{Shape, busy, never, run, signal, step};
use crate::scene::{Scene, seconds};
use crate::world::{Act, Effect};

fn claim(name: &str) -> Act {
    Act::Claim(name.to_owned())
}

fn intends(name: &str) -> serde_json::Value {
    json!({ "intends": name })
}

#[tokio::test]
async fn a_conflict_of_the_first_commit_is_returned_to_the_caller() {
    let scene = Scene::new().await;
    scene.take("slug");
    let refused = scene.executor.submit(run([step("a")]), vec![Effect::Claim("slug".into())]).await;
    assert!(matches!(refused, Err(CommitError::Conflict { table }) if table == "names"));
    scene.quiet().await;
    assert_eq!((scene.world.ledger.runs(), scene.world.log()), (vec![], vec![]));
    assert_eq!(scene.executor.load(), (0, 0));
}

#[tokio::test]
async fn a_conflicting_result_is_a_failed_attempt() {
    let scene = Scene::new().await;
    scene.take("name");
    scene.world.script("a", Direction::Run, [claim("name"), claim("name")]);
    scene.world.script("b", Direction::Run, [Act::Take(seconds(5))]);
    let id = scene.submit([step("a"), step("b"), step("c").needs(&["a"])]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done b=done c=done");
    let attempts: Vec<_> = scene.run(id).steps.iter().map(|s| s.attempts).collect();
    assert_eq!(attempts, [3, 1, 1]);
    assert_eq!(scene.run(id).step("a").unwrap().error.as_ref().unwrap().code, "conflict");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_conflict_of_a_transactional_step_is_a_failed_attempt() {
    let scene = Scene::new().await;
    scene.take("name");
    scene.world.script("r", Direction::Run, [claim("name"), claim("name"), claim("other")]);
    let id = scene.submit([step("a"), step("r").registry().needs(&["a"]), step("b").needs(&["r"])]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done r=done b=done");
    // a had succeeded when r conflicted, and does not run again.
    assert_eq!(scene.world.log().iter().filter(|line| line.starts_with("do a")).count(), 1);
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_conflicting_intent_is_a_failed_attempt_of_its_step() {
    let scene = Scene::new().await;
    scene.take("name");
    let id = scene.submit([step("a"), step("b").needs(&["a"]).input(intends("name")).retries(2)]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "rolled_back: a=undone b=undone");
    let run = scene.run(id);
    assert_eq!(run.operation.error_step.as_deref(), Some("b"));
    assert_eq!(run.operation.error.unwrap().code, "conflict");
    let begun: Vec<_> = scene.world.log().iter().map(|l| l.split(" at").next().unwrap().to_owned()).collect();
    assert_eq!(begun, ["do a", "undo b", "undo a"], "b never ran, because its intent was never committed");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_conflicting_intent_is_retried() {
    let scene = Scene::new().await;
    scene.take("name");
    let id = scene.submit([step("a"), step("b").needs(&["a"]).input(intends("name")).backoff(60_000)]).await;
    scene.settle().await;
    assert_eq!(scene.line(id), "running: a=done b=retrying");
    scene.free("name");
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done b=done");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_conflicting_intent_after_a_crash_rolls_back() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Hang]);
    let id = scene.submit([step("a").input(intends("name")), step("b")]).await;
    scene.settle().await;
    scene.take("name");
    // The next process restarts both steps, and the intent of a conflicts.
    let next = scene.restart().await;
    next.quiet().await;
    assert_eq!(next.line(id), "rolled_back: a=undone b=undone");
    next.world.check().unwrap();
}

#[tokio::test]
async fn a_conflict_does_not_revoke_other_attempts() {
    let scene = Scene::new().await;
    scene.take("name");
    scene.world.script("a", Direction::Run, [Act::Take(seconds(50))]);
    scene.world.script("b", Direction::Run, [Act::Take(seconds(5)), claim("name")]);
    // r fails the operation in the commit in which b's result conflicts. After b's failure r is not reached,
    // and a, which the failed commit would have revoked, must continue.
    scene.world.script("r", Direction::Run, [Act::Fail(never())]);
    scene.world.script("b", Direction::Run, [claim("name")]);
    let id = scene
        .submit([step("a").timeout(100), step("b").timeout(1), step("r").registry().needs(&["b"])])
        .await;
    scene.quiet().await;
    assert!(scene.run(id).operation.state.is_final(), "{}", scene.line(id));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_replaced_executor_cannot_commit() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(10))]);
    let id = scene.submit([step("a"), step("b").needs(&["a"])]).await;
    let waiting = scene.submit([step("ask").approval()]).await;
    scene.settle().await;
    scene.raise_epoch().await;
    // Only the epoch has changed; the successor has not loaded these operations yet.
    let before = scene.world.ledger.runs();
    scene.until(10).await;
    let refused = scene.executor.submit(run([step("x")]), vec![]).await;
    assert!(matches!(refused, Err(CommitError::Stale)), "{refused:?}");
    scene.executor.signal(waiting, signal(SignalKind::Cancel), vec![]).await.unwrap();
    scene.until(1000).await;
    assert_eq!(scene.world.ledger.runs(), before);
    assert!(scene.ledger.calls() < 2_000, "{} calls of a replaced executor", scene.ledger.calls());
    // The successor continues while the old executor still exists.
    let next = scene.next().await;
    next.until(2000).await;
    assert_eq!(next.line(id), "succeeded: a=done b=done");
    assert_eq!(next.line(waiting), "cancelled: ask=undone");
    assert_eq!(next.run(id).operation.epoch, 3);
    drop(scene.executor);
    assert!(next.clock.quiet(crate::plan::at(1_000_000)).await);
}

#[tokio::test]
async fn a_replaced_executor_cannot_commit_notes() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Fail(busy().after(seconds(60))), Act::NoteThenHang]);
    let id = scene.submit([step("a")]).await;
    scene.until(60).await;
    assert!(scene.run(id).step("a").unwrap().note.is_some());
    let old = scene.run(id);
    scene.raise_epoch().await;
    let noted = scene.world.ledger.note(id, old.operation.epoch, &old.steps[0]).await;
    assert!(matches!(noted, Err(CommitError::Stale)), "{noted:?}");
}

#[tokio::test]
async fn calls_of_an_unavailable_ledger_back_off() {
    let silent = (4..40).map(|call| (call, Fault::FailBefore)).collect::<Faults>();
    let scene = Scene::with(tenantry_engine::ExecutorConfig::default(), silent).await;
    let id = scene.submit([step("a"), step("b").needs(&["a"])]).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: a=done b=done");
    assert!(scene.seconds() > 60, "{} s: no backoff", scene.seconds());
    scene.world.check().unwrap();
}
