//! Exports, backups, restores and imports of one tenant: each an operation of one step, in turn with all others of the
//! tenant. The customer gets an export by a signed address that is good until the export goes, with or without a key of ours.

use std::collections::BTreeSet;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_builtin::identity_builtin::roles;
use tenantry_engine::{OnFailure, Policy, Run, Step};
use tenantry_model::id::ArchiveId;
use tenantry_model::{Failure, TenantId, Timestamp};
use tenantry_provider::objects::{Body, Range, part};

use crate::access::{Caller, Permission, Scope};
use crate::archive::{
    ArchiveSettings, ArchiveView, LeftOut, LoadSettings, Packed, Purpose, forget, remember,
};
use crate::control::Control;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::onboard::id_of;
use crate::page::PageQuery;
use crate::planner::StepInput;
use crate::record::{Deed, audit};
use crate::repair::after;
use crate::session::TenantSession;
use crate::view::{OperationView, Page};
use tenantry_store::{Unit, entity};

/// What links are signed for.
const LINK: &str = "archive_link";
/// Longest time of one attempt: a large tenant's archive takes its time.
pub(crate) const TIMEOUT_MS: u64 = 6 * 3_600_000;
/// Most exports that a tenant's own people have at a time.
const OWN_EXPORTS: u64 = 10;

/// What is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreTenant {
    /// An archive of the tenant's.
    pub archive: ArchiveId,
}

/// What opens an archive without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveLink {
    /// Which one.
    pub archive: ArchiveId,
    /// Until when: in seconds since 1970.
    pub expires_at: i64,
    /// Hexadecimal.
    pub signature: String,
}

impl ArchiveLink {
    /// The address, on the server with this one.
    pub fn url(&self, server: &str) -> String {
        let Self { archive, expires_at, signature } = self;
        let server = server.trim_end_matches('/');
        format!("{server}/exports/{archive}?expires={expires_at}&signature={signature}")
    }
}

/// Some of an archive's bytes.
pub struct ArchivePart {
    /// The whole archive.
    pub archive: ArchiveView,
    /// Where they begin.
    pub first: u64,
    /// How many they are.
    pub length: u64,
    /// Those.
    pub body: Body,
}

impl Control {
    /// Begins an export or a backup of all that a tenant has.
    pub async fn archive_tenant(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        purpose: Purpose,
        what: &ArchiveSettings,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let (kind, settings) = (purpose.as_str(), json!(what));
        let once = key.map(|key| Once::new(caller, &key, &format!("{kind} {}", row.id), &settings));
        let work = async {
            if caller.tenant.is_some() && purpose == Purpose::Export {
                self.has_room_for_an_export(&row).await?;
            }
            self.one_step(caller, &row, kind, kind, settings.clone(), None, once.as_ref()).await
        };
        match self.once(once.as_ref(), work).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// Begins to put an archive's content in the place of what its tenant has.
    pub async fn restore(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        what: RestoreTenant,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let once = key.map(|key| Once::new(caller, &key, &format!("restore {}", row.id), &json!(what)));
        let work = async {
            let archive = self.archive_of(&row, what.archive).await?;
            let settings = json!(LoadSettings { archive: archive.id, size: archive.size });
            self.one_step(caller, &row, "restore", "load", settings, None, once.as_ref()).await
        };
        match self.once(once.as_ref(), work).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// Takes an archive in and begins to put its content in the place of what the tenant has. What is not an archive, whole
    /// and unchanged, is refused, and then nothing has begun.
    pub async fn import(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        bytes: Body,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        self.made(&row).await?;
        let (id, tenant, now) = (ArchiveId::new(), id_of(&row)?, self.now());
        let archives = &self.shared.archives;
        let stored = archives.take_in(id, tenant, bytes).await.map_err(archive_error)?;
        let once = key.map(|key| {
            Once::new(caller, &key, &format!("import {tenant}"), &json!({ "sha256": stored.sha256 }))
        });
        let work = async {
            let settings = json!(LoadSettings { archive: id, size: stored.size });
            let archive = ArchiveView {
                id,
                tenant_id: tenant,
                purpose: Purpose::Import,
                location: id.to_string(),
                size: stored.size,
                sha256: stored.sha256.clone(),
                created_at: now,
                expires_at: now + Purpose::Import.kept(),
                resources: stored.manifest.resources.clone(),
                left_out: stored.manifest.left_out.clone(),
                verified: None,
            };
            self.one_step(caller, &row, "import", "load", settings, Some(&archive), once.as_ref()).await
        };
        let done = self.once(once.as_ref(), work).await;
        let used = match &done {
            Ok(Outcome::Now(_)) => true,
            Ok(Outcome::Before(_)) => false,
            // Without an answer it may have begun all the same; the sweep will tell.
            Err(error) => matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Internal),
        };
        if !used && let Err(why) = archives.remove(id).await {
            tracing::warn!(archive = %id, "the file of a refused import stays: {why}");
        }
        match done? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// A tenant's archives of a purpose, newest first.
    pub async fn archives(
        &self,
        caller: &Caller,
        id_or_slug: &str,
        purpose: Purpose,
        page: &PageQuery,
    ) -> Result<Page<ArchiveView>> {
        caller.require(Permission::ReadTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let store = &self.shared.store;
        let rows = store.archives(&row.id, purpose.as_str(), page.cursor(), page.probe()).await;
        page.cut(rows.map_err(Error::unavailable)?, |row| row.id.clone(), view)
    }

    /// Signs what opens an export until it goes.
    pub async fn export_link(&self, caller: &Caller, id_or_slug: &str, id: ArchiveId) -> Result<ArchiveLink> {
        caller.require(Permission::WriteTenants)?;
        let row = self.tenant_row(caller, id_or_slug).await?;
        let archive = self.archive_of(&row, id).await?;
        if archive.purpose != Purpose::Export {
            return Err(Error::not_found("export"));
        }
        self.record_exports("tenant.export_link", &caller.principal, &[&archive]).await?;
        Ok(self.link_to(&archive))
    }

    /// Who got at which exports: whoever has an address, or the bytes, has everything.
    async fn record_exports(
        &self,
        action: &'static str,
        actor: &str,
        exports: &[&ArchiveView],
    ) -> Result<()> {
        let deeds = exports.iter().map(|export| {
            let (target, tenant) = (&export.tenant_id.to_string(), Some(export.tenant_id));
            audit(Deed { actor, action, target, tenant, data: json!({ "export": export.id }) }, self.now())
        });
        let told = Unit::new(deeds.collect());
        self.shared.store.commit(told).await.map_err(Error::unavailable)
    }

    /// Begins an export for whoever administers the tenant, by their own token (S1.62).
    pub async fn export_own(
        &self,
        session: &TenantSession,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        let caller = self.administrator(session).await?;
        let what = ArchiveSettings::default();
        self.archive_tenant(&caller, &session.tenant.to_string(), Purpose::Export, &what, key).await
    }

    /// A tenant's own people have so many exports at a time: each is all that it has once more.
    async fn has_room_for_an_export(&self, row: &entity::tenant::Model) -> Result<()> {
        let (export, now) = (Purpose::Export.as_str(), self.now());
        let all = self.shared.store.archives(&row.id, export, None, OWN_EXPORTS).await;
        let all = all.map_err(Error::unavailable)?;
        let kept: Vec<Timestamp> =
            all.into_iter().map(|row| row.expires_at.into()).filter(|at| *at > now).collect();
        let (true, Some(first)) = (kept.len() as u64 >= OWN_EXPORTS, kept.iter().min()) else {
            return Ok(());
        };
        let message =
            format!("there are {OWN_EXPORTS} exports, which is the most: the first goes at {first}");
        Err(Error::conflict("too_many_exports", message))
    }

    /// Their exports, newest first, each with what opens it.
    pub async fn own_exports(
        &self,
        session: &TenantSession,
        page: &PageQuery,
    ) -> Result<Page<(ArchiveView, ArchiveLink)>> {
        let caller = self.administrator(session).await?;
        let found = self.archives(&caller, &session.tenant.to_string(), Purpose::Export, page).await?;
        if !found.data.is_empty() {
            let exports = Vec::from_iter(&found.data);
            self.record_exports("tenant.export_link", &caller.principal, &exports).await?;
        }
        let data = found.data.into_iter().map(|archive| {
            let link = self.link_to(&archive);
            (archive, link)
        });
        Ok(Page { data: data.collect(), has_more: found.has_more, next_cursor: found.next_cursor })
    }

    /// The bearer as a caller who may do everything to their tenant, and sees no other.
    async fn administrator(&self, session: &TenantSession) -> Result<Caller> {
        self.me(session).await?;
        if !roles::allows(&session.role, "tenant:admin") {
            let message = "this takes a member who administers the tenant";
            return Err(Error::new(ErrorKind::Forbidden, "forbidden", message));
        }
        Ok(Caller {
            principal: session.member.clone(),
            scopes: BTreeSet::from([Scope::Operator]),
            tenant: Some(session.tenant),
        })
    }

    /// What a link opens, or a part of it: whatever becomes of the tenant, as long as its key is there.
    pub async fn open_link(&self, link: &ArchiveLink, range: Option<Range>) -> Result<ArchivePart> {
        let refused = |code, message| Error::new(ErrorKind::Forbidden, code, message);
        if link.expires_at <= self.now().seconds() {
            return Err(refused("expired", "the address has expired: ask for a new export"));
        }
        // Whether there is such an archive is nobody's business who has no signature for it.
        let bad = || refused("bad_signature", "the signature does not fit this address: ask for a new one");
        let row = self.shared.store.archive(&link.archive.to_string()).await.map_err(Error::unavailable)?;
        let archive = view(row.ok_or_else(bad)?)?;
        let right = self.link(archive.tenant_id, archive.id, link.expires_at);
        if verify_slices_are_equal(right.signature.as_bytes(), link.signature.as_bytes()).is_err() {
            return Err(bad());
        }
        let (first, length) = part(archive.size, range).map_err(archive_error)?;
        if first == 0 {
            // Once for each that is fetched, in however many parts: who it is, only the address knows.
            self.record_exports("tenant.export_read", LINK, &[&archive]).await?;
        }
        let body =
            self.shared.archives.read(archive.id, archive.tenant_id, archive.size, (first, length)).await;
        Ok(ArchivePart { archive, first, length, body: body.map_err(archive_error)? })
    }

    /// Removes archives whose time is over. Answers how many.
    pub(crate) async fn sweep_archives(&self) -> Result<usize> {
        let mut gone = 0;
        loop {
            let due = self.shared.store.archives_due(self.now()).await.map_err(Error::unavailable)?;
            let before = gone;
            for row in due {
                let id: ArchiveId = row.id.parse().map_err(Error::internal)?;
                // The file first: without its row nobody would look for it again.
                if let Err(why) = self.shared.archives.remove(id).await {
                    // One that cannot be removed keeps no other from its end.
                    tracing::warn!(archive = %id, "its time is over, and its file stays: {why}");
                    continue;
                }
                let forgotten = Unit::new(vec![forget(id)]);
                self.shared.store.commit(forgotten).await.map_err(Error::unavailable)?;
                gone += 1;
            }
            if gone == before {
                return self.sweep_shelf().await.map(|()| gone);
            }
        }
    }

    /// Removes files that no archive has, and that nobody writes any more.
    async fn sweep_shelf(&self) -> Result<()> {
        let archives = &self.shared.archives;
        for (id, name) in archives.old(self.now()).await.map_err(Error::unavailable)? {
            let known = match id {
                Some(id) => self.shared.store.archive(&id.to_string()).await.map_err(Error::unavailable)?,
                None => None,
            };
            if known.is_none() {
                archives.discard(&name).await.map_err(Error::unavailable)?;
            }
        }
        Ok(())
    }

    /// What a link says until when it is good.
    fn link_to(&self, archive: &ArchiveView) -> ArchiveLink {
        self.link(archive.tenant_id, archive.id, archive.expires_at.seconds())
    }

    /// What opens a tenant's archive until then, whether it is made already or not.
    pub(crate) fn link(&self, tenant: TenantId, archive: ArchiveId, expires_at: i64) -> ArchiveLink {
        let signature = self.mac(LINK, &format!("{tenant}\n{archive}\n{expires_at}"));
        ArchiveLink { archive, expires_at, signature }
    }

    async fn archive_of(&self, row: &entity::tenant::Model, id: ArchiveId) -> Result<ArchiveView> {
        let found = self.shared.store.archive(&id.to_string()).await.map_err(Error::unavailable)?;
        let found = found.filter(|archive| archive.tenant_id == row.id);
        let archive = view(found.ok_or_else(|| Error::not_found("archive"))?)?;
        if archive.expires_at <= self.now() {
            return Err(Error::new(ErrorKind::Gone, "archive_gone", "this archive is past its time"));
        }
        Ok(archive)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are what an operation of one step is")]
    async fn one_step(
        &self,
        caller: &Caller,
        row: &entity::tenant::Model,
        kind: &str,
        step: &str,
        settings: Value,
        archive: Option<&ArchiveView>,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let made = self.made(row).await?;
        let now = self.now();
        let mut operation = after(&made.operation, kind, &caller.principal, now)?;
        // It takes as long as there is much: nobody is called because of that.
        operation.expected_by = None;
        let tenant = id_of(row)?;
        let action = match kind {
            "export" => "tenant.export",
            "backup" => "tenant.backup",
            "restore" => "tenant.restore",
            _ => "tenant.import",
        };
        let data = json!({ "operation_id": operation.id, "asked": settings });
        let deed = Deed { actor: &caller.principal, action, target: &row.id, tenant: Some(tenant), data };
        let mut effects = vec![audit(deed, now)];
        effects.extend(archive.map(|archive| remember(archive, operation.id)));
        let steps = vec![plain_step(step, settings)?];
        self.begin(row, Run { operation, steps }, effects, once).await
    }
}

/// A built-in step that waits for nothing.
fn plain_step(kind: &str, settings: Value) -> Result<Step> {
    let input = StepInput { settings, ..StepInput::default() };
    // Half an archive is taken back. What is half put back is neither the old nor the new: that asks for a person.
    let on_failure = if kind == "load" { OnFailure::Park } else { OnFailure::Rollback };
    Ok(Step::new(
        kind,
        kind,
        "tenantry",
        Policy { timeout_ms: TIMEOUT_MS, on_failure, ..Policy::default() },
        serde_json::to_value(input).map_err(Error::internal)?,
    ))
}

/// What a row's `content` says.
#[derive(Deserialize)]
struct Content {
    resources: Vec<Packed>,
    left_out: Vec<LeftOut>,
}

fn view(row: entity::archive::Model) -> Result<ArchiveView> {
    let content: Content = serde_json::from_value(row.content).map_err(Error::internal)?;
    let id = |text: &str| text.parse().map_err(Error::internal);
    Ok(ArchiveView {
        id: row.id.parse().map_err(Error::internal)?,
        tenant_id: id(&row.tenant_id)?,
        purpose: serde_json::from_value(Value::String(row.purpose)).map_err(Error::internal)?,
        location: row.id,
        size: u64::try_from(row.size).unwrap_or_default(),
        sha256: row.sha256,
        created_at: row.created_at.into(),
        expires_at: row.expires_at.into(),
        resources: content.resources,
        left_out: content.left_out,
        verified: row.verified.map(serde_json::from_value).transpose().map_err(Error::internal)?,
    })
}

/// A failure of an archive, for whoever asked.
pub fn archive_error(failure: Failure) -> Error {
    match failure.code.as_str() {
        "bad_archive" => {
            let message = format!("is not a Tenantry archive: {}", failure.message);
            Error::invalid("bad_archive", vec![FieldError::new("", message)])
        }
        "too_large" => Error::invalid("body_too_large", vec![FieldError::new("", failure.message)]),
        "bad_range" => Error::invalid("bad_range", vec![FieldError::new("", failure.message)]),
        "no_archive" | "key_destroyed" => {
            Error::new(ErrorKind::Gone, "archive_gone", "this archive is not there any more")
        }
        "cut_off" => Error::invalid("body_cut_off", vec![FieldError::new("", failure.message)]),
        _ => Error::unavailable(failure),
    }
}
