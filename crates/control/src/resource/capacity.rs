//! Capacity: how many resources of a kind a region has room for, and who has which place.
//!
//! A place is a row, and its key is unique: two tenants cannot get the same one, however many ask at once and from
//! wherever. What is in memory only says where to look first, and which places a sign-up has claimed that is not written
//! yet: who comes too late is refused before anything is. A reservation lasts a while; after that somebody else may take
//! the place over, and whoever had it finds out when they activate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tenantry_model::{Failure, TenantId, Timestamp, Write, columns};

use tenantry_store::{ReadError, Store, entity::place};

/// How many resources of each kind a region has room for. A kind that is not named has no limit.
pub type Capacity = BTreeMap<String, BTreeMap<String, u32>>;

/// How long a place stays reserved for an operation that does not get on.
pub const RESERVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A place of a kind in a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    pub region: String,
    /// For what.
    pub kind: String,
    /// Which one.
    pub place: i64,
}

/// How long it is believed that everything is taken.
const FULL_FOR: Duration = Duration::from_millis(100);

/// Places of one kind in one region that are free, as far as is known: each with its row if it has one, those whose
/// reservation has run out last. What is offered is not in it any more; it comes back, if nobody has taken it after all,
/// when the rows are read again.
#[derive(Default)]
struct Free {
    places: BTreeMap<(bool, i64), Option<place::Model>>,
    /// When a reading found nothing.
    full_at: Option<Timestamp>,
}

/// Places, and the writes that reserve them.
type Reservation = (Vec<Place>, Vec<Write>);

/// Who has which place.
pub struct Places {
    store: Store,
    capacity: Capacity,
    free: Mutex<BTreeMap<(String, String), Free>>,
    claimed: Mutex<BTreeMap<TenantId, Reservation>>,
}

/// Places that nobody else in this process is offered while it lasts.
pub struct Claim<'a> {
    places: &'a Places,
    tenant: TenantId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.places.claimed.lock().remove(&self.tenant);
    }
}

impl Places {
    /// Over this registry.
    pub fn new(store: Store, capacity: Capacity) -> Arc<Self> {
        Arc::new(Self { store, capacity, free: Mutex::default(), claimed: Mutex::default() })
    }

    /// What is needed and the region has no room for, such as `database in eu`.
    pub async fn missing(
        &self,
        region: &str,
        needed: &BTreeMap<String, u32>,
        now: Timestamp,
    ) -> Result<Vec<String>, ReadError> {
        let mut missing = Vec::new();
        for (kind, count, limit) in self.limited(region, needed) {
            let enough = |free: &mut Free| free.places.len() >= count as usize;
            if self.look(region, kind, limit, now, |free| enough(free).then_some(())).await?.is_none() {
                missing.push(format!("{kind} in {region}"));
            }
        }
        Ok(missing)
    }

    /// Finds the places that [`Self::reserve`] will reserve for this tenant. The error names everything that is missing.
    pub async fn claim(
        &self,
        tenant: TenantId,
        region: &str,
        needed: &BTreeMap<String, u32>,
        now: Timestamp,
    ) -> Result<Claim<'_>, Failure> {
        let found = self.reserve(tenant, region, needed, now).await?;
        self.claimed.lock().insert(tenant, found);
        Ok(Claim { places: self, tenant })
    }

    /// The places that are reserved by these writes: those that were claimed, or else free ones. The error names
    /// everything that is missing.
    pub async fn reserve(
        &self,
        tenant: TenantId,
        region: &str,
        needed: &BTreeMap<String, u32>,
        now: Timestamp,
    ) -> Result<Reservation, Failure> {
        if let Some(claimed) = self.claimed.lock().get(&tenant) {
            return Ok(claimed.clone());
        }
        let (mut places, mut writes, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, count, limit) in self.limited(region, needed) {
            let taken = self.look(region, kind, limit, now, |free| free.take(count as usize)).await;
            match taken.map_err(unreadable)? {
                None => missing.push(format!("{kind} in {region}")),
                Some(taken) => {
                    for (place, row) in taken {
                        let place = Place { region: region.to_owned(), kind: kind.clone(), place };
                        writes.push(place.reserved(tenant, row.as_ref(), now));
                        places.push(place);
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok((places, writes));
        }
        // Clients match this wording.
        Err(Failure::fatal(
            "insufficient_resources",
            format!("Insufficient resources: {}", missing.join(", ")),
        ))
    }

    /// Writes that make the reservations of a tenant lasting. They are refused if somebody else has taken one over.
    pub fn keep(tenant: TenantId, places: &[Place]) -> Vec<Write> {
        let ours = || columns! { "tenant_id": tenant };
        let keep = |place: &Place| {
            Write::update_if("places", place.key(), ours(), columns! { "reserved_until": () })
        };
        places.iter().map(keep).collect()
    }

    /// Writes that give back what a tenant has.
    pub async fn give_back(&self, tenant: TenantId) -> Result<Vec<Write>, Failure> {
        let rows = self.store.places_of(&tenant.to_string()).await.map_err(unreadable)?;
        let ours = columns! { "tenant_id": tenant };
        let free = columns! { "tenant_id": (), "reserved_until": () };
        let back = rows.into_iter().map(|place::Model { region, kind, place, .. }| {
            Write::update_if("places", Place { region, kind, place }.key(), ours.clone(), free.clone())
        });
        Ok(back.collect())
    }

    /// What of the needed has a limit: kind, number, limit.
    fn limited<'a>(
        &'a self,
        region: &str,
        needed: &'a BTreeMap<String, u32>,
    ) -> impl Iterator<Item = (&'a String, u32, i64)> {
        let limits = self.capacity.get(region);
        needed.iter().filter_map(move |(kind, count)| {
            limits.and_then(|limits| limits.get(kind)).map(|limit| (kind, *count, i64::from(*limit)))
        })
    }

    /// Finds something among the free places that are known; if there is nothing, among those that are really free.
    async fn look<T>(
        &self,
        region: &str,
        kind: &str,
        limit: i64,
        now: Timestamp,
        find: impl Fn(&mut Free) -> Option<T>,
    ) -> Result<Option<T>, ReadError> {
        let key = (region.to_owned(), kind.to_owned());
        if let Some(free) = self.free.lock().get_mut(&key) {
            let found = find(free);
            if found.is_some() || free.full_at.is_some_and(|at| now < at + FULL_FOR) {
                return Ok(found);
            }
        }
        let rows = self.store.places(region, kind).await?;
        let mut places: BTreeMap<_, _> = (1..=limit).map(|place| ((false, place), None)).collect();
        for row in rows.into_iter().filter(|row| row.place <= limit) {
            places.remove(&(false, row.place));
            let run_out = row.reserved_until.is_some_and(|until| *until <= now);
            if row.tenant_id.is_none() || run_out {
                places.insert((run_out, row.place), Some(row));
            }
        }
        let claimed = self.claimed_of(region, kind);
        places.retain(|(_, place), _| !claimed.contains(place));
        let mut all = self.free.lock();
        let free = all.entry(key).or_default();
        *free = Free { full_at: places.is_empty().then_some(now), places };
        Ok(find(free))
    }

    fn claimed_of(&self, region: &str, kind: &str) -> BTreeSet<i64> {
        let claimed = self.claimed.lock();
        let places = claimed.values().flat_map(|(places, _)| places);
        places.filter(|place| place.region == region && place.kind == kind).map(|place| place.place).collect()
    }
}

impl Free {
    /// So many places, the best first; none if there are not so many.
    fn take(&mut self, count: usize) -> Option<Vec<(i64, Option<place::Model>)>> {
        if self.places.len() < count {
            return None;
        }
        let next = || self.places.pop_first().map(|((_, place), row)| (place, row));
        Some(std::iter::from_fn(next).take(count).collect())
    }
}

impl Place {
    fn key(&self) -> tenantry_model::Columns {
        columns! { "region": self.region, "kind": self.kind, "place": self.place }
    }

    /// The write that takes the place: a new row, or the one that is there if nobody else takes it first.
    fn reserved(&self, tenant: TenantId, row: Option<&place::Model>, now: Timestamp) -> Write {
        let mine = columns! { "tenant_id": tenant, "reserved_until": now + RESERVED_FOR };
        match row {
            None => {
                let mut new = self.key();
                new.extend(mine);
                Write::insert_unique("places", new)
            }
            Some(row) => {
                let until: Option<Timestamp> = row.reserved_until.map(Into::into);
                let was = columns! { "tenant_id": row.tenant_id, "reserved_until": until };
                Write::update_if("places", self.key(), was, mine)
            }
        }
    }
}

fn unreadable(error: ReadError) -> Failure {
    Failure::retryable("registry_unavailable", error)
}
