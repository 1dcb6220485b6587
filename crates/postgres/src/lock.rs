//! Advisory locks by name. The number of a name is the one that earlier releases used, so that old and new processes
//! exclude each other.

use std::ops::{Deref, DerefMut};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

use crate::session::Session;

/// Context of the key derivation, so that the numbers differ from others that are derived from the same names.
const CONTEXT: &[u8] = b"SQLx (Rust) Postgres advisory lock";

/// A session that holds an advisory lock. Dropping it sends the release at once.
pub struct AdvisoryLock<S: DerefMut<Target = Session>> {
    session: S,
    key: i64,
}

impl<S: DerefMut<Target = Session>> AdvisoryLock<S> {
    /// The lock of this name, which the session has taken by [`Session::lock`] or [`Session::try_lock`].
    pub fn held(name: &str, session: S) -> Self {
        Self { session, key: key(name) }
    }
}

impl<S: DerefMut<Target = Session>> Drop for AdvisoryLock<S> {
    fn drop(&mut self) {
        self.session.queue(&format!("SELECT pg_advisory_unlock({})", self.key));
    }
}

impl<S: DerefMut<Target = Session>> Deref for AdvisoryLock<S> {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl<S: DerefMut<Target = Session>> DerefMut for AdvisoryLock<S> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// Length of a lock's number in bytes.
struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        size_of::<i64>()
    }
}

/// The number of the lock of this name.
pub fn key(name: &str) -> i64 {
    let mut bytes = [0; size_of::<i64>()];
    let derived = Salt::new(HKDF_SHA256, &[]).extract(name.as_bytes());
    let filled = derived.expand(&[CONTEXT], Length).and_then(|key| key.fill(&mut bytes));
    debug_assert!(filled.is_ok(), "the length fits the hash");
    i64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_those_of_earlier_releases() {
        assert_eq!(super::key("tenantry directory"), -2_694_203_068_923_472_665);
    }
}
