//! Outages of providers. A failed call raises a suspicion; a probe that fails as well confirms it, and the first one that
//! succeeds ends the outage.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tenantry_model::{Failure, Timestamp, Write};

/// An outage of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutageRecord {
    /// Time of the probe that confirmed it.
    pub since: Timestamp,
    /// Failure of that probe.
    pub failure: Failure,
}

/// What a probe changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutageChange {
    /// An outage has begun.
    Began(OutageRecord),
    /// An outage has ended.
    Ended(OutageRecord),
}

/// Which providers are down, and which may be.
#[derive(Default)]
pub(crate) struct Outages {
    state: Mutex<State>,
    /// Events that are not written yet.
    events: Mutex<Vec<Write>>,
}

#[derive(Default)]
struct State {
    suspects: BTreeSet<String>,
    down: BTreeMap<String, OutageRecord>,
}

impl Outages {
    /// A call of this provider has failed in a way that a retry may heal. Returns whether the provider is known to be down.
    pub fn suspect(&self, provider: &str) -> bool {
        let mut state = self.state.lock();
        if state.down.contains_key(provider) {
            return true;
        }
        state.suspects.insert(provider.to_owned());
        false
    }

    /// The providers to probe.
    pub fn to_probe(&self) -> BTreeSet<String> {
        let state = self.state.lock();
        state.suspects.iter().chain(state.down.keys()).cloned().collect()
    }

    /// Records a probe. A probe that is refused, for example for a missing privilege, neither begins an outage nor ends one.
    pub fn probed(
        &self,
        provider: &str,
        probed: Result<(), Failure>,
        now: Timestamp,
    ) -> Option<OutageChange> {
        let mut state = self.state.lock();
        state.suspects.remove(provider);
        match probed {
            Err(failure) if failure.may_retry() || state.down.contains_key(provider) => {
                if state.down.contains_key(provider) {
                    return None;
                }
                let record = OutageRecord { since: now, failure };
                state.down.insert(provider.to_owned(), record.clone());
                Some(OutageChange::Began(record))
            }
            Ok(()) | Err(_) => state.down.remove(provider).map(OutageChange::Ended),
        }
    }

    /// Adds an event that is to be written.
    pub fn queue_event(&self, event: Write) {
        self.events.lock().push(event);
    }

    /// Puts back events that could not be written, before those that were added in the meantime.
    pub fn requeue_events(&self, events: impl IntoIterator<Item = Write>) {
        self.events.lock().splice(0..0, events);
    }

    /// Takes the events that are not written yet.
    pub fn take_events(&self) -> Vec<Write> {
        std::mem::take(&mut *self.events.lock())
    }

    /// Forgets everything, because another process becomes the leader: it finds the outages that last.
    pub fn clear(&self) {
        *self.state.lock() = State::default();
        self.events.lock().clear();
    }

    /// The providers that are down.
    pub fn down(&self) -> BTreeMap<String, OutageRecord> {
        self.state.lock().down.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Failure {
        Failure::retryable("unreachable", "connection refused")
    }

    #[test]
    fn an_outage_begins_and_ends_with_a_probe() {
        let (outages, at) = (Outages::default(), Timestamp::from_micros);
        assert!(!outages.suspect("postgres") && !outages.suspect("postgres"));
        assert_eq!(outages.to_probe(), BTreeSet::from(["postgres".to_owned()]));
        let record = OutageRecord { since: at(1), failure: refused() };
        let began = outages.probed("postgres", Err(refused()), at(1));
        assert_eq!(began, Some(OutageChange::Began(record.clone())));
        assert_eq!(outages.probed("postgres", Err(refused()), at(2)), None, "one outage, told once");
        assert!(outages.suspect("postgres"), "known to be down");
        let rejected = Err(Failure::fatal("bad_credentials", "the password is wrong"));
        assert_eq!(outages.probed("postgres", rejected, at(2)), None, "a refusal is no sign that it works");
        assert_eq!(outages.down(), BTreeMap::from([("postgres".to_owned(), record.clone())]));
        assert_eq!(outages.probed("postgres", Ok(()), at(3)), Some(OutageChange::Ended(record)));
        assert_eq!((outages.to_probe(), outages.down()), Default::default());
    }

    #[test]
    fn a_suspicion_without_an_outage_changes_nothing() {
        for probed in [Ok(()), Err(Failure::fatal("forbidden", "a privilege is missing"))] {
            let outages = Outages::default();
            outages.suspect("postgres");
            assert_eq!(outages.probed("postgres", probed, Timestamp::from_micros(1)), None);
            assert_eq!((outages.to_probe(), outages.down()), Default::default());
        }
    }
}
