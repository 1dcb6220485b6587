//! Calls of providers: every verb passes every layer, every caller uses the handle, and limits of one call at a time keep
//! no operation from its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use serde_json::{Map, json};
use tenantry_control::objects::SignObject;
use tenantry_control::operations::archive::{ArchiveSettings, Purpose};
use tenantry_control::resource::{ProviderVerb, Regions, ResourceHandle, Resources};
use tenantry_control::suspension::SuspendTenant;
use tenantry_control::{Caller, Control, TenantSession};
use tenantry_engine::{Clock, OperationState};
use tenantry_model::id::OperationId;
use tenantry_model::suspension::{Reason, SuspensionMode};
use tenantry_model::{Failure, Timestamp};
use tenantry_provider::objects::{Method, New};
use tenantry_provider::pipe::pipe;
use tenantry_provider::transfer::Nowhere;
use tenantry_provider::{Checked, Former, Order, Provider, Registry, Retirement};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::slow::{Nothing, Slow, body, context, signed, spec};
use crate::world::{World, request};

/// Calls by provider and verb.
pub type Calls = Arc<Mutex<BTreeMap<(String, &'static str), u32>>>;

/// Calls one verb through a handle.
async fn call(handle: &ResourceHandle, verb: ProviderVerb) -> Result<(), Failure> {
    let (context, spec, now) = (context(), spec(), Timestamp::now());
    let (tenant, resource, region) = (spec.tenant.id, spec.resource, spec.tenant.region.clone());
    let (name, claim) = (spec.name.clone(), spec.claim.clone());
    let order = Order {
        tenant,
        resource,
        region: region.clone(),
        name: name.clone(),
        claim: claim.clone(),
        mode: None,
        version: 1,
    };
    let retirement = Retirement { tenant, resource, region, name, claim, rotation: OperationId::new() };
    let (fence, rotate) = (handle.fence().unwrap(), handle.rotate().unwrap());
    let (transfer, isolation) = (handle.transfer().unwrap(), handle.isolation().unwrap());
    let rows = handle.data().unwrap().scoped(tenant);
    let objects = handle.objects().unwrap();
    let own = objects.scoped(tenant, Arc::new(Nothing));
    match verb {
        ProviderVerb::Ensure => handle.ensure(&context, &spec).await.map(drop),
        ProviderVerb::Observe => handle.observe(&context, &spec).await.map(drop),
        ProviderVerb::Remove => handle.remove(&context, &spec).await.map(drop),
        ProviderVerb::Probe => handle.probe().await,
        ProviderVerb::ApplyFence => fence.fence(&order).await,
        ProviderVerb::ObserveFence => fence.denies(&order).await.map(drop),
        ProviderVerb::Rotate => rotate.rotate(&context, &spec, Former::Stays).await.map(drop),
        ProviderVerb::Retire => rotate.retire(&Nothing, &retirement).await.map(drop),
        ProviderVerb::Export => transfer.export(&context, &spec, &mut Nowhere).await.map(drop),
        ProviderVerb::Load => {
            let (sink, mut source) = pipe();
            let ending = sink.end();
            let (loaded, _) = tokio::join!(transfer.load(&context, &spec, &mut source), ending);
            loaded.map(drop)
        }
        ProviderVerb::CheckIsolation => isolation.check(&[tenant]).await.map(drop),
        ProviderVerb::Purge => handle.purge().unwrap().purge().await.map(drop),
        ProviderVerb::VerifyUrl => objects.verify(&signed(Method::Get), now).await.map(drop),
        ProviderVerb::SignUrl => own.sign("key", Method::Get, now, now).await.map(drop),
        ProviderVerb::ExpireObjects => objects.expire(now).await.map(drop),
        ProviderVerb::PutObject => {
            own.put(New { key: "key", content_type: None, at: now }, body()).await.map(drop)
        }
        ProviderVerb::GetObject => own.get("key", None).await.map(drop),
        ProviderVerb::ObjectMeta => own.meta("key").await.map(drop),
        ProviderVerb::ListObjects => own.list("", 1, None).await.map(drop),
        ProviderVerb::DeleteObject => own.delete("key").await.map(drop),
        ProviderVerb::BucketUsage => own.usage().await.map(drop),
        ProviderVerb::InsertRow => rows.insert("tasks", Map::new()).await.map(drop),
        ProviderVerb::ListRows => rows.list("tasks", 1, None).await.map(drop),
        ProviderVerb::GetRow => rows.get("tasks", "id").await.map(drop),
        ProviderVerb::DeleteRow => rows.delete("tasks", "id").await.map(drop),
        ProviderVerb::RemoveSamples => rows.remove_samples().await.map(drop),
    }
}

/// One slow provider with these regions, at most two calls at a time, and the calls that are reported.
fn resources(slow: &Slow, regions: Regions) -> (Resources, Calls) {
    let (calls, limits) = (Calls::default(), BTreeMap::from([("slow".to_owned(), 2)]));
    let resources =
        Resources::new(Registry::default().add(slow.clone()), regions, &limits, Some(counter(&calls)));
    (resources.unwrap(), calls)
}

/// Counts calls by provider and verb.
pub fn counter(calls: &Calls) -> tenantry_control::resource::OnCall {
    let calls = calls.clone();
    Arc::new(move |call| {
        *calls.lock().entry((call.provider.to_owned(), call.verb.as_str())).or_default() += 1;
    })
}

/// Verbs that need a permit for work.
const WORK: [ProviderVerb; 9] = [
    ProviderVerb::Ensure,
    ProviderVerb::Remove,
    ProviderVerb::Rotate,
    ProviderVerb::Retire,
    ProviderVerb::Export,
    ProviderVerb::Load,
    ProviderVerb::CheckIsolation,
    ProviderVerb::Purge,
    ProviderVerb::ExpireObjects,
];
/// Verbs that need a permit for access control.
const CONTROL: [ProviderVerb; 3] =
    [ProviderVerb::Observe, ProviderVerb::ApplyFence, ProviderVerb::ObserveFence];

#[tokio::test]
async fn every_verb_takes_its_permit_and_is_reported() {
    let slow = Slow::default();
    let (resources, calls) = resources(&slow, Regions::new());
    let handle = resources.get("slow").unwrap();
    for verb in ProviderVerb::ALL {
        for done in join_all((0..5).map(|_| call(handle, verb))).await {
            done.unwrap_or_else(|failure| panic!("{verb:?}: {failure:?}"));
        }
        let load = slow.take();
        // Calls of clients' requests take no permit, and neither does a probe.
        let most = if WORK.contains(&verb) || CONTROL.contains(&verb) { 2 } else { 5 };
        assert_eq!((load.most, load.calls, load.now), (most, 5, 0), "{verb:?}");
        let reported = std::mem::take(&mut *calls.lock());
        assert_eq!(reported, BTreeMap::from([(("slow".to_owned(), verb.as_str()), 5)]), "{verb:?}");
    }
}

/// Exports that take for ever hold all permits for work.
#[tokio::test]
async fn no_work_delays_access_control_or_requests() {
    let slow = Slow::default();
    let (resources, _) = resources(&slow, Regions::new());
    let handle = resources.get("slow").unwrap();
    let mut held = join_all((0..2).map(|_| resources.sharing(&["slow"], std::future::pending::<()>())));
    assert!(futures::poll!(&mut held).is_pending());
    for verb in ProviderVerb::ALL {
        let mut called = Box::pin(call(handle, verb));
        if WORK.contains(&verb) {
            assert!(futures::poll!(&mut called).is_pending(), "{verb:?}");
            assert_eq!(slow.take().calls, 0, "{verb:?} waits for a permit");
        } else {
            called.await.unwrap_or_else(|failure| panic!("{verb:?}: {failure:?}"));
            assert_eq!(slow.take().calls, 1, "{verb:?}");
        }
    }
}

#[tokio::test]
async fn data_is_placed_in_allowed_regions_only() {
    let slow = Slow::default();
    let elsewhere = BTreeMap::from([("slow".to_owned(), BTreeSet::from(["elsewhere".to_owned()]))]);
    let (resources, calls) = resources(&slow, elsewhere);
    let handle = resources.get("slow").unwrap();
    for verb in ProviderVerb::ALL {
        let done = call(handle, verb).await;
        let code = done.err().map(|failure| failure.code);
        assert_eq!(code.as_deref(), verb.places_data().then_some("cross_border"), "{verb:?}");
        assert_eq!(slow.take().calls, u32::from(!verb.places_data()), "{verb:?}");
    }
    assert_eq!(calls.lock().len(), ProviderVerb::ALL.len(), "rejected calls are reported too");
}

#[tokio::test]
async fn calls_that_wait_for_each_other_share_a_permit() {
    let slow = Slow::default();
    let limits = BTreeMap::from([("slow".to_owned(), 1)]);
    let resources = Resources::new(Registry::default().add(slow.clone()), Regions::new(), &limits, None);
    let resources = resources.unwrap();
    let handle = resources.get("slow").unwrap();
    let copy = async || {
        let (context, spec) = (context(), spec());
        let (mut sink, mut source) = pipe();
        let export = async move {
            handle.transfer().unwrap().export(&context, &spec, &mut sink).await?;
            sink.end().await
        };
        let (context, spec) = (crate::slow::context(), crate::slow::spec());
        let load = async { handle.transfer().unwrap().load(&context, &spec, &mut source).await.map(drop) };
        let (exported, loaded) = tokio::join!(export, load);
        exported.and(loaded)
    };
    let copies = join_all((0..3).map(|_| resources.sharing(&["slow", "slow"], copy())));
    for done in tokio::time::timeout(Duration::from_secs(10), copies).await.expect("no deadlock") {
        done.and_then(|done| done).unwrap();
    }
    assert_eq!(slow.take().calls, 6);
}

/// Use cases that call providers, each with verbs that it must have called. The tenants `acme` (plan growth) and `gate` (plan
/// gated, whose provider `shelf` has fences and secrets) exist from the first on.
const CALLERS: [(&str, &[ProviderVerb]); 13] = [
    (
        "onboard",
        &[
            ProviderVerb::Ensure,
            ProviderVerb::InsertRow,
            ProviderVerb::GetRow,
            ProviderVerb::DeleteRow,
            ProviderVerb::SignUrl,
            ProviderVerb::VerifyUrl,
            ProviderVerb::PutObject,
            ProviderVerb::GetObject,
            ProviderVerb::DeleteObject,
        ],
    ),
    ("status", &[ProviderVerb::Observe, ProviderVerb::ObserveFence]),
    ("doctor", &[ProviderVerb::Probe]),
    ("rows", &[ProviderVerb::ListRows, ProviderVerb::RemoveSamples]),
    ("objects", &[ProviderVerb::ListObjects, ProviderVerb::BucketUsage, ProviderVerb::ObjectMeta]),
    ("export", &[ProviderVerb::Export]),
    ("backup", &[ProviderVerb::Export, ProviderVerb::Ensure, ProviderVerb::Load, ProviderVerb::Remove]),
    ("clone", &[ProviderVerb::Export, ProviderVerb::Load]),
    ("repair", &[ProviderVerb::Observe, ProviderVerb::Ensure]),
    ("rotate", &[ProviderVerb::Rotate]),
    ("suspend", &[ProviderVerb::ApplyFence]),
    (
        "background",
        &[
            ProviderVerb::Retire,
            ProviderVerb::ExpireObjects,
            ProviderVerb::CheckIsolation,
            ProviderVerb::ObserveFence,
        ],
    ),
    ("erase", &[ProviderVerb::Remove, ProviderVerb::Observe, ProviderVerb::Purge]),
];

async fn drive(caller: &str, world: &World, control: &Control) {
    let system = Caller::system();
    let acme = async || {
        let tenant = control.tenant(&system, "acme").await.unwrap().id;
        let (member, role) = ("usr_x".to_owned(), "owner".to_owned());
        TenantSession { tenant, member, role, session: None, purpose: None }
    };
    match caller {
        "onboard" => {
            control.create_tenant(&system, &request("Acme", "growth"), None).await.unwrap();
            control.create_tenant(&system, &request("Gate", "gated"), None).await.unwrap();
        }
        "status" => {
            for tenant in ["acme", "gate"] {
                let status = control.tenant_status(&system, tenant).await.unwrap();
                // The invitations have expired meanwhile.
                let others = status.resources.iter().filter(|it| it.step != "identity");
                assert!({ others }.all(|it| it.healthy), "{status:?}");
            }
        }
        "doctor" => assert!(control.doctor(&system).await.unwrap().data.iter().all(|it| it.healthy)),
        "rows" => {
            control.rows(&acme().await, "tasks", 10, None).await.unwrap();
            control.remove_samples(&acme().await).await.unwrap();
        }
        "objects" => {
            control.objects(&acme().await, "", 10, None).await.unwrap();
            control.objects_usage(&acme().await).await.unwrap();
            let wish = SignObject { key: "key".to_owned(), method: Method::Get, expires_in: 60 };
            let signed = control.sign_object(&acme().await, &wish).await.unwrap();
            control.open_signed(&signed).await.unwrap().objects.meta("key").await.unwrap();
        }
        "export" | "backup" => {
            let purpose = if caller == "export" { Purpose::Export } else { Purpose::Backup };
            let what = ArchiveSettings::default();
            control.archive_tenant(&system, "acme", purpose, &what, None).await.unwrap();
        }
        "clone" => {
            let wish =
                json!({ "slug": "sandbox", "files": true, "admin_user": { "email": "dev@ours.example" } });
            let wish = serde_json::from_value(wish).unwrap();
            control.clone_tenant(&system, "acme", wish, None).await.unwrap();
        }
        "repair" => drop(control.repair(&system, "acme", &<_>::default(), None).await.unwrap()),
        "rotate" => {
            let what = serde_json::from_value(json!({ "grace_hours": 1 })).unwrap();
            control.rotate_credentials(&system, "gate", what, None).await.unwrap();
        }
        "suspend" => {
            let what = SuspendTenant { reason: Reason::Admin, mode: SuspensionMode::Blocked };
            control.suspend(&system, "gate", what, None).await.unwrap();
        }
        "background" => {
            *world.plan.matrix.lock() = Some(Checked::default().cells);
            world.clock.sleep_until(world.clock.now() + Duration::from_secs(2 * 3600)).await;
            control.sweep().await.unwrap();
        }
        "erase" => {
            let reason = serde_json::from_value(json!({ "reason": "over" })).unwrap();
            for tenant in ["acme", "gate", "sandbox"] {
                control.erase(&system, tenant, &reason, None).await.unwrap();
            }
        }
        other => panic!("no such caller: {other}"),
    }
    people(world, control, false).await.unwrap();
}

#[tokio::test]
async fn every_caller_uses_the_handle() {
    let mut world = World::sqlite().await;
    let providers = world.providers().await.unwrap();
    let outside = providers.iter().filter(|provider| !provider.transactional());
    world.at_once = outside.map(|provider| (provider.name().to_owned(), 1)).collect();
    drop(providers);
    let process = world.start(Faults::new()).await.unwrap();
    for (caller, verbs) in CALLERS {
        let before = world.book.calls.lock().clone();
        drive(caller, &world, &process.control).await;
        let after = world.book.calls.lock().clone();
        let called = after.iter().filter(|(call, times)| before.get(*call) != Some(*times));
        let called: BTreeSet<&str> = called.map(|((_, verb), _)| *verb).collect();
        for verb in verbs {
            assert!(called.contains(verb.as_str()), "{caller} did not {verb:?}: {called:?}");
        }
        assert_eq!(after, *world.reached.lock(), "{caller} has called a provider past its handle");
    }
    let all = Default::default();
    let ended = process.control.operations(&Caller::system(), &all, &Default::default()).await.unwrap().data;
    let failed: Vec<_> = ended.iter().filter(|it| it.state != OperationState::Succeeded).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    process.control.stop().await;
}
