//! Live status and drift: providers report the state of resources, differences are named, and a repair
//! removes them or needs attention.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tenantry_control::operations::repair::RepairTenant;
use tenantry_control::status::StatusView;
use tenantry_control::view::OperationView;
use tenantry_control::{Caller, Control, PageQuery};
use tenantry_engine::{OperationState, SignalKind};
use tenantry_model::TenantStatus;
use tenantry_model::suspension::SuspensionMode;
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::database::execute;

use crate::crash::people;
use crate::world::{Process, World, in_both_worlds, request};

in_both_worlds! {
    an_unchanged_tenant_is_healthy
    drift_is_named_and_repaired
    drift_that_cannot_be_repaired_needs_attention
    a_recreated_database_reports_its_lost_content
    a_provider_without_an_answer_does_not_delay_the_status
    a_wrong_fence_is_repaired
    drift_of_all_tenants_is_read_page_by_page
    a_damaged_row_hides_no_other
}

async fn started(world: &World, tenants: &[(&str, &str)]) -> Process {
    let process = world.start(Faults::new()).await.unwrap();
    for (name, plan) in tenants {
        process.control.create_tenant(&Caller::system(), &request(name, plan), None).await.unwrap();
    }
    people(world, &process.control, false).await.unwrap();
    process
}

async fn status(control: &Control, tenant: &str) -> StatusView {
    control.tenant_status(&Caller::system(), tenant).await.unwrap()
}

/// Differences by step.
fn differs(status: &StatusView) -> BTreeMap<&str, Vec<&str>> {
    let unhealthy = status.resources.iter().filter(|resource| !resource.healthy);
    unhealthy.map(|it| (it.step.as_str(), it.differs.iter().map(String::as_str).collect())).collect()
}

async fn repair(world: &World, control: &Control, tenant: &str) -> OperationView {
    let begun = control.repair(&Caller::system(), tenant, &RepairTenant::default(), None).await.unwrap();
    world.quiet().await;
    control.operation(&Caller::system(), begun.value.id).await.unwrap()
}

/// File of the one tenant that has its own database.
fn database(world: &World) -> PathBuf {
    let folders = std::fs::read_dir(world.stores().data.join("tenants")).unwrap();
    let mut files = folders.map(|folder| folder.unwrap().path().join("tenant.db"));
    files.find(|file| file.is_file() && !file.parent().unwrap().is_symlink()).unwrap()
}

async fn an_unchanged_tenant_is_healthy(world: World) {
    let process = started(&world, &[("Acme", "enterprise"), ("Small", "starter")]).await;
    for tenant in ["acme", "small"] {
        let view = status(&process.control, tenant).await;
        assert!(view.healthy, "{:?}", differs(&view));
        assert_eq!(view.status, TenantStatus::Active);
        assert!(view.database.provisioned && view.database.healthy && view.database.last_migration.is_some());
        assert!(view.organization.created && view.organization.id.is_some());
        assert!(!view.settings.inherited);
        assert!(view.resources.iter().all(|it| it.exists == Some(true) && it.responding && it.healthy));
        let steps: Vec<&str> = view.resources.iter().map(|it| it.step.as_str()).collect();
        assert!(["database", "identity", "config", "billing"].iter().all(|step| steps.contains(step)));
    }
    let erased = tenantry_control::operations::erase::EraseTenant { reason: "asked".to_owned() };
    process.control.erase(&Caller::system(), "small", &erased, None).await.unwrap();
    let leaving = status(&process.control, "small").await;
    people(&world, &process.control, false).await.unwrap();
    let gone = status(&process.control, &leaving.id.to_string()).await;
    assert_eq!((gone.status, gone.resources.len()), (TenantStatus::Deprovisioned, 0));
    assert!(!gone.database.provisioned && !gone.organization.created);
    assert!(!leaving.healthy && !gone.healthy, "a tenant that is being or was deleted is not healthy");
    process.control.stop().await;
}

async fn drift_is_named_and_repaired(world: World) {
    let process = started(&world, &[("Acme", "enterprise")]).await;
    let (control, data) = (&process.control, world.stores().data);
    std::fs::write(data.join("manifests/tenant-acme/role.yaml"), "gone: wrong").unwrap();
    std::fs::remove_file(data.join("dns/acme.json")).unwrap();
    let view = status(control, "acme").await;
    assert_eq!(differs(&view).into_keys().collect::<Vec<_>>(), ["dns", "namespace"]);
    assert!(!view.healthy && view.database.healthy);
    assert_eq!(repair(&world, control, "acme").await.state, OperationState::Succeeded);
    let view = status(control, "acme").await;
    assert!(view.healthy, "{:?}", differs(&view));
    process.control.stop().await;
}

async fn drift_that_cannot_be_repaired_needs_attention(world: World) {
    let process = started(&world, &[("Acme", "enterprise")]).await;
    let control = &process.control;
    let url = format!("sqlite://{}", database(&world).display());
    execute(&url, "DROP TABLE tasks".to_owned()).await.unwrap();
    execute(&url, "CREATE TABLE mine (x)".to_owned()).await.unwrap();
    let named = ["table `tasks` is missing", "table `mine` was added outside the migrations"];
    assert_eq!(differs(&status(control, "acme").await)["database"], named);
    let parked = repair(&world, control, "acme").await;
    assert_eq!(parked.state, OperationState::NeedsAttention);
    let step = parked.steps.iter().find(|step| step.key == "database").unwrap();
    let error = step.error.as_ref().unwrap();
    assert_eq!(error.code.as_str(), "cannot_repair");
    assert!(named.iter().all(|said| error.message.contains(said)), "{}", error.message);
    control.signal(&Caller::system(), parked.id, SignalKind::Cancel, None).await.unwrap();
    world.quiet().await;
    process.control.stop().await;
}

async fn a_recreated_database_reports_its_lost_content(world: World) {
    let process = started(&world, &[("Acme", "enterprise")]).await;
    let control = &process.control;
    std::fs::remove_dir_all(database(&world).parent().unwrap()).unwrap();
    let view = status(control, "acme").await;
    assert_eq!(differs(&view)["database"], ["the resource is missing"]);
    assert_eq!((view.database.provisioned, view.database.last_migration), (false, None));
    let parked = repair(&world, control, "acme").await;
    assert_eq!(parked.state, OperationState::NeedsAttention);
    let step = parked.steps.iter().find(|step| step.key == "database").unwrap();
    assert_eq!(step.error.as_ref().unwrap().code.as_str(), "content_lost");
    assert!(status(control, "acme").await.healthy, "the database exists again");
    control.signal(&Caller::system(), parked.id, SignalKind::Retry, None).await.unwrap();
    world.quiet().await;
    let ended = control.operation(&Caller::system(), parked.id).await.unwrap();
    assert_eq!(ended.state, OperationState::Succeeded, "a retry accepts the loss");
    process.control.stop().await;
}

async fn a_provider_without_an_answer_does_not_delay_the_status(world: World) {
    let process = started(&world, &[("Acme", "enterprise")]).await;
    let control = &process.control;
    *world.plan.silent.lock() = Some("sqlite_file".to_owned());
    let view = status(control, "acme").await;
    assert_eq!(
        differs(&view),
        BTreeMap::from([("database", vec!["the provider did not respond within 5 s"])])
    );
    let database = view.resources.iter().find(|it| it.step == "database").unwrap();
    assert_eq!((database.responding, database.exists), (false, None));
    assert!(!view.database.provisioned && !view.database.healthy);
    let drift = control.drift(&Caller::system(), &PageQuery::default()).await.unwrap();
    assert_eq!((drift.checked, drift.page.data.len()), (1, 1));
    *world.plan.silent.lock() = None;
    assert!(status(control, "acme").await.healthy);
    process.control.stop().await;
}

async fn a_wrong_fence_is_repaired(world: World) {
    let process = started(&world, &[("Acme", "gated")]).await;
    let (control, things) = (&process.control, world.stores().data.join("things"));
    let files = std::fs::read_dir(&things).unwrap().map(|file| file.unwrap().file_name());
    let thing = files.map(|file| file.into_string().unwrap()).find(|file| !file.ends_with(".fence")).unwrap();
    std::fs::write(things.join(format!("{thing}.fence")), "blocked").unwrap();
    let view = status(control, "acme").await;
    let fenced: Vec<_> =
        view.resources.iter().filter(|it| it.fence == Some(SuspensionMode::Blocked)).collect();
    assert_eq!(fenced.len(), 1);
    assert_eq!(fenced[0].differs, ["its fence denies blocked instead of nothing"]);
    repair(&world, control, "acme").await;
    let view = status(control, "acme").await;
    assert!(view.healthy, "{:?}", differs(&view));
    process.control.stop().await;
}

async fn drift_of_all_tenants_is_read_page_by_page(world: World) {
    let process = started(&world, &[("A", "starter"), ("B", "enterprise"), ("C", "starter")]).await;
    let control = &process.control;
    std::fs::remove_file(world.stores().data.join("dns/b.json")).unwrap();
    let (mut checked, mut found, mut cursor) = (0, Vec::new(), None);
    loop {
        let page = PageQuery::new(Some(1), cursor).unwrap();
        let drift = control.drift(&Caller::system(), &page).await.unwrap();
        checked += drift.checked;
        found.extend(drift.page.data.into_iter().filter_map(|status| status.slug));
        cursor = drift.page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((checked, found), (3, vec!["b".to_owned()]));
    process.control.stop().await;
}

async fn a_damaged_row_hides_no_other(world: World) {
    let process = started(&world, &[("Acme", "starter"), ("Small", "starter")]).await;
    let (control, caller) = (&process.control, Caller::system());
    let small = control.tenant(&caller, "small").await.unwrap().id;
    let damage = async |table: &str, set: &str, of: &str| {
        let change = format!("UPDATE {table} SET {set} WHERE {of} = '{small}'");
        execute(&world.registry_url(), change).await.unwrap();
    };
    damage("resources", "operation_id = 'op_of_nothing'", "tenant_id").await;
    let view = status(control, "small").await;
    assert!(
        !view.healthy && view.resources.iter().all(|it| !it.healthy && it.differs[0].contains("damaged"))
    );
    let found = control.drift(&caller, &PageQuery::default()).await.unwrap();
    assert_eq!(found.checked, 2);
    assert_eq!(found.page.data.iter().map(|status| status.id).collect::<Vec<_>>(), [small]);
    damage("steps", "needs = '{}'", "(SELECT tenant_id FROM operations WHERE id = operation_id)").await;
    damage("tenants", "labels = '[]'", "id").await;
    let operations =
        control.operations(&caller, &Default::default(), &PageQuery::default()).await.unwrap().data;
    assert!(!operations.is_empty() && operations.iter().all(|operation| operation.tenant_id != small));
    let page = PageQuery::new(Some(1), None).unwrap();
    let first = control.tenants(&caller, &Default::default(), &page).await.unwrap();
    let rest = PageQuery::new(Some(1), first.next_cursor.clone()).unwrap();
    let rest = control.tenants(&caller, &Default::default(), &rest).await.unwrap();
    assert_eq!((first.data.len(), first.has_more), (0, true), "the page goes on after the damaged row");
    assert_eq!(rest.data.iter().map(|tenant| tenant.name.as_deref()).collect::<Vec<_>>(), [Some("Acme")]);
    assert!(status(control, "acme").await.healthy);
    process.control.stop().await;
}
