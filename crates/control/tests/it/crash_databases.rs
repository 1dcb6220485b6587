//! Crash tests with the tenants' databases on PostgreSQL, for each isolation model: creating and deleting
//! them fails in every way, every call is repeated, the process stops at every commit point, and the server
//! terminates sessions at random. Afterwards every database exists exactly once or has left nothing.
//!
//! `cargo xtask test --full` runs all cases; a plain run takes a part of them.

use rand::RngExt as _;
use rand::rngs::StdRng;
use sqlx::{Connection as _, PgConnection};
use tenantry_testkit::crash_ledger::{Fault as LedgerFault, Faults};
use tenantry_testkit::{report, seed};

use crate::crash::{every, full, play, smoke_test_fails, stops_everywhere, twice, ways};
use crate::crash_leaving::{self, WAYS, Way};
use crate::faulty::{Calls, Fault, How};
use crate::story::{self, Story};
use crate::world::World;

/// One plan per isolation model.
const PLANS: [&str; 3] = ["starter", "growth", "enterprise"];
/// The step that creates the database.
const STEP: &str = "database";
/// Sessions that the server terminates in one case.
const ENDED: usize = 12;

async fn stories() -> Vec<Story> {
    let all = story::all().await;
    all.into_iter().filter(|story| PLANS.contains(&&*story.plan)).collect()
}

/// The world, or none if no server is available.
async fn worlds() -> Vec<World> {
    World::with_tenants_on_postgres().await.into_iter().collect()
}

#[tokio::test]
async fn the_database_fails_in_every_way() {
    let mut cases = 0;
    for (lane, story) in stories().await.into_iter().enumerate() {
        for forward in [true, false] {
            for (how, times) in ways(lane) {
                for world in worlds().await {
                    let fault = Fault::new(STEP, forward, how, times);
                    // A failing smoke test rolls the database back.
                    let faults: Vec<Fault> =
                        [fault].into_iter().chain((!forward).then(smoke_test_fails)).collect();
                    let played = play(&world, &story, &faults, &[], !forward && story.parks()).await;
                    played.unwrap_or_else(|why| panic!("{}: {faults:?}: {why}", story.plan));
                    assert!(world.plan.struck() > u32::from(!forward), "{}: {faults:?}", story.plan);
                    cases += 1;
                }
            }
        }
    }
    report::add(&format!("databases on PostgreSQL: {cases} cases of a failure, in every way"));
}

#[tokio::test]
async fn every_call_is_made_twice() {
    let mut cases = 0;
    for story in stories().await {
        for calls in [Calls::AtOnce, Calls::InTurn].into_iter().take(if full() { 2 } else { 1 }) {
            cases += twice(&story, calls, worlds).await;
            for world in worlds().await {
                *world.plan.calls.lock() = calls;
                let played = crash_leaving::play(&world, &story, Way::Offboard, &[], &[]).await;
                played.unwrap_or_else(|why| panic!("{}: {calls:?}, leaving: {why}", story.plan));
                cases += 1;
            }
        }
    }
    report::add(&format!("databases on PostgreSQL: {cases} cases in which every call is made twice"));
}

#[tokio::test]
async fn the_process_stops_at_every_commit_point() {
    let mut cases = 0;
    for story in stories().await {
        cases += stops_everywhere(&story, None, if full() { 1 } else { 41 }, worlds).await;
        let cause = Fault::new("smoke_test", true, How::Fatal, u32::MAX);
        cases += stops_everywhere(&story, Some(cause), if full() { 1 } else { 53 }, worlds).await;
    }
    report::add(&format!("databases on PostgreSQL: {cases} cases of a process that stops at a commit point"));
}

#[tokio::test]
async fn the_process_stops_while_a_tenant_is_deleted() {
    let mut cases = 0;
    for story in stories().await {
        for way in WAYS {
            for (lane, fault) in [LedgerFault::DieBefore, LedgerFault::DieAfter].into_iter().enumerate() {
                for first in every(if full() { 1 } else { 89 }, lane) {
                    let mut reached = true;
                    for world in worlds().await {
                        let lives = [Faults::from([(first, fault)])];
                        let played = crash_leaving::play(&world, &story, way, &[], &lives).await;
                        let told = || format!("{} {way:?}: {fault:?} at call {first}", story.plan);
                        reached = played.unwrap_or_else(|why| panic!("{}: {why}", told())) == [true];
                        cases += 1;
                    }
                    // Without a server there is no world.
                    if !reached || cases == 0 {
                        break;
                    }
                }
            }
        }
    }
    report::add(&format!(
        "databases on PostgreSQL: {cases} cases of a process that stops while a tenant leaves"
    ));
}

/// Terminates random sessions of this world at random moments until [`ENDED`] of them are terminated.
async fn ends_sessions(world: &World, random: &mut StdRng, ended: &mut usize) {
    let url = world.tenants.as_ref().expect("tenants on PostgreSQL").url();
    let mut connection = PgConnection::connect(url).await.expect("their main database");
    let enough = *ended + ENDED;
    while *ended < enough {
        // Before the tenants' table exists, no database does.
        let listed: bool = sqlx::query_scalar("SELECT to_regclass('tenantry.homes') IS NOT NULL")
            .fetch_one(&mut connection)
            .await
            .expect("an answer");
        if listed && random.random_ratio(1, 4) {
            let one: Option<bool> = sqlx::query_scalar(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'tenantry'
                   AND (datname = current_database() OR datname IN (SELECT name FROM tenantry.homes))
                 ORDER BY random() LIMIT 1",
            )
            .fetch_optional(&mut connection)
            .await
            .expect("an answer");
            *ended += usize::from(one == Some(true));
        }
    }
}

#[tokio::test]
async fn the_server_terminates_sessions_at_any_moment() {
    let (seed, mut random) = seed::generator("sessions");
    let (mut cases, mut ended) = (0, 0);
    for story in stories().await {
        for turn in 0..if full() { 40 } else { 2 } {
            for world in worlds().await {
                let leaving = turn % 2 == 1;
                let case = async {
                    match leaving {
                        true => crash_leaving::leaves(&world, Way::Offboard, &[], &[]).await,
                        false => play(&world, &story, &[], &[], false).await,
                    }
                };
                if leaving {
                    crash_leaving::is_made(&world, &story).await.expect("undisturbed");
                }
                tokio::pin!(case);
                let played = tokio::select! {
                    played = &mut case => played,
                    () = ends_sessions(&world, &mut random, &mut ended) => case.await,
                };
                let told = || format!("{}, leaving {leaving}, TENANTRY_TEST_SEED={seed}", story.plan);
                played.unwrap_or_else(|why| panic!("{}: {why}", told()));
                cases += 1;
            }
        }
    }
    assert!(cases == 0 || ended > 0, "no session was terminated in {cases} cases");
    report::add(&format!(
        "databases on PostgreSQL: {cases} cases with {ended} sessions ended by the server, seed {seed}"
    ));
}
