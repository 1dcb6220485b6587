//! What the run knows of its tenants: what it asked for, and what the servers acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::draw::Draw;

/// Time for which a token is used; it is valid for longer.
const TOKEN_LIFE: Duration = Duration::from_secs(200);

/// A tenant.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Unique word that is in everything that belongs to the tenant.
    pub marker: String,
    /// The tenant's id, once an answer has named it.
    pub id: String,
    pub plan: &'static str,
    /// Whether the run never replaces or deletes what it has: a neighbour of the others.
    pub calm: bool,
    /// URL of the tenant's database login, past the gates.
    pub login: Option<String>,
    /// A member's token, with the time at which it was issued.
    pub token: Option<(String, Instant)>,
    /// Ids of rows whose insertion was acknowledged, and of all that were sent.
    pub rows: BTreeSet<String>,
    pub sent: BTreeSet<String>,
    /// Keys of objects that were acknowledged.
    pub objects: BTreeSet<String>,
    /// Backups and exports.
    pub archives: Vec<(&'static str, String)>,
    /// Whether an operation that deletes it was acknowledged as finished.
    pub gone: bool,
}

impl Tenant {
    /// The member's token, while it is valid.
    pub fn token(&self) -> Option<&str> {
        let (token, at) = self.token.as_ref()?;
        (at.elapsed() < TOKEN_LIFE).then_some(token)
    }
}

/// All tenants by marker.
#[derive(Default)]
pub struct Fleet(Mutex<BTreeMap<String, Tenant>>);

impl Fleet {
    /// Adds a tenant, before it is asked for.
    pub fn add(&self, tenant: Tenant) {
        self.0.lock().insert(tenant.marker.clone(), tenant);
    }

    /// Changes what is known of a tenant.
    pub fn change(&self, marker: &str, change: impl FnOnce(&mut Tenant)) {
        if let Some(tenant) = self.0.lock().get_mut(marker) {
            change(tenant);
        }
    }

    /// One of the tenants with an id for which `fits` is true.
    pub fn one(&self, draw: &mut Draw, fits: impl Fn(&Tenant) -> bool) -> Option<Tenant> {
        let fleet = self.0.lock();
        let fitting: Vec<&Tenant> =
            fleet.values().filter(|tenant| !tenant.id.is_empty() && !tenant.gone && fits(tenant)).collect();
        draw.one(&fitting).cloned()
    }

    /// All tenants.
    pub fn all(&self) -> Vec<Tenant> {
        self.0.lock().values().cloned().collect()
    }
}
