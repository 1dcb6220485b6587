//! The provider types of this server. A new type is one line here.

use tenantry_builtin::{
    bucket_folder, certificate_local_ca, dns_builtin, exec, http, mail_outbox, namespace_manifests,
};
use tenantry_control::tenants::config;
use tenantry_control::{billing, members};
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
    members::FACTORY,
    config::FACTORY,
    billing::FACTORY,
    mail_outbox::FACTORY,
    dns_builtin::FACTORY,
    certificate_local_ca::FACTORY,
    exec::FACTORY,
    http::FACTORY,
];
