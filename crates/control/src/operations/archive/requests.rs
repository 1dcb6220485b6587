//! Requests for exports, backups, restores and imports. Only one operation changes a tenant at a time, so they wait for each
//! other. A customer downloads an export by a signed address, without an API key, until the export expires.

use std::collections::BTreeSet;
use tenantry_model::ErrorCode;
use tenantry_model::member;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_engine::{Policy, Run, Step};
use tenantry_model::id::ArchiveId;
use tenantry_model::{Failure, TenantId, Timestamp};
use tenantry_provider::objects::{Body, Range, part};

use super::{
    ArchiveSettings, ArchiveView, Create, LeftOut, Load, LoadSettings, Packed, Purpose, forget, remember,
};
use crate::access::idempotency::{Answered, IdempotencyKey, Once, Outcome};
use crate::access::{Caller, Permission, Scope};
use crate::control::Control;
use crate::control::page::{Page, PageQuery};
use crate::control::token::TenantSession;
use crate::error::{Error, ErrorKind, FieldError, Result};
use crate::ledger::{OperationKind, StepInput, id_of};
use crate::operations::registry::operation as unit_of;
use crate::operations::repair::after;
use crate::operations::view::OperationView;
use crate::operations::{Action, TENANTRY};
use tenantry_store::record::{AuditRecord, audit};
use tenantry_store::{WriteBatch, entity};

/// Purpose of the MAC in links.
const LINK: &str = "archive_link";
/// Longest time of one attempt at an archive, in milliseconds.
pub(crate) const TIMEOUT_MS: u64 = 6 * 3_600_000;
/// Most exports that a tenant's administrators may have at a time.
const OWN_EXPORTS: u64 = 10;

/// Request for a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreTenant {
    /// An archive of the same tenant.
    pub archive: ArchiveId,
}

/// Signed link to an archive; it needs no API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveLink {
    /// Archive.
    pub archive: ArchiveId,
    /// Expiry, in seconds since 1970.
    pub expires_at: i64,
    /// Signature, hexadecimal.
    pub signature: String,
}

impl ArchiveLink {
    /// The link's URL on this server.
    pub fn url(&self, server: &str) -> String {
        let Self { archive, expires_at, signature } = self;
        let server = server.trim_end_matches('/');
        format!("{server}/exports/{archive}?expires={expires_at}&signature={signature}")
    }
}

/// A range of an archive's bytes.
pub struct ArchivePart {
    /// The whole archive.
    pub archive: ArchiveView,
    /// Offset.
    pub first: u64,
    /// Length.
    pub length: u64,
    /// Bytes.
    pub body: Body,
}

impl Control {
    /// Begins an export or a backup of a tenant.
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
        let kind = match purpose {
            Purpose::Backup => OperationKind::Backup,
            Purpose::Export | Purpose::Import => OperationKind::Export,
        };
        let settings = json!(what);
        let asked = format!("{} {}", purpose.as_str(), row.id);
        let once = key.map(|key| Once::new(caller, &key, &asked, &settings));
        let work = async {
            if caller.tenant.is_some() && purpose == Purpose::Export {
                self.has_room_for_an_export(&row).await?;
            }
            let action = Create(purpose);
            self.one_step(caller, &row, (&kind, &action), settings.clone(), None, once.as_ref()).await
        };
        match self.once(once.as_ref(), work).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// Begins to replace the content of a tenant by that of one of its archives.
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
            let kind = OperationKind::Restore;
            self.one_step(caller, &row, (&kind, &Load), settings, None, once.as_ref()).await
        };
        match self.once(once.as_ref(), work).await? {
            Outcome::Now(value) => Ok(Answered { value, replayed: false }),
            Outcome::Before(answer) => self.answered_before(&answer).await,
        }
    }

    /// Stores an uploaded archive and begins to replace the tenant's content by it. Fails, and begins nothing, unless the upload
    /// is a complete archive.
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
        let archives = self.shared.steps.archives();
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
            let (kind, archive) = (OperationKind::Import, Some(&archive));
            self.one_step(caller, &row, (&kind, &Load), settings, archive, once.as_ref()).await
        };
        let done = self.once(once.as_ref(), work).await;
        let used = match &done {
            Ok(Outcome::Now(_)) => true,
            Ok(Outcome::Before(_)) => false,
            // The outcome is unknown: the background task removes the file if the import did not begin.
            Err(error) => matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal),
        };
        if !used && let Err(why) = archives.remove(id).await {
            tracing::warn!(archive = %id, "the file of a rejected import was not removed: {why}");
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

    /// A signed link to an export, valid until the export expires.
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

    /// Writes audit records about links to exports and downloads: both give access to the tenant's whole content.
    async fn record_exports(
        &self,
        action: &'static str,
        actor: &str,
        exports: &[&ArchiveView],
    ) -> Result<()> {
        let records = exports.iter().map(|export| {
            let (target, tenant) = (&export.tenant_id.to_string(), Some(export.tenant_id));
            audit(
                AuditRecord { actor, action, target, tenant, data: json!({ "export": export.id }) },
                self.now(),
            )
        });
        let batch = WriteBatch::new(records.collect());
        self.shared.store.commit(batch).await.map_err(Error::unavailable)
    }

    /// Begins an export for a member who administers the tenant, by the member's own token.
    pub async fn export_own(
        &self,
        session: &TenantSession,
        key: Option<IdempotencyKey>,
    ) -> Result<Answered<OperationView>> {
        let caller = self.administrator(session).await?;
        let what = ArchiveSettings::default();
        self.archive_tenant(&caller, &session.tenant.to_string(), Purpose::Export, &what, key).await
    }

    /// Fails if the tenant has [`OWN_EXPORTS`] exports: each is a copy of its whole content.
    async fn has_room_for_an_export(&self, row: &entity::tenant::Model) -> Result<()> {
        let (export, now) = (Purpose::Export.as_str(), self.now());
        let all = self.shared.store.archives(&row.id, export, None, OWN_EXPORTS).await;
        let all = all.map_err(Error::unavailable)?;
        let kept: Vec<Timestamp> =
            all.into_iter().map(|row| row.expires_at.into()).filter(|at| *at > now).collect();
        let (true, Some(first)) = (kept.len() as u64 >= OWN_EXPORTS, kept.iter().min()) else {
            return Ok(());
        };
        let message = format!(
            "the tenant has {OWN_EXPORTS} exports, the most allowed; the first one expires at {first}"
        );
        Err(Error::new(ErrorCode::TooManyExports, message))
    }

    /// Exports of the member's tenant, newest first, each with a link.
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

    /// The session's member as a caller with full access to the member's tenant alone. Fails for other members.
    async fn administrator(&self, session: &TenantSession) -> Result<Caller> {
        self.me(session).await?;
        if !member::allows(&session.role, "tenant:admin") {
            let message = "only an administrator of the tenant may do this";
            return Err(Error::new(ErrorCode::Forbidden, message));
        }
        Ok(Caller {
            principal: session.member.clone(),
            scopes: BTreeSet::from([Scope::Operator]),
            tenant: Some(session.tenant),
        })
    }

    /// Opens a link, in whatever status the tenant is, until the tenant's key is destroyed. The answer does not tell a client
    /// without a valid signature whether the archive exists.
    pub async fn open_link(&self, link: &ArchiveLink, range: Option<Range>) -> Result<ArchivePart> {
        if link.expires_at <= self.now().seconds() {
            return Err(Error::new(ErrorCode::Expired, "the signed URL has expired: export again"));
        }
        let bad = || {
            Error::new(ErrorCode::BadSignature, "the signature does not match this URL: request a new URL")
        };
        let row = self.shared.store.archive(&link.archive.to_string()).await.map_err(Error::unavailable)?;
        let archive = view(row.ok_or_else(bad)?)?;
        let right = self.link(archive.tenant_id, archive.id, link.expires_at);
        if verify_slices_are_equal(right.signature.as_bytes(), link.signature.as_bytes()).is_err() {
            return Err(bad());
        }
        let (first, length) = part(archive.size, range).map_err(archive_error)?;
        if first == 0 {
            // One record for each download, in however many parts. The downloading client is not known.
            self.record_exports("tenant.export_read", LINK, &[&archive]).await?;
        }
        let body = self
            .shared
            .steps
            .archives()
            .read(archive.id, archive.tenant_id, archive.size, (first, length))
            .await;
        Ok(ArchivePart { archive, first, length, body: body.map_err(archive_error)? })
    }

    /// Removes expired archives. Returns their number.
    pub(crate) async fn sweep_archives(&self) -> Result<usize> {
        let mut gone = 0;
        loop {
            let due = self.shared.store.archives_due(self.now()).await.map_err(Error::unavailable)?;
            let before = gone;
            for row in due {
                let id: ArchiveId = row.id.parse().map_err(Error::internal)?;
                // The file first: the row is what leads to it.
                if let Err(why) = self.shared.steps.archives().remove(id).await {
                    // The others are removed all the same.
                    tracing::warn!(archive = %id, "expired archive not removed: {why}");
                    continue;
                }
                let forgotten = WriteBatch::new(vec![forget(id)]);
                self.shared.store.commit(forgotten).await.map_err(Error::unavailable)?;
                gone += 1;
            }
            if gone == before {
                return self.sweep_store().await.map(|()| gone);
            }
        }
    }

    /// Removes old files that belong to no archive.
    async fn sweep_store(&self) -> Result<()> {
        let archives = self.shared.steps.archives();
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

    /// The link to an archive, valid until the archive expires.
    fn link_to(&self, archive: &ArchiveView) -> ArchiveLink {
        self.link(archive.tenant_id, archive.id, archive.expires_at.seconds())
    }

    /// The link to an archive, which need not be written yet.
    pub(crate) fn link(&self, tenant: TenantId, archive: ArchiveId, expires_at: i64) -> ArchiveLink {
        let signature = self.mac(LINK, &format!("{tenant}\n{archive}\n{expires_at}"));
        ArchiveLink { archive, expires_at, signature }
    }

    async fn archive_of(&self, row: &entity::tenant::Model, id: ArchiveId) -> Result<ArchiveView> {
        let found = self.shared.store.archive(&id.to_string()).await.map_err(Error::unavailable)?;
        let found = found.filter(|archive| archive.tenant_id == row.id);
        let archive = view(found.ok_or_else(|| Error::not_found("archive"))?)?;
        if archive.expires_at <= self.now() {
            return Err(Error::new(ErrorCode::ArchiveGone, "this archive has expired"));
        }
        Ok(archive)
    }

    /// Begins an operation of one step. `archive`: the archive that an import has stored.
    async fn one_step(
        &self,
        caller: &Caller,
        row: &entity::tenant::Model,
        (kind, action): (&OperationKind, &dyn Action),
        settings: Value,
        archive: Option<&ArchiveView>,
        once: Option<&Once>,
    ) -> Result<OperationView> {
        let made = self.made(row).await?;
        let now = self.now();
        let mut operation = after(&made.operation, kind, &caller.principal, now)?;
        // It takes time in proportion to the content, so it never counts as stuck.
        operation.expected_by = None;
        let tenant = id_of(row)?;
        let audited = match kind {
            OperationKind::Export => "tenant.export",
            OperationKind::Backup => "tenant.backup",
            OperationKind::Restore => "tenant.restore",
            _ => "tenant.import",
        };
        let data = json!({ "operation_id": operation.id, "asked": settings });
        let audited = AuditRecord {
            actor: &caller.principal,
            action: audited,
            target: &row.id,
            tenant: Some(tenant),
            data,
        };
        let mut effects = vec![audit(audited, now)];
        effects.extend(archive.map(|archive| remember(archive, operation.id)));
        let input = json!(StepInput { settings, ..StepInput::default() });
        let policy = unit_of(kind).policy(Policy { timeout_ms: TIMEOUT_MS, ..Policy::default() });
        let steps = vec![Step::new(action.kind(), action.kind(), TENANTRY, policy, input)];
        self.begin(row, Run { operation, steps }, effects, once).await
    }
}

/// The column `content` of an archive's row.
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

/// The error for a client whose request failed at an archive.
pub fn archive_error(failure: Failure) -> Error {
    match failure.code.as_str() {
        "bad_archive" => {
            let message = format!("is not a Tenantry archive: {}", failure.message);
            Error::invalid(ErrorCode::BadArchive, vec![FieldError::new("", message)])
        }
        "too_large" => Error::new(ErrorCode::BodyTooLarge, failure.message),
        "bad_range" => Error::new(ErrorCode::BadRange, failure.message),
        "no_archive" | "key_destroyed" => Error::new(ErrorCode::ArchiveGone, "this archive was removed"),
        "cut_off" => Error::new(ErrorCode::BodyCutOff, failure.message),
        _ => Error::provider("the archive store", failure),
    }
}
