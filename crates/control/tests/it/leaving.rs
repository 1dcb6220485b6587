//! Erasure: access ends at once, all data is deleted and searched for, and a certificate is issued only if
//! nothing is left.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use sha2::Digest as _;
use tenantry_control::objects::SignObject;
use tenantry_control::operations::erase::EraseTenant;
use tenantry_control::operations::offboard::certificate::{Certificate, check};
use tenantry_control::{Caller, Control, ErrorKind, IdempotencyKey};
use tenantry_engine::{Clock as _, OperationState, SignalKind};
use tenantry_model::TenantStatus;
use tenantry_provider::objects::{Method, New};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::markers::Marker;
use tenantry_testkit::raw::{Raw, Row};
use tenantry_testkit::scan::get;

use crate::crash::people;
use crate::faulty::{Fault, How};
use crate::scan;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    an_erased_tenant_has_a_certificate
    no_certificate_while_a_provider_has_data
    erasure_supersedes_an_onboarding_in_every_state
    erasure_keeps_other_tenants
    no_trace_of_an_erased_tenant_is_found
    an_erasure_is_repeated_after_a_restore_of_the_registry
    concurrent_erasures_get_consecutive_certificates
    a_repeated_request_does_not_create_an_erased_tenant_again
}

async fn a_repeated_request_does_not_create_an_erased_tenant_again(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let create = async || {
        let key = IdempotencyKey::parse("sign-up 7").ok();
        control.create_tenant(&caller, &request("Acme", "starter"), key).await.unwrap()
    };
    let first = create().await;
    people(&world, control, false).await.unwrap();
    control.erase(&caller, "acme", &reason(), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let again = create().await;
    assert!(again.replayed);
    assert_eq!((again.tenant.id, again.tenant.status), (first.tenant.id, TenantStatus::Deprovisioned));
    assert_eq!(ask(&world, "SELECT id FROM tenants").await.len(), 1);
    let hashes = ask(&world, "SELECT body_hash FROM idempotency_keys WHERE body_hash <> ''").await;
    assert!(hashes.is_empty(), "a request that names people is not recognised by its hash");
    let gone = control.claim_credentials(&caller, first.operation.id).await.err().unwrap();
    assert_eq!(gone.code.as_str(), "credentials_gone");
    process.control.stop().await;
}

/// Every certificate names its predecessor, so certificates are issued one at a time.
async fn concurrent_erasures_get_consecutive_certificates(world: World) {
    const MANY: usize = 60;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let make = |n: usize| async move {
        let document = request(&format!("Tenant {n}"), "starter");
        control.create_tenant(&Caller::system(), &document, None).await.unwrap().tenant.id.to_string()
    };
    let tenants = join_all((0..MANY).map(make)).await;
    people(&world, control, false).await.unwrap();
    let reason = reason();
    let begun = join_all(tenants.iter().map(|tenant| control.erase(&caller, tenant, &reason, None))).await;
    people(&world, control, false).await.unwrap();
    for begun in begun {
        let ended = control.operation(&caller, begun.unwrap().value.id).await.unwrap();
        let certify = ended.steps.iter().find(|step| step.key == "certify").unwrap();
        assert_eq!((ended.state, certify.attempts), (OperationState::Succeeded, 1), "{certify:?}");
    }
    let certificates = join_all(tenants.iter().map(|tenant| certificate(control, tenant))).await;
    let numbers: BTreeSet<i64> = certificates.iter().map(|certificate| certificate.seq).collect();
    assert!(numbers.into_iter().eq(1..=MANY as i64));
    process.control.stop().await;
}

/// The registry is restored from a backup from before the erasure; the keyring, which is stored elsewhere, is
/// not.
async fn an_erasure_is_repeated_after_a_restore_of_the_registry(mut world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let tenant = active(&world, &process.control, "Acme", "enterprise").await;
    let other = active(&world, &process.control, "Other", "starter").await;
    process.control.stop().await;
    drop(process);
    let backup = world.back_up().await;
    let process = world.start(Faults::new()).await.unwrap();
    process.control.erase(&Caller::system(), &tenant, &reason(), None).await.unwrap();
    people(&world, &process.control, false).await.unwrap();
    certificate(&process.control, &tenant).await;
    process.control.stop().await;
    drop(process);
    world.restore(backup);
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let view = control.tenant(&caller, &tenant).await.unwrap();
    assert_eq!(view.status, TenantStatus::Deprovisioning, "the erasure starts before requests are served");
    people(&world, control, false).await.unwrap();
    let again = certificate(control, &tenant).await;
    assert_eq!((again.reason, again.requested_by.as_str()), (reason().reason, "system"));
    assert_eq!(control.tenant(&caller, &other).await.unwrap().status, TenantStatus::Active);
    process.control.stop().await;
    drop(process);
    let (found, faults) =
        (scan::faults(&world).await, ask(&world, "SELECT id FROM tenants WHERE name = 'Acme'").await);
    assert!(found.is_empty() && faults.is_empty(), "{found:#?}");
    // The next start begins no further erasure.
    let process = world.start(Faults::new()).await.unwrap();
    world.quiet().await;
    assert_eq!(certificate(&process.control, &tenant).await.operation_id, again.operation_id);
}

fn reason() -> EraseTenant {
    EraseTenant { reason: "request under Art. 17 GDPR".to_owned() }
}

/// The tenant's certificate, verified.
pub async fn certificate(control: &Control, tenant: &str) -> Certificate {
    let document = control.certificate(&Caller::system(), tenant).await.unwrap();
    let key = control.certificate_public_key().await.unwrap();
    check(&document.to_string(), &key.pem).unwrap()
}

pub async fn active(world: &World, control: &Control, name: &str, plan: &str) -> String {
    let made = control.create_tenant(&Caller::system(), &request(name, plan), None).await.unwrap();
    people(world, control, false).await.unwrap();
    made.tenant.id.to_string()
}

/// Each provider in turn reports deletions without doing them.
async fn no_certificate_while_a_provider_has_data(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let providers: Vec<String> = {
        let tenant = active(&world, control, "First", "enterprise").await;
        let resources = control.erase(&caller, &tenant, &reason(), None).await.unwrap().value.steps;
        let deletes = resources.iter().filter(|step| step.key.starts_with("remove_"));
        deletes.map(|step| step.provider.clone()).collect()
    };
    assert!(providers.len() > 8, "{providers:?}");
    for provider in &providers {
        people(&world, control, false).await.unwrap();
        let tenant =
            active(&world, control, &format!("Acme {provider}").replace('_', " "), "enterprise").await;
        *world.plan.liar.lock() = Some(provider.clone());
        let begun = control.erase(&caller, &tenant, &reason(), None).await.unwrap().value;
        world.quiet().await;
        let stopped = control.operation(&caller, begun.id).await.unwrap();
        assert_eq!(stopped.state, OperationState::NeedsAttention, "{provider}: {stopped:#?}");
        let none = control.certificate(&caller, &tenant).await.unwrap_err();
        assert_eq!(none.code.as_str(), "certificate_not_found", "{provider}");
        assert_eq!(control.tenant(&caller, &tenant).await.unwrap().status, TenantStatus::Deprovisioning);
        for signal in [SignalKind::Cancel, skip("scan"), skip("certify"), skip("scan_registry")] {
            let refused = control.signal(&caller, begun.id, signal, None).await.unwrap_err();
            assert_eq!(refused.code.as_str(), "signal_refused", "{refused:?}");
        }
        let alerts = format!(
            "SELECT id FROM events WHERE type = 'operation.needs_attention' AND operation_id = '{}'",
            begun.id
        );
        assert_eq!(ask(&world, &alerts).await.len(), 1, "{provider}: an event is written");
        *world.plan.liar.lock() = None;
        // Rows of providers in the registry were reported as deleted; delete them by hand.
        for table in ["members", "invitations", "configs"] {
            ask(&world, &format!("DELETE FROM {table} WHERE tenant_id = '{tenant}' RETURNING 1")).await;
        }
        let cancel = "UPDATE subscriptions SET state = 'cancelled'";
        ask(&world, &format!("{cancel} WHERE tenant_id = '{tenant}' RETURNING 1")).await;
        control.signal(&caller, begun.id, SignalKind::Retry, None).await.unwrap();
        people(&world, control, false).await.unwrap();
        certificate(control, &tenant).await;
    }
}

/// Rows of a query on the registry.
pub async fn ask(world: &World, question: &str) -> Vec<Row> {
    let registry = Raw::connect(&world.registry_url()).await;
    let found = registry.rows(question).await;
    registry.close().await;
    found
}

fn skip(step: &str) -> SignalKind {
    SignalKind::Skip { step: step.to_owned(), reason: "tired".to_owned() }
}

async fn an_erased_tenant_has_a_certificate(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    for plan in ["enterprise", "growth", "starter"] {
        let tenant = active(&world, control, &format!("Acme {plan}"), plan).await;
        let slug = format!("acme-{plan}");
        let none = control.certificate(&caller, &tenant).await.unwrap_err();
        assert_eq!((none.kind(), none.code.as_str()), (ErrorKind::NotFound, "certificate_not_found"));
        let key = || IdempotencyKey::parse(plan).ok();
        let begun = control.erase(&caller, &slug, &reason(), key()).await.unwrap().value;
        let view = control.tenant(&caller, &tenant).await.unwrap();
        assert_eq!(view.status, TenantStatus::Deprovisioning);
        people(&world, control, false).await.unwrap();
        let ended = control.operation(&caller, begun.id).await.unwrap();
        assert_eq!((ended.kind.as_str(), ended.state), ("erase", OperationState::Succeeded), "{ended:#?}");
        let view = control.tenant(&caller, &slug).await.unwrap();
        assert_eq!((view.status, view.slug, view.name), (TenantStatus::Deprovisioned, None, None));
        let proof = certificate(control, &tenant).await;
        assert_eq!((proof.tenant_id.to_string(), proof.operation_id), (tenant.clone(), begun.id));
        assert_eq!(proof.reason, reason().reason);
        assert!(
            proof.resources.iter().all(|gone| gone.deleted_at.is_some() && gone.step.is_some()),
            "{proof:#?}"
        );
        assert!(proof.registry.values().all(|rows| *rows == 0) && proof.registry.contains_key("members"));
        // A repeated request returns the same operation and certificate.
        let again = control.erase(&caller, &tenant, &reason(), key()).await.unwrap();
        assert_eq!((again.value.id, again.replayed), (begun.id, true));
        let again =
            control.erase(&caller, &tenant, &EraseTenant { reason: "again".to_owned() }, None).await.unwrap();
        assert_eq!(again.value.id, begun.id);
        assert_eq!(certificate(control, &tenant).await, proof);
        // The slug stays taken; the name is free again.
        let mut taken = request(&format!("Acme {plan}"), plan);
        taken["slug"] = json!(slug);
        assert_eq!(
            control.create_tenant(&caller, &taken, None).await.unwrap_err().code.as_str(),
            "slug_taken"
        );
    }
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// An onboarding that waits for approval, creates resources, rolls back or needs attention leaves nothing.
async fn erasure_supersedes_an_onboarding_in_every_state(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let forever = |step: &str, forward, how| Fault::new(step, forward, how, u32::MAX);
    let cases = [
        ("enterprise", vec![], false),
        ("growth", vec![forever("bucket", true, How::HangAfter)], false),
        ("growth", vec![forever("database", true, How::UnknownAfter)], false),
        (
            "growth",
            vec![forever("smoke_test", true, How::Fatal), forever("bucket", false, How::HangBefore)],
            false,
        ),
        ("growth", vec![forever("smoke_test", true, How::Fatal), forever("bucket", false, How::Fatal)], true),
        // Already rolled back: its resources are searched for all the same.
        ("growth", vec![forever("smoke_test", true, How::Fatal)], true),
        ("starter", vec![forever("billing", true, How::Fatal)], true),
    ];
    for (n, (plan, faults, rest)) in cases.into_iter().enumerate() {
        world.plan.set(&world.clock, &faults);
        let made = control.create_tenant(&caller, &request(&format!("Case {n}"), plan), None).await.unwrap();
        if rest {
            world.quiet().await;
        }
        let begun = control.erase(&caller, &made.tenant.id.to_string(), &reason(), None).await.unwrap();
        world.plan.set(&world.clock, &[]);
        people(&world, control, false).await.unwrap_or_else(|why| panic!("case {n}: {why}"));
        let ended = control.operation(&caller, begun.value.id).await.unwrap();
        assert_eq!(ended.state, OperationState::Succeeded, "case {n}: {ended:#?}");
        certificate(control, &made.tenant.id.to_string()).await;
    }
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

async fn erasure_keeps_other_tenants(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    for plan in ["starter", "growth", "enterprise"] {
        let stays = active(&world, control, &format!("Stays {plan}"), plan).await;
        let goes = active(&world, control, &format!("Goes {plan}"), plan).await;
        control.erase(&caller, &goes, &reason(), None).await.unwrap();
        people(&world, control, false).await.unwrap();
        certificate(control, &goes).await;
        assert_eq!(control.tenant(&caller, &stays).await.unwrap().status, TenantStatus::Active);
    }
    let chain = ask(&world, "SELECT certificate, hash FROM certificates ORDER BY seq").await;
    let mut last = None;
    for row in &chain {
        let (text, hash): (String, String) = (get(row, 0), get(row, 1));
        let certificate: Certificate = serde_json::from_str(&text).unwrap();
        assert_eq!(certificate.previous, last, "every certificate names its predecessor");
        assert_eq!(hex::encode(sha2::Sha256::digest(&text)), hash);
        last = Some(hash);
    }
    assert_eq!(chain.len(), 3);
    // The scan of the stores compares the remaining tenants with undisturbed ones.
    let faults = scan::faults(&world).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Puts unique words into everything that a tenant can store, and searches all files and tables for them
/// after the erasure.
async fn no_trace_of_an_erased_tenant_is_found(world: World) {
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let document = json!({
        "tenant_name": "Marker01 Inc", "slug": "marker02", "locale": "de", "labels": { "marker03": "marker04" },
        "admin_user": { "email": "marker05@marker06.example", "first_name": "Marker07", "last_name": "Marker08" },
        "subscription": { "plan": "enterprise" },
        "configuration": { "settings": { "marker09": "marker10" }, "branding": { "logo": "marker11" } }
    });
    let made =
        control.create_tenant(&caller, &document, IdempotencyKey::parse("marker12").ok()).await.unwrap();
    people(&world, control, false).await.unwrap();
    let tenant = made.tenant.id.to_string();
    let secrets = control.claim_credentials(&caller, made.operation.id).await.unwrap();
    let token = control.accept_invitation(&secrets[0].value, None).await.unwrap().access_token;
    let session = control.verify_token(&token).unwrap();
    let row = json!({ "project_id": "starter", "title": "marker13" });
    control.insert_row(&session, "tasks", row.as_object().cloned().unwrap()).await.unwrap();
    let wish = SignObject { key: "marker14.txt".to_owned(), method: Method::Put, expires_in: 60 };
    let signed = control.sign_object(&session, &wish).await.unwrap();
    let tenantry_control::objects::Opened { objects, at, .. } = control.open_signed(&signed).await.unwrap();
    let body = Box::pin(std::io::Cursor::new(b"marker15".repeat(1_000)));
    objects.put(New { key: "marker14.txt", content_type: Some("text/marker16"), at }, body).await.unwrap();
    drop(objects);
    let key = json!({ "name": "marker17", "scopes": ["tenant"], "tenant": tenant });
    control.create_key(&caller, &key, None).await.unwrap();
    assert!(!found(&world).await.is_empty(), "the search finds the words before the erasure");
    control.erase(&caller, "marker02", &reason(), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    certificate(control, &tenant).await;
    process.control.stop().await;
    drop(process);
    let found = found(&world).await;
    assert!(found.is_empty(), "{found:#?}");
}

/// The background task deletes expired idempotency keys and sign-in codes, and no others.
#[tokio::test]
async fn expired_keys_and_codes_are_deleted() {
    let world = World::sqlite().await;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let ask_again = async || {
        let key = IdempotencyKey::parse("sign-up").ok();
        control.create_tenant(&caller, &request("Acme", "starter"), key).await
    };
    let made = ask_again().await.unwrap();
    people(&world, control, false).await.unwrap();
    let after = async |days: u64| {
        world.clock.sleep_until(world.clock.now() + Duration::from_secs(days * 86_400)).await;
        control.sweep().await.unwrap().answers
    };
    assert_eq!(after(29).await, 0);
    let again = ask_again().await.unwrap();
    assert_eq!((again.replayed, again.tenant.id), (true, made.tenant.id));
    assert_eq!((after(2).await, after(0).await), (1, 0), "safe to repeat");
    assert_eq!(ask_again().await.unwrap_err().code.as_str(), "tenant_name_taken");
    let code = "INSERT INTO sign_in_codes (hash, tenant_id, member_id, purpose, expires_at)";
    ask(
        &world,
        &format!("{code} VALUES ('x', 'ten_x', 'usr_x', 'test', '2020-01-01T00:00:00.000000Z') RETURNING 1"),
    )
    .await;
    assert_eq!((control.sweep().await.unwrap().codes, control.sweep().await.unwrap().codes), (1, 0));
}

/// Places that contain markers: files below the data folder and tables of the registry.
async fn found(world: &World) -> Vec<String> {
    let marker = Marker::new("marker");
    let mut found = marker.in_folder(&world.stores().data);
    if world.registry_url().starts_with("postgres") {
        found.extend(marker.in_postgres(&world.registry_url()).await);
    }
    found
}
