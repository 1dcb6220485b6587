//! The providers of the control plane, whose resources are rows of the registry: members, billing and configuration. They keep
//! the contract of all providers, and plans that were stored before a step's `with` still fit them.

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_control::billing::BillingBuiltin;
use tenantry_control::members::IdentityBuiltin;
use tenantry_control::tenants::config::ConfigBuiltin;
use tenantry_model::{Write, columns};
use tenantry_provider::conformance::transfer::{ContentEnvironment, Export};
use tenantry_provider::conformance::world::{self, World, object};
use tenantry_provider::conformance::{Environment, ensure, must_keep_contract, rival};
use tenantry_provider::kinds::identity::INVITATION_TOKEN;
use tenantry_provider::{Provider, Spec};

/// A provider whose resources are registry rows. `spoil` makes one incomplete.
struct RegistryRows {
    provider: Box<dyn Provider>,
    settings: Value,
    world: World,
    /// Table of the resource.
    table: &'static str,
    spoil: fn(&World, &Spec),
}

#[async_trait]
impl Environment for RegistryRows {
    fn provider(&self) -> &dyn Provider {
        &*self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        self.settings.clone()
    }
    async fn count(&self, spec: &Spec) -> usize {
        self.world.registry.with(self.table, |rows| {
            let living = rows.iter().filter(|row| row.get("state").is_none_or(|state| state != "cancelled"));
            living.filter(|row| row.get("tenant_id") == Some(&json!(spec.tenant.id))).count()
        })
    }
    async fn snapshot(&self) -> String {
        self.world.registry.dump()
    }
    async fn plant_foreign(&self, spec: &Spec) {
        let mut rival = rival(spec);
        rival.resource = tenantry_model::id::ResourceId::new();
        rival.operation = tenantry_model::id::OperationId::new();
        ensure(self, &rival).await;
    }
    async fn leave_half(&self, spec: &Spec) {
        ensure(self, spec).await;
        (self.spoil)(&self.world, spec);
    }
    async fn unusable(&self) -> Option<Box<dyn Provider>> {
        None
    }
}

fn forget(world: &World, spec: &Spec, table: &'static str) {
    world
        .registry
        .with(table, |rows| rows.retain(|row| row.get("tenant_id") != Some(&json!(spec.tenant.id))));
}

#[tokio::test]
async fn builtin_identity() {
    let environment = |first_admin: &str, spoil| RegistryRows {
        provider: Box::new(IdentityBuiltin::default()),
        settings: json!({ "first_admin": first_admin }),
        world: World::default(),
        table: "members",
        spoil,
    };
    must_keep_contract(&environment("invitation", |world, spec| forget(world, spec, "invitations"))).await;
    must_keep_contract(&environment("one_time_password", |_, _| {})).await;
}

#[tokio::test]
async fn builtin_config() {
    must_keep_contract(&RegistryRows {
        provider: Box::new(ConfigBuiltin::default()),
        settings: json!({ "flags": { "projects": true }, "settings": { "date_format": "iso" }, "quotas": { "seats": 5 } }),
        world: World::default(),
        table: "configs",
        spoil: |world, _| {
            world.registry.with("configs", |rows| rows.iter_mut().for_each(|row| drop(row.insert("flags".into(), json!({})))));
        },
    })
    .await;
}

#[tokio::test]
async fn builtin_billing() {
    for spoil in [(|world, spec| forget(world, spec, "invoices")) as fn(&World, &Spec), |world, spec| {
        forget(world, spec, "customers")
    }] {
        must_keep_contract(&RegistryRows {
            provider: Box::new(BillingBuiltin::default()),
            settings: json!({ "billing_cycle": "yearly", "amount": 9000, "currency": "EUR" }),
            world: World::default(),
            table: "subscriptions",
            spoil,
        })
        .await;
    }
}

#[tokio::test]
async fn a_removed_administrator_is_not_recreated() {
    let (world, provider) = (World::default(), IdentityBuiltin::default());
    let spec = world::spec(json!({ "first_admin": "one_time_password" }));
    world.registry.apply(&provider.ensure(&world.context(), &spec).await.unwrap().writes);
    world.registry.with("members", |rows| rows[0].insert("id".to_owned(), json!("usr_another")));
    let again = provider.ensure(&world.context(), &spec).await.unwrap();
    assert_eq!(again.writes, []);
}

#[tokio::test]
async fn a_lost_invitation_is_replaced_together_with_its_secret() {
    let (world, provider) = (World::default(), IdentityBuiltin::default());
    let spec = world::spec(json!({}));
    world.registry.apply(&provider.ensure(&world.context(), &spec).await.unwrap().writes);
    forget(&world, &spec, "invitations");
    world.registry.apply(&provider.ensure(&world.context(), &spec).await.unwrap().writes);
    let stored = world.registry.with("invitations", |rows| rows[0]["token_hash"].clone());
    let token = world.secret(&spec, INVITATION_TOKEN);
    assert_eq!(stored, json!(hex::encode(Sha256::digest(token))));
}

#[tokio::test]
async fn a_removal_deletes_the_secret_that_waits() {
    for first_admin in ["invitation", "one_time_password"] {
        let (world, provider) = (World::default(), IdentityBuiltin::default());
        let spec = world::spec(json!({ "first_admin": first_admin }));
        world.registry.apply(&provider.ensure(&world.context(), &spec).await.unwrap().writes);
        assert_eq!(world.secrets().len(), 1, "{first_admin}");
        world.registry.apply(&provider.remove(&world.context(), &spec).await.unwrap().writes);
        assert_eq!(world.secrets(), Vec::<String>::new(), "{first_admin}");
    }
}

#[tokio::test]
async fn a_late_step_does_not_restart_a_subscription() {
    let world = World::default();
    let spec = world::spec(json!({ "amount": 900 }));
    let made = BillingBuiltin::default().ensure(&world.context(), &spec).await.unwrap();
    world.registry.apply(&made.writes);
    let gone = BillingBuiltin::default().remove(&world.context(), &spec).await.unwrap();
    world.registry.apply(&gone.writes);
    assert_eq!(
        (&gone.receipt["subscriptions_cancelled"], &gone.receipt["invoices_voided"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(gone.receipt["kept_in_ledger"], json!({ "subscriptions": 1, "invoices": 1 }));
    let late = BillingBuiltin::default().ensure(&world.context(), &spec).await.unwrap_err();
    assert_eq!(late.code, "stale_generation");
    let newer = Spec { generation: 2, ..spec.clone() };
    let made = BillingBuiltin::default().ensure(&world.context(), &newer).await.unwrap();
    world.registry.apply(&made.writes);
    assert_eq!(
        BillingBuiltin::default().ensure(&world.context(), &spec).await.unwrap_err().code,
        "stale_generation"
    );
    let states = world
        .registry
        .with("subscriptions", |rows| rows.iter().map(|r| r["state"].clone()).collect::<Vec<_>>());
    assert_eq!(states, [json!("cancelled"), json!("active")]);
}

#[tokio::test]
async fn a_prorated_end_keeps_the_invoice_and_credits_the_rest() {
    let (world, provider) = (World::default(), BillingBuiltin::default());
    let spec = world::spec(json!({ "amount": 900, "prorate": true }));
    world.registry.apply(&provider.ensure(&world.context(), &spec).await.unwrap().writes);
    let removed = provider.remove(&world.context(), &spec).await.unwrap();
    world.registry.apply(&removed.writes);
    let receipt = &removed.receipt;
    assert_eq!((&receipt["invoices_voided"], &receipt["credits_issued"]), (&json!(0), &json!(1)));
    let invoices: Vec<Value> = world
        .registry
        .with("invoices", |rows| rows.iter().map(|row| json!([row["amount"], row["state"]])).collect());
    assert_eq!(invoices, [json!([900, "open"]), json!([-900, "open"])]);
}

#[tokio::test]
async fn changes_of_the_tenant_are_kept() {
    let world = World::default();
    let spec = world::spec(json!({ "flags": { "a": true }, "settings": { "x": 1 } }));
    world.registry.apply(&ConfigBuiltin::default().ensure(&world.context(), &spec).await.unwrap().writes);
    world.registry.with("configs", |rows| rows[0].insert("flags".to_owned(), json!({ "a": false })));
    let more =
        Spec { settings: json!({ "flags": { "a": true, "b": true }, "settings": { "x": 1 } }), ..spec };
    world.registry.apply(&ConfigBuiltin::default().ensure(&world.context(), &more).await.unwrap().writes);
    let flags = world.registry.with("configs", |rows| rows[0]["flags"].clone());
    assert_eq!(object(flags), object(json!({ "a": false, "b": true })));
}

/// A provider whose content is exported and loaded.
struct Loaded<P> {
    provider: P,
    world: World,
}

#[async_trait]
impl<P: Provider> ContentEnvironment for Loaded<P> {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }
    fn world(&self) -> &World {
        &self.world
    }
    fn settings(&self) -> Value {
        json!({})
    }
    async fn fill(&self, _: &Spec, _: &str) {}
}

#[tokio::test]
async fn settings() {
    let environment = Loaded { provider: ConfigBuiltin::default(), world: World::default() };
    let (old, new) = (environment.tenant().await, environment.tenant().await);
    environment.world().registry.with("configs", |rows| {
        let row = rows.iter_mut().find(|row| row["tenant_id"] == json!(old.tenant.id)).unwrap();
        row.insert(
            "settings".to_owned(),
            json!({ "quotas": { "seats": 5 }, "a": { "deep": [1, null, "ü"] } }),
        );
        row.insert("flags".to_owned(), json!({ "sso": true }));
    });
    let (export, content) = environment.export(&old).await;
    environment.load(&new, &mut export.source()).await.unwrap();
    assert_eq!(environment.content(&new).await, content);
    let row = environment.world().registry.with("configs", |rows| {
        rows.iter().find(|row| row["tenant_id"] == json!(new.tenant.id)).unwrap().clone()
    });
    assert_eq!(row["settings"]["quotas"], json!({}), "quotas come from the plan");
    assert_eq!(row["flags"], json!({}), "so do features");
    for (settings, why) in [
        (json!({ "a": "x\u{7}" }), "control characters"),
        (json!({ "a\u{7}": "x" }), "control characters"),
        (json!({ "a": "x".repeat(1 << 20) }), "at most 1048576 bytes"),
    ] {
        let document = json!({ "flags": {}, "settings": settings }).to_string();
        let forged = Export(vec![("config.json".to_owned(), document.into_bytes())]);
        let refused = environment.load(&new, &mut forged.source()).await.unwrap_err();
        assert!(refused.code == "bad_archive" && refused.message.contains(why), "{refused}");
    }
    assert_eq!(environment.content(&new).await, content);
}

#[tokio::test]
async fn members() {
    let environment = Loaded { provider: IdentityBuiltin::default(), world: World::default() };
    let (old, new) = (environment.tenant().await, environment.tenant().await);
    let (export, content) = environment.export(&old).await;
    assert!(export.text().contains(&old.tenant.admin.email), "in clear text");
    for secret in environment.world().secrets() {
        assert!(!export.text().contains(&secret), "a secret was exported");
    }
    for _ in 0..2 {
        environment.load(&new, &mut export.source()).await.unwrap();
    }
    let both = environment.content(&new).await;
    assert_eq!((content.counts["members"], both.counts["members"]), (1, 2), "the first administrator stays");
    let invited = environment.world().registry.with("invitations", |rows| {
        rows.iter().filter(|row| row["tenant_id"] == json!(new.tenant.id)).count()
    });
    assert_eq!(invited, 2, "each loaded member is invited");
    // The same members in a tenant without others.
    let mut alike = environment.tenant().await;
    alike.tenant.admin = old.tenant.admin.clone();
    environment
        .world()
        .registry
        .with("members", |rows| rows.retain(|row| row["tenant_id"] != json!(alike.tenant.id)));
    environment.load(&alike, &mut export.source()).await.unwrap();
    assert_eq!(environment.content(&alike).await, content);
}

/// An archive can be written by hand: it gets no member that a sign-up would not get.
#[tokio::test]
async fn members_of_an_archive_pass_the_checks_of_a_sign_up() {
    let environment = Loaded { provider: IdentityBuiltin::default(), world: World::default() };
    let new = environment.tenant().await;
    let before = environment.content(&new).await;
    let quotas = json!({ "quotas": { "seats": 3 } });
    let row = columns! {
        "tenant_id": new.tenant.id, "namespace": "n", "resource_id": new.resource, "flags": json!({}),
        "settings": quotas, "updated_at": environment.world().context().now,
    };
    environment.world().registry.apply(&[Write::insert("configs", row)]);
    let archive = |people: &[(&str, &str, &str)]| {
        let mut text =
            "\"id\",\"email\",\"first_name\",\"last_name\",\"role\",\"state\",\"created_at\"\n".to_owned();
        for (email, name, role) in people {
            text +=
                &format!("\"x\",\"{email}\",\"{name}\",,\"{role}\",\"active\",\"2026-11-30T00:00:00Z\"\n");
        }
        Export(vec![("members.000001.csv".to_owned(), text.into_bytes())])
    };
    let long = "x".repeat(101);
    for (email, name, role) in [
        ("bea@example.com\r\nBcc: all@example.com", "Bea", "member"),
        ("bea\u{200b}@example.com", "Bea", "member"),
        ("bea", "Bea", "member"),
        ("bea@example.com", "B\na", "member"),
        ("bea@example.com", "B\u{202e}a", "member"),
        ("bea@example.com", &long, "member"),
        ("bea@example.com", "Bea", "god"),
    ] {
        let refused =
            environment.load(&new, &mut archive(&[(email, name, role)]).source()).await.unwrap_err();
        assert_eq!(refused.code, "bad_archive", "{email:?} {name:?} {role}");
        assert!(!refused.message.contains("bea"), "{refused}");
    }
    let people = ["a@example.com", "b@example.com", "c@example.com"].map(|email| (email, "A", "member"));
    let refused = environment.load(&new, &mut archive(&people).source()).await.unwrap_err();
    assert_eq!(refused.code, "quota_exceeded", "a fourth member has no seat");
    assert_eq!(environment.content(&new).await, before);
    environment.load(&new, &mut archive(&people[..2]).source()).await.unwrap();
    assert_eq!(environment.content(&new).await.counts["members"], 3);
}

#[tokio::test]
async fn invoices_are_exported_and_not_loaded() {
    let environment = Loaded { provider: BillingBuiltin::default(), world: World::default() };
    let old = environment.tenant().await;
    let (export, content) = environment.export(&old).await;
    assert!(export.text().contains("INV-"), "{}", export.text());
    assert_eq!((content.counts["subscriptions"], content.counts["invoices"]), (1, 1));
    assert!(environment.provider().transfer().unwrap().one_way().is_some());
    assert_eq!(environment.load(&old, &mut export.source()).await.unwrap_err().code, "one_way");
}

#[test]
fn settings_of_older_plans_are_understood() {
    let understands = |provider: &dyn Provider, settings: Value| {
        assert_eq!(provider.check(&settings), [], "{} {settings}", provider.name());
    };
    understands(
        &BillingBuiltin::default(),
        json!({ "billing_cycle": "yearly", "amount": 900, "currency": "EUR", "prorate": true }),
    );
    understands(
        &ConfigBuiltin::default(),
        json!({ "flags": { "a": true }, "settings": {}, "quotas": { "seats": 5 } }),
    );
    understands(&IdentityBuiltin::default(), json!({ "first_admin": "one_time_password" }));
}
