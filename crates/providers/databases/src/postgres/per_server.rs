//! Values that are set up once per server and then reused: until a connection finds the server on another
//! timeline. A promoted standby or a restored server may lack what they stand for.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tenantry_model::Failure;
use tokio::sync::Mutex as AsyncMutex;

use super::server::Server;

/// The value of one server with the timeline that it belongs to.
type Once<T> = Arc<AsyncMutex<Option<(i32, T)>>>;

/// One value per server. Callers of different servers do not wait for each other.
pub struct PerServer<T>(Mutex<BTreeMap<String, Once<T>>>);

impl<T> Default for PerServer<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> PerServer<T> {
    /// Returns the server's value; runs `make` if there is none, or if the server's timeline has changed.
    /// Cancel-safe: the next call starts again.
    pub async fn get_or_init(
        &self,
        server: &Server,
        make: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let slot = self.0.lock().entry(server.id()).or_default().clone();
        let mut made = slot.lock().await;
        let timeline = server.timeline().await?;
        match &*made {
            Some((of, thing)) if *of == timeline => Ok(thing.clone()),
            _ => {
                // Setting up is rare and its futures are large.
                let thing = Box::pin(make).await?;
                *made = Some((timeline, thing.clone()));
                Ok(thing)
            }
        }
    }
}
