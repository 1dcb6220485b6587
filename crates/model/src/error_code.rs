//! Error codes: stable identifiers of errors for programs, each with its class, HTTP status, cause and remedy. This is
//! the only list of them; `docs/errors/` is generated from it.

use std::fmt;
use std::str::FromStr;

use crate::failure::FailureClass;

macro_rules! status {
    (_) => {
        None
    };
    ($status:literal) => {
        Some($status)
    };
}

macro_rules! codes {
    ($($variant:ident $word:literal $class:ident $status:tt $cause:literal $remedy:literal)*) => {
        /// A stable identifier of an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = $cause] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code in the API, in tables and in logs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Class: whether the call may have had an effect, and whether a retry can help.
            pub const fn class(self) -> FailureClass {
                match self { $(Self::$variant => FailureClass::$class,)* }
            }

            /// The HTTP status of a response with this code; none if only operations and reports have it.
            pub const fn status(self) -> Option<u16> {
                match self { $(Self::$variant => status!($status),)* }
            }

            /// Cause of the error, as one sentence.
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            /// Remedy: what the user should do, as one sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    // Requests
    RequestInvalid "request_invalid" Invalid 422 "Fields of the request are not valid; `errors` names every one of them."
        "Correct the named fields and send the request again."
    QueryInvalid "query_invalid" Invalid 422 "Parameters of the query string are not valid."
        "Correct the named parameters."
    MalformedJson "malformed_json" Invalid 400 "The body is not JSON, or has a duplicate key."
        "Send a valid JSON document (RFC 8259)."
    MalformedHeader "malformed_header" Invalid 400 "A header has a value that cannot be read."
        "Correct the header that the message names."
    MalformedPath "malformed_path" Invalid 400 "The path contains bytes that are not valid percent-encoded UTF-8."
        "Encode the path as RFC 3986 asks."
    NoSuchPath "no_such_path" Invalid 404 "The API has no such path."
        "See `/openapi.json` for all paths."
    MethodNotAllowed "method_not_allowed" Invalid 405 "The path does not take this method; `Allow` lists those that it takes."
        "Use one of the listed methods."
    NotAcceptable "not_acceptable" Invalid 406 "The client accepts none of the media types that this path answers with."
        "Accept the media type that the message names."
    RequestTimeout "request_timeout" Retryable 408 "The body did not arrive in time."
        "Send it again, faster or in smaller parts."
    BodyCutOff "body_cut_off" Retryable 400 "The connection ended before the body did."
        "Send the request again."
    BodyTooLarge "body_too_large" Invalid 413 "The body is longer than the limit that the message names."
        "Send less, or raise the limit in the configuration."
    UnsupportedMediaType "unsupported_media_type" Invalid 415 "The body has a media type that this path does not take."
        "Send the media type that the message names."
    BadRange "bad_range" Invalid 416 "The requested range lies outside of the content."
        "Ask for a range within the size that the message names."
    PreconditionRequired "precondition_required" Invalid 428 "The change needs the version that it is based on."
        "Read the object and send its `ETag` as `If-Match`."
    VersionMismatch "version_mismatch" Invalid 412 "The object has changed since the client read it."
        "Read it again, and repeat the change on the new version."
    IdempotencyKeyInvalid "idempotency_key_invalid" Invalid 422 "The idempotency key is not 1 to 255 printable ASCII characters."
        "Send a key of the allowed form."
    IdempotencyKeyReused "idempotency_key_reused" Invalid 422 "The idempotency key was used for another request before."
        "Use a new key for every new request."
    Rejected "rejected" Invalid 400 "The server rejected the request, or an approver rejected the step; the message has the reason."
        "Read the reason; begin again if it no longer applies."
    Draining "draining" Retryable 503 "The process is shutting down; only `/readyz` answers with this code."
        "Send requests to another process, or wait until this one has restarted."
    NotFound "not_found" Invalid 404 "The object does not exist, or the caller may not see it."
        "Check the id and the key's scopes."
    Unauthenticated "unauthenticated" Invalid 401 "The credential is missing, unknown, expired or revoked."
        "Send a valid API key or token."
    CodeRefused "code_refused" Invalid 401 "The one-time code is unknown, used or expired."
        "Ask for a new code."
    InvitationRefused "invitation_refused" Invalid 401 "The invitation is unknown, used or expired."
        "Ask an administrator of the tenant for a new invitation."
    PasswordRefused "password_refused" Invalid 401 "The tenant, the e-mail address or the password is wrong, or the member is not active."
        "Correct them; an administrator of the tenant can invite the member again."
    TokenExpired "token_expired" Invalid 401 "The access token has expired."
        "Sign in again."
    TokenInvalid "token_invalid" Invalid 401 "The access token is malformed, or another server signed it."
        "Sign in again."
    RefreshRefused "refresh_refused" Invalid 400 "The refresh token is unknown, used or expired, or its session has ended."
        "Sign in again. A token that was used before ends its session: it may have been stolen."
    SessionEnded "session_ended" Invalid 401 "The session of the access token has ended."
        "Sign in again."
    Forbidden "forbidden" Invalid 403 "The credential does not allow this."
        "Use a key with a scope that the message names, or a token of a member with that right."
    PaymentRequired "payment_required" Invalid 402 "The tenant is suspended for the reason `payment` only."
        "After the payment, resume the tenant with `tenantry tenant resume`."
    TenantSuspended "tenant_suspended" Invalid 403 "The tenant is suspended, in a mode that denies this access."
        "Resolve the named reason and resume the tenant."
    TenantNotActive "tenant_not_active" Invalid 403 "The tenant is not active."
        "Wait for its onboarding, or see its status."
    // Tenants and operations
    TenantNameTaken "tenant_name_taken" Invalid 409 "Another tenant has this name; names are compared without regard to case."
        "Choose another name."
    SlugTaken "slug_taken" Invalid 409 "Another tenant has or had this slug."
        "Choose one of the free slugs that the message names."
    TenantBusy "tenant_busy" Retryable 409 "Another operation changes this tenant."
        "Wait for it, then try again."
    IllegalTransition "illegal_transition" Invalid 409 "The tenant's status does not allow this."
        "See the tenant's status with `tenantry tenant get`; the lifecycle in `ARCHITECTURE.md` says what each status allows."
    Illegal "illegal" Fatal _ "An operation reached a step that the tenant's status does not allow."
        "See the tenant's history; repair or offboard it."
    OperationRunning "operation_running" Retryable 409 "The operation is still running."
        "Wait for its end."
    SignalRefused "signal_refused" Invalid 409 "The operation or step does not take this signal now."
        "See the operation's state; the message says what is possible."
    CredentialsGone "credentials_gone" Invalid 410 "The operation created no secrets, or a client has claimed them already."
        "Rotate the credentials to get a new database password; other secrets can be claimed only once."
    CustomizationNotAllowed "customization_not_allowed" Invalid 422 "The template does not allow this customisation."
        "Leave it out, or allow it in the template."
    CustomizationRefused "customization_refused" Invalid 422 "A rule of the template rejects the value."
        "Choose a value that satisfies the rule."
    InheritanceFailed "inheritance_failed" Invalid 409 "The settings inherited from the main tenant do not satisfy the template's schema."
        "Correct the main tenant's settings."
    InsufficientResources "insufficient_resources" Fatal 409 "The region has no free capacity of a kind that the template reserves."
        "Choose another region, or raise the capacity in the configuration."
    SourceGone "source_gone" Invalid _ "The tenant to be cloned is not active or suspended."
        "Choose another source."
    NothingToRotate "nothing_to_rotate" Invalid 409 "The tenant has no credentials that can be rotated."
        "Nothing is needed: SQLite databases, for instance, have no logins."
    RotationUnderWay "rotation_under_way" Fatal 409 "The credentials were rotated before, and the previous ones are still valid."
        "Wait until the time that the message names, or revoke all previous credentials with `--now`."
    NoDatabase "no_database" Fatal 409 "The tenant has no database that this applies to, or the database does not exist."
        "See `tenantry tenant status`; if the database is missing, run `tenantry tenant repair` and restore a backup."
    TooManyExports "too_many_exports" Invalid 409 "The tenant has as many exports as it may have at a time."
        "Wait until the oldest has expired."
    TooManyAttempts "too_many_attempts" Retryable 429 "Too many sign-ins to this account, or from this address, have failed."
        "Wait 15 minutes. A member that has forgotten the password gets an invitation: `tenantry member invite`."
    TooManyRequests "too_many_requests" Retryable 429 "This client, key or tenant sends more requests, or has more of them in flight, than its share."
        "Wait as long as `Retry-After` says. An operator can raise the shares: `[limits]` in the configuration."
    TooManyStreams "too_many_streams" Retryable 429 "This key or tenant has as many event streams open as its share allows."
        "Close streams that are no longer read; a stream of all events replaces many of single operations."
    TooManyTransfers "too_many_transfers" Retryable 429 "This tenant has as many uploads or downloads in flight as its share allows."
        "Wait until one has ended, and send fewer at a time."
    TooManyOpen "too_many_open" Retryable 429 "This client's address has as many open connections as its share allows."
        "Close idle connections, and send requests over fewer. If it is a proxy, name it in `trusted_proxies`."
    Overloaded "overloaded" Retryable 503 "The server has as much in flight as it can take; capacity of operators and probes is kept."
        "Wait as long as `Retry-After` says. If it persists, raise `[limits]` in the configuration or add servers."
    ArchiveGone "archive_gone" Invalid 410 "The archive has expired or was removed, or its key is destroyed."
        "Export the tenant again."
    ReportGone "report_gone" Invalid 410 "The server has deleted the isolation report; it keeps the newest 100."
        "Run the isolation check again."
    CertificateNotFound "certificate_not_found" Invalid 404 "No certificate of deletion has this id."
        "Check the id."
    QuotaExceeded "quota_exceeded" Invalid 409 "The bucket would exceed its quota."
        "Delete objects, or raise the quota."
    Expired "expired" Invalid 403 "The signed URL has expired."
        "Ask for a new one."
    BadSignature "bad_signature" Invalid 403 "The signature does not match the URL."
        "Request a new URL; do not change a signed one."
    // Configuration and templates
    CatalogueInvalid "catalogue_invalid" Invalid 422 "The plan catalogue is not valid."
        "Correct the named entries."
    ConfigInvalid "config_invalid" Invalid 422 "The configuration is not valid."
        "Run `tenantry config check`; it names every fault."
    TemplateInvalid "template_invalid" Invalid 422 "A template is not valid."
        "Run `tenantry template validate`; it names every fault."
    KeyringMismatch "keyring_mismatch" Fatal 409 "The registry was created with another keyring; the server does not start."
        "Point `keyring.url` to the keyring of this registry, or restore that keyring from its backup."
    BadConfig "bad_config" Invalid _ "A provider's configuration cannot be used."
        "Correct the setting that the message names."
    BadUrl "bad_url" Fatal _ "A connection URL in the configuration cannot be read."
        "Write it in the form that the message shows."
    BadCredentials "bad_credentials" Fatal _ "The server rejects the name or password of the configuration."
        "Correct the URL or the secret."
    BadSettings "bad_settings" Invalid _ "The settings of a template's step are not valid for its provider."
        "Correct the step in the template."
    BadTemplate "bad_template" Invalid _ "A mail or text template cannot be rendered."
        "Correct the template that the message names."
    UnknownTemplate "unknown_template" Invalid _ "The mail template does not exist."
        "Add the file that the message names."
    UnknownSeed "unknown_seed" Invalid _ "The seed does not exist."
        "Add the file that the message names."
    BadSeed "bad_seed" Invalid _ "A seed file is not valid."
        "Correct the file and place that the message names."
    BadMigration "bad_migration" Fatal _ "A migration file cannot be applied."
        "Correct the file that the message names."
    MigrationChanged "migration_changed" Fatal _ "A migration that was applied before has another content now."
        "Put the old content back, and add a new migration."
    BadMask "bad_mask" Invalid _ "A mask of a clone is not valid."
        "Correct the mask that the message names."
    BadSchema "bad_schema" Fatal _ "The tenant's tables do not keep the rules of the isolation model."
        "Change the migration as the message says."
    NoCanary "no_canary" Fatal _ "The seeds have no canary row, which the isolation check needs."
        "Add `canary.yaml` with one row."
    BadRole "bad_role" Invalid _ "A database role bypasses row level security, or the role of the first administrator is not one that administers a tenant."
        "Name another role."
    BadName "bad_name" Invalid _ "The planned name is not allowed for this resource."
        "Change `names` in the template."
    // Rows and objects
    BadContentType "bad_content_type" Invalid _ "The content type is not valid."
        "Send up to 255 printable ASCII characters."
    BadExpiry "bad_expiry" Invalid _ "The requested lifetime of the signed URL is too long."
        "Ask for at most seven days."
    BadKey "bad_key" Invalid _ "The object's key, or a stored signing key, is not valid."
        "Use 1 to 1024 bytes without control characters."
    BadLimit "bad_limit" Invalid _ "`limit` is out of range."
        "Use a value in the range that the message names."
    BadValue "bad_value" Invalid _ "A value does not fit its column."
        "Send a value of the column's type."
    BadText "bad_text" Fatal _ "A table holds text that is not UTF-8."
        "Store such values as bytes."
    Constraint "constraint" Invalid _ "A constraint of the tenant's tables rejects the row."
        "Correct the row."
    SampleInUse "sample_in_use" Invalid _ "A sample row is referenced by a row that is not a sample."
        "Delete the referencing row first."
    TooBig "too_big" Invalid _ "A value is longer than the database allows."
        "Send a shorter one."
    TooLarge "too_large" Invalid _ "The archive to be imported is larger than the limit."
        "Raise `import_max_bytes`."
    TooLong "too_long" Invalid _ "The object is larger than 256 TiB."
        "Store it in parts."
    UnknownColumn "unknown_column" Invalid _ "The table has no such column."
        "Use one of the columns that the message names."
    UnknownTable "unknown_table" Invalid _ "The tenant has no such table."
        "Use one of the tables that the message names."
    NoSuchTable "no_such_table" Fatal _ "The code names a registry table that does not exist: a defect."
        "Report it with the message."
    NoSuchTenant "no_such_tenant" Invalid _ "The provider knows no such tenant."
        "Check the tenant's resources with `tenantry tenant status`."
    NoSuchBucket "no_such_bucket" Invalid _ "The tenant has no bucket."
        "Check the tenant's template."
    OneWay "one_way" Invalid _ "Content of this kind is exported but never imported."
        "Nothing is needed: the tenant that imports it has its own."
    // Steps and providers
    NoProvider "no_provider" Fatal _ "The provider that the step names is not configured in this process."
        "Configure it, then retry the operation."
    NoTenant "no_tenant" Fatal _ "The tenant's row is missing."
        "Restore the registry from a backup."
    BadPlan "bad_plan" Fatal _ "The stored plan of an operation is not valid."
        "Report it with the operation's id."
    BadLedger "bad_ledger" Fatal _ "A row of the ledger cannot be read by this version."
        "Use the version that wrote it, or report it with the operation's id."
    CrossBorder "cross_border" Fatal _ "The provider would place data outside of the tenant's region."
        "Add the region to `[regions]`, or choose another provider."
    NameTaken "name_taken" Fatal _ "A resource with another owner tag has the planned name; it was not touched."
        "Remove or rename it, then retry."
    RemovalBlocked "removal_blocked" Fatal _ "A trigger of shared tables stops the removal of a tenant's rows."
        "Change or drop the trigger that the message names, then retry."
    HasDependents "has_dependents" Fatal _ "A removal would also delete objects outside of the tenant's schema; nothing was removed."
        "Drop or change the objects that the message names, then retry."
    DomainTaken "domain_taken" Fatal _ "Another tenant has this domain; it was not touched."
        "Choose another domain."
    DomainUnproven "domain_unproven" Retryable _ "The custom domain is not proven yet."
        "Create the DNS record that the message names."
    StaleGeneration "stale_generation" Fatal _ "The subscription of this generation has ended, or a newer generation exists."
        "Nothing is needed: the newer generation counts."
    NoAdmin "no_admin" Invalid _ "The tenant has no administrator's e-mail address."
        "Name an administrator in the request."
    BadAddress "bad_address" Invalid _ "The e-mail address cannot receive mail."
        "Correct the address."
    BadMessage "bad_message" Invalid _ "The message cannot be built or signed."
        "Correct the settings that the message names."
    BadAnswer "bad_answer" Unknown _ "The response of the command or server does not match its schema."
        "Correct the command or server; the step is retried."
    CannotRepair "cannot_repair" Fatal _ "The provider cannot repair what differs."
        "Restore the resource as the message says."
    ContentDiffers "content_differs" Retryable _ "The content's digest differs from the one expected after a copy."
        "The step is retried; check the source if it recurs."
    NotComplete "not_complete" Fatal _ "The resource is not complete."
        "Repair it first."
    NotGone "not_gone" Retryable _ "A provider still has resources of the tenant."
        "The step is retried; remove what the message names."
    StillThere "still_there" Retryable _ "The resource still exists after its removal."
        "The step is retried; check the provider if it recurs."
    JustGone "just_gone" Retryable _ "The resource was removed while the step worked on it."
        "The step is retried."
    JustMade "just_made" Retryable _ "A resource of this name was created at the same moment."
        "The step is retried."
    SmokeTestFailed "smoke_test_failed" Retryable _ "The smoke test failed; the message names the check."
        "See the check; the step is retried."
    IsolationBroken "isolation_broken" Fatal _ "A tenant can read another tenant's row."
        "Treat it as an incident: stop onboarding and run the isolation check."
    CannotCertify "cannot_certify" Fatal _ "The certificate of deletion cannot be written as JSON: a defect."
        "Report it with the operation's id."
    NoArchive "no_archive" Fatal _ "The archive's file is missing."
        "Restore the archive folder from its backup."
    BadArchive "bad_archive" Invalid 422 "The archive is damaged, incomplete or not one of Tenantry."
        "Export again, and transfer the file whole."
    BadManifest "bad_manifest" Fatal _ "The archive's manifest cannot be written."
        "Report it with the operation's id."
    Corrupt "corrupt" Fatal _ "A stored file is damaged."
        "Restore it from a backup."
    FileReplaced "file_replaced" Fatal _ "A database file was removed or replaced while it was open."
        "Restore it and start again."
    BrokenOff "broken_off" Unknown _ "Storing the archive was interrupted."
        "The step is retried."
    Cut "cut" Unknown _ "The answer ended early."
        "The step is retried."
    CutOff "cut_off" Retryable _ "The upload or copy ended early."
        "Send it again, or let the step be retried."
    Command "command" Unknown _ "The pipes to the command broke."
        "The step is retried."
    CommandFailed "command_failed" Fatal _ "The command ended with a failure."
        "See its output in the message."
    CannotStart "cannot_start" Fatal _ "The command cannot be started."
        "Check the path and permissions of the command."
    Killed "killed" Unknown _ "The command was killed by a signal."
        "The step is retried."
    Survivor "survivor" Retryable _ "A process of an earlier attempt does not end, though it was killed."
        "The step is retried; check the machine."
    TooMuchOutput "too_much_output" Fatal _ "The command printed more than the limit."
        "Let it print less."
    AddressRefused "address_refused" Fatal _ "The URL is not an `https` URL without credentials, or its host has a private address, and the configuration does not allow it."
        "Use a public host over `https`, or add the host to `allow_hosts`."
    Redirected "redirected" Fatal _ "The server answered with a redirect; redirects are not followed."
        "Configure the final URL."
    Refused "refused" Fatal _ "The server rejected the call for good."
        "See its status in the message."
    TryAgain "try_again" Retryable _ "The command or server asks for a later attempt, or the server failed (429 or 5xx)."
        "The step is retried."
    Unreachable "unreachable" Retryable _ "The server cannot be reached."
        "The step is retried; check the address and the network."
    Timeout "timeout" Unknown _ "No answer came in time; the call may have taken effect."
        "The step is retried, and checks the outcome first."
    Stopped "stopped" Unknown _ "The process was shut down during the work."
        "The work continues after the restart."
    Panic "panic" Unknown _ "The step's code panicked: a defect."
        "Report it with the log."
    Interrupted "interrupted" Fatal _ "Ten processes in a row died while they ran this step."
        "See the logs of the processes; retry the step."
    Conflict "conflict" Retryable _ "The operation changed meanwhile."
        "Try again."
    Busy "busy" Retryable _ "The resource is locked or in use."
        "The step is retried."
    Restarting "restarting" Retryable _ "The database server is starting, stopping or recovering."
        "The step is retried."
    ConnectionLost "connection_lost" Unknown _ "The connection to the database broke before the answer."
        "The step is retried, and checks the outcome first."
    Deadlock "deadlock" Retryable _ "The database ended the transaction because of a deadlock."
        "The step is retried."
    Serialization "serialization" Retryable _ "A concurrent transaction changed the same rows."
        "The step is retried."
    RolledBack "rolled_back" Retryable _ "The database rolled the transaction back."
        "The step is retried."
    OutOfResources "out_of_resources" Retryable _ "The database server is out of memory or another resource."
        "Give it more, or lower its load."
    TooManyConnections "too_many_connections" Retryable _ "The database server has no free connection."
        "Raise `max_connections`, or lower `connections`."
    DiskFull "disk_full" Retryable _ "The disk is full."
        "Free space; the step is retried."
    IoError "io_error" Retryable _ "A file cannot be read or written."
        "Check the disk; the step is retried."
    ReadOnly "read_only" Retryable _ "The folder or database cannot be written."
        "Grant write permission, or fail over to the primary."
    CannotOpen "cannot_open" Retryable _ "A file, folder or database cannot be opened."
        "Check that it exists and that the process may open it."
    Unreadable "unreadable" Retryable _ "A file cannot be read."
        "Check its permissions."
    NotAllowed "not_allowed" Fatal _ "The database denies the statement to this role, or a row sets `tenant_id`."
        "Grant the missing privilege, or leave `tenant_id` out."
    Database "database" Fatal _ "The database rejected a statement."
        "See the message of the database."
    OwnDatabaseOpen "own_database_open" Fatal _ "Tenants' logins could connect to the database of the registry or of the keyring."
        "Run the statement of the message, or move the registry to another server."
    TooOld "too_old" Fatal _ "The server's version is too old."
        "Use the version that the message names, or a newer one."
    NotStarted "not_started" Retryable _ "The provider has not started yet."
        "The step is retried."
    NotReady "not_ready" Retryable _ "The server is still starting."
        "The step is retried."
    DnsFolder "dns_folder" Retryable _ "The folder of DNS records cannot be used."
        "Check its permissions."
    DnsListen "dns_listen" Retryable _ "The DNS server cannot listen on its address."
        "Free the port, or configure another."
    DnsNotPropagated "dns_not_propagated" Retryable _ "The name server does not answer with the new record yet."
        "The step is retried."
    DnsResolver "dns_resolver" Retryable _ "The resolver cannot be used."
        "Check `resolver` in the configuration."
    DnsUnreachable "dns_unreachable" Retryable _ "The DNS server cannot be reached."
        "The step is retried."
    Certificate "certificate" Fatal _ "The certificate cannot be made."
        "See the message."
    CertificateFolder "certificate_folder" Retryable _ "The folder of certificates cannot be used."
        "Check its permissions."
    CaExpired "ca_expired" Fatal _ "The certificate authority has expired."
        "Configure another authority."
    BadClock "bad_clock" Fatal _ "The machine's clock is set to a time that no certificate can hold."
        "Set the clock."
    Manifest "manifest" Fatal _ "A manifest cannot be written."
        "See the message."
    Outbox "outbox" Retryable _ "The outbox folder cannot be used."
        "Check its permissions."
    NoSecret "no_secret" Fatal _ "The secret that signs or verifies does not exist."
        "Configure the secret file."
    DuplicateProvider "duplicate_provider" Invalid _ "Two providers of the configuration have the same name."
        "Rename one of the instances."
    NotSupported "not_supported" Fatal _ "The provider does not have the capability that the call needs."
        "Choose a provider that has it."
    NoAnswer "no_answer" Unknown _ "The provider's answer was lost inside Tenantry: a defect; the call may have taken effect."
        "The step is retried, and checks the outcome first; report it with the log."
    ShuttingDown "shutting_down" Retryable _ "The process is shutting down."
        "The work continues after the restart."
    UnknownAction "unknown_action" Fatal _ "This version has no action of the step's kind."
        "Use the version that wrote the operation, or a newer one."
    Irreversible "irreversible" Fatal _ "The action cannot be compensated."
        "See the message."
    // Registry and keyring
    Unavailable "unavailable" Retryable 503 "The registry does not answer."
        "Nothing is lost; try again."
    RegistryUnavailable "registry_unavailable" Retryable _ "The registry does not answer to the process that runs operations."
        "The step is retried."
    RegistryWentBack "registry_went_back" Fatal 503 "The registry is older than one that this process has seen."
        "Point the process to the current primary."
    KeyringUnavailable "keyring_unavailable" Retryable _ "The keyring does not answer."
        "The step is retried."
    ProviderFailed "provider_failed" Fatal 500 "A provider failed, and fails again until an operator acts."
        "Read the cause in the log, under the request's id."
    ProviderUnavailable "provider_unavailable" Retryable 503 "A provider does not answer."
        "Nothing is lost; try again."
    Ledger "ledger" Retryable _ "The ledger does not answer."
        "The step is retried."
    KeyDestroyed "key_destroyed" Fatal _ "The tenant's key is destroyed: its data cannot be read any more."
        "Nothing can restore it: the tenant was deleted."
    KeyMissing "key_missing" Fatal _ "The tenant's key is missing in the keyring."
        "Restore the keyring from its backup."
    KeyNotLoaded "key_not_loaded" Retryable _ "The tenant's key is not in memory yet."
        "The step is retried."
    WrongMasterKey "wrong_master_key" Fatal _ "The key was wrapped by another master key."
        "Use the master key that belongs to the keyring."
    WrongTenantKey "wrong_tenant_key" Fatal _ "The sealed text belongs to another tenant, or was changed."
        "Restore the row from a backup."
    CannotDerive "cannot_derive" Fatal _ "No key can be derived."
        "Report it with the log."
    CannotSeal "cannot_seal" Fatal _ "The text is too long to be sealed."
        "Shorten it."
    Internal "internal" Fatal 500 "A defect inside Tenantry; the log has the cause under the request's id."
        "Report it with the log."
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word).ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The page of a code.
    fn page(code: ErrorCode) -> String {
        let class = format!("{:?}", code.class()).to_lowercase();
        let retry = match code.class() {
            FailureClass::Retryable => "a retry is safe and may succeed",
            FailureClass::Unknown => "the call may have taken effect; a retry is safe",
            FailureClass::Invalid => "a retry fails again until the request or file is changed",
            FailureClass::Fatal => "a retry fails again until an operator acts",
        };
        let status = code
            .status()
            .map_or("none: in operations and reports only".to_owned(), |status| status.to_string());
        format!(
            "# {code}\n\n{}\n\n**What to do.** {}\n\n| | |\n|---|---|\n| class | {class}: {retry} |\n| HTTP status | {} |\n",
            code.cause(),
            code.remedy(),
            status,
        )
    }

    #[test]
    fn words_are_unique_and_read_back() {
        let words: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert_eq!("no_such_code".parse::<ErrorCode>(), Err(UnknownCode));
    }

    /// `UPDATE_ERROR_PAGES=1 cargo test -p tenantry-model pages` writes them.
    #[test]
    fn pages_are_those_of_the_list() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let mut index = "# Error codes\n\nGenerated from `crates/model/src/error_code.rs`.\n\n| code | status | |\n|---|---|---|\n".to_owned();
        for code in ErrorCode::ALL {
            let status = code.status().map(|status| status.to_string()).unwrap_or_default();
            index += &format!("| [{code}]({code}.md) | {status} | {} |\n", code.cause());
        }
        let pages = ErrorCode::ALL.iter().map(|code| (format!("{code}.md"), page(*code)));
        let wanted: Vec<_> = pages.chain([("README.md".to_owned(), index)]).collect();
        if std::env::var_os("UPDATE_ERROR_PAGES").is_some() {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in &wanted {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        let names: BTreeSet<_> = std::fs::read_dir(&folder)
            .expect("docs/errors is missing: run with UPDATE_ERROR_PAGES=1")
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, wanted.iter().map(|(name, _)| name.clone()).collect());
        for (name, text) in wanted {
            assert_eq!(
                std::fs::read_to_string(folder.join(&name)).unwrap(),
                text,
                "{name}: UPDATE_ERROR_PAGES=1"
            );
        }
    }
}
