//! The tenant's files. A session lists them and signs URLs; a signed URL opens one object, for one method, until it
//! expires, and needs no token.

use std::sync::Arc;
use std::time::Duration;
use tenantry_model::ErrorCode;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tenantry_model::suspension::Access;
use tenantry_model::{Failure, FailureClass, TenantId, Timestamp};
use tenantry_provider::objects::{Listing, Method, Signed, TenantObjects, Usage};
use tenantry_provider::{Kind, Objects, Provider as _, Sealer};

use crate::control::Control;
use crate::control::token::TenantSession;
use crate::error::{Error, FieldError, Result};

/// Request for a signed URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignObject {
    /// The object's key in the bucket; the object need not exist yet.
    #[schemars(length(min = 1, max = 1024))]
    pub key: String,
    /// The method that the URL allows. `GET` allows `HEAD` too.
    #[serde(default)]
    pub method: Method,
    /// Lifetime in seconds.
    #[serde(default = "quarter_of_an_hour")]
    #[schemars(range(min = 1, max = 604_800))]
    pub expires_in: u64,
}

fn quarter_of_an_hour() -> u64 {
    900
}

/// A signed URL that was opened.
pub struct Opened {
    /// The objects of the bucket.
    pub objects: Arc<dyn TenantObjects>,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Time of opening.
    pub at: Timestamp,
}

impl Control {
    /// Base of signed URLs.
    pub fn public_url(&self) -> &str {
        &self.shared.config.public_url
    }

    /// Up to `limit` objects whose keys begin with `prefix`, from the one after `after` on.
    pub async fn objects(
        &self,
        session: &TenantSession,
        prefix: &str,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Listing> {
        self.objects_of(session, Access::Read).await?.list(prefix, limit, after).await.map_err(object_error)
    }

    /// Number of objects and bytes in the bucket, with its quota.
    pub async fn objects_usage(&self, session: &TenantSession) -> Result<Usage> {
        self.objects_of(session, Access::Read).await?.usage().await.map_err(object_error)
    }

    /// Signs a URL.
    pub async fn sign_object(&self, session: &TenantSession, wish: &SignObject) -> Result<Signed> {
        let now = self.now();
        let until = now + Duration::from_secs(wish.expires_in);
        let access = if wish.method == Method::Get { Access::Read } else { Access::Write };
        let signed = self.objects_of(session, access).await?.sign(&wish.key, wish.method, until, now).await;
        signed.map_err(object_error)
    }

    /// Returns the objects that a signed URL opens, by the provider that signed it. Fails if the signature is not valid, or
    /// while the tenant's status denies this access.
    pub async fn open_signed(&self, signed: &Signed) -> Result<Opened> {
        let at = self.now();
        let (keeper, tenant) = self.admit_signed(signed, at).await?;
        Ok(Opened { objects: keeper.scoped(tenant, self.sealer_of(tenant).await?), tenant, at })
    }

    /// Checks the access of a signed URL again, for bytes that pass for longer than a request takes. `since`: the time at which
    /// the URL was opened; it may expire meanwhile.
    pub async fn readmit_signed(&self, signed: &Signed, since: Timestamp) -> Result<()> {
        self.admit_signed(signed, since).await.map(drop)
    }

    /// The provider and the tenant of a URL whose signature is valid at this time, if the tenant's status allows the access.
    async fn admit_signed(&self, signed: &Signed, at: Timestamp) -> Result<(&dyn Objects, TenantId)> {
        let (keeper, tenant) = self.signer(signed, at).await?;
        let access = match signed.method {
            Method::Get => Access::ReadSigned,
            Method::Put | Method::Delete => Access::WriteSigned,
        };
        // Before the tenant is active, only the smoke test has a session to sign with.
        self.access_status(&tenant.to_string()).await?.check(access, true)?;
        Ok((keeper, tenant))
    }

    /// The provider that signed an address, and the tenant whose bucket it opens. Two instances may have buckets of one
    /// name; a signature is tied to one bucket's owner tag, so at most one of them accepts it.
    async fn signer(&self, signed: &Signed, now: Timestamp) -> Result<(&dyn Objects, TenantId)> {
        let mut refusal = None;
        for keeper in self.shared.resources.iter().filter_map(|provider| provider.objects()) {
            match keeper.verify(signed, now).await {
                Ok(tenant) => return Ok((keeper, tenant)),
                // A provider that does not know the signature says nothing about the others.
                Err(failure) if ["bad_signature", "no_such_bucket"].contains(&failure.code.as_str()) => {
                    refusal.get_or_insert(failure);
                }
                Err(failure) if failure.class == FailureClass::Invalid => return Err(object_error(failure)),
                // It may be the one that signed: its answer counts if no other provider accepts the signature.
                Err(failure) => refusal = Some(failure),
            }
        }
        Err(refusal.map_or_else(|| Error::not_found("bucket"), object_error))
    }

    async fn objects_of(&self, session: &TenantSession, access: Access) -> Result<Arc<dyn TenantObjects>> {
        let provider = self.provider_of(session, Kind::Bucket, access).await?;
        let objects = provider.objects().ok_or_else(|| Error::not_found("bucket"))?;
        Ok(objects.scoped(session.tenant, self.sealer_of(session.tenant).await?))
    }

    /// The keyring, with the tenant's key loaded.
    async fn sealer_of(&self, tenant: TenantId) -> Result<Arc<dyn Sealer>> {
        self.shared.keyring.load(tenant).await.map_err(Error::unavailable)?;
        Ok(self.shared.keyring.clone())
    }
}

/// A failure of the tenant's objects, for the client.
pub fn object_error(failure: Failure) -> Error {
    let is = |code| Error::new(code, &failure.message);
    match failure.code.as_str() {
        "bad_signature" => is(ErrorCode::BadSignature),
        "expired" => is(ErrorCode::Expired),
        "bad_range" => is(ErrorCode::BadRange),
        "cut_off" => is(ErrorCode::BodyCutOff),
        "quota_exceeded" => is(ErrorCode::QuotaExceeded),
        "no_such_bucket" => Error::not_found("bucket"),
        "bad_key" => {
            Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("key", &failure.message)])
        }
        "corrupt" => {
            let message =
                "the object, or its bucket, is damaged on the disk; an operator can restore it from a backup";
            Error { message: message.to_owned(), ..Error::provider("the bucket", failure) }
        }
        _ if failure.class == FailureClass::Invalid => {
            Error::invalid(ErrorCode::RequestInvalid, vec![FieldError::new("", &failure.message)])
        }
        _ => Error::provider("the bucket", failure),
    }
}
