//! External names: from a template's pattern to the name of one tenant's resource.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use tenantry_model::{TenantId, slug};

/// Maximum length of an external name, in bytes: the limit of PostgreSQL, and of a DNS label and a Kubernetes name.
const MAX_NAME: usize = 63;
/// Pattern of kinds that the template does not name.
pub(crate) const DEFAULT: &str = "tenant_{id}_{step}";

/// Values of the placeholders.
pub(crate) struct Named<'a> {
    /// `{id}`
    pub tenant: TenantId,
    /// `{slug}`
    pub slug: &'a str,
    /// `{region}`
    pub region: &'a str,
    /// `{step}`
    pub step: &'a str,
}

impl Named<'_> {
    /// Fills in the pattern. A name that would be too long is cut and gets a hash of the whole, so that two names never differ
    /// only in the part that was cut.
    pub fn name(&self, pattern: &str) -> String {
        let values = BTreeMap::from([
            ("{id}", self.tenant.suffix()),
            ("{slug}", self.slug.to_owned()),
            ("{region}", self.region.to_owned()),
            ("{step}", self.step.to_owned()),
        ]);
        let fill = |name: String, (placeholder, value): (&&str, &String)| name.replace(placeholder, value);
        let full = values.iter().fold(pattern.to_owned(), fill);
        if full.len() <= MAX_NAME {
            return full;
        }
        let digest = Sha256::digest(full.as_bytes());
        let hash = hex::encode(&digest[..6]);
        let most = MAX_NAME - hash.len();
        let cut = full.char_indices().map(|(i, _)| i).take_while(|i| *i < most).last().unwrap_or(0);
        let separator = if pattern.contains('_') { '_' } else { '-' };
        format!("{}{separator}{hash}", &full[..cut])
    }
}

/// Names that a pattern gives: of the shortest and the longest slug and region.
pub(crate) fn samples(pattern: &str, step: &str) -> [String; 2] {
    let long = "a".repeat(slug::MAX_LENGTH);
    [("a", "r"), (long.as_str(), &long[..32])].map(|(slug, region)| {
        let tenant = TenantId::from_uuid(uuid::Uuid::max());
        Named { tenant, slug, region, step }.name(pattern)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(pattern: &str, slug: &str, step: &str) -> String {
        Named { tenant: TenantId::from_uuid(uuid::Uuid::nil()), slug, region: "eu-1", step }.name(pattern)
    }

    #[test]
    fn long_names_never_meet() {
        let (a, b) = ("a".repeat(63), format!("{}b", "a".repeat(62)));
        let (a, b) = (name("tenant-{slug}", &a, "x"), name("tenant-{slug}", &b, "x"));
        assert_eq!(a.len(), 63);
        assert_ne!(a, b);
        assert_eq!(name("tenant-{id}-{region}", "x", "s"), "tenant-00000000000000000000000000-eu-1");
    }
}
