//! Counts of what is in flight, by subject: connections of an address, requests of a tenant. A subject whose share is used
//! up gets no more. A subject with nothing in flight takes no memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts.
#[derive(Debug)]
pub struct InFlight<S>(Mutex<HashMap<S, usize>>);

/// One in each of the shares that it was counted in, until it is dropped.
#[derive(Debug)]
pub struct Permit<S: Eq + Hash> {
    counts: Arc<InFlight<S>>,
    subjects: Vec<S>,
}

impl<S> Default for InFlight<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Eq + Hash + Clone> InFlight<S> {
    /// Counts one more in all of these shares, each a subject and the most that it may have; or in none, and returns the
    /// first subject whose share is used up.
    pub fn enter<T: AsRef<[(S, usize)]>>(self: &Arc<Self>, shares: T) -> Result<Permit<S>, S> {
        let shares = shares.as_ref();
        let mut counts = self.counts();
        if let Some((full, _)) =
            shares.iter().find(|(subject, most)| counts.get(subject).is_some_and(|count| count >= most))
        {
            return Err(full.clone());
        }
        let subjects = Vec::from_iter(shares.iter().map(|(subject, _)| subject.clone()));
        for subject in &subjects {
            *counts.entry(subject.clone()).or_default() += 1;
        }
        drop(counts);
        Ok(Permit { counts: self.clone(), subjects })
    }
}

impl<S: Eq + Hash> InFlight<S> {
    /// Number of a subject's in flight.
    pub fn count(&self, subject: &S) -> usize {
        self.counts().get(subject).copied().unwrap_or_default()
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<S, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Eq + Hash> Drop for Permit<S> {
    fn drop(&mut self) {
        let mut counts = self.counts.counts();
        for subject in self.subjects.drain(..) {
            if let Entry::Occupied(mut count) = counts.entry(subject) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_used_up_takes_nothing_of_the_others() {
        let counts = Arc::new(InFlight::default());
        let enter = |who: &'static str| counts.enter([(who, 2), ("all", 3)]);
        let first = enter("a").unwrap();
        let _second = enter("a").unwrap();
        assert_eq!(enter("a").unwrap_err(), "a");
        let _third = enter("b").unwrap();
        assert_eq!(enter("b").unwrap_err(), "all");
        assert_eq!(enter("c").unwrap_err(), "all");
        assert_eq!(*counts.counts(), HashMap::from([("a", 2), ("b", 1), ("all", 3)]));
        drop(first);
        enter("c").unwrap();
        assert_eq!(counts.counts().len(), 3, "`c` has nothing in flight and is forgotten");
    }
}
