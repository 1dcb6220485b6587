//! Reproducible randomness: every random test prints its seed, and `TENANTRY_TEST_SEED` sets it.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The seed of `TENANTRY_TEST_SEED`, or a random one.
pub fn seed() -> u64 {
    match std::env::var("TENANTRY_TEST_SEED") {
        Ok(text) => text.parse().expect("TENANTRY_TEST_SEED is a whole number"),
        Err(_) => rand::random::<u32>().into(),
    }
}

/// A generator with the run's seed, which it prints.
pub fn generator(test: &str) -> (u64, StdRng) {
    let seed = seed();
    println!("{test}: repeat with TENANTRY_TEST_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}
