//! A limit of rates: events are counted by subject within a window of time. The counts are those of this process.

use std::hash::Hash;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use tenantry_model::Timestamp;

/// Most counts in memory, about 200 bytes each.
const MOST: u64 = 100_000;

/// The counts, each with the time of its first event.
pub struct Rate<S> {
    counts: Cache<S, (u32, Timestamp)>,
    window: Duration,
}

impl<S: Clone + Eq + Hash + Send + Sync + 'static> Rate<S> {
    /// Counts within windows of this length, each of which begins with the first event.
    pub fn new(window: Duration) -> Self {
        Self { counts: Cache::builder().max_capacity(MOST).time_to_live(window).build(), window }
    }

    /// Counts an event of this subject, of which a window may have `most`. Returns the time until the next window if there
    /// were more.
    pub fn count(&self, subject: S, most: u32, now: Timestamp) -> Result<(), Duration> {
        let entry = self.counts.entry(subject).and_compute_with(|entry| {
            let before = entry.map(|entry| entry.into_value());
            // A clock that was set back begins a new window.
            let within = before.filter(|(_, since)| *since <= now && now.since(*since) < self.window);
            let (count, since) = within.unwrap_or((0, now));
            Op::Put((count.saturating_add(1), since))
        });
        match entry.into_entry().map(|entry| entry.into_value()) {
            Some((count, since)) if count > most => Err(self.window.saturating_sub(now.since(since))),
            _ => Ok(()),
        }
    }

    /// Takes back one event of this subject.
    pub fn uncount(&self, subject: S) {
        self.counts.entry(subject).and_compute_with(|entry| match entry.map(|entry| entry.into_value()) {
            Some((count, since)) => Op::Put((count.saturating_sub(1), since)),
            None => Op::Nop,
        });
    }

    /// Forgets the events of this subject.
    pub fn forget(&self, subject: &S) {
        self.counts.invalidate(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_number_of_events() {
        let second = Duration::from_secs(1);
        let (rate, now) = (Rate::new(10 * second), Timestamp::from_micros(1_000_000_000));
        for _ in 0..3 {
            rate.count("a", 3, now).unwrap();
        }
        assert_eq!(rate.count("a", 3, now + 4 * second), Err(6 * second));
        rate.count("b", 3, now).unwrap();
        rate.count("a", 3, now + 10 * second).unwrap();
        rate.count("a", 1, now - 100 * second).unwrap();
    }
}
