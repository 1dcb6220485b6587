//! Stories of the crash tests: one per template, shipped or in the tests' folder. The calls, compensations
//! and resources of a story are derived from its template, so a new template is tested without a change here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::json;
use tenantry_control::ledger::resource_id;
use tenantry_control::template::{Library, Template};
use tenantry_engine::{Mode, OnFailure};
use tenantry_model::{Catalogue, Plan};
use tenantry_provider::{Kind, Registry, Spec};
use tenantry_testkit::crash_ledger::Faults;
use tenantry_testkit::scan::Remains;
use tokio::sync::OnceCell;

use crate::crash::live;
use crate::world::{World, request};

const SHIPPED: &str = include_str!("../../../../templates/plans.yaml");

/// A template and the plan with which its tenants are requested.
#[derive(Clone, Debug)]
pub struct Story {
    pub template: Arc<Template>,
    pub plan: String,
}

/// Folder of the tests' own templates.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/templates")
}

/// The shipped plans, and one for each template without a plan.
pub fn catalogue(providers: &Registry) -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let mut catalogue: Catalogue = yaml_serde::from_str(SHIPPED).expect("the shipped plans");
        for template in library(providers).iter().map(|template| &template.template) {
            if !catalogue.plans.iter().any(|plan| plan.template == *template) {
                let plan = json!({ "name": template, "title": template, "template": template, "price_per_month": 900 });
                catalogue.plans.push(serde_json::from_value::<Plan>(plan).expect("a plan"));
            }
        }
        catalogue
    })
}

fn library(providers: &Registry) -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| Library::open(Some(&folder()), providers).expect("valid templates"))
}

/// All stories, with the newest version of each template.
pub async fn all() -> Vec<Story> {
    let providers = World::sqlite().await.providers().await.expect("providers");
    let library = library(&providers);
    let mut stories: BTreeMap<&str, Story> = BTreeMap::new();
    for plan in &catalogue(&providers).plans {
        let template = library.latest(&plan.template).expect("its template").clone();
        stories.entry(&plan.template).or_insert_with(|| Story { template, plan: plan.name.clone() });
    }
    stories.into_values().collect()
}

/// Stands for the step of a backup rehearsal, whose resources belong to no template.
pub const REHEARSAL: &str = "rehearsal";

/// The step that a call belongs to, found by its resource's id, which is derived from tenant and step key.
pub fn step_of(spec: &Spec, providers: &Registry) -> String {
    // The notice is a step of the offboarding and in no template.
    let notice = "notice".to_owned();
    let mut keys =
        library(providers).iter().flat_map(|template| template.steps.keys()).chain(std::iter::once(&notice));
    // A resource that is created again after a hold has a later generation.
    let is = |key: &str, generation| resource_id(spec.tenant.id, generation, key) == spec.resource;
    let found = keys.find(|key| (1..=spec.generation).any(|generation| is(key, generation)));
    found.map_or_else(|| REHEARSAL.to_owned(), Clone::clone)
}

impl Story {
    /// Steps that call a provider, and the smoke test.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        let steps = self.template.steps.iter();
        steps.filter(|(key, step)| step.kind.is_some() || *key == "smoke_test").map(|(key, _)| key.as_str())
    }

    /// Of those, the inline steps: each can make the operation fail.
    pub fn causes(&self) -> impl Iterator<Item = &str> {
        self.calls().filter(|key| self.template.steps[*key].mode != Some(Mode::Detached))
    }

    /// Steps that are compensated when the smoke test fails: those that create a resource before the
    /// activation.
    pub fn undone(&self) -> impl Iterator<Item = &str> {
        self.calls().filter(|key| *key != "smoke_test" && !self.needs(key, "activate"))
    }

    /// Whether a failed smoke test needs attention instead of rolling back.
    pub fn parks(&self) -> bool {
        self.template.steps["smoke_test"].on_failure.unwrap_or(self.template.on_failure) == OnFailure::Park
    }

    fn needs(&self, key: &str, other: &str) -> bool {
        self.template.steps[key].needs.iter().any(|need| need == other || self.needs(need, other))
    }

    /// What the scan finds for a tenant of this template that was onboarded without faults, in a world of the
    /// same type.
    pub async fn undisturbed(name: &str, world: &World) -> &'static Remains {
        static FOUND: OnceCell<BTreeMap<String, Remains>> = OnceCell::const_new();
        static ON_POSTGRES: OnceCell<BTreeMap<String, Remains>> = OnceCell::const_new();
        let found = if world.tenants.is_some() { &ON_POSTGRES } else { &FOUND };
        let found = found.get_or_init(async || {
            let mut found = BTreeMap::new();
            for story in all().await {
                let calm = match &world.tenants {
                    Some(_) => World::with_tenants_on_postgres().await.expect("the same server"),
                    None => World::sqlite().await,
                };
                let seen = story.play_undisturbed(&calm).await;
                found.insert(story.template.template.clone(), seen);
            }
            found
        });
        &found.await[name]
    }

    async fn play_undisturbed(&self, world: &World) -> Remains {
        world.plan.set(&world.clock, &[]);
        let process = world.start(Faults::new()).await.expect("a process");
        let document = request("Calm", &self.plan);
        live(world, &process, self, &mut false, false, &document).await.expect("an undisturbed life");
        process.control.stop().await;
        let scan = world.stores().scan().await;
        assert_eq!((scan.tenants.len(), scan.orphans.len()), (1, 0), "{scan:?}");
        let found = scan.tenants.into_values().next().expect("one");
        assert_eq!(found.status, "active", "{found:?}");
        let mut kinds: BTreeMap<Kind, i64> = BTreeMap::new();
        let made = self.template.steps.values().filter_map(|step| step.kind);
        made.clone().for_each(|kind| *kinds.entry(kind).or_default() += 1);
        assert_eq!(found.counts["resources present"], made.count() as i64, "{found:?}");
        for (kind, steps) in kinds {
            for what in left_by(kind, world.tenants.is_some()) {
                let left: i64 =
                    found.counts.iter().filter(|(w, _)| w.starts_with(what)).map(|(_, n)| n).sum();
                assert_eq!(left, steps, "{what} of {kind:?}: {found:?}");
            }
        }
        found
    }
}

/// Names of the counts that one step of this kind adds. A new kind needs a line here; a new template does
/// not.
fn left_by(kind: Kind, on_postgres: bool) -> &'static [&'static str] {
    match kind {
        Kind::Database if on_postgres => &["list homes", "roles", "database workspaces"],
        // The login role has a password as well.
        Kind::Identity if on_postgres => &["members"],
        Kind::Database => &["database _tenants", "database workspaces"],
        Kind::Identity => &["members", "credentials"],
        Kind::Config => &["configs"],
        Kind::Billing => &["customers", "subscriptions active", "invoices open"],
        Kind::Mail => &["mails"],
        Kind::Custom => &["things"],
        Kind::Bucket => &["buckets"],
        Kind::Namespace => &["namespaces"],
        Kind::Dns => &["hosts"],
        Kind::Certificate => &["certificates"],
    }
}
