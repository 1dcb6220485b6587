//! The provider types of this server. A new type is one line here.

use tenantry_builtin::{
    billing_builtin, bucket_folder, certificate_local_ca, config_builtin, dns_builtin, exec, http,
    identity_builtin, mail_outbox, namespace_manifests,
};
use tenantry_databases::{postgres, sqlite_file, sqlite_pool};
use tenantry_provider::ProviderFactory;

/// All types. A step that names no provider gets the first one of its kind: where there is a PostgreSQL server, tenants'
/// databases are on it.
pub const FACTORIES: &[ProviderFactory] = &[
    postgres::FACTORY,
    sqlite_pool::FACTORY,
    sqlite_file::FACTORY,
    bucket_folder::FACTORY,
    namespace_manifests::FACTORY,
    identity_builtin::FACTORY,
    config_builtin::FACTORY,
    billing_builtin::FACTORY,
    mail_outbox::FACTORY,
    dns_builtin::FACTORY,
    certificate_local_ca::FACTORY,
    exec::FACTORY,
    http::FACTORY,
];
