//! Who follows which operation: each committed change goes to the followers of its operation alone, so that ten
//! thousand who wait for theirs cost the others nothing.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tenantry_model::id::OperationId;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::operation::Run;

/// Changes that a slow follower may be behind before it loses the oldest.
const BEHIND: usize = 64;

/// The followers of every operation that has some.
#[derive(Default)]
pub(crate) struct Followers(Mutex<HashMap<OperationId, broadcast::Sender<Arc<Run>>>>);

impl Followers {
    pub fn follow(self: &Arc<Self>, id: OperationId) -> Changes {
        let mut all = self.0.lock();
        let receiver = all.entry(id).or_insert_with(|| broadcast::channel(BEHIND).0).subscribe();
        Changes { id, receiver, followers: Arc::downgrade(self) }
    }

    /// Whether anybody follows it.
    pub fn any(&self, id: OperationId) -> bool {
        self.0.lock().contains_key(&id)
    }

    /// All that are followed.
    pub fn all(&self) -> Vec<OperationId> {
        self.0.lock().keys().copied().collect()
    }

    pub fn tell(&self, run: &Arc<Run>) {
        if let Some(sender) = self.0.lock().get(&run.operation.id) {
            // Nobody listening is fine.
            let _ = sender.send(run.clone());
        }
    }
}

/// The committed changes of one operation from now on. They end with the executor.
pub struct Changes {
    id: OperationId,
    receiver: broadcast::Receiver<Arc<Run>>,
    followers: Weak<Followers>,
}

impl Changes {
    /// The next change. `Lagged`: some were missed, perhaps the one that counts.
    pub async fn next(&mut self) -> Result<Arc<Run>, RecvError> {
        self.receiver.recv().await
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let Some(followers) = self.followers.upgrade() else { return };
        let mut all = followers.0.lock();
        // This one still counts.
        if all.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            all.remove(&self.id);
        }
    }
}
