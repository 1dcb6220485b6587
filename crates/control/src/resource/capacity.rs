//! Capacity: the number of resources of a kind that a region may hold, counted in slots.
//!
//! A slot is a row with a unique key, so two tenants cannot have the same one, however many requests and processes
//! compete. The free slots in memory only say which rows to try first, and which slots an onboarding has claimed whose
//! rows are not committed yet. A reservation expires after [`RESERVED_FOR`]; another tenant may then take the slot, and
//! the activation of the tenant that had it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tenantry_model::{Failure, TenantId, Timestamp, Write, columns};

use tenantry_store::{ReadError, Store, entity::slot};

/// Number of slots by region and kind. A kind that is not named has no limit.
pub type Capacity = BTreeMap<String, BTreeMap<String, u32>>;

/// Duration of a reservation; an onboarding that takes longer may lose its slots.
pub const RESERVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A slot of a kind in a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Region.
    pub region: String,
    /// Resource kind.
    pub kind: String,
    /// Slot number, from 1 on; stored plans call it `place`.
    #[serde(rename = "place")]
    pub slot: i64,
}

/// Time for which a region without free slots is not read again.
const FULL_FOR: Duration = Duration::from_millis(100);

/// The known free slots of one kind in one region, each with its row if it has one; slots with an expired reservation
/// come last. A slot leaves the list when it is offered, and returns with the next read of the rows if it is still free.
#[derive(Default)]
struct Free {
    slots: BTreeMap<(bool, i64), Option<slot::Model>>,
    /// Time of the last read that found no free slot.
    full_at: Option<Timestamp>,
}

/// Slots, and the writes that reserve them.
type Reservation = (Vec<Slot>, Vec<Write>);

/// The slots of a registry.
pub struct Slots {
    store: Store,
    capacity: Capacity,
    free: Mutex<BTreeMap<(String, String), Free>>,
    claimed: Mutex<BTreeMap<TenantId, Reservation>>,
}

/// Reserves slots within this process until it is dropped.
pub struct Claim<'a> {
    slots: &'a Slots,
    tenant: TenantId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.slots.claimed.lock().remove(&self.tenant);
    }
}

impl Slots {
    /// Reads the slots of this registry.
    pub fn new(store: Store, capacity: Capacity) -> Arc<Self> {
        Arc::new(Self { store, capacity, free: Mutex::default(), claimed: Mutex::default() })
    }

    /// The needed kinds without enough free slots, each as `database in eu`.
    pub async fn missing(
        &self,
        region: &str,
        needed: &BTreeMap<String, u32>,
        now: Timestamp,
    ) -> Result<Vec<String>, ReadError> {
        let mut missing = Vec::new();
        for (kind, count, limit) in self.limited(region, needed) {
            let enough = |free: &mut Free| free.slots.len() >= count as usize;
            if self.look(region, kind, limit, now, |free| enough(free).then_some(())).await?.is_none() {
                missing.push(format!("{kind} in {region}"));
            }
        }
        Ok(missing)
    }

    /// Finds the slots that [`Self::reserve`] will reserve for this tenant. The error names everything that is missing.
    pub async fn claim(
        &self,
        tenant: TenantId,
        region: &str,
        needed: &BTreeMap<String, u32>,
        now: Timestamp,
    ) -> Result<Claim<'_>, Failure> {
        let found = self.reserve(tenant, region, needed, now).await?;
        self.claimed.lock().insert(tenant, found);
        Ok(Claim { slots: self, tenant })
    }

    /// The slots that are reserved by these writes: those that were claimed, or else free ones. The error names
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
        let (mut slots, mut writes, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, count, limit) in self.limited(region, needed) {
            let taken = self.look(region, kind, limit, now, |free| free.take(count as usize)).await;
            match taken.map_err(unreadable)? {
                None => missing.push(format!("{kind} in {region}")),
                Some(taken) => {
                    for (slot, row) in taken {
                        let slot = Slot { region: region.to_owned(), kind: kind.clone(), slot };
                        writes.push(slot.reserved(tenant, row.as_ref(), now));
                        slots.push(slot);
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok((slots, writes));
        }
        // Clients match this wording.
        Err(Failure::fatal(
            "insufficient_resources",
            format!("Insufficient resources: {}", missing.join(", ")),
        ))
    }

    /// Writes that turn the reservations of a tenant into slots in use. They fail if another tenant has taken one.
    pub fn keep(tenant: TenantId, slots: &[Slot]) -> Vec<Write> {
        let own = || columns! { "tenant_id": tenant };
        let keep =
            |slot: &Slot| Write::update_if("slots", slot.key(), own(), columns! { "reserved_until": () });
        slots.iter().map(keep).collect()
    }

    /// Writes that free the slots of a tenant.
    pub async fn release(&self, tenant: TenantId) -> Result<Vec<Write>, Failure> {
        let rows = self.store.slots_of(&tenant.to_string()).await.map_err(unreadable)?;
        let own = columns! { "tenant_id": tenant };
        let free = columns! { "tenant_id": (), "reserved_until": () };
        let back = rows.into_iter().map(|slot::Model { region, kind, slot, .. }| {
            Write::update_if("slots", Slot { region, kind, slot }.key(), own.clone(), free.clone())
        });
        Ok(back.collect())
    }

    /// Selects the needed kinds that have a limit in the region: kind, needed number, limit.
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

    /// Applies `find` to the free slots in memory and, if it finds nothing, to the free slots in the registry.
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
        let rows = self.store.slots(region, kind).await?;
        let mut slots: BTreeMap<_, _> = (1..=limit).map(|slot| ((false, slot), None)).collect();
        for row in rows.into_iter().filter(|row| row.slot <= limit) {
            slots.remove(&(false, row.slot));
            let run_out = row.reserved_until.is_some_and(|until| *until <= now);
            if row.tenant_id.is_none() || run_out {
                slots.insert((run_out, row.slot), Some(row));
            }
        }
        let claimed = self.claimed_of(region, kind);
        slots.retain(|(_, slot), _| !claimed.contains(slot));
        let mut all = self.free.lock();
        let free = all.entry(key).or_default();
        *free = Free { full_at: slots.is_empty().then_some(now), slots };
        Ok(find(free))
    }

    fn claimed_of(&self, region: &str, kind: &str) -> BTreeSet<i64> {
        let claimed = self.claimed.lock();
        let slots = claimed.values().flat_map(|(slots, _)| slots);
        slots.filter(|slot| slot.region == region && slot.kind == kind).map(|slot| slot.slot).collect()
    }
}

impl Free {
    /// So many slots, the best first; none if there are not so many.
    fn take(&mut self, count: usize) -> Option<Vec<(i64, Option<slot::Model>)>> {
        if self.slots.len() < count {
            return None;
        }
        let next = || self.slots.pop_first().map(|((_, slot), row)| (slot, row));
        Some(std::iter::from_fn(next).take(count).collect())
    }
}

impl Slot {
    fn key(&self) -> tenantry_model::Columns {
        columns! { "region": self.region, "kind": self.kind, "slot": self.slot }
    }

    /// The write that reserves the slot: inserts its row, or updates it if it is unchanged since it was read.
    fn reserved(&self, tenant: TenantId, row: Option<&slot::Model>, now: Timestamp) -> Write {
        let mine = columns! { "tenant_id": tenant, "reserved_until": now + RESERVED_FOR };
        match row {
            None => {
                let mut new = self.key();
                new.extend(mine);
                Write::insert_unique("slots", new)
            }
            Some(row) => {
                let until: Option<Timestamp> = row.reserved_until.map(Into::into);
                let was = columns! { "tenant_id": row.tenant_id, "reserved_until": until };
                Write::update_if("slots", self.key(), was, mine)
            }
        }
    }
}

fn unreadable(error: ReadError) -> Failure {
    Failure::retryable("registry_unavailable", error)
}
