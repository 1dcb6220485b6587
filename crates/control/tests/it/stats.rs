//! Statistics agree with the operations that ran and with the metrics reported while they ran.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tenantry_control::resource::ProviderCall;
use tenantry_control::stats::{Lengths, Since, StepStats, TemplateStats};
use tenantry_control::{Caller, ErrorKind, Meter, Scope};
use tenantry_engine::{Clock, OperationState, SignalKind};
use tenantry_model::id::OperationId;
use tenantry_model::{TenantId, Write, columns};
use tenantry_store::{Store, StoreConfig, WriteBatch};
use tenantry_testkit::crash_ledger::Faults;

use crate::faulty::{Fault, How};
use crate::handle::{Calls, counter};
use crate::world::{Process, World, in_both_worlds, request};

in_both_worlds! {
    statistics_match_the_operations
    only_the_newest_operations_are_evaluated
}

/// Counts the reported metrics and the provider calls.
#[derive(Debug, Default)]
pub struct Book {
    told: Mutex<BTreeMap<String, u32>>,
    /// Provider calls.
    pub calls: Calls,
}

impl Book {
    fn write(&self, what: String) {
        *self.told.lock().entry(what).or_default() += 1;
    }

    fn told(&self, what: &str) -> u32 {
        self.told.lock().get(what).copied().unwrap_or_default()
    }
}

impl Meter for Book {
    fn provider_called(&self, call: ProviderCall<'_>) {
        counter(&self.calls)(call);
    }
    fn onboarded(&self, plan: &str, outcome: OperationState, _: Duration) {
        self.write(format!("{plan} {}", outcome.as_str()));
    }
    fn step_done(&self, template: &str, step: &str, _: Duration) {
        self.write(format!("{template} {step} done"));
    }
    fn step_failed(&self, template: &str, step: &str, code: &str) {
        self.write(format!("{template} {step} failed: {code}"));
    }
}

/// Onboards a tenant with these faults, until it makes no more progress.
async fn onboard(world: &World, process: &Process, name: &str, plan: &str, faults: &[Fault]) {
    let caller = Caller::system();
    world.plan.set(&world.clock, faults);
    let created = process.control.create_tenant(&caller, &request(name, plan), None).await.unwrap();
    if plan == "gated" {
        let approve = SignalKind::Approve { step: "approve".to_owned() };
        process.control.signal(&caller, created.operation.id, approve, None).await.unwrap();
    }
    world.quiet().await;
}

fn step<'a>(template: &'a TemplateStats, key: &str) -> &'a StepStats {
    template.steps.iter().find(|step| step.step == key).unwrap()
}

fn causes(step: &StepStats) -> Vec<(&str, u64)> {
    step.causes.iter().map(|cause| (cause.code.as_str(), cause.count)).collect()
}

async fn statistics_match_the_operations(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller, began) = (&process.control, Caller::system(), world.clock.now());
    let fault = |step, how, times| [Fault::new(step, true, how, times)];
    onboard(&world, &process, "One", "starter", &[]).await;
    onboard(&world, &process, "Two", "starter", &[]).await;
    onboard(&world, &process, "Later", "starter", &fault("database", How::Retryable, 1)).await;
    onboard(&world, &process, "Not", "starter", &fault("database", How::Fatal, 1)).await;
    onboard(&world, &process, "Never", "starter", &fault("database", How::Fatal, 1)).await;
    onboard(&world, &process, "Held", "gated", &[]).await;
    onboard(&world, &process, "Undone", "gated", &fault("second", How::Fatal, 1)).await;
    onboard(&world, &process, "Parked", "gated", &fault("first", How::Fatal, 1)).await;

    let stats = control.stats(&caller, Since::At(began)).await.unwrap();
    assert_eq!((stats.onboardings, stats.complete, stats.since), (8, true, began));
    let [gated, starter] = &stats.plans[..] else { panic!("{:#?}", stats.plans) };
    assert_eq!((starter.plan.as_str(), starter.onboardings, starter.succeeded), ("starter", 5, 3));
    assert_eq!((starter.failed, starter.rolled_back, starter.success_rate), (2, 2, 0.6));
    assert_eq!((gated.succeeded, gated.rolled_back, gated.needs_attention), (1, 1, 1));
    // By the virtual clock the first two onboardings took no time; the third one waited before its second
    // attempt.
    let Lengths { p50_ms, p95_ms, .. } = starter.duration.unwrap();
    assert!(p50_ms == 0.0 && p95_ms >= 5.0, "{starter:#?}");
    let month = 30.0 * 86_400_000.0;
    assert_eq!(gated.duration, Some(Lengths { mean_ms: month, p50_ms: month, p95_ms: month }));

    let [gated, starter] = &stats.templates[..] else { panic!("{:#?}", stats.templates) };
    let database = step(starter, "database");
    assert_eq!((database.failures, causes(database)), (2, vec![("test", 2)]), "the common failure point");
    assert_eq!((database.done, database.retried, database.mean_attempts), (3, 1, Some(1.3333)));
    assert_eq!((database.critical, database.critical_share), (3, Some(1.0)));
    assert_eq!(step(starter, "smoke_test").held_up_by.as_deref(), Some("database"));
    assert_eq!(step(starter, "billing").done, 0, "a child operation does not count for the onboarding");
    assert_eq!((starter.overlap, starter.critical_share), (Some(1.0), Some(1.0)));
    assert_eq!(step(gated, "hold").critical_share, Some(1.0), "the bottleneck");
    assert_eq!((step(gated, "identity").critical, step(gated, "letter").critical), (0, 0));
    assert_eq!(step(gated, "second").held_up_by.as_deref(), Some("database"));
    assert_eq!(causes(step(gated, "second")), [("test", 1)]);
    assert_eq!(causes(step(gated, "first")), [("test", 1)]);
    let failures: u64 = stats.templates.iter().flat_map(|t| &t.steps).map(|step| step.failures).sum();
    assert_eq!(failures, 4, "no other step counts as failed");

    let [room] = &stats.capacity[..] else { panic!("{:#?}", stats.capacity) };
    assert_eq!((room.region.as_str(), room.kind.as_str()), ("eu-central-1", "database"));
    assert_eq!((room.capacity, room.used, room.reserved, room.utilisation), (1_000, 1, 1, 0.002));

    for (what, times) in [
        ("starter succeeded", 3),
        ("starter rolled_back", 2),
        ("starter database done", 3),
        ("starter database failed: test", 3),
        ("starter activate done", 3),
        ("starter welcome done", 3),
        ("gated succeeded", 1),
        ("gated rolled_back", 1),
        ("gated needs_attention", 0),
        ("gated second failed: test", 1),
        ("gated first failed: test", 1),
    ] {
        assert_eq!(world.book.told(what), times, "{what}: {:#?}", world.book);
    }

    // Onboardings of the gated plan took a month each.
    let week = control.stats(&caller, Since::default()).await.unwrap();
    assert_eq!(week.onboardings, 1, "only the parked one began in the last seven days");
    let text = serde_json::to_string(&stats).unwrap();
    for personal in ["Parked", "parked", "@", "Ada", "ten_", "op_"] {
        assert!(!text.contains(personal), "{personal}");
    }
    let tenants =
        Caller { scopes: [Scope::Tenant].into(), tenant: Some(TenantId::new()), ..Caller::system() };
    assert_eq!(control.stats(&tenants, Since::default()).await.unwrap_err().kind(), ErrorKind::Forbidden);
    process.control.stop().await;
}

async fn only_the_newest_operations_are_evaluated(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let store = StoreConfig { url: world.registry_url(), readers: 1 };
    let store = Store::open(&store).await.unwrap();
    let now = world.clock.now();
    let began = |n: u64| now + Duration::from_secs(n);
    let ended = |n: u64| {
        let input = json!({ "plan": "starter", "template": "starter" });
        let row = columns! {
            "id": OperationId::new(), "tenant_id": TenantId::new(), "kind": "onboard", "parent_id": (),
            "state": "succeeded", "version": 1, "epoch": 0, "input": input, "error": (), "error_step": (),
            "cancelled": false, "created_at": began(n), "updated_at": began(n), "finished_at": began(n),
            "expected_by": (), "stuck": false, "wake_at": (), "idle": true,
        };
        Write::insert("operations", row)
    };
    store.commit(WriteBatch::new((0..1_100).map(ended).collect())).await.unwrap();
    let look = async |since: u64| {
        let stats = process.control.stats(&Caller::system(), Since::At(began(since))).await.unwrap();
        (stats.onboardings, stats.complete)
    };
    assert_eq!(look(0).await, (1_000, false));
    assert_eq!(
        look(99).await,
        (1_000, false),
        "an earlier operation is not read, so the result is incomplete"
    );
    assert_eq!(look(101).await, (999, true));
    assert_eq!(look(2_000).await, (0, true));
    store.close().await;
    process.control.stop().await;
}
