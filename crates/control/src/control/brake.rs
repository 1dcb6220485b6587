//! A brake on guessing passwords: sign-ins are counted by account and by the client's address, and too many are rejected
//! before a password is looked at. A success clears the counts of its account. The counts are those of this process.

use std::net::IpAddr;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use tenantry_model::{ErrorCode, Timestamp};

use crate::error::{Error, Result};

/// Time from the first of counted sign-ins until they are forgotten.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Most counts in memory, about 200 bytes each.
const MOST: u64 = 100_000;
/// Sign-ins to one account from one address.
const BY_BOTH: u32 = 10;
/// Sign-ins to one account from all addresses. Higher than from one, so that another client's guesses do not lock a member
/// out.
const BY_ACCOUNT: u32 = 100;
/// Sign-ins from one address to all accounts.
const BY_ADDRESS: u32 = 100;

/// What sign-ins are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum By {
    Both(String, IpAddr),
    Account(String),
    Address(IpAddr),
}

/// The counts, each with the time of its first sign-in.
pub struct Brake(Cache<By, (u32, Timestamp)>);

impl Default for Brake {
    fn default() -> Self {
        Self(Cache::new(MOST))
    }
}

impl Brake {
    /// Counts a sign-in before it is tried. Fails if there were too many.
    pub fn count(&self, account: &str, from: IpAddr, now: Timestamp) -> Result<()> {
        let counted = [
            (By::Both(account.to_owned(), from), BY_BOTH),
            (By::Account(account.to_owned()), BY_ACCOUNT),
            (By::Address(from), BY_ADDRESS),
        ];
        for (by, most) in counted {
            let entry = self.0.entry(by).and_compute_with(|entry| {
                let before = entry.map(|entry| entry.into_value());
                let within = before.filter(|(_, since)| now.since(*since) < WINDOW);
                let (count, since) = within.unwrap_or((0, now));
                Op::Put((count.saturating_add(1), since))
            });
            let count = entry.into_entry().map_or(0, |entry| entry.into_value().0);
            if count > most {
                let minutes = WINDOW.as_secs() / 60;
                let message = format!("too many sign-ins failed; try again in {minutes} minutes");
                return Err(Error::new(ErrorCode::TooManyAttempts, message));
            }
        }
        Ok(())
    }

    /// Forgets the sign-ins to an account, after one from this address that succeeded.
    pub fn clear(&self, account: &str, from: IpAddr) {
        self.0.invalidate(&By::Both(account.to_owned(), from));
        self.0.invalidate(&By::Account(account.to_owned()));
        self.0.entry(By::Address(from)).and_compute_with(|entry| {
            match entry.map(|entry| entry.into_value()) {
                Some((count, since)) => Op::Put((count.saturating_sub(1), since)),
                None => Op::Nop,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_counted_by_account_and_by_address() {
        let (brake, now) = (Brake::default(), Timestamp::from_micros(1_000_000));
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let tries =
            |account: &str, from| (0..1_000).take_while(|_| brake.count(account, from, now).is_ok()).count();
        assert_eq!(tries("ada", address(1)), 10, "one account from one address");
        assert!(brake.count("ada", address(2), now).is_ok(), "the member elsewhere is not locked out");
        let all: usize = (3..100).map(|n| tries("ada", address(n))).sum();
        assert!((80..100).contains(&all), "one account from many addresses: {all}");
        let many: usize = (0..1_000).map(|n| tries(&format!("user {n}"), address(200)).min(1)).sum();
        assert!(many < 100, "many accounts from one address: {many}");
        assert_eq!(brake.count("ada", address(1), now).unwrap_err().code, ErrorCode::TooManyAttempts);
        assert!(brake.count("ada", address(1), now + WINDOW).is_ok(), "after a while");
    }

    #[test]
    fn a_success_clears_the_counts_of_its_account() {
        let (brake, now, from) = (Brake::default(), Timestamp::from_micros(0), IpAddr::from([127, 0, 0, 1]));
        for _ in 0..3 * BY_ADDRESS {
            brake.count("ada", from, now).unwrap();
            brake.clear("ada", from);
        }
    }
}
