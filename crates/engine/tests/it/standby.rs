//! Two executors on one ledger: one runs, the other takes what it is given, and takes over.

use tenantry_engine::{CommitError, SignalKind, Verb};

use crate::plan::{self, Shape, approve, step};
use crate::scene::{Scene, seconds};
use crate::world::Act;

/// What a new operation looks like that was given to the one that stands by.
const TAKEN: &str = "running: r=done a=pending b=pending";

fn plan() -> [tenantry_engine::Step; 3] {
    [step("r").registry(), step("a").needs(&["r"]), step("b").needs(&["a"])]
}

async fn run(scene: &Scene) {
    scene.executor.take_over().await.unwrap();
    scene.executor.look().await.unwrap();
}

#[tokio::test]
async fn what_stands_by_commits_and_begins_nothing() {
    let scene = Scene::new().await;
    let other = scene.standing_by();
    let id = other.submit(plan()).await;
    scene.quiet().await;
    assert_eq!((other.line(id).as_str(), scene.world.log().len()), (TAKEN, 1));
    assert_eq!(other.executor.load(), (0, 0));
    scene.executor.heard(id);
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: r=done a=done b=done");
    let run = scene.run(id);
    assert!(run.steps.iter().all(|step| step.attempts == 1 && step.interruptions == 0));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn who_follows_there_is_told_what_happens_here() {
    let scene = Scene::new().await;
    let other = scene.standing_by();
    let id = other.submit(plan()).await;
    let mut changes = other.executor.follow(id);
    scene.executor.heard(id);
    scene.quiet().await;
    other.executor.heard_of_all();
    assert_eq!(changes.next().await.unwrap().operation.state.as_str(), "succeeded");
}

#[tokio::test]
async fn signals_given_there_are_decided_here() {
    let scene = Scene::new().await;
    let id = scene.submit([step("a").approval()]).await;
    let other = scene.standing_by();
    other.tell(id, approve("a")).await;
    scene.quiet().await;
    assert_eq!((scene.waiting_signals(id).await, scene.world.log().len()), (1, 0));
    scene.executor.heard(id);
    scene.quiet().await;
    assert_eq!((scene.waiting_signals(id).await, scene.line(id).as_str()), (0, "succeeded: a=done"));
}

#[tokio::test]
async fn a_child_made_there_runs_here() {
    let scene = Scene::new().await;
    let other = scene.standing_by();
    let id = other.submit([step("c").detached(&["x", "y"])]).await;
    let child = other.child(id, "c");
    scene.executor.look().await.unwrap();
    scene.quiet().await;
    assert_eq!(
        (scene.line(id), scene.line(child)),
        ("succeeded: c=done".into(), "succeeded: x=done y=done".into())
    );
    scene.world.check().unwrap();
}

#[tokio::test]
async fn the_other_takes_over_what_was_cut_off() {
    let scene = Scene::new().await;
    scene.world.script("a", Verb::Do, [Act::Take(seconds(1_000)), Act::Take(seconds(1))]);
    let id = scene.submit(plan()).await;
    let late = scene.submit([step("w").timer(50)]).await;
    scene.settle().await;
    let other = scene.standing_by();
    scene.executor.stand_by().await;
    assert_eq!((scene.executor.load(), scene.executor.is_running()), ((0, 0), false));
    run(&other).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: r=done a=done b=done");
    assert_eq!(scene.run(id).step("a").unwrap().interruptions, 1);
    assert_eq!(scene.line(late), "succeeded: w=done");
    // And back, while the other goes.
    other.executor.stand_by().await;
    run(&scene).await;
    let again = scene.submit([step("z")]).await;
    scene.quiet().await;
    assert_eq!(scene.line(again), "succeeded: z=done");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn who_is_told_too_late_writes_nothing() {
    let scene = Scene::new().await;
    scene.world.script("a", Verb::Do, [Act::Take(seconds(10))]);
    let id = scene.submit(plan()).await;
    scene.settle().await;
    let other = scene.standing_by();
    // It knows of no successor: what it runs ends, and cannot be recorded.
    run(&other).await;
    let refused = scene.executor.submit(plan::run([step("q")]), Vec::new()).await;
    assert!(matches!(refused, Err(CommitError::Stale)), "{refused:?}");
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: r=done a=done b=done");
    assert_eq!(scene.run(id).operation.epoch, 2);
}

#[tokio::test]
async fn a_cancellation_there_undoes_here() {
    let scene = Scene::new().await;
    scene.world.script("b", Verb::Do, [Act::Take(seconds(100))]);
    let id = scene.submit(plan()).await;
    scene.settle().await;
    let other = scene.standing_by();
    other.tell(id, SignalKind::Cancel).await;
    scene.executor.heard(id);
    scene.quiet().await;
    assert!(
        scene.line(id).starts_with("cancelled") || scene.line(id).starts_with("rolled_back"),
        "{}",
        scene.line(id)
    );
    assert_eq!(scene.world.things(), Vec::<String>::new());
}
