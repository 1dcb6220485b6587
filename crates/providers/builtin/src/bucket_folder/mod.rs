//! Stores each tenant's files in a folder of their own. This file has the provider's verbs and the access to
//! objects. Changes no folder with another owner tag, and rejects buckets that are public.
//!
#![doc = include_str!("docs.md")]

mod client;
mod config;
mod connection;
mod index;
mod keys;
mod signing;
mod transfer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenantry_model::{Failure, TenantId, Timestamp, Write};

use client::{Buckets, Handle, Policy, Which, index_file, objects_folder, policy_file};
pub use config::Config;
use keys::key_file;
use tenantry_provider::factory::{self, ProviderFactory};
use tenantry_provider::kinds::bucket::{BucketSettings as Settings, Encryption};
use tenantry_provider::objects::{Expired, Objects, Signed, TenantObjects};
use tenantry_provider::resource_folder::{self, ResourceFolder};
use tenantry_provider::resource_locks::{ResourceLocks, blocking};
use tenantry_provider::settings;
use tenantry_provider::transfer::{Content, Sink, Source, Transfer};
use tenantry_provider::verbs::{
    Context, Ensured, Fault, Kind, Observed, Ownership, Provider, Removed, Sealer, Spec,
};

/// The type, and the name of its default instance.
const NAME: &str = "folder_bucket";

/// How a server makes these providers.
pub const FACTORY: ProviderFactory = ProviderFactory {
    type_name: NAME,
    kind: Kind::Bucket,
    about: "Buckets as folders",
    parts: &[""],
    always: true,
    schema: settings::schema::<Config>,
    defaults: |context| json!({ "folder": context.path("buckets") }),
    check: factory::no_check,
    build: |context, config| {
        Box::pin(
            async move { Ok(factory::one(BucketFolder::new(factory::config(config)?).named(&context.name))) },
        )
    },
};

/// The provider.
#[derive(Clone)]
pub struct BucketFolder {
    name: Arc<str>,
    buckets: Arc<Buckets>,
    locks: Arc<ResourceLocks>,
}

fn look(target: &ResourceFolder, spec: &Spec) -> Result<Ownership<Policy>, Failure> {
    if !target.exists()? {
        return Ok(Ownership::Absent);
    }
    Ok(match client::policy(&target.path())? {
        Some(policy) if policy.owner == spec.claim && policy.tenant == spec.tenant.id => {
            Ownership::Own(policy)
        }
        _ => Ownership::Foreign,
    })
}

/// The policy that a spec asks for.
fn wanted(spec: &Spec) -> Result<Policy, Failure> {
    let Settings { quota_bytes, encryption, lifecycle, .. } = settings::of(spec)?;
    Ok(Policy {
        version: 1,
        owner: spec.claim.clone(),
        tenant: spec.tenant.id,
        resource: spec.resource.to_string(),
        public: false,
        encryption,
        quota_bytes,
        lifecycle,
    })
}

fn write_policy(folder: &Path, policy: &Policy) -> std::io::Result<()> {
    let mut text = serde_json::to_vec_pretty(policy)?;
    text.push(b'\n');
    resource_folder::write(&policy_file(folder), &text)
}

/// Whether a bucket has its index and its folder of objects.
fn whole(folder: &Path) -> bool {
    index_file(folder).is_file() && objects_folder(folder).is_dir()
}

fn name_taken(why: &str) -> Failure {
    Failure::fatal("name_taken", format!("{why}; it was not touched"))
}

impl BucketFolder {
    /// Creates the provider. Accesses no file.
    pub fn new(config: Config) -> Self {
        Self { name: NAME.into(), buckets: Arc::new(Buckets::new(config)), locks: Arc::default() }
    }

    /// The same provider with another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    fn folder_of(&self, spec: &Spec) -> Result<ResourceFolder, Failure> {
        ResourceFolder::new(&self.buckets.config.folder, &spec.name, spec.resource)
    }

    /// Access to the objects of the spec's bucket. Returns an error unless the bucket is linked as the tenant's.
    async fn own_objects(&self, context: &Context, spec: &Spec) -> Result<Arc<dyn TenantObjects>, Failure> {
        let (target, owned, root) = (self.folder_of(spec)?, spec.clone(), self.buckets.config.folder.clone());
        let own_objects = blocking(move || {
            let linked = resource_folder::linked(&root, owned.tenant.id).as_deref() == Some(&*owned.name);
            Ok(linked && matches!(look(&target, &owned)?, Ownership::Own(_)))
        });
        match own_objects.await? {
            true => Ok(self.scoped(spec.tenant.id, context.sealer.clone())),
            false => Err(client::no_such_bucket()),
        }
    }
}

async fn ensure(
    buckets: Arc<Buckets>,
    target: ResourceFolder,
    spec: Spec,
    sealer: Arc<dyn Sealer>,
) -> Result<(), Failure> {
    let policy = wanted(&spec)?;
    let (root, there, before) = (buckets.config.folder.clone(), target.clone(), spec.clone());
    let found = blocking(move || {
        let other = resource_folder::linked(&root, before.tenant.id)
            .filter(|name| *name != before.name && root.join(name).exists());
        if other.is_some() {
            return Err(name_taken("the tenant has a bucket of another name in this folder"));
        }
        look(&there, &before)
    })
    .await?;
    let enhanced = policy.encryption == Encryption::Enhanced;
    let folder = target.path();
    match found {
        Ownership::Absent => {
            let (target, policy, sealer) = (target.clone(), policy.clone(), sealer.clone());
            blocking(move || index::create(&index_file(&draft(&target, &policy, &*sealer)?))).await?;
        }
        Ownership::Own(_) if enhanced && !key_file(&folder).is_file() => {
            if buckets.index(&folder).await?.holds(policy.encryption).await? {
                return Err(keys::no_key());
            }
            // The key must exist before the policy requires it.
            let (tenant, sealer) = (spec.tenant.id, sealer.clone());
            blocking(move || keys::make(&folder, tenant, &*sealer)).await?;
        }
        Ownership::Own(_) | Ownership::Foreign => {}
    }
    blocking(move || {
        settle(&target, &spec, &policy, found == Ownership::Absent)?;
        keys::open(policy.encryption, &target.path(), spec.tenant.id, &*sealer).map(drop)
    })
    .await
}

/// Creates a new bucket without its index in a draft folder, in which no reader looks for buckets. Returns
/// the folder.
fn draft(target: &ResourceFolder, policy: &Policy, sealer: &dyn Sealer) -> Result<PathBuf, Failure> {
    let folder = target.draft()?;
    let made = write_policy(&folder, policy).and_then(|()| std::fs::create_dir(objects_folder(&folder)));
    made.map_err(|error| target.failure(&error))?;
    if policy.encryption == Encryption::Enhanced {
        keys::make(&folder, policy.tenant, sealer)?;
    }
    Ok(folder)
}

/// Publishes a new bucket under its name, updates the policy of an existing one, and links the bucket to the
/// tenant.
fn settle(target: &ResourceFolder, spec: &Spec, policy: &Policy, new: bool) -> Result<(), Failure> {
    if new {
        // False: a concurrent call has published a folder under this name. The code below reads its owner.
        target.publish()?;
    }
    let there = match look(target, spec)? {
        Ownership::Own(policy) => policy,
        Ownership::Foreign => {
            return Err(name_taken("a folder with another owner tag has this name"));
        }
        Ownership::Absent => {
            return Err(Failure::retryable(
                "cannot_open",
                "the bucket was removed right after it was created",
            ));
        }
    };
    let folder = target.path();
    if there != *policy {
        write_policy(&folder, policy).map_err(|error| target.failure(&error))?;
    }
    if !index_file(&folder).is_file() {
        return Err(client::no_index());
    }
    std::fs::create_dir_all(objects_folder(&folder)).map_err(|error| target.failure(&error))?;
    if target.link(spec.tenant.id)? {
        return Ok(());
    }
    Err(name_taken("the tenant has a bucket of another name in this folder"))
}

fn remove(target: &ResourceFolder, spec: &Spec) -> Result<Value, Failure> {
    let is_own = matches!(look(target, spec)?, Ownership::Own(_));
    let mut objects = resource_folder::Size::default();
    if is_own {
        objects = client::stored(&objects_folder(&target.path()));
        target.unlink(spec.tenant.id)?;
        target.remove()?;
    } else {
        if !target.exists()? {
            target.unlink(spec.tenant.id)?;
        }
        target.sweep()?;
    }
    Ok(json!({ "bucket": spec.name, "objects": objects.files, "bytes": objects.bytes }))
}

#[async_trait]
impl Objects for BucketFolder {
    fn scoped(&self, tenant: TenantId, sealer: Arc<dyn Sealer>) -> Arc<dyn TenantObjects> {
        Arc::new(Handle { buckets: self.buckets.clone(), tenant, sealer })
    }

    async fn verify(&self, signed: &Signed, now: Timestamp) -> Result<TenantId, Failure> {
        self.buckets.verify(signed, now).await
    }

    async fn expire(&self, now: Timestamp) -> Result<Expired, Failure> {
        let root = self.buckets.config.folder.clone();
        let names = blocking(move || {
            resource_folder::names(&root).map_err(|error| resource_folder::failure(&root, &error))
        })
        .await?;
        let mut all = Expired::default();
        for name in names {
            match self.buckets.expire(&Which::Named(name), now).await {
                Ok(expired) => {
                    all.objects += expired.objects;
                    all.bytes += expired.bytes;
                }
                // The folder is no bucket, or the bucket was removed meanwhile.
                Err(failure) if failure.code == "no_such_bucket" => {}
                // A broken bucket does not stop the expiry in other buckets.
                Err(failure) => tracing::warn!(%failure, "the objects of a bucket could not be expired"),
            }
        }
        Ok(all)
    }
}

#[async_trait]
impl Transfer for BucketFolder {
    fn form(&self) -> &'static str {
        transfer::FORM
    }

    async fn export(&self, context: &Context, spec: &Spec, sink: &mut dyn Sink) -> Result<Content, Failure> {
        transfer::export(&*self.own_objects(context, spec).await?, sink).await
    }

    async fn load(
        &self,
        context: &Context,
        spec: &Spec,
        source: &mut dyn Source,
    ) -> Result<Vec<Write>, Failure> {
        let _lock = self.locks.lock(spec.resource).await;
        transfer::load(&*self.own_objects(context, spec).await?, source).await?;
        Ok(Vec::new())
    }
}

#[async_trait]
impl Provider for BucketFolder {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Bucket
    }

    fn settings_schema(&self) -> Value {
        settings::schema::<settings::NoSettings>()
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        tenantry_provider::resource_folder::check_folder_name(name).map_err(|failure| failure.message)
    }

    fn check(&self, given: &Value) -> Vec<Fault> {
        let settings: Settings = match settings::check(given) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let fault = |path: String, message: &str| Fault { path, message: message.to_owned() };
        let mut faults = Vec::new();
        if settings.public {
            let message = "buckets cannot be public: remove this setting and use signed URLs";
            faults.push(fault("public".to_owned(), message));
        }
        for (index, rule) in settings.lifecycle.iter().enumerate() {
            if !(1..=36_500).contains(&rule.expire_after) {
                let message = "must be from 1 to 36500 days";
                faults.push(fault(format!("lifecycle[{index}].expire_after"), message));
            }
            if rule.prefix.len() > tenantry_provider::objects::MAX_KEY
                || rule.prefix.chars().any(char::is_control)
            {
                let message = "must be the beginning of a key: up to 1024 bytes without control characters";
                faults.push(fault(format!("lifecycle[{index}].prefix"), message));
            }
        }
        faults
    }

    async fn ensure(&self, context: &Context, spec: &Spec) -> Result<Ensured, Failure> {
        let policy = wanted(spec)?;
        let (buckets, sealer) = (self.buckets.clone(), context.sealer.clone());
        self.locks.run(spec.resource, ensure(buckets, self.folder_of(spec)?, spec.clone(), sealer)).await?;
        let outputs = json!({
            "bucket": spec.name,
            "public": false,
            "encryption": policy.encryption,
            "quota_bytes": policy.quota_bytes.map(|quota| quota.0),
            "lifecycle": policy.lifecycle,
        });
        Ok(Ensured { outputs, writes: Vec::new() })
    }

    async fn observe(&self, context: &Context, spec: &Spec) -> Result<Observed, Failure> {
        let (target, spec, sealer) = (self.folder_of(spec)?, spec.clone(), context.sealer.clone());
        let root = self.buckets.config.folder.clone();
        blocking(move || {
            let policy = match look(&target, &spec)? {
                Ownership::Absent => return Ok(Observed::absent_unless(target.has_remains()?)),
                Ownership::Foreign => return Ok(Observed::Foreign),
                Ownership::Own(policy) => policy,
            };
            let linked = resource_folder::linked(&root, spec.tenant.id);
            let opens = match keys::open(policy.encryption, &target.path(), spec.tenant.id, &*sealer) {
                Err(failure) if failure.may_retry() => return Err(failure),
                key => key.is_ok(),
            };
            let healthy = policy == wanted(&spec)?
                && whole(&target.path())
                && opens
                && linked.as_deref() == Some(&*spec.name);
            let fingerprint = hex::encode(Sha256::digest(json!(policy).to_string()));
            Ok(Observed::present(healthy, None, fingerprint))
        })
        .await
    }

    async fn remove(&self, _: &Context, spec: &Spec) -> Result<Removed, Failure> {
        let (target, owned) = (self.folder_of(spec)?, spec.clone());
        self.buckets.forget(&target.path());
        let receipt = self.locks.block(spec.resource, move || remove(&target, &owned)).await?;
        Ok(Removed { receipt, writes: Vec::new() })
    }

    async fn probe(&self) -> Result<(), Failure> {
        let root = self.buckets.config.folder.clone();
        blocking(move || resource_folder::probe(&root)).await?;
        self.buckets.key().await.map(drop)
    }

    fn objects(&self) -> Option<&dyn Objects> {
        Some(self)
    }

    fn transfer(&self) -> Option<&dyn Transfer> {
        Some(self)
    }
}
