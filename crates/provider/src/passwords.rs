//! Generates random passwords.

use rand::seq::IndexedRandom;

/// A password of 24 characters without look-alikes: 138 bits of entropy.
pub fn random() -> String {
    const LETTERS: &[u8; 54] = b"ABCDEFGHJKMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    (0..24).filter_map(|_| LETTERS.choose(&mut random).map(|letter| char::from(*letter))).collect()
}

#[cfg(test)]
mod tests {
    use super::random;

    #[test]
    fn passwords_are_long_and_unique() {
        assert_eq!(random().len(), 24);
        assert_ne!(random(), random());
    }
}
