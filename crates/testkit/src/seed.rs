//! Chance that can be played again: every random test prints its seed, and `TENANTRY_TEST_SEED` repeats it.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// The run's seed: what the environment says, or a new one.
pub fn seed() -> u64 {
    match std::env::var("TENANTRY_TEST_SEED") {
        Ok(text) => text.parse().expect("TENANTRY_TEST_SEED is a whole number"),
        Err(_) => rand::random::<u32>().into(),
    }
}

/// A generator from the run's seed, which is printed: a test that fails shows it.
pub fn generator(test: &str) -> (u64, StdRng) {
    let seed = seed();
    println!("{test}: play it again with TENANTRY_TEST_SEED={seed}");
    (seed, StdRng::seed_from_u64(seed))
}
