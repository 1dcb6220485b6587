//! A brake on guessing passwords: sign-ins are counted by account and by the client's address, and too many are rejected
//! before a password is looked at. A success clears the counts of its account. The counts are those of this process.

use std::time::Duration;

use tenantry_model::{ClientAddress, ErrorCode, Timestamp};

use crate::control::rate::Rate;
use crate::error::{Error, Result};

/// Time from the first of counted sign-ins until they are forgotten.
const WINDOW: Duration = Duration::from_secs(15 * 60);
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
    Both(String, ClientAddress),
    Account(String),
    Address(ClientAddress),
}

/// The counts.
pub struct Brake(Rate<By>);

impl Default for Brake {
    fn default() -> Self {
        Self(Rate::new(WINDOW))
    }
}

impl Brake {
    /// Counts a sign-in before it is tried. Fails if there were too many.
    pub fn count(&self, account: &str, from: ClientAddress, now: Timestamp) -> Result<()> {
        let counted = [
            (By::Both(account.to_owned(), from), BY_BOTH),
            (By::Account(account.to_owned()), BY_ACCOUNT),
            (By::Address(from), BY_ADDRESS),
        ];
        for (by, most) in counted {
            self.0.count(by, most, now).map_err(|_| {
                let minutes = WINDOW.as_secs() / 60;
                let message = format!("too many sign-ins failed; try again in {minutes} minutes");
                Error::new(ErrorCode::TooManyAttempts, message)
            })?;
        }
        Ok(())
    }

    /// Forgets the sign-ins to an account, after one from this address that succeeded.
    pub fn clear(&self, account: &str, from: ClientAddress) {
        self.0.forget(&By::Both(account.to_owned(), from));
        self.0.forget(&By::Account(account.to_owned()));
        self.0.uncount(By::Address(from));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn guesses_are_counted_by_account_and_by_address() {
        let (brake, now) = (Brake::default(), Timestamp::from_micros(1_000_000));
        let address = |n: u32| ClientAddress::from(IpAddr::from(n.to_be_bytes()));
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
        let (brake, now) = (Brake::default(), Timestamp::from_micros(0));
        let from = IpAddr::from([127, 0, 0, 1]).into();
        for _ in 0..3 * BY_ADDRESS {
            brake.count("ada", from, now).unwrap();
            brake.clear("ada", from);
        }
    }
}
