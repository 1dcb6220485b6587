//! The verbs of providers and their capabilities, each with its time limit.

use std::time::Duration;

/// A verb of a provider or of one of its capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderVerb {
    /// Creates or updates a resource.
    Ensure,
    /// Reads the state of a resource.
    Observe,
    /// Deletes a resource.
    Remove,
    /// Checks that the provider can be reached and that its credentials suffice.
    Probe,
    /// Applies a fence.
    ApplyFence,
    /// Reads which fence is applied.
    ObserveFence,
    /// Issues a new secret.
    Rotate,
    /// Ends a former secret.
    Retire,
    /// Reads the content of a resource.
    Export,
    /// Replaces the content of a resource.
    Load,
    /// Checks that tenants are isolated from each other.
    CheckIsolation,
    /// Removes what deleted rows leave in shared files.
    Purge,
    /// Verifies a signed URL.
    VerifyUrl,
    /// Signs a URL.
    SignUrl,
    /// Deletes objects that are due by their buckets' own rules.
    ExpireObjects,
    /// Stores an object.
    PutObject,
    /// Opens an object.
    GetObject,
    /// Reads an object's metadata.
    ObjectMeta,
    /// Lists objects.
    ListObjects,
    /// Deletes an object.
    DeleteObject,
    /// Measures a bucket.
    BucketUsage,
    /// Inserts a row.
    InsertRow,
    /// Lists rows.
    ListRows,
    /// Reads a row.
    GetRow,
    /// Deletes a row.
    DeleteRow,
    /// Deletes the rows that are marked as samples.
    RemoveSamples,
}

/// Limit of calls that move a resource's content, or create one: a backstop only. The timeout of the step that calls
/// is shorter, and ends the call first.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Which permits of its provider a call takes. The limit of a provider holds for each of the first two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitClass {
    /// Work on resources: creation, removal, content, secrets.
    Work,
    /// Access control and state. Apart from the work, so that no export or upload, however long, delays the fence of a
    /// suspended tenant or the observations of an erasure.
    Control,
}

impl ProviderVerb {
    /// Every verb.
    pub const ALL: [Self; 26] = [
        Self::Ensure,
        Self::Observe,
        Self::Remove,
        Self::Probe,
        Self::ApplyFence,
        Self::ObserveFence,
        Self::Rotate,
        Self::Retire,
        Self::Export,
        Self::Load,
        Self::CheckIsolation,
        Self::Purge,
        Self::VerifyUrl,
        Self::SignUrl,
        Self::ExpireObjects,
        Self::PutObject,
        Self::GetObject,
        Self::ObjectMeta,
        Self::ListObjects,
        Self::DeleteObject,
        Self::BucketUsage,
        Self::InsertRow,
        Self::ListRows,
        Self::GetRow,
        Self::DeleteRow,
        Self::RemoveSamples,
    ];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ensure => "ensure",
            Self::Observe => "observe",
            Self::Remove => "remove",
            Self::Probe => "probe",
            Self::ApplyFence => "apply_fence",
            Self::ObserveFence => "observe_fence",
            Self::Rotate => "rotate",
            Self::Retire => "retire",
            Self::Export => "export",
            Self::Load => "load",
            Self::CheckIsolation => "check_isolation",
            Self::Purge => "purge",
            Self::VerifyUrl => "verify_url",
            Self::SignUrl => "sign_url",
            Self::ExpireObjects => "expire_objects",
            Self::PutObject => "put_object",
            Self::GetObject => "get_object",
            Self::ObjectMeta => "object_meta",
            Self::ListObjects => "list_objects",
            Self::DeleteObject => "delete_object",
            Self::BucketUsage => "bucket_usage",
            Self::InsertRow => "insert_row",
            Self::ListRows => "list_rows",
            Self::GetRow => "get_row",
            Self::DeleteRow => "delete_row",
            Self::RemoveSamples => "remove_samples",
        }
    }

    /// Which permits a call takes. Rows and objects that a client's request reads or writes take none, so that no slow upload
    /// holds a permit that an onboarding needs; a provider's own pool of connections still limits them, together with its other
    /// calls. Neither does a probe, so that a provider whose permits are all taken does not count as down.
    pub const fn permit_class(self) -> Option<PermitClass> {
        match self {
            Self::Ensure
            | Self::Remove
            | Self::Rotate
            | Self::Retire
            | Self::Export
            | Self::Load
            | Self::CheckIsolation
            | Self::Purge
            | Self::ExpireObjects => Some(PermitClass::Work),
            Self::Observe | Self::ApplyFence | Self::ObserveFence => Some(PermitClass::Control),
            Self::Probe
            | Self::VerifyUrl
            | Self::SignUrl
            | Self::PutObject
            | Self::GetObject
            | Self::ObjectMeta
            | Self::ListObjects
            | Self::DeleteObject
            | Self::BucketUsage
            | Self::InsertRow
            | Self::ListRows
            | Self::GetRow
            | Self::DeleteRow
            | Self::RemoveSamples => None,
        }
    }

    /// Longest time that a call may take once it has its permit.
    pub const fn time_limit(self) -> Duration {
        match self {
            Self::Ensure
            | Self::Remove
            | Self::Rotate
            | Self::Export
            | Self::Load
            // The API ends uploads, and the background task its own calls.
            | Self::PutObject
            | Self::ExpireObjects => LONG,
            Self::CheckIsolation | Self::Purge => Duration::from_secs(1800),
            Self::Retire => Duration::from_secs(300),
            Self::Observe | Self::ApplyFence => Duration::from_secs(60),
            Self::Probe | Self::ObserveFence => Duration::from_secs(20),
            Self::VerifyUrl
            | Self::SignUrl
            | Self::GetObject
            | Self::ObjectMeta
            | Self::ListObjects
            | Self::DeleteObject
            | Self::BucketUsage
            | Self::InsertRow
            | Self::ListRows
            | Self::GetRow
            | Self::DeleteRow
            // Longer than a request may take, which the API ends.
            | Self::RemoveSamples => Duration::from_secs(90),
        }
    }

    /// Whether the call puts a tenant's data into its region. The other verbs stay possible where a provider does not serve a
    /// region any more, so that existing resources can be read, fenced and removed.
    pub const fn places_data(self) -> bool {
        matches!(self, Self::Ensure | Self::Load)
    }

    /// Whether the call only reads, so that nothing has happened when its answer is lost.
    pub const fn only_reads(self) -> bool {
        matches!(
            self,
            Self::Observe
                | Self::Probe
                | Self::ObserveFence
                | Self::Export
                | Self::CheckIsolation
                | Self::VerifyUrl
                | Self::SignUrl
                | Self::GetObject
                | Self::ObjectMeta
                | Self::ListObjects
                | Self::BucketUsage
                | Self::ListRows
                | Self::GetRow
        )
    }
}
