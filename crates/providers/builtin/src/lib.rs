//! The embedded providers: buckets in folders, DNS, a local certificate authority, manifests, mail to an
//! outbox, commands and signed HTTP calls. One folder per provider, with the same file names in each.

pub mod answer;
pub mod bucket_folder;
pub mod certificate_local_ca;
pub mod dns_builtin;
pub mod exec;
pub mod http;
pub mod mail_outbox;
pub mod namespace_manifests;
pub mod redact;
pub mod ssrf;
