//! Followers of operations: sends each committed change to the followers of its operation, through one
//! channel per operation.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tenantry_model::id::OperationId;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::operation::Run;

/// Changes that a channel keeps for a slow follower; older ones are lost.
const CAPACITY: usize = 64;

/// The channel of each followed operation.
#[derive(Default)]
pub(crate) struct Followers(Mutex<HashMap<OperationId, broadcast::Sender<Arc<Run>>>>);

impl Followers {
    pub fn follow(self: &Arc<Self>, id: OperationId) -> Changes {
        let mut all = self.0.lock();
        let receiver = all.entry(id).or_insert_with(|| broadcast::channel(CAPACITY).0).subscribe();
        Changes { id, receiver, followers: Arc::downgrade(self) }
    }

    /// True when the operation has followers.
    pub fn any(&self, id: OperationId) -> bool {
        self.0.lock().contains_key(&id)
    }

    /// The followed operations.
    pub fn all(&self) -> Vec<OperationId> {
        self.0.lock().keys().copied().collect()
    }

    pub fn tell(&self, run: &Arc<Run>) {
        if let Some(sender) = self.0.lock().get(&run.operation.id) {
            // The last follower may have been dropped in between.
            let _ = sender.send(run.clone());
        }
    }
}

/// The committed changes of one operation since the call of `follow`. Ends with the executor.
pub struct Changes {
    id: OperationId,
    receiver: broadcast::Receiver<Arc<Run>>,
    followers: Weak<Followers>,
}

impl Changes {
    /// The next change. `Lagged` when changes were lost; load the operation then.
    pub async fn next(&mut self) -> Result<Arc<Run>, RecvError> {
        self.receiver.recv().await
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let Some(followers) = self.followers.upgrade() else { return };
        let mut all = followers.0.lock();
        // The count includes this receiver.
        if all.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            all.remove(&self.id);
        }
    }
}
