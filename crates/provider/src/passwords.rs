//! Random passwords.

use rand::seq::IndexedRandom;

/// 24 characters that nobody mistakes for one another: 138 bits.
pub fn random() -> String {
    const LETTERS: &[u8; 54] = b"ABCDEFGHJKMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    (0..24).filter_map(|_| LETTERS.choose(&mut random).map(|letter| char::from(*letter))).collect()
}
