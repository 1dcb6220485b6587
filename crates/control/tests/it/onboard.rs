//! Onboarding through the use cases, on both stores.

use std::time::Duration;

use serde_json::json;
use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::{Caller, ErrorKind, IdempotencyKey, OperationQuery, PageQuery};
use tenantry_engine::Clock;
use tenantry_engine::OperationState;
use tenantry_model::{TenantStatus, Write, columns};
use tenantry_provider::Rows;
use tenantry_store::{Store, StoreConfig, WriteBatch};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::database::execute;

use crate::crash::{live, people};
use crate::world::{World, in_both_worlds, request};
use crate::{scan, story};

in_both_worlds! {
    a_tenant_is_onboarded
    concurrent_requests_with_one_key_create_one_tenant
    names_and_slugs_are_unique
    a_dry_run_shows_the_executed_plan
    settings_are_inherited_from_the_main_tenant
    credentials_can_be_claimed_once
    an_invitation_is_accepted_only_by_an_active_tenant
    an_expired_invitation_is_rejected_and_replaced
}

async fn an_invitation_is_accepted_only_by_an_active_tenant(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let created = control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    control.wait(&caller, created.operation.id, Duration::from_secs(60)).await.unwrap();
    let token = control.claim_credentials(&caller, created.operation.id).await.unwrap().remove(0).value;
    let store = StoreConfig { url: world.registry_url(), readers: 1 };
    let store = Store::open(&store).await.unwrap();
    let tenant = created.tenant.id;
    for status in ["pending", "provisioning", "suspended", "deprovisioned", "active"] {
        let is = Write::update("tenants", columns! { "id": tenant }, columns! { "status": status });
        store.commit(WriteBatch::new(vec![is])).await.unwrap();
        let accepted = control.accept_invitation(&token, None).await;
        let Err(refused) = accepted else {
            assert_eq!(status, "active");
            continue;
        };
        let code = if status == "suspended" { "tenant_suspended" } else { "tenant_not_active" };
        assert_eq!((refused.kind(), refused.code.as_str()), (ErrorKind::Forbidden, code), "{status}");
        let invited = store.find("members", &[("tenant_id", json!(tenant))]).await.unwrap();
        assert_eq!(invited[0]["state"], "invited", "{status}: the member is unchanged");
    }
    let members = store.find("members", &[("tenant_id", json!(tenant))]).await.unwrap();
    assert_eq!(members[0]["state"], "active");
    assert_eq!(
        control.accept_invitation(&token, None).await.err().unwrap().code.as_str(),
        "invitation_refused"
    );
    store.close().await;
    process.control.stop().await;
}

async fn an_expired_invitation_is_rejected_and_replaced(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let created = control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    control.wait(&caller, created.operation.id, Duration::from_secs(60)).await.unwrap();
    let token = control.claim_credentials(&caller, created.operation.id).await.unwrap().remove(0).value;
    world.quiet().await;
    assert!(control.tenant_status(&caller, "acme").await.unwrap().healthy);
    let week = world.clock.now() + Duration::from_secs(7 * 86_400);
    world.clock.sleep_until(week).await;
    assert_eq!(
        control.accept_invitation(&token, None).await.err().unwrap().code.as_str(),
        "invitation_refused"
    );
    let status = control.tenant_status(&caller, "acme").await.unwrap();
    let differ: Vec<_> = status.resources.iter().filter(|it| !it.healthy).map(|it| &*it.step).collect();
    assert_eq!(differ, ["identity"], "no member can sign in");
    let repair = control.repair(&caller, "acme", &RepairTenant::default(), None).await.unwrap().value;
    world.quiet().await;
    assert!(control.tenant_status(&caller, "acme").await.unwrap().healthy);
    let token = control.claim_credentials(&caller, repair.id).await.unwrap().remove(0).value;
    control.accept_invitation(&token, None).await.unwrap();
    process.control.stop().await;
}

async fn a_tenant_is_onboarded(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    let created = process.control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    assert_eq!(created.tenant.status, TenantStatus::Provisioning);
    let done = process.control.wait(&caller, created.operation.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(done.state, OperationState::Succeeded, "{done:#?}");
    let tenant = process.control.tenant(&caller, "acme").await.unwrap();
    assert_eq!((tenant.status, tenant.slug.as_deref()), (TenantStatus::Active, Some("acme")));
    assert!(tenant.activated_at.is_some());
    world.quiet().await;
    assert_eq!(scan::faults(&world).await, Vec::<String>::new());
    let response = done.response.unwrap();
    assert!(response.credentials_waiting);
    assert_eq!(response.resources["database"].name, format!("tenant_{}", tenant.id.suffix()));
    process.control.stop().await;
}

async fn concurrent_requests_with_one_key_create_one_tenant(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    let key = || Some(IdempotencyKey::parse("\"sign-up 1\"").unwrap());
    let document = request("Once", "starter");
    let tries = (0..10).map(|_| process.control.create_tenant(&caller, &document, key()));
    let created = futures::future::try_join_all(tries).await.unwrap();
    let first = &created[0].operation.id;
    assert!(created.iter().all(|c| c.operation.id == *first), "one operation");
    assert_eq!(created.iter().filter(|c| !c.replayed).count(), 1);
    let other =
        process.control.create_tenant(&caller, &request("Other", "starter"), key()).await.unwrap_err();
    assert_eq!(other.code.as_str(), "idempotency_key_reused");
    let all = process.control.tenants(&caller, &Default::default(), &PageQuery::default()).await.unwrap();
    assert_eq!(all.data.len(), 1);
    process.control.stop().await;
}

async fn names_and_slugs_are_unique(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    process.control.create_tenant(&caller, &request("Acme", "starter"), None).await.unwrap();
    // The second has a Cyrillic letter.
    for alike in ["  ACME ", "\u{410}cme"] {
        let name =
            process.control.create_tenant(&caller, &request(alike, "starter"), None).await.unwrap_err();
        assert_eq!((name.kind(), name.code.as_str()), (ErrorKind::Conflict, "tenant_name_taken"), "{alike}");
    }
    let second = process.control.create_tenant(&caller, &request("Acme!", "starter"), None).await.unwrap();
    assert_eq!(second.tenant.slug.as_deref(), Some("acme-2"));
    let mut wanted = request("Third", "starter");
    wanted["slug"] = json!("acme");
    let slug = process.control.create_tenant(&caller, &wanted, None).await.unwrap_err();
    assert_eq!((slug.kind(), slug.code.as_str()), (ErrorKind::Conflict, "slug_taken"));
    assert!(slug.message.contains("acme-3"), "{}", slug.message);
    let all = process.control.tenants(&caller, &Default::default(), &PageQuery::default()).await.unwrap();
    assert_eq!(all.data.len(), 2, "rejected requests leave no row");
    process.control.stop().await;
}

async fn a_dry_run_shows_the_executed_plan(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    for story in story::all().await {
        let document = request(&format!("Dry {}", story.plan), &story.plan);
        let planned = control.plan_tenant(&caller, &document).await.unwrap();
        let none = OperationQuery { state: Some(OperationState::Running), ..OperationQuery::default() };
        let none = control.operations(&caller, &none, &PageQuery::default()).await.unwrap();
        assert!(none.data.is_empty(), "a dry run writes nothing");
        let created = control.create_tenant(&caller, &document, None).await.unwrap();
        live(&world, &process, &story, &mut true, false, &document).await.unwrap();
        let done = control.operation(&caller, created.operation.id).await.unwrap();
        assert_eq!(done.state, OperationState::Succeeded, "{}", story.plan);
        let resources = &done.response.as_ref().unwrap().resources;
        let (suffix, generic) = (created.tenant.id.suffix(), "{id}");
        let dry = planned.steps.iter();
        let dry: Vec<_> =
            dry.map(|s| (&s.key, &s.kind, &s.provider, &s.needs, s.mode, &s.approval)).collect();
        let wet = done.steps.iter();
        let wet: Vec<_> =
            wet.map(|s| (&s.key, &s.kind, &s.provider, &s.needs, s.mode, &s.approval)).collect();
        assert_eq!(dry, wet);
        // The names equal the plan's, with the tenant's id in place of the dry run's placeholder id.
        for (key, resource) in resources {
            let step = planned.steps.iter().find(|step| step.key == *key).unwrap();
            let id = step.name.split(['_', '.', '-']).find(|part| part.len() == suffix.len());
            let name = id.map_or(step.name.clone(), |id| step.name.replace(id, generic));
            assert_eq!(name, resource.name.replace(&suffix, generic), "{} {key}", story.plan);
        }
        let slots: u32 = planned.reserved.values().sum();
        assert_eq!(slots > 0, planned.steps.iter().any(|step| step.key == "reserve"), "{}", story.plan);
    }
    process.control.stop().await;
}

async fn settings_are_inherited_from_the_main_tenant(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let mut settings = Vec::new();
    for (name, plan, wish) in [
        ("Before", "gated", json!({})),
        ("Headquarters", "starter", json!({ "date_format": "european" })),
        ("Branch", "gated", json!({})),
    ] {
        let mut document = request(name, plan);
        document["configuration"] = json!({ "settings": wish });
        if plan == "gated" {
            document.as_object_mut().unwrap().remove("configuration");
        }
        let planned = control.plan_tenant(&caller, &document).await.unwrap();
        let made = control.create_tenant(&caller, &document, None).await.unwrap();
        people(&world, control, false).await.unwrap();
        let store = StoreConfig { url: world.registry_url(), readers: 1 };
        let store = Store::open(&store).await.unwrap();
        let row = store.find("configs", &[("tenant_id", json!(made.tenant.id))]).await.unwrap().remove(0);
        let mut has = row["settings"].as_object().unwrap().clone();
        has.remove("quotas");
        let config = planned.steps.iter().find(|step| step.kind == "config").unwrap();
        assert_eq!(config.settings["settings"], json!(has), "the planned settings are the stored ones");
        settings.push(json!(has));
    }
    assert_eq!(settings[0], json!({}), "there is no main tenant yet");
    assert_eq!(settings[1], json!({ "date_format": "european", "digest": "weekly" }));
    assert_eq!(settings[2], json!({ "date_format": "european", "digest": "daily" }));
    process.control.stop().await;
}

async fn credentials_can_be_claimed_once(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let caller = Caller::system();
    let id = process
        .control
        .create_tenant(&caller, &request("Secret", "starter"), None)
        .await
        .unwrap()
        .operation
        .id;
    process.control.wait(&caller, id, Duration::from_secs(60)).await.unwrap();
    let claims = (0..5).map(|_| process.control.claim_credentials(&caller, id));
    let claims = futures::future::join_all(claims).await;
    assert_eq!(claims.iter().filter(|c| c.is_ok()).count(), 1);
    assert!(claims.iter().filter_map(|c| c.as_ref().err()).all(|e| e.kind() == ErrorKind::Gone));
    let secret = claims.into_iter().find_map(Result::ok).unwrap().remove(0);
    assert_eq!(secret.name, "invitation_token");
    let view = serde_json::to_string(&process.control.operation(&caller, id).await.unwrap()).unwrap();
    assert!(!view.contains(&secret.value));
    process.control.stop().await;
}

/// A slug may give a name that the provider refuses, although others do not.
#[tokio::test]
async fn a_name_that_cannot_be_made_is_rejected_by_a_dry_run() {
    let mut world = World::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&world.templates).unwrap().flatten() {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let template = "{ template: spaces, version: 1, isolation: pool, names: { namespace: '{slug}' }, steps: { \
        space: { kind: namespace }, smoke_test: { needs: [space] }, activate: { needs: [smoke_test] } } }";
    std::fs::write(folder.path().join("spaces.yaml"), template).unwrap();
    world.templates = folder.path().to_owned();
    let plan = json!({ "name": "spaces", "title": "Spaces", "template": "spaces" });
    world.plans = vec![serde_json::from_value(plan).unwrap()];
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let mut document = request("Acme", "spaces");
    control.plan_tenant(&caller, &document).await.unwrap();
    document["slug"] = json!("kube-acme");
    let refused = control.plan_tenant(&caller, &document).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.errors[0].path.as_str()), ("request_invalid", "slug"));
    let refused = control.create_tenant(&caller, &document, None).await.unwrap_err();
    assert_eq!(refused.code.as_str(), "request_invalid");
    process.control.stop().await;
}

/// Nothing was created, so nothing is removed with privileges that the provider does not have either.
#[tokio::test]
async fn an_onboarding_that_cannot_begin_ends_without_an_operator() {
    for plan in ["starter", "growth", "enterprise"] {
        let Some(mut world) = World::with_tenants_on_postgres().await else { return };
        let url = world.tenants.as_ref().unwrap().url().to_owned();
        let role = format!("weak_{}", url.rsplit('_').next().unwrap());
        execute(&url, format!("CREATE ROLE {role} LOGIN")).await.unwrap();
        world.weak_role = Some(role.clone());
        let process = world.start(Faults::new()).await.unwrap();
        let (control, caller) = (&process.control, Caller::system());
        let made = control.create_tenant(&caller, &request("Acme", plan), None).await.unwrap();
        crate::outage::approve(control).await;
        world.quiet().await;
        let ended = control.operation(&caller, made.operation.id).await.unwrap();
        assert_eq!(ended.state, OperationState::RolledBack, "{plan}: {ended:?}");
        let error = ended.error.unwrap();
        assert_eq!((error.code.as_str(), error.step.as_deref()), ("not_allowed", Some("database")), "{plan}");
        process.control.stop().await;
        assert_eq!(scan::faults(&world).await, Vec::<String>::new(), "{plan}");
        execute(&url, format!("DROP ROLE {role}")).await.unwrap();
    }
}
