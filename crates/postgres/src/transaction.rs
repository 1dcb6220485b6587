//! A transaction on a session that it borrows, or owns for its time.

use std::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::session::Session;

/// A transaction. Dropping it without a commit sends ROLLBACK at once, before anything else that the session does.
pub struct Transaction<S: DerefMut<Target = Session>> {
    session: S,
    open: bool,
}

impl<S: DerefMut<Target = Session>> Transaction<S> {
    /// Begins a transaction.
    pub async fn begin(session: S) -> Result<Self, Error> {
        // From here on a dropped future rolls back what it may have begun.
        let mut transaction = Self { session, open: true };
        transaction.session.run("BEGIN").await?;
        Ok(transaction)
    }

    /// Commits. After an error that is not the server's it is unknown whether the transaction has taken effect.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.session.run("COMMIT").await?;
        self.open = false;
        Ok(())
    }

    /// Rolls back and waits for it.
    pub async fn rollback(mut self) -> Result<(), Error> {
        self.session.run("ROLLBACK").await?;
        self.open = false;
        Ok(())
    }
}

impl<S: DerefMut<Target = Session>> Drop for Transaction<S> {
    fn drop(&mut self) {
        if self.open {
            self.session.queue("ROLLBACK");
        }
    }
}

impl<S: DerefMut<Target = Session>> Deref for Transaction<S> {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl<S: DerefMut<Target = Session>> DerefMut for Transaction<S> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
