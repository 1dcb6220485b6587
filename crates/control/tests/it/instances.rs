//! Several instances of one provider type in one process.

use std::sync::Arc;

use tenantry_control::Caller;
use tenantry_control::objects::SignObject;
use tenantry_control::tenants::config::ConfigBuiltin;
use tenantry_provider::Registry;
use tenantry_provider::objects::{Method, New};
use tenantry_testkit::crash_ledger::Faults;

use crate::crash::people;
use crate::world::{World, in_both_worlds, request};

in_both_worlds! {
    an_address_is_opened_by_the_instance_that_signed_it
}

/// The tenant's bucket is in the instance that comes second by name.
async fn an_address_is_opened_by_the_instance_that_signed_it(mut world: World) {
    world.another_bucket = true;
    let process = world.start(Faults::new()).await.unwrap();
    let (control, caller) = (&process.control, Caller::system());
    let made = control.create_tenant(&caller, &request("Two buckets", "growth"), None).await.unwrap();
    people(&world, control, false).await.unwrap();
    let onboarded = control.operation(&caller, made.operation.id).await.unwrap();
    let bucket = onboarded.steps.iter().find(|step| step.kind == "bucket").unwrap();
    assert!(bucket.provider.as_str() > "another_bucket", "{} is asked second", bucket.provider);
    let secrets = control.claim_credentials(&caller, made.operation.id).await.unwrap();
    let token = control.accept_invitation(&secrets[0].value, None).await.unwrap().access_token;
    let session = control.verify_token(&token).unwrap();
    let wish = SignObject { key: "film".to_owned(), method: Method::Put, expires_in: 60 };
    let signed = control.sign_object(&session, &wish).await.unwrap();
    let tenantry_control::objects::Opened { objects, at, .. } = control.open_signed(&signed).await.unwrap();
    let body = Box::pin(std::io::Cursor::new(b"frames".to_vec()));
    objects.put(New { key: "film", content_type: None, at }, body).await.unwrap();
    let mut forged = signed;
    forged.key.push('2');
    let refused = control.open_signed(&forged).await.err().map(|error| error.code.as_str());
    assert_eq!(refused, Some("bad_signature"));
}

#[test]
fn two_instances_of_one_name_are_rejected() {
    let mut registry = Registry::default().add(ConfigBuiltin::default());
    let rejected = registry.insert(Arc::new(ConfigBuiltin::default())).unwrap_err();
    assert_eq!(rejected.code.as_str(), "duplicate_provider");
    registry.insert(Arc::new(ConfigBuiltin::named("second"))).unwrap();
    assert_eq!(
        registry.iter().map(|provider| provider.name()).collect::<Vec<_>>(),
        ["builtin_config", "second"]
    );
}
