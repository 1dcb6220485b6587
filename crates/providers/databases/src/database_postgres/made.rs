//! What is made once on each server and then taken to be there: for as long as the server's history is the same. A standby
//! that was promoted, or a server that was restored, may lack it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tenantry_model::Failure;
use tokio::sync::Mutex as Turn;

use super::server::Server;

/// What was made on one server, and on which timeline.
type Once<T> = Arc<Turn<Option<(i32, T)>>>;

/// Made things, one for each server. Servers do not wait for each other.
pub struct Made<T>(Mutex<BTreeMap<String, Once<T>>>);

impl<T> Default for Made<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Made<T> {
    /// What was made on this server; makes it if it was not, or if the server has another history since. Safe to drop: the
    /// next call goes on.
    pub async fn on(
        &self,
        server: &Server,
        make: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let turn = self.0.lock().entry(server.place()).or_default().clone();
        let mut made = turn.lock().await;
        let timeline = server.timeline().await?;
        match &*made {
            Some((of, thing)) if *of == timeline => Ok(thing.clone()),
            _ => {
                let thing = make.await?;
                *made = Some((timeline, thing.clone()));
                Ok(thing)
            }
        }
    }
}
