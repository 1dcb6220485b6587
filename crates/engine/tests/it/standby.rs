//! Leader and standby on one ledger: the standby commits requests, the leader runs them, the standby takes
//! over.

use tenantry_engine::{CommitError, Direction, SignalKind};

use crate::plan::{self, Shape, approve, busy, step, wrong};
use crate::scene::{Scene, seconds};
use crate::world::Act;

/// A new operation that a standby has committed.
const COMMITTED: &str = "running: r=done a=pending b=pending";

fn plan() -> [tenantry_engine::Step; 3] {
    [step("r").registry(), step("a").needs(&["r"]), step("b").needs(&["a"])]
}

async fn lead(scene: &Scene) {
    scene.executor.take_over().await.unwrap();
    scene.executor.look().await.unwrap();
}

#[tokio::test]
async fn a_standby_commits_operations_and_starts_no_attempt() {
    let scene = Scene::new().await;
    let other = scene.standing_by();
    let id = other.submit(plan()).await;
    scene.quiet().await;
    assert_eq!((other.line(id).as_str(), scene.world.log().len()), (COMMITTED, 1));
    assert_eq!(other.executor.load(), (0, 0));
    scene.executor.notice(id);
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: r=done a=done b=done");
    let run = scene.run(id);
    assert!(run.steps.iter().all(|step| step.attempts == 1 && step.interruptions == 0));
    scene.world.check().unwrap();
}

#[tokio::test]
async fn followers_on_a_standby_get_the_leaders_changes() {
    let scene = Scene::new().await;
    let other = scene.standing_by();
    let id = other.submit(plan()).await;
    let mut changes = other.executor.follow(id);
    scene.executor.notice(id);
    scene.quiet().await;
    other.executor.notice_all();
    assert_eq!(changes.next().await.unwrap().operation.state.as_str(), "succeeded");
}

#[tokio::test]
async fn the_leader_applies_signals_that_a_standby_committed() {
    let scene = Scene::new().await;
    let id = scene.submit([step("a").approval()]).await;
    let other = scene.standing_by();
    other.ask(id, approve("a")).await;
    scene.quiet().await;
    assert_eq!((scene.pending_signals(id).await, scene.world.log().len()), (1, 0));
    scene.executor.notice(id);
    scene.quiet().await;
    assert_eq!((scene.pending_signals(id).await, scene.line(id).as_str()), (0, "succeeded: a=done"));
}

#[tokio::test]
async fn the_leader_runs_a_child_that_a_standby_committed() {
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
async fn a_standby_takes_over_interrupted_operations() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(1_000)), Act::Take(seconds(1))]);
    let id = scene.submit(plan()).await;
    let late = scene.submit([step("w").timer(50)]).await;
    scene.settle().await;
    let other = scene.standing_by();
    scene.executor.stand_by().await;
    assert_eq!((scene.executor.load(), scene.executor.is_running()), ((0, 0), false));
    lead(&other).await;
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: r=done a=done b=done");
    assert_eq!(scene.run(id).step("a").unwrap().interruptions, 1);
    assert_eq!(scene.line(late), "succeeded: w=done");
    // The first executor takes over again.
    other.executor.stand_by().await;
    lead(&scene).await;
    let again = scene.submit([step("z")]).await;
    scene.quiet().await;
    assert_eq!(scene.line(again), "succeeded: z=done");
    scene.world.check().unwrap();
}

#[tokio::test]
async fn a_replaced_leader_cannot_commit() {
    let scene = Scene::new().await;
    scene.world.script("a", Direction::Run, [Act::Take(seconds(10))]);
    let id = scene.submit(plan()).await;
    scene.settle().await;
    let other = scene.standing_by();
    // The old leader does not know of the take-over: its attempt ends and cannot be committed.
    lead(&other).await;
    let refused = scene.executor.submit(plan::run([step("q")]), Vec::new()).await;
    assert!(matches!(refused, Err(CommitError::Stale)), "{refused:?}");
    scene.quiet().await;
    assert_eq!(scene.line(id), "succeeded: r=done a=done b=done");
    assert_eq!(scene.run(id).operation.epoch, 2);
}

#[tokio::test]
async fn the_leader_rolls_back_what_a_standby_cancels() {
    let scene = Scene::new().await;
    scene.world.script("b", Direction::Run, [Act::Take(seconds(100))]);
    let id = scene.submit(plan()).await;
    scene.settle().await;
    let other = scene.standing_by();
    other.ask(id, SignalKind::Cancel).await;
    scene.executor.notice(id);
    scene.quiet().await;
    assert!(
        scene.line(id).starts_with("cancelled") || scene.line(id).starts_with("rolled_back"),
        "{}",
        scene.line(id)
    );
    assert_eq!(scene.world.things(), Vec::<String>::new());
}

#[tokio::test]
async fn a_standby_does_not_know_which_operations_wait() {
    let scene = Scene::new().await;
    let other = scene.standing_by();
    scene.world.script("r", Direction::Run, [Act::Fail(busy().after(seconds(1000)))]);
    let id = other.submit(plan()).await;
    assert_eq!(other.line(id), "running: r=retrying a=pending b=pending");
    assert_eq!(other.executor.waiting_for("postgres"), 0);
}

/// It does not know which providers work again. After a wrong answer, and when the server asks for a long delay, a step
/// keeps its time.
#[tokio::test]
async fn a_new_leader_retries_at_once_what_waits_for_a_provider() {
    let scene = Scene::new().await;
    let fails = |failure: tenantry_model::Failure, delay| Act::Fail(failure.after(seconds(delay)));
    scene.world.script("works", Direction::Run, [fails(busy(), 60)]);
    scene.world.script("down", Direction::Run, [fails(busy(), 60), fails(busy(), 60)]);
    scene.world.script("wrong", Direction::Run, [fails(wrong(), 60)]);
    scene.world.script("later", Direction::Run, [fails(busy(), 1_000)]);
    let mut ids = Vec::new();
    for key in ["works", "down", "wrong", "later"] {
        ids.push(scene.submit([step(key)]).await);
    }
    scene.until(5).await;
    let other = scene.standing_by();
    scene.executor.stand_by().await;
    lead(&other).await;
    scene.until(7).await;
    let lines: Vec<String> = ids.iter().map(|id| other.line(*id)).collect();
    assert_eq!(
        lines,
        [
            "succeeded: works=done",
            "running: down=retrying",
            "running: wrong=retrying",
            "running: later=retrying"
        ]
    );
    let attempts = ids.iter().map(|id| other.run(*id).steps[0].attempts);
    assert_eq!(attempts.collect::<Vec<_>>(), [2, 2, 1, 1]);
    assert_eq!(other.executor.waiting_for("postgres"), 1);
    scene.quiet().await;
    scene.world.check().unwrap();
}
