//! Random choices by seed. Each customer and each source of faults has a stream of its own, so that what it draws does not
//! depend on how fast the others are: the same seed repeats the same draws.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// A stream of choices.
pub struct Draw(StdRng);

impl Draw {
    /// The stream of this name in the run with this seed.
    pub fn of(seed: u64, name: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
        Self(StdRng::from_seed(digest.into()))
    }

    /// A stream for one use case or fault. It takes one choice of this stream, whatever is drawn from it.
    pub fn branch(&mut self) -> Self {
        Self(StdRng::seed_from_u64(self.0.random()))
    }

    /// One of these choices, by weight.
    pub fn weighted<T: Copy>(&mut self, choices: &[(T, u32)]) -> T {
        let sum: u32 = choices.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.0.random_range(0..sum);
        for (choice, weight) in choices {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return *choice,
            }
        }
        choices[0].0
    }

    /// One of these.
    pub fn one<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.0.random_range(0..of.len())].clone()) }
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    /// A number of milliseconds in this range.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.0.random_range(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, name: &str) -> Vec<u32> {
        let mut draw = Draw::of(seed, name);
        (0..40).map(|_| draw.weighted(&[(1, 1), (2, 5), (3, 2), (4, 9)])).collect()
    }

    #[test]
    fn the_same_seed_repeats_the_same_draws() {
        assert_eq!(drawn(7, "customer 1"), drawn(7, "customer 1"));
        assert_ne!(drawn(7, "customer 1"), drawn(8, "customer 1"));
        assert_ne!(drawn(7, "customer 1"), drawn(7, "customer 2"));
    }

    #[test]
    fn a_branch_takes_one_choice() {
        let [mut few, mut many] = [Draw::of(7, "x"), Draw::of(7, "x")];
        few.branch();
        let mut branch = many.branch();
        for _ in 0..9 {
            branch.percent(50);
        }
        assert_eq!(few.millis(0..1 << 40), many.millis(0..1 << 40));
    }

    #[test]
    fn weights_are_kept_to() {
        let mut draw = Draw::of(1, "x");
        let drawn: Vec<char> = (0..1_000).map(|_| draw.weighted(&[('a', 0), ('b', 1), ('c', 9)])).collect();
        let count = |what| drawn.iter().filter(|one| **one == what).count();
        assert_eq!(count('a'), 0);
        assert!((50..200).contains(&count('b')), "{}", count('b'));
    }
}
